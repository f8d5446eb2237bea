//! Who leads a load may go away at any point: nobody waits for him, and nothing that is out of date stays behind.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use messaging_tests::{RedisServer, eventually};
use tokio::time::Instant;

use super::database::{Database, Source};
use super::{patient, row, row_name};
use crate::outcome;
use crate::place::soon;

/// Polls a future as often as this at most, and then drops it; its output if it was done by then.
async fn at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // It would be dropped at the next wake; here it is dropped where it waits.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What is there when the leader begins.
#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    /// A value that is to be replaced.
    Refresh,
}

async fn gone_at_each_await(found: Found) {
    let (redis, server) = (RedisServer::start(), RedisServer::start());
    let (messaging, other) =
        (patient(&redis.url()).messaging().await, patient(&redis.url()).messaging().await);
    let (_running, _other) = (messaging.start().await.unwrap(), other.start().await.unwrap());
    let mut source = Source::new(&Database::of(&server).await);
    source.slow = |_| Duration::from_millis(1);
    let name = row_name(1);
    messaging.scope(row(1, &source)).await;
    other.scope(row(1, &source)).await;
    let (mut polls, mut done, mut longest) = (0, 0, Duration::ZERO);
    // How often it is polled differs a little from time to time: until it has been done a few times in a row.
    while done < 5 {
        polls += 1;
        messaging.scope(row::invalidate(1)).await.unwrap();
        if matches!(found, Found::Refresh) {
            messaging.scope(row(1, &source)).await;
            let stored = async || redis.cli(&["EXISTS", &name]) == "1";
            eventually("there is a value to replace", stored).await;
        }
        let led = match found {
            Found::Nothing => messaging.scope(at_most(polls, row(1, &source))).await,
            Found::Refresh => messaging.scope(at_most(polls, row::refresh(1, &source))).await,
        };
        done = if led.is_some() { done + 1 } else { 0 };
        // What it may have loaded and was about to store is out of date from here on.
        let version = source.database.write_one(&name).await;
        messaging.scope(row::invalidate(1)).await.unwrap();
        let begun = Instant::now();
        let here = Box::pin(messaging.scope(row(1, &source)));
        let there = Box::pin(other.scope(row(1, &source)));
        let both = soon(Box::pin(async { tokio::join!(here, there) })).await;
        longest = longest.max(begun.elapsed());
        assert_eq!(both, (version, version), "{found:?}: dropped after {polls} polls");
        eventually("the new value is stored", async || {
            assert_eq!(messaging.scope(row(1, &source)).await, version, "{found:?}: after {polls} polls");
            redis.cli(&["GET", &name]) == version.to_string()
        })
        .await;
    }
    assert!(polls > 8, "there are awaits to be dropped at: {polls}");
    outcome(
        "a leader goes away at each await",
        format_args!("{found:?}: {polls} polls, others wait {longest:?} at most"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_may_go_away_at_each_await() {
    Box::pin(gone_at_each_await(Found::Nothing)).await;
    Box::pin(gone_at_each_await(Found::Refresh)).await;
}

/// The same without an invalidation after it: whoever comes next is not kept waiting by a lease that nobody holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_away_leaves_no_lease_behind() {
    let (redis, server) = (RedisServer::start(), RedisServer::start());
    let (messaging, other) =
        (patient(&redis.url()).messaging().await, patient(&redis.url()).messaging().await);
    let (_running, _other) = (messaging.start().await.unwrap(), other.start().await.unwrap());
    let mut source = Source::new(&Database::of(&server).await);
    source.slow = |_| Duration::from_millis(1);
    messaging.scope(row(1, &source)).await;
    other.scope(row(1, &source)).await;
    let (mut polls, mut done) = (0, 0);
    while done < 5 {
        polls += 1;
        let version = source.database.write_one(&row_name(1)).await;
        messaging.scope(row::invalidate(1)).await.unwrap();
        let led = messaging.scope(at_most(polls, row(1, &source))).await;
        done = if led.is_some() { done + 1 } else { 0 };
        assert_eq!(soon(other.scope(row(1, &source))).await, version);
        // It is given back: the lease is not there for the rest of its time, nor renewed.
        let left = async || redis.cli(&["EXISTS", "msg:lease:{row:1}"]) == "0";
        let begun = Instant::now();
        eventually("there is no lease", left).await;
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "it was given back and did not expire: {polls} polls"
        );
    }
    outcome("a leader that goes away", format_args!("gives its lease back after each of {polls} polls"));
}
