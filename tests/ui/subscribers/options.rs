#![allow(dead_code, unused_variables)]

use messaging_core::subscribers;

struct Service;
struct Other;
struct Third;

#[subscribers(manually)]
impl Service {
    #[subscribe("a")]
    async fn handle(&self) {}
}

#[subscribers(manual = true)]
impl Other {
    #[subscribe("a")]
    async fn handle(&self) {}
}

#[subscribers(crate = messaging_core, workers = 2)]
impl Third {
    #[subscribe("a")]
    async fn handle(&self) {}
}

struct Fourth;

#[subscribers(manual, manual)]
impl Fourth {
    #[subscribe("a")]
    async fn handle(&self) {}
}

fn main() {}
