#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

struct NotDeserialize;

#[derive(serde::Deserialize)]
struct Event {}

#[subscribe("a")]
async fn no_payload(event: NotDeserialize) {}

#[subscribe("a")]
async fn state_without_state(event: Event, mailer: std::sync::Arc<NotDeserialize>) {}

fn main() {}
