#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

#[derive(Clone)]
struct Session<'a> {
    token: &'a str,
}

impl Session<'_> {
    #[redis_cache(key = "d", ttl = 60, stale = 60)]
    async fn user(&self) -> u64 {
        1
    }
}

fn main() {}
