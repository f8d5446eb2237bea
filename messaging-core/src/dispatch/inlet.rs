//! One worker's end of its handler's mailbox: what it has taken, which of that is for the handler, and since when it is at
//! work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Delivery;
use super::mailbox::{Entry, Hand};
use super::running::RunningHandler;
use crate::channel::Captures;
use crate::message::Received;
use crate::meter::IS_MEASURED;

/// One worker's end of its handler's mailbox.
#[derive(Debug)]
pub struct Queue {
    handler: Arc<RunningHandler>,
    lane: usize,
    hand: Hand,
    /// Of the messages that were taken at once, those that the worker has had to do with, and is done with but for the last.
    begun: usize,
    /// The worker counts as one that has a message in its hands.
    is_busy: bool,
    /// Made for the first message, and used for all.
    pub(super) delivery: Option<Delivery>,
    pub(super) clock: Clock,
}

impl Queue {
    pub(crate) fn new(handler: Arc<RunningHandler>, lane: usize) -> Self {
        Self {
            handler,
            lane,
            hand: Hand::new(),
            begun: 0,
            is_busy: false,
            delivery: None,
            clock: Clock::new(),
        }
    }

    pub(super) fn handler(&self) -> Arc<RunningHandler> {
        Arc::clone(&self.handler)
    }

    /// Makes the next message that is really for this handler the delivery; `false` when the handler stops. With that, the
    /// last one is finished.
    ///
    /// Cancellation: nothing is lost.
    pub(super) async fn next(&mut self) -> bool {
        loop {
            match self.hand.pop_front().map(|queued| queued.entry) {
                Some(Entry::Message(received)) => {
                    if !self.handler.mailbox.begins(&received) {
                        self.hand.clear();
                        continue;
                    }
                    self.begun += 1;
                    if self.delivers(received) {
                        return true;
                    }
                }
                Some(Entry::Gap(_)) => {}
                None => {
                    self.rest();
                    if !self.handler.mailbox.take(self.lane, &mut self.hand).await {
                        return false;
                    }
                    self.clock.run_begins();
                }
            }
        }
    }

    fn delivers(&mut self, received: Received) -> bool {
        let patterns = &self.handler.patterns;
        let came_by = usize::from(received.pattern);
        let attempt = received.entry.as_ref().map_or(1, |entry| entry.attempt);
        let delivery = match &mut self.delivery {
            Some(delivery) => {
                delivery.received = received;
                delivery.attempt = attempt;
                delivery
            }
            none => none.insert(Delivery {
                attempt,
                received,
                patterns: Arc::clone(patterns),
                captures: Captures::new(),
                context: self.handler.context.clone(),
            }),
        };
        let channel = &delivery.received.channel;
        let matches = patterns[came_by].captures(channel, &mut delivery.captures);
        // Redis delivers once for each of a handler's patterns that match; the first of them counts.
        let earlier = patterns[..came_by].iter().any(|pattern| pattern.matches(channel));
        if !matches {
            self.handler.mismatched();
        }
        matches && !earlier
    }

    /// The worker takes the delivery up.
    pub(super) fn takes_up(&mut self) {
        let Some(delivery) = &self.delivery else { return };
        let is_read = self.clock.begins();
        if !self.is_busy {
            self.is_busy = true;
            self.handler.busy_workers().fetch_add(1, Ordering::Relaxed);
        }
        if is_read {
            self.handler.took_up(&delivery.received, self.clock.read.into_std());
        }
    }

    /// Nothing is in the worker's hands.
    fn rest(&mut self) {
        self.clock.run_ends();
        if let Some(delivery) = &mut self.delivery {
            // It would keep the whole chunk alive that it came in.
            delivery.received.payload = Bytes::new();
            delivery.received.entry = None;
        }
        if std::mem::take(&mut self.is_busy) {
            self.handler.busy_workers().fetch_sub(1, Ordering::Relaxed);
        }
        self.handler.mailbox.finished(std::mem::take(&mut self.begun));
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if !self.hand.is_empty() {
            self.handler.mailbox.not_begun(&mut self.hand);
        }
        self.rest();
    }
}

/// Since when a call runs. It reads the system's clock for each call that is slow, and less often for others: a reading
/// takes a good part of the time that the rest of a message's way takes.
#[derive(Debug)]
pub(super) struct Clock {
    read: Instant,
    /// How many calls began since it was read.
    calls: u32,
    /// It has to be read for the next call.
    is_due: bool,
    /// The last calls took so long that one more reading does not matter.
    is_slow: bool,
}

/// Of quick calls, one in so many has the clock read.
const EVERY: u32 = 16;
/// A call that takes no longer is quick.
const QUICK: Duration = Duration::from_micros(100);
/// A timeout may be so much too early.
const NEAR: Duration = Duration::from_millis(1);

impl Clock {
    fn new() -> Self {
        Self { read: Instant::now(), calls: 0, is_due: true, is_slow: false }
    }

    /// A call begins; `true` if the clock was read for it.
    fn begins(&mut self) -> bool {
        let is_read = IS_MEASURED || self.is_due || self.is_slow || self.calls >= EVERY;
        if is_read {
            let now = Instant::now();
            if !self.is_due {
                self.judge(now);
            }
            *self = Self { read: now, calls: 0, is_due: false, ..*self };
        }
        self.calls += 1;
        is_read
    }

    /// When the call in progress, which has to be waited for now, began: never too early by more than [`NEAR`].
    pub(super) fn waits(&mut self) -> Instant {
        self.is_due = true;
        let now = Instant::now();
        let is_near = self.calls <= 1 || now.saturating_duration_since(self.read) <= NEAR;
        if is_near { self.read } else { now }
    }

    /// When the call in progress began, as far as that is known.
    pub(super) fn begun(&self) -> Instant {
        self.read
    }

    /// The call in progress begins anew.
    pub(super) fn begins_again(&mut self) {
        *self = Self { read: Instant::now(), calls: 1, is_due: true, ..*self };
    }

    fn run_begins(&mut self) {
        self.is_due = true;
    }

    fn run_ends(&mut self) {
        if self.calls > 1 && !self.is_due {
            self.judge(Instant::now());
        }
    }

    fn judge(&mut self, now: Instant) {
        self.is_slow = now.saturating_duration_since(self.read) > QUICK * self.calls;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_is_not_charged_with_the_ones_before_it() {
        let mut clock = Clock::new();
        assert!(clock.begins(), "the first of a run");
        advance(Duration::from_secs(1)).await;
        assert_eq!(clock.begins(), IS_MEASURED);
        let begun = Instant::now();
        assert_eq!(clock.waits(), begun, "the second before the call was not its own");
        assert!(clock.begins(), "who has waited knows nothing of the time");
        advance(Duration::from_secs(1)).await;
        assert_eq!(clock.waits(), begun, "alone since the clock was read, it has all of the time for itself");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_calls_have_the_clock_read_each_time() {
        let mut clock = Clock::new();
        let quick = (0..2 * EVERY).filter(|_| clock.begins()).count();
        assert_eq!(quick, if IS_MEASURED { 32 } else { 2 });
        advance(QUICK * 2 * EVERY).await;
        clock.run_ends();
        clock.run_begins();
        for _ in 0..EVERY {
            assert!(clock.begins());
            advance(QUICK * 2).await;
        }
        assert!(clock.begins());
        assert!(clock.begins(), "nobody knows yet that it took no time");
        assert_eq!(clock.begins(), IS_MEASURED);
    }
}
