//! A Python with redis-py, for the tests that talk with programs that are not ours, and with clients of the gateway; and
//! another one with FastStream, which is compared with.

use crate::command::tool;
use crate::workspace::Workspace;
use std::path::{Path, PathBuf};

/// A package of PyPI.
struct Package {
    /// What is imported.
    module: &'static str,
    /// What is installed for that.
    requirement: &'static str,
}

/// The tests use nothing that came later or has gone since.
const REDIS_PY: Package = Package { module: "redis", requirement: "redis>=5" };

/// What the gateway's clients in Python are made of.
const CLIENTS: [Package; 3] = [
    Package { module: "websockets", requirement: "websockets==15.0.1" },
    Package { module: "sseclient", requirement: "sseclient-py==1.9.0" },
    Package { module: "centrifuge", requirement: "centrifuge-python==0.7.0" },
];

/// What reads the files that deploy examples, and checks them.
const SCHEMAS: [Package; 2] = [
    Package { module: "kubernetes_validate", requirement: "kubernetes-validate==1.37.0" },
    Package { module: "yaml", requirement: "pyyaml==6.0.3" },
];

/// FastStream, which is compared with, and what makes it faster where it is there.
const FASTSTREAM: [Package; 3] = [
    Package { module: "faststream.redis", requirement: "faststream[redis]==0.7.8" },
    Package { module: "orjson", requirement: "orjson==3.13.0" },
    Package { module: "hiredis", requirement: "hiredis==3.5.0" },
];

/// An interpreter that has redis-py.
#[derive(Debug)]
pub(crate) struct Python {
    pub(crate) interpreter: PathBuf,
    /// Whether it has the gateway's clients too; or why not.
    pub(crate) clients: Result<(), String>,
    /// Whether it has what checks the files that deploy examples; or why not.
    pub(crate) schemas: Result<(), String>,
}

/// `$MESSAGING_TEST_PYTHON`, or the one in `target/python`, made if it is not there; or why there is none.
pub(crate) fn provide(workspace: &Workspace) -> Result<Python, String> {
    if let Some(chosen) = std::env::var_os("MESSAGING_TEST_PYTHON").filter(|path| !path.is_empty()) {
        let interpreter = PathBuf::from(chosen);
        let name = interpreter.display();
        if !imports(&interpreter, &[REDIS_PY]) {
            return Err(format!("{name} has no redis-py"));
        }
        let lacking = |packages: &str| format!("{name} has no {packages}");
        let clients = imports(&interpreter, &CLIENTS).then_some(());
        let clients = clients.ok_or_else(|| lacking("websockets, no sseclient-py or no centrifuge-python"));
        let schemas = imports(&interpreter, &SCHEMAS).then_some(());
        let schemas = schemas.ok_or_else(|| lacking("kubernetes-validate or no pyyaml"));
        return Ok(Python { interpreter, clients, schemas });
    }
    let shown = workspace.target.join("python");
    let directory = std::path::absolute(&shown).map_err(|error| error.to_string())?;
    let interpreter = directory.join("bin").join("python");
    if !imports(&interpreter, &[REDIS_PY]) {
        println!("{:<14}installing redis-py into {}", "python", shown.display());
        environment_with(&directory, REDIS_PY.requirement)?;
        if !imports(&interpreter, &[REDIS_PY]) {
            return Err("redis-py cannot be imported".to_owned());
        }
    }
    let provided = |packages: &[Package], what: &str| {
        if has(&interpreter, packages) {
            return Ok(());
        }
        println!("{:<14}installing {what} into {}", "python", shown.display());
        install(&interpreter, &packages.iter().map(|package| package.requirement).collect::<Vec<_>>())
    };
    let clients = provided(&CLIENTS, "clients of the gateway");
    let schemas = provided(&SCHEMAS, "the schemas of Kubernetes");
    Ok(Python { interpreter, clients, schemas })
}

/// The interpreter in `target/faststream`, which has FastStream and is made if it is not there; or why there is none. It has
/// an environment of its own, because what it needs is its own choice.
pub(crate) fn faststream(workspace: &Workspace) -> Result<PathBuf, String> {
    let shown = workspace.target.join("faststream");
    let directory = std::path::absolute(&shown).map_err(|error| error.to_string())?;
    let interpreter = directory.join("bin").join("python");
    if !has(&interpreter, &FASTSTREAM) {
        println!("{:<14}installing FastStream into {}", "python", shown.display());
        let [first, others @ ..] = FASTSTREAM.map(|package| package.requirement);
        environment_with(&directory, first)?;
        install(&interpreter, &others)?;
        if !has(&interpreter, &FASTSTREAM) {
            return Err("FastStream cannot be imported".to_owned());
        }
    }
    Ok(interpreter)
}

/// Makes a virtual environment of `package` at `directory`; or says why not.
pub(crate) fn environment_with(directory: &Path, package: &str) -> Result<(), String> {
    tool("python3").arg("--version").output().map_err(|_| "no python3")?;
    // `--clear`: what is there did not work.
    let made = tool("python3").args(["-m", "venv", "--clear"]).arg(directory).output();
    made.map_err(|_| "python3 has no venv; on Debian it is in python3-venv")?;
    install(&directory.join("bin").join("python"), &[package])
}

fn install(python: &Path, requirements: &[&str]) -> Result<(), String> {
    let pip = tool(python).args(["-m", "pip", "install", "--quiet"]).args(requirements);
    pip.output().map(drop).map_err(|failure| {
        let last = failure.message.lines().last().unwrap_or("").trim().to_owned();
        format!("pip cannot install {}: {last}", requirements.join(" and "))
    })
}

/// Whether all of them are there, in whichever version.
fn imports(python: &Path, packages: &[Package]) -> bool {
    let lines = packages.iter().map(|package| format!("import {}", package.module));
    tool(python).arg("-c").arg(lines.collect::<Vec<_>>().join("\n")).output().is_ok()
}

/// Whether all of them are there, in the versions that are pinned.
fn has(python: &Path, packages: &[Package]) -> bool {
    let versions = packages.iter().filter_map(|package| package.requirement.split_once("=="));
    // Its extras are no part of a package's name.
    let versions = versions.map(|(name, version)| (name.split('[').next().unwrap_or(name), version));
    let lines = versions.map(|(name, version)| format!("assert version('{name}') == '{version}'"));
    let lines: Vec<_> =
        std::iter::once("from importlib.metadata import version".to_owned()).chain(lines).collect();
    imports(python, packages) && tool(python).arg("-c").arg(lines.join("\n")).output().is_ok()
}
