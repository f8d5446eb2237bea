#![allow(dead_code, unused_variables)]

use messaging_core::{Channel, subscribe};

#[derive(serde::Deserialize)]
struct Event {}

#[subscribe("a:{id}")]
async fn two(id: u64, event: Event, channel: Channel, tenant: Option<u64>) {}

fn main() {}
