//! What operators and accidents do to a queue's keys and connections: it goes on by itself, and nothing is stuck.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use messaging_core::{Attempt, HandlerHandle, HandlerState, Messaging, Retry};
use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::sync::Semaphore;

use super::{
    CHANNEL, GROUP, STREAM, built, count, dead, delayed, health, of_the_group, pending, place, place_behind,
    publish, queue, settled,
};
use crate::gated::FOR_EVER;
use crate::outcome;
use crate::place::Probe;

/// A publisher at the server, and a handler behind a proxy that handles with permission.
struct Stage {
    redis: RedisServer,
    proxy: Proxy,
    publisher: Messaging,
    messaging: Messaging,
    permits: Arc<Semaphore>,
    begun: Probe,
    handled: Probe,
    _handler: HandlerHandle,
}

impl Stage {
    /// With so many permits to begin with, and a handler that fails the first attempt at what is less than `fails`.
    async fn new(permits: usize, fails: u64) -> Self {
        let redis = RedisServer::start();
        let proxy = Proxy::before(redis.port()).await;
        let publisher = built(place(&redis.url()).builder()).await;
        let messaging = built(place_behind(&proxy).builder()).await;
        let (begun, handled, permits) =
            (Probe::default(), Probe::default(), Arc::new(Semaphore::new(permits)));
        let (begins, ends, gate) = (begun.clone(), handled.clone(), Arc::clone(&permits));
        let delay = Duration::from_millis(500);
        let retry = Retry { attempts: NonZeroU32::new(3).unwrap(), initial: delay, ..Retry::DEFAULT };
        let handler = queue(&messaging).timeout(FOR_EVER).retry(retry);
        let handler = handler.on(CHANNEL, move |number: u64, Attempt(attempt): Attempt| {
            let (begins, ends, gate) = (begins.clone(), ends.clone(), Arc::clone(&gate));
            async move {
                begins.tell(number);
                gate.acquire().await.unwrap().forget();
                if number < fails && attempt == 1 {
                    return Err("not yet");
                }
                ends.tell(number);
                Ok(())
            }
        });
        let _handler = handler.await.unwrap();
        // The stream is known, and its group is there.
        publish(&publisher, [1_000]).await;
        permits.add_permits(1);
        handled.wait_for(1).await;
        Self { redis, proxy, publisher, messaging, permits, begun, handled, _handler }
    }

    fn handled(&self) -> Vec<u64> {
        let mut handled: Vec<u64> =
            self.handled.told()[1..].iter().map(|number| number.parse().unwrap()).collect();
        handled.sort_unstable();
        handled
    }

    /// Publishes something, and waits until all of that is handled and nothing is left.
    async fn goes_on(&self, what: &str) {
        self.permits.add_permits(1_000);
        publish(&self.publisher, 100..150).await;
        let all = async || (100..150).all(|number| self.handled().contains(&number));
        eventually(&format!("what is published after {what} is handled"), all).await;
        settled(&self.redis, &[STREAM]).await;
        assert_eq!(dead(&self.redis, STREAM), 0, "nothing is given up");
        let ready = async || health(&self.messaging).state == HandlerState::Running;
        eventually("health says that it runs", ready).await;
        outcome(what, format!("{} handled afterwards", self.handled().len()));
    }

    /// Publishes these, and lets another process read them, which is gone then; nothing of ours reaches the server meanwhile.
    async fn has_a_ghost(&self, numbers: std::ops::Range<u64>) {
        self.proxy.hold(Direction::ToServer);
        let waits = async || self.redis.cli(&["INFO", "clients"]).contains("blocked_clients:0");
        eventually("our read has ended", waits).await;
        publish(&self.publisher, numbers.clone()).await;
        self.redis.cli(&["XREADGROUP", "GROUP", GROUP, "ghost", "COUNT", "100", "STREAMS", STREAM, ">"]);
        assert_eq!(self.of_the_ghost(), numbers.end - numbers.start);
    }

    fn of_the_ghost(&self) -> u64 {
        const PENDING_OF: &str = "return #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])";
        count(&self.redis, &["EVAL", PENDING_OF, "1", STREAM, GROUP, "ghost"])
    }

    /// Has one message in the handler's hands and nine waiting.
    async fn is_at_work(&self) {
        publish(&self.publisher, 0..10).await;
        self.begun.wait_for(2).await;
        eventually("the others wait", async || health(&self.messaging).waiting == 9).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_flushed() {
    let stage = Stage::new(0, 0).await;
    stage.is_at_work().await;
    stage.redis.cli(&["FLUSHALL"]);
    stage.goes_on("FLUSHALL").await;
    // And while nothing is under way.
    stage.redis.cli(&["FLUSHALL"]);
    publish(&stage.publisher, 200..210).await;
    eventually("these too", async || (200..210).all(|number| stage.handled().contains(&number))).await;
    settled(&stage.redis, &[STREAM]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_is_deleted() {
    let stage = Stage::new(0, 0).await;
    stage.is_at_work().await;
    stage.redis.cli(&["DEL", STREAM]);
    stage.goes_on("DEL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_is_destroyed() {
    let stage = Stage::new(0, 5).await;
    stage.is_at_work().await;
    stage.redis.cli(&["XGROUP", "DESTROY", STREAM, GROUP]);
    stage.goes_on("XGROUP DESTROY").await;
    let handled = stage.handled();
    assert!(
        (0..10).all(|number| handled.contains(&number)),
        "also what was under way, and failed: {handled:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_is_deleted() {
    let stage = Stage::new(0, 0).await;
    stage.is_at_work().await;
    let consumer = "local info = redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])[1]
        for i = 1, #info, 2 do if info[i] == 'name' then return info[i + 1] end end";
    let consumer = stage.redis.cli(&["EVAL", consumer, "1", STREAM, GROUP]);
    assert_eq!(count(&stage.redis, &["XGROUP", "DELCONSUMER", STREAM, GROUP, consumer.trim()]), 10);
    stage.goes_on("XGROUP DELCONSUMER").await;
    let handled = stage.handled();
    assert!((0..10).all(|number| handled.contains(&number)), "what it had: {handled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_or_is_delayed_is_trimmed_away() {
    let stage = Stage::new(0, 5).await;
    stage.is_at_work().await;
    // Five fail and are delayed, five are read and wait. Then nothing of them is left on the server.
    stage.permits.add_permits(5);
    eventually("five are delayed", async || delayed(&stage.redis, STREAM) == 5).await;
    stage.redis.cli(&["XTRIM", STREAM, "MAXLEN", "0"]);
    let gone = async || health(&stage.messaging).counts.removed == 5;
    eventually("those that were delayed are counted", gone).await;
    stage.goes_on("XTRIM").await;
    assert!(
        (5..10).all(|number| stage.handled().contains(&number)),
        "what had been read: {:?}",
        stage.handled()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_had_is_trimmed_away() {
    let stage = Stage::new(0, 0).await;
    stage.has_a_ghost(0..10).await;
    stage.redis.cli(&["XTRIM", STREAM, "MAXLEN", "0"]);
    stage.proxy.heal().await;
    stage.goes_on("XTRIM under a dead process").await;
    eventually("they are counted", async || health(&stage.messaging).counts.removed == 10).await;
    assert_eq!(stage.handled(), (100..150).collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scripts_are_flushed() {
    let stage = Stage::new(0, 5).await;
    stage.is_at_work().await;
    stage.redis.cli(&["SCRIPT", "FLUSH"]);
    stage.goes_on("SCRIPT FLUSH").await;
    assert_eq!(stage.handled(), (0..10).chain(100..150).collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_of_a_read_is_lost() {
    let stage = Stage::new(1_000, 0).await;
    for round in 0..5 {
        stage.proxy.hold(Direction::ToClient);
        publish(&stage.publisher, round * 10..round * 10 + 10).await;
        eventually("they are taken to be read", async || pending(&stage.redis, STREAM) > 0).await;
        stage.proxy.cut();
        stage.proxy.heal().await;
        eventually("they are handled", async || stage.handled().len() as u64 == round * 10 + 10).await;
    }
    settled(&stage.redis, &[STREAM]).await;
    assert_eq!(stage.handled(), (0..50).collect::<Vec<_>>(), "each once");
    stage.goes_on("a lost answer of a read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_of_a_takeover_is_lost() {
    let stage = Stage::new(1_000, 0).await;
    stage.has_a_ghost(0..10).await;
    stage.proxy.hold(Direction::ToClient);
    stage.proxy.release(Direction::ToServer);
    eventually("they are taken over", async || stage.of_the_ghost() == 0).await;
    stage.proxy.cut();
    stage.proxy.heal().await;
    eventually("they are handled", async || stage.handled().len() == 10).await;
    stage.goes_on("a lost answer of a takeover").await;
    assert_eq!(stage.handled(), (0..10).chain(100..150).collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_while_it_is_recovered_is_not_run_again() {
    let stage = Stage::new(0, 0).await;
    publish(&stage.publisher, [0]).await;
    stage.begun.wait_for(2).await;
    // A read fails, so that the server is asked what is ours.
    let alive = || stage.redis.cli(&["ZRANGE", &of_the_group(STREAM, "alive"), "0", "-1", "WITHSCORES"]);
    stage.proxy.hold(Direction::ToServer);
    let before = alive();
    for client in
        stage.redis.cli(&["CLIENT", "LIST"]).lines().filter(|client| client.contains("cmd=xreadgroup"))
    {
        let id = client.split(' ').find_map(|field| field.strip_prefix("id=")).unwrap();
        stage.redis.cli(&["CLIENT", "KILL", "ID", id]);
    }
    eventually("it knows", async || health(&stage.messaging).last_error.is_some()).await;
    // It says so, and then the message is acknowledged; we hear of both at once.
    stage.proxy.hold(Direction::ToClient);
    stage.proxy.release(Direction::ToServer);
    eventually("the server has been asked", async || alive() != before).await;
    stage.permits.add_permits(1);
    eventually("it is acknowledged", async || pending(&stage.redis, STREAM) == 0).await;
    stage.proxy.heal().await;
    stage.goes_on("an acknowledgement behind a recovery").await;
    assert_eq!(stage.handled(), [0].into_iter().chain(100..150).collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_else_is_in_the_place_of_the_stream() {
    let stage = Stage::new(1_000, 0).await;
    stage.redis.cli(&["DEL", STREAM]);
    stage.redis.cli(&["SET", STREAM, "a foreign value"]);
    let said = async || {
        let health = health(&stage.messaging);
        let error = health.last_error.unwrap_or_default();
        (health.state == HandlerState::Deaf && error.contains("WRONGTYPE")).then_some(error)
    };
    let error = eventually("health says so", said).await;
    assert!(!stage.messaging.health().is_ready());
    let refused = stage.publisher.publish(CHANNEL, &0).durable().await.unwrap_err();
    assert!(refused.to_string().contains("WRONGTYPE"), "{refused}");
    stage.redis.cli(&["DEL", STREAM]);
    stage.goes_on("a foreign key").await;
    outcome("a foreign key", error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_of_several_is_no_stream() {
    let redis = RedisServer::start();
    let messaging = built(place(&redis.url()).builder()).await;
    let (probe, permits) = (Probe::default(), Arc::new(Semaphore::new(0)));
    let (tells, gate) = (probe.clone(), Arc::clone(&permits));
    let handler = queue(&messaging).workers(NonZeroUsize::new(2).unwrap());
    let handler = handler.on("orders.*", move |number: u64| {
        let (tells, gate) = (tells.clone(), Arc::clone(&gate));
        async move {
            if number == 0 {
                gate.acquire().await.unwrap().forget();
            }
            tells.tell(number);
        }
    });
    let publish = async |channel: &str, numbers: std::ops::Range<u64>| {
        for number in numbers {
            messaging.publish(channel, &number).durable().await.unwrap();
        }
    };
    let other = "msg:{orders.paid}:stream";
    publish(CHANNEL, 50..51).await;
    publish("orders.paid", 50..51).await;
    let _handler = handler.await.unwrap();
    publish(CHANNEL, 0..1).await;
    eventually("it is being handled", async || health(&messaging).in_flight == 1).await;
    redis.cli(&["DEL", STREAM]);
    redis.cli(&["SET", STREAM, "a foreign value"]);
    let deaf = async || health(&messaging).state == HandlerState::Deaf;
    eventually("health says so", deaf).await;
    // What was under way cannot be acknowledged.
    permits.add_permits(1);
    probe.wait_for(1).await;
    publish("orders.paid", 1..21).await;
    probe.wait_for(21).await;
    settled(&redis, &[other]).await;
    assert!(deaf().await, "{:?}", health(&messaging));
    redis.cli(&["DEL", STREAM]);
    publish(CHANNEL, 21..41).await;
    probe.wait_for(41).await;
    settled(&redis, &[STREAM, other]).await;
    eventually("health says so", async || messaging.health().handlers[0].state == HandlerState::Running)
        .await;
    outcome("a foreign key beside a stream", "the stream is read all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_beside_the_stream_are_deleted() {
    let stage = Stage::new(0, 5).await;
    stage.is_at_work().await;
    for what in ["alive", "delay", "attempts", "owner", "seen"] {
        stage.redis.cli(&["DEL", &of_the_group(STREAM, what)]);
    }
    stage.goes_on("DEL of all beside the stream").await;
    assert_eq!(stage.handled(), (0..10).chain(100..150).collect::<Vec<_>>(), "each once");
}
