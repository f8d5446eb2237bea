//! Commands and round trips: publishing, the way from publisher to handler, queues, dispatch in memory.

use super::{Experiment, Goal, Repeat, Unit, Values, When, both, row, side};
use crate::compare::process::Process;
use crate::compare::stage::{Stage, Under};
use crate::job::{Client, Failure, GROUP, Job, Layout, Report, Turn};

const PUBLISHERS: [(&str, u64, u64, Goal); 3] = [
    ("publish-1", 1, 40_000, Goal::at_least(0.95)),
    ("publish-64", 64, 1_000_000, Goal::at_least(1.0)),
    ("publish-1024", 1_024, 2_000_000, Goal::at_least(1.2).stretch(1.9)),
];
const QUEUED: u64 = 400_000;
const DISPATCHED: u64 = 2_000_000;

pub(super) fn experiments() -> Vec<Experiment> {
    let mut all: Vec<Experiment> = PUBLISHERS.map(publish).into();
    all.push(latency("latency-one", "publish to handler, one message in flight", Turn::OneInFlight, 20_000));
    all.push(latency(
        "latency-paced",
        "the same at 10,000 messages a second",
        Turn::PerSecond(10_000),
        40_000,
    ));
    all.push(queue());
    all.push(dispatch());
    all
}

fn publish((name, in_flight, messages, goal): (&'static str, u64, u64, Goal)) -> Experiment {
    let job = move |client, stage: &Stage| Job::Send {
        client,
        port: stage.redis().port(),
        in_flight,
        messages: stage.scale.of(messages),
    };
    let about = "publishing without a subscriber, by so many tasks";
    let values = |report: &Report| vec![report.thousands_per_second(), report.cpu_nanos()];
    let mut experiment = both(name, about, values, job);
    let named = |what| format!("{name}: {in_flight} in flight{what} vs raw");
    experiment.rows = vec![
        row(named(""), Unit::ThousandsPerSecond, 0, (0, Some(1)), Some(goal)),
        row(named(", processor time"), Unit::Nanoseconds, 1, (0, Some(1)), None),
    ];
    experiment
}

fn latency(name: &'static str, about: &'static str, turn: Turn, messages: u64) -> Experiment {
    let job = move |client, stage: &Stage| Job::Latency {
        client,
        port: stage.redis().port(),
        turn,
        messages: stage.scale.of(messages),
    };
    let values = |report: &Report| vec![report.p50 * 1e6, report.p99 * 1e6];
    let mut experiment = both(name, about, values, job);
    let goal = Some(Goal::at_most(1.1));
    experiment.rows = vec![
        row(format!("{name}: p50 vs raw"), Unit::Microseconds, 0, (0, Some(1)), goal),
        row(format!("{name}: p99 vs raw"), Unit::Microseconds, 1, (0, Some(1)), goal),
    ];
    experiment
}

fn queue() -> Experiment {
    let measure = |client| {
        move |stage: &Stage| {
            worked_off(stage, Layout::Ours, |port, messages| {
                stage.measured(&Job::Queue { client, port, messages }, Under::Nothing)
            })
        }
    };
    Experiment {
        name: "queue",
        about: "one group works a queue off: read, decode, handle, acknowledge",
        repeat: Repeat::InTurn,
        needs: None,
        when: When::Always,
        sides: vec![side("ours", measure(Client::Ours)), side("raw", measure(Client::Raw))],
        rows: vec![
            row(
                "queue: vs raw",
                Unit::ThousandsPerSecond,
                0,
                (0, Some(1)),
                Some(Goal::at_least(1.6).stretch(2.5)),
            ),
            row("queue: processor time vs raw", Unit::Nanoseconds, 1, (0, Some(1)), None),
        ],
    }
}

/// Fills a stream and has it worked off by who is started: messages a second, processor time for each, and that of Redis.
pub(super) fn worked_off(
    stage: &Stage,
    layout: Layout,
    start: impl FnOnce(u16, u64) -> Result<Process, Failure>,
) -> Values {
    let redis = stage.redis();
    let (port, messages) = (redis.port(), stage.scale.of(QUEUED));
    stage.beside(&Job::Fill { layout, port, messages })?.done()?;
    let before = stage.cpu_seconds_of(redis);
    let report = start(port, messages)?.done()?;
    let server = (stage.cpu_seconds_of(redis) - before) / messages as f64 * 1e9;
    let pending = redis.cli(&["XPENDING", layout.key(), GROUP]);
    match pending.lines().next() {
        Some("0") => Ok(vec![report.thousands_per_second(), report.cpu_nanos(), server]),
        pending => Err(format!("not acknowledged: {}", pending.unwrap_or_default()).into()),
    }
}

fn dispatch() -> Experiment {
    let measure = |stage: &Stage| {
        let report = stage.alone(&Job::Dispatch { messages: stage.scale.of(DISPATCHED) })?;
        Ok(vec![report.nanos()])
    };
    Experiment {
        name: "dispatch",
        about: "publish to handler on `memory://`, payload of a few bytes",
        repeat: Repeat::InTurn,
        needs: None,
        when: When::Always,
        sides: vec![side("ours", measure)],
        rows: vec![row("dispatch: memory://, a message", Unit::Nanoseconds, 0, (0, None), None)],
    }
}
