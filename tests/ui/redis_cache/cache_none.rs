#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

#[redis_cache(key = "a", ttl = 60, cache_none = "30s")]
async fn without_option() -> Result<u64, String> {
    Ok(1)
}

fn main() {}
