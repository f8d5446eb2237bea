//! Our side: the attributes, as a user writes them, with default settings.

use std::hint::black_box;

use messaging_core::{Config, Handlers, Messaging, Raw, Running, subscribe};

use crate::job::{CHANNEL, Failure, Report, Turn};
use crate::order::{self, Order, OrderRef};
use crate::{latency, meter};

#[subscribe("orders.created", id = "owned")]
async fn owned(order: Order) {
    meter::handled(black_box(&order).id);
}

#[subscribe("orders.created", id = "borrowed")]
async fn borrowed(order: OrderRef<'_>) {
    meter::handled(black_box(&order).id);
}

#[subscribe("orders.{event}", id = "template")]
async fn by_template(event: &str, order: Order) {
    black_box(event);
    meter::handled(black_box(&order).id);
}

#[subscribe("orders.created", id = "timed")]
async fn timed(order: Order) {
    latency::handled(black_box(&order).id);
}

/// Never done with its first message.
#[subscribe("orders.created", id = "stopped", timeout = "1h")]
async fn stopped(_payload: Raw) {
    std::future::pending().await
}

/// The last message of a burst is empty.
#[subscribe("orders.dispatched", id = "dispatched")]
async fn dispatched(payload: Raw) {
    if payload.0 == "0" {
        meter::burst_handled();
    }
}

/// With default settings, whatever the environment says.
pub(super) async fn messaging(url: &str, handlers: Handlers) -> Result<Messaging, Failure> {
    Ok(Messaging::builder().config(Config::new(url)?).handlers(handlers).build().await?)
}

/// Runs one of the handlers above; returns when it is subscribed.
pub(crate) async fn handle(url: &str, handler: &str) -> Result<Running, Failure> {
    Ok(messaging(url, Handlers::only([handler])).await?.start().await?)
}

/// Adds where messages were lost, if any were.
pub(crate) fn account(running: &Running, report: &mut Report) {
    let health = running.messaging().health();
    report.dropped = health.handlers.iter().map(|handler| handler.counts.dropped).sum();
    report.reconnects = health.sessions.iter().map(|session| session.reconnects).sum();
}

pub(crate) async fn send(url: &str, in_flight: u64, messages: u64) -> Result<Report, Failure> {
    let messaging = messaging(url, Handlers::none()).await?;
    messaging.publish(CHANNEL, &Order::numbered(order::FIRST)).await?;
    let order = Order::numbered(order::FIRST);
    meter::each_in_a_task(in_flight, messages, |_, count| {
        let (messaging, order) = (messaging.clone(), order.clone());
        async move {
            for _ in 0..count {
                messaging.publish(CHANNEL, &order).await?;
            }
            Ok(())
        }
    })
    .await
}

pub(crate) async fn latency(url: &str, messages: u64, turn: Turn) -> Result<Report, Failure> {
    let running = handle(url, "timed").await?;
    latency::measure(messages, turn, |id| {
        let messaging = running.messaging().clone();
        async move {
            messaging.publish(CHANNEL, &Order::numbered(id)).await?;
            Ok(())
        }
    })
    .await
}

/// Publishes in memory, in bursts that the handler's buffer has room for.
pub(crate) async fn dispatch(messages: u64) -> Result<Report, Failure> {
    const BURST: u64 = 500;
    let running = handle("memory://", "dispatched").await?;
    let messaging = running.messaging();
    let bursts = messages / BURST;
    let work = async {
        for _ in 0..bursts {
            for left in (0..BURST).rev() {
                messaging.publish("orders.dispatched", &left).await?;
            }
            meter::burst().await;
        }
        Ok::<(), Failure>(())
    };
    meter::operations(bursts * BURST, work).await
}
