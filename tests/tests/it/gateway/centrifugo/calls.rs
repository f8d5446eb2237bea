//! Functions that clients call, and messages that they send.

use std::sync::Arc;

use messaging_gateway::{ClientRequest, ErrorCode, RpcError};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use super::Peer;
use crate::gateway::client::Served;
use crate::gateway::on_memory_and_redis;
use crate::place::{Place, Probe, soon};

on_memory_and_redis! {
    functions_are_called_and_messages_taken
    a_call_ends_with_its_connection
}

#[derive(Deserialize)]
struct Sum {
    one: i64,
    other: i64,
}

async fn sum(request: ClientRequest) -> Result<Value, RpcError> {
    let Sum { one, other } = request.data()?;
    match one.checked_add(other) {
        Some(sum) => Ok(json!({ "sum": sum, "by": request.identity().user, "of": request.method() })),
        None => Err(RpcError::new(1_000, "it is too much").temporary()),
    }
}

async fn functions_are_called_and_messages_taken(place: Place) {
    let (probe, gate) = (Probe::default(), Arc::new(Semaphore::new(0)));
    let (told, waits) = (probe.clone(), Arc::clone(&gate));
    let served = Served::with(&place, |builder| {
        builder
            .rpc("sum", sum)
            .rpc("nothing", async |_| Ok(()))
            .rpc("lines", async |_| {
                RawValue::from_string("{\n  \"a\": \"b\\n\"\r\n}".to_owned()).map_err(RpcError::internal)
            })
            .rpc("denied", async |_| Err::<(), _>(ErrorCode::PermissionDenied.into()))
            .rpc("broken", async |_| Err::<(), _>(RpcError::internal("the password is hush")))
            .rpc("panics", async |_| -> Result<(), RpcError> { panic!("hush") })
            .rpc("waits", move |_| {
                let waits = Arc::clone(&waits);
                async move {
                    drop(waits.acquire().await);
                    Ok("at last")
                }
            })
            .on_message(move |message| {
                let told = told.clone();
                async move { told.tell(message.data::<Value>().unwrap()) }
            })
    })
    .await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let call = |method: &str, data: Value| json!({ "rpc": { "method": method, "data": data } });
    let answer = peer.ask(call("sum", json!({ "one": 1, "other": 2 }))).await;
    assert_eq!(answer["rpc"]["data"], json!({ "sum": 3, "by": "ada", "of": "sum" }));
    assert_eq!(peer.ask(json!({ "rpc": { "method": "nothing" } })).await["rpc"], json!({ "data": null }));
    let lines = peer.ask(json!({ "rpc": { "method": "lines" } })).await;
    assert_eq!(lines["rpc"]["data"], json!({ "a": "b\n" }), "a line is a message");
    let too_much = peer.ask(call("sum", json!({ "one": i64::MAX, "other": 2 }))).await;
    let expected = json!({ "code": 1000, "message": "it is too much", "temporary": true });
    assert_eq!(too_much["error"], expected);
    for (method, code) in [("sum", 107), ("denied", 103), ("broken", 100), ("panics", 100)] {
        let answer = peer.ask(call(method, json!("x"))).await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(!answer.to_string().contains("hush"), "{answer}");
    }
    // One that waits holds nobody up; and there are only so many of them.
    for id in 100..117 {
        peer.say_text(json!({ "id": id, "rpc": { "method": "waits" } }).to_string()).await;
    }
    let refused = peer.next().await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(116), &json!(111)), "{refused}");
    peer.ask(call("nothing", Value::Null)).await["error"]["code"].as_u64().expect("all turns are taken");
    peer.subscribe(json!({ "channel": "camera.events" })).await;
    gate.add_permits(100);
    for _ in 100..116 {
        assert_eq!(peer.next().await["rpc"]["data"], "at last");
    }
    // In order, and without an answer.
    peer.say_text(json!({ "send": { "data": { "n": 1 } } }).to_string()).await;
    peer.say_text(json!({ "id": 9, "send": { "data": [2] } }).to_string()).await;
    let told = probe.wait_for(2).await;
    assert_eq!(told, [format!("{:?}", json!({ "n": 1 })), format!("{:?}", json!([2]))]);
    peer.subscribe(json!({ "channel": "kept.a" })).await;

    let without = Served::at(&place).await;
    let mut peer = Peer::connect(without.address, "ada").await;
    peer.say_text(json!({ "send": { "data": 1 } }).to_string()).await;
    assert_eq!(peer.ended_with().await, 3508, "it would not know otherwise that nobody listens");
}

async fn a_call_ends_with_its_connection(place: Place) {
    let (sender, mut told) = mpsc::unbounded_channel();
    let served = Served::with(&place, |builder| {
        builder.rpc("never", move |_| {
            let sender = sender.clone();
            async move {
                // Closed when the call is dropped.
                let (alive, ends) = mpsc::channel::<()>(1);
                sender.send(ends).unwrap();
                std::future::pending::<()>().await;
                drop(alive);
                Ok(())
            }
        })
    })
    .await;
    let mut peer = Peer::connect(served.address, "ada").await;
    peer.say_text(json!({ "id": 7, "rpc": { "method": "never" } }).to_string()).await;
    let mut ends = soon(told.recv()).await.unwrap();
    drop(peer);
    assert_eq!(soon(ends.recv()).await, None, "it goes on for nobody");
}
