//! What operators and testers see, with the features that they turn on for it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod faults;
mod health;
mod measured;
mod traced;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use messaging_core::{HandlerError, Handlers, Result, State, TestMessaging, channel, redis_cache, subscribe};
use serde::{Deserialize, Serialize};

/// A channel of its own for each room.
#[channel("chat:{room}")]
struct Chat {
    room: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned() }
}

#[subscribe("chat:{room}", id = "listen")]
async fn listen(room: &str, note: Note) -> Result<(), HandlerError> {
    if note.text == "panic" {
        panic!("asked to, in {room}");
    }
    if note.text == "fail" { Err(HandlerError::skip("asked to")) } else { Ok(()) }
}

/// Fails as often as this says.
static FAILURES: AtomicU32 = AtomicU32::new(0);

#[subscribe("jobs.{kind}", id = "work", delivery = "queue", group = "workers", retry = { attempts = 2, initial = "1ms" })]
async fn work(kind: &str, note: Note) -> Result<(), String> {
    let fails = FAILURES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if fails.is_ok() || note.text == "fail" { Err(format!("asked to, with {kind}")) } else { Ok(()) }
}

#[redis_cache(key = "price:{sku}", ttl = 60, invalidate_on = ["prices.{sku}"], id = "price")]
async fn price(sku: &str) -> Result<Option<usize>, Infallible> {
    Ok(Some(sku.len()))
}

/// How often a replica was made anew.
#[derive(Clone, Default)]
struct Replica(Arc<AtomicU32>);

async fn catch_up(replica: State<Replica>) {
    replica.0.fetch_add(1, Ordering::Relaxed);
}

#[subscribe("chat:{room}", id = "replicate", resync = catch_up)]
async fn replicate(room: &str, note: Note) {
    assert_ne!(room, note.text);
}

/// Messaging with these handlers alone.
async fn start(handlers: &[&str]) -> TestMessaging {
    let handlers = handlers.iter().copied();
    TestMessaging::with(|builder| builder.state(Replica::default()).handlers(Handlers::only(handlers)))
        .await
        .unwrap()
}
