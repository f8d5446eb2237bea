//! What holds on every database.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use messaging_core::{Messaging, Op};
use messaging_sql::sqlx::{self, Pool};
use messaging_sql::{Filter, Outbox, OutboxRelay, UnitOfWork};
use messaging_tests::{RedisServer, eventually, shared_redis};

use super::super::{Entry, TABLES, messaging, published};
use super::{Db, Home, NAME, pool};
use crate::place::{Place, soon};
use crate::{child, outcome};

const DATABASE: &str = "FAULTS_DATABASE";
const PREFIX: &str = "FAULTS_PREFIX";
const OUTBOX: &str = "FAULTS_OUTBOX";
const CRASH_AT: &str = "MESSAGING_CRASH_AT";

fn place(url: &str, prefix: &str) -> Place {
    let mut place = Place::at(url);
    place.config.channel_prefix = format!("{prefix}.");
    prefix.clone_into(&mut place.config.namespace);
    place
}

fn entry(id: i64, round: i64) -> Entry {
    Entry { id, round }
}

async fn begin(pool: &Pool<Db>, messaging: &Messaging, is_outbox: bool) -> UnitOfWork<'static, Db> {
    let work = UnitOfWork::begin(pool, messaging).await.unwrap();
    if is_outbox { work.with_outbox() } else { work }
}

/// Commits, rolls back, commits, and works off the outbox.
async fn work() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let is_outbox = variable(OUTBOX) == "yes";
    let pool = pool(&variable(DATABASE)).await;
    let messaging = messaging(&place(&child::url(), &variable(PREFIX))).await;
    println!("\nbegun");
    let mut first = begin(&pool, &messaging, is_outbox).await;
    first.create(&entry(1, 1)).await.unwrap();
    first.update(&entry(1, 2)).await.unwrap().unwrap();
    first.commit().await.unwrap();
    let mut never = begin(&pool, &messaging, is_outbox).await;
    never.create(&entry(2, 1)).await.unwrap();
    never.rollback().await.unwrap();
    let mut second = begin(&pool, &messaging, is_outbox).await;
    second.update(&entry(1, 3)).await.unwrap().unwrap();
    second.create(&entry(3, 1)).await.unwrap();
    second.commit().await.unwrap();
    if is_outbox {
        let relay = OutboxRelay::new(&pool).lease(Duration::from_millis(200));
        assert_eq!(relay.work_off(&messaging).await.unwrap(), 4);
    }
    println!("\nended");
    std::process::exit(0);
}

/// What should have been published, by what is in the table.
fn expected(rows: &[Entry]) -> Vec<Entry> {
    match rows {
        [] => vec![],
        [only] => {
            assert_eq!(*only, entry(1, 2));
            vec![entry(1, 1), entry(1, 2)]
        }
        both => {
            assert_eq!(both, [entry(1, 3), entry(3, 1)], "all of a unit of work, or nothing");
            vec![entry(1, 1), entry(1, 2), entry(1, 3), entry(3, 1)]
        }
    }
}

/// Lets a process die at every step on its way, one after the other.
fn dies_at_every_step(test: &str, is_outbox: bool) {
    let test = format!("{NAME}::{test}");
    if child::is(&test) {
        return child::run(work());
    }
    child::run(async {
        let redis = shared_redis();
        let mut outcomes: BTreeMap<usize, usize> = BTreeMap::new();
        let mut step = 0;
        loop {
            step += 1;
            let Some(home) = Home::new() else { return };
            let (database, prefix) = (home.address(), messaging_tests::unique("outbox"));
            let pool = pool(&database).await;
            sqlx::raw_sql(TABLES).execute(&pool).await.unwrap();
            messaging_sql::migrate(&pool).await.unwrap();
            let at = step.to_string();
            let outbox = if is_outbox { "yes" } else { "no" };
            let environment = [(DATABASE, &*database), (PREFIX, &prefix), (OUTBOX, outbox), (CRASH_AT, &at)];
            let ended = child::start_with(&test, &redis.url(), &environment).end();
            let died = !ended.lines.iter().any(|line| line == "ended");
            let messaging = messaging(&place(&redis.url(), &prefix)).await;
            if is_outbox {
                let relay = OutboxRelay::new(&pool).lease(Duration::from_millis(200));
                eventually("the outbox is empty", async || {
                    relay.work_off(&messaging).await.unwrap();
                    (Outbox::new(&pool).stats().await.unwrap().waiting == 0).then_some(())
                })
                .await;
            }
            let rows: Vec<Entry> =
                UnitOfWork::begin(&pool, &messaging).await.unwrap().list(Filter::all()).await.unwrap();
            let expected = expected(&rows);
            let published = published(&messaging).await;
            let mut ids: HashMap<&Entry, &str> = HashMap::new();
            let mut firsts = Vec::new();
            for (id, entry) in &published {
                assert!(expected.contains(entry), "step {step}: {entry:?} was published and never committed");
                match ids.insert(entry, id) {
                    None => firsts.push(entry.clone()),
                    Some(other) => assert_eq!(other, id, "step {step}: {entry:?} twice, under two ids"),
                }
            }
            if is_outbox {
                let of = |id: i64, entries: &[Entry]| -> Vec<Entry> {
                    entries.iter().filter(|entry| entry.id == id).cloned().collect()
                };
                for id in [1, 3] {
                    assert_eq!(
                        of(id, &firsts),
                        of(id, &expected),
                        "step {step}: what was committed, in order"
                    );
                }
            } else if !died {
                assert_eq!(firsts, expected);
            }
            pool.close().await;
            *outcomes.entry(expected.len()).or_default() += 1;
            if !died {
                break;
            }
        }
        assert_eq!(
            outcomes.keys().copied().collect::<Vec<_>>(),
            [0, 2, 4],
            "it died before, between and after"
        );
        let what = if is_outbox { "with the outbox" } else { "without an outbox" };
        outcome(
            &format!("{NAME}: death at each of {} steps {what}", step - 1),
            format_args!("nothing uncommitted was published; committed were {outcomes:?}"),
        );
    });
}

#[test]
fn what_was_committed_is_published_wherever_a_process_dies() {
    dies_at_every_step("what_was_committed_is_published_wherever_a_process_dies", true);
}

#[test]
fn without_an_outbox_a_death_undoes_no_commit_and_publishes_nothing_else() {
    dies_at_every_step("without_an_outbox_a_death_undoes_no_commit_and_publishes_nothing_else", false);
}

/// Rows and how often each is changed.
const ROWS: i64 = 100;
const ROUNDS: i64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_relays_lose_nothing_while_redis_is_restarted_twice() {
    let redis = RedisServer::builder().arg("--appendonly", "yes").arg("--appendfsync", "always").start();
    let Some(home) = Home::new() else { return };
    let database = home.address();
    let pool_of_writer = pool(&database).await;
    sqlx::raw_sql(TABLES).execute(&pool_of_writer).await.unwrap();
    messaging_sql::migrate(&pool_of_writer).await.unwrap();
    let place = place(&redis.url(), &messaging_tests::unique("outbox"));
    let mut relays = Vec::new();
    for _ in 0..4 {
        let messaging = messaging(&place).await;
        let relay = OutboxRelay::new(&pool(&database).await).batch(100.try_into().unwrap());
        let relay = relay.lease(Duration::from_secs(2)).poll_every(Duration::from_millis(20));
        messaging.attach(relay).unwrap();
        relays.push((messaging.start().await.unwrap(), messaging));
    }
    let writer = messaging(&place).await;
    let writing = tokio::spawn(async move {
        for round in 0..ROUNDS {
            let mut work = UnitOfWork::begin(&pool_of_writer, &writer).await.unwrap().with_outbox();
            for id in 0..ROWS {
                let entry = entry(id, round);
                if round == 0 {
                    work.create(&entry).await.unwrap();
                } else {
                    work.update(&entry).await.unwrap().unwrap();
                }
            }
            work.commit().await.unwrap();
        }
        // Of another transaction on the same row, by hand.
        let mut work = UnitOfWork::begin(&pool_of_writer, &writer).await.unwrap().with_outbox();
        work.capture(Op::Update, &entry(0, ROUNDS)).unwrap();
        work.commit().await.unwrap();
        pool_of_writer
    });
    let so_far = || {
        let of =
            |messaging: &Messaging| messaging.health().services[0].details["published"].as_u64().unwrap();
        relays.iter().map(|(_, messaging)| of(messaging)).sum::<u64>()
    };
    let all = (ROWS * ROUNDS + 1) as u64;
    for restart in 1..=2 {
        eventually("some are published", async || (so_far() > all * restart / 4).then_some(())).await;
        redis.stop();
        let unsound =
            async || relays.iter().any(|(_, messaging)| !messaging.health().is_ready()).then_some(());
        eventually("a relay has noticed", unsound).await;
        redis.start_again();
    }
    let pool = soon(writing).await.unwrap();
    eventually("everything is published", async || {
        (Outbox::new(&pool).stats().await.unwrap().waiting == 0).then_some(())
    })
    .await;

    let seen = messaging(&place).await;
    let published = published(&seen).await;
    let mut ids = HashMap::new();
    let mut last: HashMap<i64, i64> = HashMap::new();
    for (id, entry) in &published {
        if let Some(before) = ids.insert(id.clone(), entry.clone()) {
            assert_eq!(before, *entry, "an id is of one event");
            continue;
        }
        let before = last.insert(entry.id, entry.round);
        assert_eq!(entry.round, before.map_or(0, |before| before + 1), "row {} in order", entry.id);
    }
    assert_eq!(ids.len() as u64, all, "nothing is lost");
    let distinct: HashSet<_> = ids.values().map(|entry| (entry.id, entry.round)).collect();
    assert_eq!(distinct.len() as u64, all, "duplicates have the same id");
    outcome(
        &format!("{NAME}: four relays, {all} rows, Redis killed twice"),
        format_args!("all published, each row in order; {} published again", published.len() - ids.len()),
    );
    for (running, _) in relays {
        running.shutdown(Duration::from_secs(5)).await;
    }
}
