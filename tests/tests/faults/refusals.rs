//! A Redis that answers, and says no: out of memory, read-only, not allowed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use messaging_core::{
    Error, ErrorKind, HandlerState, Handlers, Messaging, Op, State, event_config, redis_cache, subscribe,
};
use messaging_tests::{RedisServer, eventually, unique};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::acl::heard_by_the_cache;
use crate::outcome;
use crate::place::{Place, Probe, soon};

const TTL: Duration = Duration::from_secs(600);

#[event_config(publish = { update = "shelf.updated" }, cache = { key = "shelf:{id}", ttl = 600 })]
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Shelf {
    id: u32,
    books: u32,
}

static LOADS: AtomicU32 = AtomicU32::new(0);

#[redis_cache(key = "books:{id}", ttl = 600, invalidate_on = ["shelf.updated"])]
async fn books(id: u32) -> u32 {
    LOADS.fetch_add(1, Ordering::SeqCst);
    id * 10
}

#[subscribe("shelf.updated")]
async fn on_shelf(shelf: Shelf, probe: State<Probe>) {
    probe.tell(shelf.books);
}

#[subscribe("closed")]
async fn on_closed(number: u32, probe: State<Probe>) {
    probe.tell(number);
}

/// What every refusal is.
#[track_caller]
fn refused(error: &Error, words: &str) {
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.is_not_sent() && !error.is_retryable(), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

async fn cache_works(messaging: &Messaging) -> bool {
    messaging.cache("c").set("a", &1, TTL).await.is_ok()
}

/// Publishing and subscribing go on where storing is refused: a cache entry that cannot be written costs no event.
async fn goes_on_without_storing(messaging: &Messaging, probe: &Probe, words: &str) {
    let cache = messaging.cache("c");
    refused(&cache.set("a", &1, TTL).await.unwrap_err(), words);
    assert_eq!(cache.get::<u32>("nothing").await.unwrap(), None, "reading is allowed");
    for _ in 0..2 {
        let loads = LOADS.load(Ordering::SeqCst);
        assert_eq!(soon(messaging.scope(books(4))).await, 40);
        assert_eq!(LOADS.load(Ordering::SeqCst), loads + 1, "it runs each time");
    }
    let before = probe.told().len();
    let shelf = Shelf { id: 4, books: 1 };
    assert!(messaging.emit(Op::Update, &shelf).await.unwrap() >= 1);
    assert!(messaging.publish("shelf.updated", &json!({ "id": 4, "books": 2 })).await.unwrap() >= 1);
    assert_eq!(probe.wait_for(before + 2).await[before..], ["1", "2"]);
    assert!(messaging.health().is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_and_a_replica_refuse_to_store_and_carry_messages() {
    // One test, for both count the loads of one function.
    let redis = RedisServer::builder().arg("--maxmemory-policy", "noeviction").start();
    let place = Place::at(&redis.url());
    let (running, probe) = place.with_handler("faults::refusals::on_shelf").await;
    let messaging = running.messaging();
    assert!(cache_works(messaging).await);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    goes_on_without_storing(messaging, &probe, "its `maxmemory` is used up").await;
    // What makes room is allowed.
    messaging.cache("c").invalidate("a").await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert!(cache_works(messaging).await);

    let primary = RedisServer::start();
    redis.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    eventually("it follows", async || redis.cli(&["INFO", "replication"]).contains("master_link_status:up"))
        .await;
    goes_on_without_storing(messaging, &probe, "connect to the primary").await;
    refused(&messaging.cache("c").invalidate("a").await.unwrap_err(), "connect to the primary");
    // What is published at the primary reaches the subscribers of its replicas, and not the other way round.
    let told = probe.told().len();
    let wire = format!("{}shelf.updated", place.config.channel_prefix);
    primary.cli(&["PUBLISH", &wire, r#"{"id":4,"books":7}"#]);
    assert_eq!(probe.wait_for(told + 1).await.last().unwrap(), "7");

    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    eventually("it takes writes again", async || cache_works(messaging).await).await;
    let health = messaging.health();
    assert_eq!((health.handlers[0].counts.gaps, health.handlers[0].counts.handled), (0, 5), "{health:?}");
    outcome("full, then a replica", "storing refused, every message carried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_forbidden_for_a_while() {
    let redis = RedisServer::builder().acl("user service on >pw ~* &* +@all").start();
    let place = Place::at(&redis.url_for("service", "pw"));
    let probe = Probe::default();
    let handlers = Handlers::only(["faults::refusals::on_shelf", "faults::refusals::on_closed"]);
    let messaging = place.builder().handlers(handlers).state(probe.clone()).build().await.unwrap();
    let _running = messaging.start().await.unwrap();
    assert_eq!(messaging.scope(crate::interruptions::cached("7")).await, 1);
    let prefix = &place.config.channel_prefix;
    let (shelf, closed) = (format!("&{prefix}shelf.updated"), format!("&{prefix}closed"));
    let cached = heard_by_the_cache(&place.config);
    let mut allow = vec!["ACL", "SETUSER", "service", "resetchannels", &shelf];
    allow.extend(cached.iter().map(String::as_str));
    redis.cli(&allow);

    let state = |id: &str| {
        let health = messaging.health();
        let handler = health.handlers.into_iter().find(|handler| handler.id.ends_with(id)).unwrap();
        (handler.state, handler.counts.gaps)
    };
    eventually("one is deaf and the other is not", async || {
        (state("on_closed").0, state("on_shelf")) == (HandlerState::Deaf, (HandlerState::Running, 1))
    })
    .await;
    let health = messaging.health();
    assert!(!health.is_ready());
    let unconfirmed = async || {
        let session = messaging.health().sessions.swap_remove(0);
        session.unconfirmed.into_iter().find_map(|unconfirmed| unconfirmed.reason)
    };
    let reason = eventually("health says why", unconfirmed).await;
    assert!(reason.contains("NOPERM"), "{reason}");
    refused(&messaging.publish("closed", &1).await.unwrap_err(), "its ACL does not allow this user");
    refused(&messaging.subscribe("closed").await.unwrap_err(), "NOPERM");
    // Everything else goes on.
    messaging.publish("shelf.updated", &json!({ "id": 1, "books": 3 })).await.unwrap();
    assert_eq!(probe.wait_for(1).await, ["3"]);
    let key = unique("key");
    assert_eq!(soon(messaging.scope(crate::interruptions::cached(&key))).await, key.len());

    redis.cli(&["ACL", "SETUSER", "service", &closed]);
    eventually("both are heard", async || messaging.health().is_ready()).await;
    soon(async { messaging.publish("closed", &9).await }).await.unwrap();
    assert_eq!(probe.wait_for(2).await, ["3", "9"]);
    assert_eq!((state("on_closed").1, state("on_shelf").1), (1, 1), "one gap each");
    outcome("forbidden channel", "deaf and said so, back with one gap; the others went on");
}
