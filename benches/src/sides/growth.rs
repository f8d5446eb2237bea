//! Our side where there is more and more of something: handlers, channels, bytes, cached keys.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use messaging_core::{Handlers, Messaging, Subscription, redis_cache};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cache::{self, Tally};
use super::ours;
use crate::growth::{Note, channel, shuffled};
use crate::job::{Failure, Growth, Report, Said};
use crate::order::{self, Order};
use crate::{meter, usage};

/// How long there is nothing to do before memory is looked at.
const IDLE: Duration = Duration::from_millis(500);
/// How many subscriptions are on their way at once.
const AT_ONCE: usize = 256;
/// How long nothing may come while something is awaited.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many tasks ask for cached keys.
const READERS: u64 = 8;
/// How many calls find out whether the cache is in use.
const TRIED: u64 = 10;

static CAME: AtomicU64 = AtomicU64::new(0);
static EXPECTED: AtomicU64 = AtomicU64::new(0);

#[redis_cache(key = "bench:grown:{id}", ttl = 3600, id = "grown", invalidate_on = ["orders.changed:{id}"])]
async fn grown_order(id: u64) -> Order {
    Order::numbered(id)
}

pub(crate) async fn measure(growth: Growth) -> Result<Report, Failure> {
    match growth {
        Growth::Handlers { port, handlers, messages } => by_handlers(port, handlers, messages).await,
        Growth::Channels { port, channels, messages } => by_channels(port, channels, messages).await,
        Growth::Payload { port, messages } => by_payload(port, messages).await,
        Growth::Keys { port, keys, calls } => by_keys(port, keys, calls).await,
    }
}

async fn messaging(port: u16) -> Result<Messaging, Failure> {
    ours::messaging(&url(port), Handlers::none()).await
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

async fn by_handlers(port: u16, handlers: u64, messages: u64) -> Result<Report, Failure> {
    let messaging = messaging(port).await?;
    // The first one brings the connection along, which is not the cost of a handler.
    let first = messaging.subscriber().on("orders.first", async |_: Order| {}).await?;
    let before = resident()?;
    let start = Instant::now();
    let mut running = Vec::new();
    for number in 0..handlers {
        let handler = async |order: Order| came(black_box(&order).id);
        running.push(messaging.subscriber().on(&channel(number), handler).await?);
    }
    let once_seconds = start.elapsed().as_secs_f64();
    let kib_idle = each_added(before, handlers).await?;
    let report = until_all_came(port, messages).await?;
    drop((first, running));
    Ok(Report { once_seconds, kib_idle, ..report })
}

async fn by_channels(port: u16, channels: u64, messages: u64) -> Result<Report, Failure> {
    let messaging = messaging(port).await?;
    let first = messaging.subscribe("orders.first").await?;
    let before = resident()?;
    let start = Instant::now();
    let subscriptions = stream::iter(0..channels).map(|number| {
        let messaging = messaging.clone();
        async move { messaging.subscribe(&channel(number)).await }
    });
    let subscriptions: Vec<Subscription> = subscriptions.buffer_unordered(AT_ONCE).try_collect().await?;
    let once_seconds = start.elapsed().as_secs_f64();
    let mut reading: JoinSet<_> = subscriptions.into_iter().map(read).collect();
    let kib_idle = each_added(before, channels).await?;
    let report = tokio::select! {
        report = until_all_came(port, messages) => report?,
        Some(ended) = reading.join_next() => {
            return Err(ended?.err().unwrap_or_else(|| "a subscription ended".into()));
        }
    };
    drop(first);
    Ok(Report { once_seconds, kib_idle, ..report })
}

async fn read(mut subscription: Subscription) -> Result<(), Failure> {
    while let Some(message) = subscription.get_message(None).await? {
        came(black_box(&message.json::<Order>()?).id);
    }
    Ok(())
}

async fn by_payload(port: u16, messages: u64) -> Result<Report, Failure> {
    let messaging = messaging(port).await?;
    let handler = async |note: Note| {
        black_box(&note.text);
        came(order::FIRST);
    };
    let running = messaging.subscriber().on(&channel(0), handler).await?;
    let report = until_all_came(port, messages).await;
    drop(running);
    report
}

async fn by_keys(port: u16, keys: u64, calls: u64) -> Result<Report, Failure> {
    let url = url(port);
    cache::empty(&url).await?;
    let messaging = messaging(port).await?;
    let ids = || order::FIRST..order::FIRST + keys;
    cache::settled(&messaging, "grown", Tally { hits: TRIED, ..Tally::default() }, async |_| {
        messaging
            .scope(async {
                for id in ids().cycle().take(usize::try_from(TRIED)?) {
                    black_box(grown_order(id).await);
                }
                Ok(())
            })
            .await
    })
    .await?;
    // Not before: what is there when it begins to listen may be out of date, and is removed.
    cache::fill(&url, ids().map(|id| (format!("bench:grown:{id}"), id))).await?;
    let before = Tally::of(&messaging, "grown")?;
    let report = meter::each_in_a_task(READERS, calls, |task, count| {
        let messaging = messaging.clone();
        async move {
            let ask = async {
                for place in 0..count {
                    let number = shuffled(task * keys / READERS + place, keys);
                    black_box(grown_order(order::FIRST + number).await);
                }
            };
            messaging.scope(ask).await;
            Ok(())
        }
    })
    .await?;
    let all_hits = Tally { hits: report.count, ..Tally::default() };
    Tally::of(&messaging, "grown")?.since(before).is(all_hits)?;
    let start = Instant::now();
    let removed = messaging.scope(grown_order::invalidate_all()).await?;
    let once_seconds = start.elapsed().as_secs_f64();
    if removed != keys {
        return Err(format!("{removed} keys were removed, and {keys} were there").into());
    }
    Ok(Report { once_seconds, ..report })
}

/// A message has been handled. Called from one thread.
fn came(id: u64) {
    let count = CAME.load(Ordering::Relaxed) + 1;
    CAME.store(count, Ordering::Relaxed);
    // Those of different channels come in any order: only their number says which is the last.
    let is_last = count == EXPECTED.load(Ordering::Relaxed);
    meter::handled(if is_last { order::LAST } else { id });
}

/// Says that messages can come, and waits for so many.
async fn until_all_came(port: u16, messages: u64) -> Result<Report, Failure> {
    EXPECTED.store(messages, Ordering::Relaxed);
    Said::Ready { port }.say();
    let mut before = 0;
    loop {
        tokio::select! {
            report = meter::ended() => return Ok(report),
            () = sleep(PATIENCE) => {}
        }
        let now = CAME.load(Ordering::Relaxed);
        // The first may take a while: the publisher is a process that starts when we are ready.
        if now == before {
            return Err(
                format!("{now} of {messages} messages came, and then nothing for {PATIENCE:?}").into()
            );
        }
        before = now;
    }
}

fn resident() -> Result<f64, Failure> {
    usage::resident_kib_of("self").ok_or_else(|| "the system does not tell the memory of a process".into())
}

/// What each of so many has added to the memory that was resident before, in KiB.
async fn each_added(before: f64, count: u64) -> Result<f64, Failure> {
    sleep(IDLE).await;
    Ok((resident()? - before) / count as f64)
}
