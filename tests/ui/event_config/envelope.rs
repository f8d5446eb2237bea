#![allow(dead_code, unused_variables)]

use messaging_core::event_config;

#[event_config(publish = { create = "a" }, envelope = { resource = "a", id = id }, payload_fields = [id])]
struct Both {
    id: u64,
}

#[event_config(publish = { create = "a" }, envelope = {})]
struct Empty {
    id: u64,
}

#[event_config(publish = { create = "a" }, envelope = { resource = "", id = ident, tenant = "x", metadata = [nam], type = "a" })]
struct Entries {
    id: u64,
    name: String,
}

fn main() {}
