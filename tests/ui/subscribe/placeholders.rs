#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

#[subscribe("complex:{complex_id}")]
async fn missing() {}

#[subscribe("complex:{complex_id}.{floor}")]
async fn misspelt(compex_id: u64, level: u8, floor: u8) {}

#[subscribe("complex:{complex_id}")]
async fn pattern((complex_id, _): (u64, u64)) {}

#[subscribe("a:{name}")]
async fn reference(name: &String) {}

#[subscribe("a:{name}")]
async fn mutable(name: &mut str) {}

fn main() {}
