#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

struct NotAnError;

#[subscribe("a")]
async fn value() -> u32 {
    1
}

#[subscribe("a")]
async fn wrong_error() -> Result<(), NotAnError> {
    Ok(())
}

#[subscribe("a")]
async fn value_in_result() -> Result<u32, String> {
    Ok(1)
}

fn main() {}
