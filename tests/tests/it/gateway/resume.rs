//! Coming back: what was missed comes once and in order, or it is said that something may be missing.

use std::num::NonZeroUsize;

use messaging_gateway::Limits;
use serde_json::{Value, json};

use super::client::{Client, Served};
use crate::place::{Place, on_each_backend};

on_each_backend! {
    what_was_missed_comes_once_and_in_order
    another_gateway_knows_as_much
    the_past_can_be_read
    what_is_imposed_holds_for_the_past
    nobody_is_told_half_of_it
    an_answer_is_not_larger_than_its_limit
}

fn numbers(events: &Value) -> Vec<u64> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| event["data"]["number"].as_u64().unwrap()).collect()
}

fn numbered(number: u64) -> Value {
    json!({ "number": number, "parity": if number.is_multiple_of(2) { "even" } else { "odd" } })
}

/// Publishes, and waits until the gateway has read it: what it has not comes as events after an answer.
async fn publish(served: &Served, channel: &str, which: std::ops::RangeInclusive<u64>) {
    let last = numbered(*which.end());
    for number in which {
        served.publish(channel, numbered(number)).await;
    }
    served.has_read(channel, &last).await;
}

fn place_of(message: &Value) -> Value {
    json!({ "epoch": message["epoch"], "offset": message["offset"] })
}

async fn what_was_missed_comes_once_and_in_order(place: Place) {
    let served = Served::at(&place).await;
    publish(&served, "kept.a", 1..=3).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "kept.a" })).await;
    assert_eq!((&begun["events"], &begun["recovered"]), (&Value::Null, &Value::Null));
    publish(&served, "kept.a", 4..=6).await;
    let mut last = begun["offset"].clone();
    for number in 4..=6 {
        let event = ada.next_of("event").await;
        assert_eq!(event["data"], numbered(number));
        last = event["offset"].clone();
    }
    drop(ada);
    publish(&served, "kept.b", 100..=150).await;
    publish(&served, "kept.a", 7..=20).await;

    let mut ada = served.client("ada").await;
    let resume = json!({ "epoch": begun["epoch"], "offset": last });
    let resumed = ada.subscribe(json!({ "channel": "kept.a", "resume": resume })).await;
    assert_eq!(resumed["recovered"], true);
    assert_eq!(numbers(&resumed["events"]), (7..=20).collect::<Vec<_>>());
    publish(&served, "kept.a", 21..=21).await;
    assert_eq!(ada.data(1).await, [numbered(21)]);
    // From the beginning of the subscription, and from one of the events that came with it.
    let mut bob = served.client("bob").await;
    let resumed = bob.subscribe(json!({ "channel": "kept.a", "resume": place_of(&begun) })).await;
    assert_eq!(numbers(&resumed["events"]), (4..=21).collect::<Vec<_>>());
    let resume = json!({ "epoch": begun["epoch"], "offset": resumed["events"][5]["offset"] });
    let mut eve = served.client("eve").await;
    let resumed = eve.subscribe(json!({ "channel": "kept.a", "resume": resume })).await;
    assert_eq!(numbers(&resumed["events"]), (10..=21).collect::<Vec<_>>());
}

async fn another_gateway_knows_as_much(place: Place) {
    let first = Served::at(&place).await;
    let mut ada = first.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "kept.a" })).await;
    // Of a channel without a stream one cannot say where one is.
    publish(&first, "kept.a", 1..=5).await;
    assert_eq!(ada.data(5).await, (1..=5).map(numbered).collect::<Vec<_>>());
    let second = Served::at(&place).await;
    let mut ada = second.client("ada").await;
    let resumed = ada.subscribe(json!({ "channel": "kept.a", "resume": place_of(&begun) })).await;
    assert_eq!((&resumed["recovered"], numbers(&resumed["events"])), (&json!(true), (1..=5).collect()));
    publish(&first, "kept.a", 6..=6).await;
    assert_eq!(ada.data(1).await, [numbered(6)]);
}

async fn the_past_can_be_read(place: Place) {
    let served = Served::at(&place).await;
    publish(&served, "kept.a", 1..=30).await;
    let mut ada = served.client("ada").await;
    let begun =
        ada.subscribe(json!({ "channel": "kept.a", "last": 5, "filters": { "parity": "even" } })).await;
    assert_eq!(numbers(&begun["events"]), [22, 24, 26, 28, 30]);
    let past = ada.ask(json!({ "type": "history", "channel": "kept.a", "limit": 3 })).await;
    assert_eq!((&past["type"], numbers(&past["events"])), (&json!("ok"), vec![28, 29, 30]));
    let since = json!({ "epoch": begun["epoch"], "offset": begun["events"][0]["offset"] });
    let past = ada.ask(json!({ "type": "history", "channel": "kept.a", "since": since, "limit": 4 })).await;
    assert_eq!(numbers(&past["events"]), [23, 24, 25, 26]);
    let more = json!({ "type": "history", "channel": "kept.a", "since": place_of(&past), "limit": 40 });
    let rest = ada.ask(more).await;
    assert_eq!(numbers(&rest["events"]), [27, 28, 29, 30]);
    assert_eq!(rest["offset"], begun["offset"]);
    let nowhere = json!({ "epoch": begun["epoch"], "offset": "5-5.5" });
    let past = ada.ask(json!({ "type": "history", "channel": "kept.a", "since": nowhere })).await;
    assert_eq!(past["code"], 112);
}

async fn what_is_imposed_holds_for_the_past(place: Place) {
    let served = Served::at(&place).await;
    publish(&served, "kept.a", 1..=6).await;
    let mut odd = served.client("odd").await;
    let begun = odd.subscribe(json!({ "channel": "kept.a", "last": 10 })).await;
    assert_eq!(numbers(&begun["events"]), [1, 3, 5]);
    let past = odd.ask(json!({ "type": "history", "channel": "kept.a" })).await;
    assert_eq!(numbers(&past["events"]), [1, 3, 5]);
    assert_eq!(
        odd.ask(json!({ "type": "update", "channel": "kept.a", "filters": { "parity": "even" } })).await["type"],
        "ok"
    );
    assert_eq!(odd.ask(json!({ "type": "update", "channel": "kept.a", "filters": {} })).await["type"], "ok");
    publish(&served, "kept.a", 7..=9).await;
    assert_eq!(odd.data(2).await, [numbered(7), numbered(9)]);
    let mut again = served.client("odd").await;
    let resumed = again.subscribe(json!({ "channel": "kept.a", "resume": place_of(&begun) })).await;
    assert_eq!((&resumed["recovered"], numbers(&resumed["events"])), (&json!(true), vec![7, 9]));
}

async fn an_answer_is_not_larger_than_its_limit(place: Place) {
    let mut limits = Limits::default();
    // An event is of about 70 bytes.
    limits.answer = NonZeroUsize::new(300).unwrap();
    let served = Served::with(&place, |builder| builder.limits(limits)).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "kept.a" })).await;
    publish(&served, "kept.a", 1..=10).await;
    ada.data(10).await;
    // In pages.
    let (mut since, mut all, mut pages) = (place_of(&begun), Vec::new(), 0);
    while all.len() < 10 {
        let page = ada.ask(json!({ "type": "history", "channel": "kept.a", "since": since })).await;
        all.extend(numbers(&page["events"]));
        (since, pages) = (place_of(&page), pages + 1);
    }
    assert_eq!((all, pages > 2), ((1..=10).collect(), true), "{pages}");
    // The newest.
    let last = ada.ask(json!({ "type": "history", "channel": "kept.a" })).await;
    let last = numbers(&last["events"]);
    assert!(last.len() < 10 && last.ends_with(&[9, 10]), "{last:?}");
    // What was missed comes all, or it is said that it does not.
    let mut bob = served.client("bob").await;
    let resumed = bob.subscribe(json!({ "channel": "kept.a", "resume": place_of(&begun) })).await;
    assert_eq!((&resumed["recovered"], &resumed["events"]), (&json!(false), &Value::Null));
    // One always fits.
    let large = json!({ "number": 11, "text": "x".repeat(400) });
    let before = place_of(&resumed);
    served.publish("kept.a", &large).await;
    served.has_read("kept.a", &large).await;
    let mut eve = served.client("eve").await;
    let resumed = eve.subscribe(json!({ "channel": "kept.a", "resume": before })).await;
    assert_eq!((&resumed["recovered"], numbers(&resumed["events"])), (&json!(true), vec![11]));
}

async fn nobody_is_told_half_of_it(place: Place) {
    let served = Served::at(&place).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "kept.a" })).await;
    publish(&served, "kept.a", 1..=3).await;
    let (epoch, offset) = (begun["epoch"].as_str().unwrap(), begun["offset"].as_str().unwrap());
    for (epoch, offset) in [
        ("another", offset),
        (epoch, ""),
        (epoch, "nonsense"),
        (epoch, "99999999999999-0.1"),
        (epoch, &format!("{offset},{offset}")),
    ] {
        let mut client = served.client("bob").await;
        let resume = json!({ "epoch": epoch, "offset": offset });
        let resumed = client.subscribe(json!({ "channel": "kept.a", "resume": resume })).await;
        assert_eq!((&resumed["recovered"], &resumed["events"]), (&json!(false), &Value::Null), "{resume}");
        assert_eq!(resumed["epoch"], begun["epoch"]);
    }
    // A channel that is not kept has nothing to resume from.
    let mut client = Client::connect(served.address).await;
    client.hello("ada").await;
    let resumed = client.subscribe(json!({ "channel": "camera.events", "resume": place_of(&begun) })).await;
    assert_eq!(
        resumed,
        json!({ "type": "subscribed", "id": 1, "channel": "camera.events", "recovered": false })
    );
}
