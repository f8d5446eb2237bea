//! A publisher that is not ours: numbered messages at its own pace, on a plain connection straight to the server; and
//! what somebody heard of them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use messaging_core::{ErrorKind, Subscription};
use messaging_tests::{RedisServer, eventually};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::place::soon;

/// The time between two messages. Nothing depends on how well it is kept.
const PACE: Duration = Duration::from_millis(5);

/// The number that will be published next: what is not smaller was published later.
#[derive(Clone, Default)]
pub struct Next(Arc<AtomicU64>);

impl Next {
    pub fn number(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Publishes 0, 1, 2, … until it is finished.
pub struct Stream {
    pub next: Next,
    mode: watch::Sender<Mode>,
    task: JoinHandle<BTreeSet<u64>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Flows,
    Rests,
    Ends,
}

impl Stream {
    pub fn start(redis: &RedisServer, channel: String, next: Next) -> Self {
        let client = Client::open(redis.url()).unwrap();
        let (mode, watched) = watch::channel(Mode::Flows);
        let task = tokio::spawn(publish(client, channel, next.clone(), watched));
        Self { next, mode, task }
    }

    /// Publishes nothing for a while.
    pub fn rest(&self) {
        self.mode.send_replace(Mode::Rests);
    }

    pub fn go_on(&self) {
        self.mode.send_replace(Mode::Flows);
    }

    /// The numbers that the server has taken.
    pub async fn finish(self) -> BTreeSet<u64> {
        self.mode.send_replace(Mode::Ends);
        soon(self.task).await.unwrap()
    }
}

/// A connection that waits as long as it takes: a paused server answers later.
pub async fn plain_connection(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
    let settings = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    client.get_multiplexed_async_connection_with_config(&settings).await
}

async fn publish(
    client: Client,
    channel: String,
    next: Next,
    mut mode: watch::Receiver<Mode>,
) -> BTreeSet<u64> {
    let mut taken = BTreeSet::new();
    let mut connection = None;
    loop {
        let now = *mode.wait_for(|mode| *mode != Mode::Rests).await.unwrap();
        if now == Mode::Ends {
            return taken;
        }
        sleep(PACE).await;
        if connection.is_none() {
            connection = plain_connection(&client).await.ok();
        }
        let Some(open) = &mut connection else { continue };
        // A number is used once, whatever becomes of it.
        let number = next.0.fetch_add(1, Ordering::SeqCst);
        let published: redis::RedisResult<u64> =
            redis::cmd("PUBLISH").arg(&channel).arg(number).query_async(open).await;
        match published {
            Ok(_) => _ = taken.insert(number),
            Err(_) => connection = None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Number(u64),
    /// A gap stands between the messages.
    Gap,
    /// A resync began when this was the next number to be published.
    Resync(u64),
}

/// What somebody heard, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Heard>>>);

impl Log {
    pub fn note(&self, heard: Heard) {
        self.0.lock().unwrap().push(heard);
    }

    pub fn entries(&self) -> Vec<Heard> {
        self.0.lock().unwrap().clone()
    }

    /// Reads a subscription until messaging ends.
    pub fn follow(&self, mut subscription: Subscription) {
        let log = self.clone();
        tokio::spawn(async move {
            loop {
                match subscription.get_message(None).await {
                    Ok(message) => log.note(Heard::Number(message.unwrap().json().unwrap())),
                    Err(error) if error.kind() == ErrorKind::Gap => log.note(Heard::Gap),
                    Err(error) => return assert_eq!(error.kind(), ErrorKind::Closed),
                }
            }
        });
    }

    /// The first number that was heard.
    pub fn first(&self) -> u64 {
        let log = self.entries();
        let first =
            log.iter().find_map(|heard| if let Heard::Number(number) = heard { Some(*number) } else { None });
        first.expect("something was heard")
    }

    /// Waits until this number or a later one has been heard.
    pub async fn reaches(&self, number: u64) {
        let reached = async || {
            let log = self.0.lock().unwrap();
            log.iter().rev().any(|heard| matches!(heard, Heard::Number(heard) if *heard >= number))
        };
        eventually(&format!("number {number} is heard"), reached).await;
    }

    /// Checks that numbers came in order and once, and that what is missing of `taken` is explained by the announced gaps,
    /// of which there are exactly so many. Returns how many are missing.
    #[track_caller]
    pub fn check(&self, who: &str, taken: &BTreeSet<u64>, gaps: usize) -> usize {
        let log = self.entries();
        let is_gap = |heard: &&Heard| matches!(heard, Heard::Gap);
        let is_resync = |heard: &&Heard| matches!(heard, Heard::Resync(_));
        let resyncs = log.iter().filter(is_resync).count();
        // The first resync is that of the start.
        let announced = log.iter().filter(is_gap).count() + resyncs.saturating_sub(1);
        assert_eq!(announced, gaps, "{who}: gaps in {log:?}");
        let mut missing = 0;
        let mut expected = 0;
        let mut gap_before = false;
        for (place, heard) in log.iter().enumerate() {
            match *heard {
                Heard::Gap => gap_before = true,
                Heard::Resync(_) => {}
                Heard::Number(number) => {
                    assert!(number >= expected, "{who}: {number} came late or twice in {log:?}");
                    let lost: Vec<_> = taken.range(expected..number).copied().collect();
                    if let Some(last) = lost.last() {
                        // A resync runs beside the first messages after the gap: it covers what was published before it began.
                        let mut later =
                            log[place..].iter().chain(log[..place].iter().rev().take_while(is_resync));
                        let covered = later.any(|heard| matches!(heard, Heard::Resync(next) if next > last));
                        assert!(
                            gap_before || covered,
                            "{who}: {lost:?} are missing without a gap in {log:?}"
                        );
                    }
                    missing += lost.len();
                    expected = number + 1;
                    gap_before = false;
                }
            }
        }
        let lost: Vec<_> = taken.range(expected..).collect();
        assert!(lost.is_empty(), "{who}: never heard {lost:?}");
        missing
    }
}
