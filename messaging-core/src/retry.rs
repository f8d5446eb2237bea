//! How long to wait before the next attempt. Pure arithmetic: no timers, no I/O.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// When and how often something that failed is tried again: `attempts` calls in all, the first included, with an
/// exponentially growing delay between them.
///
/// ```
/// use messaging_core::Retry;
/// use std::time::Duration;
///
/// let retry = Retry::DEFAULT;
/// assert_eq!(retry.delay_after(1), Some(Duration::from_millis(100)));
/// assert_eq!(retry.delay_after(2), Some(Duration::from_millis(200)));
/// assert_eq!(retry.delay_after(3), None); // the third attempt was the last
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How many calls there are at most, the first one included.
    pub attempts: NonZeroU32,
    /// The delay before the second attempt.
    pub initial: Duration,
    /// By what each further delay grows; at least 1.
    pub multiplier: f64,
    /// No delay is longer than this.
    pub max_delay: Duration,
}

impl Retry {
    /// Three attempts, 100 ms before the second, doubling, at most 30 s.
    pub const DEFAULT: Self = Self {
        attempts: NonZeroU32::new(3).expect("three is not zero"),
        initial: Duration::from_millis(100),
        multiplier: 2.0,
        max_delay: Duration::from_secs(30),
    };

    /// One attempt only.
    pub const NEVER: Self = Self { attempts: NonZeroU32::MIN, ..Self::DEFAULT };

    /// The delay after attempt number `attempt` (counted from 1) has failed, or `None` if that was the last.
    #[must_use]
    pub fn delay_after(&self, attempt: u32) -> Option<Duration> {
        (attempt < self.attempts.get())
            .then(|| exponential(self.initial, self.multiplier, self.max_delay, attempt.saturating_sub(1)))
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The delays between attempts that go on for ever, such as reconnecting: exponential growth with *full jitter*, that
/// is a uniformly random part of the exponential delay ("Exponential Backoff And Jitter", Marc Brooker, AWS
/// Architecture Blog, 2015), so that many processes do not come back in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The upper bound of the first delay.
    pub initial: Duration,
    /// The upper bound of every delay.
    pub max: Duration,
}

impl Backoff {
    /// The delay before attempt number `attempt`, counted from 0; at least a tenth of its upper bound, so that a
    /// peer that refuses at once is not asked in a tight loop.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        let bound = exponential(self.initial, 2.0, self.max, attempt);
        bound.mul_f64(0.1 + 0.9 * fastrand::f64())
    }
}

/// The moment after this time, or decades from now: a duration that a user gave must not overflow the clock.
pub(crate) fn deadline(after: Duration) -> Instant {
    deadline_from(Instant::now(), after)
}

pub(crate) fn deadline_from(begun: Instant, after: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    begun + after.min(FAR)
}

fn exponential(initial: Duration, multiplier: f64, max: Duration, steps: u32) -> Duration {
    let factor = multiplier.powi(i32::try_from(steps).unwrap_or(i32::MAX));
    Duration::try_from_secs_f64(initial.as_secs_f64() * factor).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_bound_and_never_overflow() {
        let retry = Retry { attempts: NonZeroU32::MAX, ..Retry::DEFAULT };
        assert_eq!(retry.delay_after(4), Some(Duration::from_millis(800)));
        assert_eq!(retry.delay_after(40), Some(Duration::from_secs(30)));
        assert_eq!(retry.delay_after(u32::MAX - 1), Some(Duration::from_secs(30)));
        assert_eq!(Retry::NEVER.delay_after(1), None);
    }

    #[test]
    fn backoff_stays_between_a_tenth_and_its_bound() {
        let backoff = Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(2) };
        for (attempt, bound) in [(0, 50), (1, 100), (3, 400), (20, 2_000), (u32::MAX, 2_000)] {
            for _ in 0..200 {
                let delay = backoff.delay(attempt);
                assert!(delay <= Duration::from_millis(bound), "{delay:?} after {attempt}");
                assert!(delay >= Duration::from_millis(bound / 10), "{delay:?} after {attempt}");
            }
        }
    }
}
