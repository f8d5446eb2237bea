//! One clock for all processes of this machine.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nanoseconds of the system's monotonic clock (`CLOCK_MONOTONIC` on Linux), which all processes share.
pub fn now() -> u64 {
    static START: OnceLock<(Instant, Duration)> = OnceLock::new();
    let (start, reading) = START.get_or_init(|| {
        let start = Instant::now();
        (start, reading(start))
    });
    nanos(*reading + start.elapsed())
}

pub fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().expect("it is less than 500 years")
}

/// What the clock said: an [`Instant`] is that reading, and only `Debug` shows it.
fn reading(instant: Instant) -> Duration {
    let text = format!("{instant:?}");
    let field = |name: &str| {
        let rest = text.split_once(name).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
        let digits = rest.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    Duration::new(field("tv_sec"), u32::try_from(field("tv_nsec")).expect("it is less than a second"))
}

#[test]
fn processes_read_one_clock() {
    const TEST: &str = "cache::clock::processes_read_one_clock";
    if crate::child::is(TEST) {
        return println!("\nnow {}", now());
    }
    let before = now();
    let ended = crate::child::start(TEST, "").end();
    let lines = ended.lines.iter().find_map(|line| line.strip_prefix("now ")?.parse::<u64>().ok());
    assert!((before..now()).contains(&lines.unwrap()));
}
