//! The time from publishing a message to its handler, in one process: one clock, and both ends are the side's own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::job::{Failure, Report, Turn};
use crate::order;

/// The first part is not counted: connections, caches and branch predictors are cold.
const WARM_UP: f64 = 0.1;
/// How long nothing may come while something is awaited.
const PATIENCE: Duration = Duration::from_secs(10);

static TIMES: OnceLock<Times> = OnceLock::new();

struct Times {
    origin: Instant,
    /// When each message was published, in nanoseconds since `origin`; then how long it took.
    nanos: Box<[AtomicU64]>,
    handled: AtomicU64,
    arrived: Notify,
}

/// A handler was called with this order.
pub(crate) fn handled(id: u64) {
    let (Some(times), Some(number)) = (TIMES.get(), id.checked_sub(order::FIRST)) else { return };
    if let Some(time) = usize::try_from(number).ok().and_then(|number| times.nanos.get(number)) {
        let published = time.load(Ordering::Relaxed);
        time.store(times.now().saturating_sub(published), Ordering::Relaxed);
        times.handled.fetch_add(1, Ordering::Relaxed);
        times.arrived.notify_one();
    }
}

/// Publishes `messages` orders with `publish`, which is given their ids, and waits until all are handled.
pub(crate) async fn measure<F>(
    messages: u64,
    turn: Turn,
    publish: impl Fn(u64) -> F,
) -> Result<Report, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let nanos = (0..messages).map(|_| AtomicU64::new(0)).collect();
    let times = Times { origin: Instant::now(), nanos, handled: AtomicU64::new(0), arrived: Notify::new() };
    let times = TIMES.get_or_init(|| times);
    match turn {
        Turn::OneInFlight => {
            for (number, time) in times.nanos.iter().enumerate() {
                time.store(times.now(), Ordering::Relaxed);
                publish(order::FIRST + number as u64).await?;
                times.arrived.notified().await;
            }
        }
        Turn::PerSecond(rate) => {
            let mut ticks = ticks(messages, rate);
            while let Some(number) = ticks.recv().await {
                times.nanos[usize::try_from(number)?].store(times.now(), Ordering::Relaxed);
                tokio::spawn(publish(order::FIRST + number));
            }
        }
        Turn::Callers(callers) => {
            let one = async |caller: u64| {
                // Each with its neighbours' numbers in between: all of them are at work from the beginning to the end.
                for number in (caller..messages).step_by(usize::try_from(callers)?) {
                    times.nanos[usize::try_from(number)?].store(times.now(), Ordering::Relaxed);
                    publish(order::FIRST + number).await?;
                }
                Ok::<(), Failure>(())
            };
            try_join_all((0..callers).map(one)).await?;
        }
    }
    while times.handled.load(Ordering::Relaxed) < messages {
        if timeout(PATIENCE, times.arrived.notified()).await.is_err() {
            let handled = times.handled.load(Ordering::Relaxed);
            return Err(
                format!("{handled} of {messages} messages came, and then nothing for {PATIENCE:?}").into()
            );
        }
    }
    Ok(times.report())
}

impl Times {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn report(&self) -> Report {
        let skipped = (self.nanos.len() as f64 * WARM_UP) as usize;
        let mut nanos: Vec<u64> =
            self.nanos[skipped..].iter().map(|time| time.load(Ordering::Relaxed)).collect();
        nanos.sort_unstable();
        let percentile = |part: f64| {
            let place = (nanos.len() as f64 * part) as usize;
            nanos.get(place.min(nanos.len() - 1)).map_or(0.0, |&nanos| nanos as f64 / 1e9)
        };
        Report {
            count: self.nanos.len() as u64,
            seconds: self.origin.elapsed().as_secs_f64(),
            p50: percentile(0.50),
            p99: percentile(0.99),
            ..Report::default()
        }
    }
}

/// The numbers below `messages`, each when it is due. A thread keeps the time: the runtime's own clock has milliseconds.
fn ticks(messages: u64, rate: u64) -> mpsc::UnboundedReceiver<u64> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let start = Instant::now();
        for number in 0..messages {
            let due = start + Duration::from_nanos(number * 1_000_000_000 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(number).is_err() {
                return;
            }
        }
    });
    receiver
}
