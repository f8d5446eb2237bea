#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

#[subscribe("a")]
fn not_async() {}

#[subscribe("a")]
async unsafe fn not_safe() {}

#[subscribe("a")]
async extern "C" fn foreign() {}

#[subscribe("a")]
async fn generic<T, const N: usize>(payload: T) {}

#[subscribe("a")]
async fn implicitly_generic(payload: impl serde::de::DeserializeOwned) -> impl Sized {}

#[subscribe("a")]
async fn sometimes(#[cfg(unix)] payload: u32) {}

#[subscribe("a")]
struct NotAFunction;

struct Service;

impl Service {
    #[subscribe("a")]
    async fn method(&self) {}
}

fn main() {}
