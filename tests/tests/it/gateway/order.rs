//! While somebody publishes without a pause, others come, go, come back and change their filters: nobody misses an event,
//! gets one twice, or in another order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use messaging_gateway::{Limits, Rate};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::client::{Client, Served};
use crate::place::{Place, on_each_backend, soon};

on_each_backend! {
    every_subscription_begins_right_after_its_offset
    filters_change_between_two_events
}

const CLIENTS: u64 = 6;
const ROUNDS: u64 = 25;

fn unlimited(limits: &mut Limits) {
    let much = 100_000.try_into().unwrap();
    limits.commands = Rate { burst: much, per_second: much };
}

fn numbered(number: u64) -> Value {
    json!({ "n": number, "parity": if number.is_multiple_of(2) { "even" } else { "odd" } })
}

/// How many entries were before this offset: the stream carries nothing but what is counted.
fn number_of(offset: &Value) -> u64 {
    offset.as_str().unwrap().rsplit('.').next().unwrap().parse().unwrap()
}

fn number(event: &Value) -> u64 {
    let number = event["data"]["n"].as_u64().unwrap();
    assert_eq!(number_of(&event["offset"]), number);
    number
}

/// Publishes numbers until the work is done, never far ahead of one who reads them all; returns the last.
async fn publishing<T>(served: &Served, work: impl Future<Output = T>) -> (u64, T) {
    let is_over = Arc::new(AtomicBool::new(false));
    let ahead = Arc::new(Semaphore::new(10));
    let mut witness = served.client("witness").await;
    witness.subscribe(json!({ "channel": "kept.a" })).await;
    let publisher = {
        let (messaging, is_over, ahead) =
            (served.messaging.clone(), Arc::clone(&is_over), Arc::clone(&ahead));
        tokio::spawn(async move {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                ahead.acquire().await.unwrap().forget();
                number += 1;
                messaging.publish("kept.a", &numbered(number)).await.unwrap();
            }
            number
        })
    };
    let reader = tokio::spawn(async move {
        for expected in 1.. {
            assert_eq!(number(&next_event(&mut witness).await), expected);
            ahead.add_permits(1);
        }
    });
    let done = work.await;
    is_over.store(true, Ordering::Relaxed);
    let published = soon(publisher).await.unwrap();
    assert!(!reader.is_finished(), "somebody has seen everything");
    reader.abort();
    (published, done)
}

/// The next event of the channel; what else comes is an error.
async fn next_event(client: &mut Client) -> Value {
    loop {
        let message = client.next().await;
        match message["type"].as_str().unwrap() {
            "event" => return message,
            "ping" => client.say(json!({ "type": "pong" })).await,
            "position" => {}
            _ => panic!("{message}"),
        }
    }
}

/// The events that came before the last answer.
fn events_before(client: &mut Client) -> Vec<Value> {
    let mut before = client.take_aside();
    before.retain(|message| message["type"] == "event");
    before
}

async fn every_subscription_begins_right_after_its_offset(place: Place) {
    let served = Served::limited(&place, unlimited).await;
    let visitors = (0..CLIENTS).map(async |turn| {
        let mut client = served.client("ada").await;
        let mut last: Option<Value> = None;
        for round in 0..ROUNDS {
            let mut subscribe = json!({ "channel": "kept.a" });
            let is_resumed = last.is_some() && !(round + turn).is_multiple_of(3);
            if let (true, Some(last)) = (is_resumed, &last) {
                subscribe["resume"] = last.clone();
            }
            let begun = client.subscribe(subscribe).await;
            let first = begun["events"].as_array().cloned().unwrap_or_default();
            let before = match &last {
                Some(last) if is_resumed => {
                    assert_eq!(begun["recovered"], true, "{}", begun["recovered"]);
                    number_of(&last["offset"])
                }
                _ => number_of(&begun["offset"]),
            };
            let mut expected = before + 1;
            for event in &first {
                assert_eq!(number(event), expected);
                expected += 1;
            }
            assert_eq!(number_of(&begun["offset"]), expected - 1);
            let mut offset = begun["offset"].clone();
            for _ in 0..(round + turn) % 5 {
                let event = next_event(&mut client).await;
                assert_eq!(number(&event), expected);
                expected += 1;
                offset = event["offset"].clone();
            }
            last = Some(json!({ "epoch": begun["epoch"], "offset": offset }));
            if round.is_multiple_of(4) {
                drop(client);
                client = served.client("ada").await;
                continue;
            }
            // What came before the answer belongs to this subscription, and nothing after it.
            let answer = client.ask(json!({ "type": "unsubscribe", "channel": "kept.a" })).await;
            assert_eq!(answer["type"], "ok");
            for event in events_before(&mut client) {
                assert_eq!(number(&event), expected);
                expected += 1;
            }
        }
    });
    let (published, _) = publishing(&served, futures_util::future::join_all(visitors)).await;
    // And one who comes at the end sees all that is still there.
    let mut last = served.client("ada").await;
    let begun = last.subscribe(json!({ "channel": "kept.a", "last": 1_000 })).await;
    let events = begun["events"].as_array().unwrap();
    let expected = (published.saturating_sub(999).max(1)..=published).collect::<Vec<_>>();
    assert_eq!(events.iter().map(number).collect::<Vec<_>>(), expected);
}

async fn filters_change_between_two_events(place: Place) {
    let served = Served::limited(&place, unlimited).await;
    let all = json!({});
    let both = json!({ "parity": { "in": ["odd", "even"] } });
    let odd = json!({ "parity": "odd" });
    let even = json!({ "parity": "even" });
    let passes = |filter: &Value, number: u64| match filter["parity"].as_str() {
        Some("odd") => !number.is_multiple_of(2),
        Some(_) => number.is_multiple_of(2),
        None => true,
    };
    let visitors = (0..CLIENTS).map(async |turn| {
        let mut client = served.client("ada").await;
        let begun = client.subscribe(json!({ "channel": "kept.a" })).await;
        let mut filter = all.clone();
        // Every event after this one that passes has to come.
        let mut seen = number_of(&begun["offset"]);
        for round in 0..ROUNDS {
            let next = [&both, &odd, &all, &even][((round + turn) % 4) as usize].clone();
            let answer = client.ask(json!({ "type": "update", "channel": "kept.a", "filters": next })).await;
            assert_eq!(answer["type"], "ok");
            for event in events_before(&mut client) {
                let event = number(&event);
                assert!(passes(&filter, event), "{event} is not {filter}");
                assert_eq!(
                    (seen + 1..event).find(|missed| passes(&filter, *missed)),
                    None,
                    "{event} after {seen}"
                );
                seen = event;
            }
            let event = number(&next_event(&mut client).await);
            assert!(passes(&next, event), "{event} is not {next}");
            // The boundary is somewhere between: what passes both filters is not missed on either side of it.
            let missed = (seen + 1..event).find(|missed| passes(&filter, *missed) && passes(&next, *missed));
            assert_eq!(missed, None, "from {filter} to {next}: {event} after {seen}");
            let is_one = (seen..event).any(|at| {
                (seen + 1..=at).all(|number| !passes(&filter, number))
                    && (at + 1..event).all(|number| !passes(&next, number))
            });
            assert!(is_one, "from {filter} to {next}: {event} after {seen}");
            (seen, filter) = (event, next);
        }
    });
    publishing(&served, futures_util::future::join_all(visitors)).await;
}
