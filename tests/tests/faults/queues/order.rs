//! Partitions change hands, and the messages of each key stay in order.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use futures_util::future::join_all;
use messaging_core::{Durability, Messaging, OrderedBy};
use messaging_tests::{RedisServer, eventually};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::witnessed::{Numbered, Plan, Witness, first_handlings, handle_for_ever};
use super::{CHANNEL, GROUP, built, pending, place, queue, settled};
use crate::gated::buffer;
use crate::place::Probe;
use crate::programs::Program;
use crate::{child, outcome};

const PARTITIONS: u16 = 8;
const KEYS: u64 = 20;
const PER_KEY: u64 = 150;

fn streams() -> Vec<String> {
    (0..PARTITIONS).map(|partition| format!("msg:{{{CHANNEL}#{partition}}}:stream")).collect()
}

fn durability() -> Durability {
    Durability::DEFAULT.partitions(NonZeroU16::new(PARTITIONS).unwrap())
}

#[cfg(unix)]
#[test]
fn what_processes_hand_over_stays_in_order() {
    const TEST: &str = "queues::order::what_processes_hand_over_stays_in_order";
    const HANDOVERS: u64 = 10;
    if child::is(TEST) {
        // What is handed over does not fit in at once.
        return child::run(handle_for_ever(CHANNEL, Plan { in_order: true, buffer: Some(40) }));
    }
    child::run(async {
        let (redis, witness) = (RedisServer::start(), Witness::start());
        let url = redis.url();
        let started = || {
            let mut child: Program = witness.child(TEST, &url);
            child.wait_for_line(|line| line == "ready");
            child
        };
        let mut children = vec![started(), started()];
        let messaging = built(place(&url).builder().durable(CHANNEL, durability())).await;
        let publish = async |key: u64| {
            for number in 0..PER_KEY {
                let message = Numbered { key: key.to_string(), number };
                messaging.publish(CHANNEL, &message).key(&message.key).await.unwrap();
            }
        };
        // All at once: everywhere is more than fits in.
        join_all((0..KEYS).map(publish)).await;
        for handover in 1..=HANDOVERS {
            // One more, and the oldest goes in order.
            children.push(started());
            witness.reaches(handover * KEYS * PER_KEY / (HANDOVERS + 1)).await;
            let leaving = children.remove(0);
            leaving.terminate();
            let ended = spawn_blocking(|| leaving.end()).await.unwrap();
            assert!(ended.status.success(), "{}", ended.complaints);
        }
        witness.reaches(KEYS * PER_KEY).await;
        let all =
            async || witness.handled().into_iter().collect::<BTreeSet<_>>().len() as u64 == KEYS * PER_KEY;
        eventually("all is handled", all).await;
        settled(&redis, &streams().iter().map(String::as_str).collect::<Vec<_>>()).await;
        let handled = witness.handled();
        for (key, firsts) in first_handlings(&handled) {
            assert!(firsts.is_sorted(), "key {key} was handled in this order: {firsts:?}");
        }
        outcome("10 orderly handovers", format!("{} handled, {} times", KEYS * PER_KEY, handled.len()));
    });
}

#[cfg(unix)]
#[test]
fn what_processes_that_stand_still_had_stays_in_order() {
    const TEST: &str = "queues::order::what_processes_that_stand_still_had_stays_in_order";
    const ROUNDS: u64 = 6;
    const EACH: u64 = PER_KEY / ROUNDS;
    if child::is(TEST) {
        return child::run(handle_for_ever(CHANNEL, Plan { in_order: true, buffer: None }));
    }
    child::run(async {
        let (redis, witness) = (RedisServer::start(), Witness::start());
        let mut children: Vec<Program> = (0..2).map(|_| witness.child(TEST, &redis.url())).collect();
        for child in &mut children {
            child.wait_for_line(|line| line == "ready");
        }
        let messaging = built(place(&redis.url()).builder().durable(CHANNEL, durability())).await;
        let distinct = || witness.handled().into_iter().collect::<BTreeSet<_>>().len() as u64;
        for round in 0..ROUNDS {
            let publish = async |key: u64| {
                for number in round * EACH..(round + 1) * EACH {
                    let message = Numbered { key: key.to_string(), number };
                    messaging.publish(CHANNEL, &message).key(&message.key).await.unwrap();
                }
            };
            // In the middle of it, one of them stands still until the other has handled all.
            let still = &children[(round % 2) as usize];
            let stop = async {
                witness.reaches(round * EACH * KEYS + EACH).await;
                still.signal("STOP");
            };
            tokio::join!(join_all((0..KEYS).map(publish)), stop);
            let all = async || distinct() == (round + 1) * EACH * KEYS;
            eventually("all is handled", all).await;
            still.signal("CONT");
        }
        settled(&redis, &streams().iter().map(String::as_str).collect::<Vec<_>>()).await;
        let handled = witness.handled();
        for (key, firsts) in first_handlings(&handled) {
            assert!(firsts.is_sorted(), "key {key} was handled in this order: {firsts:?}");
        }
        outcome("SIGSTOP, in partitions", format!("{} handled, {} times", distinct(), handled.len()));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_in_one_moment_is_handed_back_in_order() {
    const MESSAGES: usize = 300;
    const ONE: &str = "msg:{orders.created#0}:stream";
    let redis = RedisServer::start();
    let kept = Durability::DEFAULT.partitions(NonZeroU16::MIN);
    let (first, second) = (
        built(place(&redis.url()).builder().durable(CHANNEL, kept)).await,
        built(place(&redis.url()).builder().durable(CHANNEL, kept)).await,
    );
    let (permits, probe) = (Arc::new(Semaphore::new(0)), Probe::default());
    let handler = |messaging: &Messaging, messages: usize| {
        let (gate, tells) = (Arc::clone(&permits), probe.clone());
        let handler = queue(messaging).ordered_by(OrderedBy::Key).buffer(buffer(messages));
        handler.on(CHANNEL, move |number: u64| {
            let (gate, tells) = (Arc::clone(&gate), tells.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                tells.tell(number);
            }
        })
    };
    let leaving = handler(&first, 2_000).await.unwrap();
    // More than ten in one millisecond, by whatever clock.
    let append = "for i = 1, ARGV[2] do redis.call('XADD', KEYS[1], '5-' .. i, 'channel', ARGV[1], 'key', 'k', 'data', i) end";
    redis.cli(&["EVAL", append, "1", ONE, CHANNEL, &MESSAGES.to_string()]);
    eventually("it has all of them", async || pending(&redis, ONE) == MESSAGES as u64).await;
    let _staying = handler(&second, 20).await.unwrap();
    let stopping = tokio::spawn(leaving.stop());
    permits.add_permits(MESSAGES);
    let told = probe.wait_for(MESSAGES).await;
    stopping.await.unwrap();
    settled(&redis, &[ONE]).await;
    assert_eq!(told, (1..=MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
    outcome("300 messages of one millisecond", "handed back and handled in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_partitions_are_left_alone() {
    let redis = RedisServer::start();
    let mut messagings = Vec::new();
    for _ in 0..2 {
        let messaging = built(place(&redis.url()).builder().durable(CHANNEL, durability())).await;
        let handler = queue(&messaging).ordered_by(OrderedBy::Key).on(CHANNEL, async |_number: u64| {});
        let _handler = handler.await.unwrap();
        messagings.push(messaging);
    }
    let members = format!("msg:{{{CHANNEL}}}:members:{GROUP}");
    let beat = || redis.cli(&["ZRANGE", &members, "0", "0", "WITHSCORES"]);
    let scripts = || {
        let stats = redis.cli(&["INFO", "commandstats"]);
        let of = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or("0");
        of.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let next_beat = async || {
        let last = beat();
        eventually("it shows that it lives", async || beat() != last).await;
    };
    for _ in 0..6 {
        next_beat().await;
    }
    let before = scripts();
    const BEATS: u64 = 10;
    for _ in 0..BEATS {
        next_beat().await;
    }
    let calls = scripts() - before;
    // Of each process at each beat: one for the share, one for each partition of its own; and now and then a read.
    assert!(calls < BEATS * 2 * (u64::from(PARTITIONS) + 4), "{calls} calls in {BEATS} beats");
    outcome("idle partitions", format!("{calls} calls in {BEATS} beats"));
}
