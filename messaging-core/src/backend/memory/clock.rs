//! The bus's clock: milliseconds since 1970 that pass as tokio's time does, so that a test that pauses time pauses it too.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Clock {
    base: u64,
    started: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { base: millis(since_1970), started: Instant::now() }
    }
}

impl Clock {
    pub(super) fn now(&self) -> u64 {
        later(self.base, self.started.elapsed())
    }
}

/// The time so long after `now`.
pub(super) fn later(now: u64, after: Duration) -> u64 {
    now.saturating_add(millis(after))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
