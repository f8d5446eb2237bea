//! Many cuts in a row: afterwards everything is heard, and nothing is left over.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use messaging_core::{ErrorKind, HandlerHandle, Messaging};
use messaging_tests::{Proxy, RedisServer, eventually};

use crate::place::{PATIENCE, Place, soon};
use crate::{child, outcome};

const CUTS: u64 = 100;
const CHANNELS: usize = 50;
const GLOBS: usize = 10;
/// What the allocator may keep of what was freed. A leak of one connection's buffers at each cut would be more.
const KEPT: u64 = 4 << 10;

/// A handler, the channel that reaches it, and how often it was called.
struct Ear {
    channel: String,
    calls: Arc<AtomicU64>,
    _handler: HandlerHandle,
}

async fn listen(messaging: &Messaging, pattern: String, channel: String) -> Ear {
    let calls = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&calls);
    let handler = messaging.subscriber().id(pattern.as_str()).on(&pattern, move |_: u64| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {}
    });
    Ear { channel, calls, _handler: handler.await.unwrap() }
}

/// What there is of something that a cut could leave behind.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Inventory {
    tasks: usize,
    sockets: usize,
    proxied: usize,
    clients: usize,
}

impl Inventory {
    fn take(redis: &RedisServer, proxy: &Proxy) -> Self {
        let clients = redis.cli(&["CLIENT", "LIST"]);
        Self {
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            sockets: child::sockets(),
            proxied: proxy.open(),
            clients: clients.lines().filter(|client| !client.is_empty()).count(),
        }
    }
}

#[test]
fn a_hundred_cuts_leave_nothing_behind() {
    // Memory and sockets can be counted only in a process that does nothing else.
    const TEST: &str = "cuts::a_hundred_cuts_leave_nothing_behind";
    if child::is(TEST) {
        return child::run(a_hundred_cuts());
    }
    let mut program = child::start(TEST, "");
    for cut in (0..CUTS).step_by(10) {
        program.wait_for_line(|line| line == format!("cut {cut}"));
    }
    let line = program.wait_for_line(|line| line.starts_with("came of it: "));
    let ended = program.end();
    assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
    outcome("100 cuts", line.trim_start_matches("came of it: "));
}

async fn a_hundred_cuts() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut place = Place::at(&format!("redis://127.0.0.1:{}", proxy.port()));
    place.config.reconnect.initial = Duration::from_millis(1);
    place.config.reconnect.max = Duration::from_millis(20);
    let messaging = place.messaging().await;
    let running = messaging.start().await.unwrap();
    let mut ears = Vec::new();
    for number in 0..CHANNELS {
        ears.push(listen(&messaging, format!("exact.{number}"), format!("exact.{number}")).await);
    }
    for number in 0..GLOBS {
        ears.push(listen(&messaging, format!("glob{number}.*"), format!("glob{number}.x")).await);
    }
    let mut subscription = messaging.subscribe("exact.0").await.unwrap();
    // The cache's own connection is there too.
    messaging.scope(crate::interruptions::cached("1")).await;
    let stored = async || messaging.cache("faults").get::<usize>("1").await.ok().flatten().is_some();
    eventually("the value is stored", stored).await;
    let ready = async |messaging: &Messaging| {
        eventually("it is ready again", async || messaging.health().is_ready()).await;
        // Connections for commands are made when they are needed.
        messaging.publish("nobody", &0).await.is_ok()
            && messaging.cache("faults").get::<usize>("1").await.is_ok()
    };
    assert!(ready(&messaging).await);
    let before = Inventory::take(&redis, &proxy);
    // So slow that a cut can come between two confirmations.
    proxy.throttle(NonZeroUsize::new(60_000).unwrap());

    let (mut memory, mut in_between) = (0, 0);
    for cut in 0..CUTS {
        if cut % 10 == 0 {
            println!("\ncut {cut}");
        }
        if cut == CUTS / 5 {
            memory = child::memory();
        }
        let accepted = proxy.accepted();
        proxy.cut();
        let session = || messaging.health().sessions.swap_remove(0);
        eventually("it begins to subscribe again", async || {
            proxy.accepted() > accepted && session().reconnects > cut && session().connected
        })
        .await;
        // Every other cut comes while it subscribes.
        if cut % 2 == 0 {
            in_between += u64::from(!session().unconfirmed.is_empty());
        } else {
            eventually("it is ready again", async || messaging.health().is_ready()).await;
        }
    }
    assert!(in_between > 0, "some cuts came while it subscribed");
    proxy.heal().await;
    eventually("commands work again", async || ready(&messaging).await).await;

    let health = messaging.health();
    assert_eq!(health.sessions[0].reconnects, CUTS);
    for handler in &health.handlers {
        // A cut while it subscribed is a gap of its own only for those who were confirmed already.
        let gaps = handler.counts.gaps;
        assert!((CUTS / 2..=CUTS).contains(&gaps), "{}: {gaps}", handler.id);
    }
    let mut announced = 0;
    while let Err(error) = subscription.get_message(Duration::from_millis(1)).await {
        assert_eq!(error.kind(), ErrorKind::Gap);
        announced += 1;
    }
    assert_eq!(announced, 1, "nobody read meanwhile: gaps without a message between them are one");

    for ear in &ears {
        messaging.publish(&ear.channel, &1).await.unwrap();
    }
    for ear in &ears {
        eventually(&format!("{} is heard", ear.channel), async || ear.calls.load(Ordering::SeqCst) == 1)
            .await;
    }
    let mut after = Inventory::take(&redis, &proxy);
    eventually(&format!("nothing is left over: {after:?}, before: {before:?}"), async || {
        after = Inventory::take(&redis, &proxy);
        // Whatever was just ending when the first inventory was taken is gone by now.
        after.tasks <= before.tasks && Inventory { tasks: before.tasks, ..after } == before
    })
    .await;
    let grown = child::memory().saturating_sub(memory);
    assert!(grown < KEPT, "{grown} KiB more than after {} cuts", CUTS / 5);
    println!("\ncame of it: {in_between} of them while subscribing, {grown} KiB more memory, {after:?}");
    assert!(soon(running.shutdown(PATIENCE)).await.is_complete());
}
