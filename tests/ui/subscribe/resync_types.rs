#![allow(dead_code, unused_variables)]

use messaging_core::{Channel, subscribe};

async fn reload(channel: Channel) {}

fn not_async() {}

#[subscribe("a", resync = reload)]
async fn message_argument() {}

#[subscribe("a", resync = not_async)]
async fn not_async_function() {}

#[subscribe("a", resync = absent)]
async fn absent_function() {}

fn main() {}
