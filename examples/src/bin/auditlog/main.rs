//! Audit logs: commands record what users do, in SQL and next to what they change. When that is committed, whoever is online
//! hears of it; whoever is not asks the database later. `cargo run -p examples --features sql --bin auditlog`, in memory, or
//! on the Redis that `REDIS_URL` names.
//!
//! To read: the model in `audit_log.rs`, units of work in `commands.rs`, live subscriptions in `device.rs`, the WebSocket in
//! `site.rs`, and what happens with them in `show.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a demo is for")]

mod audit_log;
mod browser;
mod commands;
mod database;
mod device;
mod screen;
mod show;
mod site;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use messaging_core::{BoxError, Config, Messaging};
use messaging_sql::{Outbox, OutboxRelay};
use tracing_subscriber::EnvFilter;

use crate::commands::{Commands, Events};
use crate::database::Database;
use crate::screen::Screen;
use crate::show::{Completed, Show};

const USAGE: &str = "\
usage: auditlog [--outbox] [--database <file>] [--serve <port>]

  --outbox           commits events with the changes that they tell of; a relay publishes them
  --database <file>  keeps tasks and entries in this SQLite file, not in a temporary one
  --serve <port>     shows nothing by itself: serves browsers on this port of 127.0.0.1, until Ctrl-C or SIGTERM

Messages go through the Redis that REDIS_URL names, or stay in memory.";

#[derive(Default)]
struct Arguments {
    events: Events,
    database: Option<PathBuf>,
    serve: Option<u16>,
}

impl Arguments {
    fn read() -> Option<Self> {
        let mut arguments = Self::default();
        let mut words = std::env::args_os().skip(1);
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--outbox") => arguments.events = Events::ByOutbox,
                Some("--database") => arguments.database = Some(words.next()?.into()),
                Some("--serve") => arguments.serve = Some(words.next()?.to_str()?.parse().ok()?),
                _ => return None,
            }
        }
        Some(arguments)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env());
    log.with_ansi(false).without_time().init();
    let Some(arguments) = Arguments::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("auditlog: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), BoxError> {
    let config = match std::env::var_os("REDIS_URL").filter(|url| !url.is_empty()) {
        Some(_) => Config::from_env()?,
        None => Config::new("memory://")?,
    };
    println!("messaging on {}", config.endpoint);
    let (completed, screen) = (Completed::default(), Screen::new());
    let builder = Messaging::builder().config(config).state(completed.clone()).state(screen.clone());
    let messaging = builder.build().await?;
    let database = Database::open(arguments.database).await?;
    let mut outbox = None;
    if arguments.events == Events::ByOutbox {
        messaging.attach(OutboxRelay::new(&database.pool))?;
        outbox = Some(Outbox::new(&database.pool));
    }
    let commands = Commands::new(&database.pool, &messaging, arguments.events);
    let address = site::serve(&messaging, &commands, arguments.serve.unwrap_or(0)).await?;
    if arguments.serve.is_some() {
        print_how_to_try(address);
        messaging.run().await?;
        println!("\nShut down.");
        database.close().await;
        return Ok(());
    }
    let running = messaging.start().await?;
    Show { messaging, commands, outbox, completed, screen, address }.run().await?;

    let report = running.shutdown(Duration::from_secs(5)).await;
    println!("\nShut down: {report}.");
    database.close().await;
    Ok(())
}

fn print_how_to_try(address: std::net::SocketAddr) {
    println!(
        "\
serving browsers on http://{address}; Ctrl-C ends it. Try:

  TOKEN=$(curl -s -X POST http://{address}/login/123e4567-e89b-12d3-a456-426614174000)
  curl -sN -H \"Authorization: Bearer $TOKEN\" 'http://{address}/events?entity=auditlog' &
  curl -s -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: text/plain' -d 'write the report' http://{address}/tasks
"
    );
}
