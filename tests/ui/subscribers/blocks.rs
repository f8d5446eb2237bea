#![allow(dead_code, unused_variables)]

use messaging_core::subscribers;

struct Generic<T>(T);

#[subscribers]
impl<T> Generic<T> {
    #[subscribe("a")]
    async fn handle(&self) {}
}

struct Borrowing<'a>(&'a str);

#[subscribers]
impl<'a> Borrowing<'a> {
    #[subscribe("a")]
    async fn handle(&self) {}
}

struct Service;

trait Handles {
    async fn handle(&self);
}

#[subscribers]
impl Handles for Service {
    #[subscribe("a")]
    async fn handle(&self) {}
}

#[subscribers]
impl Service {
    async fn not_marked(&self) {}
}

#[subscribers]
struct NotAnImpl;

fn main() {}
