//! The bounded buffer between a reader and whoever consumes its messages: a handler's workers, or a subscription.
//! Owns the overflow policies; knows nothing of connections or handlers.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::options::{Buffer, DeliveryMode, HandlerOptions, OrderedBy, Overflow};
use crate::activity::{Activity, ActivityGuard};
use crate::channel::{Captures, Pattern};
use crate::message::Received;
use crate::meter::{self, Count};

/// How long one consumer may hold its reader up since its buffer was last half empty.
const PATIENCE: Duration = Duration::from_secs(1);

/// A worker that is alone takes no more at once than this part of what the buffer holds, and no more messages than this.
const RUN_PART: usize = 4;
const LONGEST_RUN: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");

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
    /// So many messages of a stream, if that is known, were removed before they were read.
    Removed(Option<u64>),
}

pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// One for each lane: wakes the consumer that waits for it.
    ready: Box<[Notify]>,
    room: Notify,
    limits: Buffer,
    /// How many messages those who ask for room may put in, if that is fewer than the limit.
    target: AtomicUsize,
    overflow: Overflow,
    lane_by: LaneBy,
    /// Several consumers take from the one lane.
    lane_is_shared: bool,
    /// The most that the one consumer takes at once, by [`take`](Self::take).
    run: Buffer,
    /// What it has taken and not begun with. It still counts as waiting, and can still be thrown away.
    in_hand: Load,
    /// What is in here counts as unfinished until the consumer says otherwise; not for subscriptions, which may never
    /// be read.
    activity: Option<Activity>,
    gaps: Gaps,
    received: AtomicU64,
    dropped: Count,
    gap_count: Count,
}

/// Tells who catches up of a gap. Until he has begun to, it counts as unfinished.
#[derive(Debug)]
pub(crate) struct Alarm {
    activity: Activity,
    raised: Notify,
    due: Mutex<Due>,
}

/// So many messages, and so many bytes of payload.
#[derive(Default)]
struct Load {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    fn set(&self, messages: usize, bytes: usize) {
        self.messages.store(messages, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn read(&self) -> (usize, usize) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// One message less; `false` if there was none any more.
    fn take(&self, size: usize) -> bool {
        let messages = self.messages.load(Ordering::Relaxed);
        let (set, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken =
            messages > 0 && self.messages.compare_exchange(messages, messages - 1, set, other).is_ok();
        if taken {
            let bytes = self.bytes.load(Ordering::Relaxed);
            self.bytes.store(bytes.saturating_sub(size), Ordering::Relaxed);
        }
        taken
    }

    /// How many messages there were; now there is none.
    fn take_all(&self) -> usize {
        self.bytes.store(0, Ordering::Relaxed);
        self.messages.swap(0, Ordering::Relaxed)
    }
}

/// Messages on their way into a mailbox.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    entries: VecDeque<Queued>,
    /// Of payload.
    bytes: usize,
}

impl Batch {
    pub(crate) fn push(&mut self, message: Received) {
        self.bytes += message.payload.len();
        self.entries.push_back(Queued { sequence: 0, entry: Entry::Message(message) });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn clear(&mut self) -> usize {
        self.bytes = 0;
        self.entries.drain(..).count()
    }

    /// The size of the first message's payload.
    fn first(&self) -> Option<usize> {
        self.entries.front().map(Queued::size)
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.entries.pop_front()?;
        self.bytes -= queued.size();
        Some(queued)
    }
}

impl FromIterator<Received> for Batch {
    fn from_iter<I: IntoIterator<Item = Received>>(messages: I) -> Self {
        let mut batch = Self::default();
        messages.into_iter().for_each(|message| batch.push(message));
        batch
    }
}

/// What one consumer has taken at once, in order.
pub(crate) type Hand = VecDeque<Queued>;

#[derive(Debug)]
enum Due {
    Nothing,
    Gap(ActivityGuard),
    /// Nobody catches up any more.
    Over,
}

impl Alarm {
    pub(crate) fn new(activity: Activity) -> Self {
        Self { activity, raised: Notify::new(), due: Mutex::new(Due::Nothing) }
    }

    fn raise(&self) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*due, Due::Nothing) {
            *due = Due::Gap(self.activity.guard());
        }
        drop(due);
        self.raised.notify_one();
    }

    /// Waits until it is raised.
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn raised(&self) {
        self.raised.notified().await;
    }

    /// What counts as unfinished until whoever takes it has caught up.
    pub(crate) fn take(&self) -> Option<ActivityGuard> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *due, Due::Nothing) {
            Due::Gap(guard) => Some(guard),
            Due::Nothing => None,
            Due::Over => {
                *due = Due::Over;
                None
            }
        }
    }

    /// Nobody catches up any more.
    pub(crate) fn end(&self) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = Due::Over;
    }
}

/// What a gap does.
pub(crate) enum Gaps {
    /// It stands between the messages.
    InOrder,
    /// It is signalled at once.
    Signal(Arc<Alarm>),
    /// It is only counted.
    Count,
}

enum LaneBy {
    One,
    Channel,
    /// The key of a stream's entry; the channel without one.
    Key,
    Placeholder(Arc<[Pattern]>, Box<[usize]>),
}

struct State {
    lanes: Box<[VecDeque<Queued>]>,
    /// Waiting messages, without gaps.
    messages: usize,
    bytes: usize,
    next: u64,
    /// For how long the reader has waited since the buffer was last half empty, without the wait in progress.
    held: Duration,
    /// Since when the reader waits, or since when it counts.
    waiting_since: Option<Instant>,
    reader_waits: bool,
    dropped_since_told: u64,
    /// Drops are to be signalled when the buffer is half empty again: a resync while it is full would only drop more.
    gap_due: bool,
    /// Messages that came after closing.
    refused: usize,
    closed: bool,
}

/// An entry of a lane. Only where there are several lanes its number says when it came.
#[derive(Debug)]
pub(crate) struct Queued {
    sequence: u64,
    pub(crate) entry: Entry,
}

impl Queued {
    /// The bytes of its payload.
    fn size(&self) -> usize {
        match &self.entry {
            Entry::Message(message) => message.payload.len(),
            Entry::Gap(_) => 0,
        }
    }
}

impl Mailbox {
    /// A mailbox for the workers of a handler that measurements call `handler`.
    pub(crate) fn for_handler(
        handler: &str,
        patterns: &Arc<[Pattern]>,
        options: &HandlerOptions,
        activity: Activity,
        gaps: Gaps,
    ) -> Self {
        let (lanes, lane_by) = match options.ordered_by {
            None => (1, LaneBy::One),
            Some(OrderedBy::Channel) => (options.workers.get(), LaneBy::Channel),
            Some(OrderedBy::Key) => (options.workers.get(), LaneBy::Key),
            Some(OrderedBy::Placeholder(name)) => {
                let places =
                    patterns.iter().map(|pattern| pattern.names().position(|n| n == name).unwrap_or(0));
                (options.workers.get(), LaneBy::Placeholder(Arc::clone(patterns), places.collect()))
            }
        };
        let lane_is_shared = lanes < options.workers.get();
        // What is in somebody's hands cannot be dropped, nor be handed back to a queue, nor go to another worker.
        let is_alone = options.workers.get() == 1 && options.delivery == DeliveryMode::Broadcast;
        let part =
            |limit: NonZeroUsize| NonZeroUsize::new(limit.get() / RUN_PART).unwrap_or(NonZeroUsize::MIN);
        let run = match options.overflow {
            Overflow::Wait | Overflow::Block if is_alone => Buffer {
                messages: part(options.buffer.messages).min(LONGEST_RUN),
                bytes: part(options.buffer.bytes),
            },
            _ => Buffer { messages: NonZeroUsize::MIN, ..options.buffer },
        };
        Self {
            lane_is_shared,
            run,
            dropped: Count::of(meter::DROPS, &[("handler", handler)]),
            gap_count: Count::of(meter::GAPS, &[("handler", handler)]),
            ..Self::new(lanes, lane_by, options.buffer, options.overflow, Some(activity), gaps)
        }
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
            waiting_since: None,
            reader_waits: false,
            dropped_since_told: 0,
            gap_due: false,
            refused: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            ready: (0..lanes).map(|_| Notify::new()).collect(),
            room: Notify::new(),
            limits,
            target: AtomicUsize::new(usize::MAX),
            overflow,
            lane_by,
            lane_is_shared: false,
            run: Buffer { messages: NonZeroUsize::MIN, ..limits },
            in_hand: Load::default(),
            activity,
            gaps,
            received: AtomicU64::new(0),
            dropped: Count::default(),
            gap_count: Count::default(),
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.ready.len()
    }

    /// Takes over as much of the batch as there is room for, without waiting. `true` if all of it.
    pub(crate) fn try_push(&self, batch: &mut Batch) -> bool {
        let mut state = self.lock();
        self.admit(&mut state, batch);
        batch.is_empty()
    }

    /// Takes over the whole batch, by the overflow policy: waits for room, or drops the oldest. Returns at once when
    /// the mailbox is closed. Returns for how long it waited.
    ///
    /// Cancellation: what was not taken over yet stays in the batch.
    pub(crate) async fn push(&self, batch: &mut Batch) -> Duration {
        let mut waited = Duration::ZERO;
        loop {
            let patience = {
                let mut state = self.lock();
                self.admit(&mut state, batch);
                if batch.is_empty() {
                    return waited;
                }
                let patience = match self.overflow {
                    Overflow::DropOldest => Some(Duration::ZERO),
                    Overflow::Wait => Some(PATIENCE.saturating_sub(state.held)),
                    Overflow::Block => None,
                };
                if patience == Some(Duration::ZERO) {
                    self.admit_dropping_oldest(&mut state, batch);
                    return waited;
                }
                state.reader_waits = true;
                state.waiting_since = Some(Instant::now());
                patience
            };
            let since = Instant::now();
            match patience {
                None => self.room.notified().await,
                Some(patience) => {
                    // Woken or not, the next turn finds out what there is room for.
                    let _ = tokio::time::timeout(patience, self.room.notified()).await;
                    let mut state = self.lock();
                    let held = state.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
                    state.held += held;
                }
            }
            waited += since.elapsed();
        }
    }

    /// Waits until half of it is empty, and returns how many messages and bytes there is room for; `None` when it is
    /// closed. For readers that ask before they read.
    ///
    /// Cancellation: nothing happens.
    pub(crate) async fn room(&self) -> Option<(usize, usize)> {
        loop {
            {
                let mut state = self.lock();
                if state.closed {
                    // There may be several readers.
                    self.room.notify_one();
                    return None;
                }
                let (messages, bytes) = self.spare(&state);
                if messages * 2 >= self.capacity() && bytes * 2 >= self.limits.bytes.get() {
                    self.room.notify_one();
                    return Some((messages.max(1), bytes));
                }
                state.reader_waits = true;
            }
            self.room.notified().await;
        }
    }

    /// How many messages there is room for at once.
    pub(crate) fn room_now(&self) -> usize {
        let state = self.lock();
        let (messages, bytes) = self.spare(&state);
        if bytes == 0 || state.closed { 0 } else { messages }
    }

    /// Gives those who ask for room less of it than the limit, or more again.
    pub(crate) fn set_target(&self, messages: usize) {
        self.target.store(messages, Ordering::Relaxed);
        self.room.notify_one();
    }

    fn capacity(&self) -> usize {
        self.limits.messages.get().min(self.target.load(Ordering::Relaxed))
    }

    fn spare(&self, state: &State) -> (usize, usize) {
        let (messages, bytes) = self.load(state);
        (self.capacity().saturating_sub(messages), self.limits.bytes.get().saturating_sub(bytes))
    }

    /// How many messages wait, and how many bytes they have, with those in a consumer's hand.
    fn load(&self, state: &State) -> (usize, usize) {
        let (messages, bytes) = self.in_hand.read();
        (state.messages + messages, state.bytes + bytes)
    }

    /// Takes over a batch that room was asked for. What comes after closing is refused and counted.
    pub(crate) fn push_asked_for(&self, batch: &mut VecDeque<Received>) {
        let mut state = self.lock();
        if state.closed {
            state.refused += batch.len();
            batch.clear();
            return;
        }
        let admitted = batch.len();
        for message in batch.drain(..) {
            self.enqueue(&mut state, Queued { sequence: 0, entry: Entry::Message(message) });
        }
        self.note_admitted(admitted);
    }

    /// Announces that messages may be missing here.
    pub(crate) fn gap(&self, cause: GapCause) {
        self.gap_count.up();
        match &self.gaps {
            Gaps::Count => {}
            Gaps::Signal(alarm) => alarm.raise(),
            Gaps::InOrder => {
                let mut state = self.lock();
                let lane = &mut state.lanes[0];
                // One gap after the other without a message between them is one gap.
                match lane.back_mut() {
                    Some(Queued { entry: Entry::Gap(last), .. }) => *last = cause,
                    _ => lane.push_back(Queued { sequence: 0, entry: Entry::Gap(cause) }),
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
                    return Some(Entry::Gap(GapCause::Overflow(std::mem::take(
                        &mut state.dropped_since_told,
                    ))));
                }
                if let Some(Queued { entry, .. }) = state.lanes[lane].pop_front() {
                    if let Entry::Message(message) = &entry {
                        state.messages -= 1;
                        state.bytes -= message.payload.len();
                        let left = (state.messages, state.bytes);
                        self.taken(&mut state, lane, left);
                    }
                    return Some(entry);
                }
                if self.is_over(&mut state, lane) {
                    return None;
                }
            }
            self.ready[lane].notified().await;
        }
    }

    /// The next entries of a lane, into an empty hand; `false` when the mailbox is closed and the lane is empty. The consumer
    /// calls [`begins`](Self::begins) for each message, and [`finished`](Self::finished) when it is done with some.
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn take(&self, lane: usize, hand: &mut Hand) -> bool {
        loop {
            {
                let mut state = self.lock();
                if self.take_now(&mut state, lane, hand) {
                    return true;
                }
                if self.is_over(&mut state, lane) {
                    return false;
                }
            }
            self.ready[lane].notified().await;
        }
    }

    fn take_now(&self, state: &mut State, lane: usize, hand: &mut Hand) -> bool {
        let Some(first) = state.lanes[lane].front().map(Queued::size) else { return false };
        // With one lane and no gaps in it, what it holds is what waits.
        let is_all = self.ready.len() == 1
            && state.messages <= self.run.messages.get()
            && state.bytes <= self.run.bytes.get();
        let bytes = if is_all {
            std::mem::swap(hand, &mut state.lanes[lane]);
            state.bytes
        } else {
            let (mut count, mut bytes) = (0, 0);
            for queued in state.lanes[lane].iter().take(self.run.messages.get()) {
                if count > 0 && bytes + queued.size() > self.run.bytes.get() {
                    break;
                }
                bytes += queued.size();
                count += 1;
            }
            hand.extend(state.lanes[lane].drain(..count));
            bytes
        };
        // The first of them is begun at once.
        let left = (state.messages - 1, state.bytes - first);
        state.messages -= hand.len();
        state.bytes -= bytes;
        if self.takes_runs() {
            self.in_hand.set(hand.len(), bytes);
        }
        self.taken(state, lane, left);
        true
    }

    /// A consumer has taken something of the lane, after which so many messages and bytes wait.
    fn taken(&self, state: &mut State, lane: usize, (messages, bytes): (usize, usize)) {
        let half_empty = messages <= self.capacity() / 2 && bytes <= self.limits.bytes.get() / 2;
        if half_empty {
            state.held = Duration::ZERO;
            state.waiting_since = state.waiting_since.map(|_| Instant::now());
            if std::mem::take(&mut state.gap_due)
                && let Gaps::Signal(alarm) = &self.gaps
            {
                alarm.raise();
            }
        }
        // Not at the first message that leaves: a reader that fills every place as it becomes free keeps
        // the buffer from ever being half empty, and a consumer at work would use its patience up. But
        // one consumer must not idle because another is stuck.
        if (half_empty || state.lanes[lane].is_empty()) && std::mem::take(&mut state.reader_waits) {
            self.room.notify_one();
        }
        // The other consumers of a shared lane are woken one by one.
        if self.lane_is_shared && (!state.lanes[lane].is_empty() || state.closed) {
            self.ready[lane].notify_one();
        }
    }

    /// Whether nothing comes any more, of a lane that is empty.
    fn is_over(&self, state: &mut State, lane: usize) -> bool {
        if state.closed {
            self.ready[lane].notify_one();
        } else if self.takes_runs() && std::mem::take(&mut state.reader_waits) {
            // There may have been no room beside what was in hand.
            self.room.notify_one();
        }
        state.closed
    }

    /// The consumer begins with a message that it has taken in its hand; `false` if that was thrown away meanwhile, with
    /// everything else that it has there.
    pub(crate) fn begins(&self, message: &Received) -> bool {
        !self.takes_runs() || self.in_hand.take(message.payload.len())
    }

    /// What a consumer has taken and will not begin with counts as not taken.
    pub(crate) fn not_begun(&self, hand: &mut Hand) {
        let taken = hand.drain(..).count();
        let messages = if self.takes_runs() { self.in_hand.take_all() } else { taken };
        self.lock().refused += messages;
        self.finished(messages);
    }

    fn takes_runs(&self) -> bool {
        self.run.messages > NonZeroUsize::MIN
    }

    /// The consumer is done with so many messages that it took.
    pub(crate) fn finished(&self, messages: usize) {
        if let Some(activity) = &self.activity {
            activity.finish(messages);
        }
    }

    /// Accepts nothing more; what waits can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_one();
        self.ready.iter().for_each(Notify::notify_one);
    }

    /// Throws away what waits and returns how many messages were not taken, those that came after closing included.
    pub(crate) fn clear(&self) -> usize {
        let mut state = self.lock();
        let messages = std::mem::take(&mut state.messages) + self.in_hand.take_all();
        let refused = std::mem::take(&mut state.refused);
        state.bytes = 0;
        state.lanes.iter_mut().for_each(VecDeque::clear);
        drop(state);
        if let Some(activity) = &self.activity {
            activity.finish(messages);
        }
        messages + refused
    }

    /// How many messages wait, and how many bytes they have.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        self.load(&self.lock())
    }

    /// How many messages arrived, how many of them were dropped, and how many gaps there were.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.received.load(Ordering::Relaxed), self.dropped.read(), self.gap_count.read())
    }

    fn admit(&self, state: &mut State, batch: &mut Batch) {
        if state.closed {
            state.refused += batch.clear();
            return;
        }
        let (messages, bytes) = self.load(state);
        let all = batch.entries.len();
        if self.ready.len() == 1
            && messages + all <= self.limits.messages.get()
            && bytes + batch.bytes <= self.limits.bytes.get()
        {
            state.messages += all;
            state.bytes += std::mem::take(&mut batch.bytes);
            if state.lanes[0].is_empty() {
                std::mem::swap(&mut state.lanes[0], &mut batch.entries);
            } else {
                state.lanes[0].append(&mut batch.entries);
            }
            self.note_admitted(all);
            return;
        }
        let mut admitted = 0;
        while let Some(size) = batch.first() {
            let (messages, bytes) = self.load(state);
            let fits = messages < self.limits.messages.get()
                && (messages == 0 || bytes + size <= self.limits.bytes.get());
            if !fits {
                break;
            }
            if let Some(queued) = batch.pop() {
                self.enqueue(state, queued);
                admitted += 1;
            }
        }
        self.note_admitted(admitted);
    }

    fn admit_dropping_oldest(&self, state: &mut State, batch: &mut Batch) {
        let (mut admitted, mut dropped) = (0, 0);
        while let Some(queued) = batch.pop() {
            let is_full = |state: &State| {
                let (messages, bytes) = self.load(state);
                messages >= self.limits.messages.get() || bytes + queued.size() > self.limits.bytes.get()
            };
            while state.messages > 0 && is_full(state) {
                state.drop_oldest();
                dropped += 1;
            }
            self.enqueue(state, queued);
            admitted += 1;
        }
        self.note_admitted(admitted);
        if dropped == 0 {
            return;
        }
        self.dropped.add(dropped);
        if let Some(activity) = &self.activity {
            activity.finish(usize::try_from(dropped).unwrap_or(usize::MAX));
        }
        // With "drop_oldest" dropping is what was asked for; otherwise the consumer must know.
        if self.overflow != Overflow::DropOldest {
            state.dropped_since_told += dropped;
            // Drops that follow each other without the consumer catching up in between are one gap.
            if !std::mem::replace(&mut state.gap_due, true) {
                self.gap_count.up();
            }
        }
    }

    fn enqueue(&self, state: &mut State, queued: Queued) {
        state.messages += 1;
        state.bytes += queued.size();
        if self.ready.len() == 1 {
            state.lanes[0].push_back(queued);
            return;
        }
        let lane = match &queued.entry {
            Entry::Message(message) => self.lane_of(message),
            Entry::Gap(_) => 0,
        };
        let sequence = state.sequence();
        state.lanes[lane].push_back(Queued { sequence, ..queued });
        self.ready[lane].notify_one();
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
            LaneBy::Key => {
                let key = message.entry.as_ref().and_then(|entry| entry.key.as_deref());
                key.unwrap_or(message.channel.as_str())
            }
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
            lane.iter()
                .position(|queued| matches!(queued.entry, Entry::Message(_)))
                .map(|at| (lane[at].sequence, at))
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

#[cfg(test)]
mod tests;
