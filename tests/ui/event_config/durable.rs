#![allow(dead_code, unused_variables)]

use messaging_core::event_config;

#[event_config(publish = { create = "a" }, durable = true)]
#[derive(serde::Serialize)]
struct Truth {
    id: u64,
}

#[event_config(publish = { create = "a" }, durable, durable = {})]
#[derive(serde::Serialize)]
struct Twice {
    id: u64,
}

#[event_config(publish = { create = "a" }, durable = { max_len = 5, maxlen = 5, max_len = 6, retention = "24h" })]
#[derive(serde::Serialize)]
struct Names {
    id: u64,
}

#[event_config(
    publish = { create = "a" },
    durable = { max_len = 0, max_age = "999ms", partitions = 0, key = idd, wait_replicas = 0 },
)]
#[derive(serde::Serialize)]
struct Values {
    id: u64,
    name: String,
}

#[event_config(
    publish = { create = "a" },
    durable = { max_len = "many", max_age = "24", partitions = 1_025, key = "id", wait_replicas = 5_000_000_000 },
)]
#[derive(serde::Serialize)]
struct Forms {
    id: u64,
}

#[event_config(publish = { create = "a" }, durable = { partitions = 100_000, key = self.id, max_age = 0 })]
#[derive(serde::Serialize)]
struct OtherForms {
    id: u64,
}

#[event_config(publish = { create = "a" }, durable = { partitions = 16 })]
#[derive(serde::Serialize)]
struct WithoutKey {
    id: u64,
}

#[event_config(publish = { create = "a" }, durable = { key = complex }, payload_fields = [id])]
struct KeyThatIsNoText {
    id: u64,
    complex: Complex,
}

struct Complex;

#[event_config(publish = { create = "a" }, sharded = "yes")]
#[derive(serde::Serialize)]
struct ShardedForms {
    id: u64,
}

fn main() {}
