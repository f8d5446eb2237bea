#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

#[subscribe("a", time_out = 5, wrokers = 2, priority = 5)]
async fn unknown() {}

#[subscribe("a", timeout = 5, timeout = 6)]
async fn repeated() {}

#[subscribe("a", timeout)]
async fn no_value() {}

#[subscribe("a", timeout =, workers = )]
async fn nothing_after_the_equals_sign() {}

#[subscribe("a", timeout: 5, retry(attempts = 3))]
async fn other_grammars() {}

#[subscribe("a", , timeout = 5 workers = 2)]
async fn commas() {}

#[subscribe("a", "b")]
async fn two_channels() {}

#[subscribe("a", timeout = -5, buffer = {})]
async fn signs() {}

#[subscribe("a", retry = { attempt = 3 }, buffer = { size = 3 })]
async fn unknown_entries() {}

#[subscribe("a", id = "", crate = "messaging_core")]
async fn identity() {}

fn main() {}
