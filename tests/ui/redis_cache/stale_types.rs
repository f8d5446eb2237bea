#![allow(dead_code, unused_variables)]

use std::rc::Rc;

use messaging_core::redis_cache;

struct Opaque;

#[redis_cache(key = "a", ttl = 60, stale = 60)]
async fn not_clone(first: u64, opaque: &Opaque) -> u64 {
    1
}

#[redis_cache(key = "b", ttl = 60, stale = 60)]
async fn not_send(shared: &Rc<u64>) -> u64 {
    1
}

#[redis_cache(key = "g", ttl = 60, stale = 60)]
async fn not_sync(cell: &std::cell::Cell<u64>) -> u64 {
    1
}

#[redis_cache(key = "c", ttl = 60, stale = 60)]
async fn moved_not_send(shared: std::rc::Rc<u64>) -> u64 {
    1
}

#[redis_cache(key = "d", ttl = 60, stale = 60)]
async fn not_sized(display: &(dyn std::fmt::Display + Sync)) -> u64 {
    1
}

impl Opaque {
    #[redis_cache(key = "e", ttl = 60, stale = 60)]
    async fn method(&self) -> u64 {
        1
    }

    #[redis_cache(key = "f", ttl = 60, stale = 60)]
    async fn method_on_rc(self: &Rc<Self>) -> u64 {
        1
    }
}

fn main() {}
