//! How much a queue's process takes ahead: as much as it handles in a moment, so that a slow handler leaves the rest to
//! other processes, and a fast one never waits for Redis. A buffer that was asked for is filled.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::lock;
use crate::dispatch::{Buffer, HandlerOptions, OrderedBy};

/// What was taken ahead and half handled sooner than this was too little.
const SHORT: Duration = Duration::from_millis(100);
/// What took longer than this was too much.
const LONG: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
    least: usize,
    most: usize,
}

#[derive(Debug)]
struct State {
    target: usize,
    /// When all that was asked for had been taken, until half of it was handled.
    filled: Option<Instant>,
    /// The workers had run out of messages before that.
    starved: bool,
}

impl Pace {
    /// Begins with two messages for each worker.
    ///
    /// An exclusive stream is nobody else's: there is nobody to leave anything to, and a key that waits for its retry must not
    /// be all that there is room for.
    pub(super) fn new(options: &HandlerOptions) -> Self {
        let HandlerOptions { workers, buffer, ordered_by, .. } = *options;
        let most = buffer.messages.get();
        let adapts = buffer.messages == Buffer::DEFAULT.messages && ordered_by != Some(OrderedBy::Key);
        let least = if adapts { workers.get().saturating_mul(2).min(most) } else { most };
        Self { state: Mutex::new(State { target: least, filled: None, starved: false }), least, most }
    }

    /// How many messages may be taken ahead.
    pub(super) fn target(&self) -> usize {
        lock(&self.state).target
    }

    /// As much as was asked for has been taken; before that, this much was left.
    pub(super) fn filled(&self, left: usize) {
        let mut state = lock(&self.state);
        state.filled = Some(Instant::now());
        state.starved = left == 0;
    }

    /// There is room again; returns how many messages may be taken ahead from now on.
    pub(super) fn half_handled(&self) -> usize {
        let mut state = lock(&self.state);
        if let Some(filled) = state.filled.take() {
            let took = filled.elapsed();
            // Where Redis is far away, workers that run out of messages are the sign.
            if took < SHORT || state.starved {
                state.target = state.target.saturating_mul(2).min(self.most);
            } else if took > LONG {
                state.target = (state.target / 2).max(self.least);
            }
        }
        state.target
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    async fn after(pace: &Pace, took: Duration, left: usize) -> usize {
        pace.filled(left);
        tokio::time::advance(took).await;
        pace.half_handled()
    }

    #[tokio::test(start_paused = true)]
    async fn fast_handlers_take_more_ahead_and_slow_ones_less() {
        let pace = Pace::new(&HandlerOptions::DEFAULT);
        assert_eq!(pace.target(), 2);
        for target in [4, 8, 16, 32, 64, 128, 256, 512, 1_000, 1_000] {
            assert_eq!(after(&pace, SHORT / 2, 1).await, target);
        }
        assert_eq!(after(&pace, SHORT * 2, 1).await, 1_000);
        for target in [500, 250, 125, 62, 31, 15, 7, 3, 2, 2] {
            assert_eq!(after(&pace, LONG * 2, 1).await, target);
        }
        assert_eq!(after(&pace, LONG * 2, 0).await, 4, "the workers had nothing to do");
        tokio::time::advance(LONG * 2).await;
        assert_eq!(pace.half_handled(), 4, "a stream that has little says nothing of the handler");
    }

    #[tokio::test(start_paused = true)]
    async fn a_buffer_that_was_asked_for_is_filled() {
        let ten = NonZeroUsize::new(10).unwrap();
        let asked_for = HandlerOptions::DEFAULT.buffer(Buffer { messages: ten, ..Buffer::DEFAULT });
        let ordered = HandlerOptions::DEFAULT.ordered_by(OrderedBy::Key);
        for (options, target) in [(asked_for, 10), (ordered, 1_000)] {
            let pace = Pace::new(&options);
            assert_eq!((pace.target(), after(&pace, LONG * 2, 1).await), (target, target));
        }
    }
}
