//! Who has a message: the process that handles it, however long that takes, until it shows no sign of life any more.

use std::time::{Duration, Instant};

use messaging_core::{Attempt, HandlerError, Messaging};
use messaging_tests::{Direction, Proxy, RedisServer, eventually};

use super::witnessed::{Numbered, Pen, Witness, idle, noting};
use super::{CHANNEL, RECLAIM, STREAM, built, consumers, delayed, health, pending, place, queue, settled};
use crate::place::{Probe, soon};
use crate::programs::Program;
use crate::{child, outcome};

/// What a busy machine may add to two reclaim times.
const SLACK: Duration = Duration::from_secs(3);

fn message(number: u64) -> Numbered {
    Numbered { key: String::new(), number }
}

async fn publish(messaging: &Messaging, number: u64) {
    messaging.publish(CHANNEL, &message(number)).durable().await.unwrap();
}

/// Adds a handler to a messaging of this process, as the second of the group.
async fn second(redis: &RedisServer, witness: &Witness) -> Messaging {
    let messaging = built(place(&redis.url()).builder()).await;
    let pen = Pen::to(&witness.server().url()).await;
    let _handler = queue(&messaging).on(CHANNEL, noting(pen)).await.unwrap();
    messaging
}

/// How long it takes until somebody has handled so much, as reclaim times; no more than two, but for the machine.
async fn taken_over(what: &str, witness: &Witness, handled: u64) {
    let since = Instant::now();
    witness.reaches(handled).await;
    let took = since.elapsed();
    assert!(took < RECLAIM * 2 + SLACK, "{what}: {took:?}");
    outcome(
        what,
        format!("taken over after {:.2} reclaim times", took.as_secs_f64() / RECLAIM.as_secs_f64()),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_ten_reclaim_times_is_not_run_twice() {
    let redis = RedisServer::start();
    let place = place(&redis.url());
    let probe = Probe::default();
    let mut messagings = Vec::new();
    for _ in 0..2 {
        let messaging = built(place.builder()).await;
        let probe = probe.clone();
        let handler = queue(&messaging).on(CHANNEL, move |number: u64| {
            let probe = probe.clone();
            async move {
                probe.tell(number);
                tokio::time::sleep(RECLAIM * 10).await;
                probe.tell("done");
            }
        });
        let _handler = handler.await.unwrap();
        messagings.push(messaging);
    }
    super::publish(&messagings[0], 0..2).await;
    let mut told = soon(probe.wait_for(4)).await;
    told.sort();
    assert_eq!(told, ["\"done\"", "\"done\"", "0", "1"], "each runs once");
    settled(&redis, &[STREAM]).await;
    assert_eq!(messagings.iter().map(|messaging| health(messaging).counts.taken_over).sum::<u64>(), 0);
    outcome("long handlers", "each ran once, for ten reclaim times");
}

/// Begins with one message and gets stuck, with others waiting behind it.
async fn begin_and_get_stuck() {
    let messaging = built(place(&child::url()).builder()).await;
    let handler = queue(&messaging).on(CHANNEL, async |_message: Numbered| {
        println!("\nbegun");
        std::future::pending::<()>().await;
    });
    let _handler = handler.await.unwrap();
    println!("\nready");
    std::future::pending::<()>().await;
}

#[test]
fn what_a_killed_process_was_handling_is_taken_over() {
    const TEST: &str = "queues::leases::what_a_killed_process_was_handling_is_taken_over";
    if child::is(TEST) {
        return child::run(begin_and_get_stuck());
    }
    child::run(async {
        let (redis, witness) = (RedisServer::start(), Witness::start());
        let mut killed = witness.child(TEST, &redis.url());
        killed.wait_for_line(|line| line == "ready");
        let publisher = built(place(&redis.url()).builder()).await;
        for number in 0..10 {
            publish(&publisher, number).await;
        }
        killed.wait_for_line(|line| line == "begun");
        eventually("it has all of them", async || pending(&redis, STREAM) == 10).await;
        let messaging = second(&redis, &witness).await;
        drop(killed);
        taken_over("SIGKILL in mid-handler", &witness, 10).await;
        settled(&redis, &[STREAM]).await;
        assert_eq!(witness.handled(), (0..10).map(message).collect::<Vec<_>>(), "each once, oldest first");
        assert_eq!(health(&messaging).counts.taken_over, 10);
        eventually("the dead consumer's name is gone", async || consumers(&redis) == 1).await;
    });
}

/// Handles each message when it is permitted to, and notes it; the first may fail after that.
async fn handle_with_permission(fails: bool) {
    let messaging = built(place(&child::url()).builder()).await;
    let pen = Pen::new().await;
    let handler = queue(&messaging).on(CHANNEL, move |message: Numbered, Attempt(attempt): Attempt| {
        let pen = pen.clone();
        async move {
            println!("\nbegun {}", message.number);
            pen.permission().await;
            pen.note(&message, attempt).await;
            println!("\ndone {}", message.number);
            let failed = fails && message.number == 0;
            if failed { Err(HandlerError::retry("it was too late")) } else { Ok(()) }
        }
    });
    let _handler = handler.await.unwrap();
    println!("\nready");
    if fails {
        let has_failed = async || health(&messaging).counts.retried == 1;
        eventually("the call has failed", has_failed).await;
        idle(&messaging).await;
        println!("\nidle");
    }
    std::future::pending::<()>().await;
}

#[test]
fn what_a_killed_process_has_not_acknowledged_is_taken_over() {
    const TEST: &str = "queues::leases::what_a_killed_process_has_not_acknowledged_is_taken_over";
    if child::is(TEST) {
        return child::run(handle_with_permission(false));
    }
    child::run(async {
        let (redis, witness) = (RedisServer::start(), Witness::start());
        let proxy = Proxy::before(redis.port()).await;
        let mut killed = witness.child(TEST, &format!("redis://127.0.0.1:{}", proxy.port()));
        killed.wait_for_line(|line| line == "ready");
        let publisher = built(place(&redis.url()).builder()).await;
        publish(&publisher, 0).await;
        killed.wait_for_line(|line| line == "begun 0");
        let _second = second(&redis, &witness).await;
        proxy.hold(Direction::ToServer);
        witness.permit();
        killed.wait_for_line(|line| line == "done 0");
        drop(killed);
        taken_over("SIGKILL before the acknowledgement", &witness, 2).await;
        settled(&redis, &[STREAM]).await;
        assert_eq!(witness.handled(), [message(0), message(0)], "once more, and that is all");
    });
}

#[cfg(unix)]
#[test]
fn a_process_that_stood_still_begins_nothing_that_others_have() {
    const TEST: &str = "queues::leases::a_process_that_stood_still_begins_nothing_that_others_have";
    if child::is(TEST) {
        return child::run(handle_with_permission(true));
    }
    child::run(async {
        let (redis, witness) = (RedisServer::start(), Witness::start());
        let mut still: Program = witness.child(TEST, &redis.url());
        still.wait_for_line(|line| line == "ready");
        let publisher = built(place(&redis.url()).builder()).await;
        for number in 0..10 {
            publish(&publisher, number).await;
        }
        still.wait_for_line(|line| line == "begun 0");
        eventually("it has all of them", async || pending(&redis, STREAM) == 10).await;
        let _second = second(&redis, &witness).await;
        still.signal("STOP");
        taken_over("SIGSTOP", &witness, 10).await;
        settled(&redis, &[STREAM]).await;
        // The one that it was at may end now, and fails.
        witness.permit();
        still.signal("CONT");
        still.wait_for_line(|line| line == "idle");
        assert_eq!(delayed(&redis, STREAM), 0, "a failure that comes too late asks for nothing");
        let mut handled = witness.handled();
        assert_eq!(handled.pop(), Some(message(0)), "the one that it was at");
        assert_eq!(handled, (0..10).map(message).collect::<Vec<_>>(), "each once by the other");
        // It takes part again.
        witness.permit();
        publish(&publisher, 10).await;
        witness.reaches(12).await;
        settled(&redis, &[STREAM]).await;
    });
}
