//! `cargo xtask faults`: what the framework promises under faults, tried out on a real server. It takes minutes.

use crate::command::{Failure, cargo, ended};
use crate::redis;
use crate::workspace::Workspace;
use std::process::ExitCode;
use std::time::Instant;

/// Runs the suite in the open; each test prints what came of it.
pub(crate) fn run() -> ExitCode {
    let start = Instant::now();
    let outcome = suite();
    if outcome.is_ok() {
        let time = start.elapsed().as_secs_f64();
        println!("{time:.1} s in all; what it proves is in docs/reliability.md");
    }
    ended("faults", outcome)
}

fn suite() -> Result<(), Failure> {
    let server = redis::provide(&Workspace::read()?)?;
    println!("{:<14}{server}", "redis-server");
    // The whole workspace, so that it is built as for `cargo xtask test`, and of it one target.
    cargo("test --workspace --all-features --test faults -- --nocapture")
        .env("REDIS_SERVER_BIN", &server.path)
        .run()?;
    // Every order of the cache's commands, on a real server.
    cargo("test --workspace --all-features --lib -- --ignored interleavings")
        .env("REDIS_SERVER_BIN", &server.path)
        .run()
}
