//! Has one cached function.

use messaging_core::{Result, redis_cache};

#[redis_cache(key = "one:{id}", ttl = "10m", invalidate_on = ["things.changed"])]
async fn one(id: u64, version: u64) -> u64 {
    version
}

#[tokio::main]
async fn main() -> Result<()> {
    cached::run(async |id, version| one(id, version).await).await
}
