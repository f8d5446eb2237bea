//! `tail`: what is published, what was, and what is missing.

use messaging_tests::{RedisServer, eventually};
use serde_json::{Value, json};

use super::{Cli, messaging, run};
use crate::programs::Program;

/// Whether so many listen to a channel.
async fn heard(cli: &Cli, channel: &str) {
    let client = cli.messaging().await.client();
    eventually("somebody listens", async || client.pubsub_numsub([channel]).await.unwrap()[channel] == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_shown_as_they_come() {
    let cli = Cli::new();
    let mut tail = cli.start(&["tail", "orders.created", "chat:{room}", "--json", "--count", "3"]);
    heard(&cli, "orders.created").await;
    let messaging = cli.messaging().await;
    // The second subscription of the same connection.
    eventually("the template is subscribed to", async || {
        messaging.publish("chat:lobby", "hi").await.unwrap() == 1
    })
    .await;
    messaging.publish("chat:a:b", "a template's placeholder is one segment").await.unwrap();
    messaging
        .publish("orders.created", &json!({ "id": 18_446_744_073_709_551_615_u64, "b": 1, "a": 2 }))
        .await
        .unwrap();
    let redis = messaging_tests::shared_redis();
    redis.cli(&["PUBLISH", &format!("{}orders.created", cli.0.config.channel_prefix), "no \u{1b}[2J json"]);
    tail.wait_for_line(|line| line.contains("no "));
    let lines: Vec<Value> =
        tail.end().succeeded().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> =
        lines.iter().map(|line| (&line["type"], &line["channel"], &line["payload"], &line["text"])).collect();
    let (message, nothing) = (json!("message"), Value::Null);
    assert_eq!(
        shown,
        [
            (&message, &json!("chat:lobby"), &json!("hi"), &nothing),
            (
                &message,
                &json!("orders.created"),
                &json!({ "id": 18_446_744_073_709_551_615_u64, "b": 1, "a": 2 }),
                &nothing
            ),
            (&message, &json!("orders.created"), &nothing, &json!("no \u{1b}[2J json")),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_cannot_steer_the_terminal() {
    let cli = Cli::new();
    let mut tail = cli.start(&["tail", "orders.created", "-n", "2", "--color", "always"]);
    heard(&cli, "orders.created").await;
    let channel = format!("{}orders.created", cli.0.config.channel_prefix);
    messaging_tests::shared_redis().cli(&["PUBLISH", &channel, "\u{1b}[2J\u{7}"]);
    messaging_tests::shared_redis().cli(&["PUBLISH", &channel, "{\"a\":\"\u{202e}\"}"]);
    let line = tail.wait_for_line(|line| line.contains("2J"));
    assert!(line.contains("\\u{1b}[2J\\u{7}") && !line.contains('\u{7}'), "{line:?}");
    // Colours are ours.
    assert!(line.contains("\u{1b}["), "{line:?}");
    let lines = tail.end().succeeded();
    assert!(lines[1].contains("\\u202e"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_durable_channels_is_shown() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    for number in 1..=5 {
        let channel = if number == 4 { "orders.deleted" } else { "orders.created" };
        messaging.publish(channel, &number).durable().header("from", "test").await.unwrap();
    }
    let shown = |arguments: &[&str]| {
        let out = cli.run(&[arguments, &["--no-follow", "--json"]].concat()).well();
        let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.collect::<Vec<_>>()
    };
    let payloads = |arguments: &[&str]| {
        shown(arguments).iter().map(|line| line["payload"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(payloads(&["tail", "orders.created", "--since", "1h"]), [1, 2, 3, 5]);
    assert_eq!(payloads(&["tail", "orders.created", "--last", "2"]), [3, 5]);
    // Those of two streams that were appended in the same millisecond come in either order.
    let mut last = payloads(&["tail", "orders.*", "--last", "5"]);
    last.sort_unstable();
    assert_eq!(last, [1, 2, 3, 4, 5]);
    assert_eq!(payloads(&["tail", "orders.*", "--since", "1h", "-n", "1"]).len(), 1);
    assert_eq!(payloads(&["tail", "orders.deleted", "--since", "2020-01-01T00:00:00Z"]), [4]);
    let first = &shown(&["tail", "orders.created", "--since", "1h"])[0];
    assert_eq!((&first["number"], &first["headers"]), (&json!(1), &json!({ "from": "test" })));
    let position = first["position"].as_str().unwrap();
    assert_eq!(payloads(&["tail", "orders.created", "--since", position]), [2, 3, 5]);
    assert_eq!(payloads(&["tail", "orders.created", "--since", &format!("{position}.1")]), [2, 3, 5]);
    let complaint = cli.run(&["tail", "nothing.here", "--last", "1", "--no-follow"]).complaint(1);
    assert_eq!(complaint, "error: no durable channel is nothing.here: nothing was published durably");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_followed_and_what_is_missing_is_said() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    for number in 1..=4 {
        messaging.publish("orders.created", &number).durable().await.unwrap();
    }
    let past = messaging.history("orders.created").await.unwrap();
    let redis = messaging_tests::shared_redis();
    let key = format!("{}:{{{}orders.created}}:stream", cli.0.config.namespace, cli.0.config.channel_prefix);
    redis.cli(&["XDEL", &key, &past[1].position().to_string(), &past[2].position().to_string()]);
    let mut tail = cli.start(&["tail", "orders.created", "--since", "1h", "-n", "3"]);
    let gap = tail.wait_for_line(|line| line.contains("gap"));
    assert!(gap.contains("2 of ") && gap.contains("were removed before they were read"), "{gap}");
    messaging.publish("orders.created", &5).durable().await.unwrap();
    let lines = tail.end().succeeded();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[3].ends_with("#5 5"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_a_gap() {
    let redis = RedisServer::start();
    let mut command = messaging();
    command.args(["tail", "orders.created", "--json", "-n", "2"]).env("REDIS_URL", redis.url());
    let mut tail = Program::start(command);
    eventually("it listens", async || redis.cli(&["PUBLISH", "orders.created", "1"]) == "1").await;
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let gap: Value = serde_json::from_str(&tail.wait_for_line(|line| line.contains("gap"))).unwrap();
    assert!(gap["text"].as_str().unwrap().contains("the connection was lost and is back"), "{gap}");
    redis.cli(&["PUBLISH", "orders.created", "2"]);
    assert_eq!(tail.end().succeeded().len(), 3);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_well_when_it_is_told_to_or_nobody_reads() {
    let cli = Cli::new();
    for signal in ["INT", "TERM"] {
        let tail = cli.start(&["tail", "orders.created"]);
        heard(&cli, "orders.created").await;
        tail.signal(signal);
        assert!(tail.end().succeeded().is_empty());
        let client = cli.messaging().await.client();
        eventually("nobody listens", async || {
            client.pubsub_numsub(["orders.created"]).await.unwrap()["orders.created"] == 0
        })
        .await;
    }
    let messaging = cli.messaging().await;
    for number in 0..2_000 {
        messaging.publish("orders.many", &format!("{number}{}", "-".repeat(100))).durable().await.unwrap();
    }
    // As `| head -1` does.
    let mut command = cli.command(&["tail", "orders.many", "--since", "1h", "--no-follow"]);
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn what_cannot_be_tailed_is_said() {
    let cli = Cli::new();
    for (arguments, part) in [
        (&["tail", "a b"][..], "\"a b\" is not a valid channel"),
        (
            &["tail", "a", "--since", "yesterday"],
            "write a time span (10m), a time (2025-01-14T15:30:00Z) or a position",
        ),
        (&["tail", "a", "--no-follow"], "--no-follow goes with --since or --last"),
        (&["tail"], "<CHANNEL>...; try `messaging tail --help`"),
    ] {
        let complaint = cli.run(arguments).complaint(2);
        assert!(complaint.contains(part), "{complaint}");
    }
    let mut command = messaging();
    command.args(["tail", "a"]).env("REDIS_URL", "redis://127.0.0.1:1");
    assert!(run(command, None).complaint(3).contains("is it running there?"));
}
