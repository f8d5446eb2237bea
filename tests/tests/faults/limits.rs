//! The limits of others: what Redis keeps for a subscriber that does not read, and payloads that are larger than ours.

use messaging_core::{Buffer, HandlerState, Overflow};
use messaging_tests::{RedisServer, eventually};
use tokio::sync::Semaphore;

use crate::flood::{Publisher, numbers};
use crate::gated::{gated, health_of, started};
use crate::outcome;
use crate::place::{PATIENCE, Place, soon};

/// Much for a message, little for a flood.
const PAYLOAD: usize = 64 << 10;

/// Redis does not keep more than this for a subscriber that does not read.
fn with_small_output_buffers() -> RedisServer {
    RedisServer::builder().arg("--client-output-buffer-limit", "pubsub 1mb 0 0").start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_handler_that_redis_cuts_off_is_told() {
    let redis = with_small_output_buffers();
    let place = Place::at(&redis.url());
    let (running, probe, gate) = started(&place, "faults::gated::on_blocked").await;
    let messaging = running.messaging();
    let mut publisher = Publisher::at(&redis.url(), &place.config.channel_prefix).await;
    let cut_off = || redis.log().contains("overcoming of output buffer limits");
    // More than the sockets between hold.
    let payload = format!("\"{}\"", "x".repeat(PAYLOAD));
    eventually("redis cuts it off", async || {
        publisher.flood("blocked", std::iter::repeat_n(payload.clone(), 100)).await;
        cut_off()
    })
    .await;
    let deaf = async || health_of(messaging, "on_blocked").state == HandlerState::Deaf;
    eventually("health knows though the handler is stuck", deaf).await;
    gate.0.add_permits(Semaphore::MAX_PERMITS / 2);
    let back = async || health_of(messaging, "on_blocked").counts.gaps == 1 && messaging.health().is_ready();
    eventually("it is back, and a gap is announced", back).await;
    eventually("it has caught up", async || {
        probe.told().iter().filter(|told| told.contains("resync")).count() == 2
    })
    .await;
    let before = probe.told().len();
    publisher.publish("blocked", "\"after\"").await;
    probe.wait_for(before + 1).await;
    let session = messaging.health().sessions.into_iter().find(|session| session.name.contains("on_blocked"));
    let session = session.unwrap();
    assert_eq!((session.reconnects, session.cut_off), (1, 1));
    assert!(session.last_error.is_some_and(|error| error.contains("client-output-buffer-limit")));
    outcome("output buffer limit, block", "cut off once, one gap, one resync");
}

/// The server publishes all of it before it writes any of it: no reader is fast enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_the_output_buffer_limit_is_a_gap() {
    let redis = with_small_output_buffers();
    let place = Place::at(&redis.url());
    let (running, probe, gate) = started(&place, "faults::gated::on_behind").await;
    let messaging = running.messaging();
    gate.0.add_permits(1_000);
    let script = "for i = 1, 100 do redis.call('PUBLISH', KEYS[1], string.rep('1', 65536)) end";
    let channel = format!("{}behind", place.config.channel_prefix);
    redis.cli(&["EVAL", script, "1", &channel]);
    eventually("redis has cut it off", async || redis.log().contains("overcoming of output buffer limits"))
        .await;
    let back = async || health_of(messaging, "on_behind").counts.gaps == 1 && messaging.health().is_ready();
    eventually("it is back, and a gap is announced", back).await;
    redis.cli(&["PUBLISH", &channel, "7"]);
    eventually("it goes on", async || probe.told().last().is_some_and(|told| told == "7")).await;
    eventually("it has caught up", async || health_of(messaging, "on_behind").counts.resyncs == 2).await;
    assert_eq!(messaging.health().sessions[0].reconnects, 1);
    outcome("output buffer limit, burst", "cut off once, one gap, one resync");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_messages_in_a_flood_are_skipped_and_counted() {
    const MESSAGES: u64 = 5_000;
    let redis = RedisServer::start();
    let mut place = Place::at(&redis.url());
    place.config.max_payload = 64 << 10;
    let messaging = place.messaging().await;
    let mut publisher = Publisher::at(&redis.url(), &place.config.channel_prefix).await;
    let gated = gated(&messaging, "sizes", Overflow::Block, Buffer::DEFAULT).await;
    gated.permits.add_permits(MESSAGES as usize);
    let huge = "9".repeat(256 << 10);
    let payloads = numbers(0..MESSAGES).enumerate().flat_map(|(number, payload)| {
        let extra = (number % 100 == 0).then(|| huge.clone());
        extra.into_iter().chain([payload])
    });
    publisher.flood("sizes", payloads).await;
    let told = gated.probe.wait_for(MESSAGES as usize).await;
    let expected = numbers(0..MESSAGES).map(|number| format!("Number({number})"));
    assert!(told.iter().eq(expected.collect::<Vec<_>>().iter()), "{told:?}");
    let health = messaging.health();
    let session = health.sessions.iter().find(|session| session.name == "sizes").unwrap();
    assert_eq!((session.oversized, session.reconnects), (MESSAGES / 100, 0));
    assert!(soon(messaging.start()).await.unwrap().shutdown(PATIENCE).await.is_complete());
    outcome("oversized", format!("{} skipped of {}", session.oversized, MESSAGES + session.oversized));
}
