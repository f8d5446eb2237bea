//! Counts what a side handles, from the first message to the last order. All sides pay for it alike.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::job::{Failure, Report};
use crate::{order, usage};

static HANDLED: AtomicU64 = AtomicU64::new(0);
static START: OnceLock<Reading> = OnceLock::new();
static END: OnceLock<Reading> = OnceLock::new();
static ENDED: Notify = Notify::const_new();
static BURST: Notify = Notify::const_new();

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

/// Measures `count` operations that are done in one piece of work.
pub(crate) async fn operations<F>(count: u64, work: F) -> Result<Report, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let start = Reading::take();
    work.await?;
    Ok(between(&start, &Reading::take(), count))
}

/// Measures `total` operations in `tasks` tasks; each is given its number and how many it has to do.
pub(crate) async fn each_in_a_task<F>(
    tasks: u64,
    total: u64,
    work: impl Fn(u64, u64) -> F,
) -> Result<Report, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let each = total / tasks;
    operations(each * tasks, async {
        let mut running: JoinSet<_> = (0..tasks).map(|task| work(task, each)).collect();
        while let Some(done) = running.join_next().await {
            done??;
        }
        Ok(())
    })
    .await
}

fn between(start: &Reading, end: &Reading, count: u64) -> Report {
    Report {
        count,
        seconds: (end.at - start.at).as_secs_f64(),
        cpu_seconds: end.cpu_seconds.zip(start.cpu_seconds).map(|(end, start)| end - start),
        ..Report::default()
    }
}
