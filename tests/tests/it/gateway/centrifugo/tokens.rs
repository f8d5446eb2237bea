//! Tokens of connections and of subscriptions: what they allow, and for how long.

use std::time::Duration;

use messaging_core::Retention;
use messaging_gateway::{Gateway, Jwt};
use serde_json::{Value, json};

use super::Peer;
use crate::gateway::client::serve;
use crate::jwt::{SECRET, seconds, token};
use crate::place::{Place, on_each_backend};

on_each_backend! {
    tokens_allow_renew_and_end
}

async fn tokens_allow_renew_and_end(place: Place) {
    let jwt = Jwt::hs256(SECRET).unwrap().leeway(Duration::ZERO);
    let messaging = place.builder().durable("kept.{name}", Retention::DEFAULT).build().await.unwrap();
    let gateway = Gateway::builder(&messaging).jwt(jwt).build().unwrap();
    let _running = messaging.start().await.unwrap();
    let address = serve(gateway.router()).await;
    let ada = token(json!({ "sub": "ada", "exp": seconds(600), "info": { "name": "Ada" } }));
    let mut peer = Peer::open(address).await;
    let connected = peer.ask(json!({ "connect": { "token": ada } })).await["connect"].clone();
    assert_eq!(connected["expires"], true, "{connected}");
    let of = |claims: Value| {
        let mut all = json!({ "sub": "ada", "channel": "kept.secret" });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        token(all)
    };
    let subscribe = |token: &str| json!({ "subscribe": { "channel": "kept.secret", "token": token, "join_leave": true } });
    // Without a token it is nobody's but root's.
    assert_eq!(peer.code(json!({ "subscribe": { "channel": "kept.secret" } })).await, 103);
    assert_eq!(peer.code(subscribe("x.y.z")).await, 103);
    assert_eq!(peer.code(subscribe(&of(json!({ "exp": seconds(-10) })))).await, 109);
    let granted = of(json!({ "exp": seconds(300), "client": connected["client"] }));
    let begun = peer.ask(subscribe(&granted)).await;
    let left = begun["subscribe"]["ttl"].as_u64().unwrap();
    assert!(begun["subscribe"]["expires"] == true && (200..=300).contains(&left), "{begun}");
    // It allows nothing else: she neither is seen there, nor sees others.
    assert_eq!(peer.code(json!({ "presence": { "channel": "kept.secret" } })).await, 103);
    let mut root = Peer::connect(address, &token(json!({ "sub": "root" }))).await;
    root.subscribe(json!({ "channel": "kept.secret" })).await;
    let seen = root.ask(json!({ "presence_stats": { "channel": "kept.secret" } })).await;
    assert_eq!(seen["presence_stats"]["num_clients"], 1, "{seen}");
    // Where she is, what the token says of her is beside what the connection says. Its own end is not that of what it allows.
    let open = json!({ "channel": "kept.open", "info": { "seat": 7 }, "exp": seconds(300), "expire_at": 0 });
    let open = json!({ "channel": "kept.open", "token": of(open), "join_leave": true });
    assert_eq!(peer.subscribe(open).await["expires"], Value::Null);
    let joined = peer.push("join").await;
    assert_eq!(joined["join"]["info"]["chan_info"], json!({ "seat": 7 }), "{joined}");
    assert_eq!(joined["join"]["info"]["conn_info"], json!({ "name": "Ada" }));

    // It goes on with another token, and ends with it.
    let refresh = |token: &str| json!({ "sub_refresh": { "channel": "kept.secret", "token": token } });
    let renewed = peer.ask(refresh(&of(json!({ "exp": seconds(100) })))).await;
    assert!(renewed["sub_refresh"]["ttl"].as_u64().is_some_and(|ttl| ttl <= 100), "{renewed}");
    assert_eq!(peer.code(refresh(&of(json!({ "exp": seconds(-10) })))).await, 110);
    peer.ask(refresh(&of(json!({ "exp": seconds(1) })))).await;
    let ended = peer.push("unsubscribe").await;
    assert_eq!((&ended["channel"], &ended["unsubscribe"]["code"]), (&json!("kept.secret"), &json!(2501)));
    assert_eq!(peer.code(refresh(&granted)).await, 103, "it is not subscribed any more");
    peer.ask(subscribe(&granted)).await["subscribe"]["ttl"].as_u64().expect("it begins again");

    // The connection, too.
    let renewed = peer.ask(json!({ "refresh": { "token": ada } })).await;
    assert!(renewed["refresh"]["expires"] == true, "{renewed}");
    served_goes_on(&mut peer, &messaging).await;
    for (command, code) in [
        (json!({ "refresh": { "token": token(json!({ "sub": "eve" })) } }), 3500),
        (json!({ "refresh": { "token": token(json!({ "sub": "ada", "exp": seconds(-10) })) } }), 3005),
        (subscribe(&token(json!({ "sub": "eve", "channel": "kept.secret" }))), 3500),
        (subscribe(&of(json!({ "channel": "kept.other" }))), 3500),
        (subscribe(&of(json!({ "client": "another" }))), 3500),
        (subscribe(&of(json!({ "tenant": "another" }))), 3500),
    ] {
        let mut peer = Peer::connect(address, &ada).await;
        let mut command = command;
        command["id"] = 2.into();
        peer.say_text(command.to_string()).await;
        assert_eq!(peer.ended_with().await, code, "{command}");
    }
    // A token that allows one channel is not one for a connection.
    let mut peer = Peer::open(address).await;
    peer.say_text(json!({ "id": 1, "connect": { "token": granted } }).to_string()).await;
    assert_eq!(peer.ended_with().await, 3500);
}

/// A subscription that a token allows survives the renewal of the connection's token.
async fn served_goes_on(peer: &mut Peer, messaging: &messaging_core::Messaging) {
    messaging.publish("kept.secret", &1).await.unwrap();
    assert_eq!(peer.publication().await["data"], 1);
}
