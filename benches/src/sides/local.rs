//! Hits in the process: one caller, a text as the key, one value after the other. What is kept is either shared, so that
//! a clone counts a reference, or owned, so that a clone copies all its texts.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use messaging_core::{Handlers, redis_cache};
use redis::{Client as RedisClient, cmd};
use tokio::time::sleep;

use super::ours;
use crate::job::{Failure, Kept, Report, Store};
use crate::meter;
use crate::order::{self, Order};

/// How many values are kept. They fit, so that nothing is evicted.
pub(crate) const KEYS: u64 = 1_024;
/// Coprime to `KEYS`: the order of the calls is not that in which the values were made, and lie in memory.
const STEP: u64 = 389;
const CAPACITY: u64 = 16 * KEYS;
const TTL: Duration = Duration::from_secs(60);
/// Until the events that invalidate are heard, and until what was loaded has been stored. Fixed, so that what happens
/// meanwhile cancels out where two runs are compared.
const SETTLED: Duration = Duration::from_secs(2);
const STORED: Duration = Duration::from_millis(200);
/// As many commands may be there to make sure that the events are still heard; fewer than a round has hits.
const LISTENING: u64 = 500;

#[redis_cache(key = "bench:shared:{id}", ttl = 3600, local = "60s", id = "shared", invalidate_on = ["orders.changed:{id}"])]
async fn shared_order(id: &str) -> Arc<Order> {
    Arc::new(order_of(id))
}

#[redis_cache(key = "bench:owned:{id}", ttl = 3600, local = "60s", id = "kept", invalidate_on = ["orders.changed:{id}"])]
async fn owned_order(id: &str) -> Order {
    order_of(id)
}

fn order_of(id: &str) -> Order {
    Order::numbered(id.parse().expect("the keys are numbers"))
}

/// Asks for all values, so many times.
pub(crate) async fn hits(store: Store, kept: Kept, url: &str, rounds: u64) -> Result<Report, Failure> {
    match (store, kept) {
        (Store::Ours, Kept::Shared) => in_ours(url, rounds, async |id| Some(shared_order(id).await)).await,
        (Store::Ours, Kept::Owned) => in_ours(url, rounds, async |id| Some(owned_order(id).await)).await,
        (Store::QuickCache, Kept::Shared) => quick_cache(rounds, shared).await,
        (Store::QuickCache, Kept::Owned) => quick_cache(rounds, Order::numbered).await,
        (Store::Moka, Kept::Shared) => moka(rounds, shared).await,
        (Store::Moka, Kept::Owned) => moka(rounds, Order::numbered).await,
    }
}

fn shared(id: u64) -> Arc<Order> {
    Arc::new(Order::numbered(id))
}

async fn in_ours<V>(url: &str, rounds: u64, get: impl AsyncFn(&str) -> Option<V>) -> Result<Report, Failure> {
    let messaging = ours::messaging(url, Handlers::none()).await?;
    let measured = async {
        // The first call starts to listen.
        get(&order::FIRST.to_string()).await;
        sleep(SETTLED).await;
        for _ in 0..3 {
            measure(1, &get).await?;
            sleep(STORED).await;
        }
        // One round first: if Redis answers, all of them would take too long.
        in_process(url, 1, &get).await?;
        in_process(url, rounds, &get).await
    };
    messaging.scope(measured).await
}

/// Measures hits, and refuses those that were answered by Redis.
async fn in_process<V>(
    url: &str,
    rounds: u64,
    get: impl AsyncFn(&str) -> Option<V>,
) -> Result<Report, Failure> {
    let before = commands(url).await?;
    let report = measure(rounds, get).await?;
    let asked = commands(url).await? - before;
    if asked > LISTENING + report.count / 10_000 {
        return Err(format!("{asked} commands for {} hits in the process", report.count).into());
    }
    Ok(report)
}

/// How many commands Redis has carried out.
async fn commands(url: &str) -> Result<u64, Failure> {
    let mut connection = RedisClient::open(url)?.get_multiplexed_async_connection().await?;
    let info: String = cmd("INFO").arg("stats").query_async(&mut connection).await?;
    let count = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    Ok(count.ok_or("Redis does not say how many commands there were")?.trim().parse()?)
}

async fn quick_cache<V: Clone>(rounds: u64, make: fn(u64) -> V) -> Result<Report, Failure> {
    let cache = quick_cache::sync::Cache::<String, V>::new(usize::try_from(CAPACITY)?);
    for id in ids() {
        cache.insert(id.to_string(), make(id));
    }
    measure(rounds, async |key| cache.get(key)).await
}

async fn moka<V: Clone + Send + Sync + 'static>(rounds: u64, make: fn(u64) -> V) -> Result<Report, Failure> {
    let cache = moka::future::Cache::<String, V>::builder().max_capacity(CAPACITY).time_to_live(TTL).build();
    for id in ids() {
        cache.insert(id.to_string(), make(id)).await;
    }
    cache.run_pending_tasks().await;
    measure(rounds, async |key| cache.get(key).await).await
}

fn ids() -> impl Iterator<Item = u64> {
    order::FIRST..order::FIRST + KEYS
}

async fn measure<V>(rounds: u64, get: impl AsyncFn(&str) -> Option<V>) -> Result<Report, Failure> {
    let keys: Vec<String> =
        (0..KEYS).map(|number| (order::FIRST + number * STEP % KEYS).to_string()).collect();
    meter::operations(rounds * KEYS, async {
        for _ in 0..rounds {
            for key in &keys {
                if black_box(get(black_box(key)).await).is_none() {
                    return Err("a call was no hit".into());
                }
            }
            // A cache that listens for what makes its values out of date has to be let do so.
            tokio::task::yield_now().await;
        }
        Ok(())
    })
    .await
}
