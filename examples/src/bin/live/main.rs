//! A gateway with a page that shows what it does: live events of cameras with filters, a chat with presence, the progress of
//! tasks, and what happens when connections are lost. `cargo run --bin live`, then http://127.0.0.1:8080; in memory, or on the
//! Redis that `REDIS_URL` names: there a second one (`--port 8081 --no-cameras`) shows the same.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a demo is for")]

mod cameras;
mod chat;
mod sessions;
mod site;
mod tasks;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::Duration;

use messaging_core::{BoxError, Config, Messaging, Retention};
use messaging_gateway::Gateway;
use tokio::net::TcpListener;

/// What is kept for those who come back.
const KEPT: Retention =
    Retention { max_len: NonZeroU64::new(5_000).expect("not zero"), max_age: Duration::from_secs(60 * 60) };

const USAGE: &str = "\
usage: live [--port <number>] [--no-cameras]

  --port <number>  listens on this port of 127.0.0.1, not on 8080
  --no-cameras     simulates no cameras: another one on the same Redis does

Messages go through the Redis that REDIS_URL names, or stay in memory.";

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(filter()).init();
    let Some(options) = Options::read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("live: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), BoxError> {
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

    let address = SocketAddr::from(([127, 0, 0, 1], options.port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}, try another --port: {error}"))?;
    println!("live on http://{}  ({})", listener.local_addr()?, messaging.config().endpoint);
    let app = site::router(&messaging, sessions).merge(gateway.router());
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(gateway.drained());
    if options.cameras {
        let simulated = messaging.clone();
        messaging.spawn(async move { cameras::simulate(&simulated).await });
    }
    // Runs until SIGINT or SIGTERM, and then drains handlers and gateway. Where it cannot, nobody is served either.
    let run = async { messaging.run().await.map_err(BoxError::from) };
    let serving = async { serving.await.map_err(BoxError::from) };
    tokio::try_join!(run, serving)?;
    Ok(())
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
    /// `None` if it cannot be understood.
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { port: 8080, cameras: true };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--port" => options.port = arguments.next()?.parse().ok()?,
                "--no-cameras" => options.cameras = false,
                _ => return None,
            }
        }
        Some(options)
    }
}
