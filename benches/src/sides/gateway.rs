//! Our gateway, as a user writes it, with default settings.

use std::net::Ipv4Addr;

use axum::Router;
use axum::serve::ListenerExt as _;
use messaging_core::Handlers;
use messaging_gateway::__private::FanOut;
use messaging_gateway::{Gateway, subscription};
use tokio::net::TcpListener;

use super::ours;
use crate::job::{Failure, Report, Said};
use crate::order::{self, Order};

#[subscription(channels = "orders.created", public)]
struct Orders;

/// Tells events, each to those whose filter it passes.
pub(crate) fn fan_out(subscriptions: u64, filters: u64, events: u64) -> Result<Report, Failure> {
    let channel = FanOut::new(subscriptions, filters);
    let mut seconds = 0.0;
    for number in 0..events {
        let mut order = serde_json::to_value(Order::numbered(order::FIRST))?;
        order["camera_id"] = (number % filters).into();
        let took = channel.tell(number, &serde_json::to_vec(&order)?);
        // The first are for the caches.
        if number >= filters {
            seconds += took.as_secs_f64();
        }
    }
    Ok(Report { count: events - filters, seconds, ..Report::default() })
}

/// Serves until the process is ended.
pub(crate) async fn serve(redis: &str) -> Result<(), Failure> {
    let messaging = ours::messaging(redis, Handlers::none()).await?;
    let gateway = Gateway::builder(&messaging).allow_anonymous().build()?;
    let running = messaging.start().await?;
    let router = Router::new().merge(gateway.router());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Said::Ready { port: listener.local_addr()?.port() }.say();
    let listener = listener.tap_io(|stream| {
        // A client that is gone is noticed later.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    drop(running);
    Ok(())
}
