//! Hits in the process: one caller, a text as the key, one value after the other. What is kept is either shared, so that
//! a clone counts a reference, or owned, so that a clone copies all its texts.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use crate::job::{Failure, Kept, Report, Store};
use crate::meter;
use crate::order::{self, Order};

/// How many values are kept. They fit, so that nothing is evicted.
pub(crate) const KEYS: u64 = 1_024;
/// Coprime to `KEYS`: the order of the calls is not that in which the values were made, and lie in memory.
const STEP: u64 = 389;
const CAPACITY: u64 = 16 * KEYS;
const TTL: Duration = Duration::from_secs(60);

/// Asks for all values, so many times.
pub(crate) async fn hits(store: Store, kept: Kept, rounds: u64) -> Result<Report, Failure> {
    match (store, kept) {
        (Store::QuickCache, Kept::Shared) => quick_cache(rounds, shared).await,
        (Store::QuickCache, Kept::Owned) => quick_cache(rounds, Order::numbered).await,
        (Store::Moka, Kept::Shared) => moka(rounds, shared).await,
        (Store::Moka, Kept::Owned) => moka(rounds, Order::numbered).await,
    }
}

fn shared(id: u64) -> Arc<Order> {
    Arc::new(Order::numbered(id))
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
