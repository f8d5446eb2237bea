#![allow(dead_code, unused_variables)]

use std::cell::Cell;

use messaging_core::redis_cache;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct User {
    id: u64,
}

struct Opaque;

#[redis_cache(key = "a", ttl = 60, local = "5s")]
async fn not_clone() -> User {
    User { id: 1 }
}

#[redis_cache(key = "b", ttl = 60, local = "5s")]
async fn not_clone_in_result() -> Result<Option<User>, String> {
    Ok(None)
}

#[redis_cache(key = "c", ttl = 60, local = "5s")]
async fn not_sync() -> Cell<u64> {
    Cell::new(1)
}

#[redis_cache(key = "d", ttl = 60, local = "5s")]
async fn not_serialize() -> Opaque {
    Opaque
}

struct Service;

impl Service {
    #[redis_cache(key = "e", ttl = 60, local = "5s")]
    async fn method(&self) -> User {
        User { id: 1 }
    }

    #[redis_cache(key = "f", ttl = 60, local = "5s", companions = false)]
    async fn in_place(&self) -> User {
        User { id: 1 }
    }
}

fn main() {}
