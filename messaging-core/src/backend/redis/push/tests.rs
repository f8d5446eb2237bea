use proptest::prelude::*;

use super::*;

fn decode_in_steps(limit: usize, bytes: &[u8], steps: &[usize]) -> Result<Vec<Push>, ProtocolError> {
    let mut decoder = Decoder { longest_name: 30, ..Decoder::new(limit) };
    let mut buffer = BytesMut::new();
    let mut pushes = Vec::new();
    let mut at = 0;
    for step in steps.iter().copied().chain([bytes.len()]) {
        let end = (at + step).min(bytes.len());
        buffer.extend_from_slice(&bytes[at..end]);
        decoder.decode(&mut buffer, &mut pushes)?;
        let room = decoder.missing(&buffer);
        assert!(room <= limit.max(decoder.longest_name) + 2, "no peer makes us reserve {room} bytes");
        at = end;
    }
    Ok(one_by_one(pushes))
}

/// Each message by itself.
fn one_by_one(pushes: Vec<Push>) -> Vec<Push> {
    let each = |push| match push {
        Push::Messages(Chunk { bytes, places }) => {
            assert!(!places.is_empty());
            let message = |Place { kind, pattern, channel, payload }: Place| {
                let name = if kind == Kind::Glob { pattern } else { channel.clone() };
                let (name, channel) = (bytes.slice(name), bytes.slice(channel));
                Push::Message { kind, name, channel, payload: bytes.slice(payload) }
            };
            places.into_iter().map(message).collect()
        }
        push => vec![push],
    };
    pushes.into_iter().flat_map(each).collect()
}

fn message(channel: &str, payload: &str) -> Vec<u8> {
    format!("*3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n", channel.len(), payload.len())
        .into()
}

fn shown(push: &Push) -> String {
    match push {
        Push::Message { kind: Kind::Glob, name, channel, payload } => {
            format!("Some({name:?}) {channel:?} {payload:?}")
        }
        Push::Message { kind: Kind::Channel, channel, payload, .. } => {
            format!("None {channel:?} {payload:?}")
        }
        Push::Message { kind: Kind::Sharded, channel, payload, .. } => {
            format!("sharded {channel:?} {payload:?}")
        }
        Push::Messages(_) => unreachable!("they are shown one by one"),
        Push::Oversized { channel, size } => format!("{channel:?} oversized {size}"),
        Push::Reply(reply) => format!("{reply:?}"),
        Push::Answer { .. } | Push::Lost { .. } => unreachable!("the decoder makes none"),
    }
}

#[test]
fn every_split_gives_the_same_frames() {
    let mut bytes = b"+OK\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n".to_vec();
    bytes.extend(message("a", "{\"x\":1}"));
    bytes.extend(b"*4\r\n$8\r\npmessage\r\n$2\r\nb*\r\n$2\r\nbc\r\n$0\r\n\r\n");
    bytes.extend(message("a", &"y".repeat(40)));
    bytes.extend(message(&"c".repeat(31), "{}"));
    bytes.extend(message(&"c".repeat(32), &"y".repeat(40)));
    bytes.extend(
        format!("*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$33\r\n{}\r\n$0\r\n\r\n", "c".repeat(33)).bytes(),
    );
    bytes.extend(
        format!("*4\r\n$8\r\npmessage\r\n$34\r\n{}\r\n$1\r\nc\r\n$1\r\n1\r\n", "*".repeat(34)).bytes(),
    );
    bytes.extend(
        b"-NOPERM no\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
    );
    let whole: Vec<_> = decode_in_steps(20, &bytes, &[]).unwrap().iter().map(shown).collect();
    assert_eq!(
        whole,
        [
            "Done",
            "Done",
            "None b\"a\" b\"{\\\"x\\\":1}\"",
            "Some(b\"b*\") b\"bc\" b\"\"",
            "b\"a\" oversized 40",
            "b\"\" oversized 31",
            "b\"\" oversized 32",
            "b\"\" oversized 33",
            "b\"\" oversized 34",
            "Error(\"NOPERM no\")",
            "Pong",
            "Pong",
            "Done"
        ]
    );
    for first in 0..bytes.len() {
        for second in [1, 2, 7, 30] {
            let split = decode_in_steps(20, &bytes, &[first, second]).unwrap();
            assert_eq!(split.iter().map(shown).collect::<Vec<_>>(), whole, "split at {first}+{second}");
        }
    }
    let bytewise = decode_in_steps(20, &bytes, &vec![1; bytes.len()]).unwrap();
    assert_eq!(bytewise.iter().map(shown).collect::<Vec<_>>(), whole);
}

#[test]
fn what_no_subscriber_receives_is_refused() {
    for bytes in [
        &b"!x\r\n"[..],
        b"\r\n",
        b"*9\r\n",
        b"*3\r\n$3\r\nfoo\r\n$1\r\na\r\n:1\r\n",
        b"*3\r\n:1\r\n",
        b"$-2\r\n",
        b"$99999999999999999999\r\n",
        b"*3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\nx\r\n",
        b"*3\r\n$7\r\nmessage\r\n$31\r\nccccccccccccccccccccccccccccccc\r\n$-1\r\n",
        b"*3\r\n$7\r\nmessage\r\n$31\r\nccccccccccccccccccccccccccccccc\r\n:1\r\n",
        b"*3\r\n$7\r\nmessageXX",
    ] {
        assert!(decode_in_steps(20, bytes, &[]).is_err(), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn an_oversized_payload_never_fills_the_buffer() {
    let mut decoder = Decoder::new(100);
    let mut buffer = BytesMut::new();
    let mut pushes = Vec::new();
    buffer.extend_from_slice(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1000000\r\n");
    for _ in 0..1_000 {
        buffer.extend_from_slice(&[b'x'; 1_000]);
        decoder.decode(&mut buffer, &mut pushes).unwrap();
        assert!(buffer.len() <= 2);
    }
    buffer.extend_from_slice(b"\r\n+PONG\r\n");
    decoder.decode(&mut buffer, &mut pushes).unwrap();
    assert_eq!(pushes.iter().map(shown).collect::<Vec<_>>(), ["b\"a\" oversized 1000000", "Pong"]);
}

/// A frame as a subscriber receives it, in RESP2.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..30);
    let array = |parts: &[&[u8]]| {
        let mut frame = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            // What begins with a colon is a number.
            if !part.starts_with(b":") {
                frame.extend(format!("${}\r\n", part.len()).bytes());
            }
            frame.extend_from_slice(part);
            frame.extend(b"\r\n");
        }
        frame
    };
    let count = || (-1i64..100_000).prop_map(|count| format!(":{count}"));
    prop_oneof![
        6 => (bytes(), bytes()).prop_map(move |(channel, payload)| {
            array(&[b"message", without_colon(&channel), without_colon(&payload)])
        }),
        6 => (bytes(), bytes(), bytes()).prop_map(move |(pattern, channel, payload)| {
            array(&[b"pmessage", without_colon(&pattern), without_colon(&channel), without_colon(&payload)])
        }),
        2 => ("p?(un)?subscribe", bytes(), count()).prop_map(move |(kind, channel, count)| {
            array(&[kind.as_bytes(), without_colon(&channel), count.as_bytes()])
        }),
        1 => Just(array(&[b"pong", b""])),
        1 => "\\+[A-Za-z0-9 ]{0,20}\r\n".prop_map(String::into_bytes),
        1 => "-[A-Z]{1,9} [a-z]{1,20}\r\n".prop_map(String::into_bytes),
        1 => Just(b"+PONG\r\n".to_vec()),
        1 => any::<i64>().prop_filter("its size cannot be negated", |number| *number != i64::MIN)
            .prop_map(|number| format!(":{number}\r\n").into_bytes()),
    ]
}

fn without_colon(part: &[u8]) -> &[u8] {
    &part[part.iter().take_while(|byte| **byte == b':').count()..]
}

/// What the `redis` crate's parser makes of the frames, up to the first that is not complete or not valid.
fn by_the_redis_crate(mut bytes: &[u8]) -> Vec<String> {
    let mut parser = redis::Parser::new();
    let mut frames = Vec::new();
    while let Ok(value) = parser.parse_value(&mut bytes) {
        frames.push(as_shown(value));
    }
    frames
}

fn as_shown(value: redis::Value) -> String {
    use redis::Value;
    match value {
        Value::Okay | Value::Nil | Value::BulkString(_) => "Done".to_owned(),
        Value::SimpleString(text) if text == "PONG" => "Pong".to_owned(),
        Value::SimpleString(_) => "Done".to_owned(),
        Value::Array(parts) if parts.is_empty() => "Done".to_owned(),
        Value::Int(number) => format!("Integer({number})"),
        Value::ServerError(error) => {
            format!("Error({:?})", format!("{} {}", error.code(), error.details().unwrap_or_default()))
        }
        Value::Array(parts) => {
            let parts: Vec<Bytes> = parts
                .into_iter()
                .map(|part| match part {
                    Value::BulkString(bytes) => Bytes::from(bytes),
                    other => Bytes::from(format!("{other:?}")),
                })
                .collect();
            match (&parts[0][..], &parts[1..]) {
                (b"message", [channel, payload]) => {
                    format!("{:?} {channel:?} {payload:?}", None::<Bytes>)
                }
                (b"pmessage", [pattern, channel, payload]) => {
                    format!("{:?} {channel:?} {payload:?}", Some(pattern))
                }
                (b"pong", _) => "Pong".to_owned(),
                _ => "Done".to_owned(),
            }
        }
        other => format!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn at_every_split_it_agrees_with_the_redis_crate(
        frames in proptest::collection::vec(frame(), 1..6), step in 1usize..60
    ) {
        let bytes = frames.concat();
        let expected = by_the_redis_crate(&bytes);
        prop_assert_eq!(expected.len(), frames.len());
        for first in 0..=bytes.len() {
            let steps: Vec<usize> = [first].into_iter().chain(std::iter::repeat_n(step, bytes.len() / step)).collect();
            let ours = decode_in_steps(1_000, &bytes, &steps).unwrap();
            prop_assert_eq!(ours.iter().map(shown).collect::<Vec<_>>(), &expected[..], "split at {}, then by {}", first, step);
        }
    }

    /// One byte is wrong: what it takes for a frame, the `redis` crate takes for the same. (Errors need not be UTF-8 here.)
    #[test]
    fn it_is_not_laxer_than_the_redis_crate(
        frames in proptest::collection::vec(frame(), 1..4), at in any::<prop::sample::Index>(), byte in 0u8..128
    ) {
        let mut bytes = frames.concat();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut decoder = Decoder { longest_name: 1_000, ..Decoder::new(1_000) };
        let mut pushes = Vec::new();
        let _ = decoder.decode(&mut BytesMut::from(&bytes[..]), &mut pushes);
        // They take an error's text apart in ways of their own.
        let comparable = |frame: String| if frame.starts_with("Error") { "Error".to_owned() } else { frame };
        let ours: Vec<String> = one_by_one(pushes).iter().map(shown).map(comparable).collect();
        let theirs: Vec<String> = by_the_redis_crate(&bytes).into_iter().map(comparable).collect();
        let differing = ours.iter().zip(theirs.iter().map(Some).chain(std::iter::repeat(None))).find(|(ours, theirs)| Some(*ours) != *theirs);
        prop_assert_eq!(differing, None);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
        let _ = decode_in_steps(64, &bytes, &vec![step; bytes.len() / step]);
    }

    #[test]
    fn arbitrary_resp_never_panics(text in "([*$:+-][0-9]{0,3}\r\n|message|pmessage|pong|\r\n|[a-z]{0,5}){0,30}", step in 1usize..9) {
        let _ = decode_in_steps(64, text.as_bytes(), &vec![step; text.len() / step]);
    }
}

#[test]
fn sharded_channels_are_told_apart() {
    let mut bytes = b"*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\n1\r\n".to_vec();
    bytes.extend(b"*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n");
    bytes.extend(b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n");
    for steps in [&[][..], &[1; 200]] {
        let pushes: Vec<_> = decode_in_steps(20, &bytes, steps).unwrap().iter().map(shown).collect();
        assert_eq!(pushes, ["sharded b\"a\" b\"1\"", "Done", "Unsubscribed(b\"a\")", "Done"]);
    }
}

#[test]
fn a_server_says_what_it_is() {
    let master =
        b"*3\r\n$6\r\nmaster\r\n:12\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n6380\r\n$2\r\n12\r\n+rest";
    for end in 0..master.len() {
        let mut buffer = BytesMut::from(&master[..end]);
        let expected = (end >= master.len() - 5).then_some(Role::Master);
        assert_eq!(role(&mut buffer).unwrap(), expected, "{end}");
    }
    let mut buffer = BytesMut::from(&master[..]);
    role(&mut buffer).unwrap();
    assert_eq!(&buffer[..], b"+rest", "what follows is left");
    let replica = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:3\r\n";
    assert_eq!(role(&mut BytesMut::from(&replica[..])).unwrap(), Some(Role::Other));
    let refused = Role::Refused("NOPERM no".to_owned());
    assert_eq!(role(&mut BytesMut::from(&b"-NOPERM no\r\n"[..])).unwrap(), Some(refused));
}
