//! What the options of a cached function change about its promises: `local`, `stale` and `wait`.

use std::time::Duration;

use futures_util::future::join_all;
use messaging_core::{Messaging, Running};
use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::time::sleep;

use super::database::{Database, Source};
use super::history::{Entry, How, What, check};
use super::stalls::Stalls;
use super::{LAG, aging, aging_name, at, clock, hasty, hasty_name, near, near_name, patient, stats};
use crate::outcome;
use crate::place::soon;

/// Two processes, one of them behind a proxy.
struct Two {
    redis: RedisServer,
    _server: RedisServer,
    proxy: Proxy,
    one: Messaging,
    other: Messaging,
    _running: [Running; 2],
    source: Source,
}

impl Two {
    async fn start() -> Self {
        let (redis, server) = (RedisServer::start(), RedisServer::start());
        let proxy = Proxy::before(redis.port()).await;
        let messaging = async |url: &str| {
            let mut place = patient(url);
            place.config.cache_lag = LAG;
            place.messaging().await
        };
        let (one, other) = (messaging(&at(proxy.port())).await, messaging(&redis.url()).await);
        let running = [one.start().await.unwrap(), other.start().await.unwrap()];
        let source = Source::new(&Database::of(&server).await);
        Self { redis, _server: server, proxy, one, other, _running: running, source }
    }

    async fn stored(&self, name: &str, version: u64, read: impl AsyncFn() -> u64) {
        let stored = async || {
            read().await;
            self.redis.cli(&["GET", name]) == version.to_string()
        };
        eventually("the value is stored", stored).await;
    }

    /// Reads in one process until values of its own answer.
    async fn is_near(&self, messaging: &Messaging) {
        let before = stats(messaging, "near").local_hits;
        eventually("the process keeps it", async || {
            messaging.scope(near(1, &self.source)).await;
            stats(messaging, "near").local_hits > before
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_keeps_follows_its_own_words_at_once_and_those_of_others_in_time() {
    let two = Two::start().await;
    let (source, name) = (&two.source, near_name(1));
    let stalls = Stalls::watch();
    let mut entries = Vec::new();
    for round in 0..12 {
        for messaging in [&two.one, &two.other] {
            two.is_near(messaging).await;
        }
        let start = clock::now();
        let version = source.database.write_one(&name).await;
        let how = if round % 3 == 2 { How::Foreign } else { How::Publish };
        let succeeded = match round % 3 {
            0 => two.one.scope(near::invalidate(1)).await.is_ok(),
            1 => two.one.publish("cached.near", &serde_json::json!({ "id": 1 })).await.is_ok(),
            _ => two.redis.try_cli(&["PUBLISH", "cached.near", r#"{"id":1}"#]).is_ok(),
        };
        assert!(succeeded);
        let what = What::Write { row: name.clone(), version, how, succeeded };
        entries.push(Entry { process: 1, start, end: clock::now(), what });
        // As long as anything may be out of date, and then some.
        let until = clock::now() + clock::nanos(LAG * 3 / 2);
        while clock::now() < until {
            for (process, messaging) in [(1, &two.one), (2, &two.other)] {
                let start = clock::now();
                let version = messaging.scope(near(1, source)).await;
                let what = What::Read { row: name.clone(), version };
                entries.push(Entry { process, start, end: clock::now(), what });
            }
            // At first as fast as it can: some calls come between an event and what follows from it.
            if clock::now() < start + 20_000_000 {
                tokio::task::yield_now().await;
            } else {
                sleep(Duration::from_millis(2)).await;
            }
        }
    }
    let stalled = stalls.all();
    for process in [1, 2] {
        let entry =
            |(start, end): &(u64, u64)| Entry { process, start: *start, end: *end, what: What::Stall };
        entries.extend(stalled.iter().map(entry));
    }
    entries.sort_by_key(|entry| entry.start);
    let verdict = check(&entries);
    assert!(verdict.violations.is_empty(), "{}", verdict.violations[0]);
    outcome("local", format_args!("{} reads in two processes, none out of date for too long", verdict.reads));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_keeps_is_not_used_when_it_hears_nothing() {
    let two = Two::start().await;
    two.is_near(&two.one).await;
    let begun = clock::now();
    two.proxy.hold(Direction::ToClient);
    let stalls = Stalls::watch();
    // Nothing has changed, but nobody here can know.
    let mut last = begun;
    let mut before = stats(&two.one, "near").local_hits;
    eventually("it is not used any more", async || {
        let start = clock::now();
        // Its own values answer at once, and everything else takes as long as a Redis that does not answer.
        let read = two.one.scope(near(1, &two.source));
        let _ = tokio::time::timeout(Duration::from_millis(20), read).await;
        let hits = stats(&two.one, "near").local_hits;
        if hits > before {
            (last, before) = (start, hits);
        }
        clock::now() - last > clock::nanos(LAG)
    })
    .await;
    let used_for = last - begun;
    let allowed = clock::nanos(LAG) + super::stalls::within(&stalls.all(), begun, clock::now());
    assert!(used_for <= allowed, "it was used for {:?}", Duration::from_nanos(used_for));
    two.proxy.heal().await;
    two.is_near(&two.one).await;
    outcome("local, held up", format_args!("not used after {:?}", Duration::from_nanos(used_for)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_past_its_time_answers_at_once_while_one_loads() {
    let two = Two::start().await;
    let (source, name) = (&two.source, aging_name(1));
    let read = async |messaging: &Messaging| soon(messaging.scope(aging(1, source.clone()))).await;
    two.stored(&name, 0, async || read(&two.one).await).await;
    let loads = source.database.loads(&name).await;
    source.database.shut(&name).await;
    // The database says something else by now, and no event has spoken of it.
    let version = source.database.write_one(&name).await;
    eventually("one loads", async || {
        let calls = (0..20).map(|call| read(if call % 2 == 0 { &two.one } else { &two.other }));
        assert!(join_all(calls).await.iter().all(|read| *read == 0), "and nobody waits for it");
        source.database.loads(&name).await > loads
    })
    .await;
    for _ in 0..20 {
        assert_eq!([read(&two.one).await, read(&two.other).await], [0, 0]);
    }
    assert_eq!(source.database.loads(&name).await, loads + 1, "one loads for all processes");
    // What is invalidated is not answered with, however much time it has left.
    let newest = source.database.write_one(&name).await;
    two.other.scope(aging::invalidate(1)).await.unwrap();
    let waiting = {
        let (messaging, source) = (two.one.clone(), source.clone());
        two.one.spawn(async move { messaging.scope(aging(1, source)).await })
    };
    eventually("it is loaded anew", async || source.database.loads(&name).await > loads + 1).await;
    source.database.open(&name).await;
    assert_eq!(soon(waiting).await.unwrap(), newest, "{version} was invalidated too");
    two.stored(&name, newest, async || read(&two.other).await).await;
    outcome("stale", "answers at once, loads once, and never after an invalidation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_wait_long_shares_one_more_load() {
    let two = Two::start().await;
    let (source, name) = (&two.source, hasty_name(1));
    source.database.shut(&name).await;
    let call = |messaging: &Messaging| {
        let source = source.clone();
        messaging.spawn(async move { hasty(1, &source).await })
    };
    // Coverage first: what is not covered is loaded without a lease.
    for messaging in [&two.one, &two.other] {
        let covered = async || {
            let loads = stats(messaging, "hasty").uncached;
            messaging.scope(hasty(2, source)).await;
            stats(messaging, "hasty").uncached == loads
        };
        eventually("values are used", covered).await;
    }
    let first = call(&two.one);
    eventually("the first process loads", async || source.database.loads(&name).await == 1).await;
    let misses = stats(&two.other, "hasty").misses;
    let callers: Vec<_> = (0..100).map(|_| call(&two.other)).collect();
    // All of them before the first has waited long enough.
    eventually("they wait", async || stats(&two.other, "hasty").misses >= misses + 100).await;
    eventually("the other one loads too", async || source.database.loads(&name).await == 2).await;
    // Who comes to the end of his patience when that load is over begins another one.
    let all_have_waited = std::time::Instant::now() + Duration::from_secs(3);
    eventually("all have waited long enough", async || std::time::Instant::now() > all_have_waited).await;
    // Who comes later does not share it: it may have begun before something that he has to know of.
    let version = source.database.write_one(&name).await;
    let late = call(&two.other);
    source.database.open(&name).await;
    assert_eq!(soon(first).await.unwrap(), 0);
    for caller in callers {
        assert!(soon(caller).await.unwrap() <= version);
    }
    soon(late).await.unwrap();
    let loads = source.database.loads(&name).await;
    assert!(
        (2..=3).contains(&loads),
        "{loads} loads: one more for a hundred callers, and one for who came late"
    );
    assert!(source.most_at_once(&name) <= 2, "one in each process at a time");
    outcome("wait", format_args!("{loads} loads for 102 callers"));
}
