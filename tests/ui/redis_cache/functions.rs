#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

#[redis_cache(key = "a", ttl = 60)]
fn not_async() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60)]
async fn generic<T: Clone>(value: T) -> T {
    value
}

#[redis_cache(key = "a", ttl = 60)]
async fn takes_impl(values: &[impl Clone]) -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60)]
async fn returns_impl() -> impl Clone {
    1
}

#[redis_cache(key = "a", ttl = 60)]
const NOT_A_FUNCTION: u64 = 1;

fn main() {}
