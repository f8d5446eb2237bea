//! Presence: who is there while processes, the server and the network go away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use messaging_core::{Messaging, Presence, PresenceChange, PresenceChanges};
use messaging_tests::{Cluster, Direction, Proxy, RedisServer, Sentinel, eventually};

use crate::place::{Place, soon};
use crate::{child, outcome};

/// Long enough for a machine that is busy with other tests, short enough to wait for.
const TTL: Duration = Duration::from_secs(3);
/// How much later than that it may be known that somebody has gone.
const MARGIN: Duration = Duration::from_secs(1);
const MEMBERS: usize = 10;
const NODES: &str = "msg:presence:node:*";
const HASH: &str = "msg:{chat:7}:presence";

fn place(url: &str) -> Place {
    let mut place = Place::at(url);
    place.config.channel_prefix.clear();
    "msg".clone_into(&mut place.config.namespace);
    place.config.presence_ttl = TTL;
    place.config.connect_timeout = Duration::from_secs(5);
    place.config.command_timeout = Duration::from_secs(1);
    place.config.ping_after = Duration::from_millis(500);
    place
}

async fn room(url: &str) -> (Messaging, Presence) {
    let messaging = place(url).messaging().await;
    let room = messaging.presence("chat:7");
    (messaging, room)
}

/// How often the server has carried out a command.
fn calls(redis: &RedisServer, command: &str) -> u64 {
    let info = redis.cli(&["INFO", "commandstats"]);
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

async fn users(room: &Presence) -> Vec<String> {
    room.members().await.map(|members| members.into_keys().collect()).unwrap_or_default()
}

/// Who watches all the time: what he was told, and who is there by that.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    lines: Vec<String>,
    there: BTreeMap<String, String>,
}

impl Watch {
    async fn on(room: &Presence) -> Self {
        let watch = Self::default();
        let mut changes: PresenceChanges = room.changes().await.unwrap();
        let entries = changes.entries();
        watch.0.lock().unwrap().there.extend(entries.into_iter().map(|(id, entry)| (id, entry.user)));
        let watched = Arc::clone(&watch.0);
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                watched.lock().unwrap().take(&change.unwrap());
            }
        });
        watch
    }

    fn users(&self) -> Vec<String> {
        let mut users: Vec<_> = self.0.lock().unwrap().there.values().cloned().collect();
        users.sort();
        users
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().lines.clone()
    }

    async fn sees(&self, users: &[&str]) {
        eventually(&format!("the watcher sees {users:?}"), async || self.users() == users).await;
    }
}

impl Watched {
    fn take(&mut self, change: &PresenceChange) {
        let (id, user) = (change.id().to_owned(), change.entry().user.clone());
        match change {
            PresenceChange::Joined { .. } => {
                self.lines.push(format!("{user} joined"));
                assert_eq!(self.there.insert(id, user), None, "who joins was not there: {:?}", self.lines);
            }
            PresenceChange::Left { .. } => {
                self.lines.push(format!("{user} left"));
                assert_eq!(self.there.remove(&id), Some(user), "who leaves was there: {:?}", self.lines);
            }
            _ => self.lines.push(format!("{user} updated")),
        }
    }
}

/// A process with members, until it is killed.
async fn be_there() {
    let (_messaging, room) = room(&child::url()).await;
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        members.push(room.join(&format!("user-{number}"), &number).await.unwrap());
    }
    println!("\njoined");
    std::future::pending::<()>().await;
}

#[test]
fn who_was_in_a_killed_process_has_gone_in_time() {
    const TEST: &str = "presence::who_was_in_a_killed_process_has_gone_in_time";
    if child::is(TEST) {
        return child::run(be_there());
    }
    child::run(async {
        let redis = RedisServer::start();
        let (_messaging, room) = room(&redis.url()).await;
        let _witness = room.join("witness", &0).await.unwrap();
        let watch = Watch::on(&room).await;
        let mut killed = child::start(TEST, &redis.url());
        killed.wait_for_line(|line| line == "joined");
        assert_eq!(users(&room).await.len(), 1 + MEMBERS);
        eventually("the watcher sees them", async || watch.users().len() == 1 + MEMBERS).await;
        killed.signal("KILL");
        let since = Instant::now();
        // Nobody else asks: what the watcher knows it has found out.
        watch.sees(&["witness"]).await;
        let took = since.elapsed();
        assert!(took < TTL + MARGIN, "{took:?}");
        assert_eq!(users(&room).await, ["witness"]);
        let removed = async || redis.cli(&["HLEN", HASH]) == "1";
        eventually("what they have left is removed", removed).await;
        outcome("SIGKILL", format!("gone after {took:.1?}, of {TTL:?}"));
    });
}

#[test]
fn who_was_in_a_killed_process_is_no_member_in_time() {
    const TEST: &str = "presence::who_was_in_a_killed_process_is_no_member_in_time";
    if child::is(TEST) {
        return child::run(be_there());
    }
    child::run(async {
        let redis = RedisServer::start();
        let (_messaging, room) = room(&redis.url()).await;
        let mut killed = child::start(TEST, &redis.url());
        killed.wait_for_line(|line| line == "joined");
        assert_eq!(users(&room).await.len(), MEMBERS);
        killed.signal("KILL");
        let since = Instant::now();
        eventually("nobody is there", async || users(&room).await.is_empty()).await;
        let took = since.elapsed();
        assert!(took < TTL + MARGIN, "{took:?}");
        eventually("nothing is left", async || redis.cli(&["EXISTS", HASH]) == "0").await;
    });
}

#[test]
fn a_process_that_stood_still_is_back() {
    const TEST: &str = "presence::a_process_that_stood_still_is_back";
    if child::is(TEST) {
        return child::run(be_there());
    }
    child::run(async {
        let redis = RedisServer::start();
        let (_messaging, room) = room(&redis.url()).await;
        let watch = Watch::on(&room).await;
        let mut still = child::start(TEST, &redis.url());
        still.wait_for_line(|line| line == "joined");
        eventually("the watcher sees them", async || watch.users().len() == MEMBERS).await;
        still.signal("STOP");
        watch.sees(&[]).await;
        eventually("nobody is there", async || users(&room).await.is_empty()).await;
        eventually("nothing is left", async || redis.cli(&["EXISTS", HASH]) == "0").await;
        still.signal("CONT");
        let since = Instant::now();
        eventually("all are there again", async || users(&room).await.len() == MEMBERS).await;
        let took = since.elapsed();
        assert!(took < TTL, "within one sign of life: {took:?}");
        eventually("the watcher sees them again", async || watch.users().len() == MEMBERS).await;
        outcome("SIGSTOP", format!("back after {took:.1?}"));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_flushall_all_are_there_again() {
    let redis = RedisServer::start();
    let (_messaging, there) = room(&redis.url()).await;
    let _members = [there.join("ada", &1).await.unwrap(), there.join("bob", &2).await.unwrap()];
    let (_other, room) = room(&redis.url()).await;
    let watch = Watch::on(&room).await;
    redis.cli(&["FLUSHALL"]);
    let since = Instant::now();
    assert!(users(&room).await.is_empty());
    eventually("both are there again", async || users(&room).await == ["ada", "bob"]).await;
    let took = since.elapsed();
    assert!(took < TTL, "within one sign of life: {took:?}");
    watch.sees(&["ada", "bob"]).await;
    // What only the hash has lost is found out in time too.
    redis.cli(&["DEL", HASH]);
    eventually("both are there once more", async || users(&room).await == ["ada", "bob"]).await;
    outcome("FLUSHALL", format!("back after {took:.1?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_data_changes_nothing_that_is_told() {
    let redis = RedisServer::start();
    let (_messaging, there) = room(&redis.url()).await;
    let _ada = there.join("ada", &1).await.unwrap();
    let leaving = there.join("bob", &2).await.unwrap();
    let (_other, room) = room(&redis.url()).await;
    let watch = Watch::on(&room).await;
    redis.stop();
    // He leaves while nobody can be told.
    assert!(soon(leaving.leave()).await.is_err());
    redis.start_again();
    let since = Instant::now();
    eventually("she is there again", async || users(&room).await == ["ada"]).await;
    let took = since.elapsed();
    watch.sees(&["ada"]).await;
    assert_eq!(watch.lines(), ["bob left"], "she has never left");
    outcome("a restart without data", format!("back after {took:.1?}"));
}

#[test]
fn a_restart_with_data_brings_nobody_back_who_has_gone() {
    const TEST: &str = "presence::a_restart_with_data_brings_nobody_back_who_has_gone";
    if child::is(TEST) {
        return child::run(be_there());
    }
    child::run(async {
        let redis = RedisServer::builder().arg("--appendonly", "yes").arg("--appendfsync", "always").start();
        let (_messaging, there) = room(&redis.url()).await;
        let _ada = there.join("ada", &1).await.unwrap();
        let leaving = there.join("bob", &2).await.unwrap();
        let (_other, room) = room(&redis.url()).await;
        let watch = Watch::on(&room).await;
        let mut killed = child::start(TEST, &redis.url());
        killed.wait_for_line(|line| line == "joined");
        eventually("the watcher sees them", async || watch.users().len() == 2 + MEMBERS).await;
        redis.stop();
        killed.signal("KILL");
        assert!(soon(leaving.leave()).await.is_err());
        redis.start_again();
        watch.sees(&["ada"]).await;
        eventually("only she is there", async || users(&room).await == ["ada"]).await;
        assert!(!watch.lines().contains(&"ada left".to_owned()), "{:?}", watch.lines());
        eventually("nothing else is left", async || redis.cli(&["HLEN", HASH]) == "1").await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_was_cut_off_yields_the_differences() {
    let redis = RedisServer::start();
    let (_messaging, there) = room(&redis.url()).await;
    let ada = there.join("ada", &1).await.unwrap();
    let bob = there.join("bob", &1).await.unwrap();
    // So that the watcher is away for a while.
    let mut place = place(&redis.url());
    place.config.reconnect.initial = Duration::from_millis(500);
    let messaging = place.messaging().await;
    let watch = Watch::on(&messaging.presence("chat:7")).await;
    for round in 1..=10 {
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        // There and away again: nobody needs to know.
        there.join("visitor", &1).await.unwrap().leave().await.unwrap();
        ada.update(&format!("{round}")).await.unwrap();
        let updates = || watch.lines().iter().filter(|line| *line == "ada updated").count();
        eventually("the update is told", async || updates() == round).await;
    }
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    bob.leave().await.unwrap();
    let _eve = there.join("eve", &1).await.unwrap();
    watch.sees(&["ada", "eve"]).await;
    let mut others: Vec<_> =
        watch.lines().into_iter().filter(|line| line.starts_with("bob") || line.starts_with("eve")).collect();
    others.sort();
    assert_eq!(others, ["bob left", "eve joined"], "each once");
    assert!(messaging.health().sessions[0].reconnects >= 11);
}

/// What has been given up on a connection arrives when the network is back, after what came later on another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_late_leaves_no_ghost() {
    const JOINS: u64 = 20;
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut place = place(&format!("redis://127.0.0.1:{}", proxy.port()));
    place.config.command_timeout = Duration::from_millis(500);
    let messaging = place.messaging().await;
    let there = messaging.presence("chat:7");
    let _ada = there.join("ada", &1).await.unwrap();
    let (_other, room) = room(&redis.url()).await;
    let watch = Watch::on(&room).await;
    proxy.strand(Direction::ToServer);
    let joins = (0..JOINS).map(|number| {
        let room = there.clone();
        tokio::spawn(async move { room.join(&format!("late-{number}"), &1).await.map(drop) })
    });
    for join in joins.collect::<Vec<_>>() {
        let error = soon(join).await.unwrap().unwrap_err();
        assert!(!error.is_not_sent(), "{error}");
    }
    eventually("they are removed, as far as they were there", async || calls(&redis, "hdel") >= JOINS).await;
    assert_eq!(users(&room).await, ["ada"]);
    proxy.heal().await;
    eventually("they arrive", async || calls(&redis, "hset") > JOINS).await;
    eventually("only she is left", async || redis.cli(&["HLEN", HASH]) == "1").await;
    watch.sees(&["ada"]).await;
    let ghosts = watch.lines().iter().filter(|line| line.ends_with("joined")).count();
    outcome("late joins", format!("{ghosts} of {JOINS} were seen for a while"));
}

/// Whoever is there stays there while another server takes over. Returns how long that took.
async fn nobody_leaves(url: &str, stop: impl FnOnce()) -> Duration {
    let (_messaging, there) = room(url).await;
    let ada = there.join("ada", &1).await.unwrap();
    let (_other, room) = room(url).await;
    let watch = Watch::on(&room).await;
    stop();
    let since = Instant::now();
    eventually("another server has taken over", async || ada.update(&2).await.is_ok()).await;
    let replaced = since.elapsed();
    let updated = async || {
        room.members().await.is_ok_and(|members| members.get("ada").is_some_and(|ada| ada.meta == 2))
    };
    eventually("she is there", updated).await;
    watch.sees(&["ada"]).await;
    ada.leave().await.unwrap();
    watch.sees(&[]).await;
    replaced
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_when_sentinel_replaces_the_master() {
    let sentinel = Sentinel::start();
    let promoted = nobody_leaves(&sentinel.url(), || sentinel.master().stop()).await;
    outcome("a failover", format!("there is another master after {promoted:.1?}, then she is there"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_when_a_primary_of_a_cluster_is_replaced() {
    let cluster = Cluster::start();
    nobody_leaves(&cluster.url(), || cluster.owner_of(cluster.slot_of(HASH)).stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_there_costs_a_sign_of_life_and_no_more() {
    let redis = RedisServer::start();
    let (messaging, there) = room(&redis.url()).await;
    let mut members = Vec::new();
    for number in 0..100 {
        members.push(messaging.presence(&format!("chat:{number}")).join("ada", &1).await.unwrap());
    }
    let _watch = Watch::on(&there).await;
    let commands = || {
        let info = redis.cli(&["INFO", "commandstats"]);
        let calls = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let relevant = !matches!(name, "info" | "ping" | "hget" | "pexpire" | "hkeys");
            relevant.then(|| rest.split(',').next()?.parse::<u64>().ok()).flatten()
        };
        info.lines().filter_map(calls).sum::<u64>()
    };
    let (beats, before) = (calls(&redis, "set"), commands());
    eventually("ten signs of life", async || calls(&redis, "set") >= beats + 10).await;
    let cost = commands() - before;
    // One beat and a tenth of the channels each time, and a question for the one node now and then.
    assert!(cost <= 10 * (1 + 10 + 4) + 20, "{cost} commands in ten beats");
    assert_eq!(redis.cli(&["KEYS", NODES]).lines().count(), 1);
    drop(members);
    let quiet = async || redis.cli(&["KEYS", NODES]).is_empty();
    eventually("nobody shows anything when nobody is there", quiet).await;
    outcome("100 channels", format!("{cost} commands in ten beats"));
}
