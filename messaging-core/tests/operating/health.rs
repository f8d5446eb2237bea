//! What health tells beside what it always has.

use std::collections::BTreeMap;

use messaging_core::PresenceHealth;
use serde_json::Value;

use super::*;

#[tokio::test]
async fn health_tells_of_subscribers_presence_and_life() {
    let test = start(&["listen", "work"]).await;
    assert_eq!(test.health().presence, PresenceHealth::default());
    let user = test.subscribe("user:42").await.unwrap();
    let room = test.subscribe("chat:7").await.unwrap();
    let (ada, bob) = (test.presence("chat:7"), test.presence("chat:8"));
    let ada = ada.join("ada", &1).await.unwrap();
    let _bob = bob.join("bob", &1).await.unwrap();
    let health = test.health();
    assert_eq!(health.channels, [""; 0]);
    assert_eq!(health.patterns, ["chat:{room}", "jobs.{kind}"]);
    let counted = [("chat:{room}", 2), ("jobs.{kind}", 1), ("other", 1)];
    let counted: BTreeMap<_, _> = counted.map(|(label, count)| (label.to_owned(), count)).into();
    assert_eq!(health.subscribers, counted);
    assert_eq!((health.presence.members, health.presence.channels, health.presence.unsettled), (2, 2, 0));
    assert!(health.presence.last_alive_ms.is_some_and(|ago| ago < 10_000));
    assert!(health.last_alive_ms.is_some_and(|ago| ago < 10_000), "{health:#?}");
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["presence"]["members"], 2);
    assert_eq!(json["subscribers"]["other"], 1);
    assert_ne!(json["last_alive_ms"], Value::Null);

    drop((user, room));
    ada.leave().await.unwrap();
    let down = test.redis_down().await;
    drop(test.presence("chat:9").join("eve", &1).await.unwrap_err());
    let health = test.health();
    assert_eq!(health.subscribers["chat:{room}"], 1);
    assert!(!health.subscribers.contains_key("other"));
    assert_eq!((health.presence.members, health.presence.channels), (1, 1));
    assert!(!health.is_ready());
    drop(down);
    test.recovered().await;
    assert!(test.health().is_ready());
}
