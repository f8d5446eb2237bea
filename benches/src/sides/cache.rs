//! Cached orders in Redis: hits, and loads of what is not there yet. Our side is `#[redis_cache]`. The other is what one
//! writes by hand; nothing in it keeps two callers from loading at once, or an old value from being stored.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use messaging_core::{Handlers, Messaging, redis_cache};
use redis::aio::MultiplexedConnection;
use redis::{Client as RedisClient, cmd};
use tokio::time::sleep;

use super::{ours, raw};
use crate::job::{Client, Failure, Report};
use crate::meter;
use crate::order::{self, Order};

/// How many tasks fill the cache beforehand.
const FILLING: u64 = 64;
const TTL: Duration = Duration::from_secs(3_600);
/// How often, and how far apart, is tried whether the cache is in use.
const ATTEMPTS: u64 = 100;
const PAUSE: Duration = Duration::from_millis(50);

#[redis_cache(key = "bench:order:{id}", ttl = 3600, id = "order", invalidate_on = ["orders.changed:{id}"])]
async fn order_by_id(id: u64) -> Order {
    Order::numbered(id)
}

/// Never asked twice for the same number.
#[redis_cache(key = "bench:new:{number}", ttl = 3600, id = "new", invalidate_on = ["orders.changed:{number}"])]
async fn new_order(number: u64) -> Order {
    Order::numbered(order::FIRST + number)
}

/// Each call is answered with a stored order.
pub(crate) async fn hits(client: Client, url: &str, in_flight: u64, calls: u64) -> Result<Report, Failure> {
    match client {
        Client::Ours => our_hits(url, in_flight, calls).await,
        Client::Raw => raw_hits(url, in_flight, calls).await,
        Client::Hand => Err("nobody does this by hand".into()),
    }
}

/// Each call finds nothing, makes an order and stores it.
pub(crate) async fn loads(client: Client, url: &str, in_flight: u64, calls: u64) -> Result<Report, Failure> {
    // What the runs before have stored would be hits, and fill the server's memory.
    empty(url).await?;
    match client {
        Client::Ours => our_loads(url, in_flight, calls).await,
        Client::Raw => raw_loads(url, in_flight, calls).await,
        Client::Hand => Err("nobody does this by hand".into()),
    }
}

async fn our_hits(url: &str, in_flight: u64, calls: u64) -> Result<Report, Failure> {
    let messaging = ours::messaging(url, Handlers::none()).await?;
    settled(&messaging, "order", Tally { hits: order::CACHED, ..Tally::default() }, async |_| {
        ask(&messaging, FILLING, order::CACHED).await.map(drop)
    })
    .await?;
    let before = Tally::of(&messaging, "order")?;
    let report = ask(&messaging, in_flight, calls).await?;
    Tally::of(&messaging, "order")?.since(before).is(Tally { hits: report.count, ..Tally::default() })?;
    Ok(report)
}

/// Calls the cached function so often, by so many tasks.
async fn ask(messaging: &Messaging, tasks: u64, calls: u64) -> Result<Report, Failure> {
    meter::each_in_a_task(tasks, calls, |task, count| {
        let messaging = messaging.clone();
        async move {
            let ask = async {
                for (_, id) in (0..count).zip(order::cached(task, tasks)) {
                    black_box(order_by_id(id).await);
                }
            };
            messaging.scope(ask).await;
            Ok(())
        }
    })
    .await
}

async fn raw_hits(url: &str, in_flight: u64, calls: u64) -> Result<Report, Failure> {
    let mut connection = raw::commands(url, in_flight).await?;
    for id in order::cached(0, 1).take(usize::try_from(order::CACHED)?) {
        set(&mut connection, &format!("bench:order:{id}"), &Order::numbered(id)).await?;
    }
    meter::each_in_a_task(in_flight, calls, |task, count| {
        let mut connection = connection.clone();
        async move {
            for (_, id) in (0..count).zip(order::cached(task, in_flight)) {
                let stored = get(&mut connection, &format!("bench:order:{id}")).await?;
                black_box(stored.ok_or("there is nothing under a key that was filled")?);
            }
            Ok(())
        }
    })
    .await
}

async fn our_loads(url: &str, in_flight: u64, calls: u64) -> Result<Report, Failure> {
    let messaging = ours::messaging(url, Handlers::none()).await?;
    settled(&messaging, "new", Tally { loads: 1, ..Tally::default() }, async |attempt| {
        messaging.scope(new_order(calls + attempt)).await;
        Ok(())
    })
    .await?;
    let before = Tally::of(&messaging, "new")?;
    let report = meter::each_in_a_task(in_flight, calls, |task, count| {
        let messaging = messaging.clone();
        async move {
            let ask = async {
                for number in task * count..(task + 1) * count {
                    black_box(new_order(number).await);
                }
            };
            messaging.scope(ask).await;
            Ok(())
        }
    })
    .await?;
    Tally::of(&messaging, "new")?.since(before).is(Tally { loads: report.count, ..Tally::default() })?;
    Ok(report)
}

async fn raw_loads(url: &str, in_flight: u64, calls: u64) -> Result<Report, Failure> {
    let connection = raw::commands(url, in_flight).await?;
    meter::each_in_a_task(in_flight, calls, |task, count| {
        let mut connection = connection.clone();
        async move {
            for number in task * count..(task + 1) * count {
                let key = format!("bench:new:{number}");
                if get(&mut connection, &key).await?.is_some() {
                    return Err("a call that should have loaded was a hit".into());
                }
                let order = Order::numbered(order::FIRST + number);
                set(&mut connection, &key, &order).await?;
                black_box(order);
            }
            Ok(())
        }
    })
    .await
}

async fn get(connection: &mut MultiplexedConnection, key: &str) -> Result<Option<Order>, Failure> {
    let stored: Option<Bytes> = cmd("GET").arg(key).query_async(connection).await?;
    Ok(stored.map(|stored| serde_json::from_slice(&stored)).transpose()?)
}

async fn set(connection: &mut MultiplexedConnection, key: &str, order: &Order) -> Result<(), Failure> {
    let mut set = cmd("SET");
    set.arg(key).arg(serde_json::to_vec(order)?).arg("PX").arg(TTL.as_millis() as u64);
    Ok(set.query_async(connection).await?)
}

/// Removes everything.
pub(super) async fn empty(url: &str) -> Result<(), Failure> {
    let mut connection = RedisClient::open(url)?.get_multiplexed_async_connection().await?;
    Ok(cmd("FLUSHDB").query_async(&mut connection).await?)
}

/// Stores orders under keys, many in each write.
pub(super) async fn fill(url: &str, orders: impl Iterator<Item = (String, u64)>) -> Result<(), Failure> {
    const TOGETHER: usize = 1_000;
    let mut connection = RedisClient::open(url)?.get_multiplexed_async_connection().await?;
    let mut orders = orders.peekable();
    while orders.peek().is_some() {
        let mut pipe = redis::pipe();
        for (key, id) in orders.by_ref().take(TOGETHER) {
            pipe.cmd("SET").arg(key).arg(Order::encoded(id)).arg("PX").arg(TTL.as_millis() as u64).ignore();
        }
        pipe.query_async::<()>(&mut connection).await?;
    }
    Ok(())
}

/// Repeats calls until they are answered as `expected`: nothing is served or stored before its events are heard, and what
/// has been loaded may be stored only after it has been returned.
pub(super) async fn settled(
    messaging: &Messaging,
    function: &str,
    expected: Tally,
    calls: impl AsyncFn(u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut answered = Ok(());
    for attempt in 0..ATTEMPTS {
        let before = Tally::of(messaging, function)?;
        calls(attempt).await?;
        answered = Tally::of(messaging, function)?.since(before).is(expected);
        if answered.is_ok() {
            break;
        }
        sleep(PAUSE).await;
    }
    answered
}

/// How calls of a cached function were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) hits: u64,
    pub(super) loads: u64,
    /// Neither, or a load that was not stored.
    pub(super) others: u64,
}

impl Tally {
    pub(super) fn of(messaging: &Messaging, function: &str) -> Result<Self, Failure> {
        let caches = messaging.health().caches;
        let cache = caches.iter().find(|cache| cache.function == function).ok_or("an unknown function")?;
        let others = cache.joins + cache.uncached + cache.refused_stores + cache.undecodable;
        Ok(Self { hits: cache.hits, loads: cache.loads, others })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            hits: self.hits - before.hits,
            loads: self.loads - before.loads,
            others: self.others - before.others,
        }
    }

    /// Whether what was measured is what should have been.
    pub(super) fn is(self, expected: Self) -> Result<(), Failure> {
        if self == expected { Ok(()) } else { Err(format!("{self:?} instead of {expected:?}").into()) }
    }
}
