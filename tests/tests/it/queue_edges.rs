//! What queues and resumable handlers must get right at their edges: stops in the middle, what cannot be settled, what
//! was away for a while.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use messaging_core::{
    Buffer, DeliveryMode, Durability, ErrorKind, HandlerError, Messaging, OrderedBy, Retention, Retry,
    StartAt, Subscriber,
};
use messaging_tests::{RedisServer, eventually};
use tokio::sync::Notify;

use crate::place::{Place, Probe, on_backend, soon};

on_backend! {
    memory
    a_stop_does_not_wait_for_a_retry_that_is_far_away
    a_key_that_waits_for_its_retry_does_not_keep_others_waiting
    what_an_ended_handler_held_comes_to_the_next_one
    a_taken_id_takes_no_group_away
    an_event_is_a_new_one_after_its_window
    a_quiet_time_is_no_gap
    the_buffer_is_that_of_all_streams
    who_has_left_shows_no_life_any_more
}

on_backend! {
    redis
    a_stop_does_not_wait_for_a_retry_that_is_far_away
    a_key_that_waits_for_its_retry_does_not_keep_others_waiting
    what_an_ended_handler_held_comes_to_the_next_one
    a_taken_id_takes_no_group_away
    an_event_is_a_new_one_after_its_window
    a_quiet_time_is_no_gap
    the_buffer_is_that_of_all_streams
    who_has_left_shows_no_life_any_more
}

const HOUR: Duration = Duration::from_secs(3_600);
const FAR_AWAY: Retry =
    Retry { attempts: NonZeroU32::new(3).unwrap(), initial: HOUR, multiplier: 1.0, max_delay: HOUR };

fn queue(messaging: &Messaging, group: &str) -> Subscriber {
    messaging.subscriber().delivery(DeliveryMode::Queue).group(group).id(group)
}

fn teller(probe: &Probe) -> impl Fn(u32) -> std::future::Ready<()> + Send + Sync + 'static + use<> {
    let probe = probe.clone();
    move |number| {
        probe.tell(number);
        std::future::ready(())
    }
}

/// How much a group holds, delays, and has not read.
async fn left(messaging: &Messaging, group: &str) -> [u64; 3] {
    let queues = messaging.queues().await.unwrap();
    let of_group = queues.iter().filter(|queue| queue.group == group);
    of_group
        .fold([0; 3], |sum, queue| [sum[0] + queue.pending, sum[1] + queue.delayed, sum[2] + queue.unread])
}

async fn settled(messaging: &Messaging, group: &str) {
    eventually("everything is settled", async || left(messaging, group).await == [0; 3]).await;
}

async fn a_stop_does_not_wait_for_a_retry_that_is_far_away(mut place: Place) {
    place.config.drain_timeout = HOUR;
    let messaging = place.messaging().await;
    let probe = Probe::default();
    let told = probe.clone();
    let fails = move |number: u32| {
        told.tell(number);
        std::future::ready(Err::<(), _>("not yet"))
    };
    let subscriber = queue(&messaging, "workers").ordered_by(OrderedBy::Key).retry(FAR_AWAY);
    messaging.publish("jobs", &0).durable().await.unwrap();
    let handler = subscriber.on("jobs", fails).await.unwrap();
    messaging.publish("jobs", &1).durable().await.unwrap();
    probe.wait_for(1).await;
    soon(handler.stop()).await;
    assert_eq!(left(&messaging, "workers").await, [0, 1, 0], "it is handed back");
}

async fn a_key_that_waits_for_its_retry_does_not_keep_others_waiting(place: Place) {
    let messaging = place.messaging().await;
    let probe = Probe::default();
    let told = probe.clone();
    let fails_small = move |number: u32| {
        told.tell(number);
        std::future::ready(if number < 100 { Err("not yet") } else { Ok(()) })
    };
    let subscriber = queue(&messaging, "workers").ordered_by(OrderedBy::Key).retry(FAR_AWAY);
    messaging.publish("jobs", &0).durable().await.unwrap();
    let subscriber = subscriber.workers(NonZeroUsize::new(8).unwrap());
    let _handler = subscriber.on("jobs", fails_small).await.unwrap();
    for number in 1..60 {
        messaging.publish("jobs", &number).durable().key("failing").await.unwrap();
    }
    for number in 100..116 {
        messaging.publish("jobs", &number).durable().key(number.to_string()).await.unwrap();
    }
    // Not all keys share a worker with the one that fails.
    probe.wait_for(2).await;
}

async fn what_an_ended_handler_held_comes_to_the_next_one(mut place: Place) {
    place.config.reclaim = Duration::from_secs(1);
    let messaging = place.messaging().await;
    messaging.publish("jobs", &0).durable().await.unwrap();
    let probe = Probe::default();
    let told = probe.clone();
    let hangs = move |number: u32| {
        told.tell(number);
        std::future::pending::<()>()
    };
    let handler = queue(&messaging, "workers").timeout(HOUR).on("jobs", hangs).await.unwrap();
    messaging.publish("jobs", &1).durable().await.unwrap();
    probe.wait_for(1).await;
    assert!(handler.stop().now_or_never().is_none(), "it is dropped in the middle");
    let _next = queue(&messaging, "workers").on("jobs", teller(&probe)).await.unwrap();
    assert_eq!(probe.wait_for(2).await, ["1", "1"]);
    settled(&messaging, "workers").await;
}

async fn a_taken_id_takes_no_group_away(place: Place) {
    let messaging = place.messaging().await;
    messaging.publish("jobs", &0).durable().await.unwrap();
    let probe = Probe::default();
    let _first = queue(&messaging, "workers").on("jobs", teller(&probe)).await.unwrap();
    for id in ["workers", "another"] {
        let error = queue(&messaging, "workers").id(id).on("jobs", teller(&probe)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Registration, "{error}");
    }
}

async fn an_event_is_a_new_one_after_its_window(place: Place) {
    let messaging = place.messaging().await;
    messaging.publish("jobs", &0).durable().await.unwrap();
    let probe = Probe::default();
    let subscriber = queue(&messaging, "workers").dedupe(Duration::from_secs(1));
    let _handler = subscriber.on("jobs", teller(&probe)).await.unwrap();
    eventually("it is handled a second time", async || {
        messaging.publish("jobs", &1).durable().id("same").await.unwrap();
        probe.told().len() >= 2
    })
    .await;
}

async fn a_quiet_time_is_no_gap(place: Place) {
    let short = Retention { max_age: Duration::from_secs(1), max_len: NonZeroU64::new(100).unwrap() };
    let messaging = place.builder().durable("jobs", short).build().await.unwrap();
    let probe = Probe::default();
    let subscriber = messaging.subscriber().delivery(DeliveryMode::Resumable);
    let _handler = subscriber.on("jobs", teller(&probe)).await.unwrap();
    for number in 1..=3 {
        messaging.publish("jobs", &number).await.unwrap();
        probe.wait_for(number).await;
        eventually("nothing is kept", async || messaging.history("jobs").await.unwrap().is_empty()).await;
    }
    let counts = messaging.health().handlers[0].counts;
    assert_eq!((counts.handled, counts.gaps, counts.removed), (3, 0, 0));
}

async fn the_buffer_is_that_of_all_streams(place: Place) {
    let parts = Durability::DEFAULT.partitions(NonZeroU16::new(8).unwrap());
    let messaging = place.builder().durable("jobs.*", parts).build().await.unwrap();
    for number in 0..160 {
        messaging.publish("jobs.new", &number).key(number.to_string()).await.unwrap();
    }
    let probe = Probe::default();
    let told = probe.clone();
    let hangs = move |number: u32| {
        told.tell(number);
        std::future::pending::<()>()
    };
    let buffer = Buffer { messages: NonZeroUsize::new(8).unwrap(), ..Buffer::DEFAULT };
    let subscriber = queue(&messaging, "workers").start_at(StartAt::Beginning).buffer(buffer).timeout(HOUR);
    let _handler = subscriber.on("jobs.*", hangs).await.unwrap();
    probe.wait_for(1).await;
    let [pending, ..] = left(&messaging, "workers").await;
    assert!(pending <= 9, "{pending} are held");
}

async fn who_has_left_shows_no_life_any_more(mut place: Place) {
    // Nobody waits for a lease to run out, and nobody looks a second time.
    place.config.reclaim = HOUR;
    for round in 0..20 {
        let jobs = &format!("jobs.{round}");
        let [first, second] = [place.messaging().await, place.messaging().await];
        first.publish(jobs, &0).durable().await.unwrap();
        let (begun, probe) = (Probe::default(), Probe::default());
        let told = begun.clone();
        let fails = move |number: u32| {
            told.tell(number);
            std::future::ready(Err::<(), _>("not yet"))
        };
        let ordered = |messaging| queue(messaging, "workers").ordered_by(OrderedBy::Key).retry(FAR_AWAY);
        let handler = ordered(&first).on(jobs.as_str(), fails).await.unwrap();
        for number in 1..=20 {
            first.publish(jobs, &number).durable().key(number.to_string()).await.unwrap();
        }
        begun.wait_for(1).await;
        soon(handler.stop()).await;
        let queues = second.queues().await.unwrap();
        assert!(queues.iter().all(|queue| queue.alive == 0), "round {round}: {queues:?}");
        let skips = ordered(&second).retry(Retry::NEVER).on(jobs.as_str(), teller(&probe)).await.unwrap();
        soon(skips.stop()).await;
    }
}

/// What the server counts of a command: `calls` or `rejected_calls`.
fn count_of(redis: &RedisServer, command: &str, what: &str) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")));
    let count = line.and_then(|line| line.split(',').find_map(|part| part.strip_prefix(&format!("{what}="))));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_an_ordered_stream_back_goes_on_with_what_it_had() {
    let redis = RedisServer::start();
    let mut place = Place::at(&redis.url());
    place.config.reclaim = Duration::from_secs(1);
    let messaging = place.messaging().await;
    messaging.publish("jobs", &0).durable().await.unwrap();
    let (probe, gate) = (Probe::default(), Arc::new(Notify::new()));
    let (told, opened) = (probe.clone(), Arc::clone(&gate));
    let waits = move |number: u32| {
        let (told, opened) = (told.clone(), Arc::clone(&opened));
        async move {
            told.tell(number);
            if number == 1 {
                opened.notified().await;
            }
        }
    };
    let subscriber = queue(&messaging, "workers").ordered_by(OrderedBy::Key).timeout(HOUR);
    let _handler = subscriber.on("jobs", waits).await.unwrap();
    for number in 1..=3 {
        messaging.publish("jobs", &number).durable().await.unwrap();
    }
    probe.wait_for(1).await;
    eventually("the others are read too", async || left(&messaging, "workers").await == [3, 0, 0]).await;
    let owner = stream_key(&place, "jobs").replace(":stream", ":owner:workers");
    redis.cli(&["SET", &owner, "somebody"]);
    let asked = count_of(&redis, "evalsha", "calls");
    eventually("it is noticed", async || count_of(&redis, "evalsha", "calls") >= asked + 4).await;
    redis.cli(&["DEL", &owner]);
    gate.notify_one();
    messaging.publish("jobs", &4).durable().await.unwrap();
    assert_eq!(probe.wait_for(4).await, ["1", "2", "3", "4"]);
    settled(&messaging, "workers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_look_for_streams_is_repeated_at_leisure() {
    let redis = RedisServer::builder().acl("user service on >pw ~* &* +@all").start();
    let place = Place::at(&redis.url_for("service", "pw"));
    let messaging = place.messaging().await;
    let probe = Probe::default();
    let _handler = queue(&messaging, "workers").on("jobs", teller(&probe)).await.unwrap();
    redis.cli(&["ACL", "SETUSER", "service", "-hvals"]);
    let refused = async |more: u64| {
        let before = count_of(&redis, "hvals", "rejected_calls");
        eventually("it is refused", async || count_of(&redis, "hvals", "rejected_calls") >= before + more)
            .await;
    };
    refused(1).await;
    let begun = Instant::now();
    refused(5).await;
    // Four waits of at least a tenth of two seconds lie between them.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_channel_that_the_acl_forbids_keeps_nothing_from_being_settled() {
    let redis = RedisServer::builder().acl("user service on >pw ~* resetchannels &jobs +@all").start();
    let mut place = Place::at(&redis.url_for("service", "pw"));
    place.config.channel_prefix.clear();
    let messaging = place.messaging().await;
    messaging.publish("jobs", &0).durable().await.unwrap();
    let gives_up = |_: u32| std::future::ready(Err::<(), _>(HandlerError::dead_letter("no")));
    let subscriber = queue(&messaging, "workers").dead_letter("forbidden");
    let _handler = subscriber.on("jobs", gives_up).await.unwrap();
    messaging.publish("jobs", &1).durable().await.unwrap();
    settled(&messaging, "workers").await;
    assert_eq!(messaging.dead_letters("workers").list().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_thousands_of_fields_is_given_up_like_any_other() {
    let redis = RedisServer::start();
    let place = Place::at(&redis.url());
    let messaging = place.messaging().await;
    messaging.publish("jobs", &0).durable().await.unwrap();
    let probe = Probe::default();
    let _handler = queue(&messaging, "workers").on("jobs", teller(&probe)).await.unwrap();
    let key = stream_key(&place, "jobs");
    let mut add = vec!["XADD", &key, "*"];
    add.extend(std::iter::repeat_n("x", 10_000));
    redis.cli(&add);
    messaging.publish("jobs", &1).durable().await.unwrap();
    assert_eq!(probe.wait_for(1).await, ["1"]);
    settled(&messaging, "workers").await;
    assert_eq!(messaging.dead_letters("workers").list().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_a_group_is_gone_is_its_own() {
    let redis = RedisServer::start();
    let place = Place::at(&redis.url());
    let messaging = place.messaging().await;
    messaging.publish("jobs", &0).durable().await.unwrap();
    let probe = Probe::default();
    let _handler = queue(&messaging, "workers").on("jobs", teller(&probe)).await.unwrap();
    let script =
        "redis.call('FLUSHALL') return redis.call('XADD', KEYS[1], '*', 'channel', ARGV[1], 'data', '7')";
    let channel = format!("{}jobs", place.config.channel_prefix);
    redis.cli(&["EVAL", script, "1", &stream_key(&place, "jobs"), &channel]);
    assert_eq!(probe.wait_for(1).await, ["7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_gives_no_end_to_a_stream_that_has_none() {
    let redis = RedisServer::start();
    let place = Place::at(&redis.url());
    let messaging = place.messaging().await;
    messaging.publish("jobs", &0).durable().await.unwrap();
    let (key, probe, failing) = (stream_key(&place, "jobs"), Probe::default(), AtomicBool::new(true));
    redis.cli(&["PERSIST", &key]);
    let told = probe.clone();
    let fails_once = move |number: u32| {
        let first = failing.swap(false, Ordering::Relaxed);
        told.tell(number);
        std::future::ready(if first { Err(HandlerError::dead_letter("no")) } else { Ok(()) })
    };
    let subscriber = queue(&messaging, "workers").start_at(StartAt::Beginning);
    let _handler = subscriber.on("jobs", fails_once).await.unwrap();
    let dead = messaging.dead_letters("workers");
    eventually("it is given up", async || !dead.list().await.unwrap().is_empty()).await;
    assert_eq!(dead.replay_all().await.unwrap(), 1);
    probe.wait_for(2).await;
    assert_eq!(redis.cli(&["PTTL", &key]).trim(), "-1");
}

fn stream_key(place: &Place, channel: &str) -> String {
    format!("{}:{{{}{channel}}}:stream", place.config.namespace, place.config.channel_prefix)
}
