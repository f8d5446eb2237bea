//! How often a connection may do something. Pure bookkeeping: the caller says what time it is.

use std::time::{Duration, Instant};

use crate::limits::Rate;

/// A token bucket that begins full: the moment at which it is full again says all. This is the generic cell rate
/// algorithm (ITU-T I.371) as a virtual schedule; there is no timer, and nothing to refill.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    full_at: Instant,
}

impl TokenBucket {
    pub(crate) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one out, if there is one. A clock that steps back only makes it wait.
    #[must_use]
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        // Rounded up: so there is never more than the rate, and up to a million a second less by a thousandth at most.
        let interval = 1_000_000_000_u64.div_ceil(u64::from(rate.per_second.get()));
        let capacity = Duration::from_nanos(interval * u64::from(rate.burst.get()));
        let Some(full_at) = self.full_at.max(now).checked_add(Duration::from_nanos(interval)) else {
            return false;
        };
        let is_there = full_at.duration_since(now) <= capacity;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn rate(burst: u32, per_second: u32) -> Rate {
        Rate { burst: NonZeroU32::new(burst).unwrap(), per_second: NonZeroU32::new(per_second).unwrap() }
    }

    #[test]
    fn a_burst_goes_through_and_then_the_rate() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut bucket = TokenBucket::new(start);
        let mut taken = |now| (0..10).filter(|_| bucket.take(rate(3, 2), now)).count();
        assert_eq!(taken(at(0)), 3);
        assert_eq!(taken(at(499)), 0);
        assert_eq!(taken(at(500)), 1);
        assert_eq!(taken(at(1_600)), 2);
        assert_eq!(taken(at(1_999)), 0, "what is left of an interval counts on");
        assert_eq!(taken(at(2_000)), 1);
        assert_eq!(taken(at(1_000)), 0, "a clock that steps back gives nothing");
        assert_eq!(taken(at(3_600_000)), 3, "an hour gives no more than the burst");
    }

    #[test]
    fn a_third_of_a_second_is_not_rounded_down() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        assert!(bucket.take(rate(1, 3), start));
        assert!(!bucket.take(rate(1, 3), start + Duration::from_nanos(333_333_333)));
        assert!(bucket.take(rate(1, 3), start + Duration::from_nanos(333_333_334)));
    }

    #[test]
    fn it_is_small_and_extremes_do_not_overflow() {
        assert_eq!(size_of::<TokenBucket>(), 16);
        let start = Instant::now();
        for (burst, per_second) in [(u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX), (1, 1)] {
            let mut bucket = TokenBucket::new(start);
            assert!(bucket.take(rate(burst, per_second), start), "{burst} {per_second}");
        }
    }

    proptest! {
        #[test]
        fn it_never_gives_more_than_the_burst_and_the_rate(
            burst in 1_u32..20,
            per_second in 1_u32..5_000,
            steps in prop::collection::vec((0_u64..40_000_000, 1_usize..8), 1..60),
        ) {
            let start = Instant::now();
            let (mut now, mut bucket) = (start, TokenBucket::new(start));
            // When each was given: any of them to any later one is a window, not only from the start on.
            let mut given = Vec::new();
            for (nanos, asked) in steps {
                now += Duration::from_nanos(nanos);
                given.extend((0..asked).filter(|_| bucket.take(rate(burst, per_second), now)).map(|_| now));
            }
            for (first, from) in given.iter().enumerate() {
                for (last, to) in given.iter().enumerate().skip(first) {
                    let allowed = u128::from(burst) * 1_000_000_000
                        + u128::from(per_second) * to.duration_since(*from).as_nanos();
                    let had = (last - first + 1) as u128 * 1_000_000_000;
                    prop_assert!(had <= allowed, "{had} of {allowed}");
                }
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(per_second in 1_u32..100_000, count in 1_usize..200) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(start);
            let interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(per_second)));
            for turn in 0..count {
                prop_assert!(bucket.take(rate(1, per_second), start + interval * turn as u32));
            }
        }
    }
}
