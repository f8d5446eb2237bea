//! Invalidations that fail, scripts that are gone, and a publisher that dies between its steps.

use std::time::Duration;

use futures_util::future::join_all;
use messaging_core::Messaging;
use messaging_tests::{Direction, Meter, Proxy, RedisServer, eventually};
use serde_json::json;

use super::database::{Database, Source};
use super::{at, by_default, patient, row, row_name, stats};
use crate::place::soon;
use crate::{child, outcome};

/// How Redis is out of reach, while it keeps what it has.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// Nothing is sent.
    Refused,
    /// Nothing comes back, and what was sent may have arrived.
    Silent,
    /// Nothing arrives, and what was sent may arrive later.
    Interrupted,
}

impl Away {
    async fn begin(self, proxy: &Proxy) {
        match self {
            Self::Refused => {
                proxy.refuse().await;
                proxy.cut();
            }
            Self::Silent => proxy.hold(Direction::ToClient),
            Self::Interrupted => proxy.hold(Direction::Both),
        }
    }
}

/// How the cache is told.
#[derive(Clone, Copy, Debug)]
enum Told {
    Invalidate,
    Event,
    /// By the cache manager, for a value that no event concerns.
    ByHand,
}

struct Trial {
    messaging: Messaging,
    source: Source,
}

impl Trial {
    async fn read(&self, told: Told) -> u64 {
        match told {
            Told::Invalidate | Told::Event => self.messaging.scope(row(1, &self.source)).await,
            Told::ByHand => {
                let load = async { Ok::<u64, std::fmt::Error>(self.source.load(&row_name(1)).await) };
                let minutes = Duration::from_secs(600);
                soon(self.messaging.cache("hand").get_or_load("1", minutes, load)).await.unwrap()
            }
        }
    }

    async fn tell(&self, told: Told) -> bool {
        match told {
            Told::Invalidate => self.messaging.scope(row::invalidate(1)).await.is_ok(),
            Told::Event => self.messaging.publish("cached.row", &json!({ "id": 1 })).await.is_ok(),
            Told::ByHand => self.messaging.cache("hand").invalidate("1").await.is_ok(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_invalidated_is_not_used_by_who_asked() {
    for away in [Away::Refused, Away::Silent, Away::Interrupted] {
        for told in [Told::Invalidate, Told::Event, Told::ByHand] {
            failed_invalidation(away, told).await;
        }
    }
}

async fn failed_invalidation(away: Away, told: Told) {
    let (redis, server) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::before(redis.port()).await;
    let messaging = by_default(&at(proxy.port())).messaging().await;
    let _running = messaging.start().await.unwrap();
    let database = Database::of(&server).await;
    let trial = Trial { messaging, source: Source::new(&database) };
    let key = if matches!(told, Told::ByHand) { "hand:1".to_owned() } else { row_name(1) };
    let stored = async |version: u64| redis.cli(&["GET", &key]) == version.to_string();
    eventually("the old value is stored", async || {
        trial.read(told).await;
        stored(0).await
    })
    .await;
    away.begin(&proxy).await;
    let version = database.write_one(&row_name(1)).await;
    assert!(!soon(trial.tell(told)).await, "{away:?}, {told:?}: it cannot succeed");
    assert_eq!(soon(trial.read(told)).await, version, "{away:?}, {told:?}: while it is away");
    if matches!(away, Away::Refused) {
        assert!(stored(0).await, "Redis knows nothing of it");
    }
    proxy.heal().await;
    // Each read until values are used again, and some after.
    let mut reads = 0;
    eventually("the new value is stored and used", async || {
        let begun = trial.source.begun();
        assert_eq!(trial.read(told).await, version, "{away:?}, {told:?}: after {reads} reads");
        reads += 1;
        trial.source.begun() == begun && stored(version).await
    })
    .await;
    outcome("Redis is away", format_args!("{away:?}, {told:?}: fresh, and stored after {reads} reads"));
}

/// How often scripts are flushed in the three moments that there are.
const ROUNDS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_are_flushed_are_loaded_again() {
    let (redis, server) = (RedisServer::start(), RedisServer::start());
    let messaging = patient(&redis.url()).messaging().await;
    let _running = messaging.start().await.unwrap();
    let source = Source::new(&Database::of(&server).await);
    assert_eq!(messaging.scope(row(1, &source)).await, 0);
    let before = stats(&messaging, "row").uncached;
    let mut flushes = 0;
    let mut flush = || {
        redis.cli(&["SCRIPT", "FLUSH"]);
        flushes += 1;
    };
    for _ in 0..ROUNDS {
        let version = source.database.write_one(&row_name(1)).await;
        flush();
        messaging.scope(row::invalidate(1)).await.unwrap();
        let callers: Vec<_> = (0..20)
            .map(|_| {
                let source = source.clone();
                messaging.spawn(async move { row(1, &source).await })
            })
            .collect();
        flush();
        for caller in join_all(callers).await {
            assert_eq!(caller.unwrap(), version);
        }
        flush();
        eventually("the new value is stored", async || {
            assert_eq!(messaging.scope(row(1, &source)).await, version);
            redis.cli(&["GET", &row_name(1)]) == version.to_string()
        })
        .await;
    }
    // One that comes between sending a script and calling it costs a load, and no more than that.
    let loads = source.database.loads(&row_name(1)).await;
    assert!((ROUNDS + 1..=ROUNDS + 1 + flushes).contains(&loads), "{loads} loads");
    let uncached = stats(&messaging, "row").uncached - before;
    assert!(uncached <= flushes, "{uncached} calls went without the cache");
    outcome(
        "SCRIPT FLUSH",
        format_args!(
            "{flushes} times under load: {loads} loads in {ROUNDS} rounds, {uncached} calls uncached"
        ),
    );
}

const METER: &str = "FAILING_METER";

#[test]
fn a_publisher_that_dies_has_done_all_or_nothing() {
    const TEST: &str = "cache::failing::a_publisher_that_dies_has_done_all_or_nothing";
    if child::is(TEST) {
        return child::run(async {
            let url = std::env::var(METER).expect("the parent has set it");
            let messaging = patient(&url).messaging().await;
            let _running = messaging.start().await.unwrap();
            println!("\nready");
            let _ = messaging.publish("cached.row", &json!({ "id": 1 })).await;
            println!("\npublished");
            std::future::pending::<()>().await;
        });
    }
    child::run_here(async {
        let (redis, server) = (RedisServer::start(), RedisServer::start());
        let meter = Meter::before(redis.port()).await;
        let (messaging, late) =
            (patient(&redis.url()).messaging().await, patient(&redis.url()).messaging().await);
        let _running = messaging.start().await.unwrap();
        let source = Source::new(&Database::of(&server).await);
        let name = row_name(1);
        let stored = async |version: u64| redis.cli(&["GET", &name]) == version.to_string();
        eventually("the old value is stored", async || {
            messaging.scope(row(1, &source)).await;
            stored(0).await
        })
        .await;
        // One that replaces it has read it before it changes.
        source.database.shut(&name).await;
        let loads = source.database.loads(&name).await;
        let running = {
            let source = source.clone();
            messaging.spawn(async move { row::refresh(1, &source).await })
        };
        eventually("it loads", async || source.database.loads(&name).await == loads + 1).await;
        let version = source.database.write_one(&name).await;

        // Before the last of its steps: the removal and the event are one.
        let early = Meter::before(redis.port()).await;
        early.halt_after(&["UNLINK", &name]);
        let publisher = child::start_with(TEST, "", &[(METER, &at(early.port()))]);
        soon(early.halted()).await;
        drop((publisher, early));
        assert!(stored(0).await, "nothing has happened");

        meter.halt_after(&["EXEC"]);
        let publisher = child::start_with(TEST, "", &[(METER, &at(meter.port()))]);
        soon(meter.halted()).await;
        let gone = async || redis.cli(&["EXISTS", &name]) == "0";
        eventually("the value is gone", gone).await;
        drop(publisher);
        source.database.open(&name).await;
        assert_eq!(soon(running).await.unwrap(), 0, "it had read the old version");
        assert_eq!(redis.cli(&["EXISTS", &name]), "0", "and is not stored");
        for reader in [&messaging, &late] {
            assert_eq!(soon(reader.scope(row(1, &source))).await, version);
        }
        eventually("the new value is stored", async || {
            assert_eq!(soon(messaging.scope(row(1, &source))).await, version);
            stored(version).await
        })
        .await;
        outcome(
            "a publisher killed in the middle",
            "all or nothing; nobody reads the old value, nothing hangs",
        );
    });
}
