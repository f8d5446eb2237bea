//! A monitor that knows of each change of its configuration when it is made, without asking for it. A cache service changes
//! what is cached and publishes that it has; monitors keep a replica of what concerns their tenants.
//! `cargo run -p examples --bin config_monitor`, in memory, or on the Redis that `REDIS_URL` names.
//!
//! To read: the resources with their events in `resources.rs`, the operations in `service.rs`, the monitor's handlers in
//! `monitor.rs` and what they keep in `replica.rs`, and the verification of all of it in `verify.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a demo is for")]

mod day;
mod expected;
mod monitor;
mod replica;
mod resources;
mod screen;
mod service;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use messaging_core::{BoxError, Config, Handlers, Messaging};
use tracing_subscriber::EnvFilter;

use crate::day::Day;
use crate::replica::Replica;
use crate::resources::{TENANTS, part};
use crate::screen::Screen;

const USAGE: &str = "\
usage: config_monitor [--role service|monitor|verify]

  monitor  keeps a replica of what is cached until Ctrl-C or SIGTERM; start it first
  service  changes what is cached, a little every half second, and ends
  verify   carries out every operation, shows all events, and fails if one is missing or malformed

Without a role, a service and a monitor run in one process. They find Redis by REDIS_URL or REDIS_HOST; without
either they stay in memory, which two processes cannot share.";

/// How long a change may take to be known.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looking and looking again.
const BRIEFLY: Duration = Duration::from_millis(5);
/// Between two changes, for whoever watches.
const PACE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Both,
    Service,
    Monitor,
    Verify,
}

impl Role {
    fn read() -> Option<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Some(Self::Both),
            ["--role", "service"] => Some(Self::Service),
            ["--role", "monitor"] => Some(Self::Monitor),
            ["--role", "verify"] => Some(Self::Verify),
            _ => None,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env());
    log.with_ansi(false).without_time().init();
    let Some(role) = Role::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match play(role).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("config_monitor: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn play(role: Role) -> Result<(), BoxError> {
    let named = ["REDIS_URL", "REDIS_HOST"].iter().any(|name| std::env::var_os(name).is_some());
    let config = if named { Config::from_env()? } else { Config::new("memory://")? };
    println!("messaging on {}", config.endpoint);
    let is_alone = config.endpoint.to_string().starts_with("memory:");
    if is_alone && matches!(role, Role::Service | Role::Monitor) {
        let text =
            "two processes cannot share memory; set REDIS_URL to a Redis, such as redis://127.0.0.1:6379";
        return Err(text.into());
    }
    // Only a monitor's process runs the handlers of monitors.
    let handlers = match role {
        Role::Both | Role::Monitor => Handlers::all(),
        Role::Service | Role::Verify => Handlers::none(),
    };
    let messaging = Messaging::builder().config(config).handlers(handlers).build().await?;
    let screen = Screen::new();
    let replica = Replica::new(&messaging, &screen);
    messaging.provide(replica.clone())?;
    let day = Day::new(&messaging, &screen);
    match role {
        Role::Monitor => {
            println!("Ctrl-C ends it.\n");
            messaging.run().await?;
            screen.line("monitor", "shut down", "what had arrived has been handled");
            return Ok(());
        }
        Role::Both => println!("\nBefore the monitor is there: it will find this in the cache."),
        Role::Service | Role::Verify => {}
    }
    if role == Role::Both {
        day.morning().await?;
        println!("\nThe monitor starts.");
    }
    let running = messaging.start().await?;
    match role {
        Role::Both => {
            is_known(&messaging, &replica).await?;
            day.rest(async || is_known(&messaging, &replica).await).await?;
        }
        Role::Service => {
            day.morning().await?;
            let pace = async || {
                tokio::time::sleep(PACE).await;
                Ok(())
            };
            day.rest(pace).await?;
        }
        Role::Monitor => {}
        Role::Verify => verify::verify(&messaging, &screen).await?,
    }
    let report = running.shutdown(PATIENCE).await;
    println!("\nShut down: {report}.");
    Ok(())
}

/// Waits until the replica is what is cached for the tenants that are active.
async fn is_known(messaging: &Messaging, replica: &Replica) -> Result<(), BoxError> {
    let cache = messaging.cache("blip0");
    let known = async {
        loop {
            let tenants: Vec<String> = messaging.cache(TENANTS).keys("*").await?;
            let mut cached = replica::read(&cache, &part(None)).await?;
            for tenant in &tenants {
                cached.extend(replica::read(&cache, &part(Some(tenant))).await?);
            }
            let knows = replica.tenants().await == tenants && replica.entries() == cached;
            if replica.is_filled() && knows {
                return Ok(());
            }
            tokio::time::sleep(BRIEFLY).await;
        }
    };
    match tokio::time::timeout(PATIENCE, known).await {
        Ok(known) => known,
        Err(_) => Err(format!("the monitor does not know of a change after {PATIENCE:?}").into()),
    }
}
