#![allow(dead_code, unused_variables)]

use messaging_core::subscribers;

struct Service;

#[subscribers]
impl Service {
    #[subscribe("a")]
    async fn exclusive(&mut self) {}

    #[subscribe("a")]
    async fn by_value(self) {}

    #[subscribe("a")]
    async fn shared(self: std::sync::Arc<Self>) {}

    #[subscribe("a")]
    async fn without() {}

    #[subscribe("a")]
    fn not_async(&self) {}

    #[subscribe]
    async fn no_channel(&self) {}

    #[subscribe("a:{id}", tiemout = 5)]
    async fn other_mistakes(&self) {}
}

fn main() {}
