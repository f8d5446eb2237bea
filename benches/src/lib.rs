//! What messaging costs, measured against the `redis` crate used by hand, in one run: `cargo xtask bench`.
#![allow(clippy::print_stdout, reason = "tables and reports go to standard output")]
#![allow(clippy::print_stderr, reason = "and what is under way to standard error")]

mod broadcast;
mod child;
mod compare;
mod crowd;
mod emitter;
mod growth;
mod job;
mod latency;
mod meter;
mod order;
mod publisher;
mod replay;
mod sides;
mod usage;
mod wire;

use std::process::ExitCode;

/// Runs what the command line asks for: the whole comparison, or the job of one of its child processes. `allocations`
/// tells how many there were so far, if this program counts them.
#[must_use]
pub fn main(allocations: fn() -> Option<u64>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["job", job] => child::run(job, allocations).map(|()| true),
        _ => compare::main(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
