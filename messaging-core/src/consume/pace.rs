//! How much a queue's process takes ahead: as much as it handles in a moment, so that a slow handler leaves the rest to
//! other processes, and a fast one never waits for Redis.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::lock;

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
    pub(super) fn new(workers: NonZeroUsize, most: NonZeroUsize) -> Self {
        let least = workers.get().saturating_mul(2).min(most.get());
        Self {
            state: Mutex::new(State { target: least, filled: None, starved: false }),
            least,
            most: most.get(),
        }
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fast_handlers_take_more_ahead_and_slow_ones_less() {
        let pace = Pace::new(NonZeroUsize::MIN, NonZeroUsize::new(10).unwrap());
        let after = async |took: Duration| {
            pace.filled(1);
            tokio::time::advance(took).await;
            pace.half_handled()
        };
        assert_eq!(pace.target(), 2);
        assert_eq!([after(SHORT / 2).await, after(SHORT / 2).await, after(SHORT / 2).await], [4, 8, 10]);
        assert_eq!(after(SHORT * 2).await, 10);
        assert_eq!([after(LONG * 2).await, after(LONG * 2).await, after(LONG * 2).await], [5, 2, 2]);
        pace.filled(0);
        tokio::time::advance(LONG * 2).await;
        assert_eq!(pace.half_handled(), 4, "the workers had nothing to do");
        tokio::time::advance(LONG * 2).await;
        assert_eq!(pace.half_handled(), 4, "a stream that has little says nothing of the handler");
    }
}
