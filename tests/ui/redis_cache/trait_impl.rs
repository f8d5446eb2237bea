#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

trait Cameras {
    async fn get(&self, id: u64) -> u64;
}

struct Client;

impl Cameras for Client {
    #[redis_cache(key = "camera:{id}", ttl = 60)]
    async fn get(&self, id: u64) -> u64 {
        id
    }
}

fn main() {}
