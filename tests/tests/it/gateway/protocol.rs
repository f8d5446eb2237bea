//! Commands, answers, events and errors.

use serde_json::{Value, json};

use super::client::{Client, Served};
use crate::place::{Place, on_each_backend};

on_each_backend! {
    events_reach_those_who_subscribe
    filters_are_changed_between_two_events
    what_is_not_allowed_is_not_told_from_what_is_not_there
    tenants_see_their_own
    what_is_sent_carries_its_sender
}

fn camera(id: u32) -> Value {
    json!({ "camera_id": id, "kind": if id.is_multiple_of(2) { "car" } else { "person" } })
}

async fn events_reach_those_who_subscribe(place: Place) {
    let served = Served::at(&place).await;
    let (mut ada, mut bob) = (served.client("ada").await, served.client("bob").await);
    let subscribed = ada.subscribe(json!({ "entity": "CameraEvents" })).await;
    assert_eq!(subscribed, json!({ "type": "subscribed", "id": 1, "channel": "camera.events" }));
    let subscribed = bob.subscribe(json!({ "entity": "CameraEvents", "params": { "complex_id": 7 } })).await;
    assert_eq!(subscribed["channel"], "camera.events.complex:7");
    bob.subscribe(json!({ "channel": "camera.events" })).await;

    served.publish("camera.events", camera(1)).await;
    served.publish("camera.events.complex:7", camera(2)).await;
    let event = json!({ "type": "event", "channel": "camera.events", "data": camera(1) });
    assert_eq!(ada.next().await, event);
    // Two channels are in no order among each other.
    let mut both = [bob.next().await, bob.next().await];
    both.sort_by_key(|event| event["channel"].as_str().map(str::len));
    assert_eq!(both.each_ref().map(|event| &event["data"]), [&camera(1), &camera(2)]);
    assert_eq!(both[1]["channel"], "camera.events.complex:7");

    let answer = bob.ask(json!({ "type": "unsubscribe", "channel": "camera.events" })).await;
    assert_eq!(answer["type"], "ok");
    served.publish("camera.events", camera(3)).await;
    served.publish("camera.events.complex:7", camera(4)).await;
    assert_eq!(ada.data(1).await, [camera(3)]);
    assert_eq!(bob.data(1).await, [camera(4)]);
}

async fn filters_are_changed_between_two_events(place: Place) {
    let served = Served::at(&place).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(
        json!({ "channel": "camera.events", "filters": { "camera_id": { "in": [1, 2] }, "kind": "car" } }),
    )
    .await;
    for id in 1..=4 {
        served.publish("camera.events", camera(id)).await;
    }
    assert_eq!(ada.data(1).await, [camera(2)]);
    let update = |filters: Value| json!({ "type": "update", "channel": "camera.events", "filters": filters });
    assert_eq!(ada.ask(update(json!({ "camera_id": 4 }))).await["type"], "ok");
    for id in 1..=4 {
        served.publish("camera.events", camera(id)).await;
    }
    assert_eq!(ada.data(1).await, [camera(4)]);
    assert_eq!(ada.ask(update(json!({ "secret": 4 }))).await["code"], 107);
    assert_eq!(ada.ask(update(json!({}))).await["type"], "ok");
    served.publish("camera.events", camera(3)).await;
    assert_eq!(ada.data(1).await, [camera(3)]);
}

async fn what_is_not_allowed_is_not_told_from_what_is_not_there(place: Place) {
    let served = Served::at(&place).await;
    let mut ada = served.client("ada").await;
    let mut errors = Vec::new();
    for channel in ["nothing", "kept.secret", "auditlog:bob", "camera.*", "kept.*", "kept.a b", ""] {
        let mut error = ada.ask(json!({ "type": "subscribe", "channel": channel })).await;
        error["id"].take();
        errors.push(error);
    }
    let denied = json!({ "type": "error", "id": null, "code": 103, "message": "permission denied", "temporary": false });
    assert!(errors.iter().all(|error| *error == denied), "{errors:?}");
    for verb in ["update", "unsubscribe", "presence", "history"] {
        assert_eq!(
            ada.ask(json!({ "type": verb, "channel": "kept.a", "filters": {} })).await["code"],
            103,
            "{verb}"
        );
    }
    assert_eq!(ada.ask(json!({ "type": "send", "channel": "kept.a", "data": 1 })).await["code"], 103);
    ada.subscribe(json!({ "entity": "AuditLog" })).await;
    let own = ada.ask(json!({ "type": "subscribe", "channel": "auditlog:ada" })).await;
    assert_eq!(own["code"], 105);
    assert_eq!(ada.ask(json!({ "type": "history", "channel": "auditlog:ada" })).await["code"], 108);
    assert_eq!(ada.ask(json!({ "type": "send", "channel": "auditlog:ada", "data": 1 })).await["code"], 108);
    assert_eq!(ada.ask(json!({ "type": "presence", "channel": "auditlog:ada" })).await["code"], 108);
    assert_eq!(ada.ask(json!({ "type": "fly" })).await["code"], 104);
    served.publish("auditlog:bob", 1).await;
    served.publish("auditlog:ada", 2).await;
    assert_eq!(ada.data(1).await, [json!(2)]);

    let mut nobody = Client::connect(served.address).await;
    assert_eq!(nobody.ask(json!({ "type": "subscribe", "channel": "camera.events" })).await["code"], 101);
    nobody.say(json!({ "type": "hello", "token": "wrong" })).await;
    assert_eq!(nobody.next().await["code"], 3500);
    assert_eq!(nobody.closed().await, Some(3500));
}

async fn tenants_see_their_own(place: Place) {
    let served = Served::at(&place).await;
    let (mut ada, mut eve) = (served.client("ada@acme").await, served.client("eve@evil").await);
    for client in [&mut ada, &mut eve] {
        client.subscribe(json!({ "entity": "TenantUpdates" })).await;
        client.subscribe(json!({ "channel": "tenants" })).await;
    }
    let answer = eve.ask(json!({ "type": "subscribe", "channel": "tenant:acme:update" })).await;
    assert_eq!(answer["code"], 103);
    let of = |tenant: &str, number: u32| json!({ "tenant": tenant, "number": number });
    served.publish("tenant:acme:update", of("acme", 1)).await;
    served.publish("tenants", of("acme", 2)).await;
    served.publish("tenants", json!({ "number": 3 })).await;
    served.publish("tenants", json!({ "tenant": ["evil", "acme"] })).await;
    served.publish("tenants", of("evil", 4)).await;
    served.publish("tenants", of("acme", 5)).await;
    // Two channels are in no order among each other.
    let mut data = ada.data(3).await;
    data.sort_by_key(|data| data["number"].as_u64());
    assert_eq!(data, [of("acme", 1), of("acme", 2), of("acme", 5)]);
    assert_eq!(eve.data(1).await, [of("evil", 4)]);
    let mut nobody = served.client("nobody").await;
    assert_eq!(nobody.ask(json!({ "type": "subscribe", "channel": "tenants" })).await["code"], 103);
}

async fn what_is_sent_carries_its_sender(place: Place) {
    let served = Served::at(&place).await;
    let (mut ada, mut bob) = (Client::connect(served.address).await, served.client("bob").await);
    let welcome = ada.hello("ada").await;
    for client in [&mut ada, &mut bob] {
        client.subscribe(json!({ "channel": "kept.chat" })).await;
    }
    let data = json!({ "text": "hello", "sender": { "user": "bob" } });
    let answer = ada.ask(json!({ "type": "send", "channel": "kept.chat", "data": data })).await;
    assert_eq!(answer["type"], "ok");
    let sender = json!({ "user": "ada", "client": welcome["client"], "info": { "name": "ada" } });
    for client in [&mut ada, &mut bob] {
        assert_eq!(client.data(1).await, [json!({ "sender": sender, "data": data })]);
    }
    let mut reader = served.client("reader").await;
    reader.subscribe(json!({ "channel": "kept.chat" })).await;
    assert_eq!(reader.ask(json!({ "type": "send", "channel": "kept.chat", "data": 1 })).await["code"], 103);
}
