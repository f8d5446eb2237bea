#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

#[redis_cache(key = "a", ttl = 60, local)]
async fn no_value() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, local = true)]
async fn a_truth() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, local = ["5s"])]
async fn a_list() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, local = { max = 100 })]
async fn no_ttl() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, local = { tl = "5s", maximum = 100 })]
async fn unknown() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, local = { ttl = "0s", max = 0 })]
async fn zero() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = "1m", local = "61s")]
async fn longer() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, local = { ttl = "2m", max = "many" })]
async fn longer_in_the_map() -> u64 {
    1
}

fn main() {}
