//! Has another cached function, which the same events make out of date.

use messaging_core::{Result, redis_cache};

#[redis_cache(key = "other:{id}", ttl = "10m", invalidate_on = ["things.changed"])]
async fn other(id: u64, version: u64) -> u64 {
    version
}

#[tokio::main]
async fn main() -> Result<()> {
    cached::run(async |id, version| other(id, version).await).await
}
