//! Receiving: as fast as it goes, from the replay server and from a real Redis, and paced, where nothing may be lost.

use super::{Experiment, Goal, Repeat, Row, Side, Unit, Values, When, row, side};
use crate::compare::stage::{Stage, Under};
use crate::job::{Client, Form, Job, Logging, Pace, Report};

/// How many messages one repetition has.
pub(super) const FLOOD: u64 = 1_000_000;
/// Paces, in messages a second, and for how many quarters of a second.
const PACES: [u64; 3] = [10_000, 100_000, 300_000];
const PACED_QUARTERS: u64 = 12;

/// The quantities of a subscriber.
pub(super) const SPEED: usize = 0;
pub(super) const CPU: usize = 1;
pub(super) const PEAK: usize = 2;
pub(super) const LOST: usize = 3;

pub(super) fn experiments() -> Vec<Experiment> {
    let mut all = vec![
        floods("receive-replay", "as fast as it goes, from the replay server", replayed),
        floods("receive-live", "the same from a real Redis", |stage, client, form| {
            flooded(stage, client, form, Logging::Off)
        }),
        logging(),
    ];
    all.extend(PACES.map(paced));
    all
}

type Measure = fn(&Stage, Client, Form) -> Values;

fn floods(name: &'static str, about: &'static str, measure: Measure) -> Experiment {
    let (mut sides, mut rows): (Vec<Side>, Vec<Row>) = Default::default();
    for form in [Form::Owned, Form::Borrowed] {
        for client in [Client::Ours, Client::Raw, Client::Hand] {
            sides.push(side(format!("{client:?}, {form}"), move |stage| measure(stage, client, form)));
        }
    }
    let templates = sides.len();
    for client in [Client::Ours, Client::Raw] {
        let form = Form::Template;
        sides.push(side(format!("{client:?}, {form}"), move |stage| measure(stage, client, form)));
    }
    let replay = name == "receive-replay";
    for (form, first, other_goal) in
        [(Form::Owned, 0, Some(Goal::at_least(1.8).stretch(2.0))), (Form::Borrowed, 3, None)]
    {
        let (ours, raw, hand) = (first, first + 1, first + 2);
        let mut add = |what: &str, unit, quantity, other, goal: Option<Goal>| {
            rows.push(row(format!("{name}: {form}{what}"), unit, quantity, (ours, other), goal));
        };
        let speed = Unit::ThousandsPerSecond;
        add(" vs raw", speed, SPEED, Some(raw), other_goal.filter(|_| replay));
        if form == Form::Borrowed {
            let goal = Goal::at_least(2.2).stretch(2.6);
            add(" vs raw owned", speed, SPEED, Some(1), replay.then_some(goal));
        }
        add(" vs by hand", speed, SPEED, Some(hand), replay.then_some(Goal::at_least(0.9).stretch(0.97)));
        add(", processor time", Unit::Nanoseconds, CPU, Some(raw), None);
        add(", peak memory", Unit::MebiBytes, PEAK, Some(raw), None);
        add(", lost", Unit::Messages, LOST, None, Some(Goal::bound(0.0)));
    }
    let both = (templates, Some(templates + 1));
    rows.push(row(format!("{name}: template vs raw"), Unit::ThousandsPerSecond, SPEED, both, None));
    rows.push(row(
        format!("{name}: template, lost"),
        Unit::Messages,
        LOST,
        (templates, None),
        Some(Goal::bound(0.0)),
    ));
    Experiment { name, about, repeat: Repeat::InTurn, needs: None, when: When::Always, sides, rows }
}

/// How many of the messages were not handled; says where they went.
fn lost(report: &Report, sent: u64) -> f64 {
    let lost = sent as f64 - report.count as f64;
    if lost > 0.0 {
        let Report { dropped, reconnects, .. } = report;
        eprintln!("    {lost} lost: {dropped} dropped by the buffer; cut off by Redis {reconnects} times");
    }
    lost
}

pub(super) fn values(report: &Report, sent: u64) -> Vec<f64> {
    let lost = lost(report, sent);
    vec![report.thousands_per_second(), report.cpu_nanos(), report.peak_mib.unwrap_or(f64::NAN), lost]
}

fn replayed(stage: &Stage, client: Client, form: Form) -> Values {
    let messages = stage.scale.of(FLOOD);
    let mut server = stage.beside(&Job::Replay { messages })?;
    let job = Job::Subscribe { client, form, port: server.ready()?, logging: Logging::Off };
    Ok(values(&stage.measured(&job, Under::Nothing)?.done()?, messages))
}

fn flooded(stage: &Stage, client: Client, form: Form, logging: Logging) -> Values {
    let port = stage.patient_redis().port();
    let messages = stage.scale.of(FLOOD);
    let mut subscriber = stage.measured(&Job::Subscribe { client, form, port, logging }, Under::Nothing)?;
    subscriber.ready()?;
    stage.beside(&Job::Publish { port, messages, pace: Pace::Flood })?.done()?;
    Ok(values(&subscriber.done()?, messages))
}

fn logging() -> Experiment {
    let measure = |logging| move |stage: &Stage| flooded(stage, Client::Ours, Form::Owned, logging);
    Experiment {
        name: "logging",
        about: "a flood from a real Redis, with a `tracing` subscriber at info and without",
        repeat: Repeat::InTurn,
        needs: None,
        when: When::Always,
        sides: vec![side("with", measure(Logging::Info)), side("without", measure(Logging::Off))],
        rows: vec![
            row(
                "logging: ours at info vs without",
                Unit::ThousandsPerSecond,
                SPEED,
                (0, Some(1)),
                Some(Goal::at_least(0.95)),
            ),
            row("logging: at info, lost", Unit::Messages, LOST, (0, None), Some(Goal::bound(0.0))),
        ],
    }
}

fn paced(rate: u64) -> Experiment {
    let (name, thousands) = match rate {
        10_000 => ("paced-10k", 10),
        100_000 => ("paced-100k", 100),
        _ => ("paced-300k", rate / 1_000),
    };
    let measure = move |logging| {
        move |stage: &Stage| {
            let port = stage.redis().port();
            let messages = rate * stage.scale.of(PACED_QUARTERS) / 4;
            let job = Job::Subscribe { client: Client::Ours, form: Form::Owned, port, logging };
            let mut subscriber = stage.measured(&job, Under::Nothing)?;
            subscriber.ready()?;
            let pace = Pace::PerSecond(rate);
            let published = stage.beside(&Job::Publish { port, messages, pace })?.done()?;
            let handled = subscriber.done()?;
            Ok(vec![lost(&handled, messages), published.thousands_per_second()])
        }
    };
    let lost = |what: &str, side| {
        let name = format!("{name}: lost{what}");
        row(name, Unit::Messages, 0, (side, None), Some(Goal::bound(0.0)))
    };
    Experiment {
        name,
        about: "at a steady pace from a real Redis, with and without logging",
        repeat: Repeat::InTurn,
        needs: None,
        when: When::Always,
        sides: vec![
            side("without logging", measure(Logging::Off)),
            side("with logging", measure(Logging::Info)),
        ],
        rows: vec![
            lost("", 0),
            lost(" with logging", 1),
            row(
                format!("{name}: reached pace, of {thousands}"),
                Unit::ThousandsPerSecond,
                1,
                (0, None),
                None,
            ),
        ],
    }
}
