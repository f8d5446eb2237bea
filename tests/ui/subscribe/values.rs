#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

#[subscribe("a", workers = 0)]
async fn workers_zero() {}

#[subscribe("a", workers = "8")]
async fn workers_text() {}

#[subscribe("a", workers = 8.0)]
async fn workers_fraction() {}

#[subscribe("a", timeout = 30s)]
async fn timeout_without_quotes() {}

#[subscribe("a", timeout = "30")]
async fn timeout_without_unit() {}

#[subscribe("a", timeout = 1.5)]
async fn timeout_fraction() {}

#[subscribe("a", timeout = 0)]
async fn timeout_zero() {}

#[subscribe("a", buffer = 0)]
async fn buffer_zero() {}

#[subscribe("a", buffer = "8MiB")]
async fn buffer_text() {}

#[subscribe("a", buffer = { messages = 0, bytes = "8MB" })]
async fn buffer_entries() {}

#[subscribe("a", buffer = { bytes = 8MiB })]
async fn buffer_without_quotes() {}

#[subscribe("a", overflow = "drop_newest")]
async fn overflow() {}

#[subscribe("a", overflow = block)]
async fn overflow_without_quotes() {}

#[subscribe("a", retry = 3)]
async fn retry_number() {}

#[subscribe("a", retry = { attempts = 0, multiplier = 0.5, initial = "1m", max_delay = "30s" })]
async fn retry_entries() {}

fn main() {}
