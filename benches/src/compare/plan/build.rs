//! What it costs to build: the first program of a user, in `benches/hello`, beside the same with the `redis` crate and with
//! ruststream; and what handlers add to a `cargo check`.

use std::fmt::Write as _;

use super::{Experiment, Goal, Repeat, Row, Side, Unit, Values, When, row, side};
use crate::compare::hello::{Hello, Mode, Program};
use crate::compare::stage::{Stage, Tool};

/// The sides, in the order of [`PROGRAMS`].
const OURS: usize = 0;
const RAW: usize = 1;
const RUSTSTREAM: usize = 2;
const PROGRAMS: [Program; 3] = [Program::Ours, Program::Raw, Program::Ruststream];

/// The quantities.
const CLEAN: usize = 0;
const PROCESSOR: usize = 1;
const REBUILD: usize = 2;
const CRATES: usize = 3;
const SIZE: usize = 4;

/// How many handlers are added at a time.
const HANDLERS: usize = 100;

pub(super) fn experiments() -> Vec<Experiment> {
    vec![
        program("build", "a hello world: clean, and again when its one file has changed", Mode::Debug),
        program("build-release", "the same for release, and how large it is", Mode::Release),
        handlers(),
    ]
}

fn program(name: &'static str, about: &'static str, mode: Mode) -> Experiment {
    let of = |program| {
        let needs = (program == Program::Ruststream).then_some(Tool::Ruststream);
        let measure = move |stage: &Stage| -> Values {
            let hello = Hello::at(stage, program)?;
            let clean = hello.clean(mode)?;
            let mut values = vec![clean.seconds, clean.cpu_seconds, hello.rebuild(mode)?, hello.crates()?];
            if mode == Mode::Release {
                values.push(hello.mebibytes(mode)?);
            }
            Ok(values)
        };
        Side { needs, ..side(format!("{program:?}"), measure) }
    };
    let mut rows = Vec::new();
    for (other, whose) in [(RAW, "raw"), (RUSTSTREAM, "ruststream-fred")] {
        let mut add = |what: &str, unit, quantity, goal: Option<Goal>| {
            // There is no goal beside another library.
            let goal = goal.filter(|_| other == RAW);
            rows.push(row(format!("{name}: {what} vs {whose}"), unit, quantity, (OURS, Some(other)), goal));
        };
        let goal = Some(Goal::at_most(1.3).stretch(1.15)).filter(|_| mode == Mode::Debug);
        add("clean", Unit::Seconds, CLEAN, goal);
        add("clean, processor time", Unit::Seconds, PROCESSOR, goal);
        add("one file has changed", Unit::Seconds, REBUILD, None);
        match mode {
            Mode::Debug => add("dependencies", Unit::Crates, CRATES, None),
            Mode::Release => add("size", Unit::MebiBytes, SIZE, None),
        }
    }
    Experiment {
        name,
        about,
        repeat: Repeat::Seldom,
        needs: None,
        when: When::Named,
        sides: PROGRAMS.map(of).into(),
        rows,
    }
}

fn handlers() -> Experiment {
    let name = "build-handlers";
    // What so many more take, beyond those that are there.
    let more = |there: usize, line: fn(usize) -> String| {
        move |stage: &Stage| -> Values {
            let hello = Hello::at(stage, Program::Ours)?;
            let check = |count| hello.check(&source(count, line));
            let (before, after) = (check(there)?, check(there + HANDLERS)?);
            Ok(vec![(after - before) * 1e3])
        }
    };
    let subscribe = |number| format!("#[subscribe(\"numbered.{number}\")]");
    let sides = vec![
        side("the first 100", more(0, subscribe)),
        side("the second 100", more(HANDLERS, subscribe)),
        side("100 functions", more(0, |_| String::new())),
    ];
    let checked = |what: &str, sides, goal| -> Row {
        row(format!("{name}: {what}"), Unit::Milliseconds, 0, sides, goal)
    };
    Experiment {
        name,
        about: "what 100 handlers add to the processor time of a `cargo check`, beside 100 functions without the attribute",
        repeat: Repeat::InTurn,
        needs: None,
        when: When::Named,
        sides,
        rows: vec![
            checked("100 handlers vs 100 functions", (0, Some(2)), None),
            checked("the second 100 vs the first", (1, Some(0)), Some(Goal::grows_at_most(2.0, 10.0))),
        ],
    }
}

/// A program with so many functions, each with a line before it.
fn source(count: usize, line: fn(usize) -> String) -> String {
    let mut source = String::from(
        "#![allow(dead_code, unused_imports)]\nuse messaging_core::subscribe;\nuse serde::Deserialize;\n\n\
         #[derive(Deserialize)]\nstruct Order {\n    id: u64,\n    note: String,\n}\n\nfn main() {}\n",
    );
    for number in 0..count {
        let _ = write!(
            source,
            "\n{}\nasync fn handler_{number}(order: Order) -> Result<(), std::io::Error> {{\n    \
             println!(\"{{}} {{}}\", order.id, order.note);\n    Ok(())\n}}\n",
            line(number),
        );
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_so_many_handlers() {
        let source = source(3, |number| format!("#[subscribe(\"numbered.{number}\")]"));
        assert_eq!(source.matches("#[subscribe(\"numbered.").count(), 3);
        assert!(source.contains("async fn handler_2("));
    }
}
