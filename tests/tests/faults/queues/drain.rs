//! The orderly end of a process: what it is at ends, what it has not begun goes back at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use messaging_core::Messaging;
use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::witnessed::{Numbered, Pen, Witness, noting};
use super::{CHANNEL, STREAM, built, consumers, health, pending, place, queue, settled};
use crate::gated::{FOR_EVER, buffer};
use crate::place::{PATIENCE, Place, Probe, soon};
use crate::{child, outcome};

const MESSAGES: u64 = 1_000;

/// A lease that no busy machine lets run out: what changes hands was handed over.
fn with_a_long_lease(url: &str) -> Place {
    let mut place = place(url);
    place.config.reclaim = Duration::from_secs(6);
    place.config.drain_timeout = PATIENCE;
    place
}

async fn service() {
    let messaging = built(with_a_long_lease(&child::url()).builder()).await;
    let pen = Pen::new().await;
    let handler = queue(&messaging).timeout(FOR_EVER).buffer(buffer(2_000));
    let handler = handler.on(CHANNEL, move |message: Numbered| {
        let pen = pen.clone();
        async move {
            println!("\nbegun");
            pen.permission().await;
            pen.note(&message, 1).await;
        }
    });
    let _handler = handler.await.unwrap();
    println!("\nready");
    messaging.run().await.unwrap();
    println!("\nended");
}

#[cfg(unix)]
#[test]
fn sigterm_hands_back_at_once_what_was_not_begun() {
    const TEST: &str = "queues::drain::sigterm_hands_back_at_once_what_was_not_begun";
    if child::is(TEST) {
        return child::run(service());
    }
    child::run(async {
        let (redis, witness) = (RedisServer::start(), Witness::start());
        let mut ending = witness.child(TEST, &redis.url());
        ending.wait_for_line(|line| line == "ready");
        let messaging = built(with_a_long_lease(&redis.url()).builder()).await;
        for number in 0..MESSAGES {
            let message = Numbered { key: String::new(), number };
            messaging.publish(CHANNEL, &message).durable().await.unwrap();
        }
        ending.wait_for_line(|line| line == "begun");
        eventually("it has all of them", async || pending(&redis, STREAM) == MESSAGES).await;
        // A small buffer: what is handed back does not fit in at once.
        let pen = Pen::to(&witness.server().url()).await;
        let other = queue(&messaging).buffer(buffer(50)).on(CHANNEL, noting(pen));
        let _other = other.await.unwrap();
        ending.terminate();
        let since = Instant::now();
        witness.reaches(MESSAGES - 1).await;
        let took = since.elapsed();
        eventually("only the one that it is at", async || pending(&redis, STREAM) == 1).await;
        witness.permit();
        let ended = spawn_blocking(|| ending.end()).await.unwrap();
        assert!(ended.status.success(), "{}", ended.complaints);
        assert!(ended.lines.iter().any(|line| line == "ended"));
        settled(&redis, &[STREAM]).await;
        let mut handled = witness.handled();
        handled.sort();
        let numbers: Vec<_> = handled.iter().map(|message| message.number).collect();
        assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>(), "each once");
        assert_eq!(health(&messaging).counts.taken_over, 0, "nothing had to be taken");
        eventually("it has left", async || consumers(&redis) == 1).await;
        outcome("SIGTERM, a queue", format!("{} handed back and handled within {took:?}", MESSAGES - 1));
    });
}

/// A messaging that is at one message and has others waiting.
async fn at_work(redis: &RedisServer) -> (Messaging, Probe) {
    let messaging = built(with_a_long_lease(&redis.url()).builder()).await;
    let probe = Probe::default();
    let begun = probe.clone();
    let handler = queue(&messaging).timeout(FOR_EVER).on(CHANNEL, move |number: u64| {
        begun.tell(number);
        std::future::pending::<()>()
    });
    let _handler = handler.await.unwrap();
    (messaging, probe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_without_redis_ends_in_time_and_says_what_it_left() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let redis = RedisServer::start();
    let (messaging, probe) = at_work(&redis).await;
    let running = messaging.start().await.unwrap();
    super::publish(&messaging, 0..20).await;
    probe.wait_for(1).await;
    eventually("it has all of them", async || health(&messaging).waiting == 19).await;
    redis.stop();
    let since = Instant::now();
    let report = running.shutdown(DEADLINE).await;
    let took = since.elapsed();
    let [left] = &report.unfinished[..] else { panic!("{report:?}") };
    assert_eq!((left.waiting, left.cut_off, left.unsettled), (0, 1, 20), "{report}");
    assert!(report.to_string().contains("20 to be delivered again"), "{report}");
    assert!(took >= DEADLINE && took < DEADLINE + Duration::from_secs(3), "{took:?}");
    outcome("a drain without Redis", format!("ended after {took:?}: {report}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_when_reading_stopped_goes_back_too() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let (stopping, other) = (with_a_long_lease(&behind(&proxy)), with_a_long_lease(&redis.url()));
    let (stopping, other) = (built(stopping.builder()).await, built(other.builder()).await);
    let (begun, taken) = (Probe::default(), Probe::default());
    let go_on = Arc::new(Notify::new());
    let handler = {
        let (begun, go_on) = (begun.clone(), Arc::clone(&go_on));
        queue(&stopping).timeout(FOR_EVER).on(CHANNEL, move |number: u64| {
            let (begun, go_on) = (begun.clone(), Arc::clone(&go_on));
            async move {
                begun.tell(number);
                go_on.notified().await;
            }
        })
    };
    let handler = handler.await.unwrap();
    super::publish(&other, 0..1).await;
    begun.wait_for(1).await;

    proxy.hold(Direction::ToClient);
    super::publish(&other, 1..4).await;
    eventually("an answer is on its way", async || pending(&redis, STREAM) > 1).await;
    let ended = tokio::spawn(handler.stop());
    let handler = {
        let taken = taken.clone();
        queue(&other).on(CHANNEL, move |number: u64| {
            taken.tell(number);
            std::future::ready(())
        })
    };
    let _other = handler.await.unwrap();
    proxy.release(Direction::ToClient);
    let mut told = taken.wait_for(3).await;
    told.sort();
    assert_eq!(told, ["1", "2", "3"], "though the first is still at its message");
    go_on.notify_one();
    soon(ended).await.unwrap();
    settled(&redis, &[STREAM]).await;
    assert_eq!(begun.told(), ["0"]);
    outcome("a stop with an answer on its way", "what it brought was handed back at once");
}

fn behind(proxy: &Proxy) -> String {
    format!("redis://127.0.0.1:{}", proxy.port())
}
