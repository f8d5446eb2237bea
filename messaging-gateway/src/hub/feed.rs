//! One stream, as it grows: its entries go to the channels that somebody listens to, and stay for those who come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messaging_core::{EntryId, Messaging, Position, StreamEnd, StreamEntry, StreamRef};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ring::{Kept, Ring, Told};
use super::topic::{News, Source, Topic};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::native::GapReason;
use crate::payload::{Payload, Unfit};

/// How many older entries are asked for at once.
const PAGE: usize = 1_000;
/// After so many entries those who listen are told how far the stream is, though none of them were for them.
const TICK: u64 = 2_000;

#[derive(Debug)]
pub(crate) struct Feed {
    pub(super) stream: StreamRef,
    messaging: Messaging,
    metrics: Arc<Metrics>,
    most_bytes: usize,
    state: Mutex<State>,
    /// Older entries are asked for once, for all who want them.
    growing: tokio::sync::Mutex<()>,
    /// After so many bytes those who listen are told how far the stream is.
    tick_bytes: usize,
    /// Wakes those who wait for entries that they have heard of elsewhere.
    moved: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) ring: Ring,
    pub(super) epoch: Arc<str>,
    /// Who is told, by the channel; each knows this feed by a number.
    topics: HashMap<Arc<str>, (Arc<Topic>, usize)>,
    /// The number when those who listen were told how far the stream is.
    ticked: u64,
    /// How many bytes have come since.
    untold: usize,
    idle_since: Option<Instant>,
}

/// An entry that somebody has heard of elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    Id(EntryId),
    Number(u64),
}

/// How far back a ring has to reach.
#[derive(Clone, Debug)]
pub(super) enum Goal {
    /// To what came after this entry.
    After(EntryId),
    /// To what came after the entry with this number.
    AfterNumber(u64),
    /// So that it has so many events of a channel.
    Events(Arc<str>, usize),
}

impl Feed {
    pub(super) fn new(
        stream: StreamRef,
        end: StreamEnd,
        messaging: Messaging,
        metrics: Arc<Metrics>,
        limits: &Limits,
    ) -> Self {
        let state = State {
            ring: Ring::new(end.position, limits.ring.get(), limits.ring_bytes.get()),
            epoch: end.epoch.into(),
            topics: HashMap::new(),
            ticked: end.position.number,
            untold: 0,
            idle_since: Some(Instant::now()),
        };
        let most_bytes = messaging.config().max_payload;
        Self {
            stream,
            messaging,
            metrics,
            most_bytes,
            state: Mutex::new(state),
            growing: tokio::sync::Mutex::default(),
            tick_bytes: limits.ring_bytes.get() / 4,
            moved: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what was appended, in order, and tells it.
    pub(super) async fn take_up(&self, entries: Vec<StreamEntry>) {
        let mut run = Vec::new();
        for entry in entries {
            // Numbers that go back are those of a stream that was made anew, or of a server that has lost its last entries.
            let goes_back = {
                let before =
                    run.iter().rev().map(|kept: &Kept| kept.position.number).find(|number| *number != 0);
                let before = before.unwrap_or_else(|| self.lock().ring.number());
                entry.position.number != 0 && entry.position.number <= before
            };
            if goes_back {
                self.tell(std::mem::take(&mut run));
                self.begin_anew(entry.position).await;
            }
            let kept = self.check(entry);
            let too_large = match &kept.message {
                Some((channel, Told::Not)) => Some(channel.clone()),
                _ => None,
            };
            run.push(kept);
            if let Some(channel) = too_large {
                self.tell(std::mem::take(&mut run));
                let topic = self.lock().topics.get(channel.as_str()).map(|(topic, _)| Arc::clone(topic));
                if let Some(topic) = topic {
                    topic.tell_gap(GapReason::TooLarge);
                }
            }
        }
        self.tell(run);
    }

    fn check(&self, entry: StreamEntry) -> Kept {
        let message = entry.message.and_then(|message| {
            let told = match Payload::check(message.payload().clone(), self.most_bytes) {
                Ok(payload) => Told::Payload(payload),
                Err(unfit) => {
                    self.metrics.unfit.increment();
                    tracing::debug!(channel = %message.channel(), ?unfit, "an event that does not go to clients");
                    match unfit {
                        Unfit::TooLarge => Told::Not,
                        // Nobody could have read it.
                        Unfit::NotJson => return None,
                    }
                }
            };
            Some((message.channel().clone(), told))
        });
        Kept { position: entry.position, message }
    }

    fn tell(&self, entries: Vec<Kept>) {
        if entries.is_empty() {
            return;
        }
        let mut state = self.lock();
        let mut expected = state.ring.number() + 1;
        let is_whole =
            entries.iter().map(|entry| entry.position.number).filter(|number| *number != 0).all(|number| {
                let is_next = number == expected;
                expected = number + 1;
                is_next
            });
        if !is_whole {
            // Whose events they were cannot be known.
            state.topics.values().for_each(|(topic, _)| topic.tell_gap(GapReason::Removed));
        }
        let mut news: HashMap<Arc<str>, Vec<News>> = HashMap::new();
        for entry in entries {
            if let Some((channel, Told::Payload(payload))) = &entry.message
                && let Some((channel, (_, feed))) = state.topics.get_key_value(channel.as_str())
            {
                let item = News { payload: payload.clone(), at: Some((*feed, entry.position)) };
                news.entry(Arc::clone(channel)).or_default().push(item);
            }
            state.untold += entry.size();
            state.ring.push(entry);
        }
        // Under the lock, so that who comes now gets either all of these from the ring or none.
        for (channel, news) in news {
            if let Some((topic, _)) = state.topics.get(&channel) {
                topic.tell(news);
            }
        }
        let is_due = state.ring.number() >= state.ticked + TICK || state.untold >= self.tick_bytes;
        if is_due {
            state.ticked = state.ring.number();
            state.untold = 0;
            let high = state.ring.high();
            state.topics.values().for_each(|(topic, feed)| topic.tell_position(*feed, high));
        }
        drop(state);
        self.moved.notify_waiters();
    }

    async fn begin_anew(&self, first: Position) {
        // Those who come back with it know numbers that mean other entries now.
        let over = Arc::clone(&self.lock().epoch);
        let epoch = match self.messaging.stream_end_after(&self.stream, &over).await {
            Ok(end) => end.epoch,
            // One that nobody else knows: who goes elsewhere with it is told that something may be missing.
            Err(error) => {
                tracing::debug!(stream = %self.stream, %error, "the epoch of a stream is not known");
                uuid::Uuid::new_v4().simple().to_string()
            }
        };
        tracing::warn!(stream = %self.stream, "the stream was made anew, or its server has lost entries");
        let EntryId { millis, sequence } = first.id;
        let id = match sequence.checked_sub(1) {
            Some(sequence) => EntryId { millis, sequence },
            None => EntryId { millis: millis.saturating_sub(1), sequence: u64::MAX },
        };
        let before = Position { id, number: first.number.saturating_sub(1) };
        let mut state = self.lock();
        state.ring.reset(before);
        state.epoch = epoch.into();
        state.ticked = before.number;
        for (topic, feed) in state.topics.values() {
            if let Source::Streams(streams) = &mut topic.lock().source {
                streams.positions[*feed] = before;
                streams.epochs[*feed] = Arc::clone(&state.epoch);
            }
            topic.tell_gap(GapReason::Reset);
        }
    }

    /// Tells a channel's events from now on.
    pub(super) fn add(state: &mut State, topic: &Arc<Topic>, feed: usize) {
        state.topics.insert(Arc::clone(topic.channel()), (Arc::clone(topic), feed));
        state.idle_since = None;
    }

    /// Tells a topic no more. Its channel may be that of another one by now.
    pub(super) fn remove(&self, topic: &Arc<Topic>) {
        let mut state = self.lock();
        if state.topics.get(topic.channel()).is_some_and(|(there, _)| Arc::ptr_eq(there, topic)) {
            state.topics.remove(topic.channel());
        }
        if state.topics.is_empty() {
            state.idle_since = Some(Instant::now());
        }
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.lock().idle_since
    }

    /// Waits until the stream is so far, here too.
    pub(super) async fn reach(&self, mark: Mark) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let is_there = match mark {
                Mark::Id(id) => self.lock().ring.high().id >= id,
                Mark::Number(number) => self.lock().ring.number() >= number,
            };
            if is_there {
                return;
            }
            moved.await;
        }
    }

    /// Lets the ring reach back, by reading what was before, as far as it may.
    ///
    /// # Errors
    /// What the backend says.
    pub(super) async fn grow(&self, goal: &Goal) -> messaging_core::Result<()> {
        let _turn = self.growing.lock().await;
        loop {
            let below = {
                let state = self.lock();
                if !state.ring.can_grow() || state.reaches(goal) {
                    return Ok(());
                }
                state.ring.below()
            };
            // With the one that is known already, if it is still there: it is not in the ring.
            let before = EntryId { sequence: below.id.sequence.saturating_add(1), ..below.id };
            let older = self.messaging.stream_before(&self.stream, before, PAGE).await?;
            self.metrics.history_reads.increment();
            let is_all = older.len() < PAGE;
            let older: Vec<_> = older.into_iter().map(|entry| self.check(entry)).collect();
            let mut state = self.lock();
            // Meanwhile the oldest may have gone, or the stream may have been made anew.
            if state.ring.below() == below {
                state.ring.grow(older, is_all);
            }
        }
    }
}

impl State {
    pub(super) fn reaches(&self, goal: &Goal) -> bool {
        match goal {
            Goal::After(id) => self.ring.below().id <= *id,
            Goal::AfterNumber(number) => self.ring.knows(*number),
            Goal::Events(channel, count) => {
                let is_of = |place: &usize| {
                    let message = &self.ring.get(*place).message;
                    message.as_ref().is_some_and(|(other, _)| other.as_str() == &**channel)
                };
                (0..self.ring.len()).rev().filter(is_of).take(*count).count() >= *count
            }
        }
    }
}
