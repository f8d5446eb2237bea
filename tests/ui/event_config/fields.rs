#![allow(dead_code, unused_variables)]

use messaging_core::event_config;
use serde::Serialize;

#[event_config(publish = { create = "a" }, payload_fields = [id, mac_adress, "name", id, secret])]
#[derive(Serialize)]
struct PayloadFields {
    id: u64,
    mac_address: String,
    name: String,
    #[serde(skip)]
    secret: String,
}

#[event_config(publish = { create = "a" }, payload_fields = id, previous = [])]
#[derive(Serialize)]
struct Lists {
    id: u64,
}

#[event_config(publish = { update = "a" }, previous = [id])]
#[derive(Serialize)]
struct Previous {
    id: u64,
    previous: u64,
}

#[event_config(publish = { update = "a" }, payload_fields = [id])]
#[derive(Serialize)]
#[serde(into = "u64")]
struct Into {
    id: u64,
}

#[event_config(publish = { update = "a" }, payload_fields = [id])]
#[derive(Serialize)]
struct Conditional {
    #[cfg_attr(unix, serde(rename = "key"))]
    id: u64,
}

impl From<Into> for u64 {
    fn from(it: Into) -> Self {
        it.id
    }
}

impl Clone for Into {
    fn clone(&self) -> Self {
        Self { id: self.id }
    }
}

fn main() {}
