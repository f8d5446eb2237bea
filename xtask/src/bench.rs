//! `cargo xtask bench`: builds the comparison as it is released, provides a redis-server, and runs it. What is measured
//! is the business of the package `messaging-benches`.

use crate::command::{Failure, cargo, ended, tool};
use crate::redis;
use crate::workspace::Workspace;
use std::process::ExitCode;

/// Measures the experiments that `arguments` name; without a name all of them.
pub(crate) fn bench(arguments: &[&str]) -> ExitCode {
    ended("bench", run(arguments))
}

fn run(arguments: &[&str]) -> Result<(), Failure> {
    let workspace = Workspace::read()?;
    let server = redis::provide(&workspace)?;
    println!("{:<14}{server}", "redis-server");
    cargo("build --profile bench --package messaging-benches --bins").run()?;
    // The directory of both the release and the bench profile.
    let program =
        workspace.target.join("release").join(format!("messaging-benches{}", std::env::consts::EXE_SUFFIX));
    tool(program).args(arguments).env("REDIS_SERVER_BIN", server.path).run()
}
