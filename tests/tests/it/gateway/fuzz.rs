//! Whatever a client sends, it is answered or closed, and everybody else is served as before.

use std::time::Duration;

use futures_util::future::join_all;
use messaging_gateway::{Limits, Rate};
use messaging_tests::eventually;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Served};
use super::on_memory_and_redis;
use crate::place::{Place, soon};

on_memory_and_redis! {
    any_bytes_after_the_upgrade
    any_command_that_is_almost_right
    what_breaks_the_rules_is_told_so
}

fn limits(limits: &mut Limits) {
    let much = 100_000.try_into().unwrap();
    limits.commands = Rate { burst: much, per_second: much };
    limits.sends = limits.commands;
    limits.connections_per_user = 1_000.try_into().unwrap();
    limits.message = 4_096.try_into().unwrap();
    limits.linger = Duration::from_millis(1);
}

fn values<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// A connection of which only the bytes are known.
struct Raw(TcpStream);

impl Raw {
    async fn connect(served: &Served) -> Self {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = format!(
            "GET /subscribe HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            served.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(soon(stream.read_u8()).await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(!answer.contains("extensions"), "nothing is compressed: {answer}");
        Self(stream)
    }

    /// What came, until the other side ends it.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = soon(self.0.read_to_end(&mut rest)).await;
        rest
    }
}

/// A frame, right or wrong.
#[derive(Clone, Debug)]
struct Frame {
    first: u8,
    is_masked: bool,
    /// What the header says of the length, if it lies.
    length: Option<u64>,
    payload: Vec<u8>,
}

impl Frame {
    fn text(payload: &[u8]) -> Self {
        Self { first: 0x81, is_masked: true, length: None, payload: payload.to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or(self.payload.len() as u64);
        let mask = if self.is_masked { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match length {
            0..=125 => bytes.push(mask | length as u8),
            126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        let key = [1, 2, 3, 4];
        if self.is_masked {
            bytes.extend(key);
        }
        let masked = self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        if self.is_masked {
            bytes.extend(masked)
        } else {
            bytes.extend(&self.payload)
        }
        bytes
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        Just(br#"{"type":"hello","token":"ada"}"#.to_vec()),
        Just(br#"{"type":"subscribe","id":1,"channel":"kept.a","presence":true}"#.to_vec()),
        "[ -~\n\u{e9}]{0,200}".prop_map(String::into_bytes),
    ];
    let first = prop_oneof![4 => Just(0x81_u8), 1 => Just(0x01), 1 => Just(0x80), 2 => any::<u8>()];
    let length =
        prop_oneof![8 => Just(None), 1 => any::<u64>().prop_map(Some), 1 => (0_u64..400).prop_map(Some)];
    (first, prop::bool::weighted(0.9), length, payload)
        .prop_map(|(first, is_masked, length, payload)| Frame { first, is_masked, length, payload })
}

/// Whether everybody else is served, and nothing is left of those who were there.
async fn goes_on(served: &Served, witness: &mut Client) {
    served.publish("camera.events", json!({ "camera_id": 1 })).await;
    assert_eq!(witness.next_of("event").await["data"]["camera_id"], 1);
}

async fn nothing_is_left(served: Served, witness: Client) {
    drop(witness);
    served.until_nobody().await;
    eventually("no channel is listened to", async || served.gateway.health().details["channels"] == 0).await;
    served.until_metric("messaging_gateway_channels", |count| count == 0).await;
}

async fn witness(served: &Served) -> Client {
    let mut witness = served.client("witness").await;
    witness.subscribe(json!({ "channel": "camera.events" })).await;
    witness
}

async fn any_bytes_after_the_upgrade(place: Place) {
    let served = Served::limited(&place, limits).await;
    let mut witness = witness(&served).await;
    for cases in values(prop::collection::vec(frame(), 1..12), 160).chunks(16) {
        let served = &served;
        join_all(cases.iter().map(async |frames| {
            let mut raw = Raw::connect(served).await;
            for frame in frames {
                if raw.0.write_all(&frame.bytes()).await.is_err() {
                    break;
                }
            }
            let _ = raw.0.shutdown().await;
            let rest = raw.rest().await;
            assert!(rest.len() < 1 << 20, "{frames:?}");
        }))
        .await;
        goes_on(served, &mut witness).await;
    }
    for bytes in values(prop::collection::vec(any::<u8>(), 0..600), 32) {
        let mut raw = Raw::connect(&served).await;
        let _ = raw.0.write_all(&bytes).await;
        let _ = raw.0.shutdown().await;
        raw.rest().await;
    }
    goes_on(&served, &mut witness).await;
    nothing_is_left(served, witness).await;
}

async fn what_breaks_the_rules_is_told_so(place: Place) {
    let served = Served::limited(&place, limits).await;
    let mut witness = witness(&served).await;
    let plain = Frame::text(b"{}");
    for (what, frames) in [
        ("not masked", vec![Frame { is_masked: false, ..plain.clone() }]),
        ("compressed", vec![Frame { first: 0xc1, ..plain.clone() }]),
        ("a reserved opcode", vec![Frame { first: 0x83, ..plain.clone() }]),
        ("no UTF-8", vec![Frame::text(b"\xff\xfe")]),
        (
            "no UTF-8 across fragments",
            vec![
                Frame { first: 0x01, ..Frame::text(b"\xc3") },
                Frame { first: 0x80, ..Frame::text(b"\x28") },
            ],
        ),
        ("binary", vec![Frame { first: 0x82, ..plain.clone() }]),
        ("a fragment of nothing", vec![Frame { first: 0x80, ..plain.clone() }]),
        ("two beginnings", vec![Frame { first: 0x01, ..plain.clone() }, plain.clone()]),
        ("a large one", vec![Frame { length: Some(1 << 40), ..plain.clone() }]),
        ("a ping of many bytes", vec![Frame { first: 0x89, ..Frame::text(&[b'x'; 200]) }]),
        ("fragments that are too large together", {
            let part = [b' '; 3_000];
            vec![Frame { first: 0x01, ..Frame::text(&part) }, Frame { first: 0x80, ..Frame::text(&part) }]
        }),
    ] {
        let mut raw = Raw::connect(&served).await;
        for frame in frames {
            let _ = raw.0.write_all(&frame.bytes()).await;
        }
        let rest = raw.rest().await;
        let has = |part: &[u8]| rest.windows(part.len()).any(|window| window == part);
        assert!(has(br#"{"type":"disconnect","code":3501"#), "{what}: {:?}", String::from_utf8_lossy(&rest));
        assert!(has(&[0x88, 2 + 11, 0x0d, 0xad]), "{what}: the close frame says so too");
    }
    // Fragments that are right are one message.
    let mut raw = Raw::connect(&served).await;
    for (first, part) in [(0x01, &br#"{"type":"fly","#[..]), (0x89, b"ping"), (0x80, br#""id":77}"#)] {
        raw.0.write_all(&Frame { first, ..Frame::text(part) }.bytes()).await.unwrap();
    }
    raw.0.write_all(&Frame { first: 0x88, ..Frame::text(&[]) }.bytes()).await.unwrap();
    let rest = String::from_utf8_lossy(&raw.rest().await).into_owned();
    assert!(rest.contains(r#""id":77,"code":104"#) && rest.contains("ping"), "{rest:?}");
    goes_on(&served, &mut witness).await;
    nothing_is_left(served, witness).await;
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~\u{e9}\u{0}]{0,40}".prop_map(Value::from),
        prop_oneof![
            Just("kept.a"),
            Just("kept.secret"),
            Just("auditlog:eve"),
            Just("kept.*"),
            Just("Kept"),
            Just("camera.events"),
            Just("0-0.0"),
            Just("ada"),
            Just("18446744073709551615-18446744073709551615.18446744073709551615"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(40, 60, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[a-z]{0,6}", inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A command with some of its fields changed, left out or added.
fn almost_right() -> impl Strategy<Value = Value> {
    let whole = |kind: &str| {
        json!({
            "type": kind, "id": 5, "channel": "kept.a", "data": { "text": "x" }, "limit": 3, "last": 2,
            "filters": { "parity": "odd" }, "since": { "epoch": "e", "offset": "0-0.0" },
            "resume": { "epoch": "e", "offset": "0-0.0" }, "presence": true, "token": "ada",
        })
    };
    const KINDS: [&str; 9] =
        ["subscribe", "update", "unsubscribe", "send", "presence", "history", "refresh", "pong", "fly"];
    const FIELDS: [&str; 13] = [
        "type", "id", "channel", "data", "limit", "last", "filters", "since", "resume", "presence", "token",
        "entity", "params",
    ];
    let change = (prop::sample::select(&FIELDS[..]), prop::option::of(json_value()));
    (prop::sample::select(&KINDS[..]), prop::collection::vec(change, 0..4)).prop_map(
        move |(kind, changes)| {
            let mut command = whole(kind);
            for (field, value) in changes {
                match value {
                    Some(value) => command[field] = value,
                    None => drop(command.as_object_mut().unwrap().remove(field)),
                }
            }
            command
        },
    )
}

async fn any_command_that_is_almost_right(place: Place) {
    let served = Served::limited(&place, limits).await;
    let mut witness = witness(&served).await;
    let served_ref = &served;
    // As lines of one message, and as messages of their own.
    let cases = values((any::<bool>(), prop::collection::vec(almost_right(), 1..20)), 60);
    for cases in cases.chunks(10) {
        join_all(cases.iter().map(async |(is_joined, commands)| {
            let mut client = served_ref.client("ada").await;
            let lines: Vec<_> = commands.iter().map(Value::to_string).collect();
            if *is_joined {
                let _ = client.say_raw(Message::text(lines.join("\n"))).await;
            } else {
                for line in &lines {
                    let _ = client.say_raw(Message::text(line.as_str())).await;
                }
            }
            let last = json!({ "type": "unsubscribe", "id": 987_654, "channel": "none" });
            let _ = client.say_raw(Message::text(last.to_string())).await;
            loop {
                match client.next_or_closed().await {
                    Ok(message) if message["id"] == 987_654 => {
                        assert_eq!(message["code"], 103);
                        break;
                    }
                    Ok(message) => {
                        assert!(message["channel"] != "kept.secret" && message["channel"] != "auditlog:eve")
                    }
                    // A token of somebody else, or a message that is too large.
                    Err(code) => {
                        assert!(matches!(code, Some(3500 | 3501)), "{code:?} after {lines:?}");
                        break;
                    }
                }
            }
        }))
        .await;
        goes_on(&served, &mut witness).await;
    }
    // Thousands of lines, empty ones, huge ids, deep JSON.
    let mut client = served.client("ada").await;
    let many = [
        "{}\n".repeat(1_300),
        "\n \r\n".repeat(700),
        format!(r#"{{"type":"unsubscribe","id":{},"channel":"x"}}"#, u64::MAX),
        r#"{"type":"unsubscribe","id":99999999999999999999999999,"channel":"x"}"#.to_owned(),
        r#"{"type":"unsubscribe","id":1e3,"channel":"x"}"#.to_owned(),
        format!(r#"{{"type":"send","id":3,"channel":"x","data":{}"#, "[".repeat(3_000)),
        format!(r#"{{"type":"subscribe","id":4,"channel":"kept.{}"}}"#, "x".repeat(3_000)),
        format!(r#"{{"type":"{}"}}"#, "x".repeat(3_000)),
    ];
    for text in &many {
        client.say_text(text).await;
    }
    let answer = client.ask(json!({ "type": "unsubscribe", "channel": "none" })).await;
    assert_eq!(answer["code"], 103);
    let answers = client.aside();
    assert_eq!(answers.len(), 1_300 + many.len() - 2);
    assert_eq!(answers[1_300]["id"], u64::MAX);
    assert!(answers.iter().all(|answer| answer["type"] == "error" && answer.to_string().len() < 4_000));
    drop(client);
    goes_on(&served, &mut witness).await;
    nothing_is_left(served, witness).await;
}
