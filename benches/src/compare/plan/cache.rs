//! The cache: hits in Redis, hits in the process, loads; and hits with other libraries.

use super::{Experiment, Goal, Repeat, Row, Side, Unit, When, both, counted, marginal, row, side};
use crate::compare::stage::{Stage, Tool, Under};
use crate::job::{Failure, Job, Kept, Peer, PeerJob, Report, Store};
use crate::sides::local::KEYS;

struct Readers {
    name: &'static str,
    /// The name where other libraries join in.
    peer: &'static str,
    in_flight: u64,
    calls: u64,
    goal: Goal,
}

const READERS: [Readers; 3] = [
    Readers {
        name: "cache-1",
        peer: "peer-cache-1",
        in_flight: 1,
        calls: 40_000,
        goal: Goal::at_least(0.95),
    },
    Readers {
        name: "cache-64",
        peer: "peer-cache-64",
        in_flight: 64,
        calls: 600_000,
        goal: Goal::at_least(1.0).stretch(1.2),
    },
    Readers {
        name: "cache-1024",
        peer: "peer-cache-1024",
        in_flight: 1_024,
        calls: 1_000_000,
        goal: Goal::at_least(1.0).stretch(1.9),
    },
];
const LOADERS: [(&str, u64, u64); 2] = [("load-1", 1, 10_000), ("load-64", 64, 200_000)];
/// How often all the values in the process are asked for.
const LOCAL: u64 = 10_000;
const ALLOCATING: u64 = 50;
const INSTRUCTED: u64 = 40;
const STORES: [Store; 3] = [Store::Ours, Store::QuickCache, Store::Moka];

pub(super) fn experiments() -> Vec<Experiment> {
    let mut all: Vec<Experiment> = READERS.iter().map(hits).collect();
    all.extend(LOADERS.map(loads));
    all.push(local(
        "local",
        "hits in the process",
        Repeat::InTurn,
        Unit::Nanoseconds,
        |stage, store, kept| {
            let rounds = stage.scale.of(LOCAL);
            Ok(stage.alone(&local_hits(stage, store, kept, rounds))?.nanos())
        },
    ));
    all.push(local(
        "local-allocations",
        "allocations of a hit in the process",
        Repeat::Once,
        Unit::EachHit,
        |stage, store, kept| {
            let allocated = marginal(ALLOCATING, |rounds| {
                let job = local_hits(stage, store, kept, rounds);
                counted(stage.measured(&job, Under::Counting)?.done()?.allocations)
            })?;
            // What the process does beside the hits may differ by one or two.
            Ok((allocated / KEYS as f64).max(0.0))
        },
    ));
    let mut instructions = local(
        "local-instructions",
        "instructions of a hit in the process",
        Repeat::Once,
        Unit::EachHit,
        |stage, store, kept| {
            let executed =
                marginal(INSTRUCTED, |rounds| stage.instructions(&local_hits(stage, store, kept, rounds)))?;
            Ok((executed / KEYS as f64).round())
        },
    );
    instructions.needs = Some(Tool::Valgrind);
    all.push(instructions);
    all.extend(READERS.iter().map(peer));
    all
}

fn values(report: &Report) -> Vec<f64> {
    vec![report.thousands_per_second(), report.cpu_nanos()]
}

fn hits(readers: &'static Readers) -> Experiment {
    let &Readers { name, in_flight, calls, goal, .. } = readers;
    let job = move |client, stage: &Stage| Job::Hits {
        client,
        port: stage.redis().port(),
        in_flight,
        calls: stage.scale.of(calls),
    };
    let mut experiment = both(name, "cache hits in Redis, by so many tasks", values, job);
    let named = |what| format!("{name}: {in_flight} in flight{what} vs raw");
    experiment.rows = vec![
        row(named(""), Unit::ThousandsPerSecond, 0, (0, Some(1)), Some(goal)),
        row(named(", processor time"), Unit::Nanoseconds, 1, (0, Some(1)), None),
    ];
    experiment
}

fn loads((name, in_flight, calls): (&'static str, u64, u64)) -> Experiment {
    let job = move |client, stage: &Stage| Job::Loads {
        client,
        port: stage.redis().port(),
        in_flight,
        calls: stage.scale.of(calls),
    };
    let about = "calls that find nothing cached, make a value and store it, by so many tasks";
    let mut experiment = both(name, about, values, job);
    let named = |what| format!("{name}: {in_flight} in flight{what} vs raw, no lease");
    experiment.rows = vec![
        row(named(""), Unit::ThousandsPerSecond, 0, (0, Some(1)), None),
        row(named(", processor time"), Unit::Nanoseconds, 1, (0, Some(1)), None),
    ];
    experiment
}

fn local_hits(stage: &Stage, store: Store, kept: Kept, rounds: u64) -> Job {
    Job::LocalHits { store, kept, port: stage.redis().port(), rounds }
}

/// One quantity of a hit in the process.
fn local(
    name: &'static str,
    about: &'static str,
    repeat: Repeat,
    unit: Unit,
    measure: fn(&Stage, Store, Kept) -> Result<f64, Failure>,
) -> Experiment {
    let (mut sides, mut rows): (Vec<Side>, Vec<Row>) = Default::default();
    for kept in [Kept::Shared, Kept::Owned] {
        let first = sides.len();
        for store in STORES {
            sides.push(side(format!("{store}, {kept}"), move |stage| Ok(vec![measure(stage, store, kept)?])));
        }
        // To copy the texts of what is owned is not the cache's time.
        let goal = (unit == Unit::Nanoseconds && kept == Kept::Shared)
            .then_some(Goal::median_at_most(120.0).stretch(60.0));
        for (place, other) in STORES.iter().enumerate().skip(1) {
            let what = format!("{name}: {kept}, {} vs {other}", STORES[0]);
            rows.push(row(what, unit, 0, (first, Some(first + place)), goal));
        }
    }
    Experiment { name, about, repeat, needs: None, when: When::Always, sides, rows }
}

/// Hits in Redis with other libraries, beside ours and raw.
fn peer(readers: &'static Readers) -> Experiment {
    let mut experiment = hits(readers);
    let &Readers { peer: name, in_flight, calls, .. } = readers;
    experiment.name = name;
    experiment.about = "cache hits in Redis, by so many tasks, beside other libraries";
    experiment.when = When::Compared;
    experiment.rows.clear();
    for (other, peer) in [("cached", Peer::Cached), ("fred", Peer::Fred)] {
        let place = experiment.sides.len();
        experiment.sides.push(side(other, move |stage| {
            let (port, calls) = (stage.redis().port(), stage.scale.of(calls));
            Ok(values(&stage.peer(&PeerJob::Hits { peer, port, in_flight, calls })?.done()?))
        }));
        for (side, one) in ["ours", "raw"].into_iter().enumerate() {
            let (sides, what) = ((side, Some(place)), format!("{name}: {one} vs {other}"));
            experiment.rows.push(row(what.clone(), Unit::ThousandsPerSecond, 0, sides, None));
            experiment.rows.push(row(what + ", processor time", Unit::Nanoseconds, 1, sides, None));
        }
    }
    experiment
}
