//! What only a real Redis can show: other ways to connect, refusals, and outages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use messaging_core::{
    Context, ErrorKind, HandlerState, Handlers, Messaging, Op, StartPolicy, State, describe, event_config,
    redis_cache, subscribe,
};
use messaging_tests::{Cluster, Direction, Proxy, RedisServer, Sentinel, eventually, unique};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::place::{PATIENCE, Place, Probe, soon};

fn place(redis: &RedisServer) -> Place {
    Place::at(&redis.url())
}

/// What every way to connect has to carry: a handler, a subscription, a cached value.
async fn works(place: &Place) {
    let (running, probe) = place.with_handler("it::redis_only::on_ping").await;
    let messaging = running.messaging();
    let mut subscription = messaging.subscribe("pings.*").await.unwrap();
    messaging.publish("pings.1", &1).await.unwrap();
    assert_eq!(probe.wait_for(1).await, ["1"]);
    assert!(soon(subscription.get_message(None)).await.unwrap().is_some());
    let cache = messaging.cache("works");
    cache.set("a", &7, Duration::from_secs(60)).await.unwrap();
    assert_eq!(cache.get::<u32>("a").await.unwrap(), Some(7));
    assert_eq!(messaging.scope(answer(&unique("k"))).await, 42);
    // An event takes the value out of the database that the cache is in.
    assert_eq!(messaging.scope(report(7)).await, 7);
    let stored = async || messaging.cache("report").get::<u32>("7").await.unwrap().is_some();
    eventually("it is stored", stored).await;
    messaging.publish("report.changed", &json!({ "id": 7 })).await.unwrap();
    assert!(!stored().await, "what the event makes out of date is gone before it");
    assert!(soon(running.shutdown(PATIENCE)).await.is_complete());
}

#[subscribe("pings.{number}")]
async fn on_ping(number: u32, _payload: u32, probe: State<Probe>) {
    probe.tell(number);
}

#[redis_cache(key = "answer:{key}", ttl = 60)]
async fn answer(key: &str) -> u32 {
    assert!(!key.is_empty());
    42
}

#[tokio::test]
async fn a_unix_socket() {
    let redis = RedisServer::builder().unix_socket().start();
    works(&place(&redis)).await;
}

#[tokio::test]
async fn a_password_and_a_database() {
    let redis = RedisServer::builder().password("s3cret/#?").start();
    let place = place(&redis);
    works(&place).await;
    works(&Place::at(&format!("{}/3", redis.url().trim_end_matches("/0").trim_end_matches('/')))).await;
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_once_and_never_printed() {
    let redis = RedisServer::builder().password("right").start();
    for url in [
        format!("redis://:hunter2@127.0.0.1:{}", redis.port()),
        format!("redis://127.0.0.1:{}", redis.port()),
    ] {
        let messaging = Place::at(&url).messaging().await;
        let begun = Instant::now();
        let error = messaging.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(4), "it did not wait for what cannot come");
        let text = format!("{error} {error:?}");
        assert!(text.contains("password") && !text.contains("hunter2"), "{text}");
        let error = messaging.subscribe("c").now_or_never();
        assert!(error.is_none_or(|result| result.is_err()));
    }
}

#[tokio::test]
async fn an_acl_user_that_may_do_what_it_needs() {
    let redis = RedisServer::builder().acl("user service on >pw ~* &* +@all").start();
    works(&Place::at(&redis.url_for("service", "pw"))).await;
}

/// A user that may use only these channels, and those that this binary's cached functions listen to. ACLs speak of
/// channels as they are on the wire.
fn limited(name: &str, channels: &str) -> String {
    let cached = describe().functions.into_iter().flat_map(|function| function.invalidate_on);
    let cached: Vec<_> = cached.map(|channel| format!("&{}", channel.replace("{which}", "*"))).collect();
    // And what processes tell each other about the cache.
    format!("user {name} on >pw ~* resetchannels {channels} &*:cache:* {} +@all", cached.join(" "))
}

#[tokio::test]
async fn a_channel_that_the_acl_forbids_is_named_at_start() {
    let redis = RedisServer::builder().acl(&limited("narrow", "&allowed.*")).start();
    let mut place = Place::at(&redis.url_for("narrow", "pw"));
    place.config.channel_prefix.clear();
    let builder =
        place.builder().handlers(Handlers::only(["it::redis_only::on_ping"])).state(Probe::default());
    let messaging = builder.build().await.unwrap();
    let error = messaging.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let text = error.to_string();
    assert!(
        text.contains("it::redis_only::on_ping") && text.contains("pings.*") && text.contains("NOPERM"),
        "{text}"
    );
    let error = messaging.subscribe("forbidden").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let error = messaging.publish("forbidden", &1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.is_not_sent() && error.to_string().contains("ACL"), "{error}");
    // One refusal leaves the connection and the other channels alone.
    let mut allowed = messaging.subscribe("allowed.1").await.unwrap();
    messaging.publish("allowed.1", &1).await.unwrap();
    assert!(soon(allowed.get_message(None)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_channel_that_is_forbidden_for_a_while_comes_back() {
    let redis = RedisServer::builder().acl(&limited("narrow", "&other")).start();
    let mut place = Place::at(&redis.url_for("narrow", "pw"));
    place.config.channel_prefix.clear();
    place.config.start = StartPolicy::Wait;
    let probe = Probe::default();
    let builder = place.builder().handlers(Handlers::only(["it::redis_only::on_ping"])).state(probe.clone());
    let messaging = builder.build().await.unwrap();
    let starting = tokio::spawn({
        let messaging = messaging.clone();
        async move { messaging.start().await }
    });
    let refused = async || {
        messaging.health().sessions.first().is_some_and(|session| {
            session.unconfirmed.iter().any(|unconfirmed| {
                unconfirmed.reason.as_deref().is_some_and(|reason| reason.contains("NOPERM"))
            })
        })
    };
    eventually("health shows the refusal", refused).await;
    assert!(!messaging.health().is_ready());
    redis.cli(&["ACL", "SETUSER", "narrow", "&pings.*"]);
    let _running = soon(starting).await.unwrap().unwrap();
    eventually("it is ready", async || messaging.health().is_ready()).await;
    messaging.publish("pings.1", &1).await.unwrap();
    probe.wait_for(1).await;
}

#[tokio::test]
async fn a_resync_waits_for_a_channel_that_is_forbidden_for_a_while() {
    let redis = RedisServer::builder().acl(&limited("narrow", "&other")).start();
    let mut place = Place::at(&redis.url_for("narrow", "pw"));
    place.config.channel_prefix.clear();
    place.config.start = StartPolicy::Wait;
    let probe = Probe::default();
    let builder =
        place.builder().handlers(Handlers::only(["it::redis_only::on_change"])).state(probe.clone());
    let messaging = builder.build().await.unwrap();
    let starting = tokio::spawn(async move { messaging.start().await });
    let refused = async || redis.cli(&["ACL", "LOG"]).contains("replica.changed");
    eventually("it is refused", refused).await;
    redis.cli(&["ACL", "SETUSER", "narrow", "&replica.changed"]);
    let _running = soon(starting).await.unwrap().unwrap();
    assert_eq!(probe.wait_for(1).await[0], r#""resync""#);
}

#[redis_cache(key = "flushed:{key}", ttl = 60, invalidate_on = ["flushed.changed"])]
async fn flushed(key: &str) -> usize {
    FLUSHED_LOADS.fetch_add(1, Ordering::SeqCst);
    key.len()
}

static FLUSHED_LOADS: AtomicU32 = AtomicU32::new(0);

#[tokio::test]
async fn a_flush_that_fails_is_repeated() {
    let redis = RedisServer::builder().acl("user narrow on >pw ~* &* +@all").start();
    let messaging = Place::at(&redis.url_for("narrow", "pw")).messaging().await;
    assert_eq!(messaging.scope(flushed("seven77")).await, 7);
    let stored = async || messaging.cache("flushed").get::<usize>("seven77").await.unwrap().is_some();
    eventually("it is stored", stored).await;
    redis.cli(&["ACL", "SETUSER", "narrow", "-scan"]);
    messaging.publish("flushed.changed", &"which one?").await.unwrap();
    let refused = async || redis.cli(&["ACL", "LOG"]).contains("scan");
    eventually("the flush is refused", refused).await;
    assert_eq!(FLUSHED_LOADS.load(Ordering::SeqCst), 1);
    redis.cli(&["ACL", "SETUSER", "narrow", "+scan"]);
    let gone = async || messaging.cache("flushed").get::<usize>("seven77").await.unwrap().is_none();
    eventually("the flush has been repeated", gone).await;
}

#[tokio::test]
async fn tls_with_an_authority_of_our_own() {
    if !RedisServer::has_tls() {
        eprintln!("skipped: this redis-server is built without TLS");
        return;
    }
    let redis = RedisServer::builder().tls().password("pw").start();
    let mut with_ca = place(&redis);
    with_ca.config.tls.ca_certs = Some(redis.tls_files().ca_certs.clone());
    works(&with_ca).await;
    // Without it the certificate is not trusted, and the error says so.
    let messaging = place(&redis).messaging().await;
    let error = messaging.start().await.unwrap_err();
    assert!(format!("{error}").contains("certificate"), "{error}");
    let error = messaging.subscribe("c").await.unwrap_err();
    assert!(format!("{error}").contains("certificate"), "{error}");
    let mut missing = place(&redis);
    missing.config.tls.ca_certs = Some("/nowhere/ca.pem".into());
    let error = missing.builder().build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error.to_string().contains("REDIS_SSL_CA_CERTS") && error.to_string().contains("/nowhere/ca.pem"),
        "{error}"
    );
}

#[tokio::test]
async fn tls_passwords_and_acl_behind_sentinel() {
    let user = "user app on >p@ss ~* &* +@all -@dangerous +info";
    let mut builder = Sentinel::builder().password("pw").sentinel_password("spw").acl(user);
    if RedisServer::has_tls() {
        builder = builder.tls();
    }
    let sentinel = builder.start();
    let mut place = Place::at(&sentinel.url_for("app", "p@ss"));
    if RedisServer::has_tls() {
        place.config.tls.ca_certs = Some(sentinel.servers()[0].tls_files().ca_certs.clone());
    }
    works(&place).await;
    let wrong = sentinel.url_for("app", "p@ss").replace("sentinel_password=spw", "sentinel_password=other");
    let mut wrong = Place::at(&wrong);
    wrong.config.tls = place.config.tls.clone();
    let error = wrong.messaging().await.publish("c", &1).await.unwrap_err();
    assert!(error.is_not_sent() && error.to_string().contains("sentinel"), "{error}");
    assert!(!error.to_string().contains("other"), "{error}");
}

#[tokio::test]
async fn tls_passwords_and_acl_on_a_cluster() {
    let mut builder = Cluster::builder().password("pw").acl("user app on >p@ss ~* &* +@all");
    if RedisServer::has_tls() {
        builder = builder.tls();
    }
    let cluster = builder.start();
    let mut place = Place::at(&cluster.url_for("app", "p@ss"));
    if RedisServer::has_tls() {
        place.config.tls.ca_certs = Some(cluster.nodes()[0].tls_files().ca_certs.clone());
    }
    works(&place).await;
    let messaging = place.messaging().await;
    for number in 0..10 {
        let mut sharded = messaging.subscribe_sharded(&format!("c.{number}")).await.unwrap();
        assert_eq!(sharded.send_message(&number).await.unwrap(), 1);
        soon(sharded.get_message(None)).await.unwrap().unwrap();
    }
    let mut wrong = Place::at(&cluster.url_for("app", "other"));
    wrong.config.tls = place.config.tls.clone();
    let error = wrong.messaging().await.subscribe("c").await.unwrap_err();
    assert!(error.to_string().contains("check the user and the password"), "{error}");
}

#[tokio::test]
async fn without_redis_start_gives_up_and_says_where() {
    let redis = RedisServer::start();
    let place = place(&redis);
    redis.stop();
    let messaging = place.messaging().await;
    let begun = Instant::now();
    let error = messaging.start().await.unwrap_err();
    assert!(begun.elapsed() >= Duration::from_secs(4), "it waited for Redis to come");
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.is_not_sent() && error.is_retryable());
    let address = format!("127.0.0.1:{}", redis.port());
    assert!(error.to_string().contains(&address) && error.to_string().contains("refused"), "{error}");
    let error = messaging.publish("c", &1).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Connection && error.is_not_sent(), "{error:?}");
    // The same handle works when Redis is there.
    redis.start_again();
    let _running = messaging.start().await.unwrap();
    messaging.publish("c", &1).await.unwrap();
}

#[tokio::test]
async fn start_can_wait_for_redis() {
    let redis = RedisServer::start();
    let mut place = place(&redis);
    place.config.start = StartPolicy::Wait;
    redis.stop();
    let messaging = place.messaging().await;
    let starting = tokio::spawn(async move { messaging.start().await.map(|running| (running, messaging)) });
    tokio::task::yield_now().await;
    assert!(!starting.is_finished());
    redis.start_again();
    let (_running, messaging) = soon(starting).await.unwrap().unwrap();
    assert!(messaging.health().is_ready());
}

#[subscribe("replica.changed", resync = reload)]
async fn on_change(number: u32, probe: State<Probe>) {
    probe.tell(number);
}

async fn reload(probe: State<Probe>) {
    probe.tell("resync");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_everything_goes_on_by_itself() {
    let redis = RedisServer::start();
    let place = place(&redis);
    let (running, probe) = place.with_handler("it::redis_only::on_change").await;
    let messaging = running.messaging();
    let mut subscription = messaging.subscribe("replica.*").await.unwrap();
    let at_run_time = Arc::new(AtomicUsize::new(0));
    let caught_up = Arc::clone(&at_run_time);
    let catch_up = move |context: Context| async move {
        assert_eq!(context.handler(), "replica");
        caught_up.fetch_add(1, Ordering::SeqCst);
    };
    let subscriber = messaging.subscriber().id("replica").resync(catch_up);
    let _ = subscriber.on("replica.changed", async |_: u32| {}).await.unwrap();
    eventually("it has caught up", async || at_run_time.load(Ordering::SeqCst) == 1).await;
    messaging.publish("replica.changed", &1).await.unwrap();
    assert_eq!(probe.wait_for(2).await, [r#""resync""#, "1"]);
    soon(subscription.get_message(None)).await.unwrap().unwrap();

    redis.stop();
    eventually("health tells the truth", async || messaging.health().handlers[0].state == HandlerState::Deaf)
        .await;
    assert!(!messaging.health().is_ready());
    let error = messaging.publish("replica.changed", &2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.is_not_sent(), "the lost connection had been noticed: {error:?}");
    redis.start_again();
    eventually("it is ready again", async || messaging.health().is_ready()).await;

    eventually("it has caught up again", async || at_run_time.load(Ordering::SeqCst) == 2).await;
    messaging.publish("replica.changed", &3).await.unwrap();
    assert_eq!(probe.wait_for(4).await, [r#""resync""#, "1", r#""resync""#, "3"]);
    let gap = soon(subscription.get_message(None)).await.unwrap_err();
    assert_eq!(gap.kind(), ErrorKind::Gap);
    assert_eq!(soon(subscription.get_message(None)).await.unwrap().unwrap().json::<u32>().unwrap(), 3);
    let health = messaging.health();
    assert_eq!((health.handlers[0].counts.gaps, health.sessions[0].reconnects), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_come_back_with_one_gap_each() {
    let redis = RedisServer::start();
    let (running, probe) = place(&redis).with_handler("it::redis_only::on_change").await;
    let messaging = running.messaging();
    probe.wait_for(1).await;
    for round in 1..=20 {
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        eventually("the gap is announced", async || messaging.health().handlers[0].counts.gaps == round)
            .await;
        eventually("it is ready again", async || messaging.health().is_ready()).await;
    }
    messaging.publish("replica.changed", &7).await.unwrap();
    eventually("the message is handled", async || probe.told().last().is_some_and(|told| told == "7")).await;
    let clients = redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    // One for handlers and subscriptions, one for the events of cached functions.
    assert_eq!(clients.lines().filter(|line| !line.is_empty()).count(), 2, "{clients}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_fell_silent_is_given_up() {
    let redis = RedisServer::start();
    let mut place = place(&redis);
    place.config.ping_after = Duration::from_millis(50);
    place.config.ping_timeout = Duration::from_millis(100);
    place.config.command_timeout = Duration::from_millis(200);
    let (running, probe) = place.with_handler("it::redis_only::on_ping").await;
    let messaging = running.messaging();
    redis.pause();
    eventually("the silence is noticed", async || messaging.health().handlers[0].state == HandlerState::Deaf)
        .await;
    let error = messaging.publish("pings.1", &1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable(), "{error:?}");
    redis.resume();
    eventually("it is ready again", async || messaging.health().is_ready()).await;
    eventually("messages arrive", async || {
        let _ = messaging.publish("pings.7", &1).await;
        probe.told().iter().any(|told| told == "7")
    })
    .await;
}

#[tokio::test]
async fn a_silent_but_healthy_connection_is_kept() {
    let redis = RedisServer::start();
    let mut place = place(&redis);
    place.config.ping_after = Duration::from_millis(5);
    let (running, _probe) = place.with_handler("it::redis_only::on_ping").await;
    let pings = || redis.cli(&["INFO", "commandstats"]).lines().any(|line| line.starts_with("cmdstat_ping:"));
    eventually("it is pinged", async || pings()).await;
    assert_eq!(running.messaging().health().sessions[0].reconnects, 0);
}

#[tokio::test]
async fn a_replica_says_where_to_write() {
    let primary = RedisServer::start();
    let replica = RedisServer::builder().arg("--replicaof", &format!("127.0.0.1 {}", primary.port())).start();
    eventually("it follows", async || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
    })
    .await;
    let messaging = place(&replica).messaging().await;
    let error = messaging.cache("c").set("a", &1, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.is_not_sent() && error.to_string().contains("connect to the primary"), "{error}");
    assert_eq!(messaging.scope(answer(&unique("k"))).await, 42, "a cached function works without its cache");
}

#[tokio::test]
async fn a_full_redis_says_so_and_cached_functions_go_on() {
    let redis = RedisServer::builder().arg("--maxmemory-policy", "noeviction").start();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let messaging = place(&redis).messaging().await;
    let error = messaging.cache("c").set("a", &1, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("maxmemory"), "{error}");
    assert_eq!(messaging.scope(answer(&unique("k"))).await, 42);
    let mut subscription = messaging.subscribe("c").await.unwrap();
    messaging.publish("c", &1).await.unwrap();
    assert!(soon(subscription.get_message(None)).await.unwrap().is_some());
}

/// How many calls of [`slow`] run at this moment, and how many have run at the same time at most.
static RUNNING: AtomicU32 = AtomicU32::new(0);
static MOST_RUNNING: AtomicU32 = AtomicU32::new(0);

#[redis_cache(key = "slow:{key}", ttl = 60)]
async fn slow(key: &str) -> usize {
    MOST_RUNNING.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    // Long enough for others to come along, however fast or slow the machine is.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    key.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_cached_functions_are_called_one_at_a_time() {
    let redis = RedisServer::start();
    let place = place(&redis);
    let messaging = place.messaging().await;
    assert_eq!(messaging.scope(slow("one")).await, 3);
    redis.stop();
    let calls: Vec<_> = (0..50).map(|_| messaging.spawn(slow("three"))).collect();
    for call in calls {
        assert_eq!(soon(call).await.unwrap(), 5);
    }
    assert_eq!(MOST_RUNNING.load(Ordering::SeqCst), 1, "one call at a time for a key");
    redis.start_again();
    let stored = async || {
        messaging.scope(slow("three")).await;
        messaging.cache("slow").get::<usize>("three").await.ok() == Some(Some(5))
    };
    eventually("the cache works again", stored).await;
}

#[tokio::test]
async fn scripts_that_were_flushed_are_loaded_again() {
    let redis = RedisServer::start();
    let messaging = place(&redis).messaging().await;
    for _ in 0..3 {
        let key = unique("k");
        assert_eq!(messaging.scope(answer(&key)).await, 42);
        let stored = async || messaging.cache("answer").get::<u32>(&key).await.unwrap() == Some(42);
        eventually("it is stored", stored).await;
        redis.cli(&["SCRIPT", "FLUSH"]);
    }
}

#[tokio::test]
async fn what_others_publish_harms_nobody() {
    let redis = RedisServer::start();
    let mut place = place(&redis);
    place.config.channel_prefix.clear();
    place.config.max_payload = 1_000;
    let (running, probe) = place.with_handler("it::redis_only::on_ping").await;
    let messaging: &Messaging = running.messaging();
    for payload in ["", "{", "\"text\"", "[1]", &"9".repeat(5_000)] {
        redis.cli(&["PUBLISH", "pings.1", payload]);
    }
    redis.cli(&["PUBLISH", "pings.1.2", "1"]);
    redis.cli(&["PUBLISH", "pings.", "1"]);
    redis.cli(&["PUBLISH", "pings.x", "1"]);
    redis.cli(&["PUBLISH", &format!("pings.{}", "9".repeat(2 << 20)), "1"]);
    redis.cli(&["PUBLISH", "pings.7", "1"]);
    assert_eq!(probe.wait_for(1).await, ["7"]);
    let counted = async || {
        let counts = messaging.health().handlers[0].counts;
        (counts.undecodable, counts.mismatched, counts.handled) == (4, 3, 1)
    };
    eventually("all of it is counted", counted).await;
    let session = messaging.health().sessions.remove(0);
    // The payload, and the name.
    assert_eq!((session.oversized, session.reconnects), (2, 0));
    let error = messaging.publish(&"9".repeat((64 << 10) + 1), &1).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidChannel && error.is_not_sent(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_expire_within_their_jitter() {
    let redis = RedisServer::start();
    let messaging = place(&redis).messaging().await;
    let prefix = messaging.config().cache_prefix.clone();
    for _ in 0..50 {
        let key = unique("k");
        messaging.scope(answer(&key)).await;
        let full = format!("{prefix}:answer:{key}");
        let ttl: i64 = eventually("it is stored", async || {
            redis
                .cli(&["PTTL", &full])
                .trim()
                .trim_start_matches("(integer) ")
                .parse()
                .ok()
                .filter(|ttl| *ttl > 0)
        })
        .await;
        // A slow machine may have let some time pass; the bounds are those of the promise.
        assert!((40_000..=60_000).contains(&ttl), "{ttl}");
    }
}

#[redis_cache(key = "report:{id}", ttl = 60, invalidate_on = ["report.changed"])]
async fn report(id: u32) -> u32 {
    id
}

#[tokio::test]
async fn an_event_is_published_even_if_its_keys_cannot_be_removed() {
    let redis = RedisServer::builder().acl("user service on >pw ~* &* +@all -unlink").start();
    let messaging = Place::at(&redis.url_for("service", "pw")).messaging().await;
    assert_eq!(messaging.scope(report(7)).await, 7);
    let mut subscription = messaging.subscribe("report.changed").await.unwrap();
    let receivers = messaging.publish("report.changed", &json!({ "id": 7 })).await.unwrap();
    assert!(receivers > 0);
    assert!(soon(subscription.get_message(None)).await.unwrap().is_some());
}

#[event_config(publish = { create = ["parcels.first", "parcels.second"], update = ["parcels.second", "parcels.third"] })]
#[derive(Serialize, Deserialize)]
struct Parcel {
    id: u32,
}

#[tokio::test]
async fn of_several_channels_the_refused_one_is_named_and_the_others_count_as_sent() {
    let redis = RedisServer::builder().acl(&limited("narrow", "&parcels.first")).start();
    let mut place = Place::at(&redis.url_for("narrow", "pw"));
    place.config.channel_prefix.clear();
    let messaging = place.messaging().await;
    let mut first = messaging.subscribe("parcels.first").await.unwrap();
    let error = messaging.emit(Op::Create, &Parcel { id: 1 }).await.unwrap_err();
    assert!(soon(first.get_message(None)).await.unwrap().is_some());
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(!error.is_not_sent() && error.to_string().contains("parcels.second"), "{error}");
    let error = messaging.emit(Op::Update, &Parcel { id: 1 }).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.is_not_sent(), "{error}");
}

#[tokio::test]
async fn a_value_may_be_kept_for_ever() {
    let redis = RedisServer::start();
    for place in [Place::memory(), place(&redis)] {
        let messaging = place.messaging().await;
        let cache = messaging.cache("c");
        cache.set("a", &1, Duration::MAX).await.unwrap();
        assert_eq!(cache.get::<u32>("a").await.unwrap(), Some(1));
    }
}

/// A place behind a proxy, with a cache that gives up soon.
async fn behind_a_proxy(redis: &RedisServer) -> (Proxy, Place) {
    let proxy = Proxy::before(redis.port()).await;
    let mut place = Place::at(&format!("redis://127.0.0.1:{}", proxy.port()));
    place.config.cache_timeout = Duration::from_millis(50);
    (proxy, place)
}

#[tokio::test]
async fn callers_that_give_up_do_not_end_the_attempt_to_connect() {
    let redis = RedisServer::start();
    let (proxy, place) = behind_a_proxy(&redis).await;
    proxy.hold(Direction::Both);
    let messaging = place.messaging().await;
    let cache = messaging.cache("c");
    for _ in 0..5 {
        let error = cache.get::<u32>("a").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Timeout && error.is_not_sent(), "{error}");
    }
    proxy.heal().await;
    eventually("it is connected", async || cache.get::<u32>("a").await.is_ok()).await;
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_late_answer_to_the_cache_does_not_cost_the_connection() {
    let redis = RedisServer::start();
    let (proxy, place) = behind_a_proxy(&redis).await;
    let messaging = place.messaging().await;
    let cache = messaging.cache("c");
    eventually("it is connected", async || cache.get::<u32>("a").await.is_ok()).await;
    for _ in 0..5 {
        proxy.hold(Direction::Both);
        let error = cache.get::<u32>("a").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Timeout && !error.is_not_sent(), "{error}");
        proxy.heal().await;
        eventually("it answers again", async || cache.get::<u32>("a").await.is_ok()).await;
    }
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_half_open_connection_is_replaced_though_only_the_cache_uses_it() {
    let redis = RedisServer::start();
    let (proxy, mut place) = behind_a_proxy(&redis).await;
    place.config.command_timeout = Duration::from_millis(100);
    let messaging = place.messaging().await;
    let cache = messaging.cache("c");
    eventually("it is connected", async || cache.get::<u32>("a").await.is_ok()).await;
    proxy.strand(Direction::Both);
    eventually("another connection answers", async || cache.get::<u32>("a").await.is_ok()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_keeps_every_connection_alive() {
    let redis = RedisServer::start();
    let messaging = place(&redis).messaging().await;
    let _subscription = messaging.subscribe("c").await.unwrap();
    messaging.publish("c", &1).await.unwrap();
    let remote = format!(":{:04X}", redis.port());
    let timers = || -> Vec<String> {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = rows.filter(|row| row.len() > 5 && row[2].ends_with(&remote) && row[3] == "01");
        ours.map(|row| row[5].split(':').next().unwrap_or_default().to_owned()).collect()
    };
    // 02 is the timer of keepalive; while something is on its way there is another for a moment.
    eventually("both wait for it", async || timers() == ["02", "02"]).await;
}
