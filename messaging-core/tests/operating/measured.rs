//! Each name, with its labels and its unit, after what it measures has happened; and no channel among the labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use messaging_core::{Backoff, Config, Messaging, Running};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata,
    SharedString, Unit, set_default_local_recorder,
};
use tokio::time::{sleep, timeout};

use super::*;

/// A recorder for the one thread on which a test runs.
struct Recorder {
    book: &'static Book,
    _installed: LocalRecorderGuard<'static>,
}

/// What was recorded, by name and labels, and what the names mean.
#[derive(Default)]
struct Book {
    values: Mutex<BTreeMap<String, Arc<Value>>>,
    units: Mutex<BTreeMap<String, Option<Unit>>>,
}

/// Of a counter or a gauge the value, of a histogram how many there were.
#[derive(Default)]
struct Value(Mutex<f64>);

impl CounterFn for Value {
    fn increment(&self, value: u64) {
        *self.0.lock().unwrap() += value as f64;
    }

    fn absolute(&self, value: u64) {
        *self.0.lock().unwrap() = value as f64;
    }
}

impl GaugeFn for Value {
    fn increment(&self, value: f64) {
        *self.0.lock().unwrap() += value;
    }

    fn decrement(&self, value: f64) {
        *self.0.lock().unwrap() -= value;
    }

    fn set(&self, value: f64) {
        *self.0.lock().unwrap() = value;
    }
}

impl HistogramFn for Value {
    fn record(&self, value: f64) {
        assert!(value >= 0.0);
        *self.0.lock().unwrap() += 1.0;
    }
}

impl Book {
    fn value(&self, key: &Key) -> Arc<Value> {
        assert!(self.units.lock().unwrap().contains_key(key.name()), "{} is described", key.name());
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.values.lock().unwrap().entry(name).or_default())
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>) {
        self.units.lock().unwrap().insert(name.as_str().to_owned(), unit);
    }
}

impl metrics::Recorder for Book {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.value(key))
    }
}

impl Recorder {
    fn install() -> Self {
        let book: &'static Book = Box::leak(Box::default());
        Self { book, _installed: set_default_local_recorder(book) }
    }

    /// What has been recorded, as `name{label=value,…}`.
    fn read(&self) -> BTreeMap<String, f64> {
        let values = self.book.values.lock().unwrap();
        values.iter().map(|(name, value)| (name.clone(), *value.0.lock().unwrap())).collect()
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.read().get(name).copied()
    }

    /// Waits until a value is there.
    async fn becomes(&self, name: &str, expected: f64) {
        let reached = async {
            while self.value(name) != Some(expected) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(Duration::from_secs(20), reached).await.is_err() {
            panic!("{name} is not {expected}: {:#?}", self.read());
        }
    }

    /// Whether these, and no others of their names, are as they should be.
    fn check(&self, expected: &[(&str, f64)]) {
        let read = self.read();
        let names: BTreeSet<_> = expected.iter().map(|(name, _)| name.split('{').next().unwrap()).collect();
        let found: Vec<_> = read
            .iter()
            .filter(|(name, _)| names.contains(name.split('{').next().unwrap()))
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        let mut expected = expected.to_vec();
        expected.sort_by(|a, b| a.0.cmp(b.0));
        assert_eq!(found, expected);
    }

    /// The unit of a name.
    fn unit(&self, name: &str) -> Option<Unit> {
        self.book.units.lock().unwrap()[name]
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_counted_by_template_and_calls_by_handler() {
    let recorder = Recorder::install();
    let test = start(&["listen"]).await;
    for (room, text) in [("7", "one"), ("7", "two"), ("8", "fail"), ("9", "panic")] {
        test.publish(&Chat { room: room.to_owned() }, &note(text)).await.unwrap();
    }
    test.publish("chat:10", &1).await.unwrap();
    test.publish("user:42", &1).await.unwrap();
    test.settled().await;
    recorder.check(&[
        ("pubsub.messages{channel=chat:{room},type=published}", 5.0),
        // The one that panics is tried three times, and taken up once.
        ("pubsub.messages{channel=chat:{room},type=received}", 5.0),
        ("pubsub.messages{channel=other,type=published}", 1.0),
        ("pubsub.subscribers{channel=chat:{room}}", 1.0),
        ("pubsub.processing.duration{channel=chat:{room},handler=listen}", 7.0),
        ("messaging.latency.receive{channel=chat:{room},handler=listen}", 5.0),
        ("messaging.latency.publish{channel=chat:{room},handler=listen}", 0.0),
        ("messaging.handler.outcomes{handler=listen,outcome=handled}", 2.0),
        ("messaging.handler.outcomes{handler=listen,outcome=failed}", 2.0),
        ("messaging.handler.outcomes{handler=listen,outcome=undecodable}", 1.0),
        ("messaging.handler.outcomes{handler=listen,outcome=mismatched}", 0.0),
        ("messaging.handler.outcomes{handler=listen,outcome=duplicate}", 0.0),
        ("messaging.handler.retries{handler=listen}", 2.0),
        ("messaging.handler.panics{handler=listen}", 3.0),
        ("messaging.handler.timeouts{handler=listen}", 0.0),
    ]);
    assert_eq!(recorder.unit("pubsub.messages"), Some(Unit::Count));
    assert_eq!(recorder.unit("pubsub.subscribers"), Some(Unit::Count));
    assert_eq!(recorder.unit("pubsub.processing.duration"), Some(Unit::Seconds));
    assert_eq!(recorder.unit("messaging.latency.receive"), Some(Unit::Seconds));
}

#[tokio::test(start_paused = true)]
async fn queues_tell_of_retries_dead_letters_and_lag() {
    let recorder = Recorder::install();
    let test = start(&["work"]).await;
    test.publish("jobs.mail", &note("fail")).durable().await.unwrap();
    test.publish("jobs.mail", &note("fine")).durable().await.unwrap();
    test.settled().await;
    recorder.check(&[
        ("messaging.handler.outcomes{handler=work,outcome=handled}", 1.0),
        ("messaging.handler.outcomes{handler=work,outcome=failed}", 1.0),
        ("messaging.handler.outcomes{handler=work,outcome=undecodable}", 0.0),
        ("messaging.handler.outcomes{handler=work,outcome=mismatched}", 0.0),
        ("messaging.handler.outcomes{handler=work,outcome=duplicate}", 0.0),
        ("messaging.handler.retries{handler=work}", 1.0),
        ("messaging.handler.dead_letters{handler=work}", 1.0),
        ("messaging.handler.taken_over{handler=work}", 0.0),
        ("messaging.handler.removed{handler=work}", 0.0),
        // From the publication, because the entry says when that was.
        ("messaging.latency.publish{channel=jobs.{kind},handler=work}", 2.0),
    ]);
    // The stream of a channel that nobody has declared has no name of its own.
    recorder.becomes("messaging.group.consumers{stream=other,group=workers}", 1.0).await;
    recorder.check(&[
        ("messaging.group.lag{stream=other,group=workers}", 0.0),
        ("messaging.group.pending{stream=other,group=workers}", 0.0),
        ("messaging.group.delayed{stream=other,group=workers}", 0.0),
        ("messaging.queue.depth{handler=work}", 0.0),
        ("messaging.queue.bytes{handler=work}", 0.0),
        ("messaging.handler.in_flight{handler=work}", 0.0),
        ("messaging.handlers{state=deaf}", 0.0),
        ("messaging.handlers{state=running}", 1.0),
        ("messaging.handlers{state=starting}", 0.0),
        ("messaging.handlers{state=stopped}", 0.0),
        ("messaging.ready{}", 1.0),
    ]);
    assert_eq!(recorder.unit("messaging.queue.bytes"), Some(Unit::Bytes));
}

#[tokio::test(start_paused = true)]
async fn caches_tell_of_hits_misses_loads_and_invalidations() {
    let recorder = Recorder::install();
    let test = start(&[]).await;
    test.scope(async {
        for _ in 0..3 {
            price("tea").await.unwrap();
        }
        test.publish("prices.tea", &1).await.unwrap();
        price("tea").await.unwrap();
        price::invalidate("tea").await.unwrap();
    })
    .await;
    recorder.check(&[
        ("messaging.cache.calls{function=price,result=hit}", 2.0),
        ("messaging.cache.calls{function=price,result=local_hit}", 0.0),
        ("messaging.cache.calls{function=price,result=miss}", 2.0),
        ("messaging.cache.calls{function=price,result=stale}", 0.0),
        ("messaging.cache.calls{function=price,result=uncached}", 0.0),
        ("messaging.cache.calls{function=(by hand),result=hit}", 0.0),
        ("messaging.cache.calls{function=(by hand),result=local_hit}", 0.0),
        ("messaging.cache.calls{function=(by hand),result=miss}", 0.0),
        ("messaging.cache.calls{function=(by hand),result=stale}", 0.0),
        ("messaging.cache.calls{function=(by hand),result=uncached}", 0.0),
        ("messaging.cache.loads{function=price}", 2.0),
        ("messaging.cache.loads{function=(by hand)}", 0.0),
    ]);
    assert_eq!(recorder.value("messaging.cache.invalidations{function=price,cause=publish}"), Some(1.0));
    assert_eq!(recorder.value("messaging.cache.invalidations{function=price,cause=call}"), Some(1.0));
    assert_eq!(recorder.value("messaging.cache.refused_stores{function=price}"), Some(0.0));
}

/// Ids that could only come from a concrete channel are in no label, however somebody came to listen or publish.
#[tokio::test(start_paused = true)]
async fn no_channel_of_somebody_becomes_a_label() {
    const ID: &str = "b7c1e2";
    let recorder = Recorder::install();
    let test = start(&["listen", "work"]).await;
    let user = format!("user:{ID}");
    let mut read = test.subscribe(&user).await.unwrap();
    let added = test.subscriber().on(&user, async |_: serde_json::Value| {}).await.unwrap();
    let queue = test.subscriber().id("mine").delivery(messaging_core::DeliveryMode::Queue);
    let queue = queue.on(&format!("user:{ID}:jobs"), async |_: serde_json::Value| {}).await.unwrap();
    test.publish(&user, &1).await.unwrap();
    test.publish(&format!("user:{ID}:jobs"), &1).durable().await.unwrap();
    test.publish(&Chat { room: ID.to_owned() }, &note(ID)).await.unwrap();
    test.publish(&format!("jobs.{ID}"), &note(ID)).durable().await.unwrap();
    read.get_message(None).await.unwrap();
    test.settled().await;
    recorder.becomes("messaging.group.consumers{stream=other,group=mine}", 1.0).await;
    recorder.check(&[
        ("pubsub.subscribers{channel=other}", 3.0),
        ("pubsub.subscribers{channel=chat:{room}}", 1.0),
        ("pubsub.subscribers{channel=jobs.{kind}}", 1.0),
    ]);
    added.stop().await;
    queue.stop().await;
    drop(read);
    let all = recorder.read();
    assert!(all.len() > 50, "{all:#?}");
    assert!(!all.keys().any(|name| name.contains(ID)), "{all:#?}");
    assert_eq!(all["pubsub.subscribers{channel=other}"], 0.0);
}

/// What only a server has; and what happens when the connection is lost.
#[tokio::test]
async fn a_server_tells_of_memory_round_trips_and_reconnects() {
    let recorder = Recorder::install();
    let redis = messaging_tests::RedisServer::start();
    let mut config = Config::new(&redis.url()).unwrap();
    config.ping_after = Duration::from_millis(50);
    config.reconnect = Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(10) };
    let messaging = Messaging::builder().config(config).handlers(Handlers::only(["listen"])).build().await;
    let running: Running = messaging.unwrap().start().await.unwrap();
    recorder.becomes("messaging.session.connected{session=subscriptions}", 1.0).await;
    recorder.becomes("messaging.redis.memory_limit{}", 0.0).await;
    assert!(recorder.value("messaging.redis.memory{}").unwrap() > 100_000.0);
    assert_eq!(recorder.unit("messaging.redis.memory"), Some(Unit::Bytes));
    assert!(recorder.value("messaging.round_trip{path=command}").unwrap() >= 1.0);
    assert_eq!(recorder.unit("messaging.round_trip"), Some(Unit::Seconds));
    let measured = async {
        while !["subscription", "delivery"].iter().all(|path| {
            recorder.value(&format!("messaging.round_trip{{path={path}}}")).is_some_and(|count| count > 0.0)
        }) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), measured).await.expect("pings and the cache's own messages come back");
    recorder.check(&[
        ("messaging.session.reconnects{session=subscriptions}", 0.0),
        ("messaging.session.reconnects{session=cache}", 0.0),
    ]);
    drop(redis);
    let away = running.messaging().publish("chat:7", &1).await.unwrap_err();
    let reason = format!("{:?}", away.kind()).to_lowercase();
    let failures = format!("messaging.publish.failures{{channel=chat:{{room}},reason={reason}}}");
    assert_eq!(recorder.value(&failures), Some(1.0));
    recorder.becomes("messaging.session.reconnects{session=subscriptions}", 1.0).await;
    recorder.becomes("messaging.ready{}", 0.0).await;
    let _ = running.shutdown(Duration::from_millis(100)).await;
}
