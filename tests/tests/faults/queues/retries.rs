//! Messages that fail: tried again after their delay, by their group alone, whatever happens meanwhile; then kept as dead
//! letters.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use messaging_core::{
    Attempt, DeadLetter, DeliveryMode, ErrorKind, EventId, HandlerError, Headers, Messaging, Retry,
    Subscriber,
};
use messaging_tests::{RedisServer, eventually};

use super::outages::durable_redis;
use super::witnessed::{Numbered, Pen, Witness};
use super::{CHANNEL, GROUP, STREAM, built, count, dead, delayed, health, place, queue, settled};
use crate::place::{Probe, soon};
use crate::{child, outcome};

const DELAY: Duration = Duration::from_secs(3);

fn attempts(attempts: u32, delay: Duration) -> Retry {
    Retry { attempts: NonZeroU32::new(attempts).unwrap(), initial: delay, multiplier: 1.0, max_delay: delay }
}

/// Fails each time, and notes it.
async fn fail(url: &str, witness: &str) -> Messaging {
    let messaging = built(place(url).builder()).await;
    let pen = Pen::to(witness).await;
    let handler = queue(&messaging).retry(attempts(3, DELAY));
    let handler = handler.on(CHANNEL, move |message: Numbered, Attempt(attempt): Attempt| {
        let pen = pen.clone();
        async move {
            pen.note(&message, attempt).await;
            Err::<(), _>("no")
        }
    });
    let _handler = handler.await.unwrap();
    messaging
}

#[test]
fn delay_and_attempt_survive_the_death_of_the_process_and_of_redis() {
    const TEST: &str = "queues::retries::delay_and_attempt_survive_the_death_of_the_process_and_of_redis";
    if child::is(TEST) {
        return child::run(async {
            let _messaging = fail(&child::url(), &Witness::url()).await;
            println!("\nready");
            std::future::pending().await
        });
    }
    child::run(async {
        let (redis, witness) = (durable_redis(), Witness::start());
        let mut killed = witness.child(TEST, &redis.url());
        killed.wait_for_line(|line| line == "ready");
        let publisher = built(place(&redis.url()).builder()).await;
        let message = Numbered { key: String::new(), number: 7 };
        publisher.publish(CHANNEL, &message).durable().await.unwrap();
        eventually("it has failed once", async || delayed(&redis, STREAM) == 1).await;
        drop(killed);
        redis.stop();
        redis.start_again();
        let _messaging = fail(&redis.url(), &witness.server().url()).await;
        witness.reaches(3).await;
        eventually("it is a dead letter", async || dead(&redis, STREAM) == 1).await;
        settled(&redis, &[STREAM]).await;
        let notes = witness.notes();
        assert_eq!(notes.iter().map(|note| note.attempt).collect::<Vec<_>>(), [1, 2, 3]);
        // The clocks are those of one machine; Redis counts in milliseconds.
        let waits: Vec<_> = notes.windows(2).map(|pair| (pair[1].at - pair[0].at) as u64).collect();
        assert!(waits.iter().all(|wait| *wait + 5 >= DELAY.as_millis() as u64), "{waits:?}");
        assert_ne!(notes[0].process, notes[1].process);
        outcome("retry, SIGKILL, restart", format!("attempts 2 and 3 after {waits:?} ms"));
    });
}

/// One messaging with two groups on one channel.
fn group(messaging: &Messaging, group: &str) -> Subscriber {
    messaging.subscriber().delivery(DeliveryMode::Queue).group(group).id(group)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_message_becomes_a_dead_letter_of_the_group_that_it_poisons() {
    let redis = RedisServer::start();
    let messaging = built(place(&redis.url()).builder()).await;
    let (billing, mailing) = (Probe::default(), Probe::default());
    let (bill, mail) = (billing.clone(), mailing.clone());
    let failing = group(&messaging, GROUP).retry(attempts(4, Duration::from_millis(20))).dead_letter("dead");
    let failing = failing.on(CHANNEL, move |number: u64, Attempt(attempt): Attempt| {
        bill.tell((number, attempt));
        async move { if number == 13 { Err(format!("{number} is unlucky")) } else { Ok(()) } }
    });
    let _failing = failing.await.unwrap();
    let sound = group(&messaging, "mailing").on(CHANNEL, move |number: u64, Attempt(attempt): Attempt| {
        mail.tell((number, attempt));
        async {}
    });
    let _sound = sound.await.unwrap();
    let mut alias = messaging.subscribe("dead").await.unwrap();
    let before = SystemTime::now();
    for number in 12..15_u64 {
        let publish = messaging.publish(CHANNEL, &number).durable();
        publish.id(format!("order-{number}")).header("tenant", "a").await.unwrap();
    }
    let notice = soon(alias.get_message(None)).await.unwrap().unwrap();
    let notice: serde_json::Value = notice.json().unwrap();
    settled(&redis, &[STREAM]).await;
    let told = ["(12, 1)", "(13, 1)", "(14, 1)", "(13, 2)", "(13, 3)", "(13, 4)"];
    assert_eq!(billing.told(), told, "exactly so many attempts");
    assert_eq!(mailing.told(), ["(12, 1)", "(13, 1)", "(14, 1)"], "the other group's is handled");

    let letters = messaging.dead_letters(GROUP);
    let all = letters.list().await.unwrap();
    let [letter] = &all[..] else { panic!("{all:?}") };
    assert_eq!((letter.channel().as_str(), letter.json::<u64>().unwrap()), (CHANNEL, 13));
    assert_eq!((letter.handler(), letter.error(), letter.attempts()), (GROUP, "13 is unlucky", 4));
    assert_eq!((letter.event_id().as_str(), letter.headers().get("tenant")), ("order-13", Some("a")));
    let (published, failed) = (letter.published_at(), letter.failed_at());
    let second = Duration::from_secs(1);
    assert!(before <= published + second && published <= failed && failed <= SystemTime::now() + second);
    let position = letter.position().to_string();
    let expected = serde_json::json!({
        "event": "order-13", "stream": CHANNEL, "entry": position, "group": GROUP, "handler": GROUP,
        "attempts": 4, "error": "13 is unlucky",
    });
    assert_eq!(notice, expected);
    assert!(messaging.dead_letters("mailing").list().await.unwrap().is_empty());

    // Again, for this group alone, with all its attempts before it.
    letters.replay(letter.id()).await.unwrap();
    let told = soon(billing.wait_for(10)).await;
    assert_eq!(told[6..], ["(13, 1)", "(13, 2)", "(13, 3)", "(13, 4)"]);
    eventually("it is a dead letter again", async || dead(&redis, STREAM) == 1).await;
    assert_eq!(
        letters.replay(letter.id()).await.unwrap_err().kind(),
        ErrorKind::NotFound,
        "it has another id"
    );
    let again = letters.list().await.unwrap();
    assert_eq!(again[0].event_id(), letter.event_id());
    assert!(letters.purge(again[0].id()).await.unwrap() && !letters.purge(again[0].id()).await.unwrap());
    settled(&redis, &[STREAM]).await;
    eventually("the other group passed over it", async || {
        count(&redis, &["XPENDING", STREAM, "mailing"]) == 0
    })
    .await;
    assert_eq!(mailing.told().len(), 3);
    assert_eq!((dead(&redis, STREAM), health(&messaging).counts.dead_lettered), (0, 2));
    outcome("a poisoned message", "4 attempts, a dead letter, replayed to its group alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_says_of_its_failure_counts() {
    let redis = RedisServer::start();
    let messaging = built(place(&redis.url()).builder()).await;
    let probe = Probe::default();
    let seen = probe.clone();
    let handler = queue(&messaging).retry(attempts(3, Duration::from_millis(20)));
    let handler = handler.on(
        CHANNEL,
        move |what: String, Attempt(attempt): Attempt, _id: EventId, _headers: Headers| {
            seen.tell(format!("{what} {attempt}"));
            async move {
                Err::<(), _>(match what.as_str() {
                    "skip" => HandlerError::skip("not for us"),
                    "dead" => HandlerError::dead_letter("hopeless"),
                    "panic" => panic!("at the handler"),
                    _ => HandlerError::retry("later"),
                })
            }
        },
    );
    let _handler = handler.await.unwrap();
    for what in ["skip", "dead", "retry", "panic"] {
        messaging.publish(CHANNEL, what).durable().await.unwrap();
    }
    // No text, and not even JSON.
    messaging.publish(CHANNEL, &7).durable().await.unwrap();
    redis.cli(&["XADD", STREAM, "*", "channel", CHANNEL, "data", "{"]);
    // Nothing that a publisher of ours makes.
    redis.cli(&["XADD", STREAM, "*", "colour", "green"]);
    eventually("all are given up", async || dead(&redis, STREAM) == 6).await;
    settled(&redis, &[STREAM]).await;
    let mut told = probe.told();
    told.sort();
    let expected = ["dead 1", "panic 1", "panic 2", "panic 3", "retry 1", "retry 2", "retry 3", "skip 1"];
    assert_eq!(told, expected.map(|told| format!("{told:?}")));
    let letters = messaging.dead_letters(GROUP);
    let listed = letters.list().await.unwrap();
    for (begins, attempts) in [
        ("hopeless", 1),
        ("later", 3),
        ("the handler panicked: at the handler", 3),
        ("not a String: invalid type: integer `7`", 1),
        ("not a String: invalid type: map", 1),
        ("it has no channel or no data", 1),
    ] {
        let like = |letter: &&DeadLetter| letter.error().starts_with(begins) && letter.attempts() == attempts;
        assert_eq!(listed.iter().filter(like).count(), 1, "{begins:?} in {listed:?}");
    }
    assert_eq!(letters.purge_all().await.unwrap(), 6);
    outcome("failures", "skipped, given up and tried again as told");
}
