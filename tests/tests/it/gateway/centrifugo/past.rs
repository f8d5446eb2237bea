//! What was missed, and what is kept: it comes once and in order, or it is said that something may be missing.

use messaging_core::{Durability, Retention};
use messaging_tests::shared_redis;
use serde_json::{Value, json};

use super::Peer;
use crate::gateway::client::Served;
use crate::place::{Place, on_each_backend};

on_each_backend! {
    what_was_missed_comes_once_or_is_said_to_be_lost
    history_is_read_in_both_directions
    a_hole_lets_clients_subscribe_again
    what_several_streams_carry_is_told_and_cannot_be_recovered
}

async fn what_was_missed_comes_once_or_is_said_to_be_lost(place: Place) {
    let served = Served::at(&place).await;
    for number in 1..=3 {
        served.publish("kept.a", number).await;
    }
    served.has_read("kept.a", &json!(3)).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let begun = peer.subscribe(json!({ "channel": "kept.a" })).await;
    assert_eq!(begun["offset"], 3);
    drop(peer);
    // Another channel of the same stream takes numbers, too.
    for number in 4..=6 {
        served.publish("kept.a", number).await;
    }
    served.has_read("kept.a", &json!(6)).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let resume = |offset: u64, epoch: &Value| json!({ "channel": "kept.a", "recover": true, "offset": offset, "epoch": epoch });
    let again = peer.subscribe(resume(3, &begun["epoch"])).await;
    assert_eq!((&again["recovered"], &again["was_recovering"]), (&json!(true), &json!(true)), "{again}");
    let missed: Vec<_> = (4..=6).map(|number| json!({ "data": number, "offset": number })).collect();
    assert_eq!(again["publications"], json!(missed));
    assert_eq!((&again["offset"], &again["epoch"]), (&json!(6), &begun["epoch"]));
    served.publish("kept.a", 7).await;
    assert_eq!(peer.publication().await, json!({ "data": 7, "offset": 7 }));

    // From before the first, from the end, and from places that there are not.
    for (offset, epoch, expected) in [
        (0, begun["epoch"].clone(), Some(7)),
        (7, begun["epoch"].clone(), Some(0)),
        (70, begun["epoch"].clone(), None),
        (3, json!("another"), None),
    ] {
        peer.ask(json!({ "unsubscribe": { "channel": "kept.a" } })).await;
        let again = peer.subscribe(resume(offset, &epoch)).await;
        assert_eq!(again["was_recovering"], true);
        assert_eq!(again["recovered"] == true, expected.is_some(), "{offset}: {again}");
        let count = again["publications"].as_array().map_or(0, Vec::len);
        assert_eq!(count, expected.unwrap_or(0), "{offset}: {again}");
        assert_eq!(again["offset"], 7, "from here on it can be recovered again");
    }
    // Who wants nothing less is told so instead.
    peer.ask(json!({ "unsubscribe": { "channel": "kept.a" } })).await;
    let mut strict = resume(3, &json!("another"));
    strict["flag"] = 3.into();
    assert_eq!(peer.code(json!({ "subscribe": strict })).await, 112);
    peer.subscribe(json!({ "channel": "kept.a" })).await;
    // What is not kept cannot be recovered, and says so.
    let broadcast = json!({ "channel": "camera.events", "recover": true, "offset": 3, "epoch": "e" });
    assert_eq!(peer.subscribe(broadcast).await, json!({ "was_recovering": true }));
}

async fn history_is_read_in_both_directions(place: Place) {
    let served = Served::at(&place).await;
    for number in 1..=10 {
        served.publish("kept.a", number).await;
    }
    served.has_read("kept.a", &json!(10)).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let epoch = peer.subscribe(json!({ "channel": "kept.a" })).await["epoch"].clone();
    let since = |offset: u64| json!({ "offset": offset, "epoch": epoch });
    for (limit, since, reverse, expected) in [
        (0, None, false, vec![]),
        (3, None, false, vec![1, 2, 3]),
        (-1, None, false, (1..=10).collect()),
        (3, None, true, vec![10, 9, 8]),
        (3, Some(since(4)), false, vec![5, 6, 7]),
        (3, Some(since(4)), true, vec![3, 2, 1]),
        (9, Some(since(10)), false, vec![]),
    ] {
        let mut request = json!({ "channel": "kept.a", "limit": limit, "reverse": reverse });
        if let Some(since) = &since {
            request["since"] = since.clone();
        }
        let answer = peer.ask(json!({ "history": request })).await;
        let history = &answer["history"];
        let told: Vec<_> = history["publications"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["data"].as_u64().unwrap())
            .collect();
        assert_eq!(told, expected, "{request}");
        assert_eq!((&history["offset"], &history["epoch"]), (&json!(10), &epoch), "{request}");
    }
    for reverse in [false, true] {
        let since = json!({ "offset": 4, "epoch": "another" });
        let request = json!({ "channel": "kept.a", "limit": 3, "since": since, "reverse": reverse });
        assert_eq!(peer.code(json!({ "history": request })).await, 112);
    }
    peer.subscribe(json!({ "channel": "camera.events" })).await;
    assert_eq!(peer.code(json!({ "history": { "channel": "camera.events", "limit": 1 } })).await, 108);
}

async fn a_hole_lets_clients_subscribe_again(place: Place) {
    let mut place = place;
    place.config.max_payload = 2_000;
    let served = Served::at(&place).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    peer.subscribe(json!({ "channel": "kept.a" })).await;
    served.publish("kept.a", 1).await;
    assert_eq!(peer.publication().await["offset"], 1);
    // Another process publishes what is too large for this one.
    let mut other = place.clone();
    other.config.max_payload = 1 << 20;
    let foreign = other.builder().durable("kept.{name}", Retention::DEFAULT).build().await.unwrap();
    foreign.publish("kept.a", &"x".repeat(5_000)).await.unwrap();
    let told = peer.push("unsubscribe").await;
    assert_eq!((&told["channel"], &told["unsubscribe"]["code"]), (&json!("kept.a"), &json!(2500)));
    // Nothing comes after that, and it may begin again at once.
    foreign.publish("kept.a", &2).await.unwrap();
    served.has_read("kept.a", &json!(2)).await;
    let again =
        peer.subscribe(json!({ "channel": "kept.a", "recover": true, "offset": 1, "epoch": "?" })).await;
    assert_eq!(again["recovered"], Value::Null, "{again}");
    foreign.publish("kept.a", &3).await.unwrap();
    assert_eq!(peer.publication().await["data"], 3);
    drop(peer);
    served.until_nobody().await;
}

/// As after a failover to a replica that had not heard of the last entries: their numbers mean others then.
#[tokio::test]
async fn numbers_that_mean_other_events_than_before_are_not_gone_on_from() {
    let place = Place::redis();
    let served = Served::at(&place).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let begun = peer.subscribe(json!({ "channel": "kept.a" })).await;
    for number in 1..=10 {
        served.publish("kept.a", number).await;
        assert_eq!(peer.publication().await["offset"], number);
    }
    let keys = shared_redis().cli(&["KEYS", &format!("*{}*:n", place.config.namespace)]);
    shared_redis().cli(&["SET", keys.trim(), "4"]);
    for number in 11..=20 {
        served.publish("kept.a", number).await;
    }
    assert_eq!(peer.push("unsubscribe").await["unsubscribe"]["code"], 2500);
    served.has_read("kept.a", &json!(20)).await;
    let another = Served::at(&place).await;
    another.has_read("kept.a", &json!(20)).await;
    for served in [&served, &another] {
        let mut peer = Peer::connect(served.address, "ada").await;
        let resume = json!({ "channel": "kept.a", "recover": true, "offset": 10, "epoch": begun["epoch"] });
        let again = peer.subscribe(resume).await;
        assert_eq!((&again["recovered"], &again["offset"]), (&Value::Null, &json!(14)), "{again}");
        // From here on they are those that everybody knows.
        let resume = json!({ "channel": "kept.a", "recover": true, "offset": 14, "epoch": again["epoch"] });
        let mut peer = Peer::connect(served.address, "ada").await;
        assert_eq!(peer.subscribe(resume).await["recovered"], true);
    }
}

/// One number does not say where several streams are.
async fn what_several_streams_carry_is_told_and_cannot_be_recovered(place: Place) {
    let durability = Durability::from(Retention::DEFAULT).partitions(4.try_into().unwrap());
    let messaging = place.builder().durable("kept.{name}", durability).build().await.unwrap();
    let served = Served::of(messaging, |builder| builder).await;
    let publish = async |number: u64| {
        served.messaging.publish("kept.a", &number).key(number.to_string()).await.unwrap();
    };
    for number in 0..6 {
        publish(number).await;
    }
    let mut peer = Peer::connect(served.address, "ada").await;
    let begun =
        peer.subscribe(json!({ "channel": "kept.a", "recover": true, "offset": 1, "epoch": "e" })).await;
    assert_eq!((&begun["recoverable"], &begun["recovered"]), (&Value::Null, &Value::Null), "{begun}");
    assert_eq!(begun["was_recovering"], true, "{begun}");
    publish(0).await;
    assert_eq!(peer.publication().await, json!({ "data": 0 }));
    for reverse in [false, true] {
        let since = json!({ "offset": 1, "epoch": "e" });
        let request = json!({ "channel": "kept.a", "limit": 9, "since": since, "reverse": reverse });
        assert_eq!(peer.code(json!({ "history": request })).await, 112, "{reverse}");
    }
    let history = peer.ask(json!({ "history": { "channel": "kept.a", "limit": 9 } })).await;
    assert_eq!(history["history"]["publications"].as_array().unwrap().len(), 7, "{history}");
}
