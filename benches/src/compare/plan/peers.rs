//! Other libraries beside ours: receiving, publishing, queues. The cache of `cached` is among the experiments of the cache.

use super::commands::worked_off;
use super::receive::{CPU, FLOOD, LOST, PEAK, SPEED, values};
use super::{Experiment, Goal, Repeat, Row, Side, Unit, Values, When, row, side};
use crate::compare::process::Process;
use crate::compare::stage::{Stage, Tool, Under};
use crate::job::{Client, Failure, Form, Job, Layout, Logging, Pace, Peer, PeerJob, Report};

/// What Redis spends on each message, beside the quantities of a subscriber.
const SERVER: usize = 4;
/// The same beside those of a queue.
const QUEUE_SERVER: usize = 2;
/// How many messages one repetition has for who takes less than 10,000 in a second.
const TRICKLE: u64 = 40_000;
const PUBLISHERS: [(&str, u64, u64); 3] = [
    ("peer-publish-1", 1, 40_000),
    ("peer-publish-64", 64, 1_000_000),
    ("peer-publish-1024", 1_024, 2_000_000),
];

pub(super) fn experiments() -> Vec<Experiment> {
    let mut all = vec![receive()];
    all.extend(PUBLISHERS.map(publish));
    all.push(queue());
    all
}

fn experiment(name: &'static str, about: &'static str, sides: Vec<Side>, rows: Vec<Row>) -> Experiment {
    Experiment { name, about, repeat: Repeat::InTurn, needs: None, when: When::Compared, sides, rows }
}

/// Who receives beside ours.
struct Receiver {
    name: &'static str,
    needs: Option<Tool>,
    messages: u64,
    start: fn(&Stage, u16) -> Result<Process, Failure>,
    goal: Option<Goal>,
}

const RECEIVERS: [Receiver; 5] = [
    Receiver {
        name: "raw",
        needs: None,
        messages: FLOOD,
        start: |stage, port| subscriber(stage, Client::Raw, port),
        goal: None,
    },
    Receiver {
        name: "fred",
        needs: None,
        messages: FLOOD,
        start: |stage, port| stage.peer(&PeerJob::Subscribe { peer: Peer::Fred, port }),
        goal: None,
    },
    Receiver {
        name: "ruststream",
        needs: None,
        messages: FLOOD,
        start: |stage, port| stage.peer(&PeerJob::Subscribe { peer: Peer::RustStream, port }),
        goal: Some(Goal::at_least(1.5)),
    },
    Receiver {
        name: "node-redis",
        needs: Some(Tool::NodeRedis),
        messages: FLOOD,
        start: Stage::node_redis,
        goal: Some(Goal::at_least(2.0)),
    },
    Receiver {
        name: "FastStream",
        needs: Some(Tool::FastStream),
        messages: TRICKLE,
        start: Stage::faststream,
        goal: Some(Goal::at_least(100.0)),
    },
];

fn subscriber(stage: &Stage, client: Client, port: u16) -> Result<Process, Failure> {
    stage.measured(&Job::Subscribe { client, form: Form::Owned, port, logging: Logging::Off }, Under::Nothing)
}

fn receive() -> Experiment {
    let name = "peer-receive";
    let ours = |stage: &Stage| received(stage, FLOOD, |stage, port| subscriber(stage, Client::Ours, port));
    let mut sides = vec![side("ours", ours)];
    let mut rows = Vec::new();
    for Receiver { name: other, needs, messages, start, goal } in RECEIVERS {
        let both = (0, Some(sides.len()));
        let mut add = |what: &str, unit, quantity, sides, goal| {
            rows.push(row(format!("{name}: {what}"), unit, quantity, sides, goal));
        };
        add(&format!("ours vs {other}"), Unit::ThousandsPerSecond, SPEED, both, goal);
        add(&format!("ours vs {other}, processor time"), Unit::Nanoseconds, CPU, both, None);
        add(&format!("ours vs {other}, Redis's processor time"), Unit::Nanoseconds, SERVER, both, None);
        add(&format!("ours vs {other}, peak memory"), Unit::MebiBytes, PEAK, both, None);
        add(&format!("{other}, lost"), Unit::Messages, LOST, (sides.len(), None), None);
        sides.push(Side { needs, ..side(other, move |stage| received(stage, messages, start)) });
    }
    rows.push(row(format!("{name}: ours, lost"), Unit::Messages, LOST, (0, None), Some(Goal::bound(0.0))));
    experiment(name, "a flood from a real Redis, owned orders, beside other libraries", sides, rows)
}

fn received(
    stage: &Stage,
    messages: u64,
    start: impl FnOnce(&Stage, u16) -> Result<Process, Failure>,
) -> Values {
    let redis = stage.patient_redis();
    let (port, messages) = (redis.port(), stage.scale.of(messages));
    let mut subscriber = start(stage, port)?;
    subscriber.ready()?;
    let before = stage.cpu_seconds_of(redis);
    stage.beside(&Job::Publish { port, messages, pace: Pace::Flood })?.done()?;
    let report = subscriber.done()?;
    let server = (stage.cpu_seconds_of(redis) - before) / messages as f64 * 1e9;
    Ok([values(&report, messages), vec![server]].concat())
}

fn publish((name, in_flight, messages): (&'static str, u64, u64)) -> Experiment {
    let values = |report: Report| vec![report.thousands_per_second(), report.cpu_nanos()];
    let ours = move |stage: &Stage| {
        let (port, messages) = (stage.redis().port(), stage.scale.of(messages));
        Ok(values(stage.alone(&Job::Send { client: Client::Ours, port, in_flight, messages })?))
    };
    let other = move |peer| {
        move |stage: &Stage| {
            let (port, messages) = (stage.redis().port(), stage.scale.of(messages));
            Ok(values(stage.peer(&PeerJob::Send { peer, port, in_flight, messages })?.done()?))
        }
    };
    let sides = vec![
        side("ours", ours),
        side("fred", other(Peer::Fred)),
        side("ruststream", other(Peer::RustStream)),
    ];
    // Its best mode has many in flight.
    let goal = (in_flight == 1_024).then_some(Goal::at_least(1.7));
    let mut rows = Vec::new();
    for (place, goal) in [(1, None), (2, goal)] {
        let (sides, what) = ((0, Some(place)), format!("{name}: ours vs {}", sides[place].name));
        rows.push(row(what.clone(), Unit::ThousandsPerSecond, 0, sides, goal));
        rows.push(row(what + ", processor time", Unit::Nanoseconds, 1, sides, None));
    }
    experiment(name, "publishing without a subscriber, by so many tasks, beside other libraries", sides, rows)
}

fn queue() -> Experiment {
    let name = "peer-queue";
    let ours = |stage: &Stage| {
        worked_off(stage, Layout::Ours, |port, messages| {
            stage.measured(&Job::Queue { client: Client::Ours, port, messages }, Under::Nothing)
        })
    };
    let other = |peer, layout| {
        move |stage: &Stage| {
            worked_off(stage, layout, |port, messages| stage.peer(&PeerJob::Queue { peer, port, messages }))
        }
    };
    let sides = vec![
        side("ours", ours),
        side("ruststream", other(Peer::RustStream, Layout::RustStream)),
        side("sea-streamer", other(Peer::SeaStreamer, Layout::SeaStreamer)),
    ];
    let mut rows = Vec::new();
    for (place, goal) in [(1, Some(Goal::at_least(1.8))), (2, None)] {
        let (sides, what) = ((0, Some(place)), format!("{name}: ours vs {}", sides[place].name));
        rows.push(row(what.clone(), Unit::ThousandsPerSecond, 0, sides, goal));
        rows.push(row(format!("{what}, processor time"), Unit::Nanoseconds, 1, sides, None));
        rows.push(row(what + ", Redis's processor time", Unit::Nanoseconds, QUEUE_SERVER, sides, None));
    }
    experiment(name, "one group works a queue off, beside other libraries", sides, rows)
}
