#![allow(dead_code, unused_variables)]

use messaging_core::event_config;

#[event_config]
struct Nothing {
    id: u64,
}

#[event_config(publishes = { create = "a" }, payload_field = [id], durabel, topic = "a")]
struct Unknown {
    id: u64,
}

#[event_config(publish = {})]
struct Empty {
    id: u64,
}

#[event_config(publish = "a")]
struct NotAMap {
    id: u64,
}

#[event_config(publish = { created = "a", update = [], delete = ["a", "a"] })]
struct Operations {
    id: u64,
}

#[event_config(publish = { create = "a b", update = "a.*", delete = 5 })]
struct Channels {
    id: u64,
}

#[event_config(publish = { create = "a:{tenant}", update = "a:{idd}" })]
struct Placeholders {
    id: u64,
    name: String,
}

fn main() {}
