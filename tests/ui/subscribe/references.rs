#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

struct Event;

#[subscribe("a")]
async fn text(name: &str) {}

#[subscribe("a")]
async fn reference(event: &Event, _: &Event) {}

#[subscribe(AuditLog)]
async fn typed_channel(user: &str) {}

fn main() {}
