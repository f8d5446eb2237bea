#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

struct Service;

impl Service {
    #[subscribe("a")]
    async fn handle() {}
}

fn main() {}
