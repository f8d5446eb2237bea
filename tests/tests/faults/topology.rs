//! Several servers: a master that Sentinel replaces, a cluster whose primaries are replaced and whose slots move.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use messaging_core::{ErrorKind, Messaging, Subscription};
use messaging_tests::{Cluster, RedisServer, Sentinel, eventually};

use crate::outcome;
use crate::place::{Place, soon};

/// What the sharded channels have until every one of them delivers again, once the cluster has its primaries.
const BACK_WITHIN: Duration = Duration::from_secs(5);
const CHANNELS: usize = 200;

/// Who reads a subscription all the time.
#[derive(Clone, Default)]
struct Ear(Arc<Heard>);

#[derive(Default)]
struct Heard {
    numbers: Mutex<BTreeSet<u64>>,
    gaps: AtomicU64,
}

impl Ear {
    fn on(mut subscription: Subscription) -> Self {
        let ear = Self::default();
        let heard = Arc::clone(&ear.0);
        tokio::spawn(async move {
            loop {
                match subscription.get_message(None).await {
                    Ok(Some(message)) => _ = heard.numbers.lock().unwrap().insert(message.json().unwrap()),
                    Err(error) if error.kind() == ErrorKind::Gap => {
                        _ = heard.gaps.fetch_add(1, Ordering::SeqCst)
                    }
                    _ => return,
                }
            }
        });
        ear
    }

    fn has(&self, number: u64) -> bool {
        self.0.numbers.lock().unwrap().contains(&number)
    }

    fn gaps(&self) -> u64 {
        self.0.gaps.load(Ordering::SeqCst)
    }
}

fn place(url: &str) -> Place {
    let mut place = Place::at(url);
    place.config.connect_timeout = Duration::from_secs(2);
    place.config.command_timeout = Duration::from_secs(1);
    place.config.ping_after = Duration::from_millis(500);
    place
}

/// Publishes on one channel until it is heard, and remembers what was said to be not sent.
async fn publishes_until_heard(messaging: &Messaging, ear: &Ear, next: &mut u64) -> BTreeSet<u64> {
    let mut not_sent = BTreeSet::new();
    eventually("what is published is heard", async || {
        *next += 1;
        match messaging.publish("numbers", &*next).await {
            Err(error) if error.is_not_sent() => _ = not_sent.insert(*next),
            _ => {}
        }
        ear.has(*next)
    })
    .await;
    not_sent
}

async fn caches(messaging: &Messaging, key: &str) {
    let cache = messaging.cache("topology");
    let works = async || {
        cache.set(key, &1_u64, Duration::from_secs(60)).await.is_ok()
            && cache.get::<u64>(key).await.is_ok_and(|value| value == Some(1))
    };
    eventually("the cache works", works).await;
}

fn is_sound(messaging: &Messaging) -> bool {
    let sessions = messaging.health().sessions;
    sessions.iter().all(|session| session.connected && session.unconfirmed.is_empty())
}

fn has_clients(server: &RedisServer) -> bool {
    server.cli(&["CLIENT", "LIST"]).contains("name=messaging-")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_is_replaced() {
    let sentinel = Sentinel::start();
    let messaging = place(&sentinel.url()).messaging().await;
    let ear = Ear::on(messaging.subscribe("numbers").await.unwrap());
    let mut next = 0;
    publishes_until_heard(&messaging, &ear, &mut next).await;
    caches(&messaging, "before").await;
    let old = sentinel.master();
    old.stop();
    let begun = Instant::now();
    let not_sent = publishes_until_heard(&messaging, &ear, &mut next).await;
    let took = begun.elapsed();
    assert!(!not_sent.is_empty(), "while there was no master nothing was sent");
    assert!(not_sent.iter().all(|number| !ear.has(*number)), "not sent is never heard");
    eventually("the gap is announced", async || ear.gaps() == 1).await;
    caches(&messaging, "after").await;
    publishes_until_heard(&messaging, &ear, &mut next).await;
    assert_eq!(ear.gaps(), 1);
    assert!(is_sound(&messaging));
    outcome("SIGKILL of the master", format_args!("heard again after {took:?}, {} not sent", not_sent.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_stays_on_a_master_that_is_demoted() {
    let sentinel = Sentinel::start();
    let messaging = place(&sentinel.url()).messaging().await;
    let ear = Ear::on(messaging.subscribe("numbers").await.unwrap());
    let mut next = 0;
    publishes_until_heard(&messaging, &ear, &mut next).await;
    caches(&messaging, "before").await;
    // One sentinel is enough to find the master, whichever it is.
    sentinel.sentinels()[2].stop();
    let old = sentinel.master();
    sentinel.failover();
    publishes_until_heard(&messaging, &ear, &mut next).await;
    caches(&messaging, "after").await;
    eventually("nobody is on the old master", async || !has_clients(old)).await;
    eventually("the gap is announced", async || ear.gaps() == 1).await;
    publishes_until_heard(&messaging, &ear, &mut next).await;
    assert_eq!(ear.gaps(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_sentinels_have_given_up_without_telling_it_is_left() {
    let sentinel = Sentinel::start();
    let messaging = place(&sentinel.url()).messaging().await;
    let ear = Ear::on(messaging.subscribe("numbers").await.unwrap());
    let mut next = 0;
    publishes_until_heard(&messaging, &ear, &mut next).await;
    caches(&messaging, "before").await;
    // As when the sentinels cannot reach the old master, and we can: it lives on, takes writes, and closes nothing.
    let old = sentinel.master();
    let new = sentinel.give_up_master();
    eventually("commands have moved too", async || {
        caches(&messaging, "after").await;
        new.cli(&["DBSIZE"]) != "0" && !has_clients(old) && has_clients(new)
    })
    .await;
    publishes_until_heard(&messaging, &ear, &mut next).await;
    eventually("the gap is announced", async || ear.gaps() == 1).await;
    assert_eq!(old.cli(&["ROLE"]).lines().next(), Some("master"));
}

/// Many sharded channels on a cluster, a plain one, and a publisher of its own.
struct Shards {
    cluster: Cluster,
    messaging: Messaging,
    publisher: Messaging,
    sharded: Vec<Ear>,
    plain: Ear,
    next: u64,
}

impl Shards {
    async fn start() -> Self {
        let cluster = Cluster::start();
        let place = place(&cluster.url());
        let (messaging, publisher) = (place.messaging().await, place.messaging().await);
        let mut sharded = Vec::new();
        for number in 0..CHANNELS {
            sharded.push(Ear::on(messaging.subscribe_sharded(&Self::channel(number)).await.unwrap()));
        }
        let plain = Ear::on(messaging.subscribe("numbers").await.unwrap());
        let mut shards = Self { cluster, messaging, publisher, sharded, plain, next: 0 };
        let took = shards.all_deliver().await;
        outcome("200 sharded channels", format_args!("{took:?} to publish on all and hear it"));
        caches(&shards.messaging, "before").await;
        shards
    }

    fn channel(number: usize) -> String {
        format!("shard.{number}")
    }

    /// The channel on the wire.
    fn wire(&self, number: usize) -> String {
        format!("{}{}", self.messaging.config().channel_prefix, Self::channel(number))
    }

    /// Publishes on each sharded channel until it is heard; returns how long it took for the last of them.
    async fn all_deliver(&mut self) -> Duration {
        let begun = Instant::now();
        let mut silent: Vec<usize> = (0..CHANNELS).collect();
        let first = self.next + 1;
        eventually("every sharded channel delivers", async || {
            self.next += 1;
            let publishing = silent.iter().map(async |number| {
                let _ = self.publisher.publish(&Self::channel(*number), &self.next).sharded().await;
            });
            futures_util::future::join_all(publishing).await;
            silent.retain(|number| !(first..=self.next).any(|round| self.sharded[*number].has(round)));
            silent.is_empty()
        })
        .await;
        begun.elapsed()
    }

    /// Afterwards everything is as before, and everybody was told once at most; `all` says that everybody was.
    async fn recovered(&mut self, fault: &str, lost: impl Fn(usize) -> bool) {
        let took = self.all_deliver().await;
        let messaging = self.messaging.clone();
        eventually("it is sound again", async || is_sound(&messaging)).await;
        caches(&self.messaging, fault).await;
        publishes_until_heard(&self.publisher, &self.plain.clone(), &mut self.next).await;
        for number in 0..CHANNELS {
            let gaps = u64::from(lost(number));
            eventually(&format!("{fault}: channel {number} has {gaps} gaps"), async || {
                self.sharded[number].gaps() == gaps
            })
            .await;
        }
        outcome(fault, format_args!("all {CHANNELS} sharded channels deliver again after {took:?}"));
        assert!(took < BACK_WITHIN, "{took:?}");
    }

    fn owner(&self, number: usize) -> u16 {
        self.cluster.owner_of(self.cluster.slot_of(&self.wire(number))).port()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_to_a_cluster_are_killed() {
    let mut shards = Shards::start().await;
    for node in shards.cluster.nodes() {
        node.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        node.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    shards.recovered("CLIENT KILL", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_is_replaced() {
    let mut shards = Shards::start().await;
    let lost: Vec<bool> =
        (0..CHANNELS).map(|it| shards.owner(it) == shards.cluster.nodes()[1].port()).collect();
    assert!(lost.contains(&true) && lost.contains(&false));
    let dead = &shards.cluster.nodes()[1];
    dead.stop();
    // How long that takes is the cluster's affair.
    eventually("a replica has taken over", async || shards.cluster.owner_of(5_461).port() != dead.port())
        .await;
    shards.recovered("SIGKILL of a primary", |number| lost[number]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_demoted_is_left() {
    let mut shards = Shards::start().await;
    let nodes = shards.cluster.nodes();
    nodes[4].cli(&["CLUSTER", "FAILOVER"]);
    let owner = nodes[4].port();
    eventually("the replica has taken over", async || {
        shards.cluster.owner_of(5_461).port() == owner || nodes[4].cli(&["ROLE"]).starts_with("master")
    })
    .await;
    let took = shards.all_deliver().await;
    let moved = async || (0..CHANNELS).all(|number| shards.sharded[number].gaps() <= 1);
    eventually("nobody is told twice", moved).await;
    caches(&shards.messaging, "after").await;
    outcome("CLUSTER FAILOVER", format_args!("all {CHANNELS} sharded channels deliver again after {took:?}"));
    assert!(took < BACK_WITHIN, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_while_they_are_used() {
    let mut shards = Shards::start().await;
    let to = shards.cluster.nodes()[2].port();
    let moved: Vec<usize> = (0..CHANNELS).filter(|number| shards.owner(*number) != to).take(20).collect();
    assert_eq!(moved.len(), 20);
    let slots: BTreeSet<u16> =
        moved.iter().map(|number| shards.cluster.slot_of(&shards.wire(*number))).collect();
    for slot in &slots {
        shards.cluster.migrate_slot(*slot, &shards.cluster.nodes()[2]);
    }
    let lost: Vec<bool> = (0..CHANNELS)
        .map(|it| slots.contains(&shards.cluster.slot_of(&shards.wire(it))) && moved.contains(&it))
        .collect();
    shards.recovered("20 slots moved", |number| lost[number]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_find_keys_in_a_slot_that_is_moving() {
    let cluster = Cluster::start();
    let messaging = place(&cluster.url()).messaging().await;
    let cache = messaging.cache("moving");
    let minute = Duration::from_secs(60);
    cache.set("{tag}.old", &1_u64, minute).await.unwrap();
    let key = format!("{}:moving:{{tag}}.old", messaging.config().cache_prefix);
    let slot = cluster.slot_of(&key);
    let from = cluster.owner_of(slot).port();
    let to = cluster.nodes().iter().take(3).find(|node| node.port() != from).unwrap();
    cluster.half_migrate_slot(slot, to);
    // What was moved is asked for at the new node, and removed there.
    assert_eq!(soon(cache.get::<u64>("{tag}.old")).await.unwrap(), Some(1));
    soon(cache.invalidate("{tag}.old")).await.unwrap();
    assert_eq!(soon(cache.get::<u64>("{tag}.old")).await.unwrap(), None);
    cluster.migrate_slot(slot, to);
    cache.set("{tag}.new", &2_u64, minute).await.unwrap();
    assert_eq!(cache.get::<u64>("{tag}.new").await.unwrap(), Some(2));
    assert_eq!(cache.invalidate_pattern("*").await.unwrap(), 1);
    assert_eq!(soon(cache.get::<u64>("{tag}.new")).await.unwrap(), None);
}
