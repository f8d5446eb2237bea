//! What each operation asks of Redis: the table of the protocol, counted on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use messaging_core::Messaging;
use messaging_tests::{Meter, RedisServer, Request, eventually};
use serde_json::json;

use super::database::{Database, Source};
use super::{at, patient, row, row_name, stats};
use crate::outcome;

const KEY: u64 = 7;
const VALUE: &str = "row:7";
const LEASE: &str = "msg:lease:{row:7}";
const GENERATION: &str = "msg:{cache}:gen";
/// What the cache asks by itself is about these, whenever it comes.
const OF_ITS_OWN: &[&str] = &["msg:{cache}:cover", "msg:{cache}:families", "msg:{cache}:expiries"];
const MARKS: &str = "msg:cache:own";

/// Somebody whose every command is noted, and what the functions load from.
struct Metered {
    redis: RedisServer,
    meter: Meter,
    messaging: Messaging,
    source: Source,
    _server: RedisServer,
}

impl Metered {
    async fn start() -> Self {
        let (redis, server) = (RedisServer::start(), RedisServer::start());
        let meter = Meter::before(redis.port()).await;
        let messaging = patient(&at(meter.port())).messaging().await;
        let _running = messaging.start().await.unwrap();
        let source = Source::new(&Database::of(&server).await);
        let metered = Self { redis, meter, messaging, source, _server: server };
        // Connections are made, and scripts are known, before anything is counted.
        metered.call(1_000).await;
        metered.stored(1_000).await;
        metered.call(1_000).await;
        metered.messaging.publish("cached.row", &json!({ "id": 1_000 })).await.unwrap();
        metered.messaging.scope(row::invalidate(1_000)).await.unwrap();
        let mut own = 0;
        eventually("the cache has found its pace", async || {
            let scripts = metered.meter.take().into_iter().filter(|request| request.name() == "EVALSHA");
            own += scripts.filter(is_of_its_own).count();
            own > 3
        })
        .await;
        metered
    }

    async fn call(&self, id: u64) -> u64 {
        self.messaging.scope(row(id, &self.source)).await
    }

    async fn stored(&self, id: u64) {
        let stored = async || self.redis.cli(&["EXISTS", &row_name(id)]) == "1";
        eventually("the value is stored", stored).await;
    }

    /// What has been asked on the path of callers and publishers.
    fn asked(&self) -> Vec<Request> {
        let mut requests = self.meter.take();
        requests.retain(|request| !is_of_its_own(request));
        requests
    }
}

/// Whether the cache asks this by itself, and no call waits for it: coverage, flushes and the registry, known by their keys;
/// and what a connection needs to live.
fn is_of_its_own(request: &Request) -> bool {
    let is_own = |word: &String| OF_ITS_OWN.iter().any(|own| word.starts_with(own));
    let of_a_connection = ["PING", "HELLO", "CLIENT", "SUBSCRIBE", "PSUBSCRIBE", "INFO", "ROLE"];
    // A script has no keys before it is called; those of coverage speak of nothing else.
    let is_script = request.name() == "SCRIPT" && request.words.iter().any(|word| word.contains(":proven"));
    is_script || request.words.iter().any(is_own) || of_a_connection.contains(&request.name())
}

/// How often somebody waited for an answer before asking the next.
fn round_trips(requests: &[Request]) -> usize {
    let rounds: BTreeSet<_> = requests.iter().map(|request| (request.connection, request.round)).collect();
    rounds.len()
}

/// A message and its mark may be one transaction.
fn without_brackets(mut requests: Vec<Request>) -> Vec<Request> {
    requests.retain(|request| !["MULTI", "EXEC"].contains(&request.name()));
    requests
}

/// What is written may be preceded by the question whether others have changed what they cache.
fn without_registry(mut requests: Vec<Request>) -> Vec<Request> {
    requests.retain(|request| request.words != ["GET", GENERATION]);
    requests
}

fn names(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(Request::name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_asks_as_often_as_the_table_says() {
    let metered = Metered::start().await;
    let messaging = &metered.messaging;
    // A version that cannot be taken for anything else.
    let version = 123_456_789;
    metered.source.database.is_at(VALUE, version).await;

    // A miss: who has it, may I, here it is; the last of them behind the caller's back.
    assert_eq!(metered.call(KEY).await, version);
    metered.stored(KEY).await;
    let asked = metered.asked();
    assert_eq!(names(&asked), ["MGET", "EVALSHA", "EVALSHA"], "{asked:#?}");
    assert_eq!(asked[0].words[1..], [VALUE, LEASE]);
    assert!(asked.iter().all(|request| request.mentions(VALUE) && request.mentions(LEASE)));
    assert_ne!(asked[1].words[1], asked[2].words[1], "to take the lease and to store are two scripts");
    assert!(!asked[1].mentions(&version.to_string()) && asked[2].mentions(&version.to_string()));
    assert_eq!(round_trips(&asked), 3);

    // Hits: one question each, and no other.
    let before = stats(messaging, "row").hits;
    for _ in 0..10 {
        assert_eq!(metered.call(KEY).await, version);
    }
    let asked = metered.asked();
    assert_eq!(stats(messaging, "row").hits, before + 10);
    assert_eq!((names(&asked), round_trips(&asked)), (vec!["MGET"; 10], 10), "{asked:#?}");
    assert!(asked.iter().all(|request| request.words[1..] == [VALUE, LEASE]));

    // A value that is written: all or nothing.
    messaging.cache("row").set("7", &70, Duration::from_secs(60)).await.unwrap();
    let asked = metered.asked();
    assert_eq!(round_trips(&asked), 1, "{asked:#?}");
    let asked = without_registry(asked);
    assert_eq!(names(&asked)[..4], ["MULTI", "SET", "UNLINK", "EXEC"], "{asked:#?}");
    assert!(names(&asked)[4..].iter().all(|name| *name == "PUBLISH"), "others may be told: {asked:#?}");
    assert_eq!(asked[2].words[1..], [LEASE]);

    // An exact invalidation.
    messaging.scope(row::invalidate(KEY)).await.unwrap();
    let asked = metered.asked();
    assert_eq!(round_trips(&asked), 1, "{asked:#?}");
    let asked = without_registry(asked);
    assert_eq!(asked[0].words, ["UNLINK", VALUE, LEASE], "{asked:#?}");
    assert!(names(&asked)[1..].iter().all(|name| *name == "PUBLISH"), "others may be told: {asked:#?}");

    // An event: in one go, the value before the message.
    metered.call(KEY).await;
    metered.stored(KEY).await;
    metered.meter.take();
    let payload = json!({ "id": KEY });
    messaging.publish("cached.row", &payload).await.unwrap();
    let asked = without_brackets(metered.asked());
    assert_eq!(round_trips(&asked), 1, "{asked:#?}");
    let place = |wanted: &dyn Fn(&Request) -> bool| asked.iter().position(wanted);
    let unlinked = place(&|request| request.name() == "UNLINK" && request.mentions(VALUE));
    let published = place(&|request| request.words == ["PUBLISH", "cached.row", &payload.to_string()]);
    assert!(unlinked.is_some() && unlinked < published, "{asked:#?}");
    assert_eq!(published, Some(asked.len() - 1), "the message comes last: {asked:#?}");
    let lease = place(&|request| request.name() == "UNLINK" && request.mentions(LEASE));
    assert!(lease.is_some() && lease < published, "the running load is defeated too: {asked:#?}");
    outcome("round trips", "as the table says");
}

/// What the registry of families adds to a publish: who else caches may have changed, which is asked in the same go, and
/// one mark for the other listeners.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_asks_whether_the_families_have_changed_and_marks_its_event() {
    let metered = Metered::start().await;
    metered.messaging.publish("cached.row", &json!({ "id": KEY })).await.unwrap();
    let asked = without_brackets(metered.asked());
    assert_eq!(asked[0].words, ["GET", GENERATION], "{asked:#?}");
    let marks: Vec<_> =
        asked.iter().filter(|request| request.name() == "PUBLISH" && request.mentions(MARKS)).collect();
    assert_eq!((marks.len(), round_trips(&asked)), (1, 1), "{asked:#?}");
    assert_eq!(asked[asked.len() - 2], *marks[0], "just before the message");
    // On a channel of which no family wants to know nothing is removed, and there is no mark.
    metered.messaging.publish("nobody.caches", &1).await.unwrap();
    let asked = metered.asked();
    assert_eq!(round_trips(&asked), 1, "{asked:#?}");
    assert_eq!(names(&without_registry(asked)), ["PUBLISH"]);
    outcome("a publish", "GET, UNLINK, mark and message in one go");
}
