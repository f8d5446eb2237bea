//! What is measured: the experiments, their sides, and the rows that come of them.

mod build;
mod cache;
mod commands;
mod gateway;
mod peers;
mod receive;
mod resources;
mod sql;

use std::fmt;

use super::goal::Goal;
use super::stage::{Stage, Tool};
use crate::job::{Client, Failure, Job, Report};

/// A value for each quantity of a side.
type Values = Result<Vec<f64>, Failure>;

/// Sides that are measured in turn.
pub(super) struct Experiment {
    /// What it is chosen by.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) repeat: Repeat,
    pub(super) needs: Option<Tool>,
    pub(super) when: When,
    pub(super) sides: Vec<Side>,
    pub(super) rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// ABAB…: what the machine does meanwhile hits all sides.
    InTurn,
    /// The same three times, and once in a quick run: it takes minutes.
    Seldom,
    /// It comes out the same each time.
    Once,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// For who compares, or names it: it needs what has to be built first.
    Compared,
    /// For who names it: it takes long.
    Named,
}

/// One side: the values of its quantities, measured once.
pub(super) struct Side {
    pub(super) name: String,
    /// Without it, the rows of this side are left out, and those of the others are not.
    pub(super) needs: Option<Tool>,
    pub(super) measure: Box<dyn Fn(&Stage) -> Values>,
}

/// A line of the table: one quantity of our side, and of another.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) quantity: usize,
    pub(super) ours: usize,
    pub(super) other: Option<usize>,
    pub(super) goal: Option<Goal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    ThousandsPerSecond,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    MegabytesPerSecond,
    MebiBytes,
    KibiBytesEach,
    Crates,
    Percent,
    Messages,
    EachMessage,
    EachHit,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThousandsPerSecond => "k/s",
            Self::Nanoseconds => "ns",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::MegabytesPerSecond => "MB/s",
            Self::MebiBytes => "MiB",
            Self::KibiBytesEach => "KiB each",
            Self::Crates => "crates",
            Self::Percent => "%",
            Self::Messages => "messages",
            Self::EachMessage => "per message",
            Self::EachHit => "per hit",
        })
    }
}

/// All of them, in the order of a full run.
pub(super) fn all() -> Vec<Experiment> {
    let mut all = receive::experiments();
    all.extend(commands::experiments());
    all.extend(cache::experiments());
    all.extend(sql::experiments());
    all.extend(gateway::experiments());
    all.extend(resources::experiments());
    all.extend(peers::experiments());
    all.extend(build::experiments());
    all
}

fn side(name: impl Into<String>, measure: impl Fn(&Stage) -> Values + 'static) -> Side {
    Side { name: name.into(), needs: None, measure: Box::new(measure) }
}

fn row(
    name: impl Into<String>,
    unit: Unit,
    quantity: usize,
    (ours, other): (usize, Option<usize>),
    goal: Option<Goal>,
) -> Row {
    Row { name: name.into(), unit, quantity, ours, other, goal }
}

/// Our side and raw, as one job each.
fn both(
    name: &'static str,
    about: &'static str,
    values: fn(&Report) -> Vec<f64>,
    job: impl Fn(Client, &Stage) -> Job + Copy + 'static,
) -> Experiment {
    let measure =
        move |client| move |stage: &Stage| -> Values { Ok(values(&stage.alone(&job(client, stage))?)) };
    let sides = vec![side("ours", measure(Client::Ours)), side("raw", measure(Client::Raw))];
    Experiment {
        name,
        about,
        repeat: Repeat::InTurn,
        needs: None,
        when: When::Always,
        sides,
        rows: Vec::new(),
    }
}

/// What `count` more of them cost, each.
fn marginal(count: u64, cost: impl Fn(u64) -> Result<f64, Failure>) -> Result<f64, Failure> {
    Ok((cost(2 * count)? - cost(count)?) / count as f64)
}

fn counted(allocations: Option<u64>) -> Result<f64, Failure> {
    allocations.map(|count| count as f64).ok_or_else(|| "the allocations were not counted".into())
}

impl Report {
    pub(super) fn thousands_per_second(&self) -> f64 {
        self.count as f64 / self.seconds / 1e3
    }

    fn nanos(&self) -> f64 {
        self.seconds / self.count as f64 * 1e9
    }

    /// Processor time for each message.
    pub(super) fn cpu_nanos(&self) -> f64 {
        self.cpu_seconds.map_or(f64::NAN, |seconds| seconds / self.count as f64 * 1e9)
    }

    /// How much of the time the processor had something to do, in percent.
    fn busy(&self) -> f64 {
        self.cpu_seconds.map_or(f64::NAN, |seconds| seconds / self.seconds * 100.0)
    }
}
