use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn keys() -> Vec<String> {
    vec!["a".to_owned(), "b".to_owned()]
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn entry(id: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|text| bulk(text)).collect();
    format!("*2\r\n{}*{}\r\n{fields}", bulk(id), fields.matches('$').count())
}

fn shown(batch: &Batch) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let field = |(name, value): &(Bytes, Bytes)| format!(" {}={}", text(name), text(value));
    let one =
        |entry: &RawEntry| format!("{}{};", entry.id, entry.fields.iter().map(field).collect::<String>());
    batch
        .iter()
        .map(|(at, entries)| format!("{at}: {}", entries.iter().map(one).collect::<String>()))
        .collect()
}

fn read(answer: &str) -> Result<String, ProtocolError> {
    batch(&Bytes::from(answer.to_owned()), &keys()).map(|batch| shown(&batch))
}

#[test]
fn entries_are_read_by_the_streams_that_they_are_of() {
    let first = entry("1-0", &["id", "x", "data", "{}", "other", ""]);
    let trimmed = format!("*2\r\n{}*-1\r\n", bulk("2-0"));
    let answer = format!(
        "*2\r\n*2\r\n{}*1\r\n{}*2\r\n{}*2\r\n{}{trimmed}",
        bulk("b"),
        first,
        bulk("a"),
        entry("1-1", &["n", "1"])
    );
    assert_eq!(read(&answer).unwrap(), "1: 1-0 id=x data={} other=;0: 1-1 n=1;2-0;");
    for nothing in ["*-1\r\n", "$-1\r\n", "*0\r\n"] {
        assert_eq!(read(nothing).unwrap(), "");
    }
}

#[test]
fn what_is_no_answer_to_a_read_is_refused() {
    let of = |key: &str, entries: &str| format!("*1\r\n*2\r\n{}{entries}", bulk(key));
    let unknown_key = of("c", "*0\r\n");
    let no_id = of("a", &format!("*1\r\n{}", entry("x", &[])));
    let no_pair = of("a", "*1\r\n*3\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1\r\n");
    let a_null = of("a", &format!("*1\r\n*2\r\n{}*2\r\n$1\r\na\r\n$-1\r\n", bulk("1-0")));
    for answer in [&*unknown_key, &no_id, &no_pair, &a_null, "+OK\r\n", ":1\r\n", "*1\r\n$1\r\na\r\n"] {
        assert!(read(answer).is_err(), "{answer:?}");
    }
}

/// Any answer, up to some depth.
fn answer() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[+-][A-Za-z ]{0,8}\r\n",
        "[a-z\r\n$*]{0,40}".prop_map(|text| bulk(&text)),
        any::<i64>()
            .prop_filter("its size cannot be negated", |number| *number != i64::MIN)
            .prop_map(|number| format!(":{number}\r\n")),
        Just("$-1\r\n".to_owned()),
        Just("*-1\r\n".to_owned()),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        proptest::collection::vec(inner, 0..5).prop_map(|of| format!("*{}\r\n{}", of.len(), of.concat()))
    })
}

proptest! {
    /// However it arrives, an answer ends where the `redis` crate says that it ends.
    #[test]
    fn answers_end_where_they_end(answers in proptest::collection::vec(answer(), 1..4), step in 1usize..40) {
        let bytes = answers.concat();
        let (mut buffer, mut scan, mut found) = (BytesMut::new(), Scan::default(), Vec::new());
        for part in bytes.as_bytes().chunks(step) {
            buffer.extend_from_slice(part);
            while !buffer.is_empty() {
                match scan.whole(&buffer).unwrap() {
                    Ok(size) => {
                        let answer = buffer.split_to(size);
                        prop_assert!(redis::parse_redis_value(&answer).is_ok());
                        found.push(String::from_utf8(answer.to_vec()).unwrap());
                    }
                    Err(missing) => {
                        prop_assert!(missing > 0 && missing <= bytes.len());
                        break;
                    }
                }
            }
        }
        prop_assert_eq!(found, answers);
    }

    #[test]
    fn arbitrary_answers_never_panic(answer in answer(), text in "([*$:+-][0-9]{0,3}\r\n|[a-z]{0,5}|\r\n){0,30}") {
        let _ = read(&answer);
        let _ = read(&text);
        let _ = Scan::default().whole(text.as_bytes());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_waited_for_is_passed_over() {
    let (stream, mut peer) = tokio::io::duplex(1 << 20);
    let dialled = Dialled {
        stream: Box::new(stream),
        buffer: BytesMut::new(),
        decoder: super::super::push::Decoder::of_commands(),
        watch: Watch::default(),
    };
    let mut line = Line {
        dialled,
        out: Vec::new(),
        scan: Scan::default(),
        owed: 0,
        is_torn: false,
        usual: 0,
        endpoint: "redis".to_owned(),
    };
    line.put(&["PING"]);
    assert!(timeout(Duration::ZERO, line.ask(1)).await.is_err(), "no answer has come");
    peer.write_all(b"+first\r\n*2\r\n+second\r\n").await.unwrap();
    line.put(&["PING"]);
    assert!(timeout(Duration::ZERO, line.ask(1)).await.is_err(), "a part of the second");
    peer.write_all(b":1\r\n+third\r\n").await.unwrap();
    line.put(&["PING"]);
    assert_eq!(line.ask(1).await.unwrap(), ["+third\r\n"]);
    drop(peer);
    line.put(&["PING"]);
    assert!(line.ask(1).await.is_err());
    assert!(line.ask(0).await.is_err(), "who was cut off while writing is of no use any more");
}
