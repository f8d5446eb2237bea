//! `messaging`: what operators of a deployment type. It parses, connects, runs one command, and ends with a code that
//! scripts can rely on; what a command does is in a file of its own.

mod cache;
mod check;
mod completions;
mod connect;
mod dead;
mod failure;
mod groups;
mod health;
mod http;
mod input;
mod json;
mod output;
mod progress;
mod publish;
mod stats;
mod tail;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use connect::Target;
use failure::{Code, Failure};

/// Looks after messaging over Redis: listens, publishes, and says what is well and what is not.
#[derive(Debug, Parser)]
#[command(name = "messaging", version, after_long_help = AFTER, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    target: Target,
    /// When to use colour; `auto` also heeds NO_COLOR and CLICOLOR_FORCE
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Tail(tail::Tail),
    Publish(publish::Publish),
    Health(health::Health),
    Stats(stats::Stats),
    Groups(groups::Groups),
    #[command(subcommand)]
    Dead(dead::Dead),
    #[command(subcommand)]
    Cache(cache::Cache),
    Completions(completions::Completions),
}

const AFTER: &str = "\
Environment:
  As every service: REDIS_URL, or REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_USERNAME, REDIS_PASSWORD and REDIS_SSL;
  MESSAGING_NAMESPACE, MESSAGING_CHANNEL_PREFIX, MESSAGING_CACHE_PREFIX and the other MESSAGING_* settings.
  Passwords are better there than in --url, which other users of the machine can see.

Exit codes:
  0    well, or done
  1    unwell, or nothing found
  2    the command line, the settings or the input are wrong
  3    Redis cannot be reached
  4    Redis refused: the password, or a right that the user lacks
  5    something else failed
  130  interrupted (Ctrl-C); `tail` and `--watch` end with 0";

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code.into(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(Code::Failed, format!("cannot start: {error}")).tell(),
    };
    let outcome = runtime.block_on(async {
        let interrupted = if cli.command.goes_on() { Code::Well } else { Code::Interrupted };
        tokio::select! {
            outcome = cli.command.run(&cli.target) => outcome,
            () = terminated() => Ok(interrupted),
        }
    });
    // A read of standard input cannot be interrupted, and is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => failure.tell(),
    }
}

/// Reads the command line. Help and the version go to standard output; a mistake is one line that says what to try.
fn parse() -> Result<Cli, Code> {
    let parsed = Cli::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => {
            let choice = match cli.color {
                Colour::Auto => anstream::ColorChoice::Auto,
                Colour::Always => anstream::ColorChoice::Always,
                Colour::Never => anstream::ColorChoice::Never,
            };
            choice.write_global();
            Ok(cli)
        }
        Err(error) => Err(failure::tell_usage(&error, &Cli::command())),
    }
}

impl Command {
    async fn run(&self, target: &Target) -> Result<Code, Failure> {
        match self {
            Self::Check(check) => check.run(target).await,
            Self::Tail(tail) => tail.run(target).await,
            Self::Publish(publish) => publish.run(target).await,
            Self::Health(health) => health.run(target).await,
            Self::Stats(stats) => stats.run(target).await,
            Self::Groups(groups) => groups.run(target).await,
            Self::Dead(dead) => dead.run(target).await,
            Self::Cache(cache) => cache.run(target).await,
            Self::Completions(completions) => completions.run(&mut Cli::command()),
        }
    }

    /// Whether it is meant to run until somebody ends it.
    fn goes_on(&self) -> bool {
        match self {
            Self::Tail(_) => true,
            Self::Stats(stats) => stats.watches(),
            _ => false,
        }
    }
}

/// Waits for SIGINT or SIGTERM.
async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
