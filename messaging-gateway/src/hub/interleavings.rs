//! Tests: whatever is published between two steps of beginning to listen, it comes once and in order, or it is known to have
//! been before.

use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use messaging_core::{Config, Retention};
use messaging_tests::{eventually, shared_redis, unique};
use serde_json::Value;

use super::*;
use crate::command::{After, Since};
use crate::connection::{Connection, Transport};
use crate::descriptor::SlowPolicy;
use crate::filter::Filter;
use crate::native::{Say, SayEvent};
use crate::outbox::Item;
use crate::protocol::Protocol;

/// More than any of these has steps.
const MOST_STEPS: usize = 200;

struct Bench {
    messaging: Messaging,
    hub: Arc<Hub>,
    channel: Arc<str>,
    published: u64,
}

/// When something is published.
#[derive(Clone, Copy, Debug)]
enum When {
    BetweenAll,
    /// Only after so many steps.
    After(usize),
}

/// Says when a step can be taken.
#[derive(Default)]
struct Woken(tokio::sync::Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Plain,
    Durable,
    /// With what came after the second event, which the ring does not have.
    Resumed,
    /// The same, while others listen already.
    ResumedAmongOthers,
}

impl Bench {
    async fn new(url: &str, how: How) -> Self {
        let prefix = unique("join");
        let mut config = Config::new(url).unwrap();
        config.channel_prefix = format!("{prefix}.");
        config.namespace = prefix;
        let builder = Messaging::builder().config(config);
        let builder = match how {
            How::Plain => builder,
            _ => builder.durable("a", Retention::DEFAULT),
        };
        let messaging = builder.build().await.unwrap();
        let (metrics, limits) = (Arc::<Metrics>::default(), Limits::default());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let hub = Hub::new(messaging.clone(), metrics, limits, tasks, stop);
        Self { messaging, hub, channel: "a".into(), published: 0 }
    }

    async fn publish(&mut self) {
        let before = self.hub.metrics.events.read();
        self.published += 1;
        let heard = self.messaging.publish("a", &self.published).await.unwrap();
        // Until whoever listens by now has been told.
        let feed = lock(&self.hub.feeds).values().find_map(|cell| cell.get().cloned());
        match feed {
            Some(Running { feed, .. }) => {
                eventually("the stream is read", async || feed.lock().ring.number() >= self.published).await;
            }
            None if heard > 0 && self.is_open() => {
                eventually("it is heard", async || self.hub.metrics.events.read() > before).await;
            }
            None => {}
        }
    }

    /// Whether the channel is heard: what is heard before, waits.
    fn is_open(&self) -> bool {
        lock(&self.hub.topics).values().any(|slot| slot.initialized())
    }

    fn connection(&self) -> Arc<Connection> {
        Arc::new(Connection::new(fastrand::u64(..), Transport::WebSocket(Protocol::Native), &self.hub.limits))
    }

    async fn since(&self) -> Since {
        let stream = self.messaging.streams_of("a").await.unwrap().remove(0);
        let end = self.messaging.stream_end(&stream).await.unwrap();
        Since { epoch: end.epoch, after: After::Offset(end.position.to_string()) }
    }

    /// Joins step by step; returns how many steps that took, and how much had been published when it was done.
    async fn join(
        &mut self,
        connection: &Arc<Connection>,
        since: Option<&Since>,
        when: When,
    ) -> (usize, u64) {
        let (hub, channel, filter) = (Arc::clone(&self.hub), Arc::clone(&self.channel), Filter::default());
        let join = Join {
            connection,
            channel: &channel,
            filter: &filter,
            policy: SlowPolicy::Disconnect,
            resume: since,
            last: 0,
            must_recover: false,
        };
        let mut joining = pin!(hub.join(join, |outcome| {
            let place = outcome.place.as_ref().map(|place| place.say());
            let events = outcome.events.iter().map(SayEvent::of).collect();
            connection.say(&Say::Subscribed {
                id: 1,
                channel: &channel,
                place,
                recovered: outcome.recovered,
                expires_in_ms: None,
                events,
            });
        }));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        for step in 0..MOST_STEPS {
            if let Poll::Ready(joined) = joining.as_mut().poll(&mut Context::from_waker(&waker)) {
                assert!(matches!(joined.unwrap(), Joined::Now(..)));
                return (step, self.published);
            }
            match when {
                When::After(only) if only != step => {}
                _ => self.publish().await,
            }
            let woken = tokio::time::timeout(Duration::from_secs(30), woken.0.notified());
            woken.await.expect("there is a next step");
        }
        panic!("it takes more than {MOST_STEPS} steps");
    }
}

fn taken(connection: &Connection) -> Vec<Value> {
    let mut batch: Vec<Item> = Vec::new();
    connection.outbox.take(&mut batch, usize::MAX);
    let frames = batch.iter().flat_map(Item::frames);
    frames.map(|frame| serde_json::from_slice(frame.payload()).unwrap()).collect()
}

/// Returns how many steps there were.
async fn check(url: &str, how: How, when: When) -> usize {
    let mut bench = Bench::new(url, how).await;
    let mut since = None;
    if matches!(how, How::Resumed | How::ResumedAmongOthers) {
        for number in 1..=6 {
            bench.publish().await;
            if number == 2 {
                since = Some(bench.since().await);
            }
        }
    }
    let other = bench.connection();
    if how == How::ResumedAmongOthers {
        bench.join(&other, None, When::After(MOST_STEPS)).await;
    }
    let connection = bench.connection();
    let (steps, joined) = bench.join(&connection, since.as_ref(), when).await;
    for _ in 0..3 {
        bench.publish().await;
    }
    let last = bench.published;
    let mut told = Vec::new();
    eventually("the last one is told", async || {
        told.extend(taken(&connection));
        told.last().is_some_and(|message: &Value| message["data"] == last)
    })
    .await;
    let begun = told.remove(0);
    assert_eq!(begun["type"], "subscribed", "{how:?} {when:?}: the answer comes first");
    let past = begun["events"].as_array().cloned().unwrap_or_default();
    let numbers: Vec<u64> = past.iter().chain(&told).map(|event| event["data"].as_u64().unwrap()).collect();
    let first = match how {
        How::Plain => {
            // All that came afterwards; what came before is not known to have come.
            assert!(numbers[0] <= joined + 1, "{how:?} {when:?}: {numbers:?} after {joined}");
            numbers[0]
        }
        How::Durable => {
            let offset = begun["offset"].as_str().unwrap();
            offset.rsplit('.').next().unwrap().parse::<u64>().unwrap() + 1
        }
        How::Resumed | How::ResumedAmongOthers => {
            assert_eq!(begun["recovered"], true, "{how:?} {when:?}");
            3
        }
    };
    assert_eq!(numbers, (first..=last).collect::<Vec<_>>(), "{how:?} {when:?}");
    steps
}

async fn check_all(url: &str) {
    for how in [How::Plain, How::Durable, How::Resumed, How::ResumedAmongOthers] {
        let steps = check(url, how, When::BetweenAll).await;
        assert!(steps > 0 || url.starts_with("memory"), "{how:?} is done at once");
        for step in 0..steps {
            check(url, how, When::After(step)).await;
        }
    }
}

#[tokio::test]
async fn in_memory() {
    check_all(&format!("memory://{}", unique("join"))).await;
}

#[tokio::test]
async fn on_redis() {
    check_all(&shared_redis().url()).await;
}

#[tokio::test]
async fn a_channel_that_is_given_up_takes_nothing_from_the_one_that_follows() {
    let mut bench = Bench::new(&format!("memory://{}", unique("join")), How::Durable).await;
    let connection = bench.connection();
    bench.join(&connection, None, When::After(MOST_STEPS)).await;
    let feed = lock(&bench.hub.feeds).values().find_map(|cell| cell.get().cloned()).unwrap().feed;
    let new = lock(&bench.hub.topics).values().find_map(|slot| slot.get().cloned()).unwrap().topic.clone();
    // Somebody has come after it was decided, and before the stream was told.
    let old = Arc::new(Topic::new("a".into(), Source::Broadcast, Arc::clone(&bench.hub.metrics)));
    feed.remove(&old);
    bench.publish().await;
    eventually("it is told", async || taken(&connection).iter().any(|told| told["data"] == 1)).await;
    feed.remove(&new);
    assert!(feed.idle_since().is_some());
}
