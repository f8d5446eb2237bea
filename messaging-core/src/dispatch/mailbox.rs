//! The bounded buffer between a reader and whoever consumes its messages: a handler's workers, or a subscription.
//! Owns the overflow policies; knows nothing of connections or handlers.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::options::{Buffer, HandlerOptions, OrderedBy, Overflow};
use crate::activity::Activity;
use crate::channel::{Captures, Pattern};
use crate::message::Received;

/// How long one consumer may hold its reader up since its buffer was last half empty.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a consumer takes out.
#[derive(Debug)]
pub(crate) enum Entry {
    Message(Received),
    Gap(GapCause),
}

/// Why messages may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapCause {
    /// The connection to Redis was lost and is back; what was published meanwhile is missing. The number grows with
    /// each reconnection.
    Reconnected(u64),
    /// This many messages were dropped because the consumer did not keep up.
    Overflow(u64),
}

pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// One for each lane: wakes the consumer that waits for it.
    ready: Box<[Notify]>,
    room: Notify,
    limits: Buffer,
    overflow: Overflow,
    lane_by: LaneBy,
    /// What is in here counts as unfinished until the consumer says otherwise; not for subscriptions, which may never
    /// be read.
    activity: Option<Activity>,
    gaps: Gaps,
    received: AtomicU64,
    dropped: AtomicU64,
    gap_count: AtomicU64,
}

/// What a gap does.
pub(crate) enum Gaps {
    /// It stands between the messages.
    InOrder,
    /// It is signalled at once.
    Signal(Arc<Notify>),
    /// It is only counted.
    Count,
}

enum LaneBy {
    One,
    Channel,
    Placeholder(Arc<[Pattern]>, Box<[usize]>),
}

struct State {
    lanes: Box<[VecDeque<Queued>]>,
    /// Waiting messages, without gaps.
    messages: usize,
    bytes: usize,
    next: u64,
    /// For how long the reader has waited since the buffer was last half empty.
    held: Duration,
    reader_waits: bool,
    dropped_since_told: u64,
    closed: bool,
}

struct Queued {
    sequence: u64,
    entry: Entry,
}

impl Mailbox {
    /// A mailbox for a handler's workers.
    pub(crate) fn for_handler(
        patterns: &Arc<[Pattern]>,
        options: &HandlerOptions,
        activity: Activity,
        gaps: Gaps,
    ) -> Self {
        let (lanes, lane_by) = match options.ordered_by {
            None => (1, LaneBy::One),
            Some(OrderedBy::Channel) => (options.workers.get(), LaneBy::Channel),
            Some(OrderedBy::Placeholder(name)) => {
                let places = patterns.iter().map(|pattern| pattern.names().position(|n| n == name).unwrap_or(0));
                (options.workers.get(), LaneBy::Placeholder(Arc::clone(patterns), places.collect()))
            }
        };
        Self::new(lanes, lane_by, options.buffer, options.overflow, Some(activity), gaps)
    }

    /// A mailbox for one consumer that reads everything in order, gaps included.
    pub(crate) fn for_subscription(limits: Buffer, overflow: Overflow) -> Self {
        Self::new(1, LaneBy::One, limits, overflow, None, Gaps::InOrder)
    }

    fn new(
        lanes: usize,
        lane_by: LaneBy,
        limits: Buffer,
        overflow: Overflow,
        activity: Option<Activity>,
        gaps: Gaps,
    ) -> Self {
        let state = State {
            lanes: (0..lanes).map(|_| VecDeque::new()).collect(),
            messages: 0,
            bytes: 0,
            next: 0,
            held: Duration::ZERO,
            reader_waits: false,
            dropped_since_told: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            ready: (0..lanes).map(|_| Notify::new()).collect(),
            room: Notify::new(),
            limits,
            overflow,
            lane_by,
            activity,
            gaps,
            received: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            gap_count: AtomicU64::new(0),
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.ready.len()
    }

    /// Takes over as much of the batch as there is room for, without waiting. `true` if all of it.
    pub(crate) fn try_push(&self, batch: &mut VecDeque<Received>) -> bool {
        let mut state = self.lock();
        self.admit(&mut state, batch);
        batch.is_empty()
    }

    /// Takes over the whole batch, by the overflow policy: waits for room, or drops the oldest. Returns at once when
    /// the mailbox is closed.
    ///
    /// Cancellation: what was not taken over yet stays in the batch.
    pub(crate) async fn push(&self, batch: &mut VecDeque<Received>) {
        loop {
            let patience = {
                let mut state = self.lock();
                self.admit(&mut state, batch);
                if batch.is_empty() {
                    return;
                }
                let patience = match self.overflow {
                    Overflow::DropOldest => Some(Duration::ZERO),
                    Overflow::Wait => Some(PATIENCE.saturating_sub(state.held)),
                    Overflow::Block => None,
                };
                if patience == Some(Duration::ZERO) {
                    self.admit_dropping_oldest(&mut state, batch);
                    return;
                }
                state.reader_waits = true;
                patience
            };
            let since = Instant::now();
            match patience {
                None => self.room.notified().await,
                Some(patience) => {
                    // Elapsed or not, the next turn finds out what there is room for.
                    let _ = tokio::time::timeout(patience, self.room.notified()).await;
                    self.lock().held += since.elapsed();
                }
            }
        }
    }

    /// Announces that messages may be missing here.
    pub(crate) fn gap(&self, cause: GapCause) {
        self.gap_count.fetch_add(1, Ordering::Relaxed);
        match &self.gaps {
            Gaps::Count => {}
            Gaps::Signal(signal) => signal.notify_one(),
            Gaps::InOrder => {
                let mut state = self.lock();
                let sequence = state.sequence();
                let lane = &mut state.lanes[0];
                // One gap after the other without a message between them is one gap.
                match lane.back_mut() {
                    Some(Queued { entry: Entry::Gap(last), .. }) => *last = cause,
                    _ => lane.push_back(Queued { sequence, entry: Entry::Gap(cause) }),
                }
                self.ready[0].notify_one();
            }
        }
    }

    /// The next entry of a lane; `None` when the mailbox is closed and the lane is empty. The consumer of a message
    /// calls [`finished`](Self::finished) when it is done with it.
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn pop(&self, lane: usize) -> Option<Entry> {
        loop {
            {
                let mut state = self.lock();
                if state.dropped_since_told > 0 && matches!(self.gaps, Gaps::InOrder) {
                    return Some(Entry::Gap(GapCause::Overflow(std::mem::take(&mut state.dropped_since_told))));
                }
                if let Some(Queued { entry, .. }) = state.lanes[lane].pop_front() {
                    if let Entry::Message(message) = &entry {
                        state.messages -= 1;
                        state.bytes -= message.payload.len();
                        if state.messages <= self.limits.messages.get() / 2
                            && state.bytes <= self.limits.bytes.get() / 2
                        {
                            state.held = Duration::ZERO;
                        }
                        if std::mem::take(&mut state.reader_waits) {
                            self.room.notify_one();
                        }
                    }
                    // The other consumers of a shared lane are woken one by one.
                    if !state.lanes[lane].is_empty() || state.closed {
                        self.ready[lane].notify_one();
                    }
                    return Some(entry);
                }
                if state.closed {
                    self.ready[lane].notify_one();
                    return None;
                }
            }
            self.ready[lane].notified().await;
        }
    }

    /// The consumer is done with a message that it took.
    pub(crate) fn finished(&self) {
        if let Some(activity) = &self.activity {
            activity.finish(1);
        }
    }

    /// Accepts nothing more; what waits can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_one();
        self.ready.iter().for_each(Notify::notify_one);
    }

    /// Throws away what waits and returns how many messages that were.
    pub(crate) fn clear(&self) -> usize {
        let mut state = self.lock();
        let messages = std::mem::take(&mut state.messages);
        state.bytes = 0;
        state.lanes.iter_mut().for_each(VecDeque::clear);
        drop(state);
        if let Some(activity) = &self.activity {
            activity.finish(messages);
        }
        messages
    }

    /// How many messages wait, and how many bytes they have.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.messages, state.bytes)
    }

    /// How many messages arrived, how many of them were dropped, and how many gaps there were.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.received), load(&self.dropped), load(&self.gap_count))
    }

    fn admit(&self, state: &mut State, batch: &mut VecDeque<Received>) {
        let mut admitted = 0;
        while let Some(message) = batch.front() {
            if state.closed {
                batch.clear();
                break;
            }
            let fits = state.messages < self.limits.messages.get()
                && (state.messages == 0 || state.bytes + message.payload.len() <= self.limits.bytes.get());
            if !fits {
                break;
            }
            if let Some(message) = batch.pop_front() {
                self.enqueue(state, message);
                admitted += 1;
            }
        }
        self.note_admitted(admitted);
    }

    fn admit_dropping_oldest(&self, state: &mut State, batch: &mut VecDeque<Received>) {
        let (mut admitted, mut dropped) = (0, 0);
        for message in batch.drain(..) {
            let size = message.payload.len();
            while state.messages > 0
                && (state.messages >= self.limits.messages.get() || state.bytes + size > self.limits.bytes.get())
            {
                state.drop_oldest();
                dropped += 1;
            }
            self.enqueue(state, message);
            admitted += 1;
        }
        self.note_admitted(admitted);
        if dropped == 0 {
            return;
        }
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
        if let Some(activity) = &self.activity {
            activity.finish(usize::try_from(dropped).unwrap_or(usize::MAX));
        }
        // With "drop_oldest" dropping is what was asked for; otherwise the consumer must know.
        if self.overflow != Overflow::DropOldest {
            state.dropped_since_told += dropped;
            match &self.gaps {
                Gaps::Signal(signal) => {
                    self.gap_count.fetch_add(1, Ordering::Relaxed);
                    signal.notify_one();
                }
                Gaps::InOrder | Gaps::Count => {
                    self.gap_count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn enqueue(&self, state: &mut State, message: Received) {
        let lane = self.lane_of(&message);
        state.messages += 1;
        state.bytes += message.payload.len();
        let sequence = state.sequence();
        state.lanes[lane].push_back(Queued { sequence, entry: Entry::Message(message) });
        if self.ready.len() > 1 {
            self.ready[lane].notify_one();
        }
    }

    fn note_admitted(&self, admitted: usize) {
        if admitted == 0 {
            return;
        }
        self.received.fetch_add(admitted as u64, Ordering::Relaxed);
        if let Some(activity) = &self.activity {
            activity.begin(admitted);
        }
        if self.ready.len() == 1 {
            self.ready[0].notify_one();
        }
    }

    fn lane_of(&self, message: &Received) -> usize {
        let value = match &self.lane_by {
            LaneBy::One => return 0,
            LaneBy::Channel => message.channel.as_str(),
            LaneBy::Placeholder(patterns, places) => {
                let pattern = usize::from(message.pattern);
                let mut captures = Captures::new();
                if !patterns[pattern].captures(&message.channel, &mut captures) {
                    return 0;
                }
                &message.channel[captures[places[pattern]].clone()]
            }
        };
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        (hasher.finish() % self.ready.len() as u64) as usize
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sequence(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Drops the message that arrived first, whatever lane it is in.
    fn drop_oldest(&mut self) {
        let first_message = |lane: &VecDeque<Queued>| {
            lane.iter().position(|queued| matches!(queued.entry, Entry::Message(_))).map(|at| (lane[at].sequence, at))
        };
        let oldest = (0..self.lanes.len())
            .filter_map(|lane| first_message(&self.lanes[lane]).map(|(sequence, at)| (sequence, lane, at)))
            .min();
        if let Some((_, lane, at)) = oldest
            && let Some(Queued { entry: Entry::Message(message), .. }) = self.lanes[lane].remove(at)
        {
            self.messages -= 1;
            self.bytes -= message.payload.len();
        }
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (messages, bytes) = self.waiting();
        f.debug_struct("Mailbox").field("messages", &messages).field("bytes", &bytes).finish_non_exhaustive()
    }
}
