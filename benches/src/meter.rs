//! Counts what a side handles, from the first message to the last order. All sides pay for it alike.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use crate::job::{Failure, Report};
use crate::{order, usage};

static HANDLED: AtomicU64 = AtomicU64::new(0);
static START: OnceLock<Reading> = OnceLock::new();
static END: OnceLock<Reading> = OnceLock::new();
static ENDED: Notify = Notify::const_new();
static BURST: Notify = Notify::const_new();
static LOADS: AtomicU64 = AtomicU64::new(0);

struct Reading {
    at: Instant,
    cpu_seconds: Option<f64>,
}

impl Reading {
    fn take() -> Self {
        Self { at: Instant::now(), cpu_seconds: usage::cpu_seconds() }
    }
}

/// An order has been handled. Called from one thread.
pub(crate) fn handled(id: u64) {
    if id == order::LAST {
        END.get_or_init(Reading::take);
        ENDED.notify_one();
        return;
    }
    let count = HANDLED.load(Ordering::Relaxed) + 1;
    HANDLED.store(count, Ordering::Relaxed);
    if count == 1 {
        START.get_or_init(Reading::take);
    }
}

/// Waits for the last order.
pub(crate) async fn ended() -> Report {
    ENDED.notified().await;
    report()
}

pub(crate) fn report() -> Report {
    let count = HANDLED.load(Ordering::Relaxed);
    match (START.get(), END.get()) {
        (Some(start), Some(end)) => between(start, end, count),
        _ => Report { count, ..Report::default() },
    }
}

/// The last message of a burst has been handled.
pub(crate) fn burst_handled() {
    BURST.notify_one();
}

/// Waits for the end of a burst.
pub(crate) async fn burst() {
    BURST.notified().await;
}

/// A cached function was called: its cache had no answer.
pub(crate) fn loaded() {
    LOADS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn loads() -> u64 {
    LOADS.load(Ordering::Relaxed)
}

/// Measures `count` operations that are done in one piece of work.
pub(crate) async fn operations<F>(count: u64, work: F) -> Result<Report, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let start = Reading::take();
    work.await?;
    Ok(between(&start, &Reading::take(), count))
}

fn between(start: &Reading, end: &Reading, count: u64) -> Report {
    Report {
        count,
        seconds: (end.at - start.at).as_secs_f64(),
        cpu_seconds: end.cpu_seconds.zip(start.cpu_seconds).map(|(end, start)| end - start),
        ..Report::default()
    }
}
