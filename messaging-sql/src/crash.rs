//! For the crash tests, which let a process die at every step of its way to the database and to Redis, one after the other.

/// A step. With the feature `__crash-points` the process dies at the one that `MESSAGING_CRASH_AT` says, counted from 1.
#[cfg(feature = "__crash-points")]
pub(crate) fn point() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("MESSAGING_CRASH_AT").ok()?.parse().ok());
    static PASSED: AtomicU64 = AtomicU64::new(0);
    if let Some(at) = *AT
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == at
    {
        std::process::abort();
    }
}

#[cfg(not(feature = "__crash-points"))]
pub(crate) fn point() {}
