//! Our gateway, as a user writes it, with default settings.

use std::net::Ipv4Addr;

use axum::Router;
use axum::serve::ListenerExt as _;
use messaging_core::Handlers;
use messaging_gateway::{Gateway, subscription};
use tokio::net::TcpListener;

use super::ours;
use crate::job::{Failure, Said};

#[subscription(channels = "orders.created", public)]
struct Orders;

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
