//! The circuit breaker before the cache: after some failures in a row calls go to the function at once, and only now and
//! then one of them finds out whether Redis is back (M. Nygard, "Release It!", 2007).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After so many failures in a row it opens.
const FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Closed below [`FAILURES`] failures in a row, open from then on.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    pause: Duration,
    /// Until when nobody is let through.
    until: Option<Instant>,
    /// Somebody has been let through since.
    probed: bool,
}

impl Breaker {
    /// Whether the cache may be asked. Where it is open, one caller is let through after each pause.
    pub(super) fn lets_through(&self) -> bool {
        if !self.is_open() {
            return true;
        }
        let mut open = self.lock();
        let now = Instant::now();
        if open.until.is_some_and(|until| until > now) {
            return false;
        }
        // The next one comes after a pause too, should this one never tell.
        open.until = Some(now + open.pause.max(FIRST_PAUSE));
        open.probed = true;
        true
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Acquire) >= FAILURES
    }

    pub(super) fn succeeded(&self) {
        // Nearly always there is nothing to change.
        if self.failures.load(Ordering::Acquire) > 0 {
            *self.lock() = Open::default();
            self.failures.store(0, Ordering::Release);
        }
    }

    pub(super) fn failed(&self) {
        let mut open = self.lock();
        let failures = self.failures.load(Ordering::Acquire).saturating_add(1);
        self.failures.store(failures, Ordering::Release);
        // Those who were on their way when it opened do not make the pause longer.
        if failures == FAILURES || std::mem::take(&mut open.probed) {
            open.pause = (open.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            open.until = Some(Instant::now() + open.pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_lets_one_through_after_each_pause() {
        let breaker = Breaker::default();
        (1..FAILURES).for_each(|_| breaker.failed());
        breaker.succeeded();
        (1..FAILURES).for_each(|_| breaker.failed());
        assert!(breaker.lets_through(), "they were not in a row");
        breaker.failed();
        breaker.failed();
        assert!(!breaker.lets_through());
        let mut pause = FIRST_PAUSE;
        for _ in 0..8 {
            tokio::time::advance(pause / 2 - Duration::from_millis(1)).await;
            assert!(!breaker.lets_through(), "{pause:?}");
            tokio::time::advance(pause / 2 + Duration::from_millis(1)).await;
            assert!(breaker.lets_through(), "{pause:?}");
            assert!(!breaker.lets_through(), "one is enough");
            breaker.failed();
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        tokio::time::advance(LONGEST_PAUSE).await;
        assert!(breaker.lets_through());
        breaker.succeeded();
        assert!(breaker.lets_through() && breaker.lets_through());
    }
}
