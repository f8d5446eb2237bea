//! Everything goes away, again and again: the processes of a group by SIGKILL, Redis too. What was published is handled.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use messaging_core::{Durability, Messaging};
use messaging_tests::{RedisServer, eventually};
use tokio::task::spawn_blocking;

use super::witnessed::{Numbered, Plan, Witness, first_handlings, handle_for_ever};
use super::{CHANNEL, built, dead, place, settled};
use crate::programs::Program;
use crate::{child, outcome};

const KEYS: u64 = 40;
const PER_KEY: u64 = 250;
const PROCESSES: usize = 3;
/// Fewer than it takes to suspect a message of killing its processes.
const KILLS: u64 = 9;

/// A server that has on disk what it has acknowledged.
pub fn durable_redis() -> RedisServer {
    RedisServer::builder().arg("--appendonly", "yes").arg("--appendfsync", "always").start()
}

/// Publishes the messages of one key one after the other; again what was not sent. Returns those that were published for
/// certain.
async fn publish_key(messaging: Messaging, key: u64, published: Arc<AtomicU64>) -> Vec<Numbered> {
    let mut certain = Vec::new();
    for number in 0..PER_KEY {
        let message = Numbered { key: key.to_string(), number };
        loop {
            match messaging.publish(CHANNEL, &message).durable().key(&message.key).await {
                Ok(_) => certain.push(message),
                Err(error) if error.is_not_sent() => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                }
                // Nobody knows, and nothing is said of it.
                Err(_) => {}
            }
            break;
        }
        published.fetch_add(1, Ordering::SeqCst);
    }
    certain
}

async fn kills_and_restarts(test: &'static str, partitions: u16, streams: &[&str]) {
    let (redis, witness) = (Arc::new(durable_redis()), Witness::start());
    let url = redis.url();
    let mut children: Vec<Program> = (0..PROCESSES).map(|_| witness.child(test, &url)).collect();
    for child in &mut children {
        child.wait_for_line(|line| line == "ready");
    }
    let mut builder = place(&url).builder();
    if let Some(partitions) = NonZeroU16::new(partitions) {
        builder = builder.durable(CHANNEL, Durability::DEFAULT.partitions(partitions));
    }
    let messaging = built(builder).await;
    let published = Arc::new(AtomicU64::new(0));
    let publishers = (0..KEYS)
        .map(|key| tokio::spawn(publish_key(messaging.clone(), key, Arc::clone(&published))))
        .collect::<Vec<_>>();

    let restarts = async {
        for part in [3, 2] {
            let due = KEYS * PER_KEY / part;
            loop {
                let before = published.load(Ordering::SeqCst);
                if before >= due {
                    break;
                }
                let more = async || published.load(Ordering::SeqCst) > before;
                eventually("more is published", more).await;
            }
            let redis = Arc::clone(&redis);
            spawn_blocking(move || {
                redis.stop();
                redis.start_again();
            })
            .await
            .unwrap();
        }
    };
    let kills = async {
        let random = RandomState::new();
        for kill in 0..KILLS {
            // Somewhere in each tenth.
            let tenth = KEYS * PER_KEY / 10;
            witness.reaches(kill * tenth + random.hash_one(kill) % tenth).await;
            let victim = random.hash_one((kill, "victim")) as usize % PROCESSES;
            children[victim] = witness.child(test, &url);
        }
        children
    };
    let (certain, (), children) = tokio::join!(join_all(publishers), restarts, kills);
    let certain: BTreeSet<Numbered> = certain.into_iter().flat_map(Result::unwrap).collect();

    // As long as it takes, while it goes on.
    loop {
        let before = witness.count();
        let handled: BTreeSet<_> = witness.handled().into_iter().collect();
        if certain.is_subset(&handled) {
            break;
        }
        let missing = certain.difference(&handled).count();
        eventually(&format!("the other {missing} are handled"), async || witness.count() > before).await;
    }
    settled(&redis, streams).await;
    assert!(streams.iter().all(|stream| dead(&redis, stream) == 0), "nothing is given up");
    drop(children);
    let handled = witness.handled();
    if partitions > 0 {
        for (key, firsts) in first_handlings(&handled) {
            assert!(firsts.is_sorted(), "key {key} was handled in this order: {firsts:?}");
        }
    }
    let distinct = handled.iter().collect::<BTreeSet<_>>().len();
    outcome(
        test,
        format!("{} published for certain, {distinct} handled, {} times", certain.len(), handled.len()),
    );
}

#[test]
fn what_is_published_is_handled_whoever_is_killed() {
    const TEST: &str = "queues::outages::what_is_published_is_handled_whoever_is_killed";
    if child::is(TEST) {
        return child::run(handle_for_ever(CHANNEL, Plan::default()));
    }
    child::run(kills_and_restarts(TEST, 0, &[super::STREAM]));
}

#[test]
fn what_is_published_is_handled_in_the_order_of_its_key_whoever_is_killed() {
    const TEST: &str =
        "queues::outages::what_is_published_is_handled_in_the_order_of_its_key_whoever_is_killed";
    if child::is(TEST) {
        return child::run(handle_for_ever(CHANNEL, Plan { in_order: true, ..Plan::default() }));
    }
    let streams: Vec<_> = (0..4).map(|partition| format!("msg:{{{CHANNEL}#{partition}}}:stream")).collect();
    let streams: Vec<_> = streams.iter().map(String::as_str).collect();
    child::run(kills_and_restarts(TEST, 4, &streams));
}
