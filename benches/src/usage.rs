//! What this process has used so far, or another one, as Linux tells it in `/proc`; `None` elsewhere.

use std::fmt::Display;
use std::fs;

/// The processor time of all living threads, in seconds.
pub(crate) fn cpu_seconds() -> Option<f64> {
    cpu_seconds_of("self")
}

/// The same of another process.
pub(crate) fn cpu_seconds_of(process: impl Display) -> Option<f64> {
    let mut nanos: u64 = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        // Nanoseconds on a processor, nanoseconds of waiting for one, turns.
        let schedstat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanos += schedstat.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanos as f64 / 1e9)
}

/// The processor time of all processes that this one has started and that have ended, and of those that they have.
pub(crate) fn cpu_seconds_of_children() -> Option<f64> {
    /// The system's unit here, whatever the clock of its kernel is.
    const PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may have blanks. After it the eleventh is the user's time of the process itself.
    let (_, rest) = stat.rsplit_once(')')?;
    let times = rest.split_whitespace().skip(13).take(2);
    Some(times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / PER_SECOND)
}

/// The most memory that was resident at once, in MiB.
pub(crate) fn peak_mib() -> Option<f64> {
    Some(status_kib("self", "VmHWM:")? / 1024.0)
}

/// The memory that is resident of another process, in KiB.
pub(crate) fn resident_kib_of(process: impl Display) -> Option<f64> {
    status_kib(process, "VmRSS:")
}

fn status_kib(process: impl Display, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}
