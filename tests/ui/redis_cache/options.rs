#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

#[redis_cache]
async fn nothing() -> u64 {
    1
}

#[redis_cache(kye = "a:{id}", tttl = 60, locla = "5s")]
async fn unknown(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a:{id}", ttl = 60, ttl = 61)]
async fn repeated(id: u64) -> u64 {
    id
}

#[redis_cache(key = a, ttl = 0, jitter = 2, cache_none = 0, companions = "no", prefix = "a:", id = "a b")]
async fn values(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a", ttl = 1h, jitter = "10", prefix = "{id}")]
async fn more_values(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a", ttl = 60, stale = 0, wait = "0ms", local = "0s")]
async fn zero(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a", ttl = 60, stale = 5m, wait = "500", local = 5s)]
async fn units(id: u64) -> u64 {
    id
}

fn main() {}
