//! Resumable handlers: every process sees everything, in order, across everything that happens to its connection; and is told
//! of what it cannot see any more.

use std::num::NonZeroU64;
use std::time::Duration;

use messaging_core::{DeliveryMode, Durability, HandlerHealth, Messaging, Retention};
use messaging_tests::{Proxy, RedisServer, eventually};

use crate::outcome;
use crate::place::{Place, Probe, soon};

const CHANNEL: &str = "orders.created";

/// A publisher at the server, and a handler behind a proxy.
struct Stage {
    redis: RedisServer,
    proxy: Proxy,
    publisher: Messaging,
    messaging: Messaging,
    probe: Probe,
    published: u64,
}

impl Stage {
    async fn new(retention: Retention) -> Self {
        let redis = RedisServer::start();
        let proxy = Proxy::before(redis.port()).await;
        let mut place = Place::at(&redis.url());
        place.config.channel_prefix.clear();
        "msg".clone_into(&mut place.config.namespace);
        let kept = Durability::from(retention);
        let publisher = place.builder().durable(CHANNEL, kept).build().await.unwrap();
        place.config.endpoint = format!("redis://127.0.0.1:{}", proxy.port()).parse().unwrap();
        let messaging = place.messaging().await;
        let mut stage = Self { redis, proxy, publisher, messaging, probe: Probe::default(), published: 0 };
        // A stream that is there already is read from its end.
        stage.publish(1).await;
        let probe = stage.probe.clone();
        let handler = stage.messaging.subscriber().delivery(DeliveryMode::Resumable).id(CHANNEL);
        let handler = handler.on(CHANNEL, move |number: u64| {
            probe.tell(number);
            async {}
        });
        let _handler = handler.await.unwrap();
        stage
    }

    /// Publishes so many of the numbers 0, 1, 2, …
    async fn publish(&mut self, count: u64) {
        for _ in 0..count {
            self.publisher.publish(CHANNEL, &self.published).await.unwrap();
            self.published += 1;
        }
    }

    fn health(&self) -> HandlerHealth {
        self.messaging.health().handlers.swap_remove(0)
    }

    fn told(&self) -> Vec<u64> {
        self.probe.told().iter().map(|number| number.parse().unwrap()).collect()
    }

    /// Waits until the last number has been handled.
    async fn has_caught_up(&self) {
        let last = self.published - 1;
        eventually(&format!("{last} is handled"), async || self.told().last() == Some(&last)).await;
    }

    /// What was announced: gaps, and messages that were removed.
    fn announced(&self) -> (u64, u64) {
        let counts = self.health().counts;
        (counts.gaps, counts.removed)
    }

    /// Nothing reaches the handler until the network is healed.
    async fn disconnect(&self) {
        self.proxy.refuse().await;
        self.proxy.cut();
    }
}

fn keeping(max_len: u64) -> Retention {
    Retention { max_len: NonZeroU64::new(max_len).unwrap(), ..Retention::DEFAULT }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_cuts_cost_nothing() {
    const MESSAGES: u64 = 10_000;
    const CUTS: u64 = 50;
    let mut stage = Stage::new(Retention::DEFAULT).await;
    let publisher = stage.publisher.clone();
    stage.published += MESSAGES;
    let publishing = tokio::spawn(async move {
        for number in 1..=MESSAGES {
            publisher.publish(CHANNEL, &number).await.unwrap();
        }
    });
    for cut in 0..CUTS {
        let due = cut * MESSAGES / CUTS + 100;
        eventually(&format!("{due} are handled"), async || stage.told().len() as u64 >= due).await;
        stage.proxy.cut();
    }
    soon(publishing).await.unwrap();
    stage.has_caught_up().await;
    assert_eq!(stage.told(), (1..=MESSAGES).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(stage.announced(), (0, 0));
    outcome("50 cuts", format!("{MESSAGES} handled in order, no gap"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_removes_during_an_outage_is_announced() {
    let mut stage = Stage::new(keeping(100)).await;
    stage.publish(10).await;
    stage.has_caught_up().await;
    stage.disconnect().await;
    eventually("health knows", async || stage.health().last_error.is_some()).await;
    stage.publish(1_000).await;
    stage.proxy.heal().await;
    stage.has_caught_up().await;
    let told = stage.told();
    let missing = (1..stage.published).filter(|number| !told.contains(number)).count() as u64;
    assert!(told.is_sorted() && missing > 700, "{missing}");
    assert_eq!(stage.announced(), (1, missing), "one gap, and exactly what is missing");
    stage.publish(10).await;
    stage.has_caught_up().await;
    assert_eq!(stage.announced(), (1, missing), "once");
    outcome("retention during an outage", format!("{missing} removed, one gap"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_deleted_is_a_gap_if_something_of_it_was_not_read() {
    let mut stage = Stage::new(Retention::DEFAULT).await;
    stage.publish(10).await;
    stage.has_caught_up().await;
    stage.redis.cli(&["DEL", "msg:{orders.created}:stream"]);
    stage.publish(10).await;
    stage.has_caught_up().await;
    assert_eq!(stage.told(), (1..=20).collect::<Vec<_>>());
    assert_eq!(stage.announced(), (0, 0), "nothing was missed");
    stage.disconnect().await;
    stage.publish(7).await;
    stage.redis.cli(&["DEL", "msg:{orders.created}:stream"]);
    stage.publish(5).await;
    stage.proxy.heal().await;
    stage.has_caught_up().await;
    assert_eq!(stage.told(), (1..=20).chain(28..=32).collect::<Vec<_>>());
    assert_eq!(stage.announced(), (1, 7));
    outcome("a deleted stream", "7 unread messages announced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_everything_is_a_gap() {
    let mut stage = Stage::new(Retention::DEFAULT).await;
    stage.publish(10).await;
    stage.has_caught_up().await;
    stage.redis.cli(&["FLUSHALL"]);
    stage.publish(10).await;
    stage.has_caught_up().await;
    assert_eq!(stage.told(), (1..=20).collect::<Vec<_>>(), "it goes on");
    assert_eq!(stage.announced().0, 1);
    // The same when the server itself is new.
    stage.redis.start_again();
    let published = async || stage.publisher.publish(CHANNEL, &stage.published).await.is_ok();
    eventually("it can be published on", published).await;
    stage.published += 1;
    stage.publish(10).await;
    stage.has_caught_up().await;
    assert_eq!(stage.told(), (1..=31).collect::<Vec<_>>());
    assert_eq!(stage.announced().0, 2, "one gap each");
    let ready =
        async || Duration::from_millis(stage.health().last_alive_ms.unwrap()) < Duration::from_secs(3);
    eventually("health says so", ready).await;
    outcome("FLUSHALL, a restart without data", "one gap each");
}
