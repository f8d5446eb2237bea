//! Models in SQL, units of work and the outbox: one suite, on each database.

use messaging_core::event_config;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A model with everything that a field can be.
#[event_config(
    publish = { create = "camera.created", update = "camera.updated", delete = "camera.deleted" },
    table = "cameras",
    key = id,
    version = revision,
    previous = [mac_address],
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    pub id: String,
    #[column(name = "mac")]
    pub mac_address: String,
    pub complex: Option<i64>,
    pub is_on: bool,
    pub weight: f64,
    #[column(json)]
    pub settings: Value,
    #[column(skip)]
    pub note: String,
    pub revision: i64,
}

pub fn camera(id: &str) -> Camera {
    Camera {
        id: id.to_owned(),
        mac_address: format!("mac of {id}"),
        complex: Some(12),
        is_on: true,
        weight: 1.5,
        settings: serde_json::json!({ "zoom": 2 }),
        note: "not stored".to_owned(),
        revision: 0,
    }
}

/// A model whose key the database gives, without a version or anything else.
#[event_config(
    publish = { create = "order.{customer}.created", update = "order.updated", delete = "order.deleted" },
    table = "orders",
    key = id,
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    #[column(generated)]
    pub id: i64,
    pub customer: String,
    pub state: String,
}

pub fn order(customer: &str) -> Order {
    Order { id: 0, customer: customer.to_owned(), state: "new".to_owned() }
}

/// A table that is not there.
#[event_config(table = "nowhere", key = id)]
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    pub id: i64,
}

/// A table that has not all of the columns, and others with another type.
#[event_config(table = "orders", key = id)]
#[derive(Clone, Debug, Serialize)]
pub struct Strange {
    #[column(generated)]
    pub id: i64,
    pub customer: String,
    pub colour: String,
}

#[event_config(table = "orders", key = id)]
#[derive(Clone, Debug, Serialize)]
pub struct Mistyped {
    pub id: i64,
    #[column(name = "customer")]
    pub number: i64,
    pub state: String,
}

/// What was heard of a model.
pub async fn heard(subscription: &mut messaging_core::Subscription, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    for _ in 0..count {
        let message = subscription.get_message(crate::place::PATIENCE).await.unwrap().expect("an event");
        heard.push(format!("{} {}", message.channel(), std::str::from_utf8(message.payload()).unwrap()));
    }
    heard
}

/// Nothing was heard: what is published now comes first.
pub async fn nothing_heard(
    messaging: &messaging_core::Messaging,
    subscription: &mut messaging_core::Subscription,
) {
    messaging.publish("camera.end", &"end").await.unwrap();
    let heard = heard(subscription, 1).await;
    assert_eq!(heard, ["camera.end \"end\""]);
}

mod postgres;
mod sqlite;
