//! The gateway as a client in another language sees it: `websockets` and `sseclient` of Python on a real Redis, with what
//! docs/gateway.md says of every message and nothing else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, SystemTime};

use messaging_core::{Messaging, Retention, Running};
use messaging_gateway::{AuthError, Builder, Credentials, Gateway, Identity, Limits, Rate};
use messaging_tests::{Python, RedisServer, Script, eventually};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::place::Place;

/// A gateway with the entities of [`crate::gateway`], and a Python program that is its client.
struct Abroad {
    script: Script,
    /// What was heard, on which connection, while something else was waited for.
    aside: Vec<(String, Value)>,
    messaging: Messaging,
    gateway: Gateway,
    _running: Running,
}

/// `ada`, or `ada~1500` with so many milliseconds left; `wrong` and `old` are refused.
async fn who(credentials: Credentials) -> Result<Identity, AuthError> {
    let token = credentials.token.ok_or_else(|| AuthError::invalid("there is no token"))?;
    match &*token {
        "wrong" => Err(AuthError::invalid("it is wrong")),
        "old" => Err(AuthError::Expired),
        token => {
            let (user, left) = token.split_once('~').unwrap_or((token, "3600000"));
            let left = Duration::from_millis(left.parse().expect("a test's token is valid"));
            let identity = Identity::user(user).with_info(json!({ "name": user }));
            Ok(identity.expiring_at(SystemTime::now() + left))
        }
    }
}

/// `None` without a Python that has what the client is made of: the suite has nothing to do then, and `cargo xtask test` says
/// so.
async fn abroad(place: &Place, limits: impl FnOnce(&mut Limits)) -> Option<Abroad> {
    abroad_with(place, limits, |builder| builder).await
}

async fn abroad_with(
    place: &Place,
    limits: impl FnOnce(&mut Limits),
    more: impl FnOnce(Builder) -> Builder,
) -> Option<Abroad> {
    let python = Python::with(&["websockets", "sseclient"])?;
    let messaging = place.builder().durable("kept.{name}", Retention::DEFAULT).build().await.unwrap();
    let mut limited = Limits::default();
    limits(&mut limited);
    let gateway = more(Gateway::builder(&messaging).authenticate(who).limits(limited)).build().unwrap();
    let running = messaging.start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = gateway.router().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let script = python.run(include_str!("../../python/gateway.py"), &[&address]);
    Some(Abroad { script, aside: Vec::new(), messaging, gateway, _running: running })
}

impl Abroad {
    async fn command(&mut self, command: Value) -> Value {
        self.script.send_line(&command.to_string());
        serde_json::from_str(&self.script.read_line().await).expect("the script answers in JSON")
    }

    async fn connect(&mut self, name: &str) {
        let connected = self.command(json!({ "do": "connect", "name": name })).await;
        assert_eq!(connected, json!({ "subprotocol": null }));
    }

    /// A connection of the user of this name, and its `welcome`.
    async fn join(&mut self, name: &str) -> Value {
        self.connect(name).await;
        self.ask(name, json!({ "type": "hello", "token": name })).await
    }

    async fn say(&mut self, name: &str, messages: Value) {
        self.command(json!({ "do": "say", "name": name, "messages": messages })).await;
    }

    async fn hear(&mut self, name: &str) -> Value {
        if let Some(place) = self.aside.iter().position(|(whose, _)| whose == name) {
            return self.aside.remove(place).1;
        }
        self.command(json!({ "do": "hear", "name": name })).await
    }

    /// The next message of this type; others are put aside.
    async fn hear_of(&mut self, name: &str, kind: &str) -> Value {
        let mut others = Vec::new();
        let found = loop {
            let message = self.hear(name).await;
            assert!(message.get("closed").is_none(), "{kind} was waited for: {message}");
            if message["type"] == kind {
                break message;
            }
            others.push((name.to_owned(), message));
        };
        self.aside.splice(..0, others);
        found
    }

    /// Says one thing and hears the next.
    async fn ask(&mut self, name: &str, message: Value) -> Value {
        self.say(name, json!([message])).await;
        self.hear(name).await
    }

    async fn subscribe(&mut self, name: &str, mut message: Value) -> Value {
        message["type"] = "subscribe".into();
        message["id"] = 1.into();
        let answer = self.ask(name, message).await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("subscribed"), &json!(1)), "{answer}");
        answer
    }

    /// What the next event holds.
    async fn data(&mut self, name: &str) -> Value {
        self.hear_of(name, "event").await["data"].take()
    }

    /// Waits for the end, as it is told and as the WebSocket is closed.
    async fn ended(&mut self, name: &str, code: u16, reason: &str) {
        let told = self.hear_of(name, "disconnect").await;
        let reconnect = code < 3500;
        assert_eq!(
            told,
            json!({ "type": "disconnect", "code": code, "reason": reason, "reconnect": reconnect })
        );
        // What came before is of no interest any more.
        self.aside.retain(|(whose, _)| whose != name);
        assert_eq!(self.hear(name).await, json!({ "closed": code, "reason": reason }));
    }

    async fn publish(&self, channel: &str, payload: &Value) {
        self.messaging.publish(channel, payload).await.unwrap();
    }

    /// Opens a stream of events, and hears its `welcome`.
    async fn stream(&mut self, name: &str, query: &str, headers: Value) {
        let opened =
            self.command(json!({ "do": "stream", "name": name, "query": query, "headers": headers })).await;
        assert_eq!(opened, json!({ "type": "text/event-stream" }));
        let welcome = self.event(name).await;
        assert_eq!((&welcome["event"], &welcome["id"]), (&json!("welcome"), &Value::Null));
        assert_eq!(welcome["data"]["user"], "ada");
    }

    async fn event(&mut self, name: &str) -> Value {
        let event = self.command(json!({ "do": "event", "name": name })).await;
        assert!(event.is_null() || event["event"] == event["data"]["type"], "{event}");
        event
    }
}

fn numbered(number: u64) -> Value {
    json!({ "number": number, "parity": if number.is_multiple_of(2) { "even" } else { "odd" } })
}

fn numbers(events: &Value) -> Vec<u64> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| event["data"]["number"].as_u64().unwrap()).collect()
}

fn position(epoch: &Value, offset: &Value) -> Value {
    json!({ "epoch": epoch, "offset": offset })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_commands_in_one_frame_are_answered_in_their_order() {
    let Some(mut python) = abroad(&Place::redis(), |_| {}).await else { return };
    python.connect("ada").await;
    let entity = json!({ "type": "subscribe", "id": 7, "entity": "CameraEvents", "params": { "complex_id": 7 }, "unknown": [] });
    let commands = json!([
        { "type": "hello", "token": "ada" },
        entity,
        { "type": "subscribe", "id": 9_007_199_254_740_991_u64, "channel": "camera.events" },
        { "type": "pong" },
        { "type": "unsubscribe", "id": 0, "channel": "camera.events" },
    ]);
    python.say("ada", commands).await;
    let mut welcome = python.hear("ada").await;
    let client = welcome["client"].take();
    client.as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    assert!((3_500_000..=3_600_000).contains(&welcome["expires_in_ms"].take().as_u64().unwrap()));
    let limits = json!({ "message": 65_536, "subscriptions": 128 });
    let expected = json!({ "type": "welcome", "client": null, "user": "ada", "ping_ms": 25_000, "pong_ms": 8_000, "expires_in_ms": null, "limits": limits });
    assert_eq!(welcome, expected);
    let answers = [
        json!({ "type": "subscribed", "id": 7, "channel": "camera.events.complex:7" }),
        json!({ "type": "subscribed", "id": 9_007_199_254_740_991_u64, "channel": "camera.events" }),
        json!({ "type": "ok", "id": 0 }),
    ];
    for answer in answers {
        assert_eq!(python.hear("ada").await, answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_as_they_were_published_and_as_they_are_filtered() {
    let Some(mut python) = abroad(&Place::redis(), |_| {}).await else { return };
    python.join("ada").await;
    python.subscribe("ada", json!({ "channel": "camera.events", "filters": { "camera_id": 7 } })).await;
    let event =
        json!({ "camera_id": 7, "text": "Grüße, Привет 🎥 \"\\\n\u{1}", "large": u64::MAX, "none": null });
    python.publish("camera.events", &json!({ "camera_id": 8 })).await;
    python.publish("camera.events", &event).await;
    let expected = json!({ "type": "event", "channel": "camera.events", "data": event });
    assert_eq!(python.hear("ada").await, expected);

    let update =
        |filters: Value| json!({ "type": "update", "id": 2, "channel": "camera.events", "filters": filters });
    for (filters, heard) in [
        (json!({ "camera_id": { "in": [1, 3] } }), vec![1, 3]),
        (json!({ "camera_id": { "eq": 2 }, "kind": "car" }), vec![2]),
        (json!({}), vec![1, 2, 3]),
    ] {
        assert_eq!(python.ask("ada", update(filters)).await, json!({ "type": "ok", "id": 2 }));
        for camera_id in 1..=3 {
            let event = json!({ "camera_id": camera_id, "kind": "car" });
            python.publish("camera.events", &event).await;
        }
        for camera_id in heard {
            assert_eq!(python.data("ada").await["camera_id"], camera_id);
        }
    }
    let unsubscribe = json!({ "type": "unsubscribe", "id": 3, "channel": "camera.events" });
    assert_eq!(python.ask("ada", unsubscribe).await, json!({ "type": "ok", "id": 3 }));
    python.subscribe("ada", json!({ "entity": "AuditLog" })).await;
    python.publish("camera.events", &json!({ "camera_id": 1 })).await;
    python.publish("auditlog:ada", &json!("her own")).await;
    assert_eq!(python.data("ada").await, "her own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_comes_after_a_cut() {
    let Some(mut python) = abroad(&Place::redis(), |_| {}).await else { return };
    for number in 1..=5 {
        python.publish("kept.a", &numbered(number)).await;
    }
    python.join("ada").await;
    let begun =
        python.subscribe("ada", json!({ "channel": "kept.a", "last": 2, "filters": { "parity": "odd" } }));
    let begun = begun.await;
    // The last two that pass the filter.
    assert_eq!((numbers(&begun["events"]), &begun["recovered"]), (vec![3, 5], &Value::Null));
    python.publish("kept.a", &numbered(7)).await;
    let event = python.hear("ada").await;
    assert_eq!(event["data"], numbered(7));

    python.command(json!({ "do": "cut", "name": "ada" })).await;
    let gateway = python.gateway.clone();
    eventually("the gateway has noticed", async || gateway.connections() == 0).await;
    for number in 8..=11 {
        python.publish("kept.a", &numbered(number)).await;
    }
    python.join("ada").await;
    let resume = position(&begun["epoch"], &event["offset"]);
    let resumed = python.subscribe("ada", json!({ "channel": "kept.a", "resume": resume })).await;
    assert_eq!(resumed["recovered"], true);
    // What the gateway has not read yet itself comes as an event.
    let mut missed = numbers(&resumed["events"]);
    if let Some(last) = resumed["events"].as_array().and_then(|events| events.last()) {
        assert_eq!(resumed["offset"], last["offset"]);
    }
    while missed.len() < 4 {
        missed.push(python.data("ada").await["number"].as_u64().unwrap());
    }
    assert_eq!(missed, [8, 9, 10, 11]);
    python.publish("kept.a", &numbered(12)).await;
    assert_eq!(python.data("ada").await, numbered(12));

    let history = |more: Value| {
        let mut message = json!({ "type": "history", "id": 4, "channel": "kept.a" });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    let past = python.ask("ada", history(json!({ "limit": 3 }))).await;
    assert_eq!(
        (&past["type"], &past["id"], numbers(&past["events"])),
        (&json!("ok"), &json!(4), vec![10, 11, 12])
    );
    assert_eq!((&past["epoch"], &past["offset"]), (&begun["epoch"], &past["events"][2]["offset"]));
    let past = python.ask("ada", history(json!({ "since": resume, "limit": 2 }))).await;
    assert_eq!(numbers(&past["events"]), [8, 9]);
    let nowhere = position(&json!("another"), &event["offset"]);
    assert_eq!(python.ask("ada", history(json!({ "since": nowhere }))).await["code"], 112);

    python.join("bob").await;
    let lost = python.subscribe("bob", json!({ "channel": "kept.a", "resume": nowhere })).await;
    assert_eq!((&lost["recovered"], &lost["events"]), (&json!(false), &Value::Null));
    assert_eq!(lost["epoch"], begun["epoch"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_write_and_see_each_other() {
    let Some(mut python) = abroad(&Place::redis(), |_| {}).await else { return };
    let ada = python.join("ada").await["client"].as_str().unwrap().to_owned();
    python.subscribe("ada", json!({ "channel": "kept.chat", "presence": true })).await;
    let joined = python.hear_of("ada", "join_leave").await;
    let of = |user: &str| json!({ "user": user, "info": { "name": user } });
    let expected =
        json!({ "type": "join_leave", "channel": "kept.chat", "joins": { &ada: of("ada") }, "leaves": {} });
    assert_eq!(joined, expected);

    let bob = python.join("bob").await["client"].as_str().unwrap().to_owned();
    python.subscribe("bob", json!({ "channel": "kept.chat", "presence": true })).await;
    let joined = python.hear_of("ada", "join_leave").await;
    assert_eq!((&joined["joins"], &joined["leaves"]), (&json!({ &bob: of("bob") }), &json!({})));
    python.say("bob", json!([{ "type": "presence", "id": 2, "channel": "kept.chat" }])).await;
    let members = python.hear_of("bob", "ok").await;
    assert_eq!(members, json!({ "type": "ok", "id": 2, "members": { &ada: of("ada"), &bob: of("bob") } }));

    let data = json!({ "text": "Привет 🎥", "sender": { "user": "ada" } });
    python.say("bob", json!([{ "type": "send", "id": 3, "channel": "kept.chat", "data": data }])).await;
    assert_eq!(python.hear_of("bob", "ok").await, json!({ "type": "ok", "id": 3 }));
    let sender = json!({ "user": "bob", "client": bob, "info": { "name": "bob" } });
    for name in ["ada", "bob"] {
        assert_eq!(python.data(name).await, json!({ "sender": sender, "data": data }));
    }

    python.command(json!({ "do": "cut", "name": "bob" })).await;
    let left = python.hear_of("ada", "join_leave").await;
    assert_eq!((&left["joins"], &left["leaves"]), (&json!({}), &json!({ &bob: of("bob") })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_is_wrong() {
    let limits = |limits: &mut Limits| {
        limits.subscriptions = NonZeroUsize::new(3).unwrap();
        let one = NonZeroU32::MIN;
        limits.sends = Rate { burst: one, per_second: one };
    };
    let Some(mut python) = abroad(&Place::redis(), limits).await else { return };
    python.connect("ada").await;
    let subscribe = |channel: &str| json!({ "type": "subscribe", "id": 1, "channel": channel });
    let unauthorized =
        json!({ "type": "error", "id": 1, "code": 101, "message": "unauthorized", "temporary": false });
    assert_eq!(python.ask("ada", subscribe("camera.events")).await, unauthorized);
    assert_eq!(python.ask("ada", json!({ "type": "hello", "token": "ada" })).await["type"], "welcome");

    let denied =
        json!({ "type": "error", "id": 1, "code": 103, "message": "permission denied", "temporary": false });
    for channel in ["nothing", "kept.secret", "auditlog:bob", "camera.*", "kept.a b"] {
        assert_eq!(python.ask("ada", subscribe(channel)).await, denied, "{channel}");
    }
    for channel in ["camera.events", "kept.a"] {
        assert_eq!(python.ask("ada", subscribe(channel)).await["type"], "subscribed");
    }
    let filtered =
        |filters: Value| json!({ "type": "update", "id": 1, "channel": "kept.a", "filters": filters });
    let verb = |verb: &str, channel: &str| json!({ "type": verb, "id": 1, "channel": channel, "data": 1 });
    let either = json!({ "type": "subscribe", "id": 1, "channel": "kept.b", "entity": "Kept" });
    let rows = [
        (subscribe("kept.a"), 105, false),
        (json!({ "type": "fly", "id": 1 }), 104, false),
        (either, 107, false),
        (filtered(json!({ "number": 1 })), 107, false),
        (filtered(json!({ "parity": { "above": 1 } })), 107, false),
        (verb("history", "camera.events"), 108, false),
        (verb("send", "camera.events"), 108, false),
        (verb("presence", "camera.events"), 108, false),
        (verb("history", "kept.b"), 103, false),
        (verb("unsubscribe", "kept.b"), 103, false),
        (json!({ "type": "refresh", "id": 1, "token": "old" }), 109, false),
    ];
    for (message, code, temporary) in rows {
        let error = python.ask("ada", message.clone()).await;
        let told = (&error["type"], &error["id"], &error["code"], &error["temporary"]);
        assert_eq!(told, (&json!("error"), &json!(1), &json!(code), &json!(temporary)), "{message}: {error}");
    }
    assert_eq!(python.ask("ada", subscribe("auditlog:ada")).await["type"], "subscribed");
    assert_eq!(python.ask("ada", subscribe("kept.b")).await["code"], 106);
    // Of each second one is allowed, and one has been refused above.
    let mut sends = vec![verb("send", "kept.a"); 5];
    sends.iter_mut().zip(10..).for_each(|(send, id)| send["id"] = id.into());
    python.say("ada", sends.into()).await;
    let many = python.hear_of("ada", "error").await;
    assert_eq!((&many["code"], &many["temporary"]), (&json!(111), &json!(true)));

    // What cannot be understood is refused and nothing more.
    python.join("bob").await;
    for text in ["{", "[]", "null", "{\"type\":\"subscribe\",\"channel\":\"kept.a\"}"] {
        python.command(json!({ "do": "say_text", "name": "bob", "text": text })).await;
        let error = python.hear("bob").await;
        assert_eq!(
            (&error["type"], &error["id"], &error["code"]),
            (&json!("error"), &Value::Null, &json!(107))
        );
    }
    assert_eq!(python.ask("bob", subscribe("kept.a")).await["type"], "subscribed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_sent_away_learns_why() {
    let limits = |limits: &mut Limits| {
        limits.unauthenticated = Duration::from_millis(500);
        limits.connections_per_user = NonZeroUsize::MIN;
    };
    let Some(mut python) = abroad(&Place::redis(), limits).await else { return };
    let hello = |token: &str| json!([{ "type": "hello", "token": token }]);
    for (token, code, reason) in [("wrong", 3500, "invalid token"), ("old", 3005, "connection expired")] {
        python.connect(token).await;
        python.say(token, hello(token)).await;
        python.ended(token, code, reason).await;
    }
    python.connect("silent").await;
    python.ended("silent", 3502, "stale").await;
    python.join("twice").await;
    python.say("twice", hello("twice")).await;
    python.ended("twice", 3501, "bad request").await;
    python.join("binary").await;
    python.command(json!({ "do": "say_bytes", "name": "binary" })).await;
    python.ended("binary", 3501, "bad request").await;
    python.join("long").await;
    let text = format!("{{\"type\":\"{}\"}}", "x".repeat(65_536));
    python.command(json!({ "do": "say_text", "name": "long", "text": text })).await;
    // There is still more of it to be read, so that the end is a reset, of which this client may see the one or the other.
    let end = python.hear("long").await;
    assert!(end["code"] == 3501 || end["closed"] == 3501, "{end}");

    python.join("ada").await;
    python.connect("ada again").await;
    python.say("ada again", hello("ada")).await;
    python.ended("ada again", 3504, "connection limit").await;
    // Another person's token.
    python.say("ada", json!([{ "type": "refresh", "id": 1, "token": "bob" }])).await;
    python.ended("ada", 3500, "invalid token").await;
    let welcome = python.join("brief~1500").await;
    assert!(welcome["expires_in_ms"].as_u64().unwrap() <= 1_500, "{welcome}");
    python.ended("brief~1500", 3005, "connection expired").await;
    python.join("polite").await;
    python.command(json!({ "do": "close", "name": "polite" })).await;
    let gateway = python.gateway.clone();
    eventually("nobody is there any more", async || gateway.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lives_as_long_as_it_answers_and_its_token_is_good() {
    let limits = |limits: &mut Limits| {
        limits.ping = Duration::from_millis(1_000);
        limits.pong = Duration::from_millis(4_000);
    };
    let Some(mut python) = abroad(&Place::redis(), limits).await else { return };
    let welcome = python.join("ada~6000").await;
    assert_eq!((&welcome["ping_ms"], &welcome["pong_ms"]), (&json!(1_000), &json!(4_000)));
    let refreshed =
        python.ask("ada~6000", json!({ "type": "refresh", "id": 1, "token": "ada~600000" })).await;
    assert_eq!((&refreshed["type"], &refreshed["id"]), (&json!("ok"), &json!(1)));
    let left = refreshed["expires_in_ms"].as_u64().unwrap();
    assert!((500_000..=600_000).contains(&left), "{left}");
    let mute = python.join("mute").await;
    assert_eq!(mute["type"], "welcome");
    // Longer than the first token was good for, and longer than a mute one is borne with.
    for _ in 0..7 {
        assert_eq!(python.hear("ada~6000").await, json!({ "type": "ping" }));
        python.say("ada~6000", json!([{ "type": "pong" }])).await;
    }
    python.ended("mute", 3012, "no pong").await;
    let subscribed = python.subscribe("ada~6000", json!({ "channel": "kept.a" })).await;
    assert_eq!(subscribed["channel"], "kept.a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_ends_says_so_first() {
    let limits = |limits: &mut Limits| limits.goaway = Duration::from_millis(700);
    let Some(mut python) = abroad(&Place::redis(), limits).await else { return };
    python.join("ada").await;
    python.stream("stream", "channel=camera.events", json!({ "Authorization": "Bearer ada" })).await;
    assert_eq!(python.event("stream").await["event"], "subscribed");
    let gateway = python.gateway.clone();
    let draining = tokio::spawn(async move { gateway.drain(Duration::from_secs(20)).await });
    assert_eq!(python.hear("ada").await, json!({ "type": "goaway", "after_ms": 700 }));
    assert_eq!(python.event("stream").await["data"], json!({ "type": "goaway", "after_ms": 700 }));
    let refused = python.command(json!({ "do": "connect", "name": "late" })).await;
    assert_eq!(refused, json!({ "refused": 503 }));
    python.ended("ada", 3001, "shutdown").await;
    let told = python.event("stream").await;
    assert_eq!((&told["event"], &told["data"]["code"]), (&json!("disconnect"), &json!(3001)));
    assert_eq!(python.event("stream").await, Value::Null);
    draining.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_proves_who_one_is_in_each_of_the_ways() {
    let Some(mut python) =
        abroad_with(&Place::redis(), |_| {}, |builder| builder.allowed_origins(["https://app.example"]))
            .await
    else {
        return;
    };
    let connect = |more: Value| {
        let mut command = json!({ "do": "connect", "name": "ada" });
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        command
    };
    let hello = json!({ "type": "hello" });
    let protocols = json!({ "subprotocols": ["messaging", "token.ada"] });
    assert_eq!(python.command(connect(protocols)).await, json!({ "subprotocol": "messaging" }));
    assert_eq!(python.ask("ada", hello.clone()).await["user"], "ada");
    let bearer = json!({ "Authorization": "Bearer ada" });
    python.command(connect(json!({ "headers": bearer }))).await;
    assert_eq!(python.ask("ada", hello.clone()).await["user"], "ada");

    let ticket = python.command(json!({ "do": "post", "path": "/ticket", "headers": bearer })).await;
    assert_eq!(ticket["expires_in_ms"], 30_000);
    let query = format!("?ticket={}", ticket["ticket"].as_str().unwrap());
    python.command(connect(json!({ "query": query }))).await;
    assert_eq!(python.ask("ada", hello).await["user"], "ada");
    let again = python.command(connect(json!({ "query": query }))).await;
    assert_eq!(again, json!({ "refused": 401 }), "it works once");
    let nobody = python.command(json!({ "do": "post", "path": "/ticket" })).await;
    assert_eq!(nobody, json!({ "refused": 401 }));

    for (origin, expected) in [
        ("https://app.example", json!({ "subprotocol": null })),
        ("https://evil.example", json!({ "refused": 403 })),
    ] {
        let connected = python.command(connect(json!({ "headers": { "Origin": origin } }))).await;
        assert_eq!(connected, expected, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_events_resume_where_they_were() {
    let Some(mut python) = abroad(&Place::redis(), |_| {}).await else { return };
    let bearer = json!({ "Authorization": "Bearer ada" });
    python.publish("kept.a", &numbered(1)).await;
    // Two kept channels, one that is not, and one that there is not; in full and in short.
    let query = "subscribe=%7B%22entity%22%3A%22Kept%22%2C%22params%22%3A%7B%22name%22%3A%22a%22%7D%2C%22last%22%3A5%7D&channel=kept.b&channel=camera.events&channel=nothing";
    python.stream("first", query, bearer.clone()).await;
    let a = python.event("first").await;
    assert_eq!((&a["event"], &a["data"]["channel"]), (&json!("subscribed"), &json!("kept.a")));
    assert_eq!(numbers(&a["data"]["events"]), [1]);
    let b = python.event("first").await;
    assert_eq!(b["data"]["channel"], "kept.b");
    let both = b["id"].as_str().unwrap().to_owned();
    assert_eq!((a["id"].as_str().unwrap().split(',').count(), both.split(',').count()), (1, 2));
    assert!(both.starts_with(a["id"].as_str().unwrap()), "{both}");
    let cameras = python.event("first").await;
    assert_eq!((&cameras["data"]["channel"], &cameras["id"]), (&json!("camera.events"), &Value::Null));
    let refused = python.event("first").await;
    assert_eq!(
        (&refused["event"], &refused["data"]["code"], &refused["id"]),
        (&json!("error"), &json!(103), &Value::Null)
    );

    python.publish("kept.b", &numbered(2)).await;
    let event = python.event("first").await;
    assert_eq!((&event["event"], &event["data"]["data"]), (&json!("event"), &numbered(2)));
    let last = event["id"].as_str().unwrap().to_owned();
    assert_ne!(last, both);
    python.publish("camera.events", &json!({ "camera_id": 1 })).await;
    let event = python.event("first").await;
    assert_eq!((&event["data"]["data"]["camera_id"], &event["id"]), (&json!(1), &Value::Null));

    python.command(json!({ "do": "leave", "name": "first" })).await;
    let gateway = python.gateway.clone();
    eventually("the gateway has noticed", async || gateway.connections() == 0).await;
    for number in 3..=4 {
        python.publish("kept.a", &numbered(number)).await;
        python.publish("kept.b", &numbered(number * 10)).await;
    }
    let header = json!({ "Authorization": "Bearer ada", "Last-Event-ID": last });
    let escaped = last.replace('%', "%25").replace('=', "%3D").replace(',', "%2C");
    let ways = [
        ("header", "channel=kept.a&channel=kept.b".to_owned(), header),
        ("query", format!("channel=kept.a&channel=kept.b&last_event_id={escaped}"), bearer.clone()),
    ];
    for (name, query, headers) in ways {
        python.stream(name, &query, headers).await;
        // With the answers, and what the gateway has not read yet itself as events.
        let mut missed = HashMap::from([("kept.a", vec![]), ("kept.b", vec![])]);
        while missed.values().map(Vec::len).sum::<usize>() < 4 {
            let told = python.event(name).await["data"].take();
            let of = missed.get_mut(told["channel"].as_str().unwrap()).unwrap();
            if told["type"] == "subscribed" {
                assert_eq!(told["recovered"], true, "{name}");
                of.extend(numbers(&told["events"]));
            } else {
                of.push(told["data"]["number"].as_u64().unwrap());
            }
        }
        assert_eq!(missed, HashMap::from([("kept.a", vec![3, 4]), ("kept.b", vec![30, 40])]), "{name}");
    }
    // A filter, and the position of another stream.
    let filters = "entity=Kept&params=%7B%22name%22%3A%22a%22%7D&filters=%7B%22parity%22%3A%22odd%22%7D&last_event_id=kept.a%3Dnowhere%252F1";
    python.stream("filtered", filters, bearer.clone()).await;
    assert_eq!(python.event("filtered").await["data"]["recovered"], false);
    for number in [6, 7] {
        python.publish("kept.a", &numbered(number)).await;
    }
    assert_eq!(python.event("filtered").await["data"]["data"], numbered(7));

    for (headers, query, status) in [
        (json!({}), "channel=kept.a", 401),
        (json!({ "Authorization": "Bearer wrong" }), "channel=kept.a", 401),
        (bearer, "", 400),
    ] {
        let stream = json!({ "do": "stream", "name": "refused", "query": query, "headers": headers });
        assert_eq!(python.command(stream).await, json!({ "refused": status }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_missing_is_told() {
    let redis = RedisServer::start();
    let Some(mut python) = abroad(&Place::at(&redis.url()), |_| {}).await else { return };
    python.join("ada").await;
    python.subscribe("ada", json!({ "channel": "camera.events" })).await;
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let gap = json!({ "type": "gap", "channel": "camera.events", "reason": "reconnected" });
    assert_eq!(python.hear("ada").await, gap);
    python.publish("camera.events", &json!(1)).await;
    assert_eq!(python.data("ada").await, 1);
}
