//! The curves.

use super::{Check, Curve, Goal, Plot, Point, Quantity};
use crate::compare::plan::Unit;
use crate::compare::stage::{Stage, Under};
use crate::job::{Client, Failure, Gateway, Growth, Job, Report, Server, Spread, Turn};

/// How many messages one repetition has.
const MESSAGES: u64 = 400_000;
/// How many bytes they have together, where there are fewer of them because they are large.
const BYTES: u64 = 256 << 20;
const CALLS: u64 = 200_000;
/// How many milliseconds is delivered.
const MILLIS: u64 = 2_000;
/// For how many quarters of a second is published at a pace.
const PACED_QUARTERS: u64 = 8;
/// How much dearer one may be where there are many, by what it costs where there are few: caches miss more often, and the
/// machine is never quiet. From the second factor on it is a defect on any machine.
const PROCESSOR: Goal = Goal::grows_at_most(2.0, 10.0);
const ONCE: Goal = Goal::grows_at_most(2.0, 10.0);
const MEMORY: Goal = Goal::grows_at_most(1.5, 5.0);

pub(in crate::compare) fn all() -> Vec<Curve> {
    vec![handlers(), channels(), payload(), publishers(), pace(), keys(), clients()]
}

fn points<const N: usize>(points: [u64; N]) -> Vec<Point> {
    points.map(|at| Point { at, is_long: false }).into()
}

fn quantity(name: &'static str, unit: Unit) -> Quantity {
    Quantity { name, unit }
}

fn plot(title: &'static str, is_logarithmic: bool, lines: &[(usize, &'static str)]) -> Plot {
    Plot { title, is_logarithmic, lines: lines.to_vec() }
}

fn handlers() -> Curve {
    Curve {
        name: "growth-handlers",
        about: "handlers that are added at run time, a channel each, which messages are spread over",
        axis: "handlers",
        points: points([1, 10, 100, 1_000]),
        shown: counted,
        quantities: vec![
            quantity("speed", Unit::ThousandsPerSecond),
            quantity("processor time of a message", Unit::Nanoseconds),
            quantity("to add one", Unit::Microseconds),
            quantity("idle", Unit::KibiBytesEach),
        ],
        checks: vec![
            Check { quantity: 1, from: 1, goal: PROCESSOR },
            Check { quantity: 2, from: 10, goal: ONCE },
            Check { quantity: 3, from: 100, goal: MEMORY },
        ],
        plots: vec![
            plot("Processor time of a message", false, &[(1, "handlers")]),
            plot("Messages a second", false, &[(0, "handlers")]),
        ],
        measure: |stage, handlers| {
            let messages = stage.scale.of(MESSAGES);
            let port = stage.patient_redis().port();
            grown(stage, Growth::Handlers { port, handlers, messages }, handlers, messages)
        },
    }
}

fn channels() -> Curve {
    Curve {
        name: "growth-channels",
        about: "subscriptions in one process, a channel and a reading task each, which messages are spread over",
        axis: "channels",
        points: points([1, 100, 10_000, 100_000]),
        shown: counted,
        quantities: vec![
            quantity("speed", Unit::ThousandsPerSecond),
            quantity("processor time of a message", Unit::Nanoseconds),
            quantity("to subscribe one", Unit::Microseconds),
            quantity("idle", Unit::KibiBytesEach),
        ],
        checks: vec![
            Check { quantity: 1, from: 100, goal: PROCESSOR },
            Check { quantity: 2, from: 100, goal: ONCE },
            Check { quantity: 3, from: 100, goal: MEMORY },
        ],
        plots: vec![
            plot("Processor time of a message", false, &[(1, "channels")]),
            plot("To subscribe one, 256 at a time", true, &[(2, "channels")]),
        ],
        measure: |stage, channels| {
            // The first message of a channel makes room for others: what it costs is not what the next ones do.
            let messages = stage.scale.of(MESSAGES).max(5 * channels);
            let port = stage.patient_redis().port();
            grown(stage, Growth::Channels { port, channels, messages }, channels, messages)
        },
    }
}

/// Speed, processor time, what was done once for each, and memory of each.
fn grown(stage: &Stage, growth: Growth, count: u64, messages: u64) -> Result<Vec<f64>, Failure> {
    let port = stage.patient_redis().port();
    let report = spread(stage, growth, Spread { port, channels: count, messages, bytes: None })?;
    // The pages that one adds are fewer than what comes and goes beside it.
    let memory = if count < 100 { f64::NAN } else { report.kib_idle };
    let once = report.once_seconds / count as f64 * 1e6;
    Ok(vec![report.thousands_per_second(), report.cpu_nanos(), once, memory])
}

/// Runs who handles, and who publishes to it.
fn spread(stage: &Stage, growth: Growth, spread: Spread) -> Result<Report, Failure> {
    let mut handling = stage.measured(&Job::Grow(growth), Under::Nothing)?;
    handling.ready()?;
    stage.beside(&Job::Spread(spread))?.done()?;
    handling.done()
}

fn payload() -> Curve {
    Curve {
        name: "growth-payload",
        about: "one handler, which is given the text in payloads of so many bytes",
        axis: "payload",
        points: points([100, 1 << 10, 10 << 10, 100 << 10, 1 << 20]),
        shown: bytes,
        quantities: vec![
            quantity("speed", Unit::ThousandsPerSecond),
            quantity("speed", Unit::MegabytesPerSecond),
            quantity("processor time of a byte", Unit::Nanoseconds),
        ],
        checks: vec![Check { quantity: 2, from: 1 << 10, goal: PROCESSOR }],
        plots: vec![
            plot("Bytes a second", false, &[(1, "ours")]),
            plot("Processor time of a byte", true, &[(2, "ours")]),
        ],
        measure: |stage, bytes| {
            let port = stage.patient_redis().port();
            let messages = stage.scale.of(MESSAGES.min(BYTES / bytes));
            let growth = Growth::Payload { port, messages };
            let report = spread(stage, growth, Spread { port, channels: 1, messages, bytes: Some(bytes) })?;
            let size = bytes as f64;
            let megabytes = report.thousands_per_second() * size / 1e3;
            Ok(vec![report.thousands_per_second(), megabytes, report.cpu_nanos() / size])
        },
    }
}

/// Both sides: speed, and the two latencies of each.
fn both(stage: &Stage, messages: u64, turn: Turn) -> Result<Vec<f64>, Failure> {
    let port = stage.patient_redis().port();
    let mut values = Vec::new();
    for client in [Client::Ours, Client::Raw] {
        let report = stage.alone(&Job::Latency { client, port, turn, messages });
        match report {
            Ok(report) => {
                values.extend([report.thousands_per_second(), report.p50 * 1e6, report.p99 * 1e6]);
            }
            // More than it can do is more than it has to.
            Err(failure) if client == Client::Raw => {
                eprintln!("    raw: {failure}");
                values.extend([f64::NAN; 3]);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(values)
}

fn of_both() -> Vec<Quantity> {
    vec![
        quantity("speed", Unit::ThousandsPerSecond),
        quantity("p50", Unit::Microseconds),
        quantity("p99", Unit::Microseconds),
        quantity("speed of raw", Unit::ThousandsPerSecond),
        quantity("p50 of raw", Unit::Microseconds),
        quantity("p99 of raw", Unit::Microseconds),
    ]
}

fn latencies(title: &'static str) -> Plot {
    plot(title, true, &[(1, "ours, p50"), (2, "ours, p99"), (4, "raw, p50"), (5, "raw, p99")])
}

fn publishers() -> Curve {
    Curve {
        name: "growth-publishers",
        about: "callers in one process, each of which publishes when Redis has taken its message before; handled there too",
        axis: "publishers",
        points: points([1, 4, 16, 64]),
        shown: counted,
        quantities: of_both(),
        // Of so many at once each waits for the others: p50 grows with their number, and not faster.
        checks: vec![Check { quantity: 1, from: 1, goal: Goal::grows_at_most(64.0, 640.0) }],
        plots: vec![
            plot("Messages a second", false, &[(0, "ours"), (3, "raw")]),
            latencies("From publish to handler"),
        ],
        measure: |stage, publishers| {
            // One at a time is bound by waking up.
            let messages = stage.scale.of(if publishers < 16 { MESSAGES / 10 } else { MESSAGES / 2 });
            both(stage, messages, Turn::Callers(publishers))
        },
    }
}

fn pace() -> Curve {
    Curve {
        name: "growth-pace",
        about: "published at a pace and handled in the same process: latency by load",
        axis: "messages a second",
        points: points([1_000, 10_000, 50_000, 100_000, 200_000]),
        shown: counted,
        quantities: of_both(),
        checks: Vec::new(),
        plots: vec![
            latencies("From publish to handler"),
            plot("Messages a second, reached", true, &[(0, "ours"), (3, "raw")]),
        ],
        measure: |stage, rate| both(stage, rate * stage.scale.of(PACED_QUARTERS) / 4, Turn::PerSecond(rate)),
    }
}

fn keys() -> Curve {
    let mut points = points([10, 1_000, 100_000, 1_000_000]);
    // Storing and removing a million takes a quarter of a minute.
    points[3].is_long = true;
    Curve {
        name: "growth-keys",
        about: "cached keys of one function: hits by 8 tasks, then `invalidate_all`",
        axis: "keys",
        points,
        shown: counted,
        quantities: vec![
            quantity("processor time of a hit", Unit::Nanoseconds),
            quantity("to remove all", Unit::Milliseconds),
            quantity("to remove one", Unit::Microseconds),
        ],
        checks: vec![
            Check { quantity: 0, from: 10, goal: PROCESSOR },
            Check { quantity: 2, from: 1_000, goal: ONCE },
        ],
        plots: vec![
            plot("Processor time of a hit", false, &[(0, "hits")]),
            plot("To remove all of them", true, &[(1, "invalidate_all")]),
        ],
        measure: |stage, keys| {
            let (port, calls) = (stage.redis().port(), stage.scale.of(CALLS));
            let report = stage.alone(&Job::Grow(Growth::Keys { port, keys, calls }))?;
            let millis = report.once_seconds * 1e3;
            Ok(vec![report.cpu_nanos(), millis, millis / keys as f64 * 1e3])
        },
    }
}

fn clients() -> Curve {
    let mut points = points([1, 100, 1_000, 10_000]);
    // Connecting them all and watching them do nothing takes a quarter of a minute.
    points[3].is_long = true;
    Curve {
        name: "growth-clients",
        about: "clients of the gateway on one channel: lone messages to all of them, and nothing to do",
        axis: "clients",
        points,
        shown: counted,
        quantities: vec![
            quantity("deliveries", Unit::ThousandsPerSecond),
            quantity("processor time of a delivery", Unit::Nanoseconds),
            quantity("idle", Unit::KibiBytesEach),
        ],
        checks: vec![
            Check { quantity: 1, from: 100, goal: PROCESSOR },
            Check { quantity: 2, from: 1_000, goal: MEMORY },
        ],
        plots: vec![
            plot("Processor time of a delivery", true, &[(1, "lone messages")]),
            plot("Deliveries a second", false, &[(0, "lone messages")]),
        ],
        measure: |stage, clients| {
            let millis = stage.scale.of(MILLIS);
            let delivered = gateway(stage, |gateway| Job::Deliver { gateway, clients, together: 1, millis })?;
            let idle = match clients {
                ..100 => f64::NAN,
                _ => gateway(stage, |gateway| Job::Idle { gateway, clients })?.kib_idle,
            };
            Ok(vec![delivered.thousands_per_second(), delivered.cpu_nanos(), idle])
        },
    }
}

/// What is measured of our gateway, which is started for it. Nothing may be lost.
fn gateway(stage: &Stage, job: impl Fn(Gateway) -> Job) -> Result<Report, Failure> {
    let mut process = stage.gateway(Server::Ours)?;
    let (port, redis) = (process.ready()?, stage.redis().port());
    let report = stage.crowd(&job(Gateway { server: Server::Ours, port, process: process.id(), redis }))?;
    match report.lost {
        0 => Ok(report),
        lost => Err(format!("{lost} deliveries were lost").into()),
    }
}

/// 1,000 is `1 k`: what is on an axis has to be short.
fn counted(count: u64) -> String {
    match count {
        1_000_000.. => format!("{} M", count / 1_000_000),
        1_000.. => format!("{} k", count / 1_000),
        _ => count.to_string(),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        0x400.. => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_short() {
        assert_eq!([10, 1_000, 200_000, 1_000_000].map(counted), ["10", "1 k", "200 k", "1 M"]);
        assert_eq!([100, 10 << 10, 1 << 20].map(bytes), ["100 B", "10 KiB", "1 MiB"]);
    }
}
