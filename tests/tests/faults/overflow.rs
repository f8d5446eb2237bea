//! Handlers that do not keep up: what they cost, what they lose, and that others are not held up by them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use messaging_core::{Buffer, Overflow};
use messaging_tests::{RedisServer, eventually};

use crate::flood::{Publisher, at, numbers};
use crate::gated::{buffer, gated, health_of, started};
use crate::place::{Place, soon};
use crate::{child, outcome};

const FLOOD: usize = 256 << 20;
const PAYLOAD: usize = 64 << 10;
const BUFFER_BYTES: usize = 4 << 20;

/// The bound is that of the documentation: about five times what waits; and what the allocator may keep.
const MORE_MEMORY: u64 = (5 * BUFFER_BYTES as u64 + (8 << 20)) >> 10;

#[test]
fn a_stuck_handler_under_a_flood_keeps_to_its_buffer() {
    const TEST: &str = "overflow::a_stuck_handler_under_a_flood_keeps_to_its_buffer";
    if child::is(TEST) {
        return child::run(stuck_child());
    }
    // The server keeps what we do not read at once.
    let redis = RedisServer::builder().arg("--client-output-buffer-limit", "pubsub 0 0 0").start();
    let mut program = child::start(TEST, &redis.url());
    program.wait_for_line(|line| line == "ready");
    child::run(async {
        let mut publisher = Publisher::at(&redis.url(), "").await;
        let payload = format!("\"{}\"", "x".repeat(PAYLOAD - 2));
        publisher.flood("flood", std::iter::repeat_n(payload, FLOOD / PAYLOAD)).await;
        publisher.publish("report", 1).await;
    });
    let line = program.wait_for_line(|line| line.starts_with("after the flood: "));
    let ended = program.end();
    assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
    outcome("stuck handler, 256 MiB", line.trim_start_matches("after the flood: "));
}

async fn stuck_child() {
    let mut place = Place::at(&child::url());
    place.config.channel_prefix.clear();
    let messaging = place.messaging().await;
    let running = messaging.start().await.unwrap();
    let limits = Buffer { bytes: NonZeroUsize::new(BUFFER_BYTES).unwrap(), ..Buffer::DEFAULT };
    let _stuck = gated(&messaging, "flood", Overflow::Wait, limits).await;
    // The report is on the same connection: when it arrives, the flood has arrived.
    let report = gated(&messaging, "report", Overflow::Wait, Buffer::DEFAULT).await;
    report.permits.add_permits(1);
    let before = child::memory();
    println!("\nready");
    report.probe.wait_for(1).await;
    let grown = child::memory().saturating_sub(before);
    let health = health_of(&messaging, "flood");
    let (waiting, bytes, dropped) = (health.waiting, health.waiting_bytes, health.counts.dropped);
    assert!(waiting <= Buffer::DEFAULT.messages.get() && bytes <= BUFFER_BYTES, "{health:?}");
    assert_eq!(health.in_flight + waiting + usize::try_from(dropped).unwrap(), FLOOD / PAYLOAD, "{health:?}");
    assert!(grown <= MORE_MEMORY, "{grown} KiB more, {MORE_MEMORY} may be");
    println!("\nafter the flood: {grown} KiB more memory, {waiting} wait, {dropped} dropped");
    drop(soon(running.shutdown(Duration::ZERO)).await);
}

/// How long a handler may hold its reader up in all.
const HOLD: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_handler_holds_others_up_for_a_second_in_all() {
    const MESSAGES: u64 = 100;
    let redis = RedisServer::start();
    let (messaging, mut publisher) = at(&redis).await;
    let stuck = gated(&messaging, "stuck", Overflow::Wait, buffer(10)).await;
    let arrivals = Arc::<Mutex<Vec<Instant>>>::default();
    let arrived = Arc::clone(&arrivals);
    let other = messaging.subscriber().on("other", move |_: u64| {
        arrived.lock().unwrap().push(Instant::now());
        async {}
    });
    let _other = other.await.unwrap();
    let mut held_up = Duration::ZERO;
    // One by one: a reader that may wait for each message waits for each of these.
    for number in 0..MESSAGES {
        publisher.publish("stuck", number).await;
        let published = Instant::now();
        publisher.publish("other", number).await;
        let arrival = || arrivals.lock().unwrap().get(number as usize).copied();
        let arrival = eventually("the other handler gets its message", async || arrival()).await;
        held_up += arrival.saturating_duration_since(published);
    }
    assert_eq!(stuck.probe.told(), Vec::<String>::new(), "it is still stuck");
    assert!(health_of(&messaging, "stuck").counts.dropped > 0);
    // Each of these messages may come late by what the machine makes of it; were each held up, it would be 80 seconds.
    assert!(held_up >= HOLD / 2 && held_up <= 10 * HOLD, "held up for {held_up:?}");
    outcome("stuck handler", format!("others were held up for {} ms in all", held_up.as_millis()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_handler_loses_is_announced_once_it_catches_up() {
    const MESSAGES: u64 = 500;
    let redis = RedisServer::start();
    let place = Place::at(&redis.url());
    let (running, _probe, gate) = started(&place, "faults::gated::on_behind").await;
    let messaging = running.messaging();
    let mut publisher = Publisher::at(&redis.url(), &place.config.channel_prefix).await;
    for round in 1..=3 {
        let first = (round - 1) * MESSAGES;
        publisher.publish("behind", first).await;
        eventually("one is in its hands", async || health_of(messaging, "on_behind").in_flight == 1).await;
        publisher.flood("behind", numbers(first + 1..first + MESSAGES)).await;
        let lost = round * (MESSAGES - 11);
        eventually("the rest is dropped", async || health_of(messaging, "on_behind").counts.dropped == lost)
            .await;
        let health = health_of(messaging, "on_behind");
        assert_eq!(
            (health.waiting, health.counts.gaps, health.counts.resyncs),
            (10, round, round),
            "{health:?}"
        );
        gate.0.add_permits(11);
        eventually("it has caught up and been told", async || {
            let counts = health_of(messaging, "on_behind").counts;
            (counts.handled, counts.gaps, counts.resyncs) == (round * 11, round, round + 1)
        })
        .await;
    }
    assert_eq!(messaging.health().sessions[0].reconnects, 0);
    outcome("slow handler", format!("{} dropped in 3 gaps, each announced once", 3 * (MESSAGES - 11)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_oldest_keeps_the_newest_of_a_flood() {
    const MESSAGES: u64 = 20_000;
    let redis = RedisServer::start();
    let (messaging, mut publisher) = at(&redis).await;
    let gated = gated(&messaging, "newest", Overflow::DropOldest, buffer(10)).await;
    publisher.publish("newest", 0).await;
    eventually("the first is in its hands", async || health_of(&messaging, "newest").in_flight == 1).await;
    publisher.flood("newest", numbers(1..MESSAGES)).await;
    let lost = MESSAGES - 11;
    eventually("the rest is dropped", async || health_of(&messaging, "newest").counts.dropped == lost).await;
    gated.permits.add_permits(100);
    let kept: Vec<_> =
        [0].into_iter().chain(MESSAGES - 10..MESSAGES).map(|number| number.to_string()).collect();
    let told = gated.probe.wait_for(11).await;
    let told: Vec<_> = told.iter().map(|number| number.replace("Number(", "").replace(')', "")).collect();
    assert_eq!(told, kept);
    assert_eq!(health_of(&messaging, "newest").counts.gaps, 0, "that is what was asked for");
    outcome("drop_oldest", format!("{lost} of {MESSAGES} dropped, the newest kept"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_loses_nothing_of_a_flood_and_holds_nobody_up() {
    const MESSAGES: u64 = 20_000;
    let redis = RedisServer::start();
    let (messaging, mut publisher) = at(&redis).await;
    let blocked = gated(&messaging, "all", Overflow::Block, buffer(10)).await;
    let free = gated(&messaging, "al*", Overflow::Wait, Buffer::DEFAULT).await;
    free.permits.add_permits(MESSAGES as usize);
    publisher.flood("all", numbers(0..MESSAGES)).await;
    free.probe.wait_for(MESSAGES as usize).await;
    // Longer than a handler with `wait` may hold its reader up.
    tokio::time::sleep(2 * HOLD).await;
    assert_eq!(blocked.probe.told(), Vec::<String>::new());
    assert_eq!(health_of(&messaging, "al*").counts.dropped, 0);
    let clients = redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    assert_eq!(
        clients.lines().filter(|client| !client.is_empty()).count(),
        2,
        "its own connection: {clients}"
    );
    blocked.permits.add_permits(MESSAGES as usize);
    assert_eq!(
        blocked.probe.wait_for(MESSAGES as usize).await,
        free.probe.told(),
        "the same in the same order"
    );
    let health = messaging.health();
    assert!(health.sessions.iter().all(|session| session.reconnects == 0), "{health:?}");
    assert!(health.handlers.iter().all(|handler| handler.counts.gaps == 0), "{health:?}");
    outcome("block", format!("{MESSAGES} of {MESSAGES} handled"));
}
