#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

#[subscribe("a:{id}")]
async fn wrong(id: u64) -> Result<(), String> {
    let text: String = id;
    Err(1)
}

fn main() {}
