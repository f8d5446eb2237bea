//! Events that nobody heard: what they have made out of date is not answered with afterwards. The programs are those of
//! `tests/outside/cached`, which differ in the functions that they have.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use serde_json::json;
use tokio::time::sleep;

use super::database::{Database, Source};
use super::history::{Entry, How, What, check};
use super::stalls::Stalls;
use super::{LAG, at, by_default, clock, row, row_name};
use crate::outcome;
use crate::programs::{Program, Programs, repository, target};

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let outside = repository().join("tests/outside");
    fs::copy(repository().join("Cargo.lock"), outside.join("Cargo.lock"))
        .expect("the lock file can be copied");
    Programs::build(&outside, &target().join("outside"), &["--package", "cached"])
});

const CHANNEL: &str = "things.changed";
const KEY: &str = "one:7";

fn start(redis: &RedisServer, program: &str, words: &[&str]) -> Program {
    let mut command = PROGRAMS.command(program);
    command.arg(redis.url()).args(words);
    Program::start(command)
}

/// A process that calls its function once while this version is in the database; what it was answered with.
fn read(redis: &RedisServer, program: &str, version: &str) -> String {
    let ended = start(redis, program, &["read", "7", version]).end();
    assert!(ended.status.success(), "{}", ended.complaints);
    let answer = ended.lines.iter().find_map(|line| line.strip_prefix("read "));
    answer.unwrap_or_else(|| panic!("{}\n{}", ended.lines.join("\n"), ended.complaints)).to_owned()
}

fn publish(redis: &RedisServer, program: &str, payload: &str) {
    let ended = start(redis, program, &["publish", CHANNEL, payload]).end();
    assert!(ended.status.success() && ended.lines == ["published"], "{}", ended.complaints);
}

/// A server that holds a value which a process loaded that has ended since.
async fn left_behind() -> RedisServer {
    let redis = RedisServer::start();
    // The first process that there is may have to look around before it stores anything.
    eventually("the value is stored", async || {
        assert_eq!(read(&redis, "one", "1"), "1");
        redis.cli(&["GET", KEY]) == "1"
    })
    .await;
    redis
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_ours_that_nobody_hears_has_its_effect() {
    let redis = left_behind().await;
    publish(&redis, "one", r#"{"id":7}"#);
    assert_eq!(redis.cli(&["EXISTS", KEY]), "0", "it is gone when publish returns");
    assert_eq!(read(&redis, "one", "2"), "2");
    outcome("nobody subscribed, an event of ours", "the first read is fresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_has_not_the_function_invalidates_too() {
    for program in ["none", "other"] {
        let redis = left_behind().await;
        publish(&redis, program, r#"{"id":7}"#);
        assert_eq!(redis.cli(&["EXISTS", KEY]), "0", "it is gone when publish returns: {program}");
        assert_eq!(read(&redis, "one", "2"), "2", "{program}");
    }
    outcome("the publisher has not the function", "the first read is fresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_event_that_nobody_hears_has_its_effect() {
    let redis = left_behind().await;
    assert_eq!(redis.cli(&["PUBLISH", CHANNEL, r#"{"id":7}"#]), "0", "nobody hears it");
    assert_eq!(read(&redis, "one", "2"), "2");
    outcome("nobody subscribed, somebody else's event", "the first read is fresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_function_of_the_same_event_covers_only_itself() {
    let redis = left_behind().await;
    let mut stays = start(&redis, "other", &["stay"]);
    stays.wait_for_line(|line| line == "ready");
    // Somebody hears it, and nobody who knows this function.
    assert_ne!(redis.cli(&["PUBLISH", CHANNEL, r#"{"id":7}"#]), "0");
    assert_eq!(read(&redis, "one", "2"), "2");
    outcome("another function of the same event is alive", "the first read is fresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_comes_while_another_one_listens_finds_what_it_has_stored() {
    // Coverage has a purpose: a deployment that starts its processes one after the other keeps its values.
    let redis = RedisServer::start();
    let _stays = {
        let mut stays = start(&redis, "one", &["stay"]);
        stays.wait_for_line(|line| line == "ready");
        stays
    };
    eventually("a value is stored", async || {
        read(&redis, "one", "1");
        redis.cli(&["GET", KEY]) == "1"
    })
    .await;
    // In the database there is another version by now, of which no event speaks.
    assert_eq!(read(&redis, "one", "2"), "1");
    assert_eq!(redis.cli(&["GET", KEY]), "1");
    outcome("a process comes while another one listens", "nothing is flushed");
}

/// The one process that listens has a subscription that leads nowhere.
async fn half_open(direction: Direction) {
    let (redis, server) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::before(redis.port()).await;
    let database = Database::of(&server).await;
    let messaging = by_default(&at(proxy.port())).messaging().await;
    let _running = messaging.start().await.unwrap();
    let source = Source::new(&database);
    let stalls = Stalls::watch();
    let name = row_name(1);
    let (mut entries, mut hits) = (Vec::new(), 0);
    let mut read = async || {
        let (start, begun) = (clock::now(), source.begun());
        let version = messaging.scope(row(1, &source)).await;
        hits += u64::from(source.begun() == begun);
        Entry { process: 1, start, end: clock::now(), what: What::Read { row: name.clone(), version } }
    };
    let stored = async |version: u64| redis.cli(&["GET", &name]) == version.to_string();
    eventually("the value is stored", async || {
        read().await;
        stored(0).await
    })
    .await;
    proxy.strand(direction);
    // Commands find a new connection at once, and use what is stored; events find none.
    let begun = clock::now();
    for round in 1..=3 {
        let start = clock::now();
        let version = database.write_one(&name).await;
        redis.cli(&["PUBLISH", "cached.row", &json!({ "id": 1 }).to_string()]);
        let what = What::Write { row: name.clone(), version, how: How::Foreign, succeeded: true };
        entries.push(Entry { process: 1, start, end: clock::now(), what });
        // Longer than anything that is out of date may be used, in steps that hold no assumption.
        let until = clock::now() + clock::nanos(LAG * round);
        while clock::now() < until {
            entries.push(read().await);
            sleep(Duration::from_millis(5)).await;
        }
    }
    proxy.heal().await;
    eventually("the last version is read and stored", async || {
        let entry = read().await;
        let last = matches!(entry.what, What::Read { version: 3, .. });
        entries.push(entry);
        last && stored(3).await
    })
    .await;
    entries.extend(stalls.all().into_iter().map(|(start, end)| Entry {
        process: 1,
        start,
        end,
        what: What::Stall,
    }));
    entries.sort_by_key(|entry| entry.start);
    let verdict = check(&entries);
    assert!(verdict.violations.is_empty(), "{} reads: {}", verdict.violations.len(), verdict.violations[0]);
    let took = Duration::from_nanos(clock::now() - begun);
    outcome(
        &format!("a half-open subscription, {direction:?}"),
        format_args!(
            "{} reads in {took:?}, {hits} of stored values, none out of date for too long",
            verdict.reads
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_hears_nothing_does_not_vouch_for_values() {
    half_open(Direction::ToClient).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_half_open_both_ways_does_not_vouch_for_values() {
    half_open(Direction::Both).await;
}
