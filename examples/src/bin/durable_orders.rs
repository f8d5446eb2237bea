//! Orders that must not be lost: a durable model, a queue that bills each order in one process, retries, dead letters.
//! `cargo run -p examples --bin durable_orders`, in memory, or on the Redis that `REDIS_URL` names.

#![allow(clippy::print_stdout, reason = "printing is what a demo is for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use messaging_core::{
    Attempt, Config, EventId, HandlerError, Messaging, Op, Result, State, event_config, subscribe,
};
use serde::{Deserialize, Serialize};

/// What is created is published and kept in a stream, for a day or up to 10,000 orders.
#[event_config(
    publish = { create = "shop.orders.created" },
    durable = { max_len = 10_000, max_age = "24h" },
)]
#[derive(Clone, Serialize, Deserialize)]
struct Order {
    number: u32,
    customer: String,
    euros: u32,
}

/// The bank is closed at first. Cheap to clone.
#[derive(Clone, Default)]
struct Bank(Arc<AtomicBool>);

/// However many processes run this, one of them gets each order; if it dies, another one takes over. What fails three
/// times is kept as a dead letter.
#[subscribe(
    "shop.orders.created",
    delivery = "queue",
    group = "billing",
    start = "beginning",
    dedupe = "24h",
    dead_letter = "shop.orders.dead",
    retry = { attempts = 3, initial = "50ms" },
)]
async fn bill(order: Order, attempt: Attempt, bank: State<Bank>) -> Result<(), HandlerError> {
    let Order { number, customer, euros } = order;
    if euros == 0 {
        println!("bill      order {number}: nothing to pay");
        return Err(HandlerError::skip("nothing to pay"));
    }
    if euros > 1_000 && !bank.0.load(Ordering::Relaxed) {
        println!("bill      order {number}: attempt {}, the bank does not answer", attempt.0);
        return Err("the bank does not answer".into());
    }
    println!("bill      order {number}: {customer} pays {euros} euros");
    Ok(())
}

/// Another group gets every order too, whatever becomes of the bill.
#[subscribe("shop.orders.created", delivery = "queue", group = "shipping", start = "beginning")]
async fn ship(order: Order, id: EventId) {
    println!("ship      order {}: event {}…", order.number, &id.as_str()[..8]);
}

/// The alias is an ordinary channel: whoever looks after dead letters listens to it.
#[subscribe("shop.orders.dead")]
async fn alarm(notice: serde_json::Value) {
    println!(
        "alarm     {} gave up after {} attempts: {}",
        notice["group"], notice["attempts"], notice["error"]
    );
}

#[tokio::main]
async fn main() -> Result<()> {
    let config = match std::env::var_os("REDIS_URL") {
        Some(_) => Config::from_env()?,
        None => Config::new("memory://")?,
    };
    let bank = Bank::default();
    let messaging = Messaging::builder().config(config).state(bank.clone()).build().await?;
    let orders = [("Ada", 120), ("Grace", 5_000), ("Alan", 0)];
    for (number, (customer, euros)) in (1..).zip(orders) {
        let order = Order { number, customer: customer.to_owned(), euros };
        messaging.emit(Op::Create, &order).await?;
    }
    println!("published three orders; nobody was listening yet");

    let running = messaging.start().await?;
    let dead = messaging.dead_letters("billing");
    let letters = loop {
        match dead.list().await? {
            letters if letters.is_empty() => tokio::time::sleep(Duration::from_millis(20)).await,
            letters => break letters,
        }
    };
    for letter in &letters {
        println!(
            "dead      {} of {}: {}",
            letter.json::<Order>()?.customer,
            letter.handler(),
            letter.error()
        );
    }

    bank.0.store(true, Ordering::Relaxed);
    println!("replayed  {} of them, now that the bank is open", dead.replay_all().await?);
    while messaging.queues().await?.iter().any(|queue| queue.pending + queue.delayed + queue.unread > 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report = running.shutdown(Duration::from_secs(5)).await;
    println!("shut down: {report}");
    Ok(())
}
