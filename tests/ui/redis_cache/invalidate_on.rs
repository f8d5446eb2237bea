#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

#[redis_cache(key = "a:{id}", ttl = 60, invalidate_on = "a")]
async fn not_a_list(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a:{id}", ttl = 60, invalidate_on = [])]
async fn empty(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a:{id}", ttl = 60, invalidate_on = ["a b", 5, Camera, Camera(), Camera(updated), Camera("update")])]
async fn events(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a:{id}", ttl = 60, invalidate_on = [{}, { id = camera_id }, { on = "a", idd = x }, { on = "a", id = 5 }])]
async fn selections(id: u64) -> u64 {
    id
}

#[redis_cache(key = "a:{user.id}", ttl = 60, invalidate_on = [Camera(update, delete), { on = Camera(create), user.id = owner.id }])]
async fn paths_of_models(user: User) -> u64 {
    user.id
}

#[redis_cache(key = "all", ttl = 60, invalidate_on = [{ on = "a", id = id }])]
async fn nothing_to_select() -> u64 {
    1
}

struct User {
    id: u64,
}

fn main() {}
