//! Fifty that listen to one event of ours: they do not defeat each other's loads of what it has made out of date.

use std::time::Duration;

use futures_util::future::join_all;
use messaging_core::Messaging;
use messaging_tests::{RedisServer, eventually};
use serde_json::json;
use tokio::time::sleep;

use super::database::{Database, Source};
use super::{patient, row, row_name, stats};
use crate::{child, outcome};

const PROCESSES: u64 = 5;
const EACH: u64 = 10;
const ROUNDS: u64 = 10;
const KEY: u64 = 1;
/// Only its events count: somebody else's, which everybody obeys.
const OTHER: u64 = 2;
const DATABASE: &str = "RELOADS_DATABASE";
const NUMBER: &str = "RELOADS_PROCESS";

/// What a process does: all of its instances read all the time, and it says what all of them have heard.
async fn process() {
    let text = |name| std::env::var(name).expect("the parent has set it");
    let (database, number) = (Database::at(&text(DATABASE)).await, text(NUMBER));
    let source = Source::new(&database);
    let mut instances: Vec<(Messaging, _)> = Vec::new();
    for _ in 0..EACH {
        let messaging = patient(&child::url()).messaging().await;
        let running = messaging.start().await.unwrap();
        instances.push((messaging, running));
    }
    for (messaging, _) in &instances {
        let uses = async || {
            messaging.scope(row(KEY, &source)).await;
            stats(messaging, "row").hits > 0
        };
        eventually("it uses what is stored", uses).await;
    }
    database.arrive("ready").await;
    while database.said("phase").await.as_deref() != Some("end") {
        join_all(instances.iter().map(|(messaging, _)| messaging.scope(row(KEY, &source)))).await;
        let heard = instances
            .iter()
            .map(|(messaging, _)| stats(messaging, "row").invalidations.events)
            .min()
            .unwrap();
        database.say(&format!("heard/{number}"), &heard.to_string()).await;
        sleep(Duration::from_millis(1)).await;
    }
}

/// What all instances have counted of invalidations at the least.
async fn heard(database: &Database) -> Vec<u64> {
    let mut heard = Vec::new();
    for number in 0..PROCESSES {
        let said = database.said(&format!("heard/{number}")).await;
        heard.push(said.and_then(|said| said.parse().ok()).unwrap_or_default());
    }
    heard
}

#[test]
fn fifty_listeners_leave_a_reload_alone() {
    const TEST: &str = "cache::reloads::fifty_listeners_leave_a_reload_alone";
    if child::is(TEST) {
        return child::run(process());
    }
    child::run_here(async {
        let (redis, server) = (RedisServer::start(), RedisServer::start());
        let database = Database::of(&server).await;
        let start = |number: u64| {
            let (number, url) = (number.to_string(), server.url());
            child::start_with(TEST, &redis.url(), &[(NUMBER, &number), (DATABASE, &url)])
        };
        let processes: Vec<_> = (0..PROCESSES).map(start).collect();
        database.have_arrived("ready", PROCESSES).await;
        let publisher = patient(&redis.url()).messaging().await;
        let _running = publisher.start().await.unwrap();

        let mut most = 0;
        for round in 1..=ROUNDS {
            let (before, had) = (database.loads(&row_name(KEY)).await, heard(&database).await);
            let version = database.write_one(&row_name(KEY)).await;
            publisher.publish("cached.row", &json!({ "id": KEY })).await.unwrap();
            // What comes after it on the same connections: who has counted this has done with the other.
            redis.cli(&["PUBLISH", "cached.row", &json!({ "id": OTHER }).to_string()]);
            eventually("everybody has heard both", async || {
                heard(&database).await.iter().zip(&had).all(|(heard, had)| heard > had)
            })
            .await;
            let stored = async || redis.cli(&["GET", &row_name(KEY)]) == version.to_string();
            eventually("the new value is stored", stored).await;
            let loads = database.loads(&row_name(KEY)).await - before;
            assert!((1..=2).contains(&loads), "{loads} loads after event {round}");
            most = most.max(loads);
        }
        let loads = database.loads(&row_name(KEY)).await;
        // It stays: fifty readers go on, and nobody loads.
        let pass = heard(&database).await;
        redis.cli(&["PUBLISH", "cached.row", &json!({ "id": OTHER }).to_string()]);
        eventually("everybody has heard one more", async || {
            heard(&database).await.iter().zip(&pass).all(|(heard, had)| heard > had)
        })
        .await;
        assert_eq!(database.loads(&row_name(KEY)).await, loads);
        database.say("phase", "end").await;
        for process in processes {
            let ended = process.end();
            assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
        }
        outcome("fifty listeners", format_args!("{most} loads at most after each of {ROUNDS} events"));
    });
}
