#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

#[subscribe("a", resync_every = "30s")]
async fn interval_only() {}

#[subscribe("a", resync = "reload", resync_every = 0)]
async fn text() {}

fn main() {}
