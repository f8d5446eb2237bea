#![allow(dead_code)]

use std::rc::Rc;

use messaging_gateway::{AccessRequest, subscription};

#[subscription(channels = "a", authorize = not_send)]
struct NotSend;

async fn not_send(_: AccessRequest) -> bool {
    let rc = Rc::new(true);
    std::future::ready(()).await;
    *rc
}

fn main() {}
