#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

async fn pause() {}

#[subscribe("a")]
async fn holds_an_rc() {
    let shared = std::rc::Rc::new(1);
    pause().await;
    drop(shared);
}

fn main() {}
