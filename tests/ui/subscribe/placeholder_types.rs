#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

struct Complex(u64);

#[subscribe("complex:{complex_id}")]
async fn not_from_str(complex_id: Complex) {}

#[subscribe("complex:{complex_id}")]
async fn list(complex_id: Vec<u8>) {}

fn main() {}
