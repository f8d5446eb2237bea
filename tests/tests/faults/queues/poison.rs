//! A message that is the end of every process that begins with it.

use std::num::NonZeroU16;
use std::time::Duration;

use messaging_core::{Durability, Messaging, OrderedBy};
use messaging_tests::{RedisServer, eventually};
use tokio::task::spawn_blocking;

use super::witnessed::{Numbered, Pen, Witness};
use super::{CHANNEL, GROUP, STREAM, built, dead, place, queue, settled};
use crate::place::Place;
use crate::{child, outcome};

const OTHERS: u64 = 20;
/// So many processes have to go before a message is given up.
const DEATHS: u64 = 11;

fn short_leases(url: &str) -> Place {
    let mut place = place(url);
    place.config.reclaim = Duration::from_millis(500);
    place
}

fn message(number: u64) -> Numbered {
    Numbered { key: String::new(), number }
}

async fn service(in_order: bool) {
    let messaging = built(short_leases(&child::url()).builder()).await;
    let pen = Pen::new().await;
    let mut handler = queue(&messaging);
    if in_order {
        handler = handler.ordered_by(OrderedBy::Key);
    }
    let handler = handler.on(CHANNEL, move |message: Numbered| {
        let pen = pen.clone();
        async move {
            if message.number == 0 {
                std::process::exit(1);
            }
            pen.note(&message, 1).await;
        }
    });
    let _handler = handler.await.unwrap();
    println!("\nready");
    std::future::pending::<()>().await;
}

async fn poisoned(test: &'static str, messaging: Messaging, redis: &RedisServer, stream: &str) {
    let witness = Witness::start();
    let mut process = witness.child(test, &redis.url());
    process.wait_for_line(|line| line == "ready");
    for number in 0..=OTHERS {
        messaging.publish(CHANNEL, &message(number)).durable().key("k").await.unwrap();
    }
    for _ in 0..DEATHS {
        let ended = spawn_blocking(|| process.end()).await.unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.complaints);
        process = witness.child(test, &redis.url());
    }
    eventually("all others are handled", async || witness.count() == OTHERS).await;
    settled(redis, &[stream]).await;
    assert_eq!(witness.handled(), (1..=OTHERS).map(message).collect::<Vec<_>>());
    let letters = messaging.dead_letters(GROUP).list().await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter.json::<Numbered>().unwrap(), message(0));
    assert!(letter.error().contains("11 consumers were gone"), "{}", letter.error());
    assert_eq!(dead(redis, stream), 1);
    outcome(
        "a deadly message",
        format!("given up after {DEATHS} processes; the {OTHERS} others are handled"),
    );
}

#[test]
fn a_deadly_message_takes_no_other_with_it() {
    const TEST: &str = "queues::poison::a_deadly_message_takes_no_other_with_it";
    if child::is(TEST) {
        return child::run(service(false));
    }
    child::run(async {
        let redis = RedisServer::start();
        let messaging = built(place(&redis.url()).builder()).await;
        poisoned(TEST, messaging, &redis, STREAM).await;
    });
}

#[test]
fn a_deadly_message_takes_no_other_of_its_partition_with_it() {
    const TEST: &str = "queues::poison::a_deadly_message_takes_no_other_of_its_partition_with_it";
    if child::is(TEST) {
        return child::run(service(true));
    }
    child::run(async {
        let redis = RedisServer::start();
        let kept = Durability::DEFAULT.partitions(NonZeroU16::MIN);
        let messaging = built(place(&redis.url()).builder().durable(CHANNEL, kept)).await;
        poisoned(TEST, messaging, &redis, "msg:{orders.created#0}:stream").await;
    });
}
