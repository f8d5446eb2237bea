//! Models in SQL: rows that tell of themselves beside rows of bare sqlx, and what a relay takes from the outbox.

use super::{Experiment, Repeat, Row, Side, Unit, When, row, side};
use crate::compare::database::{Database, Kind};
use crate::compare::stage::Stage;
use crate::job::{Failure, Job, Relay, Report, Writer};

struct Place {
    kind: Kind,
    one: &'static str,
    many: &'static str,
    relay: &'static str,
    /// How many rows are inserted one by one, and many at once.
    rows: [u64; 2],
}

const PLACES: [Place; 2] = [
    Place {
        kind: Kind::Sqlite,
        one: "sql-insert-sqlite",
        many: "sql-many-sqlite",
        relay: "outbox-relay-sqlite",
        rows: [20_000, 200_000],
    },
    Place {
        kind: Kind::Postgres,
        one: "sql-insert-postgres",
        many: "sql-many-postgres",
        relay: "outbox-relay-postgres",
        rows: [8_000, 100_000],
    },
];
/// How many rows one unit of work creates at once.
const TOGETHER: u64 = 1_000;
/// How many rows wait in the outbox.
const WAITING: u64 = 20_000;
const WRITERS: [Writer; 3] = [Writer::Publishing, Writer::WithOutbox, Writer::Raw];
const RELAYS: [Relay; 3] = [Relay::Keeping, Relay::Removing, Relay::Raw];

pub(super) fn experiments() -> Vec<Experiment> {
    let insert = PLACES.iter().map(|place| {
        inserts(place.one, "transactions with one insert, and its event", place.kind, place.rows[0], 1)
    });
    let many = PLACES.iter().map(|place| {
        inserts(place.many, "the same with 1,000 rows at once", place.kind, place.rows[1], TOGETHER)
    });
    insert.chain(many).chain(PLACES.iter().map(relays)).collect()
}

fn inserts(name: &'static str, about: &'static str, kind: Kind, rows: u64, together: u64) -> Experiment {
    let sides = WRITERS.map(|writer| {
        side(format!("{writer:?}"), move |stage| {
            let rows = stage.scale.of(rows);
            values(stage, kind, |database| Job::Insert { writer, database, rows, together })
        })
    });
    experiment(name, about, kind, sides, ["", "with outbox, "])
}

fn relays(place: &Place) -> Experiment {
    let kind = place.kind;
    let sides = RELAYS.map(|relay| {
        side(format!("{relay:?}"), move |stage| {
            let (rows, port) = (stage.scale.of(WAITING), stage.redis().port());
            values(stage, kind, |database| Job::Relay { relay, database, port, rows })
        })
    });
    let about = "events that wait in the outbox, published by one relay";
    experiment(place.relay, about, kind, sides, ["", "removing, "])
}

/// Rows in a second and processor time for each, measured on an empty database.
fn values(stage: &Stage, kind: Kind, job: impl FnOnce(String) -> Job) -> Result<Vec<f64>, Failure> {
    let database = Database::make(kind, stage)?;
    let report: Report = stage.alone(&job(database.url()))?;
    Ok(vec![report.thousands_per_second(), report.cpu_nanos()])
}

/// Two ways of ours, and raw.
fn experiment(
    name: &'static str,
    about: &'static str,
    kind: Kind,
    sides: [Side; 3],
    ways: [&str; 2],
) -> Experiment {
    let mut rows: Vec<Row> = Vec::new();
    for (way, what) in ways.iter().enumerate() {
        let sides = (way, Some(2));
        rows.push(row(format!("{name}: {what}vs raw"), Unit::ThousandsPerSecond, 0, sides, None));
        rows.push(row(format!("{name}: {what}processor time vs raw"), Unit::Nanoseconds, 1, sides, None));
    }
    Experiment {
        name,
        about,
        repeat: Repeat::InTurn,
        needs: kind.needs(),
        when: When::Always,
        sides: sides.into(),
        rows,
    }
}
