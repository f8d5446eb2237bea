//! Publishing while the network or the server misbehaves: how long it takes, and what its results are worth.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use messaging_core::{ErrorKind, Messaging, Result};
use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::sync::watch;

use crate::outcome;
use crate::place::{Place, soon};
use crate::witness::Witness;

const LIMIT: Duration = Duration::from_millis(500);
/// What scheduling may add to it, besides what was seen of it.
const SLACK: Duration = Duration::from_secs(2);

/// A messaging that has connected through a proxy, and somebody who hears everything that it publishes.
async fn connected(redis: &RedisServer) -> (Proxy, Messaging, Witness) {
    let proxy = Proxy::before(redis.port()).await;
    let mut place = Place::at(&format!("redis://127.0.0.1:{}", proxy.port()));
    place.config.command_timeout = LIMIT;
    place.config.connect_timeout = LIMIT;
    let witness = Witness::on(redis, &format!("{}ids", place.config.channel_prefix)).await;
    let messaging = place.messaging().await;
    messaging.publish("ids", &0).await.unwrap();
    (proxy, messaging, witness)
}

/// Publishes one message and checks that it takes no longer than it may.
async fn publish(messaging: &Messaging, number: u64) -> Result<u64> {
    let begun = Instant::now();
    let published = soon(async { messaging.publish("ids", &number).await }).await;
    let took = begun.elapsed();
    assert!(took <= LIMIT + SLACK, "{took:?} for {published:?}");
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_returns_within_its_timeout_whatever_happens() {
    let redis = RedisServer::start();
    let (proxy, messaging, witness) = connected(&redis).await;
    let mut next = 1..;
    let mut number = || next.next().unwrap();
    let works_again = async |messaging: &Messaging, mut number: &mut dyn FnMut() -> u64| {
        let number = &mut number;
        eventually("publishing works again", async || messaging.publish("ids", &number()).await.is_ok())
            .await;
    };

    // A half-open connection: the first publish finds out, the next one has a connection of its own.
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        proxy.strand(direction);
        let lost = number();
        let error = publish(&messaging, lost).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(!error.is_not_sent() && error.is_retryable(), "{error}");
        if direction == Direction::ToClient {
            witness.has_heard(lost).await;
        }
        works_again(&messaging, &mut number).await;
    }
    proxy.heal().await;

    // Nothing gets through for a while.
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        proxy.hold(direction);
        let error = publish(&messaging, number()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Timeout && !error.is_not_sent(), "{error}");
        for _ in 0..3 {
            let error = publish(&messaging, number()).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Timeout && error.is_not_sent(), "no connection: {error}");
        }
        proxy.heal().await;
        works_again(&messaging, &mut number).await;
    }

    // The server hangs.
    redis.pause();
    let error = publish(&messaging, number()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && !error.is_not_sent(), "{error}");
    let error = publish(&messaging, number()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.is_not_sent(), "{error}");
    redis.resume();
    works_again(&messaging, &mut number).await;

    // Nobody listens.
    proxy.refuse().await;
    proxy.cut();
    eventually("it is known that nobody is there", async || {
        let error = publish(&messaging, number()).await.unwrap_err();
        error.kind() == ErrorKind::Connection && error.is_not_sent()
    })
    .await;
    proxy.heal().await;
    works_again(&messaging, &mut number).await;
    outcome("publish", "returned in time in every fault");
}

/// What publishers were told, counted.
#[derive(Default)]
struct Told {
    sent: Vec<u64>,
    not_sent: Vec<u64>,
    unknown: Vec<u64>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    not_sent: AtomicU64,
    unknown: AtomicU64,
}

/// Publishes numbers of its own until told to stop.
async fn keep_publishing(
    messaging: Messaging,
    next: Arc<AtomicU64>,
    counts: Arc<Counts>,
    stop: watch::Receiver<bool>,
) -> Told {
    let mut told = Told::default();
    while !*stop.borrow() {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let (list, count) = match publish(&messaging, number).await {
            Ok(receivers) => {
                assert_eq!(receivers, 1, "the witness");
                (&mut told.sent, &counts.sent)
            }
            Err(error) if error.is_not_sent() => (&mut told.not_sent, &counts.not_sent),
            Err(_) => (&mut told.unknown, &counts.unknown),
        };
        list.push(number);
        count.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_publish_says_is_true_during_many_cuts() {
    let redis = RedisServer::start();
    let (proxy, messaging, witness) = connected(&redis).await;
    let (next, counts) = (Arc::new(AtomicU64::new(1)), Arc::<Counts>::default());
    let (stop, stopped) = watch::channel(false);
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let (next, counts) = (Arc::clone(&next), Arc::clone(&counts));
            tokio::spawn(keep_publishing(messaging.clone(), next, counts, stopped.clone()))
        })
        .collect();
    let more = async |count: &AtomicU64, by: u64| {
        let from = count.load(Ordering::SeqCst);
        eventually("there are more of them", async || count.load(Ordering::SeqCst) >= from + by).await;
    };
    for cut in 0..60 {
        more(&counts.sent, 50).await;
        match cut % 6 {
            // The answers of what was published are lost.
            1 => {
                proxy.hold(Direction::ToClient);
                more(&counts.unknown, 1).await;
                proxy.cut();
            }
            3 => {
                proxy.refuse().await;
                proxy.cut();
                more(&counts.not_sent, 10).await;
            }
            // What was published arrives, but late.
            5 => {
                proxy.strand(Direction::ToServer);
                more(&counts.unknown, 1).await;
            }
            _ => proxy.cut(),
        }
        proxy.heal().await;
    }
    stop.send_replace(true);
    let mut told = Told::default();
    for publisher in publishers {
        let each = soon(publisher).await.unwrap();
        told.sent.extend(each.sent);
        told.not_sent.extend(each.not_sent);
        told.unknown.extend(each.unknown);
    }
    // What is still on its way arrives before the connections that were given up are gone.
    eventually("only the last connection is left", async || proxy.open() <= 1).await;
    let last = next.fetch_add(1, Ordering::SeqCst);
    eventually("the last one is out", async || messaging.publish("ids", &last).await.is_ok()).await;
    witness.has_heard(last).await;

    let heard = witness.heard();
    let arrived = |numbers: &[u64]| numbers.iter().filter(|number| heard.contains_key(number)).count();
    assert_eq!(arrived(&told.sent), told.sent.len(), "what was sent arrived");
    assert_eq!(arrived(&told.not_sent), 0, "what was not sent did not");
    assert!(arrived(&told.unknown) > 0, "some of what nobody knew had arrived");
    assert!(heard.iter().all(|(number, times)| *times == 1 || *number == last), "nothing arrived twice");
    outcome(
        "publish, 60 faults",
        format!(
            "{} sent, all heard; {} not sent, none heard; {} unknown, {} heard",
            told.sent.len(),
            told.not_sent.len(),
            told.unknown.len(),
            arrived(&told.unknown)
        ),
    );
}
