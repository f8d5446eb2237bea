//! What does not depend on the machine's speed: allocations, instructions, memory.

use super::{Experiment, Goal, Repeat, Row, Side, Unit, Values, When, counted, marginal, row, side};
use crate::compare::stage::{Stage, Tool, Under};
use crate::job::{Client, Form, Job, Logging};

/// Counted over so many messages and twice as many: what is done once cancels out.
const ALLOCATING: u64 = 50_000;
const INSTRUCTED: u64 = 10_000;
/// A flood past a stopped handler, and four times as many.
const STOPPED: u64 = 200_000;

pub(super) fn experiments() -> Vec<Experiment> {
    vec![allocations(), instructions(), stopped()]
}

fn allocations() -> Experiment {
    let (mut sides, mut rows): (Vec<Side>, Vec<Row>) = Default::default();
    for form in [Form::Owned, Form::Borrowed] {
        let ours = sides.len();
        for client in [Client::Ours, Client::Raw] {
            sides.push(side(format!("{client:?}, {form}"), move |stage| {
                let of_values = marginal(ALLOCATING, |messages| {
                    counted(
                        stage.measured(&Job::Decode { form, messages }, Under::Counting)?.done()?.allocations,
                    )
                })?;
                let all = marginal(ALLOCATING, |messages| {
                    let mut server = stage.beside(&Job::Replay { messages })?;
                    let job = Job::Subscribe { client, form, port: server.ready()?, logging: Logging::Off };
                    counted(stage.measured(&job, Under::Counting)?.done()?.allocations)
                })?;
                Ok(vec![all - of_values])
            }));
        }
        let name = format!("allocations: {form}, beyond the values, vs raw");
        rows.push(row(name, Unit::EachMessage, 0, (ours, Some(ours + 1)), Some(Goal::bound(0.1))));
    }
    Experiment {
        name: "allocations",
        about: "allocations of a subscriber beyond those of the decoded values",
        repeat: Repeat::Once,
        needs: None,
        when: When::Always,
        sides,
        rows,
    }
}

fn instructions() -> Experiment {
    let (mut sides, mut rows): (Vec<Side>, Vec<Row>) = Default::default();
    for form in [Form::Owned, Form::Borrowed] {
        let ours = sides.len();
        for client in [Client::Ours, Client::Raw, Client::Hand] {
            sides.push(side(format!("{client:?}, {form}"), move |stage| {
                let decoding =
                    marginal(INSTRUCTED, |messages| stage.instructions(&Job::Decode { form, messages }))?;
                let all = marginal(INSTRUCTED, |messages| {
                    let mut server = stage.beside(&Job::Replay { messages })?;
                    let port = server.ready()?;
                    stage.instructions(&Job::Subscribe { client, form, port, logging: Logging::Off })
                })?;
                Ok(vec![all.round(), (all - decoding).round()])
            }));
        }
        let mut add = |what: &str, quantity, other, goal| {
            let name = format!("instructions: {form}, {what}");
            rows.push(row(name, Unit::EachMessage, quantity, (ours, Some(other)), goal));
        };
        add("all, vs raw", 0, ours + 1, None);
        add("beyond decoding, vs raw", 1, ours + 1, Some(Goal::median_at_most(1_000.0).stretch(300.0)));
        add("beyond decoding, vs by hand", 1, ours + 2, None);
    }
    Experiment {
        name: "instructions",
        about: "instructions of a subscriber, all and beyond those of decoding",
        repeat: Repeat::Once,
        needs: Some(Tool::Valgrind),
        when: When::Always,
        sides,
        rows,
    }
}

fn stopped() -> Experiment {
    let measure = |client, times| {
        move |stage: &Stage| -> Values {
            let messages = stage.scale.of(STOPPED) * times;
            let mut server = stage.beside(&Job::Replay { messages })?;
            let mut subscriber =
                stage.measured(&Job::Stopped { client, port: server.ready()? }, Under::Nothing)?;
            subscriber.ready()?;
            server.sent()?;
            subscriber.close_input();
            Ok(vec![subscriber.done()?.peak_mib.ok_or("the system does not tell the memory of a process")?])
        }
    };
    let sides = vec![
        side("ours, 4 times the messages", measure(Client::Ours, 4)),
        side("ours", measure(Client::Ours, 1)),
        side("raw, 4 times the messages", measure(Client::Raw, 4)),
        side("raw", measure(Client::Raw, 1)),
    ];
    let memory =
        |what: &str, other, goal| row(format!("stopped: {what}"), Unit::MebiBytes, 0, (0, Some(other)), goal);
    Experiment {
        name: "stopped",
        about: "peak memory when a flood meets a handler that has stopped",
        repeat: Repeat::InTurn,
        needs: None,
        when: When::Always,
        sides,
        rows: vec![
            memory("4 times the flood vs the flood", 1, Some(Goal::bound_ratio(1.25))),
            memory("4 times the flood vs raw", 2, None),
            row("stopped: raw, 4 times the flood vs the flood", Unit::MebiBytes, 0, (2, Some(3)), None),
        ],
    }
}
