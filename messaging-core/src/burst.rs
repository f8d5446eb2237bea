//! What keeps a burst of like events from flooding the log. Pure bookkeeping: the caller says what time it is.

use std::time::{Duration, Instant};

/// Lets the first of a burst of like events through, so that logs get one line and not a flood: a burst ends when nothing failed for [`Burst::QUIET`] or after
/// [`Burst::LONGEST`].
#[derive(Debug, Default)]
pub(crate) struct Burst {
    started: Option<Instant>,
    last: Option<Instant>,
    suppressed: u64,
}

impl Burst {
    const QUIET: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);

    /// `Some(how many were suppressed before)` if this one is to be logged.
    pub(crate) fn note(&mut self, now: Instant) -> Option<u64> {
        let goes_on = matches!((self.started, self.last), (Some(started), Some(last))
            if now.duration_since(last) < Self::QUIET && now.duration_since(started) < Self::LONGEST);
        self.last = Some(now);
        if goes_on {
            self.suppressed += 1;
            return None;
        }
        self.started = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_once_and_then_counted() {
        let mut burst = Burst::default();
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(burst.note(at(0)), Some(0));
        assert_eq!(burst.note(at(500)), None);
        assert_eq!(burst.note(at(1_400)), None);
        assert_eq!(burst.note(at(2_500)), Some(2), "after a quiet second a new burst begins");
        let logged = (1..=70).filter_map(|step| burst.note(at(2_500 + step * 500))).collect::<Vec<_>>();
        assert_eq!(logged, [59], "a burst without an end is told of every thirty seconds");
    }
}
