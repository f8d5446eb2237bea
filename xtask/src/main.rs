//! `cargo xtask`: what a change has to pass, in one command. Reads the command line; the commands are modules.
//!
//! It needs Rust and nothing else: what the tests need beyond that, it finds or installs under `target/`.
#![allow(clippy::print_stdout, reason = "a command-line tool speaks on standard output")]
#![allow(clippy::print_stderr, reason = "and complains on standard error")]

mod bench;
mod chromium;
mod command;
mod duplicates;
mod faults;
mod features;
mod msrv;
mod node;
mod packages;
mod postgres;
mod provide;
mod python;
mod redis;
mod steps;
mod web;
mod workspace;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match Request::parse(&arguments) {
        Ok(Request::Help) => {
            println!("{}", help());
            ExitCode::SUCCESS
        }
        Ok(Request::Test(chosen)) => steps::test(chosen),
        Ok(Request::Faults) => faults::run(),
        Ok(Request::Bench { arguments }) => bench::bench(&arguments),
        Err(mistake) => {
            eprintln!("{mistake}\n\n{}", help());
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Request<'a> {
    Help,
    Test(steps::Chosen),
    Faults,
    /// What follows `bench` is for the comparison to read.
    Bench {
        arguments: Vec<&'a str>,
    },
}

impl<'a> Request<'a> {
    fn parse(arguments: &[&'a str]) -> Result<Self, String> {
        match *arguments {
            [] => Ok(Self::Help),
            ["bench", ref rest @ ..] => Ok(Self::Bench { arguments: rest.to_vec() }),
            _ if arguments.iter().any(|argument| matches!(*argument, "-h" | "--help" | "help")) => {
                Ok(Self::Help)
            }
            ["test", ref rest @ ..] => steps::Chosen::parse(rest).map(Self::Test),
            ["faults"] => Ok(Self::Faults),
            ["faults", ref rest @ ..] => Err(format!("`faults` does not know `{}`", rest.join(" "))),
            [command, ..] => Err(format!("there is no command `{command}`")),
        }
    }
}

fn help() -> String {
    let steps: String =
        steps::STEPS.iter().map(|step| format!("\n    {:<12}{}", step.name, step.what)).collect();
    format!(
        "\
cargo xtask <command>

  test                  everything that a change has to pass, stopping at the first failure
  test --only <step>    one step of it:{steps}
  test --postgres       the same, with PostgreSQL installed where none is found (as root on Debian)
  faults                what docs/reliability.md promises, tried out on a real server; takes minutes
  bench                 what messaging costs, against the `redis` crate used by hand; `bench --help` says more

Environment
    REDIS_SERVER_BIN        the redis-server to test with; otherwise it is found or installed
    MESSAGING_TEST_PYTHON   a Python with redis-py, websockets, sseclient-py and
                            kubernetes-validate to test with; otherwise target/python is made
    MESSAGING_TEST_POSTGRES a directory with PostgreSQL's initdb, postgres and psql to test with; otherwise it is found
    MESSAGING_TEST_CHROMIUM a Chromium to test with; otherwise it is found. Node.js, from 20 on, is found too; its packages are installed
    CI=true                 a suite that cannot run is a failure, not a skip"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Missing;
    use crate::steps::Chosen;

    /// Parses a command line, written as words.
    fn parse(line: &str) -> Result<Request<'_>, String> {
        Request::parse(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn command_lines() {
        assert_eq!(parse(""), Ok(Request::Help));
        assert_eq!(parse("--help"), Ok(Request::Help));
        assert_eq!(parse("test -h"), Ok(Request::Help));
        let (fmt, plain) = (steps::STEPS.first(), Chosen::default());
        let installing = Chosen { postgres: Missing::Install, ..plain };
        assert_eq!(parse("test"), Ok(Request::Test(plain)));
        assert_eq!(parse("test --only fmt"), Ok(Request::Test(Chosen { only: fmt, ..plain })));
        assert_eq!(parse("test --postgres"), Ok(Request::Test(installing)));
        let both = Ok(Request::Test(Chosen { only: fmt, ..installing }));
        assert_eq!(parse("test --postgres --only fmt"), both);
        assert_eq!(parse("test --only fmt --postgres"), both);
        assert_eq!(parse("test --only"), Err("--only needs the name of a step".to_owned()));
        assert_eq!(parse("test --only --postgres"), Err("--only needs the name of a step".to_owned()));
        assert_eq!(parse("test --only fmt --only doc"), Err("--only is for one step".to_owned()));
        assert_eq!(parse("test --only tset"), Err("there is no step `tset`".to_owned()));
        assert_eq!(parse("test --fast now"), Err("`test` does not know `--fast now`".to_owned()));
        assert_eq!(parse("test --postgres now"), Err("`test` does not know `now`".to_owned()));
        assert_eq!(parse("faults"), Ok(Request::Faults));
        assert_eq!(parse("faults now"), Err("`faults` does not know `now`".to_owned()));
        let arguments = vec!["--quick", "latency"];
        assert_eq!(parse("bench --quick latency"), Ok(Request::Bench { arguments }));
        assert_eq!(parse("tset"), Err("there is no command `tset`".to_owned()));
    }

    #[test]
    fn the_help_names_every_step() {
        let help = help();
        assert!(steps::STEPS.iter().all(|step| help.contains(step.name) && help.contains(step.what)));
    }
}
