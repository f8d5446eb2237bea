//! The comparison: runs the sides in turn, each in a process of its own, and prints what came of it.

mod curve;
mod database;
mod figures;
mod goal;
mod hello;
mod plan;
mod plot;
mod process;
mod record;
mod request;
mod stage;
mod table;
mod versions;

use std::collections::BTreeMap;

use crate::job::Failure;
use curve::Curve;
use figures::Figures;
use plan::{Experiment, Repeat, Unit, When};
use record::{Recorded, Run};
use request::Request;
use stage::{Scale, Stage};
use table::Verdict;

/// Does what the command line asks for. `Ok(false)` if a bound that does not depend on the machine's speed is broken.
pub(crate) fn main(arguments: &[&str]) -> Result<bool, Failure> {
    let request = Request::parse(arguments)?;
    let chosen: Vec<Experiment> =
        plan::all().into_iter().filter(|it| request.wants(it.name, it.when)).collect();
    let curves: Vec<Curve> =
        curve::all().into_iter().filter(|it| request.wants(it.name, When::Named)).collect();
    if request.help || (chosen.is_empty() && curves.is_empty()) {
        println!("{}{}", request::help(&plan::all()), curve::help());
        return if request.help { Ok(true) } else { Err("no experiment has such a name".into()) };
    }
    if request.plots.is_some() && curves.is_empty() {
        return Err("`--plots` draws how cost grows, and nothing of that is named".into());
    }
    let stage = Stage::set(request.scale)?;
    println!("{}", stage.placing());
    if !chosen.is_empty() {
        println!("\n{}", table::heading());
    }
    let mut report = Run { quick: request.scale == Scale::Quick, ..Run::default() };
    let mut broken = Vec::new();
    for experiment in chosen {
        match run(&experiment, &stage, &mut report) {
            Ok(names) => broken.extend(names),
            Err(failure) => {
                eprintln!("{}: {failure}", experiment.name);
                broken.push(format!("{} (it could not be measured)", experiment.name));
            }
        }
    }
    for curve in curves {
        match curve::run(&curve, &stage, &mut report, request.plots.as_deref()) {
            Ok(names) => broken.extend(names),
            Err(failure) => {
                eprintln!("{}: {failure}", curve.name);
                broken.push(format!("{} (it could not be measured)", curve.name));
            }
        }
    }
    report.machine = stage.machine();
    report.peers = stage.peers();
    println!("\n{}", report.machine);
    if !report.peers.is_empty() {
        println!("peers: {}", report.peers.join(", "));
    }
    if let Some(path) = &request.json {
        report.write(path)?;
    }
    let figures = report.rows.iter().filter(|line| is_recorded(&line.unit));
    let figures: BTreeMap<_, _> = figures.map(|line| (line.full_name(), line.ours.spread.max)).collect();
    let rustc = stage::rustc();
    if request.record {
        Recorded::record(&rustc, figures)?;
    } else {
        let recorded = Recorded::read(&rustc)?;
        broken.extend(figures.iter().filter_map(|(name, value)| recorded.grown(name, *value)));
    }
    if !broken.is_empty() {
        println!("broken: {}", broken.join("; "));
    }
    Ok(broken.is_empty())
}

/// Whether a figure is recorded: it comes out the same on any machine.
fn is_recorded(unit: &str) -> bool {
    [Unit::EachMessage, Unit::EachHit].iter().any(|recorded| recorded.to_string() == unit)
}

/// Measures one experiment and prints its rows; returns the names of those that are broken.
fn run(experiment: &Experiment, stage: &Stage, report: &mut Run) -> Result<Vec<String>, Failure> {
    // What must hold everywhere has to be looked at somewhere.
    let required = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    if let Some(missing) = experiment.needs.and_then(|tool| stage.lacks(tool)) {
        println!("{}", table::skipped(experiment.name, missing));
        return Ok(if required { vec![format!("{} ({missing})", experiment.name)] } else { Vec::new() });
    }
    let repetitions = match experiment.repeat {
        Repeat::InTurn => stage.scale.repetitions(),
        Repeat::Seldom if stage.scale == Scale::Full => 3,
        Repeat::Seldom => 1,
        Repeat::Once => 1,
    };
    let lacking: Vec<Option<&str>> =
        experiment.sides.iter().map(|side| side.needs.and_then(|tool| stage.lacks(tool))).collect();
    let mut figures: Vec<Figures> = experiment.sides.iter().map(|_| Figures::default()).collect();
    for repetition in 1..=repetitions {
        eprintln!("  {} {repetition}/{repetitions}", experiment.name);
        for ((side, figures), lacking) in experiment.sides.iter().zip(&mut figures).zip(&lacking) {
            if lacking.is_some() {
                continue;
            }
            figures.add((side.measure)(stage).map_err(|failure| format!("{}: {failure}", side.name))?);
        }
    }
    let mut broken = Vec::new();
    for row in &experiment.rows {
        let sides = [Some(row.ours), row.other];
        if let Some(missing) = sides.into_iter().flatten().find_map(|side| lacking[side]) {
            println!("{}", table::skipped(&row.name, missing));
            if required {
                broken.push(format!("{} ({missing})", row.name));
            }
            continue;
        }
        let Some((line, verdict, record)) = table::row(row, &figures) else {
            println!("{}", table::skipped(&row.name, "not measured"));
            continue;
        };
        println!("{line}");
        report.rows.push(record);
        if verdict == Verdict::Broken {
            broken.push(row.name.clone());
        }
    }
    Ok(broken)
}
