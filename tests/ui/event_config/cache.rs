#![allow(dead_code, unused_variables)]

use messaging_core::event_config;

#[event_config(publish = { create = "a" }, cache = {})]
struct Empty {
    id: u64,
}

#[event_config(publish = { create = "a" }, cache = { key = "camera:{idd}", ttl = 0, fields = [nme] })]
struct Entries {
    id: u64,
    name: String,
}

#[event_config(publish = { create = "a" }, cache = { key = "camera:{id.x}", ttl = 1, jitter = 0.1 })]
struct Path {
    id: u64,
}

fn main() {}
