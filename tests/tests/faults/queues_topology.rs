//! Durable channels on several servers: what queues and resumable handlers are given while a master or a primary is
//! replaced, and while a slot moves.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use messaging_core::{Attempt, Durability, Messaging, OrderedBy};
use messaging_tests::{Cluster, RedisServer, Sentinel, eventually};

use crate::durable::{
    CHANNEL, COMMAND_TIMEOUT, Handled, Readers, all, eventually_blocking, goes_on, kept, place, publish,
    publish_around, queue, settled,
};
use crate::outcome;

/// What scheduling may add to it.
const SLACK: Duration = Duration::from_secs(2);
/// Longer than any lease, and than it takes until streams are registered and looked for again.
const OUTAGE: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_goes_on_when_sentinel_replaces_its_master() {
    let sentinel = Arc::new(Sentinel::start());
    let place = place(&sentinel.url());
    let readers = Readers::start(&place).await;
    let killed = Arc::clone(&sentinel);
    let failures = publish_around(&place, move |_| killed.master().stop()).await;
    let messaging = place.messaging().await;
    let kept = readers.have_what_is_kept(&messaging).await;
    let lost: BTreeSet<_> = all().difference(&kept).copied().collect();
    assert!(failures > 0, "while there was no master, publishing failed");
    assert!(lost.len() < all().len() / 10, "only what had not reached the replica: {lost:?}");
    goes_on(&place, &readers).await;
    outcome(
        "SIGKILL of a queue's master",
        format_args!(
            "{} lost with it, {} handled again, {failures} publishes failed",
            lost.len(),
            readers.queue.again()
        ),
    );
}

/// Keeps the replicas from following, while clients notice nothing: nobody new may do anything.
fn cut_replicas_off(master: &RedisServer) {
    master.cli(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    eventually_blocking(|| {
        master.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        master.cli(&["INFO", "replication"]).contains("connected_slaves:0")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_have_confirmed_survives_a_failover() {
    let sentinel = Sentinel::start();
    let place = place(&sentinel.url());
    let sure = Durability::DEFAULT.wait_replicas(NonZeroU32::MIN);
    let messaging =
        place.builder().durable("sure", sure).durable("quick", Durability::DEFAULT).build().await.unwrap();
    let confirmed = async |channel: &'static str, numbers: std::ops::Range<u64>| {
        let mut confirmed = BTreeSet::new();
        for number in numbers {
            if messaging.publish(channel, &number).await.is_ok() {
                confirmed.insert(number);
            }
        }
        confirmed
    };
    let (mut surely, mut quickly) = (confirmed("sure", 0..100).await, confirmed("quick", 0..100).await);
    assert_eq!((surely.len(), quickly.len()), (100, 100));
    let old = sentinel.master();
    cut_replicas_off(old);
    quickly.extend(confirmed("quick", 100..200).await);
    assert_eq!(quickly.len(), 200, "nobody waits for a replica");
    // A group that no replica knows goes with the master.
    let handled = Handled::default();
    let _ = queue(&messaging, "late").on("quick", handled.handler()).await.unwrap();
    handled.has("the queue handles what is there", &(0..200).collect()).await;
    let error = messaging.publish("sure", &100_u64).await.unwrap_err();
    assert!(error.to_string().contains("0 of 1 replicas confirmed"), "{error}");
    assert!(!error.is_not_sent(), "it may be there, or it may be lost: {error}");
    surely.extend(confirmed("sure", 101..103).await);
    old.stop();
    sentinel.wait_for_another_than(old);
    let kept = async |channel: &'static str| {
        let past = async || messaging.history(channel).await.ok();
        let past = eventually("the history can be read", past).await;
        past.iter().map(|message| message.json().unwrap()).collect::<BTreeSet<u64>>()
    };
    let (sure, quick) = (kept("sure").await, kept("quick").await);
    assert_eq!(surely.difference(&sure).count(), 0, "what was confirmed is there");
    let lost = quickly.difference(&quick).count();
    assert_eq!(lost, 100, "what no replica had is lost with the master");
    let published = async || messaging.publish("quick", &200_u64).await.is_ok();
    eventually("it is published", published).await;
    handled.has("its group is made anew", &BTreeSet::from([200])).await;
    settled(&messaging, "late").await;
    outcome(
        "a master dies without its replicas",
        format_args!("{lost} lost, 0 of those that were confirmed"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_leaves_a_master_that_sentinels_have_given_up() {
    let sentinel = Sentinel::start();
    let place = place(&sentinel.url());
    let readers = Readers::start(&place).await;
    let messaging = place.messaging().await;
    publish(&messaging, 0, None).await;
    readers.have(&BTreeSet::from([0])).await;
    // It lives on, takes writes, and closes nothing.
    let old = sentinel.master();
    let new = sentinel.give_up_master();
    let mut next = 0;
    eventually("publishing has moved too", async || {
        next += 1;
        publish(&messaging, next, None).await;
        new.cli(&["CLIENT", "LIST"]).contains("name=messaging-publisher")
    })
    .await;
    next += 1;
    publish(&messaging, next, None).await;
    readers.have(&BTreeSet::from([next])).await;
    assert_eq!(old.cli(&["ROLE"]).lines().next(), Some("master"));
}

/// The node that has a stream whose key has this in it, and the stream's slot.
fn holder<'c>(cluster: &'c Cluster, of: &str) -> (&'c RedisServer, u16) {
    let primaries = cluster.running().filter(|node| node.cli(&["ROLE"]).starts_with("master"));
    let found = primaries.filter_map(|node| {
        let keys = node.cli(&["KEYS", &format!("*{of}:stream")]);
        let key = keys.lines().next().filter(|key| !key.is_empty())?.to_owned();
        Some((node, cluster.slot_of(&key)))
    });
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), 1, "one primary has it");
    found[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_goes_on_when_the_primary_of_its_stream_is_replaced() {
    let cluster = Arc::new(Cluster::start());
    let place = place(&cluster.url());
    let readers = Readers::start(&place).await;
    let killed = Arc::clone(&cluster);
    let failures = publish_around(&place, move |_| holder(&killed, "jobs}").0.stop()).await;
    let messaging = place.messaging().await;
    let kept = readers.have_what_is_kept(&messaging).await;
    let lost = all().difference(&kept).count();
    assert!(failures > 0, "while there was no primary, publishing failed");
    assert!(lost < all().len() / 10, "only what had not reached the replica: {lost}");
    goes_on(&place, &readers).await;
    outcome(
        "SIGKILL of a queue's primary",
        format_args!(
            "{lost} lost with it, {} handled again, {failures} publishes failed",
            readers.queue.again()
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_goes_on_while_its_slot_moves() {
    let cluster = Arc::new(Cluster::start());
    let place = place(&cluster.url());
    let readers = Readers::start(&place).await;
    let moved = Arc::clone(&cluster);
    let failures = publish_around(&place, move |progress| {
        let (from, slot) = holder(&moved, "jobs}");
        let to = moved.nodes()[..3].iter().find(|node| node.port() != from.port()).unwrap();
        moved.half_migrate_slot(slot, to);
        // The stream is there, and the slot here.
        progress.makes(50);
        moved.migrate_slot(slot, to);
        let (now, _) = holder(&moved, "jobs}");
        assert_eq!(now.port(), to.port());
    })
    .await;
    let messaging = place.messaging().await;
    assert!(kept(&messaging).await.is_superset(&all()), "nothing is lost");
    readers.have(&all()).await;
    goes_on(&place, &readers).await;
    outcome(
        "a queue's slot moved",
        format_args!("0 lost, {} handled again, {failures} publishes failed", readers.queue.again()),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_keep_their_order_when_a_primary_is_replaced() {
    const PARTITIONS: u16 = 6;
    let cluster = Arc::new(Cluster::start());
    let place = place(&cluster.url());
    let durability = Durability::DEFAULT.partitions(NonZeroU16::new(PARTITIONS).unwrap());
    let handled = Handled::default();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let messaging = place.builder().durable(CHANNEL, durability).build().await.unwrap();
        let subscriber = queue(&messaging, "workers").ordered_by(OrderedBy::Key);
        let subscriber = subscriber.workers(NonZeroUsize::new(4).unwrap());
        let _ = subscriber.on(CHANNEL, handled.handler()).await.unwrap();
        consumers.push(messaging);
    }
    let publisher = place.builder().durable(CHANNEL, durability).build().await.unwrap();
    let keys = 12_u64;
    let number = |key: u64, round: u64| key * 1_000 + round;
    let mut last = BTreeMap::new();
    let mut failures = 0;
    for round in 0..100 {
        if round == 30 {
            cluster.nodes()[1].stop();
        }
        let publishing = (0..keys).map(|key| {
            let publisher = publisher.clone();
            async move { publish(&publisher, number(key, round), Some(&key.to_string())).await }
        });
        failures += futures_util::future::join_all(publishing).await.into_iter().sum::<usize>();
    }
    let kept = kept(&publisher).await;
    handled.has("every partition is handled", &kept).await;
    settled(&publisher, "workers").await;
    assert!(failures > 0, "while there was no primary, publishing failed");
    let mut firsts = BTreeSet::new();
    for (number, _) in handled.0.lock().unwrap().iter().filter(|(number, _)| firsts.insert(*number)) {
        let before = last.insert(number / 1_000, *number);
        assert!(before.is_none_or(|before| before < *number), "{number} after {before:?}");
    }
    let wanted: BTreeSet<_> =
        (0..keys).flat_map(|key| (0..100).map(move |round| number(key, round))).collect();
    outcome(
        "SIGKILL of a primary with partitions",
        format_args!("{} lost with it, {failures} publishes failed", wanted.difference(&kept).count()),
    );
}

/// A cluster whose slots work though others have no owner.
fn cluster_that_goes_on() -> Cluster {
    let cluster = Cluster::start();
    for node in cluster.nodes() {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    cluster
}

/// Which of the nodes has a key.
fn position(cluster: &Cluster, key: &str) -> usize {
    let owner = cluster.owner_of(cluster.slot_of(key)).port();
    cluster.nodes().iter().position(|node| node.port() == owner).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stays_away_holds_up_only_its_own_streams() {
    let cluster = cluster_that_goes_on();
    let place = place(&cluster.url());
    let owner_of = |key: &str| position(&cluster, key);
    let stream = |channel: &str| {
        format!("{}:{{{}{channel}}}:stream", place.config.namespace, place.config.channel_prefix)
    };
    let registry = owner_of(&format!("{}:streams", place.config.namespace));
    let channel_at = |node: usize| {
        (0..)
            .map(|number| format!("jobs.{number}"))
            .find(|channel| owner_of(&stream(channel)) == node)
            .unwrap()
    };
    // The one that goes away is that of the streams' registry; the stream that suffers is known first.
    let (away, near) = (channel_at(registry), channel_at((registry + 1) % 3));
    let publisher = place.messaging().await;
    for channel in [&away, &near] {
        publisher.publish(channel, &0_u64).durable().await.unwrap();
    }
    let handled = Handled::default();
    let go_on = Arc::new(tokio::sync::Semaphore::new(0));
    let reader = place.messaging().await;
    let handler = {
        let (handled, go_on) = (handled.clone(), Arc::clone(&go_on));
        move |number: u64, attempt: Attempt| {
            let (handled, go_on) = (handled.clone(), Arc::clone(&go_on));
            async move {
                handled.note(number, attempt);
                if number == 1 {
                    go_on.acquire().await.unwrap().forget();
                }
            }
        }
    };
    let subscriber = queue(&reader, "workers").workers(NonZeroUsize::new(4).unwrap());
    let _ = subscriber.on("jobs.*", handler).await.unwrap();
    publisher.publish(&away, &1_u64).durable().await.unwrap();
    handled.has("both streams are read", &BTreeSet::from([0, 1])).await;
    // One is in the middle of being handled when its server goes: what becomes of it cannot be written.
    let gone = [registry, registry + 3].map(|node| &cluster.nodes()[node]);
    gone.iter().for_each(|node| node.pause());
    go_on.add_permits(10);
    let key = stream(&near);
    let node = &cluster.nodes()[(registry + 1) % 3];
    let (begun, mut last) = (Instant::now(), 1);
    while begun.elapsed() < OUTAGE {
        last += 1;
        let asked = Instant::now();
        publisher.publish(&near, &last).durable().await.unwrap();
        let took = asked.elapsed();
        assert!(took < COMMAND_TIMEOUT + SLACK, "{took:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handled.has("the other stream is handled", &(2..=last).collect()).await;
    eventually("and acknowledged", async || {
        node.cli(&["XPENDING", &key, "workers"]).lines().next() == Some("0")
    })
    .await;
    assert_eq!(reader.health().handlers[0].counts.taken_over, 0, "the leases were kept");
    gone.iter().for_each(|node| node.resume());
    let published = async || publisher.publish(&away, &1_000_000_u64).durable().await.is_ok();
    eventually("it is published", published).await;
    handled.has("the stream is handled again", &BTreeSet::from([1_000_000])).await;
    settled(&publisher, "workers").await;
    outcome("a primary away", format_args!("{last} messages of another's stream were handled meanwhile"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stays_away_costs_no_lease_on_other_partitions() {
    const KEYS: u64 = 40;
    let cluster = cluster_that_goes_on();
    let place = place(&cluster.url());
    // The one that knows who shares the partitions.
    let members =
        format!("{}:{{{}{CHANNEL}}}:members:workers", place.config.namespace, place.config.channel_prefix);
    let away = position(&cluster, &members);
    let durability = Durability::DEFAULT.partitions(NonZeroU16::new(16).unwrap());
    let handled = Handled::default();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let messaging = place.builder().durable(CHANNEL, durability).build().await.unwrap();
        let subscriber = queue(&messaging, "workers").ordered_by(OrderedBy::Key);
        let _ = subscriber.on(CHANNEL, handled.handler()).await.unwrap();
        consumers.push(messaging);
    }
    let publisher = place.builder().durable(CHANNEL, durability).build().await.unwrap();
    for key in 0..KEYS {
        publish(&publisher, key, Some(&key.to_string())).await;
    }
    handled.has("every partition is handled", &(0..KEYS).collect()).await;
    let gone = [away, away + 3].map(|node| &cluster.nodes()[node]);
    gone.iter().for_each(|node| node.pause());
    let (begun, mut round, mut count) = (Instant::now(), 0, 0);
    while begun.elapsed() < 2 * place.config.reclaim {
        round += 1;
        let publishing = (0..KEYS).map(async |key| {
            let number = round * 1_000 + key;
            let publish = publisher.publish(CHANNEL, &number).durable().key(key.to_string());
            publish.await.ok().map(|_| number)
        });
        let published: BTreeSet<_> =
            futures_util::future::join_all(publishing).await.into_iter().flatten().collect();
        count += published.len();
        handled.has("the other partitions are handled", &published).await;
    }
    let taken_over = |messaging: &Messaging| messaging.health().handlers[0].counts.taken_over;
    assert_eq!(consumers.iter().map(taken_over).sum::<u64>(), 0, "the leases were kept");
    assert_eq!(handled.again(), 0);
    gone.iter().for_each(|node| node.resume());
    outcome(
        "a primary with partitions away",
        format_args!("{count} messages of the others were handled meanwhile"),
    );
}
