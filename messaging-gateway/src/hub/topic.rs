//! One channel and everybody who listens to it: grouped by their filters and protocols, so that an event is looked at once
//! for each filter and encoded once for all.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messaging_core::Position;
use slab::Slab;
use tokio::time::Instant;

use super::feed::Feed;
use crate::code::UnsubscribeCode;
use crate::connection::{Connection, Taken};
use crate::descriptor::SlowPolicy;
use crate::event::{At, Event, Run};
use crate::filter::{Fields, Filter};
use crate::metrics::Metrics;
use crate::native::{GapReason, Say, SayPlace};
use crate::outbox::Pushed;
use crate::payload::Payload;
use crate::protocol::Protocol;

#[derive(Debug)]
pub(crate) struct Topic {
    channel: Arc<str>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    groups: Slab<Group>,
    by_filter: HashMap<(Filter, Protocol), usize>,
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
    /// The last number of the one stream, if it is one.
    pub(crate) number: Option<u64>,
}

impl Place {
    pub(crate) fn say(&self) -> SayPlace<'_> {
        SayPlace { epoch: &self.epoch, offset: &self.offset, number: self.number }
    }
}

#[derive(Debug)]
struct Group {
    filter: Filter,
    protocol: Protocol,
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
        Place { epoch: self.epoch(), offset: offset(&self.positions), number: None }
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

impl At {
    /// Of an event that makes these the positions of its channel.
    pub(super) fn new(positions: &[Position], own: Position) -> Self {
        let number = if positions.len() == 1 { NonZeroU64::new(own.number) } else { None };
        Self { offset: offset(positions).into(), number }
    }
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
                let at = at.and_then(|(feed, position)| state.advance(feed, position));
                let fields = Fields::read(payload.as_bytes(), &state.paths);
                (Arc::new(Event::new(&self.channel, at, payload)), fields)
            })
            .collect();
        let mut deliveries = 0;
        for (_, group) in &state.groups {
            let passing = told.iter().filter(|(_, fields)| group.filter.passes(fields));
            let runs = Run::of(group.protocol, passing.map(|(event, _)| event));
            let events: usize = runs.iter().map(|run| run.events().len()).sum();
            if events == 0 {
                continue;
            }
            for (_, member) in &group.members {
                let gap = || self.gap(GapReason::Slow, None, |say| group.protocol.frame(say));
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

    /// Tells everybody that events may be missing here. Clients of Centrifugo are unsubscribed, and subscribe again from
    /// where they are: their protocol has no other way to say it.
    pub(super) fn tell_gap(&self, reason: GapReason) {
        let mut state = self.lock();
        let place = state.place();
        self.gap(reason, place.as_ref(), |gap| state.tell_all(Protocol::Native, gap));
        let others = state.take_all(Protocol::Centrifugo);
        let unsubscribed = Say::unsubscribed(&self.channel, UnsubscribeCode::InsufficientState);
        let frame = if others.is_empty() { None } else { Protocol::Centrifugo.frame(&unsubscribed) };
        let mut ended = Vec::with_capacity(others.len());
        for connection in others {
            // Before it is told: then it may be subscribed again at once.
            ended.extend(connection.forget(&self.channel));
            frame.iter().for_each(|frame| connection.outbox.push(frame.clone()));
        }
        drop(state);
        self.metrics.gaps.of(reason).increment();
        ended.iter().for_each(|_| self.metrics.subscriptions.decrement());
    }

    /// Takes note of how far a stream has come without an event for this channel, and tells everybody: who has seen nothing
    /// for long would otherwise resume from where the stream is not kept any more.
    pub(super) fn tell_position(&self, feed: usize, position: Position) {
        let mut state = self.lock();
        let Some(At { offset, .. }) = state.advance(feed, position) else { return };
        state.tell_all(Protocol::Native, &Say::Position { channel: &self.channel, offset: &offset });
    }

    /// Does something with what says that events may be missing.
    fn gap<T>(&self, reason: GapReason, place: Option<&Place>, tell: impl FnOnce(&Say<'_>) -> T) -> T {
        tell(&Say::Gap { channel: &self.channel, reason, place: place.map(Place::say) })
    }

    /// Whether somebody listens.
    pub(crate) fn has(&self, connection: &Connection) -> bool {
        self.lock().has(connection)
    }

    /// Ends a subscription and says so, in one step: who hears of it may subscribe again at once. `take` takes it out of what
    /// the connection has, or says why it goes on. One that is just beginning is ended too.
    pub(crate) fn end(
        &self,
        connection: &Arc<Connection>,
        code: UnsubscribeCode,
        take: impl FnOnce(&Connection) -> Taken,
    ) -> bool {
        let mut state = self.lock();
        let taken = take(connection);
        let is_ended = match &taken {
            Taken::GoesOn => false,
            Taken::Ended(subscribed) => state.remove(connection).is_some() || subscribed.is_some(),
        };
        if is_ended {
            connection.say(&Say::unsubscribed(&self.channel, code));
        }
        drop(state);
        if let Taken::Ended(Some(_)) = taken {
            self.metrics.subscriptions.decrement();
        }
        is_ended
    }

    /// Changes the filter of somebody who listens, between two events; `answer` is what they are told then. `false` if they
    /// do not listen.
    pub(crate) fn update(&self, connection: &Arc<Connection>, filter: Filter, answer: &Say<'_>) -> bool {
        let mut state = self.lock();
        let Some(member) = state.remove(connection) else { return false };
        state.add(member.connection, filter, member.policy);
        connection.say(answer);
        true
    }

    /// Tells no more events to somebody.
    pub(crate) fn leave(&self, connection: &Arc<Connection>) {
        self.lock().remove(connection);
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

    /// The same; returns where clients are then.
    fn advance(&mut self, feed: usize, position: Position) -> Option<At> {
        self.note(feed, position);
        match &self.source {
            Source::Broadcast => None,
            Source::Streams(streams) => Some(At::new(&streams.positions, position)),
        }
    }

    /// Tells everybody of a protocol the same.
    fn tell_all(&self, protocol: Protocol, say: &Say<'_>) {
        let mut groups = self.groups.iter().filter(|(_, group)| group.protocol == protocol).peekable();
        if groups.peek().is_none() {
            return;
        }
        let Some(frame) = protocol.frame(say) else { return };
        for (_, group) in groups {
            for (_, member) in &group.members {
                member.connection.outbox.tell(frame.clone());
            }
        }
    }

    /// Takes everybody of a protocol out.
    fn take_all(&mut self, protocol: Protocol) -> Vec<Arc<Connection>> {
        let groups = self.groups.iter().filter(|(_, group)| group.protocol == protocol);
        let members = groups.flat_map(|(_, group)| group.members.iter());
        let connections: Vec<_> = members.map(|(_, member)| Arc::clone(&member.connection)).collect();
        for connection in &connections {
            self.remove(connection);
        }
        connections
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
        let key = (filter, connection.protocol());
        let group = match self.by_filter.get(&key) {
            Some(group) => *group,
            None => {
                let (filter, protocol) = key.clone();
                let group = self.groups.insert(Group { filter, protocol, members: Slab::new() });
                self.by_filter.insert(key, group);
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
            self.by_filter.remove(&(group.filter, group.protocol));
            self.note_paths();
        }
        if self.places.is_empty() {
            self.idle_since = Some(Instant::now());
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
