//! Cameras: a service that owns them, one that processes what they see, one that notifies people, and a gateway that streams
//! it to browsers. `cargo run -p examples --features cameras --bin cameras` shows all of them in one process, in memory or on
//! the Redis that `REDIS_URL` names; with `--role` it is one of them.
//!
//! To read: the models in `camera.rs`, a file for each service, and what happens between them in `story.rs`. `migration.rs`
//! has hand-written cache code beside ours, `troubleshoot.rs` what it looks like when something is wrong.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a demo is for")]

mod access_control;
mod browser;
mod camera;
mod events;
mod gateway;
mod http;
mod migration;
mod notifications;
mod role;
mod screen;
mod story;
mod troubleshoot;

use std::process::ExitCode;

use messaging_core::{BoxError, Config};
use tracing_subscriber::EnvFilter;

use crate::role::Role;

const USAGE: &str = "\
usage: cameras [--role <role> [--port <number>]]
       cameras migration | troubleshoot | describe | asyncapi

  --role access-control  owns the cameras (HTTP, port 8001)
  --role events          processes what they see (HTTP, port 8002)
  --role notifications   notifies people
  --role gateway         streams events to browsers (ws://127.0.0.1:8000/subscribe)
  --port <number>        another port of 127.0.0.1
  migration              a camera cached by hand-written code, by CacheManager and by its model
  troubleshoot           what it looks like when something is wrong
  describe               what is declared here, as text
  asyncapi               the same for others, as an AsyncAPI document

Without any of them all roles run in one process, and a story is told. Messages go through the Redis that REDIS_URL
names, or stay in memory; roles need a Redis. ACCESS_CONTROL_URL and EVENTS_URL say where these services are.";

enum Command {
    Story,
    Role(Role, Option<u16>),
    Migration,
    Troubleshoot,
    Describe,
    AsyncApi,
}

impl Command {
    /// `None` if it cannot be understood.
    fn read() -> Option<Self> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        Some(match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Self::Story,
            ["migration"] => Self::Migration,
            ["troubleshoot"] => Self::Troubleshoot,
            ["describe"] => Self::Describe,
            ["asyncapi"] => Self::AsyncApi,
            ["--role", role] => Self::Role(Role::called(role)?, None),
            ["--role", role, "--port", port] => Self::Role(Role::called(role)?, Some(port.parse().ok()?)),
            _ => return None,
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    let Some(command) = Command::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cameras: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), BoxError> {
    match command {
        Command::Story => story::tell(config()?).await,
        Command::Role(role, port) => role.play(config()?, port).await,
        Command::Migration => migration::show(config()?).await,
        Command::Troubleshoot => troubleshoot::show(config()?).await,
        Command::Describe => {
            print!("{}", messaging_core::describe());
            Ok(())
        }
        Command::AsyncApi => {
            let document = messaging_gateway::asyncapi("cameras", env!("CARGO_PKG_VERSION"));
            println!("{document:#}");
            Ok(())
        }
    }
}

/// In memory, unless somebody says where Redis is.
fn config() -> messaging_core::Result<Config> {
    match std::env::var_os("REDIS_URL").filter(|url| !url.is_empty()) {
        Some(_) => Config::from_env(),
        None => Config::new("memory://"),
    }
}
