//! What the framework promises while Redis, the network or a handler misbehaves: one test for each row of
//! `docs/reliability.md`, each on a server of its own. It takes minutes: `cargo xtask faults` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests document themselves and print their outcomes, and a test binary exports nothing"
)]

mod acl;
mod cache;
mod callers;
mod child;
mod cuts;
mod documented;
mod durable;
mod flood;
mod gated;
mod gateway;
mod interruptions;
mod limits;
mod outbox;
mod overflow;
#[path = "../it/place.rs"]
#[allow(dead_code, unused_macros, unused_imports, reason = "the other suite uses more of it")]
mod place;
mod presence;
#[path = "../it/programs.rs"]
#[allow(dead_code, reason = "the other suite uses more of it")]
mod programs;
mod publishing;
mod queues;
mod queues_topology;
mod refusals;
mod resumable;
mod sampler;
mod shutdown;
mod stream;
mod topology;
mod witness;

use std::fmt::Display;

/// Says what came of a test, for whoever runs the suite by hand.
fn outcome(of: &str, what: impl Display) {
    println!("    {of}: {what}");
}
