//! The promises of the cache on several servers: a failover that loses what was acknowledged, and slots that move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use messaging_core::{Messaging, redis_cache};
use messaging_tests::{Cluster, RedisServer, Sentinel, eventually};
use serde_json::json;
use tokio::sync::Mutex;

use super::database::{Database, Source};
use super::history::{Entry, How, What, check};
use super::{clock, patient, row, row_name};
use crate::outcome;
use crate::place::{Place, soon};

const ROWS: u64 = 30;

fn place(url: &str) -> Place {
    let mut place = patient(url);
    place.config.connect_timeout = Duration::from_secs(2);
    place.config.command_timeout = Duration::from_secs(2);
    place.config.cache_timeout = Duration::from_secs(1);
    place.config.ping_after = Duration::from_millis(500);
    place
}

/// Makes a replica the master of nobody: what the old master takes from now on is not known to it. The sentinels leave it
/// so for some 8 seconds. Returns both.
fn fall_behind(sentinel: &Sentinel) -> (&RedisServer, &RedisServer) {
    let old = sentinel.master();
    let new = sentinel.servers().iter().find(|server| server.port() != old.port()).expect("there are three");
    new.cli(&["REPLICAOF", "NO", "ONE"]);
    (old, new)
}

/// Waits until this messaging's commands go to this server.
async fn has_moved(messaging: &Messaging, server: &RedisServer) {
    let cache = messaging.cache("moved");
    let moved = async || {
        let _ = cache.set("here", &1, Duration::from_secs(60)).await;
        server.cli(&["EXISTS", "moved:here"]) == "1"
    };
    eventually("commands go to the new master", moved).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_has_lost_invalidations_leaves_nothing_stale() {
    let (sentinel, server) = (Sentinel::start(), RedisServer::start());
    let place = place(&sentinel.url());
    let (messaging, other) = (place.messaging().await, place.messaging().await);
    let (_running, _other) = (messaging.start().await.unwrap(), other.start().await.unwrap());
    let database = Database::of(&server).await;
    let source = Source::new(&database);
    let read = async |id: u64| soon(messaging.scope(row(id, &source))).await;
    for id in 0..ROWS {
        eventually("the value is stored", async || {
            read(id).await;
            let has_it = |server: &RedisServer| server.cli(&["GET", &row_name(id)]) == "0";
            sentinel.servers().iter().all(has_it)
        })
        .await;
    }
    let (old, new) = fall_behind(&sentinel);
    for id in 0..ROWS {
        let version = database.write_one(&row_name(id)).await;
        match id % 2 {
            0 => messaging.scope(row::invalidate(id)).await.unwrap(),
            _ => _ = messaging.publish("cached.row", &json!({ "id": id })).await.unwrap(),
        }
        assert_eq!(read(id).await, version);
    }
    assert_eq!(old.cli(&["ROLE"]).lines().next(), Some("master"));
    let stale = || (0..ROWS).filter(|id| new.cli(&["GET", &row_name(*id)]) == "0").count();
    assert_eq!(stale(), ROWS as usize, "the one that takes over has heard of nothing");
    assert_eq!(sentinel.give_up_master().port(), new.port());
    has_moved(&messaging, new).await;
    eventually("nothing of it is left", async || stale() == 0).await;
    for id in 0..ROWS {
        assert_eq!(read(id).await, 1);
        eventually("the new value is stored", async || {
            assert_eq!(read(id).await, 1, "nobody brings the old value back");
            new.cli(&["GET", &row_name(id)]) == "1"
        })
        .await;
        assert_eq!(soon(other.scope(row(id, &source))).await, 1);
    }
    outcome("a failover that has lost invalidations", "what events invalidate is flushed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_voids_the_leases_of_running_loads() {
    let (sentinel, server) = (Sentinel::start(), RedisServer::start());
    let place = place(&sentinel.url());
    let messaging = place.messaging().await;
    let _running = messaging.start().await.unwrap();
    let database = Database::of(&server).await;
    let source = Source::new(&database);
    let ttl = Duration::from_secs(600);
    let call = || {
        let (cache, source) = (messaging.cache("hand"), source.clone());
        tokio::spawn(async move {
            let load = async { Ok::<u64, std::fmt::Error>(source.load("hand:1").await) };
            cache.get_or_load("1", ttl, load).await.unwrap()
        })
    };
    database.shut("hand:1").await;
    let leader = call();
    // No event concerns this value: nothing is flushed because of it.
    let has_lease = |server: &RedisServer| server.cli(&["EXISTS", "msg:lease:{hand:1}"]) == "1";
    eventually("everybody knows the lease", async || sentinel.servers().iter().all(has_lease)).await;
    eventually("it loads", async || database.loads("hand:1").await == 1).await;
    let (old, new) = fall_behind(&sentinel);
    let version = database.write_one("hand:1").await;
    messaging.cache("hand").invalidate("1").await.unwrap();
    assert!(!has_lease(old) && has_lease(new), "only the old master knows that the load was defeated");
    // It must not save us that the lease may run out before the load can renew it.
    new.cli(&["PEXPIRE", "msg:lease:{hand:1}", "8000"]);
    sentinel.give_up_master();
    has_moved(&messaging, new).await;
    assert!(has_lease(new));
    database.open("hand:1").await;
    assert_eq!(soon(leader).await.unwrap(), 0, "it had read the old version");
    // Whoever asks from now on gets the new one, and nobody finds the old one stored.
    eventually("the new value is stored", async || {
        assert_eq!(soon(call()).await.unwrap(), version);
        new.cli(&["GET", "hand:1"]) == version.to_string()
    })
    .await;
    outcome("a failover with a load that was defeated", "what it had loaded is not stored");
}

/// A service: only the handle of a method can remove all values of its function.
struct Grid;

impl Grid {
    #[redis_cache(key = "line:{id}", ttl = "10m", invalidate_on = ["cached.grid"])]
    async fn line(&self, id: u64, source: &Source) -> u64 {
        source.load(&line_name(id)).await
    }
}

fn line_name(id: u64) -> String {
    format!("line:{id}")
}

/// Readers and writers on a cluster whose slots move all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidations_find_their_keys_while_slots_move() {
    let (cluster, server) = (Arc::new(Cluster::start()), RedisServer::start());
    let place = place(&cluster.url());
    let (messaging, other) = (place.messaging().await, place.messaging().await);
    let (_running, _other) = (messaging.start().await.unwrap(), other.start().await.unwrap());
    let database = Database::of(&server).await;
    let source = Source::new(&database);
    let entries = Mutex::new(Vec::new());

    let done = Arc::new(AtomicBool::new(false));
    let moving = {
        let (cluster, done) = (Arc::clone(&cluster), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            let mut moves = 0;
            while !done.load(Ordering::SeqCst) {
                let slot = cluster.slot_of(&line_name(moves % ROWS));
                let from = cluster.owner_of(slot).port();
                let others = cluster.nodes().iter().take(3).filter(|node| node.port() != from);
                let to =
                    others.clone().nth(moves as usize / ROWS as usize % 2).expect("there are two others");
                cluster.migrate_slot(slot, to);
                moves += 1;
            }
            moves
        })
    };
    let reading = async {
        let mut id = 0;
        while !done.load(Ordering::SeqCst) {
            id = (id + 1) % ROWS;
            for (process, reader) in [(1, &messaging), (2, &other)] {
                let start = clock::now();
                let version = soon(reader.scope(Grid.line(id, &source))).await;
                let what = What::Read { row: line_name(id), version };
                entries.lock().await.push(Entry { process, start, end: clock::now(), what });
            }
        }
    };
    let writing = async {
        for round in 0..6 {
            for kind in 0..4 {
                let tell = Tell::new(kind, round);
                let note = Box::pin(write(&messaging, &database, tell)).await;
                entries.lock().await.extend(note);
            }
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(reading, writing);
    let moves = soon(moving).await.unwrap();
    let mut entries = entries.into_inner();
    entries.sort_by_key(|entry| entry.start);
    let verdict = check(&entries);
    assert!(verdict.violations.is_empty(), "{} reads: {}", verdict.violations.len(), verdict.violations[0]);
    assert!(verdict.failed_writes * 4 < verdict.writes, "most of them succeed: {verdict:?}");

    // An event that does not say which, and that of somebody else at some node.
    let settles = async |what: &str, version: u64| {
        eventually(what, async || {
            let mut fresh = true;
            for id in 0..ROWS {
                fresh &= soon(other.scope(Grid.line(id, &source))).await == version;
            }
            fresh
        })
        .await;
    };
    let rows: Vec<_> = (0..ROWS).map(line_name).collect();
    let version = *database.write(&rows).await.iter().max().unwrap();
    // All have the same version from here on.
    for name in &rows {
        while database.read(name).await < version {
            database.write_one(name).await;
        }
    }
    messaging.publish("cached.grid", &json!({ "which": "not said" })).await.unwrap();
    settles("an event that does not say which has its effect", version).await;
    database.write(&rows).await;
    let payload = json!({ "id": (0..ROWS).collect::<Vec<_>>() }).to_string();
    cluster.running().next().unwrap().cli(&["PUBLISH", "cached.grid", &payload]);
    settles("somebody else's event has its effect", version + 1).await;
    outcome(
        "slots that move",
        format_args!(
            "{} reads and {} writes, {} of which failed, during {moves} moves: none out of date",
            verdict.reads, verdict.writes, verdict.failed_writes
        ),
    );
}

/// How the cache is told of a write, and of which rows.
#[derive(Clone, Copy, Debug)]
enum Tell {
    Exact(u64),
    Family,
    Pattern,
    Event(u64),
}

impl Tell {
    fn new(kind: u64, round: u64) -> Self {
        match kind {
            0 => Self::Exact(round),
            1 => Self::Family,
            2 => Self::Pattern,
            _ => Self::Event(round),
        }
    }

    fn rows(self) -> Vec<u64> {
        match self {
            Self::Family | Self::Pattern => (0..ROWS).collect(),
            Self::Exact(round) => (0..ROWS).filter(|id| id % 6 == round).collect(),
            Self::Event(round) => (0..ROWS).filter(|id| id % 5 == round % 5).collect(),
        }
    }
}

async fn write(messaging: &Messaging, database: &Database, tell: Tell) -> Vec<Entry> {
    let ids = tell.rows();
    let names: Vec<_> = ids.iter().map(|id| line_name(*id)).collect();
    let start = clock::now();
    let versions = database.write(&names).await;
    let (how, succeeded) = match tell {
        Tell::Exact(_) => {
            let mut succeeded = Vec::new();
            for id in &ids {
                succeeded.push(soon(messaging.scope(Grid::line_cache().invalidate(*id))).await.is_ok());
            }
            (How::Invalidate, succeeded)
        }
        Tell::Family => {
            let done = soon(Box::pin(messaging.scope(Grid::line_cache().invalidate_all()))).await.is_ok();
            (How::Invalidate, vec![done; ids.len()])
        }
        Tell::Pattern => {
            let done = soon(messaging.cache("line").invalidate_pattern("*")).await.is_ok();
            (How::Invalidate, vec![done; ids.len()])
        }
        Tell::Event(_) => {
            let done =
                soon(async { messaging.publish("cached.grid", &json!({ "id": ids })).await }).await.is_ok();
            (How::Publish, vec![done; ids.len()])
        }
    };
    let end = clock::now();
    let entry = |((row, version), succeeded)| {
        // Nobody promises anything of a scan that has failed, not even to who asked.
        let how = if succeeded || !matches!(tell, Tell::Family | Tell::Pattern) { how } else { How::Unclear };
        Entry { process: 1, start, end, what: What::Write { row, version, how, succeeded } }
    };
    names.into_iter().zip(versions).zip(succeeded).map(entry).collect()
}
