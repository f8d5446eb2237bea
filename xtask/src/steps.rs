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
    /// The environment of the tests.
    environment: Vec<(&'static str, OsString)>,
}

/// Suites that cannot run on this machine, each with the reason.
type Skipped = Vec<String>;

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Runs all steps, or one.
pub(crate) fn test(only: Option<&'static Step>) -> ExitCode {
    let start = Instant::now();
    let chosen: Vec<_> = STEPS.iter().filter(|step| only.is_none_or(|only| only == *step)).collect();
    let mut report = Report::default();

    let prepared = Workspace::read().and_then(|workspace| {
        if chosen.iter().all(|step| step.name != "test") {
            return Ok((Context { workspace, environment: Vec::new() }, Vec::new()));
        }
        let (environment, skipped) = provide(&workspace)?;
        Ok((Context { workspace, environment }, skipped))
    });
    let (context, skipped) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return failed("preparation", &failure, "cargo xtask test", start.elapsed()),
    };

    for (index, step) in chosen.iter().enumerate() {
        let place = format!("{}/{}", index + 1, chosen.len());
        println!("\n{} {place:>5}  {:<12}{}", stamp(start.elapsed()), step.name, step.what);
        let step_start = Instant::now();
        let outcome = (step.run)(&context);
        let took = step_start.elapsed();
        match outcome {
            Ok(passed) => report.0.push((step.name, took, passed)),
            Err(failure) => {
                report.print(start.elapsed(), &skipped);
                return failed(step.name, &failure, &format!("cargo xtask test --only {}", step.name), took);
            }
        }
    }
    report.print(start.elapsed(), &skipped);
    ExitCode::SUCCESS
}

/// Finds or installs what the tests need beyond Rust.
fn provide(workspace: &Workspace) -> Result<(Vec<(&'static str, OsString)>, Skipped), Failure> {
    let mut skipped = Skipped::new();
    let server = redis::provide(workspace)?;
    println!("{:<14}{server}", "redis-server");
    skipped.extend(server.lacks());
    let mut environment = vec![("REDIS_SERVER_BIN", server.path.into_os_string())];
    match python::provide(workspace) {
        Ok(interpreter) => {
            println!("{:<14}{}", "python", interpreter.display());
            environment.push(("MESSAGING_TEST_PYTHON", interpreter.into_os_string()));
        }
        Err(reason) => skipped.push(format!("python interop ({reason})")),
    }
    if !skipped.is_empty() && std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        let message =
            format!("these suites cannot run here, and under CI=true all have to: {}", skipped.join(", "));
        return Err(Failure::new(message));
    }
    Ok((environment, skipped))
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
    let environment = context.environment.iter().map(|(name, value)| (*name, value));
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
    cargo("deny --all-features check").run()?;
    Ok(None)
}

/// The steps that passed so far.
#[derive(Default)]
struct Report(Vec<(&'static str, Duration, Passed)>);

impl Report {
    fn print(&self, total: Duration, skipped: &[String]) {
        println!();
        for (name, took, passed) in &self.0 {
            println!(
                "{}  {name:<12}ok{}",
                stamp(*took),
                passed.as_ref().map_or(String::new(), |note| format!("  ({note})"))
            );
        }
        println!("{}  in all", stamp(total));
        for suite in skipped {
            println!("skipped: {suite}");
        }
    }
}

fn failed(name: &str, failure: &Failure, again: &str, took: Duration) -> ExitCode {
    eprintln!("{}  {name:<12}FAILED: {}", stamp(took), failure.message);
    eprintln!("\nthis step alone:   {again}");
    if let Some(command) = &failure.command {
        eprintln!("its last command:  {command}");
    }
    ExitCode::FAILURE
}

/// A time, in a column of its own.
fn stamp(time: Duration) -> String {
    format!("{:>7.1} s", time.as_secs_f64())
}
