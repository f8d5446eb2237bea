//! Ten thousand callers of one value that nobody has: one load, whatever becomes of who leads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use messaging_tests::{RedisServer, eventually};
use tokio::time::Instant;

use super::database::{Database, Source};
use super::{patient, row, row_name};
use crate::place::soon;
use crate::programs::Program;
use crate::{child, outcome};

const CALLERS: u64 = 10_000;
const PROCESSES: u64 = 4;
const KEY: u64 = 7;
const LEASE: &str = "msg:lease:{row:7}";
/// Who has waited so long for another process shares one extra load in its own.
const WAIT: Duration = Duration::from_secs(3);
const DATABASE: &str = "STAMPEDE_DATABASE";
const NUMBER: &str = "STAMPEDE_PROCESS";
const CALLS: &str = "STAMPEDE_CALLS";

/// What a process does: the first one may lead, then all call.
async fn process() {
    let text = |name| std::env::var(name).expect("the parent has set it");
    let database = Database::at(&text(DATABASE)).await;
    let (number, calls): (u64, u64) = (text(NUMBER).parse().unwrap(), text(CALLS).parse().unwrap());
    let messaging = patient(&child::url()).messaging().await;
    let _running = messaging.start().await.unwrap();
    let source = Source::new(&database);
    let called = Arc::<AtomicU64>::default();
    let call = || {
        let (source, called) = (source.clone(), Arc::clone(&called));
        messaging.spawn(async move {
            called.fetch_add(1, Ordering::SeqCst);
            row(KEY, &source).await
        })
    };
    // The cache hears its events before anybody counts.
    assert_eq!(messaging.scope(row(1_000 + number, &source)).await, 0);
    database.arrive("ready").await;
    let leads = database.said("leader").await == Some(number.to_string());
    let leader = leads.then(call);
    database.is_said("go", "1").await;
    let callers: Vec<_> = (0..calls).map(|_| call()).collect();
    eventually("all have called", async || called.load(Ordering::SeqCst) == calls + u64::from(leads)).await;
    database.arrive("called").await;
    if let Some(leader) = leader {
        database.is_said("cancel", "1").await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
    }
    let versions = soon(join_all(callers)).await;
    assert!(versions.into_iter().all(|version| version.unwrap() == 5), "all have what was loaded");
    database.arrive("answered").await;
    database.is_said("end", "1").await;
}

struct Stampede {
    redis: RedisServer,
    database: Database,
    _server: RedisServer,
    processes: Vec<Program>,
}

impl Stampede {
    /// A process for each of these numbers of calls; the load does not end before it is allowed to.
    async fn prepare(test: &str, calls: &[u64], leader: Option<usize>) -> Self {
        let (redis, server) = (RedisServer::start(), RedisServer::start());
        let database = Database::of(&server).await;
        for _ in 0..5 {
            database.write_one(&row_name(KEY)).await;
        }
        database.shut(&row_name(KEY)).await;
        database.say("leader", &leader.map_or("nobody".to_owned(), |leader| leader.to_string())).await;
        let start = |(number, calls): (usize, &u64)| {
            let (number, calls, url) = (number.to_string(), calls.to_string(), server.url());
            let environment = [(NUMBER, &*number), (CALLS, &*calls), (DATABASE, &*url)];
            child::start_with(test, &redis.url(), &environment)
        };
        let processes = calls.iter().enumerate().map(start).collect();
        let stampede = Self { redis, database, _server: server, processes };
        stampede.database.have_arrived("ready", calls.len() as u64).await;
        stampede
    }

    async fn loads(&self) -> u64 {
        self.database.loads(&row_name(KEY)).await
    }

    async fn have_begun(&self, loads: u64) {
        eventually(&format!("{loads} have begun"), async || self.loads().await >= loads).await;
    }

    /// Lets everybody call; returns when that was.
    async fn go(&self) -> Instant {
        let begun = Instant::now();
        self.database.say("go", "1").await;
        begun
    }

    /// Lets the loads end, and checks that there were exactly so many; on a machine on which it has taken longer than
    /// callers wait for another process, one more for each process.
    async fn end(self, what: &str, begun: Instant, answered: u64, loads: u64) {
        let waited = begun.elapsed();
        self.database.open(&row_name(KEY)).await;
        self.database.have_arrived("answered", answered).await;
        let all = begun.elapsed();
        let allowed = if begun.elapsed() < WAIT { loads } else { loads + PROCESSES };
        let counted = self.loads().await;
        assert!((loads..=allowed).contains(&counted), "{counted} loads, {loads} to {allowed} are right");
        self.database.say("end", "1").await;
        for process in self.processes {
            let ended = process.end();
            assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
        }
        outcome(
            what,
            format_args!("{counted} loads; the last had begun after {waited:?}, all had it after {all:?}"),
        );
    }
}

#[test]
fn a_cold_key_is_loaded_once() {
    const TEST: &str = "cache::stampede::a_cold_key_is_loaded_once";
    if child::is(TEST) {
        return child::run(process());
    }
    child::run_here(async {
        let calls = [CALLERS / PROCESSES; PROCESSES as usize];
        let stampede = Stampede::prepare(TEST, &calls, None).await;
        let begun = stampede.go().await;
        stampede.database.have_arrived("called", PROCESSES).await;
        stampede.have_begun(1).await;
        stampede.end("10,000 callers", begun, PROCESSES, 1).await;
    });
}

#[test]
fn a_leader_whose_caller_goes_away_is_replaced_once() {
    const TEST: &str = "cache::stampede::a_leader_whose_caller_goes_away_is_replaced_once";
    if child::is(TEST) {
        return child::run(process());
    }
    child::run_here(async {
        let calls = [CALLERS / PROCESSES; PROCESSES as usize];
        let stampede = Stampede::prepare(TEST, &calls, Some(0)).await;
        stampede.have_begun(1).await;
        let begun = stampede.go().await;
        stampede.database.have_arrived("called", PROCESSES).await;
        stampede.database.say("cancel", "1").await;
        stampede.have_begun(2).await;
        stampede.end("the leader's caller went away", begun, PROCESSES, 2).await;
    });
}

#[test]
fn a_leader_whose_process_is_killed_is_replaced_once() {
    const TEST: &str = "cache::stampede::a_leader_whose_process_is_killed_is_replaced_once";
    if child::is(TEST) {
        return child::run(process());
    }
    child::run_here(async {
        let share = CALLERS / (PROCESSES - 1);
        let mut stampede = Stampede::prepare(TEST, &[1, share, share, share], Some(0)).await;
        stampede.have_begun(1).await;
        // Renewed at a third of its time, the lease has just under two thirds left at the least: then all who call from now
        // on will have been given it before they have waited too long.
        let left = || stampede.redis.cli(&["PTTL", LEASE]).parse::<u64>().unwrap_or_default();
        eventually("the lease is about to be renewed", async || (1..2_300).contains(&left())).await;
        drop(stampede.processes.remove(0));
        let begun = stampede.go().await;
        stampede.database.have_arrived("called", PROCESSES - 1).await;
        stampede.have_begun(2).await;
        assert!(begun.elapsed() < 2 * WAIT, "a crashed loader delays others by at most the lease");
        // The second load began when the lease had run out, and is a moment old.
        let begun = Instant::now();
        stampede.end("the leader's process was killed", begun, PROCESSES - 1, 2).await;
    });
}
