//! One of the processes of a history: a few workers that do something at random, one after the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use messaging_core::{CacheManager, Messaging};
use messaging_tests::eventually;
use redis::Client;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::time::sleep;

use super::record::{How, Record, What};
use super::{Choices, DATABASE, DIRECTORY, NUMBER, PROCESSES, SEED, file, in_time, said, variable};
use crate::cache::database::{Database, Source};
use crate::cache::stalls::Stalls;
use crate::cache::{
    Seat, aging, aging_name, by_default, cell, cell_name, clock, hasty, hasty_name, near, near_name, page,
    page_name, row, row_name, seat, seat_name,
};
use crate::child;
use crate::stream::plain_connection;

const WORKERS: u64 = 3;
/// Few of each, so that everybody meets everybody.
const BUSY_ROWS: u64 = 6;
/// With those that are written seldom: there somebody who has missed a write is not put right by the next one.
const ROWS: u64 = 14;
const SELDOM: u64 = 24;
const SITES: u64 = 2;
const CELLS: u64 = 3;
const SEATS: &[&str] = &["a:1", "b%2", "c", "d"];
const PAGES: u64 = 3;
const BY_HAND: u64 = 2;
const OTHERS: u64 = 4;
const TTL: Duration = Duration::from_secs(600);

/// A load may take longer than it takes an event to arrive, and less than a lease.
fn now_and_then(number: u64) -> Duration {
    Duration::from_millis(match number % 7 {
        0 => 40,
        1..3 => 5,
        _ => 0,
    })
}

struct Process {
    number: u32,
    messaging: Messaging,
    by_hand: CacheManager,
    source: Source,
    database: Database,
    /// Straight to the server that holds the cache: somebody who knows nothing of us.
    foreign: MultiplexedConnection,
    record: Arc<Record>,
}

pub async fn run() {
    let text = |name| std::env::var(name).expect("the parent has set it");
    let number: u32 = text(NUMBER).parse().unwrap();
    let seed = variable(SEED).expect("the parent has set it");
    let directory = text(DIRECTORY);
    let record = Arc::new(Record::create(&file(Path::new(&directory), &format!("process-{number}")), number));
    let database = Database::at(&text(DATABASE)).await;
    let messaging = by_default(&child::url()).messaging().await;
    let _running = messaging.start().await.unwrap();
    let mut source = Source::new(&database);
    source.slow = now_and_then;
    let url = database.said("redis").await.expect("the parent has said it");
    let process = Arc::new(Process {
        number,
        by_hand: messaging.cache("hand"),
        messaging: messaging.clone(),
        source,
        database: database.clone(),
        foreign: plain_connection(&Client::open(url).unwrap()).await.unwrap(),
        record: Arc::clone(&record),
    });
    let stalls = Stalls::watch();
    database.arrive("ready").await;
    said(&database, "run").await;
    let workers = (0..WORKERS).map(|worker| {
        let (process, who) = (Arc::clone(&process), u64::from(number) * WORKERS + worker);
        messaging.spawn(async move { process.work(&mut Choices::new(seed, who)).await })
    });
    join_all(workers).await.into_iter().for_each(|worker| worker.unwrap());
    database.arrive("stopped").await;
    said(&database, "check").await;
    messaging.scope(process.comes_true()).await;
    process.note_loads();
    stalls.all().into_iter().for_each(|(start, end)| record.note(start, end, What::Stall));
    record.finish();
    database.arrive("checked").await;
    said(&database, "end").await;
}

impl Process {
    async fn work(&self, choices: &mut Choices) {
        let mut round = 0_u64;
        while !(round.is_multiple_of(8) && self.database.said("phase").await.as_deref() == Some("stop")) {
            round += 1;
            let (kind, what) = (choices.below(100), choices.below(1 << 40));
            let pause = choices.millis(0..20);
            if kind < 88 {
                in_time(&self.messaging, ("read", what % 9, what / 9), self.read(what)).await;
            } else {
                in_time(&self.messaging, ("write", what % 8, what / 8 % 4, what / 32), self.write(what))
                    .await;
            }
            sleep(pause).await;
        }
    }

    async fn read(&self, what: u64) {
        let (family, which) = (what % 9, what / 9);
        let source = &self.source;
        let start = clock::now();
        let (name, version) = match family {
            0 | 1 => (row_name(which % ROWS), row(which % ROWS, source).await),
            2 => {
                let (site, id) = (which % SITES, which / SITES % CELLS);
                (cell_name(site, id), cell(site, id, source).await)
            }
            3 => {
                let address = SEATS[which as usize % SEATS.len()];
                (seat_name(address), seat(address, source).await)
            }
            4 => (page_name(which % PAGES), page(which % PAGES, source).await),
            5 => (near_name(which % OTHERS), near(which % OTHERS, source).await),
            6 => (aging_name(which % OTHERS), aging(which % OTHERS, source.clone()).await),
            7 => (hasty_name(which % OTHERS), hasty(which % OTHERS, source).await),
            _ => {
                let name = hand_name(which % u64::from(PROCESSES), which / u64::from(PROCESSES) % BY_HAND);
                let key = name.trim_start_matches("hand:").to_owned();
                let version = if which % 5 == 0 {
                    match self.by_hand.get::<u64>(&key).await {
                        Ok(Some(version)) => version,
                        // Nothing is there, or Redis is away.
                        Ok(None) | Err(_) => return,
                    }
                } else {
                    let load = async { Ok::<u64, std::fmt::Error>(source.load(&name).await) };
                    self.by_hand.get_or_load(&key, TTL, load).await.unwrap()
                };
                (name, version)
            }
        };
        self.record.note(start, clock::now(), What::Read { row: name, version });
        self.note_loads();
    }

    fn note_loads(&self) {
        for load in self.source.take() {
            self.record.note(load.start, load.end, What::Load { row: load.row, version: load.version });
        }
    }

    async fn write(&self, what: u64) {
        let (family, how, which) = (what % 8, what / 8 % 4, what / 32);
        match family {
            0 | 1 => self.write_row(how, which).await,
            2 => self.write_cell(how, which).await,
            3 => self.write_seat(how, which).await,
            4 => self.write_page(how, which).await,
            5 => self.write_other(how, which).await,
            _ => self.write_by_hand(how, which).await,
        }
    }

    /// Writes to the database, tells the cache, and notes both as one operation.
    async fn written(&self, rows: Vec<String>, how: How, tell: impl AsyncFnOnce(&[u64]) -> bool) {
        let start = clock::now();
        let versions = self.database.write(&rows).await;
        let succeeded = tell(&versions).await;
        let end = clock::now();
        for (row, version) in rows.into_iter().zip(versions) {
            self.record.note(start, end, What::Write { row, version, how, succeeded });
        }
    }

    async fn publish(&self, how: How, channel: &str, rows: Vec<String>, payload: serde_json::Value) {
        self.written(rows, how, async |_| match how {
            How::Foreign => {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(channel).arg(payload.to_string());
                publish.query_async::<u64>(&mut self.foreign.clone()).await.unwrap();
                true
            }
            _ => self.messaging.publish(channel, &payload).await.is_ok(),
        })
        .await;
    }

    async fn write_row(&self, how: u64, which: u64) {
        let (which, seldom) = (which / SELDOM, which.is_multiple_of(SELDOM));
        let rows = if seldom { BUSY_ROWS..ROWS } else { 0..BUSY_ROWS };
        let count = rows.end - rows.start;
        let [one, other] = [which, which / count].map(|which| rows.start + which % count);
        match how {
            0 => {
                self.publish(How::Publish, "cached.row", vec![row_name(one)], json!({ "id": one })).await;
            }
            1 if one != other => {
                let (rows, payload) = (vec![row_name(one), row_name(other)], json!({ "id": [one, other] }));
                self.publish(How::Publish, "cached.row", rows, payload).await;
            }
            2 => {
                self.publish(How::Foreign, "cached.row", vec![row_name(one)], json!({ "id": one })).await;
            }
            _ => {
                let rows = vec![row_name(one)];
                self.written(rows, How::Invalidate, async |_| row::invalidate(one).await.is_ok()).await;
            }
        }
    }

    async fn write_cell(&self, how: u64, which: u64) {
        let (site, id) = (which % SITES, which / SITES % CELLS);
        let (channel, rows) = (format!("cached.cells.{site}"), vec![cell_name(site, id)]);
        match how {
            0 | 1 => self.publish(How::Publish, &channel, rows, json!({ "cell": id })).await,
            2 => self.publish(How::Foreign, &channel, rows, json!({ "cell": id })).await,
            _ => {
                self.written(rows, How::Invalidate, async |_| cell::invalidate(site, id).await.is_ok()).await
            }
        }
    }

    async fn write_seat(&self, how: u64, which: u64) {
        let number = which as usize;
        let (old, new) = (number % SEATS.len(), (number + 1 + number / 8 % (SEATS.len() - 1)) % SEATS.len());
        let [old, new] = [old, new].map(|place| Seat { id: which, address: SEATS[place].to_owned() });
        let rows = vec![seat_name(&old.address), seat_name(&new.address)];
        match how {
            0 | 1 => {
                let tell = async |_: &[u64]| self.messaging.emit_changed(&old, &new).await.is_ok();
                self.written(rows, How::Publish, tell).await;
            }
            2 => {
                let payload =
                    json!({ "id": 1, "address": new.address, "previous": { "address": old.address } });
                self.publish(How::Foreign, "cached.seat", rows, payload).await;
            }
            _ => {
                let address = new.address;
                let tell = async |_: &[u64]| seat::invalidate(&address).await.is_ok();
                self.written(vec![seat_name(&address)], How::Invalidate, tell).await;
            }
        }
    }

    async fn write_page(&self, how: u64, which: u64) {
        let one = which % PAGES;
        match how {
            0 => {
                let rows = (0..PAGES).map(page_name).collect();
                self.publish(How::Unclear, "cached.page", rows, json!({ "which": "not said" })).await;
            }
            1 => {
                self.publish(How::Publish, "cached.page", vec![page_name(one)], json!({ "id": one })).await;
            }
            2 => {
                self.publish(How::Foreign, "cached.page", vec![page_name(one)], json!({ "id": one })).await;
            }
            _ => {
                let rows = vec![page_name(one)];
                self.written(rows, How::Invalidate, async |_| page::invalidate(one).await.is_ok()).await;
            }
        }
    }

    /// The functions with options.
    async fn write_other(&self, how: u64, which: u64) {
        let (kind, id) = (which % 3, which / 3 % OTHERS);
        let (name, channel) = match kind {
            0 => (near_name(id), "cached.near"),
            1 => (aging_name(id), "cached.aging"),
            _ => (hasty_name(id), "cached.hasty"),
        };
        match how {
            0 | 1 => self.publish(How::Publish, channel, vec![name], json!({ "id": id })).await,
            2 => self.publish(How::Foreign, channel, vec![name], json!({ "id": id })).await,
            _ => {
                let invalidate = async |_: &[u64]| match kind {
                    0 => near::invalidate(id).await.is_ok(),
                    1 => aging::invalidate(id).await.is_ok(),
                    _ => hasty::invalidate(id).await.is_ok(),
                };
                self.written(vec![name], How::Invalidate, invalidate).await;
            }
        }
    }

    /// Each process writes the values of its own, so that they are set in the order of their versions; one worker at a
    /// time, for the same reason.
    async fn write_by_hand(&self, how: u64, which: u64) {
        static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = ONE.lock().await;
        let name = hand_name(u64::from(self.number), which % BY_HAND);
        let key = name.trim_start_matches("hand:").to_owned();
        match how {
            0 | 1 => {
                let set = async |versions: &[u64]| self.by_hand.set(&key, &versions[0], TTL).await.is_ok();
                self.written(vec![name], How::Set, set).await;
            }
            _ => {
                let invalidate = async |_: &[u64]| self.by_hand.invalidate(&key).await.is_ok();
                self.written(vec![name], How::Invalidate, invalidate).await;
            }
        }
    }

    /// Nobody writes any more: sooner or later everything that events make out of date is what it should be.
    async fn comes_true(&self) {
        let source = &self.source;
        for id in 0..ROWS {
            self.settles(row_name(id), async || row(id, source).await).await;
        }
        for (site, id) in (0..SITES).flat_map(|site| (0..CELLS).map(move |id| (site, id))) {
            self.settles(cell_name(site, id), async || cell(site, id, source).await).await;
        }
        for address in SEATS {
            self.settles(seat_name(address), async || seat(address, source).await).await;
        }
        for id in 0..OTHERS {
            self.settles(near_name(id), async || near(id, source).await).await;
            self.settles(aging_name(id), async || aging(id, source.clone()).await).await;
            self.settles(hasty_name(id), async || hasty(id, source).await).await;
        }
        for id in 0..PAGES {
            self.settles(page_name(id), async || page(id, source).await).await;
        }
    }

    async fn settles(&self, name: String, read: impl AsyncFn() -> u64) {
        let last = self.database.read(&name).await;
        eventually(&format!("{name} is {last} in process {}", self.number), async || {
            let start = clock::now();
            let version = read().await;
            self.record.note(start, clock::now(), What::Read { row: name.clone(), version });
            version == last
        })
        .await;
    }
}

fn hand_name(process: u64, number: u64) -> String {
    format!("hand:{process}:{number}")
}
