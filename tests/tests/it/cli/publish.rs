//! `publish`.

use messaging_core::Retention;
use messaging_tests::RedisServer;
use serde_json::json;

use super::{Cli, messaging, run, workers};
use crate::place::soon;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_its_subscribers_as_it_was_written() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    let mut subscription = messaging.subscribe("orders.created").await.unwrap();
    let payload = r#" { "b" : 18446744073709551616 , "a": "\u00e4" } "#;
    assert_eq!(cli.run(&["publish", "orders.created", payload]).well(), "1 receiver\n");
    let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
    assert_eq!(&message.payload()[..], br#"{"b":18446744073709551616,"a":"\u00e4"}"#);
    let came = cli.run_with(&["publish", "orders.created", "-", "--text", "--json"], Some("two\nlines\n"));
    assert_eq!(
        came.json(),
        json!({ "channel": "orders.created", "published": 1, "receivers": 1, "durable": false })
    );
    let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
    assert_eq!(message.json::<String>().unwrap(), "two\nlines");
    let came = cli.run_with(&["publish", "orders.created", "-", "--lines"], Some("1\n\n2\n3"));
    assert_eq!(came.well(), "3 messages, the last to 1 receiver\n");
    for number in 1..=3 {
        let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
        assert_eq!(message.json::<u32>().unwrap(), number);
    }
    let came = cli.run(&["publish", "nobody.here", "1"]).with(0);
    assert_eq!(came.out, "0 receivers\n");
    assert!(came.err.contains("nobody is subscribed"), "{}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_message_goes_into_the_stream_that_is_there() {
    let cli = Cli::new();
    let hour = Retention { max_age: std::time::Duration::from_secs(3_600), ..Retention::DEFAULT };
    let publisher = cli.0.builder().durable("orders:{id}", hour).build().await.unwrap();
    publisher.publish("orders:1", &0).await.unwrap();
    let workers = workers(&publisher, "billing", "orders:{order}").await;
    cli.run(&["publish", "orders:2", "-1", "--durable", "-H", "from=cli", "--id", "two", "--key", "k"])
        .well();
    let dead = publisher.dead_letters("billing");
    let letters = messaging_tests::eventually("it is handled", async || {
        Some(dead.list().await.unwrap()).filter(|letters| !letters.is_empty())
    });
    let letter = &letters.await[0];
    assert_eq!((letter.event_id().as_str(), letter.headers().get("from")), ("two", Some("cli")));
    workers.stop().await;
    let streams = publisher.operator().streams().await.unwrap();
    assert_eq!(streams.len(), 1, "no stream of its own: {streams:?}");
    assert_eq!(streams[0].max_age_ms, 3_600_000);
    // Whoever forgets it is told.
    let came = cli.run(&["publish", "orders:3", "1"]).with(0);
    assert!(came.err.contains("this channel is durable (orders:{p1*})"), "{}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sharded_message_reaches_sharded_subscribers() {
    if messaging_tests::shared_redis().version() < (7, 0) {
        return;
    }
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    let _subscription = messaging.subscribe_sharded("vehicle:42").await.unwrap();
    assert_eq!(cli.run(&["publish", "vehicle:42", "1", "--sharded"]).well(), "1 receiver\n");
    assert_eq!(cli.run(&["publish", "vehicle:42", "1"]).well(), "0 receivers\n");
}

#[test]
fn what_cannot_be_published_is_said() {
    let cli = Cli::new();
    for (arguments, part) in [
        (&["publish", "orders.created", "{\"id\":"][..], "the payload is not JSON: EOF while parsing"),
        (&["publish", "orders.created", "hello"], "or send text with --text"),
        (&["publish", "orders.*", "1"], "\"orders.*\" is not a valid channel"),
        (&["publish", "orders.created", "1", "--lines"], "give - as the payload"),
        (&["publish", "orders.created", "1", "--id", "x"], "--durable; try `messaging publish --help`"),
        (&["publish", "orders.created", "1", "-d", "-H", "a"], "write NAME=VALUE"),
        (&["publish", "orders.created", "1", "-d", "-H", "data=1"], "cannot be a header"),
    ] {
        let complaint = cli.run(arguments).complaint(2);
        assert!(complaint.contains(part), "{complaint}");
    }
    let complaint = cli.run_with(&["publish", "a", "-", "--lines"], Some("1\n{\n")).complaint(2);
    assert!(complaint.contains("line 2 is not JSON"), "{complaint}");
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    let complaint = cli.run_with(&["publish", "a", "-"], Some(&large)).complaint(2);
    assert!(complaint.contains("raise MESSAGING_MAX_PAYLOAD"), "{complaint}");
}

#[test]
fn what_an_acl_refuses_is_said_with_the_channel() {
    let redis = RedisServer::builder().acl("user reader on >secret ~* resetchannels &chat.* +@all").start();
    let mut command = messaging();
    command.args(["publish", "orders.created", "1"]).env("REDIS_URL", redis.url_for("reader", "secret"));
    let complaint = run(command, None).complaint(4);
    assert!(complaint.contains("\"orders.created\"") && complaint.contains("NOPERM"), "{complaint}");
    assert!(
        complaint.contains("`messaging check` says more") && !complaint.contains("secret"),
        "{complaint}"
    );
}
