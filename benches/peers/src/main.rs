//! `messaging-benches-peers <port> <tasks> <calls>`: hits of the `cached` crate's asynchronous Redis store, measured as
//! the other sides are and by the same code. Values are stored as that crate does it, in MessagePack.

#[path = "../../src/job.rs"]
#[allow(dead_code, reason = "this program says a report and is told no job")]
mod job;
#[path = "../../src/meter.rs"]
#[allow(dead_code, reason = "it measures no messages")]
mod meter;
#[path = "../../src/order.rs"]
#[allow(dead_code, reason = "it borrows no orders")]
mod order;
#[path = "../../src/usage.rs"]
#[allow(dead_code, reason = "it looks at no other process")]
mod usage;

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use cached::{AsyncRedisCache, ConcurrentCachedAsync};

use job::{Failure, Report, Said};
use order::Order;

const TTL: Duration = Duration::from_secs(3_600);

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<u64> =
        std::env::args().skip(1).map(|argument| argument.parse()).collect::<Result<_, _>>()?;
    let [port, tasks, calls] = arguments[..] else {
        return Err("a port, a number of tasks and a number of calls".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = runtime.block_on(hits(&format!("redis://127.0.0.1:{port}"), tasks, calls))?;
    report.peak_mib = usage::peak_mib();
    Said::Done(report).say();
    Ok(())
}

async fn hits(url: &str, tasks: u64, calls: u64) -> Result<Report, Failure> {
    let cache =
        AsyncRedisCache::<u64, Order>::builder("bench").ttl(TTL).connection_string(url).build().await?;
    for id in order::cached(0, 1).take(usize::try_from(order::CACHED)?) {
        cache.async_cache_set(id, Order::numbered(id)).await?;
    }
    meter::each_in_a_task(tasks, calls, |task, count| {
        let cache = cache.clone();
        async move {
            for (_, id) in (0..count).zip(order::cached(task, tasks)) {
                black_box(cache.async_cache_get(&id).await?.ok_or("a call was no hit")?);
            }
            Ok(())
        }
    })
    .await
}
