#![allow(dead_code, unused_variables)]

use std::rc::Rc;

use messaging_core::subscribers;

struct NotSync(Rc<u8>);

#[subscribers]
impl NotSync {
    #[subscribe("a")]
    async fn handle(&self) {}
}

struct NotDeserialize;

struct Service;

#[subscribers]
impl Service {
    #[subscribe("a")]
    async fn handle(&self, event: NotDeserialize) {}

    #[subscribe("a")]
    async fn returns(&self) -> Self {
        Self
    }
}

struct Manual<T>(T);

#[subscribers(manual)]
impl<T> Manual<T> {
    #[subscribe("a")]
    async fn handle(&self) {}
}

fn main() {}
