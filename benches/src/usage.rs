//! What this process has used so far, as Linux tells it in `/proc`; `None` elsewhere.

use std::fs;

/// The processor time of all living threads, in seconds.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let mut nanos: u64 = 0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        // Nanoseconds on a processor, nanoseconds of waiting for one, turns.
        let schedstat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanos += schedstat.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanos as f64 / 1e9)
}

/// The most memory that was resident at once, in MiB.
pub(crate) fn peak_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
