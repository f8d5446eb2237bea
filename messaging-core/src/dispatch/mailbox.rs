//! The bounded buffer between a reader and whoever consumes its messages: a handler's workers, or a subscription.
//! Owns the overflow policies; knows nothing of connections or handlers.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::options::{Buffer, HandlerOptions, OrderedBy, Overflow};
use crate::activity::{Activity, ActivityGuard};
use crate::channel::{Captures, Pattern};
use crate::message::Received;
use crate::meter::{self, Count};

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

struct Queued {
    sequence: u64,
    entry: Entry,
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
        Self {
            lane_is_shared,
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
    pub(crate) fn try_push(&self, batch: &mut VecDeque<Received>) -> bool {
        let mut state = self.lock();
        self.admit(&mut state, batch);
        batch.is_empty()
    }

    /// Takes over the whole batch, by the overflow policy: waits for room, or drops the oldest. Returns at once when
    /// the mailbox is closed. Returns for how long it waited.
    ///
    /// Cancellation: what was not taken over yet stays in the batch.
    pub(crate) async fn push(&self, batch: &mut VecDeque<Received>) -> Duration {
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
        let messages = self.capacity().saturating_sub(state.messages);
        (messages, self.limits.bytes.get().saturating_sub(state.bytes))
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
            self.enqueue(&mut state, message);
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
                    return Some(Entry::Gap(GapCause::Overflow(std::mem::take(
                        &mut state.dropped_since_told,
                    ))));
                }
                if let Some(Queued { entry, .. }) = state.lanes[lane].pop_front() {
                    if let Entry::Message(message) = &entry {
                        state.messages -= 1;
                        state.bytes -= message.payload.len();
                        let half_empty = state.messages <= self.capacity() / 2
                            && state.bytes <= self.limits.bytes.get() / 2;
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
                        if (half_empty || state.lanes[lane].is_empty())
                            && std::mem::take(&mut state.reader_waits)
                        {
                            self.room.notify_one();
                        }
                    }
                    // The other consumers of a shared lane are woken one by one.
                    if self.lane_is_shared && (!state.lanes[lane].is_empty() || state.closed) {
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

    /// Throws away what waits and returns how many messages were not taken, those that came after closing included.
    pub(crate) fn clear(&self) -> usize {
        let mut state = self.lock();
        let messages = std::mem::take(&mut state.messages);
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
        let state = self.lock();
        (state.messages, state.bytes)
    }

    /// How many messages arrived, how many of them were dropped, and how many gaps there were.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.received.load(Ordering::Relaxed), self.dropped.read(), self.gap_count.read())
    }

    fn admit(&self, state: &mut State, batch: &mut VecDeque<Received>) {
        let mut admitted = 0;
        while let Some(message) = batch.front() {
            if state.closed {
                state.refused += batch.len();
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
                && (state.messages >= self.limits.messages.get()
                    || state.bytes + size > self.limits.bytes.get())
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
mod tests {
    use std::num::NonZeroUsize;

    use bytes::Bytes;

    use super::*;
    use crate::channel::Channel;

    fn message(number: u8) -> Received {
        let channel = Channel::new(&format!("c.{}", number % 3)).unwrap();
        Received {
            channel,
            payload: Bytes::from(vec![number; 10]),
            at: std::time::Instant::now(),
            pattern: 0,
            entry: None,
        }
    }

    fn batch(numbers: impl IntoIterator<Item = u8>) -> VecDeque<Received> {
        numbers.into_iter().map(message).collect()
    }

    fn mailbox(messages: usize, bytes: usize, overflow: Overflow) -> Mailbox {
        let limit = |limit| NonZeroUsize::new(limit).unwrap();
        Mailbox::for_subscription(Buffer { messages: limit(messages), bytes: limit(bytes) }, overflow)
    }

    async fn rest(mailbox: &Mailbox) -> Vec<u8> {
        mailbox.close();
        let mut numbers = Vec::new();
        while let Some(entry) = mailbox.pop(0).await {
            match entry {
                Entry::Message(message) => numbers.push(message.payload[0]),
                Entry::Gap(_) => numbers.push(u8::MAX),
            }
        }
        numbers
    }

    #[test]
    fn a_gap_is_unfinished_until_somebody_has_caught_up() {
        let activity = Activity::default();
        let alarm = Alarm::new(activity.clone());
        alarm.raise();
        alarm.raise();
        assert_eq!(activity.unfinished(), 1);
        let due = alarm.take();
        assert_eq!(activity.unfinished(), 1);
        drop(due);
        assert_eq!(activity.unfinished(), 0);
        alarm.raise();
        alarm.end();
        alarm.raise();
        assert_eq!(activity.unfinished(), 0, "nobody catches up any more");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_holds_the_reader_up_for_one_second_in_all() {
        let mailbox = mailbox(2, 1_000, Overflow::Wait);
        let start = Instant::now();
        mailbox.push(&mut batch(0..2)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        mailbox.push(&mut batch(2..4)).await;
        assert_eq!(start.elapsed(), PATIENCE);
        // The patience is used up: from now on nothing waits, until the buffer was half empty.
        mailbox.push(&mut batch(4..6)).await;
        assert_eq!(start.elapsed(), PATIENCE);
        assert!(matches!(mailbox.pop(0).await, Some(Entry::Gap(GapCause::Overflow(4)))));
        assert!(matches!(mailbox.pop(0).await, Some(Entry::Message(_))));
        mailbox.push(&mut batch(6..8)).await;
        assert_eq!(start.elapsed(), PATIENCE * 2);
        assert_eq!(rest(&mailbox).await, [u8::MAX, 6, 7]);
        assert_eq!(mailbox.counts(), (8, 5, 2), "two gaps: before and after it was half empty");
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_catches_up_in_time_loses_nothing() {
        let mailbox = Arc::new(mailbox(1, 1_000, Overflow::Wait));
        let reader = {
            let mailbox = Arc::clone(&mailbox);
            tokio::spawn(async move { mailbox.push(&mut batch(0..6)).await })
        };
        for _ in 0..6 {
            // Each message waits for less than a second; all of them together for more.
            tokio::time::sleep(PATIENCE * 6 / 10).await;
            assert!(matches!(mailbox.pop(0).await, Some(Entry::Message(_))));
        }
        reader.await.unwrap();
        assert_eq!(mailbox.counts(), (6, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_keeps_working_loses_nothing_however_long_the_flood() {
        let mailbox = Arc::new(mailbox(10, 1_000, Overflow::Wait));
        let reader = {
            let mailbox = Arc::clone(&mailbox);
            tokio::spawn(async move { mailbox.push(&mut batch(0..250)).await })
        };
        // Half a buffer takes it a tenth of the reader's patience, the flood five times the patience.
        for number in 0..250 {
            tokio::time::sleep(PATIENCE / 50).await;
            let entry = mailbox.pop(0).await;
            assert!(
                matches!(&entry, Some(Entry::Message(message)) if message.payload[0] == number),
                "{number}: {entry:?}"
            );
        }
        reader.await.unwrap();
        assert_eq!(mailbox.counts(), (250, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn drops_are_signalled_when_the_consumer_has_caught_up() {
        let signal = Arc::new(Alarm::new(Activity::default()));
        let patterns: Arc<[Pattern]> = [Pattern::parse("c.{key}").unwrap()].into();
        let buffer = Buffer { messages: NonZeroUsize::new(4).unwrap(), ..Buffer::DEFAULT };
        let options = HandlerOptions { buffer, ..HandlerOptions::DEFAULT };
        let gaps = Gaps::Signal(Arc::clone(&signal));
        let mailbox = Mailbox::for_handler("h", &patterns, &options, Activity::default(), gaps);
        for _ in 0..5 {
            mailbox.push(&mut batch(0..20)).await;
        }
        let signalled = || futures_util::FutureExt::now_or_never(signal.raised()).is_some();
        assert_eq!((mailbox.counts().2, signalled()), (1, false));
        mailbox.pop(0).await;
        assert!(!signalled());
        mailbox.pop(0).await;
        assert!(signalled(), "it is half empty");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_goes_on_when_the_buffer_is_half_empty() {
        for overflow in [Overflow::Wait, Overflow::Block] {
            let mailbox = Arc::new(mailbox(2, 1_000, overflow));
            mailbox.push(&mut batch(0..2)).await;
            let reader = {
                let mailbox = Arc::clone(&mailbox);
                tokio::spawn(async move { mailbox.push(&mut batch(2..7)).await })
            };
            let mut numbers = Vec::new();
            while numbers.len() < 7 {
                if let Some(Entry::Message(message)) = mailbox.pop(0).await {
                    numbers.push(message.payload[0]);
                }
            }
            reader.await.unwrap();
            assert_eq!(numbers, (0..7).collect::<Vec<_>>());
            assert_eq!(mailbox.counts().1, 0, "nothing is dropped");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_lane_leaves_the_rest_of_the_buffer_to_the_others() {
        for overflow in [Overflow::Wait, Overflow::Block] {
            let limit = |limit| NonZeroUsize::new(limit).unwrap();
            let limits = Buffer { messages: limit(10), bytes: limit(10_000) };
            let mailbox = Arc::new(Mailbox::new(2, LaneBy::Channel, limits, overflow, None, Gaps::Count));
            let stuck = mailbox.lane_of(&message(0));
            let other = (1..3).find(|number| mailbox.lane_of(&message(*number)) != stuck).unwrap();
            mailbox.push(&mut std::iter::repeat_n(0, 6).map(message).collect()).await;
            let reader = tokio::spawn({
                let (mailbox, rest) = (Arc::clone(&mailbox), std::iter::repeat_n(other, 5).map(message));
                async move { mailbox.push(&mut rest.collect()).await }
            });
            for _ in 0..5 {
                mailbox.pop(1 - stuck).await;
            }
            assert_eq!(reader.await.unwrap(), Duration::ZERO, "{overflow:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_oldest_never_waits_and_is_no_gap() {
        let mailbox = mailbox(3, 1_000, Overflow::DropOldest);
        let start = Instant::now();
        mailbox.push(&mut batch(0..10)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(rest(&mailbox).await, [7, 8, 9]);
        assert_eq!(mailbox.counts(), (10, 7, 0));
    }

    #[tokio::test]
    async fn bytes_are_bounded_but_one_message_always_fits() {
        let mailbox = mailbox(100, 25, Overflow::DropOldest);
        mailbox.push(&mut batch(0..5)).await;
        assert_eq!(mailbox.waiting(), (2, 20));
        assert_eq!(rest(&mailbox).await, [3, 4]);
        let small = self::mailbox(100, 5, Overflow::Wait);
        assert!(small.try_push(&mut batch(0..1)));
        assert!(!small.try_push(&mut batch(1..2)));
    }

    #[tokio::test]
    async fn a_closed_mailbox_lets_its_reader_go() {
        let mailbox = Arc::new(mailbox(1, 100, Overflow::Block));
        mailbox.push(&mut batch(0..1)).await;
        let reader = {
            let mailbox = Arc::clone(&mailbox);
            tokio::spawn(async move { mailbox.push(&mut batch(1..3)).await })
        };
        tokio::task::yield_now().await;
        mailbox.close();
        reader.await.unwrap();
        assert_eq!(rest(&mailbox).await, [0]);
        assert_eq!(mailbox.clear(), 2, "what came too late is counted");
    }

    #[tokio::test]
    async fn lanes_keep_each_values_order_and_drop_the_oldest_of_all() {
        let patterns: Arc<[Pattern]> = [Pattern::parse("c.{key}").unwrap()].into();
        let options = HandlerOptions {
            workers: NonZeroUsize::new(4).unwrap(),
            ordered_by: Some(OrderedBy::Placeholder("key")),
            buffer: Buffer { messages: NonZeroUsize::new(9).unwrap(), ..Buffer::DEFAULT },
            overflow: Overflow::DropOldest,
            ..HandlerOptions::DEFAULT
        };
        let activity = Activity::default();
        let mailbox = Mailbox::for_handler("h", &patterns, &options, activity.clone(), Gaps::Count);
        mailbox.push(&mut batch(0..12)).await;
        assert_eq!(activity.unfinished(), 9);
        mailbox.close();
        let mut lane_of = [None; 3];
        let mut all = Vec::new();
        for lane in 0..4 {
            while let Some(Entry::Message(message)) = mailbox.pop(lane).await {
                let number = message.payload[0];
                let known = lane_of[usize::from(number % 3)].get_or_insert(lane);
                assert_eq!(*known, lane, "one value, one lane");
                all.push(number);
                mailbox.finished();
            }
        }
        for key in 0..3 {
            let of_key: Vec<_> = all.iter().filter(|number| *number % 3 == key).collect();
            assert!(of_key.is_sorted(), "{of_key:?}");
        }
        all.sort_unstable();
        assert_eq!(all, (3..12).collect::<Vec<_>>());
        assert_eq!(activity.unfinished(), 0);
    }
}
