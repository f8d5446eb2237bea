//! Notifications, events, presence, chat rooms and live updates: what lightweight messages are good for. All of it is a
//! broadcast: whoever listens hears it, and nobody else. `cargo run -p examples --features metrics --bin notifications` shows
//! everything in one process, in memory or on the Redis that `REDIS_URL` names; `--role <role>` is a part of it.
//!
//! To read: handlers and publishers in `notifications.rs`, `presence.rs`, `chat.rs` and `updates.rs`; what becomes of failures in
//! `failures.rs`; what an operator sees in `operating.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a demo is for")]

mod channels;
mod chat;
mod failures;
mod notifications;
mod operating;
mod presence;
mod screen;
mod show;
mod updates;

use std::process::ExitCode;
use std::time::Duration;

use messaging_core::{BoxError, Config, Handlers, Messaging};
use tracing_subscriber::EnvFilter;

use crate::notifications::NotificationSubscriber;
use crate::operating::{Measured, Status, check};
use crate::presence::PresenceSystem;
use crate::screen::Screen;
use crate::show::{Audience, Publisher};

const USAGE: &str = "\
usage: notifications [--role subscriber|publisher|health]

  without a role  shows everything in one process, and ends
  subscriber      handles what is published until Ctrl-C or SIGTERM; start it first
  publisher       publishes something of each kind, and ends
  health          prints how Redis's channels are; the exit code is 1 if it is not there

A role needs a Redis: that which REDIS_URL names, or at redis://127.0.0.1:6379. Without a role messages stay in memory where
REDIS_URL names none.";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    All,
    Subscriber,
    Publisher,
    Health,
}

fn role() -> Option<Role> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Some(match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Role::All,
        ["--role", "subscriber"] => Role::Subscriber,
        ["--role", "publisher"] => Role::Publisher,
        ["--role", "health"] => Role::Health,
        _ => return None,
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    // The failures that are shown are shown by ourselves.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time().init();
    let Some(role) = role() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(role).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("notifications: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(role: Role) -> Result<ExitCode, BoxError> {
    let config = config(role)?;
    if role != Role::Health {
        println!("messaging on {}", config.endpoint);
    }
    let measured = Measured::install()?;
    let screen = Screen::new();
    let presence = PresenceSystem::new(&screen);
    let failures = screen.clone();
    let handlers = match role {
        Role::All | Role::Subscriber => Handlers::all(),
        Role::Publisher | Role::Health => Handlers::none(),
    };
    let messaging = Messaging::builder()
        .config(config)
        .handlers(handlers)
        .state(screen.clone())
        .service(NotificationSubscriber(screen.clone()))
        .service(presence.clone())
        .error_handler(move |error, context| failures::decide(error, context, &failures))
        .build()
        .await?;
    match role {
        Role::All => {
            let running = messaging.start().await?;
            show::all(&messaging, &presence, &measured, &screen).await?;
            let report = running.shutdown(Duration::from_secs(5)).await;
            println!("\nShut down: {report}.");
        }
        Role::Subscriber => {
            // Also handlers that are added at run time need a Redis; if there is none, this says so.
            messaging.client().ping().await?;
            let audience = Audience::join(&messaging).await?;
            println!("listening; Ctrl-C ends it");
            messaging.run().await?;
            audience.leave().await;
            println!("shut down");
        }
        Role::Publisher => Publisher::new(&messaging, &screen).run().await?,
        Role::Health => {
            let indicator = check(&messaging).await;
            println!("{}", serde_json::to_string(&indicator)?);
            if indicator.status == Status::Down {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// In memory, unless somebody says where Redis is, or needs one.
fn config(role: Role) -> Result<Config, BoxError> {
    let named = ["REDIS_URL", "REDIS_HOST"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if role == Role::All && !named {
        return Ok(Config::new("memory://")?);
    }
    let config = Config::from_env()?;
    if role != Role::All && config.endpoint.to_string().starts_with("memory:") {
        return Err(
            "two processes cannot share memory; set REDIS_URL to a Redis, such as redis://127.0.0.1:6379"
                .into(),
        );
    }
    Ok(config)
}
