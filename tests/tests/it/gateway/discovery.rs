//! Entities of other services: served where somebody here says who may see them, and for as long as they are as they were.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use messaging_core::Backoff;
use messaging_gateway::{AccessRequest, InternalState, Polling, internal_router};
use messaging_tests::eventually;
use serde_json::{Value, json};

use super::client::{Served, serve};
use super::on_memory_and_redis;
use crate::place::Place;

on_memory_and_redis! {
    what_another_service_declares_is_served_where_it_is_authorized
    what_changes_ends_its_subscriptions
    a_program_of_several_services_plays_one
}

/// This process declares `CameraEvents` itself; as the gateway alone it serves that of another service, and as a service that
/// offers nothing it does not say that it has it.
async fn a_program_of_several_services_plays_one(place: Place) {
    let other = Other::of(&[entity("CameraEvents", "plant.cameras")]).await;
    let messaging = place.builder().build().await.unwrap();
    let silent = InternalState::new("silent", &messaging).without_entities();
    let silent = format!("http://{}", serve(internal_router(silent)).await);
    let served = Served::of(messaging, |builder| {
        let builder = builder.only_services().service("plant", &other.1, ["plant."]);
        builder.service("silent", &silent, ["silent."]).authorize("CameraEvents", async |_| true)
    })
    .await;
    served_entities(&served, "CameraEvents", true).await;
    let health = served.gateway.health();
    assert_eq!(health.details["entities"], json!(["CameraEvents"]));
    let mut ada = served.client("ada").await;
    assert_eq!(ada.subscribe(json!({ "entity": "CameraEvents" })).await["channel"], "plant.cameras");
    assert_eq!(ada.ask(json!({ "type": "subscribe", "channel": "camera.events" })).await["code"], 103);
    // Both were asked, and there is nothing to complain of.
    eventually("both are reached", async || served.gateway.health().warnings.is_empty()).await;
}

/// A service that says what it is told to say.
#[derive(Clone)]
struct Other(Arc<Mutex<Vec<Value>>>, String);

impl Other {
    async fn of(entities: &[Value]) -> Self {
        let said = Arc::new(Mutex::new(entities.to_vec()));
        let schema = Arc::clone(&said);
        let answer = async move || {
            let entities = schema.lock().unwrap().clone();
            axum::Json(json!({ "protocol": 1, "service": "plant", "entities": entities, "models": [] }))
        };
        let address = serve(Router::new().route("/__schema", get(answer))).await;
        Self(said, format!("http://{address}"))
    }

    fn say(&self, entities: &[Value]) {
        *self.0.lock().unwrap() = entities.to_vec();
    }

    async fn gateway(&self, place: &Place) -> Served {
        let mut polling = Polling::default();
        polling.every = Duration::from_millis(20);
        polling.retry = Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(20) };
        let only_ada = async |request: AccessRequest| request.identity().user == "ada";
        Served::with(place, |builder| {
            builder.service("plant", &self.1, ["plant."]).polling(polling).authorize("Pumps", only_ada)
        })
        .await
    }
}

fn entity(name: &str, channel: &str) -> Value {
    json!({ "entity": name, "channels": [channel], "filters": { "id": ["eq"] }, "public": true })
}

async fn served_entities(served: &Served, name: &str, is_served: bool) {
    eventually("the entities are found", async || {
        let entities = served.gateway.health().details["entities"].clone();
        entities.as_array().unwrap().contains(&json!(name)) == is_served
    })
    .await;
}

async fn what_another_service_declares_is_served_where_it_is_authorized(place: Place) {
    let other = Other::of(&[
        entity("Pumps", "plant.pumps:{id}"),
        entity("Valves", "plant.valves"),
        entity("Thief", "kept.{name}"),
        entity("CameraEvents", "plant.cameras"),
    ])
    .await;
    let served = other.gateway(&place).await;
    served_entities(&served, "Pumps", true).await;
    let (mut ada, mut bob) = (served.client("ada").await, served.client("bob").await);
    let pump =
        json!({ "type": "subscribe", "entity": "Pumps", "params": { "id": "7" }, "filters": { "id": 7 } });
    assert_eq!(ada.ask(pump.clone()).await["channel"], "plant.pumps:7");
    assert_eq!(bob.ask(pump).await["code"], 103);
    for client in [&mut ada, &mut bob] {
        for subscribe in [
            json!({ "type": "subscribe", "entity": "Valves" }),
            json!({ "type": "subscribe", "channel": "plant.valves" }),
            json!({ "type": "subscribe", "channel": "plant.cameras" }),
            json!({ "type": "subscribe", "entity": "Thief", "params": { "name": "a" } }),
        ] {
            assert_eq!(client.ask(subscribe.clone()).await["code"], 103, "{subscribe}");
        }
    }
    served.publish("plant.pumps:7", json!({ "id": 8 })).await;
    served.publish("plant.pumps:7", json!({ "id": 7 })).await;
    assert_eq!(ada.data(1).await, [json!({ "id": 7 })]);
    // Its own entity is as it was.
    assert_eq!(bob.subscribe(json!({ "entity": "CameraEvents" })).await["channel"], "camera.events");
    let warnings = served.gateway.health().warnings.join("\n");
    for expected in [
        "the entity `Valves` of the service `plant` is not served",
        ".authorize(\"Valves\", …)",
        "entity `CameraEvents` is declared by this process and by `plant`",
        "Thief",
    ] {
        assert!(warnings.contains(expected), "{expected} is not in:\n{warnings}");
    }
    assert!(!warnings.contains("`Pumps`"), "{warnings}");
}

async fn what_changes_ends_its_subscriptions(place: Place) {
    let (pumps, changed) = (entity("Pumps", "plant.pumps:{id}"), entity("Pumps", "plant.pumps:{id}:new"));
    let other = Other::of(std::slice::from_ref(&pumps)).await;
    let served = other.gateway(&place).await;
    served_entities(&served, "Pumps", true).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "entity": "Pumps", "params": { "id": 7 } })).await;
    ada.subscribe(json!({ "channel": "kept.a" })).await;
    // Something else that comes changes nothing for who is there.
    other.say(&[pumps, entity("Others", "plant.others")]);
    eventually("it is found", async || !served.gateway.health().warnings.is_empty()).await;
    served.publish("plant.pumps:7", 1).await;
    assert_eq!(ada.data(1).await, [json!(1)]);
    other.say(std::slice::from_ref(&changed));
    let ended = ada.next_of("unsubscribed").await;
    let expected = json!({ "type": "unsubscribed", "channel": "plant.pumps:7", "code": 2500, "reason": "insufficient state" });
    assert_eq!(ended, expected);
    assert_eq!(served.metric("messaging_gateway_subscriptions").await, 1);
    let again = ada.subscribe(json!({ "entity": "Pumps", "params": { "id": 7 } })).await;
    assert_eq!(again["channel"], "plant.pumps:7:new");
    other.say(&[]);
    assert_eq!(ada.next_of("unsubscribed").await["channel"], "plant.pumps:7:new");
    served_entities(&served, "Pumps", false).await;
    assert_eq!(
        ada.ask(json!({ "type": "subscribe", "entity": "Pumps", "params": { "id": 7 } })).await["code"],
        103
    );
    served.publish("plant.pumps:7", 2).await;
    served.publish("kept.a", 3).await;
    assert_eq!(ada.data(1).await, [json!(3)]);
}
