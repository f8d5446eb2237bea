#![allow(dead_code, unused_variables)]

use std::rc::Rc;

use messaging_core::subscribers;

struct NotSync(Rc<u8>);

#[subscribers]
impl NotSync {
    #[subscribe("a")]
    async fn handle(&self) {}
}

fn main() {}
