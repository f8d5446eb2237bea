//! A channel that is heard as it is published, and becomes durable while somebody listens.

use std::time::Duration;

use messaging_core::Retention;
use serde_json::json;

use super::client::Served;
use crate::place::{Place, on_each_backend};

on_each_backend! { a_channel_that_becomes_durable_can_be_resumed }

async fn a_channel_that_becomes_durable_can_be_resumed(place: Place) {
    let mut limits = messaging_gateway::Limits::default();
    limits.look_out = Duration::from_millis(20);
    let served = Served::of(place.messaging().await, |builder| builder.limits(limits)).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "kept.a" })).await;
    assert_eq!(begun.get("epoch"), None, "nobody keeps it: {begun}");
    served.publish("kept.a", 1).await;
    assert_eq!(ada.data(1).await, [json!(1)]);
    // Another process knows that it is durable.
    let other = place.builder().durable("kept.{name}", Retention::DEFAULT).build().await.unwrap();
    other.publish("kept.a", &2).await.unwrap();
    // Of this one it is not said whether it was told before.
    let gap = ada.next_of("gap").await;
    assert_eq!((&gap["channel"], &gap["reason"]), (&json!("kept.a"), &json!("reset")));
    let resume = json!({ "epoch": gap["epoch"], "offset": gap["offset"] });
    assert!(gap["epoch"].is_string() && gap["offset"].is_string(), "{gap}");
    other.publish("kept.a", &3).await.unwrap();
    let third = ada.next_where(|message| message["type"] == "event" && message["data"] != 2).await;
    assert_eq!(third["data"], 3);
    assert!(third["offset"].is_string(), "{third}");
    drop(ada);
    other.publish("kept.a", &4).await.unwrap();
    served.has_read("kept.a", &json!(4)).await;
    let mut ada = served.client("ada").await;
    let resumed = ada.subscribe(json!({ "channel": "kept.a", "resume": resume })).await;
    let missed: Vec<_> = resumed["events"].as_array().unwrap().iter().map(|event| &event["data"]).collect();
    assert_eq!((&resumed["recovered"], missed.last()), (&json!(true), Some(&&json!(4))));
    assert_eq!(missed.iter().filter(|data| ***data == 3).count(), 1);
}
