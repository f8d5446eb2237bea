//! What a test can do to its messaging, and what it is told when something is not as it should be.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::future::BoxFuture;
use messaging_core::{
    Config, DeliveryMode, Error, ErrorKind, HandlerState, Messaging, Retry, StartAt, Subscriber,
};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// Messaging without handlers of attributes, on a clock that stands.
async fn bare() -> TestMessaging {
    start(&[]).await.paused()
}

fn queue(test: &TestMessaging) -> Subscriber {
    test.subscriber().id("bill").group("billing").delivery(DeliveryMode::Queue).start_at(StartAt::Beginning)
}

/// A handler that tells when it begins, and goes on once it may.
fn held(begun: &Arc<Notify>, go_on: &Arc<Semaphore>) -> impl Fn(u32) -> BoxFuture<'static, ()> + use<> {
    let (begun, go_on) = (Arc::clone(begun), Arc::clone(go_on));
    move |_| {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        Box::pin(async move {
            begun.notify_one();
            drop(go_on.acquire().await.unwrap());
        })
    }
}

/// What a panic says.
fn panic_of(run: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap()
}

#[tokio::test]
async fn on_a_clock_that_stands_delays_cost_no_time() {
    let test = bare().await;
    let retry =
        Retry { attempts: NonZeroU32::new(3).unwrap(), initial: HOUR, max_delay: HOUR, ..Retry::DEFAULT };
    let fail = async |_: u32| Err::<(), _>("not yet");
    let _ = test.subscriber().id("slow").retry(retry).on("c", fail).await.unwrap();
    let (begun, really) = (Instant::now(), std::time::Instant::now());
    test.publish("c", &1).await.unwrap();
    test.settled().await;
    test.handler("slow").called(3).failed(3);
    assert!(begun.elapsed() >= HOUR && really.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn what_is_due_while_time_passes_is_due_in_its_order() {
    let test = bare().await;
    let _ = test.subscriber().id("note").on("ticks", async |_: u32| {}).await.unwrap();
    let messaging = (*test).clone();
    // Five timers of one hour, each begun when the one before has ended.
    test.spawn(async move {
        for number in 1..=5 {
            tokio::time::sleep(HOUR).await;
            messaging.publish("ticks", &number).await.unwrap();
        }
    });
    test.advance(HOUR * 7 / 2).await;
    assert_eq!(test.handler("note").payloads::<u32>(), [1, 2, 3]);
    test.advance(HOUR * 2).await;
    test.handler("note").called(5);
}

#[tokio::test]
async fn a_cut_is_a_gap_that_handlers_catch_up_with() {
    let replica = Replica::default();
    let given = replica.clone();
    let test = TestMessaging::with(|builder| builder.state(given).handlers(Handlers::only(["replicate"])));
    let test = test.await.unwrap().paused();
    let resyncs = || replica.0.load(Ordering::Relaxed);
    test.settled().await;
    assert_eq!(resyncs(), 1);
    test.kill_connections().await;
    assert_eq!(resyncs(), 2, "it has caught up when this returns");
    assert_eq!(test.health().handlers[0].counts.gaps, 1);
    test.publish("chat:7", &note("hello")).await.unwrap();
    test.settled().await;
    test.handler("replicate").called(1).called_with(&note("hello"));
}

#[tokio::test]
async fn a_group_that_is_lost_is_made_anew_and_loses_nothing() {
    // On a clock that goes: on the other, a call that waits for the test would run into its timeout.
    let test = start(&[]).await;
    let _ = queue(&test).on("orders", async |_: u32| {}).await.unwrap();
    test.publish("orders", &1).durable().await.unwrap();
    test.settled().await;
    test.lose_group("billing").await;
    test.publish("orders", &2).durable().await.unwrap();
    test.settled().await;
    assert_eq!(test.handler("bill").payloads::<u32>(), [1, 2]);
    // Neither is what is being handled meanwhile, which may come twice, nor what waits.
    let (begin, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let other = test.subscriber().id("hold").delivery(DeliveryMode::Queue).start_at(StartAt::Beginning);
    let _ = other.on("parcels", held(&begin, &go_on)).await.unwrap();
    test.publish("parcels", &3).durable().await.unwrap();
    begin.notified().await;
    test.publish("parcels", &4).durable().await.unwrap();
    test.lose_group("hold").await;
    go_on.add_permits(1);
    test.settled().await;
    let mut handled = test.handler("hold").payloads::<u32>();
    handled.dedup();
    assert_eq!(handled, [3, 4]);
}

#[tokio::test]
async fn a_message_that_comes_twice_is_handled_once_with_dedupe() {
    for (dedupe, calls) in [(None, 2), (Some(HOUR), 1)] {
        let test = bare().await;
        let subscriber = match dedupe {
            Some(window) => queue(&test).dedupe(window),
            None => queue(&test),
        };
        let _ = subscriber.on("orders", async |_: u32| {}).await.unwrap();
        let mut heard = test.subscribe("orders").await.unwrap();
        test.duplicate("billing");
        test.publish("orders", &1).durable().await.unwrap();
        test.settled().await;
        test.handler("bill").called(calls).called_with(&1);
        test.publish("orders", &2).durable().await.unwrap();
        test.settled().await;
        test.handler("bill").called(calls + 1);
        // Others get it once.
        for number in [1, 2] {
            assert_eq!(heard.get_message(None).await.unwrap().unwrap().json::<u32>().unwrap(), number);
        }
        tokio::time::resume();
    }
}

#[tokio::test]
async fn while_redis_is_down_nothing_works_and_then_everything_again() {
    let replica = Replica::default();
    let given = replica.clone();
    let only = Handlers::only(["replicate", "work"]);
    let test = TestMessaging::with(|builder| builder.state(given).handlers(only)).await.unwrap().paused();
    let states = || test.health().handlers.into_iter().map(|handler| handler.state).collect::<Vec<_>>();
    test.settled().await;
    test.scope(price("tea")).await.unwrap();
    assert_eq!(test.cached("price:tea"), Some(3));

    let down = test.redis_down().await;
    assert_eq!(states(), [HandlerState::Deaf; 2]);
    assert!(!test.health().is_ready());
    let refused = |error: Error| (error.kind(), error.is_not_sent());
    let away = (ErrorKind::Connection, true);
    assert_eq!(refused(test.publish("chat:7", &1).await.unwrap_err()), away);
    assert_eq!(refused(test.publish("jobs.mail", &1).durable().await.unwrap_err()), away);
    assert_eq!(test.cache("x").get::<u32>("y").await.unwrap_err().kind(), ErrorKind::Connection);
    let before = test.cache_stats("price");
    assert_eq!(test.scope(price("tea")).await, Ok(Some(3)));
    let after = test.cache_stats("price");
    assert_eq!((after.loads, after.uncached), (before.loads + 1, before.uncached + 1));
    test.published("*").times(0);

    drop(down);
    test.recovered().await;
    assert_eq!(states(), [HandlerState::Running; 2]);
    assert!(test.health().is_ready());
    assert_eq!(replica.0.load(Ordering::Relaxed), 2, "the outage was a gap");
    test.publish("chat:7", &note("hello")).await.unwrap();
    test.publish("jobs.mail", &note("hello")).durable().await.unwrap();
    test.settled().await;
    test.handler("replicate").called(1);
    test.handler("work").called(1);
    let before = test.cache_stats("price");
    test.scope(async { (price("tea").await, price("tea").await) }).await.0.unwrap();
    assert!(test.cache_stats("price").hits > before.hits, "the cache is used again");
}

/// What is not written when Redis goes away is written when it is back.
#[tokio::test]
async fn what_a_queue_has_handled_meanwhile_is_settled_afterwards() {
    let test = start(&[]).await;
    let (begin, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let hold = held(&begin, &go_on);
    let _ = queue(&test).on("orders", hold).await.unwrap();
    test.publish("orders", &1).durable().await.unwrap();
    begin.notified().await;
    let down = test.redis_down().await;
    go_on.add_permits(1);
    while test.handler("bill").all().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(test.health().handlers[0].in_flight, 0);
    drop(down);
    test.recovered().await;
    test.handler("bill").called(1);
    assert_eq!(test.queues().await.unwrap()[0].pending, 0);
}

/// The errors of a Redis that is not there.
#[tokio::test]
async fn it_fails_as_a_real_one_does() {
    let redis = messaging_tests::RedisServer::start();
    let config = Config::new(&redis.url()).unwrap();
    let real = Messaging::builder().config(config).handlers(Handlers::none()).build().await.unwrap();
    real.publish("c", &1).await.unwrap();
    drop(redis);
    // The first one may still be written to the connection that is going.
    let _ = real.publish("c", &1).await;
    let test = start(&[]).await;
    let _down = test.redis_down().await;
    for messaging in [&real, &*test] {
        let error = messaging.publish("c", &1).await.unwrap_err();
        assert_eq!((error.kind(), error.is_not_sent()), (ErrorKind::Connection, true), "{error}");
        let error = messaging.publish("c", &1).durable().await.unwrap_err();
        assert_eq!((error.kind(), error.is_not_sent()), (ErrorKind::Connection, true), "{error}");
        let error = messaging.cache("c").get::<u32>("k").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        let error = messaging.queues().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        let error = messaging.presence("room").members().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    }
}

#[tokio::test]
async fn what_is_not_so_is_told_with_what_is() {
    let test = start(&["listen"]).await;
    test.publish("chat:7", &note("hello")).await.unwrap();
    test.publish("chat:8", &note("fail")).await.unwrap();
    test.publish("audit", &1).await.unwrap();
    test.settled().await;
    let calls = "`listen` was called 2 times\n  chat:7, attempt 1: {\"text\":\"hello\"}\n  chat:8, attempt 1: {\"text\":\"fail\"}\n    failed: asked to\n";
    assert_eq!(panic_of(|| _ = test.handler("listen").called(1)), format!("{calls}, not 1 time"));
    let panic = panic_of(|| _ = test.handler("listen").called_with(&note("bye")));
    assert_eq!(panic, format!("{calls}, never with {{\"text\":\"bye\"}}"));
    assert_eq!(
        panic_of(|| _ = test.handler("listen").failed(0)),
        format!("{calls}; 1 of them failed, not 0")
    );
    let panic = panic_of(|| _ = test.handler("listen").payloads::<u32>());
    assert!(panic.contains("u32") && panic.contains("hello"), "{panic}");
    assert_eq!(panic_of(|| _ = test.handler("lisen")), "there is no handler `lisen`; there are: listen");
    let messages = "1 message published on \"audit\"\n  audit: 1\nbeside\n  chat:7: {\"text\":\"hello\"}\n  chat:8: {\"text\":\"fail\"}\n";
    assert_eq!(panic_of(|| _ = test.published("audit").times(2)), format!("{messages}, not 2 messages"));
    assert_eq!(panic_of(|| _ = test.published("audit").with(&2)), format!("{messages}, none with 2"));
    assert_eq!(test.published("chat:{room}").channels(), ["chat:7", "chat:8"]);
    assert_eq!(test.published("chat:{room}").payloads::<Note>(), [note("hello"), note("fail")]);
    test.cache("c").set("k", &"text", HOUR).await.unwrap();
    assert_eq!(test.cached_keys(), ["c:k"]);
    let panic = panic_of(|| _ = test.cached::<u32>("c:k"));
    assert!(panic.starts_with("what is cached under \"c:k\" is no `u32`: \"text\""), "{panic}");
    let panic = panic_of(|| _ = test.cache_stats("prize"));
    assert_eq!(panic, "there is no cached function `prize`; there are: price");
    let panic = panic_of(|| test.duplicate("billing"));
    assert_eq!(panic, "there is no group of a queue `billing`; there are: ");
}
