#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

#[redis_cache(key = "", ttl = 60)]
async fn empty() -> u64 {
    1
}

#[redis_cache(key = "a:{id}{name}", ttl = 60)]
async fn touching(id: u64, name: &str) -> u64 {
    id
}

#[redis_cache(key = "a:{id}:{id}", ttl = 60)]
async fn twice(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a:{id", ttl = 60)]
async fn open(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a:{rest*}", ttl = 60)]
async fn rest(rest: u64) -> u64 {
    rest
}

#[redis_cache(key = "camera:{mac_adress}:{user.id}", ttl = 60)]
async fn misspelt(mac_address: &str) -> u64 {
    1
}

#[redis_cache(key = "camera:{id}", ttl = 60)]
async fn no_arguments() -> u64 {
    1
}

#[redis_cache(key = "camera:{id}", ttl = 60)]
async fn pattern((id, _): (u64, u64)) -> u64 {
    id
}

struct Service;

impl Service {
    #[redis_cache(key = "camera:{self}", ttl = 60)]
    async fn whole_service(&self) -> u64 {
        1
    }
}

fn main() {}
