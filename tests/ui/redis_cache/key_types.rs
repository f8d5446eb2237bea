#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

struct Opaque;

struct User {
    id: u64,
}

#[redis_cache(key = "a:{opaque}", ttl = 60)]
async fn not_serialize(opaque: &Opaque) -> u64 {
    1
}

#[redis_cache(key = "a:{user.name}", ttl = 60)]
async fn no_such_field(user: User) -> u64 {
    user.id
}

fn main() {}
