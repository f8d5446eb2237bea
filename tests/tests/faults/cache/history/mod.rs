//! Eight processes read, write, publish and invalidate at random while the network between them and Redis is disturbed, and
//! each notes what it does: afterwards nobody may have been answered with what was out of date for him.
//!
//! `MESSAGING_HISTORY_SECONDS` says for how long (60), `MESSAGING_HISTORY_SEED` which choices are made: those of every
//! process and those of the network are the same again, what comes of them need not be.

mod checker;
mod process;
mod record;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use messaging_core::Messaging;
use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::time::{Instant, sleep, timeout};

use super::database::Database;
use super::{LAG, clock};
use crate::place::PATIENCE;
use crate::programs::{Program, target};
use crate::{child, outcome};
pub use checker::check;
use record::Record;
pub use record::{Entry, How, What};

/// Processes; the first of them are left alone, but for what is done to all at once: they have no excuse.
const PROCESSES: u32 = 8;
const LEFT_ALONE: u32 = 2;

const NUMBER: &str = "HISTORY_PROCESS";
const DATABASE: &str = "HISTORY_DATABASE";
const DIRECTORY: &str = "HISTORY_DIRECTORY";
const SEED: &str = "MESSAGING_HISTORY_SEED";
const SECONDS: &str = "MESSAGING_HISTORY_SECONDS";

/// Choices that can be made again: xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016).
struct Choices(u64);

impl Choices {
    fn new(seed: u64, who: u64) -> Self {
        // Seeds that look alike make choices that do not.
        let mut state = seed.wrapping_add(who.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((state ^ (state >> 31)).max(1))
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }
}

#[test]
fn nobody_is_answered_with_what_is_out_of_date_for_him() {
    const TEST: &str = "cache::history::nobody_is_answered_with_what_is_out_of_date_for_him";
    if child::is(TEST) {
        return child::run(process::run());
    }
    let seconds = variable(SECONDS).unwrap_or(60);
    child::run_here(history(TEST, Duration::from_secs(seconds)));
}

#[test]
fn nobody_is_answered_with_what_is_out_of_date_for_him_in_five_seconds() {
    const TEST: &str = "cache::history::nobody_is_answered_with_what_is_out_of_date_for_him_in_five_seconds";
    if child::is(TEST) {
        return child::run(process::run());
    }
    child::run_here(history(TEST, Duration::from_secs(5)));
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

async fn history(test: &str, duration: Duration) {
    let seed = variable(SEED).unwrap_or_else(|| clock::now() % 1_000_000_007);
    println!("    to make the same choices again: {SEED}={seed}");
    let directory = Directory::make(seed);
    let (redis, server) = (RedisServer::start(), RedisServer::start());
    let database = Database::of(&server).await;
    database.say("redis", &redis.url()).await;

    let mut proxies = Vec::new();
    let mut programs = Vec::new();
    for number in 0..PROCESSES {
        let proxy = Proxy::before(redis.port()).await;
        let url = super::at(proxy.port());
        proxies.push(proxy);
        let (number, seed) = (number.to_string(), seed.to_string());
        let environment = [
            (NUMBER, &*number),
            (SEED, &*seed),
            (DATABASE, &*server.url()),
            (DIRECTORY, directory.0.to_str().unwrap()),
        ];
        programs.push(child::start_with(test, &url, &environment));
    }
    let all = u64::from(PROCESSES);
    let mut processes = Processes(programs);
    processes.reach(&database, "ready", all).await;
    database.say("phase", "run").await;
    let records: Vec<_> = (0..PROCESSES)
        .map(|number| Record::create(&directory.file(&format!("trouble-{number}")), number))
        .collect();
    let networks: Vec<_> = proxies.iter().zip(&records).collect();
    let alone =
        networks.iter().zip(0_u32..).skip(LEFT_ALONE as usize).map(async |((proxy, record), number)| {
            disturb(proxy, &mut Choices::new(seed, 1_000 + u64::from(number)), duration, record).await;
        });
    let mut choices = Choices::new(seed, 2_000);
    tokio::join!(join_all(alone), disturb_all(&networks, &mut choices, duration));
    join_all(proxies.iter().map(Proxy::heal)).await;
    records.iter().for_each(Record::finish);
    database.say("phase", "stop").await;
    processes.reach(&database, "stopped", all).await;
    // Nobody writes any more: what was promised no time must come true all the same.
    let begun = Instant::now();
    database.say("phase", "check").await;
    processes.reach(&database, "checked", all).await;
    let settled = begun.elapsed();
    database.say("phase", "end").await;
    processes.end();

    let mut entries: Vec<_> = directory.files().iter().flat_map(|file| record::read(file)).collect();
    entries.sort_by_key(|entry| entry.start);
    let verdict = check(&entries);
    assert!(
        verdict.violations.is_empty(),
        "{SEED}={seed}: {} of {} reads were answered with what was out of date; the history is in {}; the first of them:\n{}",
        verdict.violations.len(),
        verdict.reads,
        directory.keep().display(),
        verdict.violations[..verdict.violations.len().min(3)].join("\n")
    );
    outcome(
        "a history of eight processes",
        format_args!(
            "{} reads, {} loads, {} writes of which {} failed; {} reads shared a load without the cache; all up to date {settled:?} after the last write",
            verdict.reads, verdict.loads, verdict.writes, verdict.failed_writes, verdict.shared_without_cache
        ),
    );
    assert!(verdict.loads * 2 < verdict.reads, "it was a cache that was tried: {verdict:?}");
    assert!(verdict.failed_writes < verdict.writes / 2, "most of what was tried worked: {verdict:?}");
}

/// Makes every connection half-open now and then, for longer than it may take until somebody else's event has come through:
/// then nobody hears any, and commands work again with new connections.
async fn disturb_all(networks: &[(&Proxy, &Record)], choices: &mut Choices, duration: Duration) {
    let end = Instant::now() + duration;
    loop {
        let (calm, lasts) = (choices.millis(700..5_000), 2 * LAG + choices.millis(0..1_000));
        if Instant::now() + calm + lasts > end {
            return sleep(end.saturating_duration_since(Instant::now())).await;
        }
        sleep(calm).await;
        let start = clock::now();
        networks.iter().for_each(|(proxy, _)| proxy.strand(Direction::ToClient));
        sleep(lasts).await;
        for (proxy, record) in networks {
            proxy.heal().await;
            record.note(start, clock::now(), What::Trouble("half-open, as for everybody".to_owned()));
        }
    }
}

/// Disturbs a network now and then, and leaves it sound.
async fn disturb(proxy: &Proxy, choices: &mut Choices, duration: Duration, record: &Record) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        sleep(choices.millis(100..1_500)).await;
        let (fault, which) = (choices.below(8), choices.below(1_000));
        let direction = match choices.below(3) {
            0 => Direction::ToServer,
            1 => Direction::ToClient,
            _ => Direction::Both,
        };
        let (lasts, delay) = (choices.millis(20..2_500), choices.millis(2..60));
        let connections = proxy.connections();
        let Some(&one) = connections.get(which as usize % connections.len().max(1)) else { continue };
        let start = clock::now();
        let what = match fault {
            0 => {
                proxy.cut();
                "all cut".to_owned()
            }
            1 | 2 => {
                proxy.cut_one(one);
                format!("connection {one} cut")
            }
            3 => {
                proxy.strand(direction);
                format!("half-open {direction:?}")
            }
            4 | 5 => {
                proxy.strand_one(one, direction);
                format!("connection {one} half-open {direction:?}")
            }
            6 => {
                proxy.hold(direction);
                format!("held up {direction:?}")
            }
            _ => {
                proxy.delay(delay);
                format!("{delay:?} more each way")
            }
        };
        if fault > 2 {
            sleep(lasts).await;
            proxy.heal().await;
        }
        record.note(start, clock::now(), What::Trouble(what));
    }
    proxy.heal().await;
}

/// The processes, all of which have to come as far.
struct Processes(Vec<Program>);

impl Processes {
    async fn reach(&mut self, database: &Database, place: &str, count: u64) {
        // One that has failed says why; then nobody waits for it.
        let waiting = async {
            eventually(&format!("all processes are {place}"), async || {
                database.arrived(place).await >= count
                    || self.0.iter_mut().any(|program| !program.is_running())
            })
            .await;
            database.arrived(place).await >= count
        };
        if !waiting.await {
            for mut program in self.0.drain(..) {
                if program.is_running() {
                    continue;
                }
                let ended = program.end();
                panic!("before it was {place}:\n{}\n{}", ended.lines.join("\n"), ended.complaints);
            }
        }
    }

    fn end(self) {
        for program in self.0 {
            let ended = program.end();
            assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
        }
    }
}

/// Where the processes of one history leave what they note.
struct Directory(PathBuf);

impl Directory {
    fn make(seed: u64) -> Self {
        let directory = target().join(format!("history-{seed}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn file(&self, name: &str) -> PathBuf {
        file(&self.0, name)
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// It is worth being looked at.
    fn keep(self) -> PathBuf {
        std::mem::ManuallyDrop::new(self).0.clone()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.jsonl"))
}

/// Waits for what another process says, without a bound of its own: the parent has one.
async fn said(database: &Database, wanted: &str) {
    while database.said("phase").await.as_deref() != Some(wanted) {
        sleep(Duration::from_millis(10)).await;
    }
}

/// `soon`, which says what has not happened, and how things are.
async fn in_time<F: Future>(messaging: &Messaging, what: impl Debug, future: F) -> F::Output {
    let ended = timeout(PATIENCE, future).await;
    ended.unwrap_or_else(|_| {
        let health = serde_json::to_string(&messaging.health()).unwrap();
        panic!("{what:?} has not ended after {PATIENCE:?}; every operation has a bound: {health}")
    })
}
