//! `cargo xtask test`: the steps, their order, and the report. What a step checks is in a module of its own or one command of cargo.

use crate::command::{Failure, cargo, tool};
use crate::workspace::Workspace;
use crate::{duplicates, features, msrv, python, redis};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// One thing that a change has to pass.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    run: fn(&Context) -> Result<Passed, Failure>,
}

/// What there is to say about a step that passed, if anything.
pub(crate) type Passed = Option<String>;

/// In the order of a full run.
pub(crate) static STEPS: &[Step] = &[
    Step { name: "fmt", what: "the code is formatted", run: fmt },
    Step { name: "clippy", what: "no lint has anything to say", run: clippy },
    Step { name: "msrv", what: "the declared Rust version is enough", run: msrv::check },
    Step { name: "test", what: "unit, UI, integration and doc tests", run: tests },
    Step { name: "doc", what: "the documentation builds without a warning", run: doc },
    Step { name: "features", what: "every feature of messaging-core builds alone", run: features::check },
    Step { name: "duplicates", what: "no dependency is there in two versions", run: duplicates::check },
    Step { name: "deny", what: "licenses and advisories, if cargo-deny is installed", run: deny },
];

/// What the steps know of the machine.
pub(crate) struct Context {
    pub(crate) workspace: Workspace,
    provided: Provided,
}

/// What the tests need beyond Rust.
#[derive(Default)]
struct Provided {
    environment: Vec<(&'static str, OsString)>,
    /// Suites that cannot run on this machine, each with the reason.
    skipped: Vec<String>,
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Runs all steps, or one.
pub(crate) fn test(only: Option<&'static Step>) -> ExitCode {
    let start = Instant::now();
    let chosen: Vec<_> = STEPS.iter().filter(|step| only.is_none_or(|only| only == *step)).collect();
    let needs_more = chosen.iter().any(|step| step.name == "test");
    let prepared = Workspace::read().and_then(|workspace| {
        let provided = if needs_more { provide(&workspace)? } else { Provided::default() };
        Ok(Context { workspace, provided })
    });
    let context = match prepared {
        Ok(context) => context,
        Err(failure) => return give_up("preparation", &failure, None),
    };

    let mut rows = Vec::new();
    let mut failed = None;
    for (index, step) in chosen.iter().enumerate() {
        let place = format!("{}/{}", index + 1, chosen.len());
        println!("\n{}{place:>7}  {:<12}{}", stamp(start.elapsed()), step.name, step.what);
        let step_start = Instant::now();
        let outcome = (step.run)(&context);
        let result = match &outcome {
            Ok(None) => "ok".to_owned(),
            Ok(Some(note)) => format!("ok  ({note})"),
            Err(_) => "FAILED".to_owned(),
        };
        rows.push(format!("{}  {:<12}{result}", stamp(step_start.elapsed()), step.name));
        if let Err(failure) = outcome {
            failed = Some((step.name, failure));
            break;
        }
    }

    println!("\n{}\n{}  in all", rows.join("\n"), stamp(start.elapsed()));
    for suite in &context.provided.skipped {
        println!("skipped: {suite}");
    }
    match failed {
        None => ExitCode::SUCCESS,
        Some((name, failure)) => give_up(name, &failure, Some(name)),
    }
}

fn give_up(what: &str, failure: &Failure, step: Option<&str>) -> ExitCode {
    eprintln!("\n{what} failed: {}", failure.message);
    let only = step.map_or(String::new(), |step| format!(" --only {step}"));
    eprintln!("to see it again:   cargo xtask test{only}");
    if let Some(command) = &failure.command {
        eprintln!("or the command:    {command}");
    }
    ExitCode::FAILURE
}

/// A time, in a column of its own.
fn stamp(time: Duration) -> String {
    format!("{:>7.1} s", time.as_secs_f64())
}

/// Finds or installs what the tests need beyond Rust.
fn provide(workspace: &Workspace) -> Result<Provided, Failure> {
    let mut provided = Provided::default();
    let server = redis::provide(workspace)?;
    println!("{:<14}{server}", "redis-server");
    provided.skipped.extend(server.lacks());
    provided.environment.push(("REDIS_SERVER_BIN", server.path.into_os_string()));
    match python::provide(workspace) {
        Ok(interpreter) => {
            println!("{:<14}{}", "python", interpreter.display());
            provided.environment.push(("MESSAGING_TEST_PYTHON", interpreter.into_os_string()));
        }
        Err(reason) => provided.skipped.push(format!("python interop ({reason})")),
    }
    if !provided.skipped.is_empty() && std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        let suites = provided.skipped.join(", ");
        return Err(Failure::new(format!(
            "under CI=true every suite has to run, and these cannot: {suites}"
        )));
    }
    Ok(provided)
}

fn fmt(_: &Context) -> Result<Passed, Failure> {
    cargo("fmt --all --check").run()?;
    Ok(None)
}

fn clippy(_: &Context) -> Result<Passed, Failure> {
    cargo("clippy --workspace --all-targets --all-features -- -D warnings").run()?;
    Ok(None)
}

fn tests(context: &Context) -> Result<Passed, Failure> {
    let environment = context.provided.environment.iter().map(|(name, value)| (*name, value));
    cargo("test --workspace --all-features --no-fail-fast").envs(environment).run()?;
    Ok(None)
}

fn doc(_: &Context) -> Result<Passed, Failure> {
    cargo("doc --no-deps --workspace --all-features").env("RUSTDOCFLAGS", "-Dwarnings").run()?;
    Ok(None)
}

fn deny(_: &Context) -> Result<Passed, Failure> {
    if tool("cargo-deny").arg("--version").output().is_err() {
        return Ok(Some("cargo-deny is not installed: nothing checked".to_owned()));
    }
    cargo("deny check").run()?;
    Ok(None)
}
