#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

struct NotAModel;

#[redis_cache(key = "camera:{id}", ttl = 60, invalidate_on = [NotAModel(update)])]
async fn not_a_model(id: u64) -> u64 {
    id
}

fn main() {}
