#![allow(dead_code, unused_variables)]

use messaging_core::subscribers;

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

fn main() {}
