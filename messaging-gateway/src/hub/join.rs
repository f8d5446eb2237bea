//! Beginning to listen, with what was missed before: the answer and the events after it are in one order, without a hole and
//! without a double. And reading the past, which is the same without listening.

use std::ops::Range;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use messaging_core::{EntryId, Position};

use super::Hub;
use tokio::time::timeout;

use super::feed::{self, Feed, Goal};
use super::ring::{Since, Told};
use super::topic::{Place, Source, Streams, Topic, offset};
use crate::command;
use crate::connection::Connection;
use crate::descriptor::SlowPolicy;
use crate::event::Event;
use crate::filter::{Fields, Filter};
use crate::frame::Frame;
use crate::payload::Payload;

/// How often one tries to reach back, before what was missed is given up: a stream may be faster than its past is read.
const TRIES: usize = 8;
/// How far this gateway may be behind another one, which a client has come from.
const BEHIND: Duration = Duration::from_secs(1);

/// Somebody who wants to listen to a channel.
pub(crate) struct Join<'a> {
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) channel: &'a Arc<str>,
    pub(crate) filter: &'a Filter,
    pub(crate) policy: SlowPolicy,
    pub(crate) resume: Option<&'a command::Since>,
    /// So many events of the past, where nothing was missed.
    pub(crate) last: usize,
}

/// How it begins.
pub(crate) struct Outcome {
    /// Where the subscription begins, on a resumable channel.
    pub(crate) place: Option<Place>,
    /// Whether everything that was missed is among the events; nothing if nobody asked.
    pub(crate) recovered: Option<bool>,
    pub(crate) events: Vec<Event>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Joined {
    Now(Arc<Topic>),
    /// They listen already.
    Already,
}

/// What is wanted of the past.
pub(crate) struct Past<'a> {
    pub(crate) channel: &'a Arc<str>,
    pub(crate) filter: &'a Filter,
    /// What came after this.
    pub(crate) since: Option<&'a command::Since>,
    /// At most so many: the oldest after `since`, the newest without.
    pub(crate) limit: usize,
}

/// Why there is no past.
#[derive(Debug)]
pub(crate) enum PastError {
    /// The channel is not resumable.
    NotAvailable,
    /// It is not known any more what came after that.
    Unrecoverable,
    Backend(messaging_core::Error),
}

impl From<messaging_core::Error> for PastError {
    fn from(error: messaging_core::Error) -> Self {
        Self::Backend(error)
    }
}

/// What one look came to.
enum Look<T> {
    Found(T),
    /// These have to reach back so far.
    Grow(Vec<(Arc<Feed>, Goal)>),
    /// This one has still to read what somebody else has read.
    Ahead(Arc<Feed>, EntryId),
    /// The channel is given up just now, or its source changes.
    Again,
}

/// The past of one look.
struct Seen {
    /// Without a hole, if that was asked.
    is_whole: bool,
    events: Vec<Event>,
    place: Place,
}

/// What is looked for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    channel: &'a Arc<str>,
    filter: &'a Filter,
    since: Option<&'a command::Since>,
    /// How many of the newest, if nothing was missed, or it is not known what.
    last: usize,
    /// How many bytes of them.
    bytes: usize,
    /// What does not fit is asked for later.
    is_paged: bool,
    /// Whether older entries may still be asked for.
    may_grow: bool,
    /// Whether newer ones may be waited for.
    may_wait: bool,
}

impl Hub {
    /// Begins to tell somebody the events of a channel. What `answer` makes is put into their queue before the first of them.
    ///
    /// # Errors
    /// What the backend says.
    ///
    /// Cancellation: they may listen, or not; [`Topic::leave`] ends it either way.
    pub(crate) async fn join(
        self: &Arc<Self>,
        join: Join<'_>,
        answer: impl Fn(&Outcome) -> Frame + Send + Sync,
    ) -> messaging_core::Result<Joined> {
        let (mut tries, mut may_wait) = (0, true);
        loop {
            let topic = self.topic(join.channel).await?;
            let look = self.try_join(&topic, &join, tries < TRIES, may_wait, &answer);
            match look {
                Look::Found(true) => return Ok(Joined::Now(topic)),
                Look::Found(false) => return Ok(Joined::Already),
                Look::Again => tokio::task::yield_now().await,
                Look::Ahead(feed, id) => may_wait = timeout(BEHIND, feed.reach(id)).await.is_ok(),
                Look::Grow(feeds) => {
                    for (feed, goal) in feeds {
                        feed.grow(&goal).await?;
                    }
                }
            }
            tries += 1;
        }
    }

    fn try_join(
        &self,
        topic: &Arc<Topic>,
        join: &Join<'_>,
        may_grow: bool,
        may_wait: bool,
        answer: &(impl Fn(&Outcome) -> Frame + Send + Sync),
    ) -> Look<bool> {
        let feeds = topic.feeds();
        let states: Vec<_> = feeds.iter().map(|feed| feed.lock()).collect();
        let mut state = topic.lock();
        if state.is_closed {
            return Look::Again;
        }
        if state.has(join.connection) {
            return Look::Found(false);
        }
        let outcome = match &mut state.source {
            Source::Broadcast if feeds.is_empty() => {
                Outcome { place: None, recovered: join.resume.map(|_| false), events: Vec::new() }
            }
            Source::Streams(streams) if same(&streams.feeds, &feeds) => {
                // Nothing was told of what is not for this channel.
                streams.positions = states.iter().map(|state| state.ring.high()).collect();
                let wanted = Wanted {
                    channel: join.channel,
                    filter: join.filter,
                    since: join.resume,
                    last: join.last,
                    bytes: self.limits.answer.get(),
                    is_paged: false,
                    may_grow,
                    may_wait,
                };
                match look(&feeds, &states, streams, wanted) {
                    Look::Found(Seen { is_whole, events, place }) => {
                        let recovered = join.resume.map(|_| is_whole);
                        Outcome { place: Some(place), recovered, events }
                    }
                    Look::Grow(feeds) => return Look::Grow(feeds),
                    Look::Ahead(feed, id) => return Look::Ahead(feed, id),
                    Look::Again => return Look::Again,
                }
            }
            _ => return Look::Again,
        };
        state.add(Arc::clone(join.connection), join.filter.clone(), join.policy);
        join.connection.outbox.push(answer(&outcome));
        Look::Found(true)
    }

    /// Reads the past of a channel that somebody listens to. What `answer` makes of it is put into their queue.
    pub(crate) async fn past(&self, topic: &Topic, past: Past<'_>) -> Result<(Place, Vec<Event>), PastError> {
        let (mut tries, mut may_wait) = (0, true);
        loop {
            let feeds = topic.feeds();
            if feeds.is_empty() {
                return Err(PastError::NotAvailable);
            }
            let found = {
                let states: Vec<_> = feeds.iter().map(|feed| feed.lock()).collect();
                let state = topic.lock();
                match &state.source {
                    Source::Streams(streams) if same(&streams.feeds, &feeds) => {
                        let last = if past.since.is_some() { 0 } else { past.limit };
                        let wanted = Wanted {
                            channel: past.channel,
                            filter: past.filter,
                            since: past.since,
                            last,
                            bytes: self.limits.answer.get(),
                            is_paged: true,
                            may_grow: tries < TRIES,
                            may_wait,
                        };
                        look(&feeds, &states, streams, wanted)
                    }
                    _ => Look::Again,
                }
            };
            match found {
                Look::Found(Seen { is_whole: false, .. }) if past.since.is_some() => {
                    return Err(PastError::Unrecoverable);
                }
                Look::Found(Seen { mut events, mut place, .. }) => {
                    let page = fitting(&events, self.limits.answer.get()).min(past.limit);
                    if past.since.is_some() && events.len() > page {
                        events.truncate(page);
                        // Where the next page begins.
                        if let Some(offset) = events.last().and_then(Event::offset) {
                            offset.clone_into(&mut place.offset);
                        }
                    }
                    return Ok((place, events));
                }
                Look::Grow(feeds) => {
                    for (feed, goal) in feeds {
                        feed.grow(&goal).await?;
                    }
                }
                Look::Ahead(feed, id) => may_wait = timeout(BEHIND, feed.reach(id)).await.is_ok(),
                Look::Again => tokio::task::yield_now().await,
            }
            tries += 1;
        }
    }
}

fn same(some: &[Arc<Feed>], others: &[Arc<Feed>]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// Reads what was missed, or else the last events, out of the rings.
fn look(
    feeds: &[Arc<Feed>],
    states: &[MutexGuard<'_, feed::State>],
    streams: &Streams,
    wanted: Wanted<'_>,
) -> Look<Seen> {
    let high: Vec<Position> = states.iter().map(|state| state.ring.high()).collect();
    let place = Place { epoch: streams.epoch(), offset: offset(&high) };
    let whole = |events| Look::Found(Seen { is_whole: true, events, place: place.clone() });
    let mut is_whole = true;
    if let Some(since) = wanted.since {
        match missed(feeds, states, &place, since, wanted) {
            Missed::These(ranges, before) => {
                let (events, all_told) = gather(states, &ranges, before, wanted);
                if all_told && (wanted.is_paged || fitting(&events, wanted.bytes) == events.len()) {
                    return whole(events);
                }
                is_whole = false;
            }
            Missed::Grow(goals) => return Look::Grow(goals),
            Missed::Ahead(feed, id) => return Look::Ahead(feed, id),
            Missed::Lost => is_whole = false,
        }
    }
    if wanted.last == 0 {
        return Look::Found(Seen { is_whole, events: Vec::new(), place });
    }
    let goal = Goal::Events(Arc::clone(wanted.channel), wanted.last);
    let grow: Vec<_> = feeds
        .iter()
        .zip(states)
        .filter(|(_, state)| wanted.may_grow && state.ring.can_grow() && !state.reaches(&goal))
        .map(|(feed, _)| (Arc::clone(feed), goal.clone()))
        .collect();
    if !grow.is_empty() {
        return Look::Grow(grow);
    }
    let ranges: Vec<_> = states.iter().map(|state| 0..state.ring.len()).collect();
    let before = states.iter().map(|state| state.ring.below()).collect();
    let (mut events, _) = gather(states, &ranges, before, wanted);
    let newest = fitting(events.iter().rev(), wanted.bytes).min(wanted.last);
    events.drain(..events.len() - newest);
    Look::Found(Seen { is_whole, events, place })
}

/// How many of these fit into an answer of so many bytes; one always does.
fn fitting<'a>(events: impl IntoIterator<Item = &'a Event>, bytes: usize) -> usize {
    /// What an event takes beside its payload and offset.
    const ITSELF: usize = 24;
    let mut size = 0;
    let fits = |(number, event): &(usize, &Event)| {
        size += ITSELF + event.payload().len() + event.offset().map_or(0, str::len);
        size <= bytes || *number == 0
    };
    events.into_iter().enumerate().take_while(fits).count()
}

/// What came after a place that a client has named.
enum Missed {
    /// These entries of each stream, and the positions before them.
    These(Vec<Range<usize>>, Vec<Position>),
    Grow(Vec<(Arc<Feed>, Goal)>),
    Ahead(Arc<Feed>, EntryId),
    Lost,
}

fn missed(
    feeds: &[Arc<Feed>],
    states: &[MutexGuard<'_, feed::State>],
    place: &Place,
    since: &command::Since,
    wanted: Wanted<'_>,
) -> Missed {
    if since.epoch != place.epoch {
        return Missed::Lost;
    }
    let positions: Option<Vec<Position>> =
        since.offset.split(',').map(|position| position.parse().ok()).collect();
    let Some(positions) = positions.filter(|positions| positions.len() == states.len()) else {
        return Missed::Lost;
    };
    let (mut ranges, mut grow) = (Vec::new(), Vec::new());
    for ((feed, state), position) in feeds.iter().zip(states).zip(&positions) {
        match state.ring.since(*position) {
            Since::Here(range) => ranges.push(range),
            Since::Older if wanted.may_grow && state.ring.can_grow() => {
                grow.push((Arc::clone(feed), Goal::After(position.id)));
            }
            Since::Ahead if wanted.may_wait => return Missed::Ahead(Arc::clone(feed), position.id),
            Since::Older | Since::Ahead | Since::Lost => return Missed::Lost,
        }
    }
    if grow.is_empty() { Missed::These(ranges, positions) } else { Missed::Grow(grow) }
}

/// The events of a channel among some entries, in order, each with the offset that it has; and whether none of them is too
/// large to be told.
fn gather(
    states: &[MutexGuard<'_, feed::State>],
    ranges: &[Range<usize>],
    mut positions: Vec<Position>,
    wanted: Wanted<'_>,
) -> (Vec<Event>, bool) {
    let paths: Vec<_> = wanted.filter.paths().cloned().collect();
    let mut all_told = true;
    let mut found: Vec<(EntryId, usize, Position, &Payload)> = Vec::new();
    for (number, (state, range)) in states.iter().zip(ranges).enumerate() {
        for place in range.clone() {
            let entry = state.ring.get(place);
            match &entry.message {
                Some((channel, told)) if channel.as_str() == &**wanted.channel => match told {
                    Told::Payload(payload) => {
                        found.push((entry.position.id, number, entry.position, payload))
                    }
                    Told::Not => all_told = false,
                },
                _ => {}
            }
        }
    }
    // Each stream is in order; among several, the older go first.
    if states.len() > 1 {
        found.sort_by_key(|(id, number, ..)| (*id, *number));
    }
    let events = found
        .into_iter()
        .filter_map(|(_, number, position, payload)| {
            positions[number] = position;
            let passes = wanted.filter.passes(&Fields::read(payload.as_bytes(), &paths));
            passes.then(|| Event::new(wanted.channel, Some(offset(&positions).into()), payload.clone()))
        })
        .collect();
    (events, all_told)
}
