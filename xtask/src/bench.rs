//! `cargo xtask bench`: builds the comparison as it is released, provides a redis-server and what else is compared with, and
//! runs it. What is measured is the business of the package `messaging-benches`.

use crate::command::{Failure, cargo, ended, tool};
use crate::workspace::Workspace;
use crate::{node, redis};
use std::path::Path;
use std::process::ExitCode;

/// Measures the experiments that `arguments` name; without a name all of them.
pub(crate) fn bench(arguments: &[&str]) -> ExitCode {
    ended("bench", run(arguments))
}

fn run(arguments: &[&str]) -> Result<(), Failure> {
    let workspace = Workspace::read()?;
    let server = redis::provide(&workspace)?;
    println!("{:<14}{server}", "redis-server");
    let socketio = if wants_gateway(arguments) { socketio(&workspace)? } else { None };
    cargo("build --profile bench --package messaging-benches --bins").run()?;
    // The directory of both the release and the bench profile.
    let program =
        workspace.target.join("release").join(format!("messaging-benches{}", std::env::consts::EXE_SUFFIX));
    tool(program).args(arguments).env("REDIS_SERVER_BIN", server.path).envs(socketio).run()
}

/// Whether gateways may be among the experiments: another one needs nothing of npm.
fn wants_gateway(arguments: &[&str]) -> bool {
    // What follows these is a path.
    let before = std::iter::once(&"").chain(arguments);
    let names = arguments.iter().zip(before).filter(|(_, before)| !["--json", "--plots"].contains(before));
    let mut names = names.map(|(name, _)| name).filter(|name| !name.starts_with('-')).peekable();
    names.peek().is_none() || names.any(|name| name.contains("gateway") || "gateway".contains(name))
}

/// The variable that says where the packages of Socket.IO are, if they can be there.
fn socketio(workspace: &Workspace) -> Result<Option<(&'static str, std::path::PathBuf)>, Failure> {
    match node::provide(workspace, "socketio", Path::new("benches/gateway/socketio")) {
        Ok(modules) => {
            println!("{:<14}{}", "socket.io", modules.display());
            Ok(Some(("MESSAGING_BENCH_SOCKETIO", modules)))
        }
        Err(reason) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => {
            Err(Failure::new(format!("under CI=true Socket.IO has to be measured, and cannot be: {reason}")))
        }
        Err(reason) => {
            println!("{:<14}skipped: {reason}", "socket.io");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gateways_need_packages_of_npm() {
        for arguments in [
            &[][..],
            &["--quick"],
            &["--json", "run.json"],
            &["gateway"],
            &["latency", "--quick", "gateway-idle"],
            &["gate"],
        ] {
            assert!(wants_gateway(arguments), "{arguments:?}");
        }
        assert!(!wants_gateway(&["--quick", "allocations", "stopped"]));
        assert!(!wants_gateway(&["--json", "gateway.json", "queue"]));
        assert!(!wants_gateway(&["growth", "--plots", "docs/gateway"]));
    }
}
