#![allow(dead_code, unused_variables)]

use std::borrow::Cow;
use std::pin::Pin;

use messaging_core::redis_cache;

#[redis_cache(key = "a", ttl = 60, stale = 60, companions = false)]
async fn in_place() -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, stale = 60)]
async fn exclusive(id: &mut u64) -> u64 {
    *id
}

#[redis_cache(key = "a", ttl = 60, stale = 60)]
async fn borrowed(name: Option<&str>, names: &[&str]) -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, stale = 60)]
async fn of_a_lifetime<'a>(name: Cow<'a, str>, other: Cow<'_, str>) -> u64 {
    1
}

#[redis_cache(key = "a", ttl = 60, stale = 60)]
async fn returns_borrowed<'a>(name: &'a str) -> Cow<'a, str> {
    Cow::Borrowed(name)
}

struct Service;

impl Service {
    #[redis_cache(key = "a", ttl = 60, stale = 60)]
    async fn on_exclusive(&mut self) -> u64 {
        1
    }

    #[redis_cache(key = "a", ttl = 60, stale = 60)]
    async fn on_typed_exclusive(self: &mut Self) -> u64 {
        1
    }

    #[redis_cache(key = "a", ttl = 60, stale = 60)]
    async fn on_pinned(self: Pin<&Self>) -> u64 {
        1
    }
}

fn main() {}
