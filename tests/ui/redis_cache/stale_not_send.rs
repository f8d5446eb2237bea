#![allow(dead_code, unused_variables)]

use std::rc::Rc;

use messaging_core::redis_cache;

#[redis_cache(key = "a", ttl = 60, stale = 60)]
async fn keeps_rc() -> u64 {
    let shared = Rc::new(1);
    async {}.await;
    *shared
}

fn main() {}
