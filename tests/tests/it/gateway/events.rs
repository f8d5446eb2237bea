//! Server-Sent Events: the same subscriptions, and coming back by `Last-Event-ID`.

use std::time::Duration;

use messaging_tests::eventually;
use serde_json::{Value, json};

use super::client::{Events, Served, http};
use crate::place::{Place, on_each_backend};

on_each_backend! {
    events_come_and_are_resumed
    several_channels_have_one_position
    errors_stand_in_their_place
    what_makes_no_sense_is_said_before
    silence_is_broken_by_comments
    who_does_not_read_is_let_go
}

const ADA: [(&str, &str); 1] = [("Authorization", "Bearer ada")];

async fn events_come_and_are_resumed(place: Place) {
    let served = Served::at(&place).await;
    let mut ada = Events::of(&served, "channel=kept.a&filters=%7B%22parity%22%3A%22odd%22%7D", &ADA).await;
    assert_eq!(ada.answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(ada.answer.header("cache-control"), Some("no-store"));
    let welcome = ada.next().await;
    assert_eq!((welcome.event.as_str(), &welcome.data["user"], welcome.id), ("welcome", &json!("ada"), None));
    let subscribed = ada.next().await;
    assert_eq!((subscribed.event.as_str(), &subscribed.data["id"]), ("subscribed", &json!(1)));
    assert!(subscribed.id.is_some());
    // Lines within a payload do not end it.
    served
        .messaging
        .publish("kept.a", &json!({ "parity": "odd", "text": "a\nb\n\nevent: x" }))
        .await
        .unwrap();
    served.publish("kept.a", json!({ "parity": "even" })).await;
    served.publish("kept.a", json!({ "parity": "odd", "n": 2 })).await;
    let first = ada.next().await;
    assert_eq!((first.event.as_str(), &first.data["data"]["text"]), ("event", &json!("a\nb\n\nevent: x")));
    let second = ada.next().await;
    assert_eq!(second.data["data"]["n"], 2);
    drop(ada);
    for number in 3..=5 {
        served.publish("kept.a", json!({ "parity": "odd", "n": number })).await;
    }
    served.has_read("kept.a", &json!({ "parity": "odd", "n": 5 })).await;
    // By the header, and by the query for those who cannot set one.
    let id = first.id.unwrap();
    let header = [ADA[0], ("Last-Event-ID", id.as_str())];
    let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for (query, headers) in [
        ("channel=kept.a".to_owned(), &header[..]),
        (format!("channel=kept.a&last_event_id={encoded}"), &ADA),
    ] {
        let mut ada = Events::of(&served, &query, headers).await;
        let resumed = ada.next_of("subscribed").await;
        assert_eq!(resumed.data["recovered"], true, "{}", resumed.data);
        let missed = resumed.data["events"].as_array().unwrap();
        let missed: Vec<_> = missed.iter().map(|event| event["data"]["n"].as_u64()).collect();
        assert_eq!(missed, [None, Some(2), Some(3), Some(4), Some(5)]);
        // What it says now is where it is, though no event came since.
        let headers = [ADA[0], ("Last-Event-ID", resumed.id.as_deref().unwrap())];
        let again = Events::of(&served, "channel=kept.a", &headers).await.next_of("subscribed").await;
        assert_eq!((&again.data["recovered"], &again.data["events"]), (&json!(true), &Value::Null));
    }
    for id in ["", "nonsense", "kept.a=x", "kept%2ea=x%2F0-0.0", "%ff=%ff,,=,"] {
        let headers = [ADA[0], ("Last-Event-ID", id)];
        let resumed = Events::of(&served, "channel=kept.a", &headers).await.next_of("subscribed").await;
        assert_ne!(resumed.data["recovered"], true, "{id}");
    }
}

async fn several_channels_have_one_position(place: Place) {
    let served = Served::at(&place).await;
    let query =
        "channel=kept.a&channel=kept.b&channel=camera.events&entity=Kept&params=%7B%22name%22%3A%22c%22%7D";
    let mut ada = Events::of(&served, query, &ADA).await;
    for _ in 0..4 {
        ada.next_of("subscribed").await;
    }
    for (channel, number) in [("kept.a", 1), ("kept.b", 2), ("kept.a", 3), ("kept.c", 4)] {
        served.publish(channel, number).await;
    }
    let mut last = None;
    for _ in 0..4 {
        let event = ada.next_of("event").await;
        last = event.id.or(last);
    }
    drop(ada);
    for (channel, number) in [("kept.c", 5), ("kept.b", 6), ("kept.a", 7)] {
        served.publish(channel, number).await;
        served.has_read(channel, &json!(number)).await;
    }
    served.publish("camera.events", 8).await;
    let headers = [ADA[0], ("Last-Event-ID", last.as_deref().unwrap())];
    let mut ada = Events::of(&served, query, &headers).await;
    for expected in [Some(7), Some(6), None, Some(5)] {
        let resumed = ada.next_of("subscribed").await.data;
        let missed = resumed["events"].as_array().map(|events| events[0]["data"].clone());
        assert_eq!(missed, expected.map(Value::from), "{resumed}");
        assert_eq!(resumed["recovered"].as_bool(), expected.map(|_| true), "{resumed}");
    }
}

async fn errors_stand_in_their_place(place: Place) {
    let served = Served::at(&place).await;
    let query = "channel=kept.secret&subscribe=%7B%22channel%22%3A%22kept.a%22%2C%22last%22%3A1%7D&channel=camera.events&\
                 channel=camera.events&entity=Nothing&channel=kept.a&_=1";
    served.publish("kept.a", 1).await;
    let mut ada = Events::of(&served, query, &ADA).await;
    ada.next_of("welcome").await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        let answer = ada.next().await;
        answers.push((answer.event, answer.data["id"].as_u64().unwrap(), answer.data["code"].as_u64()));
    }
    let event = |name: &str, id: u64, code: Option<u64>| (name.to_owned(), id, code);
    assert_eq!(
        answers,
        [
            event("error", 1, Some(103)),
            event("subscribed", 2, None),
            event("subscribed", 3, None),
            event("error", 4, Some(105)),
            event("error", 5, Some(103)),
            event("error", 6, Some(105)),
        ]
    );
    served.publish("camera.events", 2).await;
    assert_eq!(ada.next().await.data["data"], 2);
}

async fn what_makes_no_sense_is_said_before(place: Place) {
    let served = Served::at(&place).await;
    let deep = "%5B".repeat(40);
    for (query, reason) in [
        ("", "name what to subscribe to"),
        ("last=1", "name what to subscribe to"),
        ("channel=a&last=x", "`last` is not a number"),
        ("channel=%ff", "`channel` is not UTF-8"),
        ("channel=a&filters=1", "`filters` is not a JSON object"),
        ("channel=a&params=%7B%7D", "`params` go with one `entity`"),
        ("entity=A&entity=B&params=%7B%7D", "`params` go with one `entity`"),
        ("entity=Kept&params=%7B%22name%22%3Atrue%7D", "`params` are texts and numbers"),
        ("subscribe=%7B%7D", "either `entity` or `channel`"),
        ("subscribe=nonsense", "`subscribe` is not a JSON object"),
        (&format!("channel=a&filters={deep}"), "nested too deeply"),
    ] {
        let answer = http(served.address, "GET", &format!("/events?{query}"), &ADA).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(reason), "{query}: {}", answer.body);
    }
    for headers in [&[][..], &[("Authorization", "Bearer wrong")], &[("Authorization", "Bearer old")]] {
        assert_eq!(http(served.address, "GET", "/events?channel=camera.events", headers).await.status, 401);
    }
    served.until_nobody().await;
}

async fn silence_is_broken_by_comments(place: Place) {
    let served = Served::limited(&place, |limits| {
        limits.ping = Duration::from_millis(10);
        limits.pong = Duration::from_millis(10_000);
    })
    .await;
    let mut ada = Events::of(&served, "channel=camera.events", &ADA).await;
    ada.next_of("subscribed").await;
    for _ in 0..2 {
        assert_eq!(ada.next_or_end().await.unwrap().event, "", "a comment");
    }
    served.publish("camera.events", 1).await;
    assert_eq!(ada.next_of("event").await.data["data"], 1);
    drop(ada);
    served.until_nobody().await;
}

async fn who_does_not_read_is_let_go(place: Place) {
    let served = Served::limited(&place, |limits| {
        limits.queue = 100_000.try_into().unwrap();
        limits.ping = Duration::from_millis(2_000);
        limits.pong = Duration::from_millis(1_000);
    })
    .await;
    let mut slow = Events::of(&served, "channel=slow.disconnect", &ADA).await;
    slow.next_of("subscribed").await;
    let mut other = Events::of(&served, "channel=camera.events", &ADA).await;
    other.next_of("subscribed").await;
    let large = "x".repeat(50_000);
    eventually("it has not kept up", async || {
        served.publish("slow.disconnect", &large).await;
        served.metric("messaging_gateway_slow_total{policy=\"disconnect\"}").await == 1
    })
    .await;
    // It costs nobody anything any more, though its socket is still there.
    served.until_metric("messaging_gateway_subscriptions", |count| count == 1).await;
    served.publish("camera.events", 1).await;
    assert_eq!(other.next_of("event").await.data["data"], 1);
    let mut last = None;
    while let Some(sse) = slow.next_or_end().await {
        last = Some(sse);
    }
    assert_eq!(last.unwrap().data["code"], 3008);
    drop(other);
    served.until_nobody().await;
}
