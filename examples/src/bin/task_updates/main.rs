//! Tasks, and whoever wants to know how they are getting on: an API with live updates, a task manager and two kinds of
//! workers, which only know channels. `cargo run -p examples --bin task_updates` shows all of them in one process, in memory or
//! on the Redis that `REDIS_HOST` and its companions (or `REDIS_URL`) name; `--role <role>` is one of them. How they are
//! deployed is in `examples/deploy/task_updates`.
//!
//! To read: what is published in `updates.rs`, who publishes it in `task_manager.rs` and the two workers, how it gets to
//! browsers in `api.rs`, and what happens without arguments in `show.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a demo is for")]

mod api;
mod commission_worker;
mod frontend;
mod pipeline_worker;
mod screen;
mod show;
mod task_manager;
mod updates;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use messaging_core::{BoxError, Config, Handlers, Messaging};
use tracing_subscriber::EnvFilter;

use crate::api::{Addresses, Api};
use crate::screen::Screen;
use crate::updates::{COMMISSIONS, KEPT, PRODUCTIONS, REQUESTS};

const USAGE: &str = "\
usage: task_updates [--role <role>] [--listen <address>] [--internal <address>]

  without a role        shows all of them in one process, and ends
  --role all            the same until Ctrl-C, without the show
  --role api            live updates by WebSocket and Server-Sent Events, and the routes that begin something
  --role task-manager, --role commission-worker, --role pipeline-worker
                        one of those who do the work
  --listen <address>    where the API listens; 127.0.0.1:8080 with a role
  --internal <address>  where it serves /healthz, /readyz and /metrics; nowhere without this

Redis is where REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_PASSWORD and REDIS_SSL (or REDIS_URL) say. Where none is set, everything
stays in memory, and a single role looks for it at 127.0.0.1:6379.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// All of them, and somebody who looks at it.
    Show,
    All,
    Api,
    TaskManager,
    CommissionWorker,
    PipelineWorker,
}

impl Role {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "api" => Self::Api,
            "task-manager" => Self::TaskManager,
            "commission-worker" => Self::CommissionWorker,
            "pipeline-worker" => Self::PipelineWorker,
            _ => return None,
        })
    }

    /// Which of the handlers in this binary it starts.
    fn handlers(self) -> Handlers {
        match self {
            Self::Show | Self::All => Handlers::all(),
            Self::Api => Handlers::none(),
            Self::TaskManager => Handlers::matching("task_updates::task_manager::*"),
            Self::CommissionWorker => Handlers::matching("task_updates::commission_worker::*"),
            Self::PipelineWorker => Handlers::matching("task_updates::pipeline_worker::*"),
        }
    }

    fn has_api(self) -> bool {
        matches!(self, Self::Show | Self::All | Self::Api)
    }
}

struct Arguments {
    role: Role,
    listen: Option<SocketAddr>,
    internal: Option<SocketAddr>,
}

impl Arguments {
    /// `None` if they cannot be understood.
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut arguments = Self { role: Role::Show, listen: None, internal: None };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--role" => arguments.role = Role::named(&words.next()?)?,
                "--listen" => arguments.listen = Some(words.next()?.parse().ok()?),
                "--internal" => arguments.internal = Some(words.next()?.parse().ok()?),
                _ => return None,
            }
        }
        // Who has no API listens nowhere.
        let listens = arguments.listen.or(arguments.internal).is_some();
        (arguments.role.has_api() || !listens).then_some(arguments)
    }

    fn addresses(&self) -> Addresses {
        let port = if self.role == Role::Show { 0 } else { 8080 };
        let listen = self.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, port).into());
        Addresses { listen, internal: self.internal }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time().init();
    let Some(arguments) = Arguments::read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("task_updates: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), BoxError> {
    let role = arguments.role;
    let config = config(role)?;
    println!("{} on {}", name(role), config.endpoint);
    let screen = Screen::new();
    let mut builder = Messaging::builder().config(config).state(screen.clone()).handlers(role.handlers());
    // What is to be done is kept as what is told of it: a worker that is away, or not there yet, misses nothing.
    for channel in [REQUESTS, COMMISSIONS, PRODUCTIONS] {
        builder = builder.durable(channel, KEPT);
    }
    let messaging = builder.build().await?;
    let api = match role.has_api() {
        true => Some(Api::serve(&messaging, arguments.addresses()).await?),
        false => None,
    };
    match (role, &api) {
        (Role::Show, Some(api)) => {
            let running = messaging.start().await?;
            show::run(&messaging, api.address, &screen).await?;
            let report = running.shutdown(Duration::from_secs(5)).await;
            println!("\nShut down: {report}.");
        }
        // Until SIGINT or SIGTERM. What is being done is finished, clients are sent to another API.
        _ => messaging.run().await?,
    }
    if let Some(api) = api {
        api.end().await?;
    }
    Ok(())
}

/// The settings in the environment; in memory where there are none, and one process is all there is.
fn config(role: Role) -> Result<Config, BoxError> {
    let variables = ["REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_PASSWORD", "REDIS_SSL"];
    let is_set = variables.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let alone = matches!(role, Role::Show | Role::All);
    if alone && !is_set {
        return Ok(Config::new("memory://")?);
    }
    let config = Config::from_env()?;
    if !alone && config.endpoint.to_string().starts_with("memory:") {
        return Err("two processes cannot share memory; set REDIS_HOST, or REDIS_URL, to a Redis".into());
    }
    Ok(config)
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Show | Role::All => "all roles",
        Role::Api => "api",
        Role::TaskManager => "task-manager",
        Role::CommissionWorker => "commission-worker",
        Role::PipelineWorker => "pipeline-worker",
    }
}
