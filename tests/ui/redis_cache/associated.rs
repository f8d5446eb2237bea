#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

struct Cameras;

impl Cameras {
    #[redis_cache(key = "cameras", ttl = 60)]
    async fn count() -> u64 {
        1
    }
}

fn main() {}
