//! How much one client may have and do, and what becomes of whoever wants more: it is answered or closed, and all others go on.

use std::time::Duration;

use futures_util::future::join_all;
use messaging_gateway::{Rate, Verb};
use serde_json::json;
use tokio_tungstenite::tungstenite::{self, Message};

use super::client::{Client, Events, Served, http};
use super::{Guard, Mood, on_memory_and_redis};
use crate::place::Place;

on_memory_and_redis! {
    who_says_nothing_is_closed
    an_identity_ends_unless_it_is_refreshed
    a_refresh_asks_about_each_subscription_again
    connections_are_counted
    subscriptions_are_counted
    commands_and_sends_have_a_rate_each
    what_is_too_large_or_too_deep_is_refused
    who_asks_for_much_and_reads_nothing_is_not_read_either
    who_does_not_answer_pings_is_closed
}

fn rate(burst: u32, per_second: u32) -> Rate {
    Rate { burst: burst.try_into().unwrap(), per_second: per_second.try_into().unwrap() }
}

async fn who_says_nothing_is_closed(place: Place) {
    let served = Served::limited(&place, |limits| limits.unauthenticated = Duration::from_millis(1)).await;
    let mut nobody = Client::connect(served.address).await;
    assert_eq!(nobody.closed().await, Some(3502));
    assert_eq!(served.metric("messaging_gateway_rejected_total{reason=\"stale\"}").await, 1);
    served.until_nobody().await;
}

async fn a_refresh_asks_about_each_subscription_again(place: Place) {
    let guard = Guard::default();
    let state = guard.clone();
    let served = Served::with(&place, |builder| builder.state(state)).await;
    let mut ada = served.client("ada").await;
    for channel in ["guarded:a", "camera.events"] {
        ada.subscribe(json!({ "channel": channel })).await;
    }
    let refresh = json!({ "type": "refresh", "token": "ada~3600000" });
    assert_eq!(ada.ask(refresh.clone()).await["type"], "ok");
    for channel in ["guarded:a", "camera.events"] {
        served.publish(channel, 1).await;
        assert_eq!(ada.data(1).await, [1], "what is allowed goes on");
    }
    guard.set(Verb::Subscribe, Some(Mood::Deny));
    assert_eq!(ada.ask(refresh).await["type"], "ok");
    let ended = ada.next_of("unsubscribed").await;
    assert_eq!((&ended["channel"], &ended["code"]), (&json!("guarded:a"), &json!(2000)));
    served.publish("camera.events", 2).await;
    assert_eq!(ada.data(1).await, [2]);
}

async fn an_identity_ends_unless_it_is_refreshed(place: Place) {
    let served = Served::at(&place).await;
    let (mut ada, mut bob) = (Client::connect(served.address).await, Client::connect(served.address).await);
    for client in [&mut ada, &mut bob] {
        let welcome = client.hello("ada~2000").await;
        assert!(welcome["expires_in_ms"].as_u64().unwrap() <= 2000, "{welcome}");
        client.subscribe(json!({ "channel": "camera.events" })).await;
    }
    let refreshed = ada.ask(json!({ "type": "refresh", "token": "ada~3600000" })).await;
    assert!(refreshed["expires_in_ms"].as_u64().unwrap() > 2000, "{refreshed}");
    assert_eq!(ada.ask(json!({ "type": "refresh", "token": "old" })).await["code"], 109);
    assert_eq!(bob.closed().await, Some(3005));
    served.publish("camera.events", 1).await;
    assert_eq!(ada.data(1).await, [json!(1)]);
    let mut old = Client::connect(served.address).await;
    old.say(json!({ "type": "hello", "token": "old" })).await;
    assert_eq!(old.closed().await, Some(3005));
    ada.say(json!({ "type": "refresh", "id": 9, "token": "wrong" })).await;
    assert_eq!(ada.closed().await, Some(3500));
    served.until_nobody().await;
}

async fn connections_are_counted(place: Place) {
    let served = Served::limited(&place, |limits| {
        limits.connections_per_user = 2.try_into().unwrap();
        limits.connections_per_address = 4.try_into().unwrap();
    })
    .await;
    let (first, second) = (served.client("ada").await, served.client("ada").await);
    let mut third = Client::connect(served.address).await;
    third.say(json!({ "type": "hello", "token": "ada" })).await;
    assert_eq!(third.closed().await, Some(3504));
    served.until_metric("messaging_gateway_connections", |count| count == 2).await;
    let others = (served.client("bob").await, served.client("eve").await);
    let refused = Client::try_connect(served.address, &[]).await.err().unwrap();
    assert!(matches!(&refused, tungstenite::Error::Http(answer) if answer.status() == 429), "{refused:?}");
    assert_eq!(http(served.address, "GET", "/events?channel=camera.events", &[]).await.status, 429);
    // Who goes leaves a place.
    drop((first, second, others));
    served.until_nobody().await;
    drop(join_all((0..2).map(|_| served.client("ada"))).await);
    served.until_nobody().await;

    let few = Served::limited(&place, |limits| limits.connections = 1.try_into().unwrap()).await;
    let _only = few.client("ada").await;
    let refused = Client::try_connect(few.address, &[]).await.err().unwrap();
    assert!(matches!(&refused, tungstenite::Error::Http(answer) if answer.status() == 429));
    assert_eq!(few.metric("messaging_gateway_rejected_total{reason=\"connections\"}").await, 1);
}

async fn subscriptions_are_counted(place: Place) {
    let served = Served::limited(&place, |limits| limits.subscriptions = 3.try_into().unwrap()).await;
    let mut ada = served.client("ada").await;
    for name in ["a", "b", "c"] {
        ada.subscribe(json!({ "channel": format!("kept.{name}") })).await;
    }
    let answer = ada.ask(json!({ "type": "subscribe", "channel": "kept.d" })).await;
    assert_eq!((&answer["code"], &answer["temporary"]), (&json!(106), &json!(false)));
    assert_eq!(ada.ask(json!({ "type": "unsubscribe", "channel": "kept.a" })).await["type"], "ok");
    ada.subscribe(json!({ "channel": "kept.d" })).await;
    let query = ["a", "b", "c", "d"].map(|name| format!("channel=kept.{name}")).join("&");
    let headers = [("Authorization", "Bearer ada")];
    assert_eq!(http(served.address, "GET", &format!("/events?{query}"), &headers).await.status, 400);
    assert_eq!(served.metric("messaging_gateway_subscriptions").await, 3);
}

async fn commands_and_sends_have_a_rate_each(place: Place) {
    let served = Served::limited(&place, |limits| {
        limits.commands = rate(3, 1);
        limits.sends = rate(2, 1);
    })
    .await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "kept.a" })).await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(ada.ask(json!({ "type": "history", "channel": "kept.a" })).await["code"].clone());
    }
    assert_eq!(codes[..2], [json!(null), json!(null)]);
    let too_many = ada.ask(json!({ "type": "unsubscribe", "channel": "kept.a" })).await;
    assert!(codes[2] == 111 || too_many["code"] == 111, "{codes:?} {too_many}");
    let mut sent = Vec::new();
    for _ in 0..6 {
        let answer = ada.ask(json!({ "type": "send", "channel": "kept.a", "data": 1 })).await;
        sent.push(answer["code"].as_u64());
    }
    assert_eq!(sent[..2], [None, None]);
    assert!(sent.contains(&Some(111)), "{sent:?}");
    let passed = sent.iter().filter(|code| code.is_none()).count();
    assert_eq!(ada.data(passed).await.len(), passed);
    // One who asks too often takes nothing from another.
    served.client("bob").await.subscribe(json!({ "channel": "kept.a" })).await;
}

async fn what_is_too_large_or_too_deep_is_refused(place: Place) {
    let served = Served::limited(&place, |limits| {
        limits.message = 1_000.try_into().unwrap();
        limits.depth = 8.try_into().unwrap();
    })
    .await;
    let mut witness = served.client("witness").await;
    witness.subscribe(json!({ "channel": "kept.a" })).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "kept.a" })).await;
    let nested = |depth: usize| {
        // The message itself is one level.
        let data = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"type":"send","id":70,"channel":"kept.a","data":{data}}}"#)
    };
    ada.say_text(&nested(9)).await;
    assert_eq!(ada.next_of("error").await["code"], 107);
    ada.say_text(&nested(8)).await;
    assert_eq!(ada.next_where(|message| message["id"] == 70).await["type"], "ok");
    let text = |size: usize| Message::text(" ".repeat(size));
    ada.say_raw(text(1_000)).await.unwrap();
    ada.ask(json!({ "type": "history", "channel": "kept.a" })).await;
    ada.say_raw(text(1_001)).await.unwrap();
    assert_eq!(ada.closed().await, Some(3501));
    let mut bob = served.client("bob").await;
    bob.say_raw(Message::binary(vec![0; 8])).await.unwrap();
    assert_eq!(bob.closed().await, Some(3501));
    // A second hello is one too many.
    let mut eve = served.client("eve").await;
    eve.say(json!({ "type": "hello", "token": "eve" })).await;
    assert_eq!(eve.closed().await, Some(3501));
    witness.next_of("event").await;
    served.publish("kept.a", 7).await;
    assert_eq!(witness.data(1).await, [json!(7)]);
}

async fn who_asks_for_much_and_reads_nothing_is_not_read_either(place: Place) {
    let served = Served::limited(&place, |limits| {
        limits.queue = 10_000.try_into().unwrap();
        limits.ping = Duration::from_millis(200);
        limits.pong = Duration::from_millis(200);
    })
    .await;
    let mut witness = Events::of(&served, "channel=camera.events", &[("Authorization", "Bearer bob")]).await;
    witness.next_of("subscribed").await;
    let mut ada = served.client("ada").await;
    // Each line has an answer, and none of them is read: soon there is no room for more.
    let nonsense = Message::text("1\n".repeat(20_000));
    while ada.try_say(nonsense.clone()).await {}
    served.until_metric("messaging_gateway_connections", |count| count == 1).await;
    served.publish("camera.events", 1).await;
    assert_eq!(witness.next_of("event").await.data["data"], 1);
}

async fn who_does_not_answer_pings_is_closed(place: Place) {
    let served = Served::limited(&place, |limits| {
        limits.ping = Duration::from_millis(10);
        limits.pong = Duration::from_millis(3_000);
    })
    .await;
    let (mut ada, mut bob) = (served.client("ada").await, served.client("bob").await);
    let answering = tokio::spawn(async move {
        for _ in 0..3 {
            ada.next_of("ping").await;
            ada.say(json!({ "type": "pong" })).await;
        }
        ada
    });
    assert_eq!(bob.next().await["type"], "ping");
    assert_eq!(bob.closed().await, Some(3012));
    answering.await.unwrap();
}
