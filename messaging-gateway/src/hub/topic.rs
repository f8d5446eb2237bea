//! One channel and everybody who listens to it: grouped by their filters, so that an event is looked at once for each
//! filter and encoded once for all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messaging_core::Position;
use slab::Slab;
use tokio::time::Instant;

use super::feed::Feed;
use crate::connection::Connection;
use crate::descriptor::SlowPolicy;
use crate::event::{Event, Run};
use crate::filter::{Fields, Filter};
use crate::frame::Frame;
use crate::metrics::Metrics;
use crate::native::{GapReason, Say, SayPlace};
use crate::outbox::Pushed;
use crate::payload::Payload;

#[derive(Debug)]
pub(crate) struct Topic {
    channel: Arc<str>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    groups: Slab<Group>,
    by_filter: HashMap<Filter, usize>,
    /// Where each connection is: its group, and its place there.
    places: HashMap<u64, (usize, usize)>,
    /// The fields that some filter looks at.
    paths: Vec<Arc<str>>,
    pub(super) source: Source,
    /// Since when nobody listens.
    idle_since: Option<Instant>,
    /// It is not in the hub any more.
    pub(super) is_closed: bool,
}

/// Where events come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// From what is published, as it is heard.
    Broadcast,
    /// From the streams that carry the channel.
    Streams(Streams),
}

#[derive(Debug)]
pub(crate) struct Streams {
    pub(super) feeds: Vec<Arc<Feed>>,
    /// Up to where each of them has been told here.
    pub(super) positions: Vec<Position>,
    pub(super) epochs: Vec<Arc<str>>,
}

/// What a client resumes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) epoch: String,
    pub(crate) offset: String,
}

impl Place {
    pub(crate) fn say(&self) -> SayPlace<'_> {
        SayPlace { epoch: &self.epoch, offset: &self.offset }
    }
}

#[derive(Debug)]
struct Group {
    filter: Filter,
    members: Slab<Member>,
}

#[derive(Debug)]
struct Member {
    connection: Arc<Connection>,
    policy: SlowPolicy,
}

impl Streams {
    /// As clients know it.
    fn place(&self) -> Place {
        Place { epoch: self.epoch(), offset: offset(&self.positions) }
    }

    /// The epochs of all streams, as clients keep them.
    pub(super) fn epoch(&self) -> String {
        self.epochs.join(".")
    }
}

/// The positions in all streams, as clients keep them.
pub(super) fn offset(positions: &[Position]) -> String {
    let mut text = String::with_capacity(24 * positions.len());
    for (place, position) in positions.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&position.to_string());
    }
    text
}

/// An event that is about to be told: the payload, and where it stands, if that is known.
pub(super) struct News {
    pub(super) payload: Payload,
    /// Which of the feeds it is from, and its position there.
    pub(super) at: Option<(usize, Position)>,
}

impl Topic {
    pub(super) fn new(channel: Arc<str>, source: Source, metrics: Arc<Metrics>) -> Self {
        let state = State {
            groups: Slab::new(),
            by_filter: HashMap::new(),
            places: HashMap::new(),
            paths: Vec::new(),
            source,
            idle_since: Some(Instant::now()),
            is_closed: false,
        };
        Self { channel, metrics, state: Mutex::new(state) }
    }

    /// One that is told by hand.
    pub(crate) fn broadcast(channel: Arc<str>, metrics: Arc<Metrics>) -> Self {
        Self::new(channel, Source::Broadcast, metrics)
    }

    /// Lets somebody listen.
    pub(crate) fn add(&self, connection: Arc<Connection>, filter: Filter, policy: SlowPolicy) {
        self.lock().add(connection, filter, policy);
    }

    /// Tells one event.
    pub(crate) fn tell_one(&self, payload: Payload) {
        self.tell(vec![News { payload, at: None }]);
    }

    pub(crate) fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells events, in order.
    pub(super) fn tell(&self, news: Vec<News>) {
        let mut state = self.lock();
        self.metrics.events.add(news.len() as u64);
        if state.is_idle() {
            news.iter().filter_map(|news| news.at).for_each(|(feed, position)| state.note(feed, position));
            return;
        }
        let is_broadcast = matches!(state.source, Source::Broadcast);
        let told: Vec<(Arc<Event>, Fields)> = news
            .into_iter()
            // What is heard still after the streams have taken over comes from them.
            .filter(|news| news.at.is_none() == is_broadcast)
            .map(|News { payload, at }| {
                let offset = at.and_then(|(feed, position)| state.advance(feed, position));
                let fields = Fields::read(payload.as_bytes(), &state.paths);
                (Arc::new(Event::told(&self.channel, offset, payload)), fields)
            })
            .collect();
        let mut deliveries = 0;
        for (_, group) in &state.groups {
            let passing = told.iter().filter(|(_, fields)| group.filter.passes(fields));
            let runs = Run::of(passing.map(|(event, _)| event));
            let events: usize = runs.iter().map(|run| run.events().len()).sum();
            if events == 0 {
                continue;
            }
            for (_, member) in &group.members {
                let gap = || self.gap_frame(GapReason::Slow, None);
                match member.connection.outbox.push_events(&runs, member.policy, gap) {
                    Pushed::All => deliveries += events,
                    Pushed::Dropped => {
                        deliveries += events;
                        self.metrics.slow.of(member.policy).increment();
                    }
                    Pushed::TooSlow => self.metrics.slow.disconnect.increment(),
                    Pushed::Ended => {}
                }
            }
        }
        drop(state);
        self.metrics.deliveries.add(deliveries as u64);
    }

    /// Tells everybody that events may be missing here.
    pub(super) fn tell_gap(&self, reason: GapReason) {
        let state = self.lock();
        let place = state.place();
        self.tell_all(&state, &self.gap_frame(reason, place.as_ref()));
        self.metrics.gaps.of(reason).increment();
    }

    /// Takes note of how far a stream has come without an event for this channel, and tells everybody: who has seen nothing
    /// for long would otherwise resume from where the stream is not kept any more.
    pub(super) fn tell_position(&self, feed: usize, position: Position) {
        let mut state = self.lock();
        let Some(offset) = state.advance(feed, position) else { return };
        self.tell_all(&state, &Say::Position { channel: &self.channel, offset: &offset }.frame());
    }

    /// Tells everybody the same.
    fn tell_all(&self, state: &State, frame: &Frame) {
        for (_, group) in &state.groups {
            for (_, member) in &group.members {
                member.connection.outbox.tell(frame.clone());
            }
        }
    }

    fn gap_frame(&self, reason: GapReason, place: Option<&Place>) -> Frame {
        Say::Gap { channel: &self.channel, reason, place: place.map(Place::say) }.frame()
    }

    /// Changes the filter of somebody who listens, between two events; `answer` is what they are told then. `false` if they
    /// do not listen.
    pub(crate) fn update(&self, connection: &Arc<Connection>, filter: Filter, answer: Frame) -> bool {
        let mut state = self.lock();
        let Some(member) = state.remove(connection) else { return false };
        state.add(member.connection, filter, member.policy);
        connection.outbox.push(answer);
        true
    }

    /// Tells no more events to somebody.
    pub(crate) fn leave(&self, connection: &Arc<Connection>) {
        let mut state = self.lock();
        state.remove(connection);
        if state.places.is_empty() {
            state.idle_since = Some(Instant::now());
        }
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.lock().idle_since
    }

    /// The streams that it is told by; none if it is heard as a broadcast.
    pub(super) fn feeds(&self) -> Vec<Arc<Feed>> {
        match &self.lock().source {
            Source::Broadcast => Vec::new(),
            Source::Streams(streams) => streams.feeds.clone(),
        }
    }
}

impl State {
    /// Takes note of a position.
    fn note(&mut self, feed: usize, position: Position) {
        if let Source::Streams(streams) = &mut self.source
            && let Some(place) = streams.positions.get_mut(feed)
        {
            *place = position;
        }
    }

    /// The same; returns the offset that it makes.
    fn advance(&mut self, feed: usize, position: Position) -> Option<Box<str>> {
        self.note(feed, position);
        match &self.source {
            Source::Broadcast => None,
            Source::Streams(streams) => Some(offset(&streams.positions).into()),
        }
    }

    pub(super) fn place(&self) -> Option<Place> {
        match &self.source {
            Source::Broadcast => None,
            Source::Streams(streams) => Some(streams.place()),
        }
    }

    /// Whether somebody listens.
    pub(super) fn has(&self, connection: &Connection) -> bool {
        self.places.contains_key(&connection.number)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn add(&mut self, connection: Arc<Connection>, filter: Filter, policy: SlowPolicy) {
        let number = connection.number;
        let group = match self.by_filter.get(&filter) {
            Some(group) => *group,
            None => {
                let group = self.groups.insert(Group { filter: filter.clone(), members: Slab::new() });
                self.by_filter.insert(filter, group);
                self.note_paths();
                group
            }
        };
        let place = self.groups[group].members.insert(Member { connection, policy });
        self.places.insert(number, (group, place));
        self.idle_since = None;
    }

    fn remove(&mut self, connection: &Connection) -> Option<Member> {
        let (group, place) = self.places.remove(&connection.number)?;
        let members = &mut self.groups[group].members;
        let member = members.remove(place);
        if members.is_empty() {
            let group = self.groups.remove(group);
            self.by_filter.remove(&group.filter);
            self.note_paths();
        }
        Some(member)
    }

    fn note_paths(&mut self) {
        let mut paths: Vec<_> =
            self.groups.iter().flat_map(|(_, group)| group.filter.paths()).cloned().collect();
        paths.sort_unstable();
        paths.dedup();
        self.paths = paths;
    }
}
