//! Beginning to listen, with what was missed before: the answer and the events after it are in one order, without a hole and
//! without a double. And reading the past, which is the same without listening.

use std::ops::Range;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use messaging_core::{EntryId, Position};

use super::Hub;
use tokio::time::timeout;

use super::feed::{self, Feed, Goal, Mark};
use super::ring::{Kept, Since, Told};
use super::topic::{Place, Source, Streams, Topic, offset};
use crate::command::{self, After, Order};
use crate::connection::Connection;
use crate::descriptor::SlowPolicy;
use crate::event::{At, Event};
use crate::filter::{Fields, Filter};
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
    /// Not at all without what was missed.
    pub(crate) must_recover: bool,
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
    /// It is not known any more what they have missed, and without that they do not want it.
    Unrecoverable,
}

/// What is wanted of the past.
pub(crate) struct Past<'a> {
    pub(crate) channel: &'a Arc<str>,
    pub(crate) filter: &'a Filter,
    /// What came after this.
    pub(crate) since: Option<&'a command::Since>,
    pub(crate) order: Order,
    /// At most so many.
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
    Ahead(Arc<Feed>, Mark),
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

/// What one try to join came to.
enum Tried {
    Listens,
    Already,
    Unrecoverable,
}

/// How far back one looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// So many of the newest events, in so many bytes as an answer has.
    Newest(usize),
    /// As far as may be.
    All,
}

/// What is looked for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    channel: &'a Arc<str>,
    filter: &'a Filter,
    since: Option<&'a command::Since>,
    /// If nothing was missed, or it is not known what.
    reach: Reach,
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
    /// Begins to tell somebody the events of a channel. `answer` is called before the first of them, and puts it into their
    /// queue.
    ///
    /// # Errors
    /// What the backend says.
    ///
    /// Cancellation: they may listen, or not; [`Topic::leave`] ends it either way.
    pub(crate) async fn join(
        self: &Arc<Self>,
        join: Join<'_>,
        answer: impl Fn(&Outcome) + Send + Sync,
    ) -> messaging_core::Result<Joined> {
        let (mut tries, mut may_wait) = (0, true);
        loop {
            let topic = self.topic(join.channel).await?;
            let look = self.try_join(&topic, &join, tries < TRIES, may_wait, &answer);
            match look {
                Look::Found(Tried::Listens) => return Ok(Joined::Now(topic)),
                Look::Found(Tried::Already) => return Ok(Joined::Already),
                Look::Found(Tried::Unrecoverable) => return Ok(Joined::Unrecoverable),
                Look::Again => tokio::task::yield_now().await,
                Look::Ahead(feed, mark) => may_wait = timeout(BEHIND, feed.reach(mark)).await.is_ok(),
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
        answer: &(impl Fn(&Outcome) + Send + Sync),
    ) -> Look<Tried> {
        let feeds = topic.feeds();
        let states: Vec<_> = feeds.iter().map(|feed| feed.lock()).collect();
        let mut state = topic.lock();
        if state.is_closed {
            return Look::Again;
        }
        if state.has(join.connection) {
            return Look::Found(Tried::Already);
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
                    reach: Reach::Newest(join.last),
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
                    Look::Ahead(feed, mark) => return Look::Ahead(feed, mark),
                    Look::Again => return Look::Again,
                }
            }
            _ => return Look::Again,
        };
        if join.must_recover && outcome.recovered == Some(false) {
            return Look::Found(Tried::Unrecoverable);
        }
        state.add(Arc::clone(join.connection), join.filter.clone(), join.policy);
        answer(&outcome);
        Look::Found(Tried::Listens)
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
                        let wanted = Wanted {
                            channel: past.channel,
                            filter: past.filter,
                            // Backwards from a place is everything before it.
                            since: past.since.filter(|_| past.order != Order::Backward),
                            reach: past.reach(),
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
                Look::Found(Seen { is_whole: false, .. })
                    if past.since.is_some() && past.order != Order::Backward =>
                {
                    return Err(PastError::Unrecoverable);
                }
                Look::Found(seen) => return past.page(seen, self.limits.answer.get()),
                Look::Grow(feeds) => {
                    for (feed, goal) in feeds {
                        feed.grow(&goal).await?;
                    }
                }
                Look::Ahead(feed, mark) => may_wait = timeout(BEHIND, feed.reach(mark)).await.is_ok(),
                Look::Again => tokio::task::yield_now().await,
            }
            tries += 1;
        }
    }
}

impl Past<'_> {
    /// How much of what is there has to be looked at.
    fn reach(&self) -> Reach {
        match (self.order, self.since) {
            _ if self.limit == 0 && self.since.is_none() => Reach::Newest(0),
            (Order::Latest, None) | (Order::Backward, None) => Reach::Newest(self.limit),
            (Order::Latest | Order::Forward, Some(_)) => Reach::Newest(0),
            (Order::Forward, None) | (Order::Backward, Some(_)) => Reach::All,
        }
    }

    /// What is told of it at once.
    fn page(&self, seen: Seen, bytes: usize) -> Result<(Place, Vec<Event>), PastError> {
        let Seen { mut events, mut place, .. } = seen;
        if self.order == Order::Backward {
            if let Some(since) = self.since {
                // One number is not enough for several streams.
                let (After::Number(number), Some(_)) = (&since.after, place.number) else {
                    return Err(PastError::Unrecoverable);
                };
                if since.epoch != place.epoch {
                    return Err(PastError::Unrecoverable);
                }
                let is_later = |event: &Event| event.number().is_some_and(|own| own.get() >= *number);
                let before = events.iter().position(is_later).unwrap_or(events.len());
                events.truncate(before);
            }
            events.reverse();
        }
        let page = fitting(&events, bytes).min(self.limit);
        if events.len() > page {
            events.truncate(page);
            // Where the next page begins.
            if self.order == Order::Latest
                && let Some(offset) = events.last().and_then(Event::offset)
            {
                offset.clone_into(&mut place.offset);
            }
        }
        Ok((place, events))
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
    let number = match states {
        [one] => Some(one.ring.number()),
        _ => None,
    };
    let place = Place { epoch: streams.epoch(), offset: offset(&high), number };
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
            Missed::Ahead(feed, mark) => return Look::Ahead(feed, mark),
            Missed::Lost => is_whole = false,
        }
    }
    if wanted.reach == Reach::Newest(0) {
        return Look::Found(Seen { is_whole, events: Vec::new(), place });
    }
    let most = match wanted.reach {
        Reach::Newest(most) => most,
        Reach::All => usize::MAX,
    };
    let goal = Goal::Events(Arc::clone(wanted.channel), most);
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
    if wanted.reach != Reach::All {
        let newest = fitting(events.iter().rev(), wanted.bytes).min(most);
        events.drain(..events.len() - newest);
    }
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
    Ahead(Arc<Feed>, Mark),
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
    let offset = match &since.after {
        After::Offset(offset) => offset,
        After::Number(number) => return missed_since(feeds, states, *number, wanted),
    };
    let positions: Option<Vec<Position>> = offset.split(',').map(|position| position.parse().ok()).collect();
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
            Since::Ahead if wanted.may_wait => {
                return Missed::Ahead(Arc::clone(feed), Mark::Id(position.id));
            }
            Since::Older | Since::Ahead | Since::Lost => return Missed::Lost,
        }
    }
    if grow.is_empty() { Missed::These(ranges, positions) } else { Missed::Grow(grow) }
}

/// The same by the number of the last event that somebody has seen. One number is not enough for several streams.
fn missed_since(
    feeds: &[Arc<Feed>],
    states: &[MutexGuard<'_, feed::State>],
    number: u64,
    wanted: Wanted<'_>,
) -> Missed {
    let ([feed], [state]) = (feeds, states) else { return Missed::Lost };
    let concerns = |entry: &Kept| {
        let channel = entry.message.as_ref().map(|(channel, _)| channel.as_str());
        // Who reads the past has said what they want.
        !wanted.is_paged && channel == Some(&**wanted.channel)
    };
    match state.ring.since_number(number, concerns) {
        Since::Here(range) => Missed::These(vec![range], vec![state.ring.below()]),
        Since::Older if wanted.may_grow && state.ring.can_grow() => {
            Missed::Grow(vec![(Arc::clone(feed), Goal::AfterNumber(number))])
        }
        Since::Ahead if wanted.may_wait => Missed::Ahead(Arc::clone(feed), Mark::Number(number)),
        Since::Older | Since::Ahead | Since::Lost => Missed::Lost,
    }
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
        .filter_map(|(_, number, own, payload)| {
            positions[number] = own;
            let passes = wanted.filter.passes(&Fields::read(payload.as_bytes(), &paths));
            passes.then(|| Event::new(wanted.channel, Some(At::new(&positions, own)), payload.clone()))
        })
        .collect();
    (events, all_told)
}
