//! Who may do what: two users of each of two tenants, every verb, every channel. What is not allowed is told apart from
//! nothing, and nothing of it is seen.

use std::collections::BTreeSet;
use std::time::Duration;

use messaging_core::Retention;
use messaging_gateway::{Limits, Rate, Verb};
use serde_json::{Value, json};

use super::client::{Client, Served};
use super::{Guard, Mood};
use crate::place::{Place, on_each_backend};

on_each_backend! {
    everybody_sees_what_the_table_says
    what_is_allowed_can_change_at_any_time
    who_does_not_answer_denies
}

/// User and tenant.
const PEOPLE: [(&str, &str); 6] =
    [("ada", "acme"), ("bob", "acme"), ("eve", "evil"), ("odd", "evil"), ("root", "acme"), ("nobody", "")];

/// Every channel, and how an entity names it.
fn channels() -> Vec<(String, Option<Value>)> {
    let entity = |entity: &str, params: Value| Some(json!({ "entity": entity, "params": params }));
    let mut channels = vec![
        ("camera.events".to_owned(), entity("CameraEvents", json!({}))),
        ("camera.events.complex:7".to_owned(), entity("CameraEvents", json!({ "complex_id": 7 }))),
        ("kept.open".to_owned(), entity("Kept", json!({ "name": "open" }))),
        ("kept.secret".to_owned(), entity("Kept", json!({ "name": "secret" }))),
        ("tenants".to_owned(), None),
        ("nothing".to_owned(), entity("Nothing", json!({}))),
    ];
    channels.extend(PEOPLE.map(|(user, _)| (format!("auditlog:{user}"), None)));
    channels.extend(["acme", "evil"].map(|tenant| (format!("tenant:{tenant}:update"), None)));
    channels
}

fn may_see(user: &str, tenant: &str, channel: &str) -> bool {
    match channel.split(':').collect::<Vec<_>>()[..] {
        ["camera.events" | "camera.events.complex", ..] | ["kept.open"] => true,
        ["kept.secret"] => user == "root",
        ["tenants"] => !tenant.is_empty(),
        ["auditlog", of] => of == user,
        // Its events carry the tenant too.
        ["tenant", of, _] => of == tenant,
        _ => false,
    }
}

fn passes(user: &str, tenant: &str, channel: &str, data: &Value) -> bool {
    may_see(user, tenant, channel)
        && (!channel.starts_with("tenant") || data["tenant"] == tenant)
        && (user != "odd" || !channel.starts_with("kept") || data["parity"] == "odd")
}

async fn is_denied(client: &mut Client, message: Value) {
    let mut answer = client.ask(message.clone()).await;
    answer["id"].take();
    let denied = json!({ "type": "error", "id": null, "code": 103, "message": "permission denied", "temporary": false });
    assert_eq!(answer, denied, "{message}");
}

fn with(message: &Value, more: Value) -> Value {
    let mut message = message.clone();
    for (key, value) in more.as_object().unwrap() {
        message[key] = value.clone();
    }
    message
}

async fn everybody_sees_what_the_table_says(place: Place) {
    let served = Served::limited(&place, |limits: &mut Limits| {
        let much = 10_000.try_into().unwrap();
        limits.commands = Rate { burst: much, per_second: much };
        limits.sends = limits.commands;
    })
    .await;
    // Something that has been, for those who would see the past.
    let of = |tenant: &str, number: u64| {
        let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
        json!({ "tenant": tenant, "number": number, "parity": parity })
    };
    let events: Vec<Value> =
        ["acme", "evil"].iter().flat_map(|tenant| (1..=2).map(|number| of(tenant, number))).collect();
    for (channel, _) in channels() {
        for event in &events {
            served.publish(&channel, event).await;
        }
    }
    let mut clients = Vec::new();
    for (user, tenant) in PEOPLE {
        let token = if tenant.is_empty() { user.to_owned() } else { format!("{user}@{tenant}") };
        let mut client = served.client(&token).await;
        for (channel, entity) in channels() {
            let by_channel = json!({ "type": "subscribe", "channel": channel });
            let by_entity = entity.map(|entity| with(&entity, json!({ "type": "subscribe" })));
            let is_kept = channel.starts_with("kept.");
            let somewhere = json!({ "epoch": "e", "offset": "0-0.0" });
            // Without being subscribed, nothing can be done on any channel.
            for verb in ["update", "unsubscribe", "presence", "history", "send"] {
                let message = json!({ "type": verb, "channel": channel, "filters": {}, "data": 1 });
                is_denied(&mut client, message).await;
            }
            if !may_see(user, tenant, &channel) {
                for subscribe in std::iter::once(&by_channel).chain(&by_entity) {
                    for more in [
                        json!({}),
                        json!({ "last": 10 }),
                        json!({ "resume": somewhere }),
                        json!({ "presence": true }),
                        json!({ "filters": { "nothing": 1 } }),
                    ] {
                        is_denied(&mut client, with(subscribe, more)).await;
                    }
                }
                continue;
            }
            for subscribe in by_entity.iter().chain([&by_channel]) {
                let answer = client.ask(with(subscribe, json!({ "last": 10 }))).await;
                assert_eq!((&answer["type"], &answer["channel"]), (&json!("subscribed"), &json!(channel)));
                let past = answer["events"].as_array().cloned().unwrap_or_default();
                let past: Vec<_> = past.into_iter().map(|event| event["data"].clone()).collect();
                let expected = events.iter().filter(|event| is_kept && passes(user, tenant, &channel, event));
                assert_eq!(past, expected.cloned().collect::<Vec<_>>(), "{user} {channel}");
                let resume = json!({ "epoch": answer["epoch"], "offset": answer["offset"] });
                let answer = client.ask(json!({ "type": "history", "channel": channel })).await;
                assert_eq!(answer["type"], if is_kept { "ok" } else { "error" });
                if is_kept {
                    assert_eq!(answer["events"].as_array().unwrap().len(), past.len());
                    let answer = client.ask(json!({ "type": "presence", "channel": channel })).await;
                    assert_eq!(answer["members"], json!({}), "{answer}");
                }
                let leave = json!({ "type": "unsubscribe", "channel": channel });
                assert_eq!(client.ask(leave).await["type"], "ok");
                if is_kept {
                    let answer = client.ask(with(subscribe, json!({ "resume": resume }))).await;
                    assert_eq!(answer["recovered"], true);
                    let leave = json!({ "type": "unsubscribe", "channel": channel });
                    assert_eq!(client.ask(leave).await["type"], "ok");
                }
            }
            client.subscribe(json!({ "channel": channel })).await;
            // What is imposed cannot be changed away.
            let update = json!({ "type": "update", "channel": channel, "filters": {} });
            assert_eq!(client.ask(update).await["type"], "ok");
        }
        let refreshed = client.ask(json!({ "type": "refresh", "token": token })).await;
        assert_eq!(refreshed["type"], "ok");
        clients.push((user, tenant, client));
    }
    for (channel, _) in channels() {
        for event in &events {
            served.publish(&channel, event).await;
        }
    }
    // Everybody has been told an event when one who listens has: so first all that is due, then what else there is.
    let mut seen: Vec<BTreeSet<(String, String)>> = Vec::new();
    for (user, tenant, client) in &mut clients {
        let due = channels()
            .iter()
            .flat_map(|(channel, _)| events.iter().map(move |event| (channel.clone(), event)))
            .filter(|(channel, event)| passes(user, tenant, channel, event))
            .count();
        let mut got = BTreeSet::new();
        for _ in 0..due {
            let event = client.next_of("event").await;
            got.insert((event["channel"].as_str().unwrap().to_owned(), event["data"].to_string()));
        }
        seen.push(got);
    }
    for ((user, tenant, client), seen) in clients.iter_mut().zip(seen) {
        is_denied(client, json!({ "type": "unsubscribe", "channel": "nothing" })).await;
        assert!(client.aside().is_empty(), "{user} has seen more: {:?}", client.aside());
        for (channel, data) in seen {
            let data: Value = serde_json::from_str(&data).unwrap();
            assert!(passes(user, tenant, &channel, &data), "{user} has seen {data} on {channel}");
        }
    }
    // Another user's, or another tenant's, token ends it.
    for (token, other) in [("ada@acme", "bob@acme"), ("ada@acme", "ada@evil"), ("ada", "ada@acme")] {
        let mut client = served.client(token).await;
        client.say(json!({ "type": "refresh", "id": 1, "token": other })).await;
        assert_eq!(client.closed().await, Some(3500));
    }
    drop(clients);
    served.until_nobody().await;
}

async fn guarded(place: &Place, decision: Duration) -> (Served, Guard) {
    let guard = Guard::default();
    let mut limits = Limits::default();
    limits.decision = decision;
    let messaging = place.builder().durable("guarded:{name}", Retention::DEFAULT).build().await.unwrap();
    let served = Served::of(messaging, |builder| builder.limits(limits).state(guard.clone())).await;
    (served, guard)
}

/// A command for each verb that a subscription is asked for again.
fn again() -> [(Verb, Value); 4] {
    let on = |kind: &str| json!({ "type": kind, "channel": "guarded:a", "filters": { "parity": "odd" }, "data": {} });
    [
        (Verb::Update, on("update")),
        (Verb::History, on("history")),
        (Verb::Presence, on("presence")),
        (Verb::Send, on("send")),
    ]
}

/// A subscription that asks for everything.
fn anew(offset: &Value) -> [(Verb, Value); 4] {
    let on = |more: Value| with(&json!({ "type": "subscribe", "channel": "guarded:a" }), more);
    [
        (Verb::Subscribe, on(json!({}))),
        (Verb::Resume, on(json!({ "resume": offset }))),
        (Verb::History, on(json!({ "last": 1 }))),
        (Verb::Presence, on(json!({ "presence": true }))),
    ]
}

async fn what_is_allowed_can_change_at_any_time(place: Place) {
    let (served, guard) = guarded(&place, Duration::from_secs(10)).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "guarded:a" })).await;
    for (verb, command) in again() {
        guard.set(verb, Some(Mood::Deny));
        is_denied(&mut ada, command.clone()).await;
        guard.set(verb, None);
        assert_eq!(ada.ask(command).await["type"], "ok", "{verb:?}");
    }
    // The filter that was refused is not there; the one that was allowed is.
    served.publish("guarded:a", json!({ "parity": "even" })).await;
    served.publish("guarded:a", json!({ "parity": "odd" })).await;
    assert_eq!(ada.data(1).await, [json!({ "parity": "odd" })]);
    let offset = json!({ "epoch": begun["epoch"], "offset": begun["offset"] });
    for (verb, command) in anew(&offset) {
        let mut bob = served.client("bob").await;
        guard.set(verb, Some(Mood::Deny));
        is_denied(&mut bob, command.clone()).await;
        guard.set(verb, None);
        assert_eq!(bob.ask(command).await["type"], "subscribed", "{verb:?}");
    }
}

async fn who_does_not_answer_denies(place: Place) {
    let (served, guard) = guarded(&place, Duration::from_millis(50)).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "guarded:a" })).await;
    let offset = json!({ "epoch": begun["epoch"], "offset": begun["offset"] });
    for mood in [Mood::Fail, Mood::Panic, Mood::Never] {
        for (verb, command) in again() {
            guard.set(verb, Some(mood));
            let answer = ada.ask(command).await;
            assert_eq!(
                (&answer["type"], &answer["code"]),
                (&json!("error"), &json!(100)),
                "{verb:?} {mood:?}"
            );
            guard.set(verb, None);
        }
        for (verb, command) in anew(&offset) {
            let mut bob = served.client("bob").await;
            guard.set(verb, Some(mood));
            let answer = bob.ask(command).await;
            assert_eq!(
                (&answer["type"], &answer["code"]),
                (&json!("error"), &json!(100)),
                "{verb:?} {mood:?}"
            );
            guard.set(verb, None);
            is_denied(&mut bob, json!({ "type": "unsubscribe", "channel": "guarded:a" })).await;
        }
    }
    // Nothing was sent, and nobody is there but those who were allowed.
    served.publish("guarded:a", json!(7)).await;
    assert_eq!(ada.data(1).await, [json!(7)]);
    let members = ada.ask(json!({ "type": "presence", "channel": "guarded:a" })).await;
    assert_eq!(members["members"], json!({}));

    // A closure that panics before there is a future.
    let closure = |_| -> std::future::Ready<bool> { panic!("it panics at once") };
    let other = Served::with(&place, |builder| builder.authorize("Kept", closure)).await;
    let mut ada = other.client("ada").await;
    assert_eq!(ada.ask(json!({ "type": "subscribe", "channel": "kept.a" })).await["code"], 100);
    ada.subscribe(json!({ "channel": "camera.events" })).await;
}
