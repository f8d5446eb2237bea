//! A channel that several streams carry: one offset tells where each of them is.

use std::collections::BTreeMap;

use messaging_core::{Durability, Retention};
use serde_json::{Value, json};

use super::client::{Client, Served};
use crate::place::{Place, on_each_backend};

const KEYS: u64 = 6;

on_each_backend! {
    what_was_missed_of_all_partitions_comes_once
    the_past_of_all_partitions_is_read_in_pages
}

async fn served(place: &Place) -> Served {
    let durability = Durability::from(Retention::DEFAULT).partitions(4.try_into().unwrap());
    let messaging = place.builder().durable("kept.{name}", durability).build().await.unwrap();
    Served::of(messaging, |builder| builder).await
}

/// Each key is in order; different keys may be in different streams.
async fn publish(served: &Served, numbers: std::ops::Range<u64>) {
    for number in numbers {
        for key in 0..KEYS {
            let event = json!({ "key": key, "number": number });
            served.messaging.publish("kept.a", &event).key(key.to_string()).await.unwrap();
        }
    }
}

/// What came of each key.
type Come = BTreeMap<u64, Vec<u64>>;

fn note(come: &mut Come, event: &Value) {
    let data = &event["data"];
    come.entry(data["key"].as_u64().unwrap()).or_default().push(data["number"].as_u64().unwrap());
}

fn all(numbers: std::ops::Range<u64>) -> Come {
    (0..KEYS).map(|key| (key, numbers.clone().collect())).collect()
}

fn count(come: &Come) -> usize {
    come.values().map(Vec::len).sum()
}

fn place_of(epoch: &Value, offset: &Value) -> Value {
    json!({ "epoch": epoch, "offset": offset })
}

/// Resumes, and hears everything until there is so much; returns each event's offset.
async fn resume(client: &mut Client, since: Value, come: &mut Come, until: usize) -> Vec<Value> {
    let begun = client.subscribe(json!({ "channel": "kept.a", "resume": since })).await;
    assert_eq!(begun["recovered"], true, "{begun}");
    let mut offsets = Vec::new();
    for event in begun["events"].as_array().into_iter().flatten() {
        note(come, event);
        offsets.push(event["offset"].clone());
    }
    while count(come) < until {
        let event = client.next_of("event").await;
        note(come, &event);
        offsets.push(event["offset"].clone());
    }
    offsets
}

async fn what_was_missed_of_all_partitions_comes_once(place: Place) {
    let served = served(&place).await;
    // So that there are streams.
    publish(&served, 0..1).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "kept.a" })).await;
    let streams = begun["offset"].as_str().unwrap().split(',').count();
    assert!(streams > 1, "{begun}");
    publish(&served, 1..10).await;
    let (mut come, mut last) = (Come::new(), begun["offset"].clone());
    while count(&come) < 25 {
        let event = ada.next_of("event").await;
        note(&mut come, &event);
        last = event["offset"].clone();
    }
    drop(ada);
    publish(&served, 10..20).await;

    // On from any event, each comes once, those of a key in order.
    let until = usize::try_from(19 * KEYS).unwrap();
    let mut ada = served.client("ada").await;
    let offsets = resume(&mut ada, place_of(&begun["epoch"], &last), &mut come, until).await;
    assert_eq!(come, all(1..20));
    for (number, offset) in offsets.iter().enumerate().step_by(20) {
        let (mut client, mut rest) = (served.client("ada").await, Come::new());
        let left = offsets.len() - number - 1;
        resume(&mut client, place_of(&begun["epoch"], offset), &mut rest, left).await;
        assert_eq!(count(&rest), left);
        assert!(rest.iter().all(|(key, numbers)| come[key].ends_with(numbers)), "{rest:?}");
    }
    // And what comes now.
    publish(&served, 20..21).await;
    while count(&come) < usize::try_from(20 * KEYS).unwrap() {
        note(&mut come, &ada.next_of("event").await);
    }
    assert_eq!(come, all(1..21));
}

async fn the_past_of_all_partitions_is_read_in_pages(place: Place) {
    let served = served(&place).await;
    publish(&served, 0..1).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "kept.a" })).await;
    publish(&served, 1..12).await;
    ada.data(usize::try_from(11 * KEYS).unwrap()).await;
    let (mut come, mut since) = (Come::new(), place_of(&begun["epoch"], &begun["offset"]));
    loop {
        let page =
            ada.ask(json!({ "type": "history", "channel": "kept.a", "since": since, "limit": 7 })).await;
        let events = page["events"].as_array().unwrap();
        events.iter().for_each(|event| note(&mut come, event));
        if events.len() < 7 {
            break;
        }
        since = place_of(&page["epoch"], &page["offset"]);
    }
    assert_eq!(come, all(1..12));
}
