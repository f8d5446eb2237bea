//! The protocol of Centrifugo's clients, word by word. What those clients make of it is in `centrifuge_clients`.

mod calls;
mod past;
mod peer;
mod tokens;

use std::time::Duration;

use futures_util::SinkExt as _;
use messaging_gateway::{AuthError, DisconnectCode, Identity, Limits, Rate, UnsubscribeCode, Verb};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use super::client::{Client, Served, http};
use super::{Guard, Mood};
use crate::place::{Place, on_each_backend, soon};
pub use peer::Peer;

on_each_backend! {
    whoever_connects_is_told_what_a_client_needs
    a_whole_session_may_stand_in_the_first_frame
    events_come_as_publications_with_their_numbers
    what_a_client_publishes_says_whose_it_is
    both_protocols_are_told_the_same
    who_is_there_comes_and_goes
    nothing_but_what_is_allowed_is_done
    what_is_not_offered_is_refused_with_its_code
    nonsense_ends_the_connection
    the_server_ends_subscriptions_and_connections
    pings_come_however_much_a_client_says
    who_waits_for_an_answer_is_not_taken_for_dead
    both_sides_know_whether_there_is_a_subscription
}

async fn whoever_connects_is_told_what_a_client_needs(place: Place) {
    let served = Served::limited(&place, |limits| limits.ping = Duration::from_secs(7)).await;
    let mut peer = Peer::open(served.address).await;
    let answer = peer.ask(json!({ "connect": { "token": "ada", "name": "js", "later": [1] } })).await;
    let connected = &answer["connect"];
    assert_eq!((&connected["ping"], &connected["pong"]), (&json!(7), &json!(true)), "{answer}");
    assert!(connected["version"].is_string() && connected["expires"].is_null(), "{answer}");

    // One that ends says when.
    let mut brief = Peer::open(served.address).await;
    let answer = brief.ask(json!({ "connect": { "token": "ada~90500" } })).await;
    assert_eq!((&answer["connect"]["expires"], &answer["connect"]["ttl"]), (&json!(true), &json!(90)));
    // A token that has ended is an answer, after which the client comes again; one that is wrong is the end.
    let mut old = Peer::open(served.address).await;
    assert_eq!(old.code(json!({ "connect": { "token": "old" } })).await, 109);
    let mut wrong = Peer::open(served.address).await;
    wrong.say_text(json!({ "id": 1, "connect": { "token": "wrong" } }).to_string()).await;
    assert_eq!(wrong.ended_with().await, 3500);
    // Where nobody has to be anybody, as in development, nothing is shown.
    let open = Served::with(&place, |builder| builder.allow_anonymous()).await;
    let mut nobody = Peer::open(open.address).await;
    assert!(nobody.ask(json!({ "connect": {} })).await["connect"]["client"].is_string());
    nobody.subscribe(json!({ "channel": "camera.events" })).await;
    assert_eq!(nobody.code(json!({ "subscribe": { "channel": "auditlog:ada" } })).await, 103);
    // What a client says beside its token is there for whoever finds out who it is.
    let by_data = Served::with(&place, |builder| {
        builder.authenticate(async |credentials| match credentials.data {
            Some(data) if data["app"] == "phone" => Ok(Identity::user("ada")),
            _ => Err(AuthError::invalid("it is another app")),
        })
    })
    .await;
    let mut phone = Peer::open(by_data.address).await;
    let answer = phone.ask(json!({ "connect": { "data": { "app": "phone" } } })).await;
    assert!(answer["connect"].is_object(), "{answer}");
    phone.subscribe(json!({ "channel": "auditlog:ada" })).await;
    // The subprotocol that JSON has is answered, the other one is refused before it is a connection.
    let json = [("sec-websocket-protocol", "centrifuge-json")];
    Peer::try_open(served.address, "", &json).await.unwrap();
    let protobuf = [("sec-websocket-protocol", "centrifuge-protobuf")];
    for (query, headers) in [("", &protobuf[..]), ("?format=protobuf", &[]), ("?cf_protocol=protobuf", &[])] {
        match Peer::try_open(served.address, query, headers).await {
            Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 400),
            other => panic!("{:?}", other.err()),
        }
    }
    for path in ["/connection/http_stream", "/connection/sse", "/emulation", "/connection/sockjs"] {
        assert_eq!(http(served.address, "POST", path, &[]).await.status, 404, "{path}");
    }
}

async fn a_whole_session_may_stand_in_the_first_frame(place: Place) {
    let served = Served::at(&place).await;
    let mut peer = Peer::open(served.address).await;
    let lines = [
        json!({ "id": 1, "connect": { "token": "ada" } }),
        json!({ "id": 2, "subscribe": { "channel": "camera.events" } }),
        json!({ "id": 3, "subscribe": { "channel": "kept.secret" } }),
        json!({ "id": 4, "subscribe": { "channel": "camera.events" } }),
        json!({ "id": 5, "unsubscribe": { "channel": "camera.events" } }),
        json!({ "id": 6, "unsubscribe": { "channel": "camera.events" } }),
        json!({ "id": 7, "subscribe": { "channel": "camera.events" } }),
    ];
    peer.say_text(lines.each_ref().map(Value::to_string).join("\n")).await;
    let mut answers = Vec::new();
    while answers.len() < lines.len() {
        answers.push(peer.next().await);
    }
    assert!(answers[0]["connect"].is_object(), "{answers:?}");
    assert_eq!(answers[1], json!({ "id": 2, "subscribe": {} }));
    assert_eq!(answers[2], json!({ "id": 3, "error": { "code": 103, "message": "permission denied" } }));
    assert_eq!(answers[3], json!({ "id": 4, "error": { "code": 105, "message": "already subscribed" } }));
    assert_eq!(answers[4], json!({ "id": 5, "unsubscribe": {} }));
    assert_eq!(answers[5], json!({ "id": 6, "unsubscribe": {} }), "it is as it was asked for");
    assert_eq!(answers[6]["subscribe"], json!({}));
    // Without a token that is taken, what stands behind it has no answer: the client comes again.
    let mut old = Peer::open(served.address).await;
    old.say_text(format!("{}\n{}", json!({ "id": 1, "connect": { "token": "old" } }), lines[1])).await;
    assert_eq!(old.next().await["error"]["code"], 109);
    drop(old);
    // Before it has said who it is, nothing else is listened to.
    let mut nobody = Peer::open(served.address).await;
    nobody.say_text(lines[1].to_string()).await;
    assert_eq!(nobody.ended_with().await, 3501);
}

async fn events_come_as_publications_with_their_numbers(place: Place) {
    let served = Served::at(&place).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    assert_eq!(peer.subscribe(json!({ "channel": "camera.events" })).await, json!({}));
    served.publish("camera.events", json!({ "camera_id": 7, "n": 12_345_678_901_234_567_u64 })).await;
    let push = peer.push("pub").await;
    let data = json!({ "camera_id": 7, "n": 12_345_678_901_234_567_u64 });
    assert_eq!(push, json!({ "channel": "camera.events", "pub": { "data": data } }));

    served.publish("kept.a", 0).await;
    served.has_read("kept.a", &json!(0)).await;
    let begun = peer.subscribe(json!({ "channel": "kept.a" })).await;
    assert_eq!((&begun["recoverable"], &begun["positioned"]), (&json!(true), &json!(true)), "{begun}");
    assert_eq!(begun["offset"], 1);
    assert!(begun["epoch"].is_string() && begun["publications"].is_null(), "{begun}");
    for number in 1..4 {
        served.publish("kept.a", number).await;
        assert_eq!(peer.publication().await, json!({ "data": number, "offset": number + 1 }));
    }
    // What only ours has is said in `data`.
    let filters = json!({ "filters": { "camera_id": 9 } });
    peer.ask(json!({ "unsubscribe": { "channel": "camera.events" } })).await;
    peer.subscribe(json!({ "channel": "camera.events", "data": filters })).await;
    served.publish("camera.events", json!({ "camera_id": 8 })).await;
    served.publish("camera.events", json!({ "camera_id": 9 })).await;
    assert_eq!(peer.publication().await, json!({ "data": { "camera_id": 9 } }));
}

async fn what_a_client_publishes_says_whose_it_is(place: Place) {
    let served = Served::at(&place).await;
    let (mut ada, mut bob) = (Peer::open(served.address).await, Peer::connect(served.address, "bob").await);
    let client = ada.ask(json!({ "connect": { "token": "ada" } })).await["connect"]["client"].clone();
    for peer in [&mut ada, &mut bob] {
        peer.subscribe(json!({ "channel": "kept.chat" })).await;
    }
    let published = ada.ask(json!({ "publish": { "channel": "kept.chat", "data": { "t": "hi" } } })).await;
    assert_eq!(published["publish"], json!({}));
    let info = json!({ "user": "ada", "client": client, "conn_info": { "name": "ada" } });
    let expected = json!({ "data": { "t": "hi" }, "info": info, "offset": 1 });
    assert_eq!(bob.publication().await, expected);
    assert_eq!(ada.publication().await, expected, "she hears herself, as everybody does");
    // Something of the program's that only looks a little like it is left as it is.
    let other = json!({ "sender": { "user": "ada", "client": "c", "more": 1 }, "data": 1 });
    served.publish("kept.chat", &other).await;
    assert_eq!(bob.publication().await["data"], other);
    // Nothing is something, too; and what is not said may be said to be nothing.
    let nothing = json!({ "publish": { "channel": "kept.chat", "data": null, "type": null } });
    assert_eq!(ada.ask(nothing).await["publish"], json!({}));
    assert_eq!(bob.publication().await["data"], Value::Null);
    let published = json!({ "publish": { "channel": "kept.other", "data": 1 } });
    assert_eq!(ada.code(published).await, 103, "only where one is subscribed");
}

async fn both_protocols_are_told_the_same(place: Place) {
    let served = Served::at(&place).await;
    let mut native = served.client("ada").await;
    native.subscribe(json!({ "channel": "kept.a" })).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    peer.subscribe(json!({ "channel": "kept.a" })).await;
    for number in 0..100 {
        served.publish("kept.a", json!({ "number": number })).await;
    }
    for number in 0..100 {
        assert_eq!(native.next_of("event").await["data"]["number"], number);
        assert_eq!(peer.publication().await["data"]["number"], number);
    }
}

async fn who_is_there_comes_and_goes(place: Place) {
    let served = Served::at(&place).await;
    let mut ada = Peer::connect(served.address, "ada").await;
    ada.subscribe(json!({ "channel": "kept.room", "join_leave": true })).await;
    let mut bob = Peer::open(served.address).await;
    let b = bob.ask(json!({ "connect": { "token": "bob" } })).await["connect"]["client"].clone();
    bob.subscribe(json!({ "channel": "kept.room" })).await;
    let info = json!({ "user": "bob", "client": b, "conn_info": { "name": "bob" } });
    while ada.push("join").await != json!({ "channel": "kept.room", "join": { "info": info } }) {}
    let presence =
        bob.ask(json!({ "presence": { "channel": "kept.room" } })).await["presence"]["presence"].clone();
    assert_eq!(presence[b.as_str().unwrap()], info, "{presence}");
    assert_eq!(presence.as_object().unwrap().len(), 2);
    // And one who speaks the native protocol is seen as the others are.
    let mut native = Client::connect(served.address).await;
    native.hello("bob").await;
    native.subscribe(json!({ "channel": "kept.room", "presence": true })).await;
    let stats = ada.ask(json!({ "presence_stats": { "channel": "kept.room" } })).await;
    assert_eq!(stats["presence_stats"], json!({ "num_clients": 3, "num_users": 2 }));
    drop(bob);
    let leave = json!({ "channel": "kept.room", "leave": { "info": info } });
    while ada.push("leave").await != leave {}
    for verb in ["presence", "presence_stats"] {
        ada.subscribe(json!({ "channel": "auditlog:ada" })).await;
        assert_eq!(ada.code(json!({ verb: { "channel": "auditlog:ada" } })).await, 108);
        ada.ask(json!({ "unsubscribe": { "channel": "auditlog:ada" } })).await;
    }
}

async fn nothing_but_what_is_allowed_is_done(place: Place) {
    let served = Served::limited(&place, |limits| limits.subscriptions = 2.try_into().unwrap()).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    for channel in ["kept.secret", "nobody.declares.it", "auditlog:eve", "kept.*", "tenant:acme:update"] {
        assert_eq!(peer.code(json!({ "subscribe": { "channel": channel } })).await, 103, "{channel}");
        for verb in ["presence", "presence_stats", "history"] {
            assert_eq!(peer.code(json!({ verb: { "channel": channel } })).await, 103, "{verb} {channel}");
        }
        let publish = json!({ "publish": { "channel": channel, "data": 1 } });
        assert_eq!(peer.code(publish).await, 103, "{channel}");
    }
    // Nobody here verifies tokens of subscriptions.
    assert_eq!(peer.code(json!({ "subscribe": { "channel": "kept.a", "token": "x.y.z" } })).await, 103);
    peer.subscribe(json!({ "channel": "kept.a" })).await;
    peer.subscribe(json!({ "channel": "kept.b" })).await;
    assert_eq!(peer.code(json!({ "subscribe": { "channel": "kept.c" } })).await, 106);
    let mut reader = Peer::connect(served.address, "reader").await;
    reader.subscribe(json!({ "channel": "kept.a" })).await;
    assert_eq!(reader.code(json!({ "publish": { "channel": "kept.a", "data": 1 } })).await, 103);
    // A filter that the server imposes covers what is missed, too.
    let mut odd = Peer::connect(served.address, "odd").await;
    odd.subscribe(json!({ "channel": "kept.a" })).await;
    for (number, parity) in [(1, "odd"), (2, "even"), (3, "odd")] {
        served.publish("kept.a", json!({ "number": number, "parity": parity })).await;
    }
    assert_eq!(odd.publication().await["data"]["number"], 1);
    assert_eq!(odd.publication().await["data"]["number"], 3);
    let history = odd.ask(json!({ "history": { "channel": "kept.a", "limit": 10 } })).await;
    assert_eq!(history["history"]["publications"].as_array().unwrap().len(), 2, "{history}");
}

async fn what_is_not_offered_is_refused_with_its_code(place: Place) {
    let served = Served::at(&place).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    for (command, code) in [
        (json!({ "subscribe": { "channel": "camera.events", "type": 1 } }), 108),
        (json!({ "subscribe": { "channel": "camera.events", "type": 4 } }), 108),
        (json!({ "subscribe": { "channel": "camera.events", "tf": { "op": "eq" } } }), 107),
        (json!({ "publish": { "channel": "camera.events", "data": 1, "type": 1, "key": "k" } }), 108),
        (json!({ "sub_refresh": { "channel": "camera.events", "type": 1, "token": "t" } }), 108),
        (json!({ "sub_refresh": { "channel": "camera.events" } }), 107),
        (json!({ "rpc": { "method": "nobody" } }), 104),
        (json!({ "publish": { "channel": "camera.events" } }), 107),
    ] {
        assert_eq!(peer.code(command.clone()).await, code, "{command}");
    }
    // Differences are agreed on, or there are none.
    let answer = peer.subscribe(json!({ "channel": "camera.events", "delta": "fossil", "flag": 1 })).await;
    assert_eq!(answer, json!({}));
    served.publish("camera.events", json!({ "camera_id": 1 })).await;
    assert_eq!(peer.publication().await, json!({ "data": { "camera_id": 1 } }));
}

async fn nonsense_ends_the_connection(place: Place) {
    let served = Served::at(&place).await;
    let deep = format!("{{\"id\":1,\"rpc\":{{\"data\":{}1{}}}}}", "[".repeat(99), "]".repeat(99));
    for nonsense in [
        "[]",
        "no JSON",
        r#"{"id":1}"#,
        r#"{"id":1,"fly":{}}"#,
        r#"{"id":1,"subscribe":{}}"#,
        r#"{"subscribe":{"channel":"camera.events"}}"#,
        r#"{"id":1,"refresh":{}}"#,
        r#"{"id":-1,"connect":{}}"#,
        r#"{"id":1,"subscribe":{"channel":"c","delta":"other"}}"#,
        r#"{"id":1,"connect":{}}"#,
        &deep,
    ] {
        let mut peer = Peer::connect(served.address, "ada").await;
        peer.say_text(nonsense.to_owned()).await;
        assert_eq!(peer.ended_with().await, 3501, "{nonsense}");
    }
    let mut peer = Peer::connect(served.address, "ada").await;
    soon(peer.socket.send(Message::binary(vec![1]))).await.unwrap();
    assert_eq!(peer.ended_with().await, 3501);
    // Answers to pings are free only as far as pings come.
    let mut limits = Limits::default();
    limits.commands = Rate { burst: 8.try_into().unwrap(), per_second: 1.try_into().unwrap() };
    let strict = Served::with(&place, |builder| builder.limits(limits)).await;
    let mut peer = Peer::open(strict.address).await;
    peer.say_text("{}\n".repeat(1_000)).await;
    assert_eq!(peer.ended_with().await, 3013);
    // One that nobody has asked for does no harm.
    let mut peer = Peer::connect(served.address, "ada").await;
    peer.say_text("{}\n{}".to_owned()).await;
    peer.subscribe(json!({ "channel": "camera.events" })).await;
}

async fn the_server_ends_subscriptions_and_connections(place: Place) {
    let served = Served::at(&place).await;
    let mut ada = Peer::connect(served.address, "ada").await;
    let mut native = served.client("ada").await;
    let mut bob = Peer::connect(served.address, "bob").await;
    for peer in [&mut ada, &mut bob] {
        peer.subscribe(json!({ "channel": "kept.a" })).await;
    }
    native.subscribe(json!({ "channel": "kept.a" })).await;
    for (code, number) in [(UnsubscribeCode::Server, 2000), (UnsubscribeCode::InsufficientState, 2500)] {
        assert_eq!(served.gateway.unsubscribe("ada", "kept.a", code), if number == 2000 { 2 } else { 1 });
        let told = ada.push("unsubscribe").await;
        assert_eq!((&told["channel"], &told["unsubscribe"]["code"]), (&json!("kept.a"), &json!(number)));
        ada.subscribe(json!({ "channel": "kept.a" })).await;
    }
    assert_eq!(native.next_of("unsubscribed").await["code"], 2000);
    assert_eq!(served.gateway.unsubscribe("ada", "kept.b", UnsubscribeCode::Server), 0);
    served.publish("kept.a", 1).await;
    assert_eq!(bob.publication().await["data"], 1);

    assert_eq!(served.gateway.disconnect("nobody", DisconnectCode::ForceReconnect), 0);
    assert_eq!(served.gateway.disconnect("", DisconnectCode::ForceReconnect), 0);
    assert_eq!(served.gateway.disconnect("ada", DisconnectCode::ForceReconnect), 2);
    assert_eq!(ada.ended_with().await, 3011);
    assert_eq!(native.closed().await, Some(3011));
    assert_eq!(served.gateway.disconnect("bob", DisconnectCode::ForceNoReconnect), 1);
    assert_eq!(bob.ended_with().await, 3503);
    served.until_nobody().await;
}

async fn pings_come_however_much_a_client_says(place: Place) {
    let served = Served::limited(&place, |limits| {
        limits.ping = Duration::from_millis(300);
        limits.commands =
            Rate { burst: u32::MAX.try_into().unwrap(), per_second: u32::MAX.try_into().unwrap() };
    })
    .await;
    let mut peer = Peer::connect(served.address, "ada").await;
    // Its client counts on them, and takes a server that sends none for dead.
    let talking = async {
        while !peer.said.contains(&json!({})) {
            peer.code(json!({ "history": { "channel": "kept.a" } })).await;
        }
    };
    soon(talking).await;
    peer.say_text("{}".to_owned()).await;
}

async fn who_waits_for_an_answer_is_not_taken_for_dead(place: Place) {
    let guard = Guard::default();
    guard.set(Verb::Subscribe, Some(Mood::Never));
    let mut limits = Limits::default();
    (limits.ping, limits.pong) = (Duration::from_millis(200), Duration::from_millis(200));
    limits.decision = Duration::from_secs(4);
    let served = Served::with(&place, |builder| builder.limits(limits).state(guard)).await;
    // While a command is carried out nothing else is read, answers to pings included.
    let mut peer = Peer::connect(served.address, "ada").await;
    assert_eq!(peer.code(json!({ "subscribe": { "channel": "guarded:a" } })).await, 100);
    // Who says nothing at all is.
    assert_eq!(peer.ended_with().await, 3012);
}

async fn both_sides_know_whether_there_is_a_subscription(place: Place) {
    const ROUNDS: u64 = 300;
    let much = Rate { burst: u32::MAX.try_into().unwrap(), per_second: u32::MAX.try_into().unwrap() };
    let served = Served::limited(&place, |limits| limits.commands = much).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    peer.subscribe(json!({ "channel": "kept.a" })).await;
    let mut believes = true;
    for round in 0..ROUNDS {
        // The client leaves and comes back while the server sends it away.
        let (gateway, first) = (served.gateway.clone(), 1_000 + round * 10);
        let away = tokio::task::spawn_blocking(move || {
            gateway.unsubscribe("ada", "kept.a", UnsubscribeCode::InsufficientState)
        });
        let unsubscribe = json!({ "id": first, "unsubscribe": { "channel": "kept.a" } });
        let subscribe = json!({ "id": first + 1, "subscribe": { "channel": "kept.a" } });
        peer.say_text(format!("{unsubscribe}\n{subscribe}")).await;
        away.await.unwrap();
        peer.say_text(json!({ "id": first + 2, "rpc": {} }).to_string()).await;
        loop {
            let said = peer.next().await;
            if said["id"] == first + 2 {
                break;
            }
            if said["push"]["unsubscribe"].is_object() || said["unsubscribe"].is_object() {
                believes = false;
            } else if said["subscribe"].is_object() {
                believes = true;
            }
        }
        let answer = peer.ask(json!({ "subscribe": { "channel": "kept.a" } })).await;
        assert_eq!(answer["error"]["code"] == 105, believes, "in round {round}: {answer}");
        believes = true;
    }
}
