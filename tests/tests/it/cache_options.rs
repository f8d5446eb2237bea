//! The options of cached functions: values that are kept in the process, values that are served past their time, waiting;
//! and what follows from events for all of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use messaging_core::{CacheStats, Channel, ErrorKind, Messaging, State, redis_cache, subscribe};
use messaging_tests::{eventually, unique};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::place::{Place, Probe, on_each_backend, soon};

on_each_backend! {
    a_local_hit_asks_nobody
    a_function_without_events_is_kept_too
    what_one_process_invalidates_the_others_do_not_keep
    an_event_reaches_what_is_kept_in_the_process
    a_flush_reaches_what_is_kept_in_the_process
    a_sharded_event_reaches_what_is_kept_in_the_process
    a_value_past_its_time_is_served_while_one_is_loaded
    a_value_past_its_time_is_served_though_the_function_fails
    an_invalidated_value_is_not_served_past_its_time
    a_refresh_takes_over_from_a_load_that_began_before
    errors_are_shared_by_those_who_wait
    who_has_waited_long_enough_loads
    all_values_of_a_function_are_removed
    a_handler_reads_nothing_older_than_its_event
    values_that_nobody_looked_after_are_not_served
    an_event_of_ours_does_not_defeat_the_reloads_of_others
    an_event_that_is_too_large_may_mean_any_value
    a_function_whose_keys_could_be_anybodys_is_not_flushed
}

/// What the functions read: versions by key.
static VERSIONS: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(Mutex::default);
static LOADS: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(Mutex::default);

fn write(key: &str, version: u32) {
    VERSIONS.lock().unwrap().insert(key.to_owned(), version);
}

fn read(key: &str) -> u32 {
    *LOADS.lock().unwrap().entry(key.to_owned()).or_default() += 1;
    VERSIONS.lock().unwrap().get(key).copied().unwrap_or(0)
}

fn loads(key: &str) -> u32 {
    LOADS.lock().unwrap().get(key).copied().unwrap_or(0)
}

fn stats(messaging: &Messaging, function: &str) -> CacheStats {
    let mut caches = messaging.health().caches.into_iter();
    caches.find(|stats| stats.function == function).expect("it is cached")
}

// Kept for longer than any test waits: what goes has been removed.
#[redis_cache(key = "kept:{key}", ttl = 600, local = "600s", invalidate_on = ["kept.changed"], id = "kept")]
async fn kept(key: &str) -> u32 {
    read(key)
}

#[redis_cache(key = "plain:{key}", ttl = 600, local = { ttl = "600s", max = 100 }, id = "plain")]
async fn plain(key: &str) -> u32 {
    read(key)
}

/// Reads until the value comes from this process's memory.
async fn warm(messaging: &Messaging, key: &str) {
    eventually("it is kept in the process", async || {
        let before = (stats(messaging, "kept").local_hits, stats(messaging, "plain").local_hits);
        messaging.scope(async { (kept(key).await, plain(key).await) }).await;
        let after = (stats(messaging, "kept").local_hits, stats(messaging, "plain").local_hits);
        after.0 > before.0 && after.1 > before.1
    })
    .await;
}

async fn a_local_hit_asks_nobody(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    write(&key, 1);
    warm(&messaging, &key).await;
    let before = stats(&messaging, "kept");
    // What is in Redis does not matter: only its own process would tell.
    messaging.scope(async { assert_eq!((kept(&key).await, kept(&key).await), (1, 1)) }).await;
    let after = stats(&messaging, "kept");
    assert_eq!((after.local_hits - before.local_hits, after.hits), (2, before.hits));
    assert_eq!(loads(&key), 2, "one for each function");
}

async fn a_function_without_events_is_kept_too(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    write(&key, 1);
    eventually("it is kept in the process", async || {
        assert_eq!(messaging.scope(plain(&key)).await, 1);
        stats(&messaging, "plain").local_hits > 0
    })
    .await;
}

async fn what_one_process_invalidates_the_others_do_not_keep(place: Place) {
    let (one, other, key) = (place.messaging().await, place.messaging().await, unique("k"));
    write(&key, 1);
    warm(&one, &key).await;
    warm(&other, &key).await;
    write(&key, 2);
    one.scope(plain::invalidate(&key)).await.unwrap();
    assert_eq!(one.scope(plain(&key)).await, 2, "the process itself is told before the call returns");
    eventually("the other is told", async || other.scope(plain(&key)).await == 2).await;
    warm(&other, &key).await;
    one.cache("plain").set(&key, &3, Duration::from_secs(60)).await.unwrap();
    assert_eq!(one.scope(plain(&key)).await, 3);
    eventually("of a write too", async || other.scope(plain(&key)).await == 3).await;
    warm(&other, &key).await;
    write(&key, 4);
    assert_eq!(one.scope(plain::refresh(&key)).await, 4);
    assert_eq!(one.scope(plain(&key)).await, 4);
    eventually("and of a refresh", async || other.scope(plain(&key)).await == 4).await;
}

async fn an_event_reaches_what_is_kept_in_the_process(place: Place) {
    let (one, other, key) = (place.messaging().await, place.messaging().await, unique("k"));
    write(&key, 1);
    warm(&one, &key).await;
    warm(&other, &key).await;
    write(&key, 2);
    one.publish("kept.changed", &json!({ "key": key })).await.unwrap();
    assert_eq!(one.scope(kept(&key)).await, 2, "the publisher does not even wait for its event");
    eventually("the other hears it", async || other.scope(kept(&key)).await == 2).await;
}

async fn a_flush_reaches_what_is_kept_in_the_process(place: Place) {
    let (one, other, key) = (place.messaging().await, place.messaging().await, unique("k"));
    write(&key, 1);
    warm(&one, &key).await;
    warm(&other, &key).await;
    write(&key, 2);
    one.cache("plain").invalidate_pattern("*").await.unwrap();
    assert_eq!(one.scope(plain(&key)).await, 2);
    eventually("the other is told", async || other.scope(plain(&key)).await == 2).await;
    one.publish("kept.changed", &json!({ "nothing": "said" })).await.unwrap();
    eventually("the event is for all", async || {
        one.scope(kept(&key)).await == 2 && other.scope(kept(&key)).await == 2
    })
    .await;
}

/// Nobody listens to sharded channels for the cache: their publishers tell.
async fn a_sharded_event_reaches_what_is_kept_in_the_process(place: Place) {
    let (one, other, key) = (place.messaging().await, place.messaging().await, unique("k"));
    for (version, event) in [(2, json!({ "key": key })), (3, json!({ "nothing": "said" }))] {
        write(&key, version - 1);
        warm(&one, &key).await;
        warm(&other, &key).await;
        write(&key, version);
        one.publish("kept.changed", &event).sharded().await.unwrap();
        assert_eq!(one.scope(kept(&key)).await, version, "{event}");
        eventually("the other is told", async || other.scope(kept(&key)).await == version).await;
    }
}

#[derive(Clone)]
struct Slow(Arc<Inner>);

struct Inner {
    gate: Semaphore,
    began: AtomicU32,
}

impl Slow {
    fn new() -> Self {
        Self(Arc::new(Inner { gate: Semaphore::new(0), began: AtomicU32::new(0) }))
    }

    async fn began(&self, count: u32) {
        eventually("it loads", async || self.0.began.load(Ordering::SeqCst) >= count).await;
    }

    async fn load(&self, key: &str) -> Result<u32, String> {
        let version = read(key);
        self.0.began.fetch_add(1, Ordering::SeqCst);
        self.0.gate.acquire().await.unwrap().forget();
        if version >= 1_000 { Err(format!("bad {version}")) } else { Ok(version) }
    }

    #[redis_cache(key = "stale:{key}", ttl = "50ms", jitter = 0, stale = "5m", id = "stale")]
    async fn stale(&self, key: &str) -> Result<u32, String> {
        self.load(key).await
    }

    #[redis_cache(key = "slow:{key}", ttl = 60, id = "slow", prefix = "options")]
    async fn slow(&self, key: &str) -> Result<u32, String> {
        self.load(key).await
    }

    #[redis_cache(key = "patient:{key}", ttl = 60, wait = "2s", id = "patient")]
    async fn patient(&self, key: &str) -> Result<u32, String> {
        self.load(key).await
    }
}

/// A value that has been loaded and is past its time.
async fn past_its_time(messaging: &Messaging, slow: &Slow, key: &str) {
    write(key, 1);
    slow.0.gate.add_permits(1);
    assert_eq!(messaging.scope(slow.stale(key)).await, Ok(1));
    let stale = stats(messaging, "stale").stale;
    eventually("it is past its time", async || {
        assert_eq!(messaging.scope(slow.stale(key)).await, Ok(1));
        stats(messaging, "stale").stale > stale
    })
    .await;
    slow.began(2).await;
}

async fn a_value_past_its_time_is_served_while_one_is_loaded(place: Place) {
    let (messaging, other) = (place.messaging().await, place.messaging().await);
    let (slow, key) = (Slow::new(), unique("k"));
    past_its_time(&messaging, &slow, &key).await;
    write(&key, 2);
    for messaging in [&messaging, &other, &messaging, &other] {
        assert_eq!(soon(messaging.scope(slow.stale(&key))).await, Ok(1));
    }
    assert_eq!(slow.0.began.load(Ordering::SeqCst), 2, "one load for all of them");
    slow.0.gate.add_permits(1);
    // That load read the old version; it counts as fresh for its time, and then the next one comes.
    slow.0.gate.add_permits(100);
    eventually("the new value", async || messaging.scope(slow.stale(&key)).await == Ok(2)).await;
}

async fn a_value_past_its_time_is_served_though_the_function_fails(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("k"));
    past_its_time(&messaging, &slow, &key).await;
    write(&key, 1_000);
    slow.0.gate.add_permits(1_000);
    eventually("the refresh that was under way is stored", async || {
        let pending = slow.0.began.load(Ordering::SeqCst);
        messaging.scope(slow.stale(&key)).await.unwrap();
        pending > 2
    })
    .await;
    for _ in 0..10 {
        assert_eq!(messaging.scope(slow.stale(&key)).await, Ok(1));
    }
    assert!(slow.0.began.load(Ordering::SeqCst) < 10, "a function that fails is not called for each of them");
}

async fn an_invalidated_value_is_not_served_past_its_time(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("k"));
    past_its_time(&messaging, &slow, &key).await;
    write(&key, 2);
    messaging.scope(Slow::stale_cache().invalidate(&key)).await.unwrap();
    slow.0.gate.add_permits(2);
    assert_eq!(soon(messaging.scope(slow.stale(&key))).await, Ok(2));
}

async fn a_refresh_takes_over_from_a_load_that_began_before(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("k"));
    write(&key, 1);
    let early = messaging.spawn({
        let (slow, key) = (slow.clone(), key.clone());
        async move { slow.slow(&key).await }
    });
    slow.began(1).await;
    write(&key, 2);
    let refresh = messaging.spawn({
        let (slow, key) = (slow.clone(), key.clone());
        async move { slow.slow_refresh(&key).await }
    });
    slow.began(2).await;
    slow.0.gate.add_permits(2);
    assert_eq!(soon(early).await.unwrap(), Ok(1));
    assert_eq!(soon(refresh).await.unwrap(), Ok(2));
    assert_eq!(messaging.cache("options").get::<u32>(&format!("slow:{key}")).await.unwrap(), Some(2));
}

async fn errors_are_shared_by_those_who_wait(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("k"));
    write(&key, 1_000);
    let call = || {
        let (slow, key) = (slow.clone(), key.clone());
        messaging.spawn(async move { slow.slow(&key).await })
    };
    let leader = call();
    slow.began(1).await;
    let followers: Vec<_> = (0..5).map(|_| call()).collect();
    eventually("they have asked", async || stats(&messaging, "slow").misses >= 6).await;
    slow.0.gate.add_permits(1);
    for call in followers.into_iter().chain([leader]) {
        assert_eq!(soon(call).await.unwrap(), Err("bad 1000".to_owned()));
    }
    assert_eq!(slow.0.began.load(Ordering::SeqCst), 1);
}

async fn who_has_waited_long_enough_loads(place: Place) {
    let (one, other) = (place.messaging().await, place.messaging().await);
    let (slow, key) = (Slow::new(), unique("k"));
    let call = |messaging: &Messaging| {
        let (slow, key) = (slow.clone(), key.clone());
        messaging.spawn(async move { slow.patient(&key).await })
    };
    let leader = call(&one);
    slow.began(1).await;
    let waiting: Vec<_> = (0..5).map(|_| call(&other)).collect();
    // All of them before the first has waited long enough.
    eventually("they wait", async || stats(&other, "patient").misses >= 5).await;
    slow.began(2).await;
    // Who comes to the end of his patience when that load is over begins another one.
    let all_have_waited = Instant::now() + Duration::from_secs(3);
    eventually("all have waited long enough", async || Instant::now() > all_have_waited).await;
    slow.0.gate.add_permits(10);
    for call in waiting.into_iter().chain([leader]) {
        assert_eq!(soon(call).await.unwrap(), Ok(0));
    }
    assert_eq!(slow.0.began.load(Ordering::SeqCst), 2, "one more for all who waited");
}

#[redis_cache(key = "many:{key}", ttl = 60, id = "many", invalidate_on = ["many.changed"])]
async fn many(key: &str) -> u32 {
    read(key)
}

async fn all_values_of_a_function_are_removed(place: Place) {
    let messaging = place.messaging().await;
    let keys: Vec<_> = (0..20).map(|_| unique("k")).collect();
    let cache = messaging.cache("");
    for key in &keys {
        write(key, 1);
        assert_eq!(messaging.scope(many(key)).await, 1);
        let stored = async || cache.get::<u32>(&format!("many:{key}")).await.unwrap().is_some();
        eventually("it is stored", stored).await;
        write(key, 2);
    }
    cache.set("manyfold:x", &1, Duration::from_secs(60)).await.unwrap();
    assert_eq!(messaging.scope(many::invalidate_all()).await.unwrap(), 20);
    for key in &keys {
        assert_eq!(messaging.scope(many(key)).await, 2);
    }
    assert_eq!(cache.get::<u32>("manyfold:x").await.unwrap(), Some(1), "others are left alone");
}

#[subscribe("kept.changed", id = "options.reads")]
async fn reads(event: serde_json::Value, channel: Channel, probe: State<Probe>) {
    let Some(key) = event["key"].as_str() else { return };
    let read = kept(key).await;
    probe.tell((channel.as_str(), event["version"].as_u64().unwrap_or(0), read));
}

async fn a_handler_reads_nothing_older_than_its_event(place: Place) {
    let (running, probe) = place.with_handler("options.reads").await;
    // A publisher that knows nothing of caches.
    let mut foreign = place.clone();
    (foreign.config.namespace, foreign.config.cache_prefix) = (unique("ns"), unique("foreign"));
    let foreign = foreign.messaging().await;
    let key = unique("k");
    write(&key, 0);
    for version in 1..=100_u32 {
        warm_kept(running.messaging(), &key).await;
        write(&key, version);
        foreign.publish("kept.changed", &json!({ "key": key, "version": version })).await.unwrap();
        let told = probe.wait_for(version as usize).await;
        assert_eq!(told.last().unwrap(), &format!("{:?}", ("kept.changed", u64::from(version), version)));
    }
}

async fn warm_kept(messaging: &Messaging, key: &str) {
    eventually("it is kept", async || {
        let before = stats(messaging, "kept").local_hits;
        messaging.scope(kept(key)).await;
        stats(messaging, "kept").local_hits > before
    })
    .await;
}

async fn values_that_nobody_looked_after_are_not_served(place: Place) {
    let key = unique("k");
    let bystander = place.messaging().await;
    write(&key, 1);
    let first = place.messaging().await;
    assert_eq!(first.scope(many(&key)).await, 1);
    let stored = async || bystander.cache("many").get::<u32>(&key).await.unwrap() == Some(1);
    eventually("it is stored", stored).await;
    let running = first.start().await.unwrap();
    running.shutdown(Duration::from_secs(10)).await;
    drop(first);
    // A program that knows nothing of caches, while nobody listens.
    let mut foreign = place.clone();
    (foreign.config.namespace, foreign.config.cache_prefix) = (unique("ns"), unique("foreign"));
    write(&key, 2);
    foreign.messaging().await.publish("many.changed", &json!({ "key": key })).await.unwrap();
    assert!(stored().await, "nobody has heard it");
    assert_eq!(place.messaging().await.scope(many(&key)).await, 2);
}

async fn an_event_of_ours_does_not_defeat_the_reloads_of_others(place: Place) {
    let publisher = place.messaging().await;
    let mut processes = Vec::new();
    for _ in 0..5 {
        processes.push(place.messaging().await.start().await.unwrap());
    }
    let key = unique("k");
    for version in 1..=20 {
        write(&key, version);
        publisher.publish("many.changed", &json!({ "key": key, "version": version })).await.unwrap();
        let before = loads(&key);
        for running in &processes {
            assert_eq!(running.messaging().scope(many(&key)).await, version);
        }
        assert_eq!(loads(&key) - before, 1);
        let stored = async || publisher.cache("many").get::<u32>(&key).await.unwrap() == Some(version);
        eventually("it is stored", stored).await;
    }
    let refused: u64 =
        processes.iter().map(|running| stats(running.messaging(), "many").refused_stores).sum();
    assert_eq!(refused, 0);
}

async fn an_event_that_is_too_large_may_mean_any_value(mut place: Place) {
    let mut foreign = place.clone();
    (foreign.config.namespace, foreign.config.cache_prefix) = (unique("ns"), unique("foreign"));
    let foreign = foreign.messaging().await;
    place.config.max_payload = 1_000;
    // How long it takes to notice that nobody else has heard it.
    place.config.cache_lag = Duration::from_millis(500);
    let (messaging, key) = (place.messaging().await, unique("k"));
    write(&key, 1);
    assert_eq!(messaging.scope(many(&key)).await, 1);
    let stored = async || messaging.cache("many").get::<u32>(&key).await.unwrap() == Some(1);
    eventually("it is stored", stored).await;
    write(&key, 2);
    foreign.publish("many.changed", &json!({ "key": key, "more": "x".repeat(2_000) })).await.unwrap();
    eventually("it is loaded again", async || messaging.scope(many(&key)).await == 2).await;
    eventually("and what is stored is new", async || {
        messaging.scope(many(&key)).await;
        messaging.cache("many").get::<u32>(&key).await.unwrap() == Some(2)
    })
    .await;
}

#[redis_cache(key = "{key}", ttl = 60, id = "anybodys")]
async fn anybodys(key: &str) -> u32 {
    read(key)
}

async fn a_function_whose_keys_could_be_anybodys_is_not_flushed(place: Place) {
    let messaging = place.messaging().await;
    messaging.cache("").set("somebodys", &7, Duration::from_secs(60)).await.unwrap();
    assert_eq!(messaging.scope(anybodys(&unique("k"))).await, 0);
    let error = messaging.scope(anybodys::invalidate_all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert!(error.to_string().contains("`prefix`"), "{error}");
    assert_eq!(messaging.cache("").get::<u32>("somebodys").await.unwrap(), Some(7));
}
