//! Gateways: one channel and many clients. Ours, a broadcaster that is written by hand, and Socket.IO.

use super::{Experiment, Goal, Repeat, Side, Unit, Values, When, row, side};
use crate::compare::stage::{Stage, Tool};
use crate::job::{Failure, Gateway, Job, Report, Server};

/// The sides, in the order of [`SERVERS`].
const OURS: usize = 0;
const NAIVE: usize = 1;
const SOCKETIO: usize = 2;
const SERVERS: [Server; 3] = [Server::Ours, Server::Naive, Server::SocketIo];

/// The quantities of deliveries.
const SPEED: usize = 0;
const CPU: usize = 1;
const BUSY: usize = 2;
const LOST: usize = 3;

/// How many milliseconds one repetition takes.
const MILLIS: u64 = 2_000;
/// Subscriptions, and the filters that they are spread over.
const FILTERED: u64 = 10_000;
const FILTERS: u64 = 100;
/// How many events they are told.
const EVENTS: u64 = 20_000;
/// How many connections have nothing to do.
const IDLE: u64 = 10_000;

struct Broadcast {
    name: &'static str,
    about: &'static str,
    clients: u64,
    /// How many messages are published at once.
    together: u64,
    naive: Goal,
    socketio: Option<Goal>,
}

const BROADCASTS: [Broadcast; 4] = [
    Broadcast {
        name: "gateway-lone-500",
        about: "one message to 500 clients, and the next when all have it",
        clients: 500,
        together: 1,
        naive: Goal::at_least(1.1).stretch(1.3),
        socketio: None,
    },
    Broadcast {
        name: "gateway-lone-2000",
        about: "the same with 2,000 clients",
        clients: 2_000,
        together: 1,
        naive: Goal::at_least(1.4).stretch(2.2),
        socketio: None,
    },
    Broadcast {
        name: "gateway-backlog-500",
        about: "20 messages at once to 500 clients",
        clients: 500,
        together: 20,
        naive: Goal::at_least(10.0).stretch(25.0),
        socketio: Some(Goal::at_least(15.0)),
    },
    Broadcast {
        name: "gateway-backlog-2000",
        about: "the same with 2,000 clients",
        clients: 2_000,
        together: 20,
        naive: Goal::at_least(10.0).stretch(25.0),
        socketio: Some(Goal::at_least(15.0)),
    },
];

pub(super) fn experiments() -> Vec<Experiment> {
    let mut all: Vec<Experiment> = BROADCASTS.iter().map(broadcast).collect();
    all.push(filters());
    all.push(idle());
    all
}

fn broadcast(broadcast: &'static Broadcast) -> Experiment {
    let &Broadcast { name, about, clients, together, naive, socketio } = broadcast;
    let sides = sides(move |stage, gateway| {
        let millis = stage.scale.of(MILLIS);
        let report = stage.crowd(&Job::Deliver { gateway, clients, together, millis })?;
        if report.lost > 0 && gateway.server != Server::Ours {
            // To be faster than that is no merit.
            return Err(format!("{} deliveries were lost", report.lost).into());
        }
        Ok(vec![report.thousands_per_second(), report.cpu_nanos(), report.busy(), report.lost as f64])
    });
    let add =
        |what: &str, unit, quantity, sides, goal| row(format!("{name}: {what}"), unit, quantity, sides, goal);
    let mut rows = Vec::new();
    for (other, server, goal) in [(NAIVE, "naive", Some(naive)), (SOCKETIO, "Socket.IO", socketio)] {
        let sides = (OURS, Some(other));
        rows.push(add(&format!("vs {server}"), Unit::ThousandsPerSecond, SPEED, sides, goal));
        rows.push(add(&format!("processor time vs {server}"), Unit::Nanoseconds, CPU, sides, None));
    }
    let between = (NAIVE, Some(SOCKETIO));
    rows.extend([
        add("naive vs Socket.IO", Unit::ThousandsPerSecond, SPEED, between, None),
        add("processor time, naive vs Socket.IO", Unit::Nanoseconds, CPU, between, None),
        // Where the server has nothing to do for a part of the time, something else is the bound.
        add("the server is busy", Unit::Percent, BUSY, (OURS, None), None),
        add("naive is busy, vs Socket.IO", Unit::Percent, BUSY, between, None),
        add("lost", Unit::Messages, LOST, (OURS, None), Some(Goal::bound(0.0))),
    ]);
    Experiment { name, about, repeat: Repeat::InTurn, needs: None, when: When::Always, sides, rows }
}

fn filters() -> Experiment {
    let measure = |stage: &Stage| {
        let job = Job::FanOut { subscriptions: FILTERED, filters: FILTERS, events: stage.scale.of(EVENTS) };
        Ok(vec![stage.alone(&job)?.nanos() / 1e3])
    };
    let goal = Some(Goal::median_at_most(100.0));
    Experiment {
        name: "gateway-filters",
        about: "one event, 10,000 subscriptions with 100 filters: into the queues of the hundred that want it",
        repeat: Repeat::InTurn,
        needs: None,
        when: When::Always,
        sides: vec![side("Ours", measure)],
        rows: vec![row("gateway-filters: an event", Unit::Microseconds, 0, (0, None), goal)],
    }
}

fn idle() -> Experiment {
    let name = "gateway-idle";
    let sides = sides(|stage, gateway| {
        let report: Report = stage.crowd(&Job::Idle { gateway, clients: IDLE })?;
        match report.lost {
            0 => Ok(vec![report.kib_idle, report.kib_used]),
            lost => Err(format!("{lost} messages did not come").into()),
        }
    });
    let memory = |what: &str, quantity, sides, goal| {
        row(format!("{name}: {what}"), Unit::KibiBytesEach, quantity, sides, goal)
    };
    let goal = Some(Goal::median_at_most(8.0).stretch(5.0));
    let rows = vec![
        memory("vs naive", 0, (OURS, Some(NAIVE)), goal),
        memory("vs Socket.IO", 0, (OURS, Some(SOCKETIO)), None),
        memory("after messages, vs naive", 1, (OURS, Some(NAIVE)), goal),
        memory("after messages, vs Socket.IO", 1, (OURS, Some(SOCKETIO)), None),
        memory("naive vs Socket.IO", 0, (NAIVE, Some(SOCKETIO)), None),
        memory("after messages, naive vs Socket.IO", 1, (NAIVE, Some(SOCKETIO)), None),
    ];
    let about = "memory of a connection, of 10,000";
    Experiment { name, about, repeat: Repeat::Once, needs: None, when: When::Always, sides, rows }
}

/// A side for each server: it is started, measured from outside, and ended.
fn sides(measure: impl Fn(&Stage, Gateway) -> Result<Vec<f64>, Failure> + Copy + 'static) -> Vec<Side> {
    let of = |server| {
        let measured = move |stage: &Stage| -> Values {
            let mut process = stage.gateway(server)?;
            let (port, redis) = (process.ready()?, stage.redis().port());
            measure(stage, Gateway { server, port, process: process.id(), redis })
        };
        let needs = (server == Server::SocketIo).then_some(Tool::SocketIo);
        Side { needs, ..side(format!("{server:?}"), measured) }
    };
    SERVERS.map(of).into()
}
