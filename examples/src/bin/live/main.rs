//! A gateway with a page that shows what it does: live events of cameras with filters, a chat with presence, the progress of
//! tasks, and what happens when connections are lost. `cargo run --bin live`, then http://127.0.0.1:8080; in memory, or on the
//! Redis that `REDIS_URL` names: there a second one (`--port 8081 --no-cameras`) shows the same.

#![allow(clippy::print_stdout, reason = "printing is what a demo is for")]

mod cameras;
mod chat;
mod sessions;
mod site;
mod tasks;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use messaging_core::{Config, Messaging, Retention};
use messaging_gateway::Gateway;
use tokio::net::TcpListener;

/// What is kept for those who come back.
const KEPT: Retention =
    Retention { max_len: NonZeroU64::new(5_000).expect("not zero"), max_age: Duration::from_secs(60 * 60) };

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(filter()).init();
    let options = Options::read(std::env::args().skip(1))?;
    let messaging = Messaging::builder()
        .config(config()?)
        .durable("camera.events", KEPT)
        .durable("camera.events.complex:{complex_id}", KEPT)
        .durable("chat:{room}", KEPT)
        .durable("task_updates", KEPT)
        .durable("tasks.started", KEPT)
        .build()
        .await?;
    let sessions = sessions::Sessions::new(&messaging);
    let gateway = Gateway::builder(&messaging).authenticate(sessions.verifier()).build()?;

    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], options.port))).await?;
    let app = site::router(&messaging, sessions).merge(gateway.router());
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let serving =
        tokio::spawn(axum::serve(listener, app).with_graceful_shutdown(gateway.drained()).into_future());
    println!("live on http://127.0.0.1:{}  ({})", options.port, messaging.config().endpoint);
    if options.cameras {
        let simulated = messaging.clone();
        messaging.spawn(async move { cameras::simulate(&simulated).await });
    }
    // Runs until SIGINT or SIGTERM, and then drains handlers and gateway.
    messaging.run().await?;
    // Requests have a moment to end. Some never do: nobody has to send the rest of one.
    match tokio::time::timeout(Duration::from_secs(1), serving).await {
        Ok(served) => Ok(served??),
        Err(_) => Ok(()),
    }
}

/// In memory, unless somebody says where Redis is.
fn config() -> messaging_core::Result<Config> {
    let named = ["REDIS_URL", "REDIS_HOST"].iter().any(|name| std::env::var_os(name).is_some());
    if named { Config::from_env() } else { Config::new("memory://") }
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into())
}

/// The command line.
struct Options {
    port: u16,
    /// Whether cameras are simulated here: once for all gateways on one Redis.
    cameras: bool,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { port: 8080, cameras: true };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--port" => {
                    let port = arguments.next().and_then(|port| port.parse().ok());
                    options.port = port.ok_or("--port needs a number from 0 to 65535")?;
                }
                "--no-cameras" => options.cameras = false,
                other => return Err(format!("what is {other:?}? There are --port NUMBER and --no-cameras")),
            }
        }
        Ok(options)
    }
}
