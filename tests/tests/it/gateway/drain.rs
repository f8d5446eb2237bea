//! How a gateway ends: its clients go elsewhere, and lose nothing.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;

use super::client::{Client, Events, Served, http};
use crate::place::{PATIENCE, Place, on_each_backend, soon};

on_each_backend! {
    clients_go_elsewhere_and_lose_nothing
    who_does_not_go_is_closed
}

async fn clients_go_elsewhere_and_lose_nothing(place: Place) {
    let (first, second) = (Served::at(&place).await, Served::at(&place).await);
    let mut clients = Vec::new();
    for user in ["ada", "bob", "eve"] {
        let mut client = first.client(user).await;
        let begun = client.subscribe(json!({ "channel": "kept.a" })).await;
        clients.push((user, client, begun));
    }
    let publisher = {
        let messaging = second.messaging.clone();
        tokio::spawn(async move {
            for number in 1..=300_u64 {
                messaging.publish("kept.a", &number).await.unwrap();
            }
        })
    };
    let draining = {
        let gateway = first.gateway.clone();
        tokio::spawn(async move { gateway.drain(PATIENCE).await })
    };
    let tasks = clients.into_iter().map(|(user, mut client, begun)| {
        let address = second.address;
        tokio::spawn(async move {
            let mut seen = Vec::new();
            let (epoch, mut offset) = (begun["epoch"].clone(), begun["offset"].clone());
            // Ada goes when she is asked to, the others stay until they have to.
            let is_told = |message: &Value| message["type"] == "goaway" && user == "ada";
            loop {
                match client.next_or_closed().await {
                    Ok(message) if message["type"] == "event" => {
                        offset = message["offset"].clone();
                        seen.push(message["data"].as_u64().unwrap());
                    }
                    Ok(message) if is_told(&message) => break,
                    Ok(message) => {
                        assert!(message["type"] == "goaway" || message["code"] == 3001, "{message}")
                    }
                    Err(code) => {
                        assert_eq!(code, Some(3001));
                        break;
                    }
                }
            }
            drop(client);
            let mut client = Client::connect(address).await;
            client.hello(user).await;
            let resume = json!({ "epoch": epoch, "offset": offset });
            let resumed = client.subscribe(json!({ "channel": "kept.a", "resume": resume })).await;
            assert_eq!(resumed["recovered"], true);
            let missed = resumed["events"].as_array().cloned().unwrap_or_default();
            seen.extend(missed.iter().map(|event| event["data"].as_u64().unwrap()));
            while seen.len() < 300 {
                seen.push(client.next_of("event").await["data"].as_u64().unwrap());
            }
            assert_eq!(seen, (1..=300).collect::<Vec<_>>());
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        soon(task).await.unwrap();
    }
    publisher.await.unwrap();
    soon(draining).await.unwrap();
    assert_eq!(first.gateway.connections(), 0);
    soon(first.gateway.drained()).await;
}

async fn who_does_not_go_is_closed(place: Place) {
    let served = Served::limited(&place, |limits| limits.goaway = Duration::from_millis(500)).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "kept.a" })).await;
    let mut bob = Events::of(&served, "channel=kept.a", &[("Authorization", "Bearer bob")]).await;
    bob.next_of("subscribed").await;
    let ready = http(served.internal, "GET", "/readyz", &[]).await;
    assert_eq!((ready.status, ready.json()["ready"].clone()), (200, json!(true)));
    let gateway = served.gateway.clone();
    let draining = tokio::spawn(async move { gateway.drain(PATIENCE).await });
    assert_eq!(ada.next().await, json!({ "type": "goaway", "after_ms": 500 }));
    assert_eq!(bob.next().await.event, "goaway");
    // What comes now is sent away, while those who are there still get their events.
    let refused = Client::try_connect(served.address, &[]).await.err().unwrap();
    assert!(matches!(&refused, tungstenite::Error::Http(answer) if answer.status() == 503));
    let query = "/events?channel=kept.a";
    let refused = http(served.address, "GET", query, &[("Authorization", "Bearer ada")]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    let ready = http(served.internal, "GET", "/readyz", &[]).await;
    assert_eq!((ready.status, ready.json()["ready"].clone()), (503, json!(false)));
    assert!(!served.gateway.health().is_sound);
    assert_eq!(http(served.internal, "GET", "/healthz", &[]).await.status, 200);
    let mut seen = Vec::new();
    let code = loop {
        match ada.next_or_closed().await {
            Ok(message) => seen.push(message),
            Err(code) => break code,
        }
    };
    assert_eq!(code, Some(3001));
    assert_eq!(
        seen,
        [json!({ "type": "disconnect", "code": 3001, "reason": "shutdown", "reconnect": true })]
    );
    assert_eq!(bob.next().await.data["code"], 3001);
    assert_eq!(bob.next_or_end().await, None);
    soon(draining).await.unwrap();
    served.until_nobody().await;
    // A second time there is nothing to do.
    soon(served.gateway.drain(PATIENCE)).await;

    // Shutting the messaging down does it too.
    let served = Served::limited(&place, |limits| limits.goaway = Duration::from_millis(100)).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "kept.a" })).await;
    let stopping = tokio::spawn(served.running().shutdown(PATIENCE));
    assert_eq!(ada.closed().await, Some(3001));
    soon(stopping).await.unwrap();
}
