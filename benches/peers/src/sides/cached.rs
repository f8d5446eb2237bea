//! `cached`: its asynchronous Redis store. Values are stored as it does that, in MessagePack.

use std::hint::black_box;
use std::time::Duration;

use cached::{AsyncRedisCache, ConcurrentCachedAsync};

use crate::job::{Failure, Report};
use crate::order::{self, Order};
use crate::{meter, url};

const TTL: Duration = Duration::from_secs(3_600);

pub(crate) async fn hits(port: u16, in_flight: u64, calls: u64) -> Result<Report, Failure> {
    let builder = AsyncRedisCache::<u64, Order>::builder("bench").ttl(TTL);
    let cache = builder.connection_string(&url(port)).build().await?;
    for id in order::cached(0, 1).take(usize::try_from(order::CACHED)?) {
        cache.async_cache_set(id, Order::numbered(id)).await?;
    }
    meter::each_in_a_task(in_flight, calls, |task, count| {
        let cache = cache.clone();
        async move {
            for (_, id) in (0..count).zip(order::cached(task, in_flight)) {
                black_box(cache.async_cache_get(&id).await?.ok_or("a call was no hit")?);
            }
            Ok(())
        }
    })
    .await
}
