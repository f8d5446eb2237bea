//! Redis does not answer while thousands of calls a second come: every call is answered, and what was invalidated meanwhile
//! stays so for who asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use messaging_core::Messaging;
use messaging_tests::{RedisServer, eventually};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::database::{Database, Load, Source};
use super::history::{Entry, How, What, check};
use super::stalls::{self, Stalls};
use super::{by_default, clock, row, row_name, stats};
use crate::outcome;
use crate::place::{PATIENCE, soon};

const CALLS_PER_SECOND: u64 = 5_000;
const TICK: Duration = Duration::from_millis(10);
/// Rows that are only read, and rows that are written too.
const READ: u64 = 40;
const WRITTEN: u64 = 10;
/// Values are used again so soon after Redis is back.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// How often in a row a call may have to wait until it is its turn: at its start, when its time is up, twice for the function,
/// and when it is told of another call's load.
const TURNS: u64 = 5;

/// One call: from when to when, and what it returned.
#[derive(Clone, Copy)]
struct Call {
    id: u64,
    start: u64,
    end: u64,
    version: u64,
}

/// Calls at a steady rate, until it is ended.
struct Traffic {
    calls: Arc<Mutex<Vec<Call>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<JoinHandle<()>>>,
}

impl Traffic {
    fn start(messaging: &Messaging, source: &Source) -> Self {
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let (stop, stopped) = watch::channel(false);
        let (messaging, source, noted) = (messaging.clone(), source.clone(), Arc::clone(&calls));
        let task = tokio::spawn(async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let (mut handles, mut number) = (Vec::new(), 0);
            while !*stopped.borrow() {
                ticks.tick().await;
                for _ in 0..CALLS_PER_SECOND / 100 {
                    number += 1;
                    let (id, source, noted) = (number % (READ + WRITTEN), source.clone(), Arc::clone(&noted));
                    handles.push(messaging.spawn(async move {
                        let start = clock::now();
                        let version = row(id, &source).await;
                        noted.lock().unwrap().push(Call { id, start, end: clock::now(), version });
                    }));
                }
            }
            handles
        });
        Self { calls, stop, task }
    }

    /// Waits until all calls are answered, and returns them.
    async fn end(self) -> Vec<Call> {
        self.stop.send_replace(true);
        let handles = soon(self.task).await.unwrap();
        let count = handles.len();
        let all = async {
            for handle in handles {
                handle.await.unwrap();
            }
        };
        timeout(PATIENCE, all).await.expect("every call is answered");
        let calls = self.calls.lock().unwrap().clone();
        assert_eq!(calls.len(), count, "every call is answered once");
        calls
    }
}

/// Writes to the database and tells the cache, which may not be able to do anything about it.
async fn write(messaging: &Messaging, source: &Source, id: u64, publishes: bool) -> Entry {
    let start = clock::now();
    let version = source.database.write_one(&row_name(id)).await;
    let succeeded = if publishes {
        messaging.publish("cached.row", &json!({ "id": id })).await.is_ok()
    } else {
        messaging.scope(row::invalidate(id)).await.is_ok()
    };
    let how = if publishes { How::Publish } else { How::Invalidate };
    let what = What::Write { row: row_name(id), version, how, succeeded };
    Entry { process: 1, start, end: clock::now(), what }
}

/// The whole test; `away` and `back` are what happens to Redis.
async fn outage(what: &str, away: fn(&RedisServer), back: fn(&RedisServer)) {
    let (redis, server) = (RedisServer::start(), RedisServer::start());
    let messaging = by_default(&redis.url()).messaging().await;
    let _running = messaging.start().await.unwrap();
    let mut source = Source::new(&Database::of(&server).await);
    source.slow = |_| Duration::from_millis(5);
    let stalls = Stalls::watch();
    let load = Traffic::start(&messaging, &source);
    let hits = || stats(&messaging, "row").hits;
    eventually("values are used", async || hits() > 1_000).await;

    away(&redis);
    let mut entries = Vec::new();
    // While it is away, and known to be so: all of these fail, or their fate is unknown.
    for round in 0..2 {
        let writing = (0..WRITTEN).map(|id| write(&messaging, &source, READ + id, (id + round) % 2 == 0));
        entries.extend(futures_util::future::join_all(writing).await);
    }
    let failed = |entry: &&Entry| matches!(entry.what, What::Write { succeeded: false, .. });
    assert_eq!(entries.iter().filter(failed).count(), entries.len(), "nothing can succeed: {entries:#?}");
    let before = source.begun();
    eventually("functions are called", async || source.begun() > before + 1_000).await;

    back(&redis);
    let (since, begun, hits_before) = (clock::now(), Instant::now(), hits());
    eventually("values are used again", async || hits() > hits_before).await;
    let took = begun.elapsed();
    let stalled = Duration::from_nanos(stalls::within(&stalls.all(), since, clock::now()));
    let applied = hits();
    eventually("and go on to be", async || hits() > applied + 1_000).await;
    let calls = load.end().await;
    assert!(
        took <= BACK_WITHIN + stalled,
        "used again after {took:?}, {stalled:?} of which it could do nothing"
    );

    let loads = source.take();
    let worst = extra(&calls, &loads, &stalls.all(), messaging.config().cache_timeout);
    entries.extend(calls.iter().map(|call| Entry {
        process: 1,
        start: call.start,
        end: call.end,
        what: What::Read { row: row_name(call.id), version: call.version },
    }));
    let verdict = check(&entries);
    assert!(verdict.violations.is_empty(), "{}", verdict.violations[0]);
    for id in 0..READ {
        assert_eq!(source.most_at_once(&row_name(id)), 1, "one load of {} at a time", row_name(id));
    }
    outcome(
        what,
        format_args!(
            "{} calls, {} loads, at most {worst:?} more than the function's own; used again after {took:?}",
            calls.len(),
            loads.len()
        ),
    );
}

/// What calls took beyond the function's own time: the most of it, which is the timeout of an operation unless the machine
/// was busy.
fn extra(calls: &[Call], loads: &[Load], stalls: &[stalls::Stall], limit: Duration) -> Duration {
    let mut worst = Duration::ZERO;
    for call in calls {
        let name = row_name(call.id);
        let met = |load: &&Load| load.row == name && load.start < call.end && load.end > call.start;
        // Sorted by their end: the loads that it may have met are few.
        let from = loads.partition_point(|load| load.end <= call.start);
        let met = loads[from..].iter().take_while(|load| load.end < call.end + 10_000_000_000).filter(met);
        let own =
            met.map(|load| load.end.min(call.end) - load.start.max(call.start)).max().unwrap_or_default();
        let extra = Duration::from_nanos(call.end - call.start - own);
        let turn = stalls::longest(stalls, call.start, call.end) + clock::nanos(stalls::PUNCTUAL);
        let allowed = limit + Duration::from_nanos(TURNS * turn);
        assert!(
            extra <= allowed,
            "a call of {name} took {extra:?} more than the function; {allowed:?} is right"
        );
        worst = worst.max(extra);
    }
    worst
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_hangs_under_load_costs_a_timeout() {
    outage("SIGSTOP under load", RedisServer::pause, RedisServer::resume).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_dies_under_load_costs_a_timeout() {
    outage("SIGKILL under load", RedisServer::stop, RedisServer::start_again).await;
}
