#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

struct Opaque;

#[redis_cache(key = "a", ttl = 60)]
async fn not_serialize() -> Opaque {
    Opaque
}

#[redis_cache(key = "b", ttl = 60)]
async fn not_serialize_in_result() -> Result<Opaque, String> {
    Ok(Opaque)
}

#[redis_cache(key = "c", ttl = 60)]
async fn borrowed(name: &str) -> &str {
    name
}

fn main() {}
