//! `cargo xtask bench`: builds the comparison as it is released, provides a redis-server and what else is compared with, and
//! runs it. What is measured is the business of the package `messaging-benches`.

use crate::command::{Failure, cargo, ended, tool};
use crate::workspace::Workspace;
use crate::{node, python, redis};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures the experiments that `arguments` name; without a name all of them.
pub(crate) fn bench(arguments: &[&str]) -> ExitCode {
    ended("bench", run(arguments))
}

fn run(arguments: &[&str]) -> Result<(), Failure> {
    let workspace = Workspace::read()?;
    let server = redis::provide(&workspace)?;
    println!("{:<14}{server}", "redis-server");
    let mut environment = Vec::new();
    if wants_gateway(arguments) {
        let modules = node::provide(&workspace, "socketio", Path::new("benches/gateway/socketio"));
        environment.extend(told("Socket.IO", "MESSAGING_BENCH_SOCKETIO", modules)?);
    }
    if wants_receivers(arguments) {
        let modules = node::provide(&workspace, "node-redis", Path::new("benches/peers/node-redis"));
        environment.extend(told("node-redis", "MESSAGING_BENCH_NODE_REDIS", modules)?);
        let interpreter = python::faststream(&workspace);
        environment.extend(told("FastStream", "MESSAGING_BENCH_FASTSTREAM", interpreter)?);
    }
    cargo("build --profile bench --package messaging-benches --bins").run()?;
    // The directory of both the release and the bench profile.
    let program =
        workspace.target.join("release").join(format!("messaging-benches{}", std::env::consts::EXE_SUFFIX));
    tool(program).args(arguments).env("REDIS_SERVER_BIN", server.path).envs(environment).run()
}

/// The parts of names that choose experiments.
fn names<'a>(arguments: &'a [&'a str]) -> Vec<&'a str> {
    // What follows these is a path.
    let before = std::iter::once(&"").chain(arguments);
    let names = arguments.iter().zip(before).filter(|(_, before)| !["--json", "--plots"].contains(before));
    names.map(|(name, _)| *name).filter(|name| !name.starts_with('-')).collect()
}

/// Whether gateways may be among the experiments: another one needs nothing of npm for them.
fn wants_gateway(arguments: &[&str]) -> bool {
    let names = names(arguments);
    names.is_empty() || names.iter().any(|name| name.contains("gateway") || "gateway".contains(name))
}

/// Whether subscribers of other languages are among them.
fn wants_receivers(arguments: &[&str]) -> bool {
    const NAME: &str = "peer-receive";
    let (names, compare) = (names(arguments), arguments.contains(&"--compare"));
    let is_named = |name: &&str| NAME.starts_with(name) || compare && NAME.contains(name);
    if names.is_empty() { compare } else { names.iter().any(is_named) }
}

/// The variable that tells where something is that is compared with, if it can be there.
fn told(
    what: &str,
    variable: &'static str,
    provided: Result<PathBuf, String>,
) -> Result<Option<(&'static str, PathBuf)>, Failure> {
    match provided {
        Ok(path) => {
            println!("{what:<14}{}", path.display());
            Ok(Some((variable, path)))
        }
        Err(reason) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => {
            Err(Failure::new(format!("under CI=true {what} has to be measured, and cannot be: {reason}")))
        }
        Err(reason) => {
            println!("{what:<14}skipped: {reason}");
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

    #[test]
    fn subscribers_of_other_languages_are_for_who_compares() {
        for arguments in
            [&["--compare"][..], &["peer"], &["--quick", "peer-receive"], &["receive", "--compare"]]
        {
            assert!(wants_receivers(arguments), "{arguments:?}");
        }
        for arguments in [&[][..], &["receive"], &["--compare", "queue"], &["--json", "peer", "latency"]] {
            assert!(!wants_receivers(arguments), "{arguments:?}");
        }
    }
}
