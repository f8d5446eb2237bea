//! Cached functions and cached values.

use std::future::IntoFuture as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use messaging_core::{CacheManager, ErrorKind, Messaging, Op, event_config, redis_cache};
use messaging_tests::{eventually, unique};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Barrier, Semaphore};

use crate::place::{Place, on_each_backend, soon};

on_each_backend! {
    a_second_call_is_a_hit
    values_are_plain_json_under_literal_keys
    concurrent_callers_share_one_load
    a_leader_that_is_cancelled_is_replaced
    errors_are_not_kept
    none_is_kept_only_where_it_is_asked_for
    return_question_mark_and_self_keep_working
    companions_invalidate_and_refresh
    an_event_of_ours_invalidates_before_it_is_heard
    an_event_of_a_model_invalidates
    an_update_that_changes_the_key_invalidates_both
    a_foreign_event_invalidates
    an_event_that_does_not_say_which_invalidates_all
    a_load_that_was_overtaken_is_not_stored
    what_cannot_be_decoded_is_loaded_again
    an_argument_without_a_value_is_not_cached
    the_cache_manager_sets_and_gets
    the_cache_manager_removes_by_pattern
    the_cache_manager_lists_keys_by_pattern
    get_or_load_shares_and_keeps
    a_write_through_value_wins_over_a_running_load
    one_of_many_takers_gets_a_value
    a_value_that_is_taken_defeats_a_running_load
    keys_that_are_not_valid_are_refused
    a_value_expires
    a_flush_leaves_the_keys_of_others_alone
    an_equal_event_of_somebody_else_is_not_taken_for_ours
    a_publish_that_is_dropped_has_its_consequences
    keys_that_look_alike_share_no_load
}

/// How often each key was loaded. Keys are unique to their test, so that tests can share the cached functions.
static LOADS: LazyLock<Mutex<std::collections::HashMap<String, u32>>> = LazyLock::new(Mutex::default);

fn load(key: &str) -> u32 {
    let mut loads = LOADS.lock().unwrap();
    let count = loads.entry(key.to_owned()).or_default();
    *count += 1;
    *count
}

fn loads(key: &str) -> u32 {
    LOADS.lock().unwrap().get(key).copied().unwrap_or(0)
}

#[redis_cache(key = "number:{key}", ttl = 60, invalidate_on = ["number.changed", { on = "numbers:{which}:gone", key = which }])]
async fn number(key: &str) -> u32 {
    load(key)
}

async fn a_second_call_is_a_hit(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    let numbers =
        messaging.scope(async { (number(&key).await, number(&key).await, number(&key).await) }).await;
    assert_eq!(numbers, (1, 1, 1));
    let stats =
        messaging.health().caches.into_iter().find(|stats| stats.function.ends_with("::number")).unwrap();
    // The value is stored behind the first caller's back; until it is, the others join its load.
    let (later, shared) = (stats.hits + stats.joins + stats.waits, stats.joins + stats.waits);
    assert_eq!((stats.loads, stats.misses, later), (1, 1 + shared, 2));
}

async fn values_are_plain_json_under_literal_keys(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    messaging.scope(number(&key)).await;
    let stored = async || messaging.cache("").get::<u32>(&format!("number:{key}")).await.unwrap() == Some(1);
    eventually("it is stored", stored).await;
    // A value that somebody else wrote is taken.
    messaging.cache("number").set("foreign", &77, Duration::from_secs(60)).await.unwrap();
    assert_eq!(messaging.scope(number("foreign")).await, 77);
}

struct Slow {
    gate: Semaphore,
    loads: AtomicU32,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self { gate: Semaphore::new(0), loads: AtomicU32::new(0) })
    }

    #[redis_cache(key = "slow:{key}", ttl = 60, invalidate_on = ["slow.changed"], jitter = 0)]
    async fn get(&self, key: &str) -> Result<String, String> {
        let number = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        self.gate.acquire().await.map_err(|error| error.to_string())?.forget();
        if key.starts_with("bad") {
            return Err(format!("bad {number}"));
        }
        Ok(format!("{key} {number}"))
    }
}

async fn concurrent_callers_share_one_load(place: Place) {
    let (one, other) = (place.messaging().await, place.messaging().await);
    let (slow, key) = (Slow::new(), unique("k"));
    let callers: Vec<_> = (0..100)
        .map(|caller| {
            let (slow, key) = (Arc::clone(&slow), key.clone());
            let messaging = if caller % 2 == 0 { &one } else { &other };
            messaging.spawn(async move { slow.get(&key).await })
        })
        .collect();
    eventually("somebody loads", async || slow.loads.load(Ordering::SeqCst) == 1).await;
    slow.gate.add_permits(1);
    for caller in callers {
        assert_eq!(soon(caller).await.unwrap().unwrap(), format!("{key} 1"));
    }
    assert_eq!(slow.loads.load(Ordering::SeqCst), 1);
}

async fn a_leader_that_is_cancelled_is_replaced(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("k"));
    let call = || {
        let (slow, key) = (Arc::clone(&slow), key.clone());
        messaging.spawn(async move { slow.get(&key).await })
    };
    let leader = call();
    eventually("the leader loads", async || slow.loads.load(Ordering::SeqCst) == 1).await;
    let followers: Vec<_> = (0..10).map(|_| call()).collect();
    leader.abort();
    eventually("another one loads", async || slow.loads.load(Ordering::SeqCst) == 2).await;
    slow.gate.add_permits(1);
    for follower in followers {
        assert_eq!(soon(follower).await.unwrap().unwrap(), format!("{key} 2"));
    }
}

async fn errors_are_not_kept(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("bad"));
    slow.gate.add_permits(10);
    let both = messaging.scope(async { (slow.get(&key).await, slow.get(&key).await) }).await;
    assert_eq!(both, (Err("bad 1".into()), Err("bad 2".into())));
}

type Maybe<T> = Result<Option<T>, std::fmt::Error>;

#[redis_cache(key = "maybe:{key}", ttl = 60)]
async fn maybe(key: &str) -> Maybe<u32> {
    let count = load(key);
    Ok((count > 1).then_some(count))
}

#[redis_cache(key = "maybe_kept:{key}", ttl = 60, cache_none = "30s")]
async fn maybe_kept(key: &str) -> Option<u32> {
    let count = load(key);
    (count > 1).then_some(count)
}

async fn none_is_kept_only_where_it_is_asked_for(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    let asked = messaging.scope(async { [maybe(&key).await, maybe(&key).await, maybe(&key).await] }).await;
    assert_eq!(asked, [Ok(None), Ok(Some(2)), Ok(Some(2))]);
    let key = unique("k");
    let asked = messaging.scope(async { [maybe_kept(&key).await, maybe_kept(&key).await] }).await;
    assert_eq!(asked, [None, None]);
    assert_eq!(loads(&key), 1);
}

#[derive(Clone, Serialize, Deserialize)]
struct Tenant {
    id: u64,
}

struct Users {
    base: u32,
}

impl Users {
    #[redis_cache(key = "{tenant.id}:of:{user}", prefix = "user", ttl = "1m", id = "users.find")]
    async fn find(&self, tenant: &Tenant, user: String, early: bool) -> Result<u32, std::num::ParseIntError> {
        load(&user);
        if early {
            return Ok(0);
        }
        let parsed: u32 = user.rsplit('-').next().unwrap_or_default().parse()?;
        Ok(self.base + parsed)
    }
}

async fn return_question_mark_and_self_keep_working(place: Place) {
    let messaging = place.messaging().await;
    let (users, tenant) = (Users { base: 100 }, Tenant { id: u64::MAX });
    let (good, early, bad) = (format!("{}-5", unique("u")), unique("early"), "bad-x".to_owned());
    messaging
        .scope(async {
            assert_eq!(users.find(&tenant, good.clone(), false).await, Ok(105));
            assert_eq!(users.find(&tenant, good.clone(), true).await, Ok(105), "a hit");
            assert_eq!(users.find(&tenant, early.clone(), true).await, Ok(0));
            assert!(users.find(&tenant, bad.clone(), false).await.is_err());
        })
        .await;
    let handle = Users::find_cache();
    assert_eq!(handle.id(), "users.find");
    assert_eq!(handle.key(u64::MAX.to_string(), "a:b".into()).unwrap(), format!("user:{}:of:a:b", u64::MAX));
}

async fn companions_invalidate_and_refresh(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    messaging
        .scope(async {
            assert_eq!(number(&key).await, 1);
            assert_eq!(number::refresh(&key).await, 2);
            assert_eq!(number(&key).await, 2);
            number::invalidate(&key).await.unwrap();
            assert_eq!(number(&key).await, 3);
            assert_eq!(number::key(&key).unwrap(), format!("number:{key}"));
        })
        .await;
}

async fn an_event_of_ours_invalidates_before_it_is_heard(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    // Nobody is subscribed to the event, and yet the value is gone when publish returns.
    assert_eq!(messaging.scope(number(&key)).await, 1);
    messaging.publish("number.changed", &json!({ "key": key })).await.unwrap();
    assert_eq!(messaging.scope(number(&key)).await, 2);
    // The event comes back to us; it must not defeat what was loaded after it.
    for _ in 0..20 {
        assert_eq!(messaging.scope(number(&key)).await, 2);
        tokio::task::yield_now().await;
    }
    messaging.publish(&format!("numbers:{key}:gone"), &()).await.unwrap();
    assert_eq!(messaging.scope(number(&key)).await, 3);
}

#[event_config(
    publish = { create = "sensor.created", update = "sensor.updated", delete = "sensor.deleted" },
    payload_fields = [id, address],
    previous = [address],
)]
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sensor {
    id: u64,
    #[serde(rename = "networkAddress")]
    address: String,
}

#[redis_cache(key = "sensor:{address}", ttl = 60, invalidate_on = [Sensor(update, delete)])]
async fn sensor(address: &str) -> u32 {
    load(address)
}

async fn an_event_of_a_model_invalidates(place: Place) {
    let (messaging, address) = (place.messaging().await, unique("a"));
    let model = Sensor { id: 1, address: address.clone() };
    messaging
        .scope(async {
            assert_eq!(sensor(&address).await, 1);
            messaging.emit(Op::Create, &model).await.unwrap();
            assert_eq!(sensor(&address).await, 1, "creation is not among the operations");
            messaging.emit(Op::Update, &model).await.unwrap();
            assert_eq!(sensor(&address).await, 2);
            messaging.emit(Op::Delete, &model).await.unwrap();
            assert_eq!(sensor(&address).await, 3);
        })
        .await;
}

async fn an_update_that_changes_the_key_invalidates_both(place: Place) {
    let messaging = place.messaging().await;
    let (old, new) = (unique("a"), unique("a"));
    let model = |address: &str| Sensor { id: 1, address: address.to_owned() };
    messaging
        .scope(async {
            assert_eq!((sensor(&old).await, sensor(&new).await), (1, 1));
            messaging.emit_changed(&model(&old), &model(&new)).await.unwrap();
            assert_eq!((sensor(&old).await, sensor(&new).await), (2, 2));
        })
        .await;
}

/// Publishes as a program would that knows nothing of caches.
async fn publish_foreign(place: &Place, channel: &str, payload: &serde_json::Value) {
    let mut foreign = place.clone();
    foreign.config.cache_prefix = unique("foreign");
    foreign.config.namespace = unique("foreign");
    foreign.messaging().await.publish(channel, payload).await.unwrap();
}

async fn a_foreign_event_invalidates(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    let _running = messaging.start().await.unwrap();
    assert_eq!(messaging.scope(number(&key)).await, 1);
    publish_foreign(&place, "number.changed", &json!({ "key": key })).await;
    let fresh = async || messaging.scope(number(&key)).await == 2;
    eventually("the value is loaded again", fresh).await;
}

async fn an_event_that_does_not_say_which_invalidates_all(place: Place) {
    let (messaging, one, other) = (place.messaging().await, unique("k"), unique("k"));
    let read = || messaging.scope(async { (number(&one).await, number(&other).await) });
    assert_eq!(read().await, (1, 1));
    messaging.publish("number.changed", &json!({ "something": "else" })).await.unwrap();
    eventually("both are loaded again", async || read().await == (2, 2)).await;
    // null says that there is none.
    messaging.publish("number.changed", &json!({ "key": null })).await.unwrap();
    messaging.publish("number.changed", &json!({ "key": [one, other] })).await.unwrap();
    assert_eq!(read().await, (3, 3));
}

async fn a_load_that_was_overtaken_is_not_stored(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("k"));
    for (round, how) in ["exact", "event", "pattern"].into_iter().enumerate() {
        let expected = |number: usize| Ok::<_, String>(format!("{key} {number}"));
        let (task_slow, task_key) = (Arc::clone(&slow), key.clone());
        let early = messaging.spawn(async move { task_slow.get(&task_key).await });
        let begun = 2 * round as u32 + 1;
        eventually("it loads", async || slow.loads.load(Ordering::SeqCst) == begun).await;
        match how {
            "exact" => messaging.scope(Slow::get_cache().invalidate(&key)).await.unwrap(),
            "event" => _ = messaging.publish("slow.changed", &json!({ "key": key })).await.unwrap(),
            _ => _ = messaging.cache("slow").invalidate_pattern("*").await.unwrap(),
        }
        slow.gate.add_permits(2);
        assert_eq!(soon(early).await.unwrap(), expected(2 * round + 1));
        // Whoever asks after the invalidation gets a value that was loaded after it.
        assert_eq!(messaging.scope(slow.get(&key)).await, expected(2 * round + 2), "{how}");
        assert_eq!(messaging.scope(slow.get(&key)).await, expected(2 * round + 2), "{how}");
        messaging.scope(Slow::get_cache().invalidate(&key)).await.unwrap();
    }
}

async fn what_cannot_be_decoded_is_loaded_again(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    messaging.cache("number").set(&key, "an older shape", Duration::from_secs(60)).await.unwrap();
    assert_eq!(messaging.scope(number(&key)).await, 1);
    let stored = async || messaging.cache("number").get::<u32>(&key).await.ok() == Some(Some(1));
    eventually("it is replaced", stored).await;
}

#[redis_cache(key = "optional:{key}:{more}", ttl = 60)]
async fn optional(key: Option<&str>, more: f64) -> u32 {
    load(key.unwrap_or("none of them")) + (more as u32)
}

async fn an_argument_without_a_value_is_not_cached(place: Place) {
    let messaging = place.messaging().await;
    let before = messaging.scope(optional(None, 1.0)).await;
    assert_eq!(messaging.scope(optional(None, 1.0)).await, before + 1);
    let error = optional::key(Some("x"), 1.5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert!(error.to_string().contains("{more}") && error.to_string().contains("floating"), "{error}");
}

async fn the_cache_manager_sets_and_gets(place: Place) {
    let messaging = place.messaging().await;
    let ttl = Duration::from_secs(60);
    let cache = messaging.cache("camera");
    assert_eq!(cache.get::<u32>("mac:AA:BB").await.unwrap(), None);
    cache.set("mac:AA:BB", &7, ttl).await.unwrap();
    assert_eq!(cache.get::<u32>("mac:AA:BB").await.unwrap(), Some(7));
    assert_eq!(messaging.cache("").get::<u32>("camera:mac:AA:BB").await.unwrap(), Some(7));
    assert_eq!(cache.get::<String>("mac:AA:BB").await.unwrap_err().kind(), ErrorKind::Decode);
    cache.invalidate("mac:AA:BB").await.unwrap();
    assert_eq!(cache.get::<u32>("mac:AA:BB").await.unwrap(), None);
    let current = CacheManager::new("camera");
    messaging.scope(async { current.set("x", &1, ttl).await }).await.unwrap();
    assert_eq!(cache.get::<u32>("x").await.unwrap(), Some(1));
}

async fn the_cache_manager_removes_by_pattern(place: Place) {
    let messaging = place.messaging().await;
    let ttl = Duration::from_secs(60);
    for key in ["user:1", "user:2", "user:[3]", "users:4"] {
        messaging.cache("").set(key, &1, ttl).await.unwrap();
    }
    assert_eq!(messaging.cache("").invalidate_pattern("user:[[]*").await.unwrap(), 1);
    assert_eq!(messaging.cache("user").invalidate_pattern("*").await.unwrap(), 2);
    assert_eq!(messaging.cache("").invalidate_pattern("*").await.unwrap(), 1);
}

async fn the_cache_manager_lists_keys_by_pattern(place: Place) {
    let messaging = place.messaging().await;
    let ttl = Duration::from_secs(60);
    let all = messaging.cache("");
    for key in ["user:2", "user:[3]", "user:1", "users:4"] {
        all.set(key, &1, ttl).await.unwrap();
    }
    assert_eq!(messaging.cache("user").keys("*").await.unwrap(), ["1", "2", "[3]"]);
    assert_eq!(all.keys("user:[[]*").await.unwrap(), ["user:[3]"]);
    // Neither the lease of a load that runs, nor what was removed.
    let (begun, end) = (Arc::new(Barrier::new(2)), Arc::new(Semaphore::new(0)));
    let loading = {
        let (all, begun, end) = (all.clone(), Arc::clone(&begun), Arc::clone(&end));
        let load = async move {
            begun.wait().await;
            end.acquire().await.unwrap().forget();
            Ok::<_, std::convert::Infallible>(5)
        };
        tokio::spawn(async move { all.get_or_load("user:5", ttl, load).await })
    };
    soon(begun.wait()).await;
    all.invalidate("user:1").await.unwrap();
    assert_eq!(all.keys("*").await.unwrap(), ["user:2", "user:[3]", "users:4"]);
    end.add_permits(1);
    assert_eq!(soon(loading).await.unwrap().unwrap(), 5);
    eventually("the loaded value is stored", async || all.keys("user:5").await.unwrap() == ["user:5"]).await;
}

async fn get_or_load_shares_and_keeps(place: Place) {
    let messaging = place.messaging().await;
    let (ttl, cache) = (Duration::from_secs(60), messaging.cache("by_hand"));
    let (barrier, count) = (Arc::new(Barrier::new(2)), Arc::new(AtomicU32::new(0)));
    let task = {
        let (cache, barrier, count) = (cache.clone(), Arc::clone(&barrier), Arc::clone(&count));
        tokio::spawn(async move {
            let load = async {
                count.fetch_add(1, Ordering::SeqCst);
                barrier.wait().await;
                Ok::<_, std::fmt::Error>(7)
            };
            cache.get_or_load("x", ttl, load).await
        })
    };
    eventually("it loads", async || count.load(Ordering::SeqCst) == 1).await;
    let second = cache.get_or_load("x", ttl, async { Ok::<u32, std::fmt::Error>(8) });
    let (second, _) = tokio::join!(second, barrier.wait());
    assert_eq!((second.unwrap(), task.await.unwrap().unwrap()), (7, 7));
    let error =
        cache.get_or_load::<u32, _, _>("y", ttl, async { Err("the source is away") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.to_string().contains("the source is away"));
}

async fn a_write_through_value_wins_over_a_running_load(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("k"));
    let (task_slow, task_key) = (Arc::clone(&slow), key.clone());
    let load = messaging.spawn(async move { task_slow.get(&task_key).await });
    eventually("it loads", async || slow.loads.load(Ordering::SeqCst) == 1).await;
    messaging.cache("slow").set(&key, "written", Duration::from_secs(60)).await.unwrap();
    slow.gate.add_permits(1);
    soon(load).await.unwrap().unwrap();
    for _ in 0..20 {
        assert_eq!(messaging.scope(slow.get(&key)).await.unwrap(), "written");
        tokio::task::yield_now().await;
    }
}

async fn one_of_many_takers_gets_a_value(place: Place) {
    let (one, other) = (place.messaging().await, place.messaging().await);
    for round in 0..10 {
        let key = format!("t{round}");
        one.cache("ticket").set(&key, &round, Duration::from_secs(60)).await.unwrap();
        let start = Arc::new(Barrier::new(50));
        let takers: Vec<_> = (0..50)
            .map(|taker| {
                let (start, key) = (Arc::clone(&start), key.clone());
                let cache = if taker % 2 == 0 { &one } else { &other }.cache("ticket");
                tokio::spawn(async move {
                    start.wait().await;
                    cache.take::<u32>(&key).await.unwrap()
                })
            })
            .collect();
        let mut taken = Vec::new();
        for taker in takers {
            taken.extend(soon(taker).await.unwrap());
        }
        assert_eq!(taken, [round]);
        assert_eq!(other.cache("ticket").get::<u32>(&key).await.unwrap(), None);
    }
    // What is not of the wanted shape is gone too.
    one.cache("ticket").set("odd", "text", Duration::from_secs(60)).await.unwrap();
    let error = one.cache("ticket").take::<u32>("odd").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Decode && error.to_string().contains("take"), "{error}");
    assert_eq!(one.cache("ticket").take::<String>("odd").await.unwrap(), None);
    assert_eq!(one.cache("").take::<u32>("a{b").await.unwrap_err().kind(), ErrorKind::InvalidKey);
}

async fn a_value_that_is_taken_defeats_a_running_load(place: Place) {
    let (messaging, slow, key) = (place.messaging().await, Slow::new(), unique("k"));
    let call = || {
        let (slow, key) = (Arc::clone(&slow), key.clone());
        messaging.spawn(async move { slow.get(&key).await })
    };
    let load = call();
    eventually("it loads", async || slow.loads.load(Ordering::SeqCst) == 1).await;
    // From another process, so that only the lease can tell.
    let other = place.messaging().await;
    assert_eq!(other.cache("slow").take::<String>(&key).await.unwrap(), None);
    slow.gate.add_permits(2);
    assert_eq!(soon(load).await.unwrap().unwrap(), format!("{key} 1"));
    assert_eq!(soon(call()).await.unwrap().unwrap(), format!("{key} 2"), "the first was not stored");
}

async fn keys_that_are_not_valid_are_refused(place: Place) {
    let messaging = place.messaging().await;
    let cache = messaging.cache("");
    for key in ["", "a{b", "a}b", "{}", "{a}{b}"] {
        assert_eq!(cache.get::<u32>(key).await.unwrap_err().kind(), ErrorKind::InvalidKey, "{key:?}");
        let error = cache.set(key, &1, Duration::from_secs(1)).await.unwrap_err();
        assert!(error.is_not_sent());
    }
    let error = cache.set("a", &1, Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("ttl"), "{error}");
    cache.set("{user:1}:name", &1, Duration::from_secs(1)).await.unwrap();
}

#[redis_cache(key = "site:{site}:mac:{mac}", ttl = 60, invalidate_on = ["site.changed"])]
async fn on_site(site: &str, mac: &str) -> u32 {
    load(&format!("{site}/{mac}"))
}

async fn a_flush_leaves_the_keys_of_others_alone(place: Place) {
    let (messaging, site) = (place.messaging().await, unique("s"));
    assert_eq!(messaging.scope(on_site(&site, "AA:BB")).await, 1);
    let full = messaging.cache("");
    // It matches the glob of the function's keys, and is none of them: a site has no colon.
    let other = "site:7:8:mac:1";
    full.set(other, &1, Duration::from_secs(60)).await.unwrap();
    messaging.publish("site.changed", &"which one?").await.unwrap();
    eventually("it is loaded again", async || messaging.scope(on_site(&site, "AA:BB")).await == 2).await;
    assert_eq!(full.get::<u32>(other).await.unwrap(), Some(1));
}

async fn an_equal_event_of_somebody_else_is_not_taken_for_ours(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    let event = json!({ "key": key });
    // Nobody of this process listens yet: the event does not come back to us.
    messaging.publish("number.changed", &event).await.unwrap();
    assert_eq!(messaging.scope(number(&key)).await, 1);
    publish_foreign(&place, "number.changed", &event).await;
    eventually("the value is loaded again", async || messaging.scope(number(&key)).await == 2).await;
}

async fn a_publish_that_is_dropped_has_its_consequences(place: Place) {
    let (messaging, key) = (place.messaging().await, unique("k"));
    let mut events = messaging.subscribe("number.changed").await.unwrap();
    assert_eq!(messaging.scope(number(&key)).await, 1);
    // Polled once, the message is on its way; when it has arrived the caller goes away without having seen the answer.
    let mut publish = messaging.publish("number.changed", &"which one?").into_future();
    let _ = (&mut publish).now_or_never();
    assert!(soon(events.get_message(None)).await.unwrap().is_some());
    drop(publish);
    eventually("the value is loaded again", async || messaging.scope(number(&key)).await == 2).await;
}

async fn keys_that_look_alike_share_no_load(place: Place) {
    // In a hash tag of its own, and without one: both leases have to be in their value's cluster slot.
    let (plain, tagged) = ("user:1", "{user:1}");
    let mut bare = place.clone();
    bare.config.cache_prefix.clear();
    let messaging = bare.messaging().await;
    let cache = messaging.cache("");
    let ttl = Duration::from_secs(60);
    let gate = Arc::new(Semaphore::new(0));
    let first = {
        let (cache, gate) = (cache.clone(), Arc::clone(&gate));
        tokio::spawn(async move {
            let load = async {
                gate.acquire().await.map_err(|error| error.to_string())?.forget();
                Ok::<_, String>("plain".to_owned())
            };
            cache.get_or_load(plain, ttl, load).await
        })
    };
    let second = async { Ok::<_, String>("tagged".to_owned()) };
    assert_eq!(soon(cache.get_or_load(tagged, ttl, second)).await.unwrap(), "tagged");
    gate.add_permits(1);
    assert_eq!(soon(first).await.unwrap().unwrap(), "plain");
    cache.invalidate(plain).await.unwrap();
    cache.invalidate(tagged).await.unwrap();
}

/// Time is paused: three seconds pass as soon as nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn who_has_waited_for_another_process_shares_one_extra_load() {
    let place = Place::memory();
    let (one, other, slow, key) =
        (place.messaging().await, place.messaging().await, Slow::new(), unique("k"));
    let call = |messaging: &Messaging| {
        let (slow, key) = (Arc::clone(&slow), key.clone());
        messaging.spawn(async move { slow.get(&key).await })
    };
    let first = call(&one);
    eventually("the first process loads", async || slow.loads.load(Ordering::SeqCst) == 1).await;
    let waiting: Vec<_> = (0..50).map(|_| call(&other)).collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(slow.loads.load(Ordering::SeqCst), 2, "one extra load for fifty callers");
    slow.gate.add_permits(2);
    for caller in waiting {
        caller.await.unwrap().unwrap();
    }
    first.await.unwrap().unwrap();
}

async fn a_value_expires(place: Place) {
    let messaging: Messaging = place.messaging().await;
    let cache = messaging.cache("");
    cache.set("short", &1, Duration::from_millis(20)).await.unwrap();
    eventually("it is gone", async || cache.get::<u32>("short").await.unwrap().is_none()).await;
}
