//! Whatever happens between a client and its channel: what it has received is what was published, once and in order, or it
//! was told that something may be missing.

use std::num::NonZeroU64;

use messaging_core::Retention;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use serde_json::{Value, json};

use super::client::{Client, Served};
use super::on_memory_and_redis;
use crate::place::{Place, on_backend};

on_memory_and_redis! {
    nothing_is_lost_where_nothing_is_removed
    nothing_is_lost_silently_where_something_is_removed
}
on_backend! { cluster nothing_is_lost_where_nothing_is_removed }

#[derive(Clone, Debug)]
enum Step {
    Publish(u64),
    /// On another channel of the same stream.
    Noise(u64),
    /// Goes without a word.
    Cut,
    Unsubscribe,
    /// Comes back, to the gateway of this number.
    Resume(usize),
    /// Reads so many events that are there.
    Read(u64),
    /// The gateway of this number is another one from now on.
    Replace(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u64..40).prop_map(Step::Publish),
        2 => (1_u64..150).prop_map(Step::Noise),
        2 => Just(Step::Cut),
        1 => Just(Step::Unsubscribe),
        4 => (0_usize..2).prop_map(Step::Resume),
        3 => (1_u64..20).prop_map(Step::Read),
        1 => (0_usize..2).prop_map(Step::Replace),
    ];
    prop::collection::vec(step, 1..14)
}

/// One who wants to see every number.
struct Reader {
    client: Option<Client>,
    is_subscribed: bool,
    place: Value,
    /// The last number that was seen.
    seen: u64,
    /// What was not seen, and was said to be missing.
    may_be_missing: bool,
}

impl Reader {
    fn see(&mut self, event: &Value) {
        let number = event["data"].as_u64().unwrap();
        if self.may_be_missing {
            assert!(number > self.seen, "{number} comes again, after {}", self.seen);
        } else {
            assert_eq!(number, self.seen + 1, "the next after {}", self.seen);
        }
        (self.seen, self.may_be_missing) = (number, false);
        self.place["offset"] = event["offset"].clone();
    }

    /// Takes up what comes next.
    async fn read(&mut self, allows_gaps: bool) {
        let message = self.client.as_mut().unwrap().next().await;
        self.take_up(&message, allows_gaps);
    }

    fn take_up(&mut self, message: &Value, allows_gaps: bool) {
        match message["type"].as_str().unwrap() {
            "event" => self.see(message),
            "position" => self.place["offset"] = message["offset"].clone(),
            "gap" if allows_gaps => {
                self.may_be_missing = true;
                for part in ["epoch", "offset"] {
                    if message[part].is_string() {
                        self.place[part] = message[part].clone();
                    }
                }
            }
            _ => panic!("{message}"),
        }
    }

    async fn resume(&mut self, served: &Served, allows_gaps: bool) {
        if self.is_subscribed {
            return;
        }
        let mut client = match self.client.take() {
            Some(client) => client,
            None => served.client("ada").await,
        };
        let mut subscribe = json!({ "channel": "kept.a" });
        if self.place["epoch"].is_string() {
            subscribe["resume"] = self.place.clone();
        }
        let begun = client.subscribe(subscribe).await;
        match begun["recovered"].as_bool() {
            Some(true) => {}
            Some(false) => {
                assert!(allows_gaps, "everything is still there: {begun}");
                assert_eq!(begun["events"], Value::Null);
                self.may_be_missing = true;
            }
            None => assert_eq!(self.place["epoch"], Value::Null),
        }
        for event in begun["events"].as_array().cloned().unwrap_or_default() {
            self.see(&event);
        }
        self.place = json!({ "epoch": begun["epoch"], "offset": begun["offset"] });
        (self.client, self.is_subscribed) = (Some(client), true);
    }
}

async fn holds(place: &Place, retention: Retention, steps: Vec<Step>, allows_gaps: bool) {
    let start = async || {
        // A name of its own for each case.
        let builder = place.builder().durable("kept.{name}", retention);
        Served::of(builder.build().await.unwrap(), |builder| builder).await
    };
    let mut gateways = [start().await, start().await];
    let publisher = place.builder().durable("kept.{name}", retention).build().await.unwrap();
    let mut reader = Reader {
        client: None,
        is_subscribed: false,
        place: json!({ "epoch": null, "offset": null }),
        seen: 0,
        may_be_missing: false,
    };
    reader.resume(&gateways[0], allows_gaps).await;
    let mut published = 0;
    // In the end one who comes back sees the rest.
    for step in steps.into_iter().chain([Step::Cut, Step::Publish(1), Step::Resume(0), Step::Publish(1)]) {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    published += 1;
                    publisher.publish("kept.a", &published).await.unwrap();
                }
            }
            Step::Noise(count) => {
                for number in 0..count {
                    publisher.publish("kept.noise", &number).await.unwrap();
                }
            }
            Step::Cut => (reader.client, reader.is_subscribed) = (None, false),
            Step::Unsubscribe if reader.is_subscribed => {
                let client = reader.client.as_mut().unwrap();
                let leave = json!({ "type": "unsubscribe", "channel": "kept.a" });
                assert_eq!(client.ask(leave).await["type"], "ok");
                for message in reader.client.as_mut().unwrap().take_aside() {
                    reader.take_up(&message, allows_gaps);
                }
                reader.is_subscribed = false;
            }
            Step::Unsubscribe => {}
            Step::Resume(which) => reader.resume(&gateways[which], allows_gaps).await,
            Step::Read(count) => {
                let until = (reader.seen + count).min(published);
                // Of what was lost nothing comes.
                while reader.is_subscribed && !reader.may_be_missing && reader.seen < until {
                    reader.read(allows_gaps).await;
                }
            }
            Step::Replace(which) => {
                gateways[which] = start().await;
                // Its connections end with it, as far as it served them.
                (reader.client, reader.is_subscribed) = (None, false);
            }
        }
    }
    while reader.seen < published {
        reader.read(allows_gaps).await;
    }
    assert_eq!(reader.seen, published);
}

/// Runs cases on a place, each with names of its own.
fn check(place: &Place, cases: u32, max_len: u64, allows_gaps: bool) {
    let retention = Retention { max_len: NonZeroU64::new(max_len).unwrap(), ..Retention::DEFAULT };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 40, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let handle = tokio::runtime::Handle::current();
    let result = tokio::task::block_in_place(|| {
        runner.run(&steps(), |steps| {
            let mut place = place.clone();
            place.config.channel_prefix = format!("{}.", messaging_tests::unique("case"));
            place.config.namespace = messaging_tests::unique("case");
            let case = async move { holds(&place, retention, steps, allows_gaps).await };
            handle
                .block_on(async { handle.spawn(case).await })
                .map_err(|error| TestCaseError::fail(error.to_string()))
        })
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => panic!("{reason} with {steps:?}"),
        Err(other) => panic!("{other}"),
    }
}

async fn nothing_is_lost_where_nothing_is_removed(place: Place) {
    check(&place, 8, 100_000, false);
}

async fn nothing_is_lost_silently_where_something_is_removed(place: Place) {
    check(&place, 12, 10, true);
}
