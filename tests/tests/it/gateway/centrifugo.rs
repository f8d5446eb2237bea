//! The protocol of Centrifugo's clients, word by word. What those clients make of it is in `centrifuge_clients`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use messaging_core::Retention;
use messaging_gateway::{
    ClientRequest, DisconnectCode, ErrorCode, Gateway, Jwt, Limits, Rate, RpcError, UnsubscribeCode, Verb,
};
use messaging_tests::shared_redis;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::client::{Client, Served, http, serve};
use super::{Guard, Mood};
use crate::jwt::{SECRET, seconds, token};
use crate::place::{Place, Probe, on_each_backend, soon};

on_each_backend! {
    whoever_connects_is_told_what_a_client_needs
    a_whole_session_may_stand_in_the_first_frame
    events_come_as_publications_with_their_numbers
    what_a_client_publishes_says_whose_it_is
    both_protocols_are_told_the_same
    what_was_missed_comes_once_or_is_said_to_be_lost
    history_is_read_in_both_directions
    who_is_there_comes_and_goes
    nothing_but_what_is_allowed_is_done
    what_is_not_offered_is_refused_with_its_code
    nonsense_ends_the_connection
    functions_are_called_and_messages_taken
    the_server_ends_subscriptions_and_connections
    tokens_allow_renew_and_end
    a_hole_lets_clients_subscribe_again
    pings_come_however_much_a_client_says
    who_waits_for_an_answer_is_not_taken_for_dead
    both_sides_know_whether_there_is_a_subscription
}

/// A connection that speaks the protocol.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    ids: u64,
    said: VecDeque<Value>,
}

impl Peer {
    async fn open(address: SocketAddr) -> Self {
        Self::try_open(address, "", &[]).await.unwrap()
    }

    async fn try_open(
        address: SocketAddr,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        use tungstenite::client::IntoClientRequest as _;
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/connection/websocket{query}");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = soon(tokio_tungstenite::client_async(request, stream)).await?;
        Ok(Self { socket, ids: 0, said: VecDeque::new() })
    }

    async fn connect(address: SocketAddr, token: &str) -> Self {
        let mut peer = Self::open(address).await;
        let answer = peer.ask(json!({ "connect": { "token": token } })).await;
        assert!(answer["connect"]["client"].is_string(), "{answer}");
        peer
    }

    async fn say_text(&mut self, text: String) {
        soon(self.socket.send(Message::text(text))).await.unwrap();
    }

    /// Says something that has an answer, and waits for it, past what is pushed.
    async fn ask(&mut self, mut command: Value) -> Value {
        self.ids += 1;
        let id = self.ids;
        command["id"] = id.into();
        self.say_text(command.to_string()).await;
        let mut aside = VecDeque::new();
        loop {
            let said = self.next().await;
            if said["id"] == id {
                aside.append(&mut self.said);
                self.said = aside;
                return said;
            }
            aside.push_back(said);
        }
    }

    async fn subscribe(&mut self, request: Value) -> Value {
        let answer = self.ask(json!({ "subscribe": request })).await;
        assert!(answer["subscribe"].is_object(), "{answer}");
        answer["subscribe"].clone()
    }

    async fn code(&mut self, command: Value) -> u64 {
        let answer = self.ask(command).await;
        answer["error"]["code"].as_u64().unwrap_or_else(|| panic!("it is no error: {answer}"))
    }

    /// What is said next, or the code with which the connection ends.
    async fn next_or_code(&mut self) -> Result<Value, u16> {
        while self.said.is_empty() {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    self.said
                        .extend(text.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)));
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(0, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(0),
            }
        }
        Ok(self.said.pop_front().unwrap())
    }

    async fn next(&mut self) -> Value {
        self.next_or_code().await.unwrap_or_else(|code| panic!("the connection has ended with {code}"))
    }

    /// What is pushed next of this kind.
    async fn push(&mut self, kind: &str) -> Value {
        loop {
            let mut said = self.next().await;
            if said["push"][kind].is_object() {
                return said["push"].take();
            }
        }
    }

    async fn publication(&mut self) -> Value {
        self.push("pub").await["pub"].take()
    }

    async fn ended_with(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next_or_code().await {
                return code;
            }
        }
    }
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

async fn what_was_missed_comes_once_or_is_said_to_be_lost(place: Place) {
    let served = Served::at(&place).await;
    for number in 1..=3 {
        served.publish("kept.a", number).await;
    }
    served.has_read("kept.a", &json!(3)).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let begun = peer.subscribe(json!({ "channel": "kept.a" })).await;
    assert_eq!(begun["offset"], 3);
    drop(peer);
    // Another channel of the same stream takes numbers, too.
    for number in 4..=6 {
        served.publish("kept.a", number).await;
    }
    served.has_read("kept.a", &json!(6)).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let resume = |offset: u64, epoch: &Value| json!({ "channel": "kept.a", "recover": true, "offset": offset, "epoch": epoch });
    let again = peer.subscribe(resume(3, &begun["epoch"])).await;
    assert_eq!((&again["recovered"], &again["was_recovering"]), (&json!(true), &json!(true)), "{again}");
    let missed: Vec<_> = (4..=6).map(|number| json!({ "data": number, "offset": number })).collect();
    assert_eq!(again["publications"], json!(missed));
    assert_eq!((&again["offset"], &again["epoch"]), (&json!(6), &begun["epoch"]));
    served.publish("kept.a", 7).await;
    assert_eq!(peer.publication().await, json!({ "data": 7, "offset": 7 }));

    // From before the first, from the end, and from places that there are not.
    for (offset, epoch, expected) in [
        (0, begun["epoch"].clone(), Some(7)),
        (7, begun["epoch"].clone(), Some(0)),
        (70, begun["epoch"].clone(), None),
        (3, json!("another"), None),
    ] {
        peer.ask(json!({ "unsubscribe": { "channel": "kept.a" } })).await;
        let again = peer.subscribe(resume(offset, &epoch)).await;
        assert_eq!(again["was_recovering"], true);
        assert_eq!(again["recovered"] == true, expected.is_some(), "{offset}: {again}");
        let count = again["publications"].as_array().map_or(0, Vec::len);
        assert_eq!(count, expected.unwrap_or(0), "{offset}: {again}");
        assert_eq!(again["offset"], 7, "from here on it can be recovered again");
    }
    // Who wants nothing less is told so instead.
    peer.ask(json!({ "unsubscribe": { "channel": "kept.a" } })).await;
    let mut strict = resume(3, &json!("another"));
    strict["flag"] = 3.into();
    assert_eq!(peer.code(json!({ "subscribe": strict })).await, 112);
    peer.subscribe(json!({ "channel": "kept.a" })).await;
    // What is not kept cannot be recovered, and says so.
    let broadcast = json!({ "channel": "camera.events", "recover": true, "offset": 3, "epoch": "e" });
    assert_eq!(peer.subscribe(broadcast).await, json!({ "was_recovering": true }));
}

async fn history_is_read_in_both_directions(place: Place) {
    let served = Served::at(&place).await;
    for number in 1..=10 {
        served.publish("kept.a", number).await;
    }
    served.has_read("kept.a", &json!(10)).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let epoch = peer.subscribe(json!({ "channel": "kept.a" })).await["epoch"].clone();
    let since = |offset: u64| json!({ "offset": offset, "epoch": epoch });
    for (limit, since, reverse, expected) in [
        (0, None, false, vec![]),
        (3, None, false, vec![1, 2, 3]),
        (-1, None, false, (1..=10).collect()),
        (3, None, true, vec![10, 9, 8]),
        (3, Some(since(4)), false, vec![5, 6, 7]),
        (3, Some(since(4)), true, vec![3, 2, 1]),
        (9, Some(since(10)), false, vec![]),
    ] {
        let mut request = json!({ "channel": "kept.a", "limit": limit, "reverse": reverse });
        if let Some(since) = &since {
            request["since"] = since.clone();
        }
        let answer = peer.ask(json!({ "history": request })).await;
        let history = &answer["history"];
        let told: Vec<_> = history["publications"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["data"].as_u64().unwrap())
            .collect();
        assert_eq!(told, expected, "{request}");
        assert_eq!((&history["offset"], &history["epoch"]), (&json!(10), &epoch), "{request}");
    }
    for reverse in [false, true] {
        let since = json!({ "offset": 4, "epoch": "another" });
        let request = json!({ "channel": "kept.a", "limit": 3, "since": since, "reverse": reverse });
        assert_eq!(peer.code(json!({ "history": request })).await, 112);
    }
    peer.subscribe(json!({ "channel": "camera.events" })).await;
    assert_eq!(peer.code(json!({ "history": { "channel": "camera.events", "limit": 1 } })).await, 108);
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
    let (probe, gate) = (Probe::default(), std::sync::Arc::new(tokio::sync::Semaphore::new(0)));
    let (told, waits) = (probe.clone(), std::sync::Arc::clone(&gate));
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
                let waits = std::sync::Arc::clone(&waits);
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

async fn a_hole_lets_clients_subscribe_again(place: Place) {
    let mut place = place;
    place.config.max_payload = 2_000;
    let served = Served::at(&place).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    peer.subscribe(json!({ "channel": "kept.a" })).await;
    served.publish("kept.a", 1).await;
    assert_eq!(peer.publication().await["offset"], 1);
    // Another process publishes what is too large for this one.
    let mut other = place.clone();
    other.config.max_payload = 1 << 20;
    let foreign = other.builder().durable("kept.{name}", Retention::DEFAULT).build().await.unwrap();
    foreign.publish("kept.a", &"x".repeat(5_000)).await.unwrap();
    let told = peer.push("unsubscribe").await;
    assert_eq!((&told["channel"], &told["unsubscribe"]["code"]), (&json!("kept.a"), &json!(2500)));
    // Nothing comes after that, and it may begin again at once.
    foreign.publish("kept.a", &2).await.unwrap();
    served.has_read("kept.a", &json!(2)).await;
    let again =
        peer.subscribe(json!({ "channel": "kept.a", "recover": true, "offset": 1, "epoch": "?" })).await;
    assert_eq!(again["recovered"], Value::Null, "{again}");
    foreign.publish("kept.a", &3).await.unwrap();
    assert_eq!(peer.publication().await["data"], 3);
    drop(peer);
    served.until_nobody().await;
}

/// As after a failover to a replica that had not heard of the last entries: their numbers mean others then.
#[tokio::test]
async fn numbers_that_mean_other_events_than_before_are_not_gone_on_from() {
    let place = Place::redis();
    let served = Served::at(&place).await;
    let mut peer = Peer::connect(served.address, "ada").await;
    let begun = peer.subscribe(json!({ "channel": "kept.a" })).await;
    for number in 1..=10 {
        served.publish("kept.a", number).await;
        assert_eq!(peer.publication().await["offset"], number);
    }
    let keys = shared_redis().cli(&["KEYS", &format!("*{}*:n", place.config.namespace)]);
    shared_redis().cli(&["SET", keys.trim(), "4"]);
    for number in 11..=20 {
        served.publish("kept.a", number).await;
    }
    assert_eq!(peer.push("unsubscribe").await["unsubscribe"]["code"], 2500);
    served.has_read("kept.a", &json!(20)).await;
    let another = Served::at(&place).await;
    another.has_read("kept.a", &json!(20)).await;
    for served in [&served, &another] {
        let mut peer = Peer::connect(served.address, "ada").await;
        let resume = json!({ "channel": "kept.a", "recover": true, "offset": 10, "epoch": begun["epoch"] });
        let again = peer.subscribe(resume).await;
        assert_eq!((&again["recovered"], &again["offset"]), (&Value::Null, &json!(14)), "{again}");
        // From here on they are those that everybody knows.
        let resume = json!({ "channel": "kept.a", "recover": true, "offset": 14, "epoch": again["epoch"] });
        let mut peer = Peer::connect(served.address, "ada").await;
        assert_eq!(peer.subscribe(resume).await["recovered"], true);
    }
}
