//! `cargo xtask test`: the steps, their order, and the report. What a step checks is in a module of its own or one command of cargo.

use crate::command::{Failure, cargo, tool};
use crate::postgres::Missing;
use crate::provide::{Provided, provide};
use crate::workspace::Workspace;
use crate::{duplicates, features, msrv, web};
use std::fmt;
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
    Step { name: "client", what: "the gateway's client in JavaScript, and its types", run: web::client },
    Step { name: "browser", what: "the page of the example `live`, in Chromium", run: web::browser },
    Step { name: "doc", what: "the documentation builds without a warning", run: doc },
    Step { name: "features", what: "every feature builds alone", run: features::check },
    Step { name: "duplicates", what: "no dependency is there in two versions", run: duplicates::check },
    Step { name: "deny", what: "licenses and advisories, if cargo-deny is installed", run: deny },
];

/// What the steps know of the machine.
pub(crate) struct Context {
    pub(crate) workspace: Workspace,
    pub(crate) provided: Provided,
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// What of it all is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Chosen {
    /// One step; otherwise all of them.
    pub(crate) only: Option<&'static Step>,
    pub(crate) postgres: Missing,
}

impl Chosen {
    /// Reads what follows `test`.
    pub(crate) fn parse(mut arguments: &[&str]) -> Result<Self, String> {
        let mut chosen = Self::default();
        loop {
            arguments = match *arguments {
                [] => return Ok(chosen),
                ["--postgres", ref rest @ ..] => {
                    chosen.postgres = Missing::Install;
                    rest
                }
                ["--only"] | ["--only", "--postgres", ..] => {
                    return Err("--only needs the name of a step".to_owned());
                }
                ["--only", ..] if chosen.only.is_some() => return Err("--only is for one step".to_owned()),
                ["--only", name, ref rest @ ..] => {
                    let step = STEPS.iter().find(|step| step.name == name);
                    chosen.only = Some(step.ok_or_else(|| format!("there is no step `{name}`"))?);
                    rest
                }
                _ => return Err(format!("`test` does not know `{}`", arguments.join(" "))),
            }
        }
    }
}

/// As one types it.
impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cargo xtask test")?;
        if let Some(step) = self.only {
            write!(f, " --only {}", step.name)?;
        }
        f.write_str(if self.postgres == Missing::Install { " --postgres" } else { "" })
    }
}

/// Runs all steps, or one.
pub(crate) fn test(chosen: Chosen) -> ExitCode {
    let start = Instant::now();
    let steps: Vec<_> = STEPS.iter().filter(|step| chosen.only.is_none_or(|only| only == *step)).collect();
    let wants = |name: &str| steps.iter().any(|step| step.name == name);
    let prepared = Workspace::read().and_then(|workspace| {
        let provided = provide(&workspace, wants, chosen.postgres)?;
        Ok(Context { workspace, provided })
    });
    let context = match prepared {
        Ok(context) => context,
        Err(failure) => return give_up("preparation", &failure, chosen),
    };

    let mut rows = Vec::new();
    let mut failed = None;
    for (index, step) in steps.iter().enumerate() {
        let place = format!("{}/{}", index + 1, steps.len());
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
            failed = Some((*step, failure));
            break;
        }
    }

    println!("\n{}\n{}  in all", rows.join("\n"), stamp(start.elapsed()));
    for suite in &context.provided.skipped {
        println!("skipped: {suite}");
    }
    match failed {
        None => ExitCode::SUCCESS,
        Some((step, failure)) => give_up(step.name, &failure, Chosen { only: Some(step), ..chosen }),
    }
}

fn give_up(what: &str, failure: &Failure, again: Chosen) -> ExitCode {
    eprintln!("\n{what} failed: {}", failure.message);
    eprintln!("to see it again:   {again}");
    if let Some(command) = &failure.command {
        eprintln!("or the command:    {command}");
    }
    ExitCode::FAILURE
}

/// A time, in a column of its own.
fn stamp(time: Duration) -> String {
    format!("{:>7.1} s", time.as_secs_f64())
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
