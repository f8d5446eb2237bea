#![allow(dead_code, unused_variables)]

use messaging_core::subscribers;

struct Manual<T>(T);

#[subscribers(manual)]
impl<T: 'static> Manual<T> {
    #[subscribe("a")]
    async fn handle(&self) {}
}

fn main() {}
