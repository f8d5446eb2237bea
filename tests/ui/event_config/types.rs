#![allow(dead_code, unused_variables)]

use messaging_core::event_config;

struct Opaque;

#[event_config(publish = { create = "a" })]
struct NotSerialize {
    id: u64,
}

#[event_config(publish = { create = "a" }, payload_fields = [id, opaque])]
struct FieldNotSerialize {
    id: u64,
    opaque: Opaque,
}

#[event_config(publish = { create = "a:{opaque}" }, envelope = { resource = "a", id = opaque })]
struct PlaceholderNotSerialize {
    opaque: Opaque,
}

#[event_config(publish = { create = "a" })]
#[derive(serde::Serialize)]
struct NotSync {
    cell: std::cell::Cell<u64>,
}

fn main() {}
