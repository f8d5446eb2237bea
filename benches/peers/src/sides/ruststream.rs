//! `ruststream` with `ruststream-fred`: a service with handlers, as its documentation writes one.

use std::hint::black_box;

use ruststream::runtime::RunningApp;
use ruststream_fred::prelude::*;
use serde::Serialize;

use super::fred;
use crate::job::{Failure, Layout, Report, Said};
use crate::order::{self, Order};
use crate::{meter, url};

/// What is published.
#[derive(Clone, Serialize, Outgoing)]
#[outgoing(name = "orders.created")]
#[serde(transparent)]
struct Created(Order);

/// The buffer has room for the flood. With its default of 32 messages it loses most of it.
#[subscriber(RedisPubSub::new("orders.created").buffer(nonzero!(1_000_000)))]
async fn created(order: &Order) -> HandlerOutcome {
    meter::handled(black_box(order).id);
    HandlerOutcome::ack()
}

#[subscriber(RedisStream::new("ruststream.queued").group("bench"))]
async fn queued(orders: &[Order]) -> HandlerOutcome {
    for order in orders {
        meter::handled(black_box(order).id);
    }
    HandlerOutcome::ack()
}

fn about() -> AppInfo {
    AppInfo::new("bench", "0.1.0")
}

pub(crate) async fn subscribe(port: u16) -> Result<Report, Failure> {
    let broker = RedisBroker::standalone(url(port));
    let running = RustStream::new(about()).with_broker(broker, |b| {
        b.include(created);
    });
    let running = running.start().await?;
    Said::Ready { port }.say();
    until_the_end(&running).await
}

/// Until the last order has been handled.
async fn until_the_end(running: &RunningApp) -> Result<Report, Failure> {
    tokio::select! {
        () = running.stopping() => Err("it stopped handling".into()),
        report = meter::ended() => Ok(report),
    }
}

pub(crate) async fn send(port: u16, in_flight: u64, messages: u64) -> Result<Report, Failure> {
    // Of what is faster with many in flight: one connection, or its default of four.
    let broker = RedisBroker::standalone(url(port)).pool(1).bindable();
    let publisher = broker.bind(pubsub::Publish::new());
    let running = RustStream::new(about()).with_broker(broker, |_| {}).start().await?;
    let publisher = running.publisher(publisher).await?;
    let order = Created(Order::numbered(order::FIRST));
    publisher.message(&order).publish().await?;
    meter::each_in_a_task(in_flight, messages, |_, count| {
        let (publisher, order) = (publisher.clone(), order.clone());
        async move {
            for _ in 0..count {
                publisher.message(&order).publish().await?;
            }
            Ok(())
        }
    })
    .await
}

/// Until everything has been handled and acknowledged.
pub(crate) async fn queue(port: u16, messages: u64) -> Result<Report, Failure> {
    meter::operations(messages, async {
        let broker = RedisBroker::standalone(url(port));
        let running = RustStream::new(about()).with_broker(broker, |b| {
            b.include(queued.batch(nonzero!(1_000)).pipeline());
        });
        let running = running.start().await?;
        // The last order is not counted.
        if until_the_end(&running).await?.count + 1 != messages {
            return Err("it handled more or less than there was".into());
        }
        fred::acknowledged(port, Layout::RustStream.key()).await
    })
    .await
}
