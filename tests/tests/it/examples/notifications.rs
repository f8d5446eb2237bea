//! Notifications: handlers of a service, presence, rooms and live updates, in the forms that others read; what becomes of
//! failures; and what an operator is told.

use messaging_core::Timestamp;
use messaging_tests::{Python, RedisServer};
use serde_json::{Value, json};

use super::deployment::deployment;
use super::{Listener, example, run, told};
use crate::programs::{Ended, Program};

/// What handlers write of everything that is published: who, and what.
const HANDLED: [(&str, &[&str]); 7] = [
    (
        "notification",
        &[
            "userId grace, type welcome, attempt 1",
            "userId ada, type message, attempt 1",
            "userId ada, type sms, attempt 2",
        ],
    ),
    ("device", &["ada's device shows: message"]),
    ("event", &["type login, id login-1", "type purchase, id purchase-1"]),
    ("presence", &["ada is Online", "grace is Away", "ada is gone"]),
    ("chat", &["ada in lobby reads grace: hello, lobby"]),
    ("update", &["refreshes orders 7", r#"sets theme to "dark""#, "billing is up"]),
    ("skipped", &["notifications: failed to deserialize message"]),
];
const RETRIED: &str = "notifications: connection lost, attempt 1 of 3: the provider has hung up";

#[track_caller]
fn check_handled(lines: &[String]) {
    for (who, expected) in HANDLED {
        let told = told(lines, who);
        assert_eq!(told[..expected.len().min(told.len())], *expected, "{who} in {lines:#?}");
    }
    assert_eq!(told(lines, "retry"), [RETRIED]);
    // The second attempt came after the delay that the handler's policy says, with a tenth of it as jitter at most.
    let moment = |what: &str| -> u64 {
        let line = lines.iter().find(|line| line.contains(what)).unwrap();
        line.trim().split(' ').next().unwrap().parse().unwrap()
    };
    let waited = moment("type sms, attempt 2") - moment("connection lost");
    assert!(waited >= 90, "{waited} ms");
}

/// Checks what the show tells, whatever it runs on.
#[track_caller]
fn check_show(lines: &[String]) {
    check_handled(lines);
    let told = |who: &str| told(lines, who);
    // Who was online and has gone is in the table no more.
    assert_eq!(told("online"), ["grace is Away"]);
    assert_eq!(
        (told("member"), told("members")),
        (vec![r#"ada is "AWAY""#.to_owned()], vec!["0 are left".to_owned()])
    );
    // Who has left a room hears nothing more.
    assert_eq!(told("chat").last().map(String::as_str), Some("0 read it"));

    let health: Value = serde_json::from_str(&told("health")[0]).unwrap();
    let expected = json!({ "status": "UP", "details": { "channels": 5, "patterns": 1, "subscribers": 5 } });
    assert_eq!(health, expected);

    let metrics = told("metric");
    let value = |metric: &str| {
        let found = metrics.iter().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{metric} in {metrics:#?}")).parse::<u64>().unwrap()
    };
    // By template, and never by the channel of somebody.
    for (channel, published, received) in [
        ("notifications", 4, 4),
        ("presence", 3, 3),
        ("updates", 3, 3),
        ("chat:{room_id}", 2, 1),
        ("user:{user_id}", 1, 1),
    ] {
        for (kind, messages) in [("published", published), ("received", received)] {
            let metric = format!(r#"pubsub_messages{{channel="{channel}",type="{kind}"}}"#);
            assert_eq!(value(&metric), messages, "{metric}");
        }
        assert_eq!(value(&format!(r#"pubsub_subscribers{{channel="{channel}"}}"#)), 1);
    }
    assert_eq!(value(r#"pubsub_messages{channel="events.{event_type}",type="published"}"#), 2);
    assert_eq!(value(r#"pubsub_messages{channel="events.*",type="received"}"#), 2);
    let service = "notifications::notifications::NotificationSubscriber";
    // One of the calls is the second attempt; what cannot be read is no call that takes time, but it is one.
    for (channel, handler, calls) in [
        ("notifications", format!("{service}::handle_notification"), 5),
        ("events.*", format!("{service}::handle_events"), 2),
        ("presence", "notifications::presence::PresenceSystem::on_presence".to_owned(), 3),
        ("updates", "notifications::updates::handle_update".to_owned(), 3),
    ] {
        let metric =
            format!(r#"pubsub_processing_duration_count{{channel="{channel}",handler="{handler}"}}"#);
        assert_eq!(value(&metric), calls, "{metric}");
    }
    assert_eq!(lines.last().map(String::as_str), Some("Shut down: everything was finished."));
}

#[test]
fn the_show_runs_in_memory() {
    check_show(&run("notifications", &[], None).succeeded());
}

/// Hears what the publisher publishes, in the forms that are promised.
#[track_caller]
fn check_published(listener: &mut Listener) {
    let mut next = |channel: &str| -> Value {
        let (heard, payload) = listener.hear();
        assert_eq!(heard, channel, "{payload}");
        serde_json::from_str(&payload).unwrap()
    };
    let is_moment = |moment: &Value| {
        let parsed = serde_json::from_value::<Timestamp>(moment.clone());
        assert!(parsed.is_ok_and(|parsed| *moment == parsed.to_string()), "{moment}");
    };
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let is_notification = |notification: &Value, user: &str, kind: &str| {
        assert_eq!(keys(notification), ["data", "id", "timestamp", "type", "userId"]);
        assert_eq!((&notification["userId"], &notification["type"]), (&json!(user), &json!(kind)));
        assert!(notification["id"].is_string() && notification["data"].is_object(), "{notification}");
        is_moment(&notification["timestamp"]);
    };
    let is_message = |message: &Value, user: &str, kind: &str| {
        assert_eq!(keys(message), ["notification", "timestamp", "userId"]);
        assert_eq!(message["userId"], user);
        is_moment(&message["timestamp"]);
        is_notification(&message["notification"], user, kind);
    };
    is_message(&next("notifications"), "grace", "welcome");
    // The same, to the user and to all.
    let notification = next("user:ada");
    is_notification(&notification, "ada", "message");
    assert_eq!(next("notifications"), notification);
    assert_eq!(next("events.login"), json!({ "id": "login-1", "type": "login" }));
    assert_eq!(next("events.purchase"), json!({ "id": "purchase-1", "type": "purchase" }));
    for (user, status) in [("ada", "ONLINE"), ("grace", "AWAY")] {
        let message = next("presence");
        is_moment(&message["presence"]["lastSeen"]);
        let presence = json!({ "status": status, "lastSeen": message["presence"]["lastSeen"] });
        assert_eq!(message, json!({ "type": "UserOnline", "userId": user, "presence": presence }));
    }
    assert_eq!(next("presence"), json!({ "type": "UserOffline", "userId": "ada" }));
    for room in ["lobby", "attic"] {
        let expected = json!({ "userId": "grace", "text": format!("hello, {room}") });
        assert_eq!(next(&format!("chat:{room}")), expected);
    }
    assert_eq!(next("updates"), json!({ "type": "DataUpdate", "table": "orders", "id": 7 }));
    assert_eq!(next("updates"), json!({ "type": "ConfigUpdate", "name": "theme", "value": "dark" }));
    assert_eq!(next("updates"), json!({ "type": "StatusUpdate", "service": "billing", "status": "up" }));
    assert_eq!(next("notifications"), json!({ "hello": "there" }));
    is_message(&next("notifications"), "ada", "sms");
}

#[test]
fn the_show_runs_on_redis() {
    let redis = RedisServer::start();
    // Also after another run.
    for _ in 0..2 {
        check_show(&run("notifications", &[], Some(&redis.url())).succeeded());
    }
}

#[cfg(unix)]
#[test]
fn a_publisher_and_two_subscribers_exchange_messages_in_the_promised_forms() {
    let redis = RedisServer::start();
    let url = redis.url();
    let health = || run("notifications", &["--role", "health"], Some(&url));
    let up = |channels: u64, patterns: u64, subscribers: u64| {
        format!(
            r#"{{"status":"UP","details":{{"channels":{channels},"patterns":{patterns},"subscribers":{subscribers}}}}}"#
        )
    };
    assert_eq!(health().succeeded(), [up(0, 0, 0)]);
    let mut subscribers: Vec<_> = (0..2)
        .map(|_| {
            let mut program = Program::start(example("notifications", &["--role", "subscriber"], Some(&url)));
            program.wait_for_line(|line| line.starts_with("listening"));
            program
        })
        .collect();
    let mut listener = Listener::psubscribe(&redis, "[^m]*");
    let published = run("notifications", &["--role", "publisher"], Some(&url)).succeeded();
    // Two subscribers, and whoever else listens.
    assert_eq!(told(&published, "published").len(), 14, "{published:#?}");
    check_published(&mut listener);
    for program in &mut subscribers {
        program.wait_for_line(|line| line.contains("type sms, attempt 2"));
    }
    drop(listener);
    // Of the whole server: the handlers of two processes on the same channels.
    let lines = health().succeeded();
    assert!(lines[0].contains(r#""channels":5"#) && lines[0].contains(r#""subscribers":10"#), "{lines:?}");
    for program in subscribers {
        program.terminate();
        let lines = program.end().succeeded();
        check_handled(&lines);
        assert_eq!(lines.last().map(String::as_str), Some("shut down"));
    }

    // Without Redis it is down, and says why.
    redis.stop();
    let Ended { status, lines, complaints } = health();
    assert_eq!((status.code(), lines.len()), (Some(1), 1), "{complaints}");
    let down: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(down["status"], "DOWN");
    assert!(down["error"].as_str().is_some_and(|error| error.contains("refused")), "{down}");
    assert!(down.get("details").is_none());
}

/// A service in another language publishes what is described, and hears what is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_takes_part_in_notifications() {
    let Some(python) = Python::find() else { return };
    let redis = RedisServer::start();
    let url = redis.url();
    let mut subscriber = Program::start(example("notifications", &["--role", "subscriber"], Some(&url)));
    subscriber.wait_for_line(|line| line.starts_with("listening"));
    let mut script = python.run(include_str!("../../../python/participant.py"), &[&url]);
    let mut ask = async |command: Value| -> Value {
        script.send_line(&command.to_string());
        serde_json::from_str(&script.read_line().await).unwrap()
    };
    // With parts of seconds, as `Instant.now()` has them.
    let notification = json!({
        "id": "n-1", "timestamp": "2025-01-14T15:30:00.123456Z", "userId": "ada", "type": "reminder", "data": { "n": 1 },
    });
    let message = json!({
        "userId": "ada", "notification": notification, "timestamp": "2025-01-14T15:30:00.123456Z",
    });
    let presence = json!({ "status": "ONLINE", "lastSeen": "2025-01-14T15:30:00.5Z" });
    for (channel, payload, handled) in [
        ("notifications", &message, "notification  userId ada, type reminder"),
        ("notifications", &notification, "notification  userId ada, type reminder"),
        ("user:ada", &notification, "device        ada's device shows: reminder"),
        (
            "events.logout",
            &json!({ "id": "e-1", "type": "logout", "at": 3 }),
            "event         type logout, id e-1",
        ),
        (
            "presence",
            &json!({ "type": "UserOnline", "userId": "linus", "presence": presence }),
            "presence      linus is Online",
        ),
        ("presence", &json!({ "type": "UserOffline", "userId": "linus" }), "presence      linus is gone"),
        (
            "chat:lobby",
            &json!({ "userId": "linus", "text": "hi" }),
            "chat          ada in lobby reads linus: hi",
        ),
        (
            "updates",
            &json!({ "type": "StatusUpdate", "service": "search", "status": "down" }),
            "update        search is down",
        ),
        ("updates", &json!({ "type": "Rumour" }), "skipped       updates: failed to deserialize message"),
    ] {
        let publish = json!({ "do": "publish", "channel": channel, "text": payload.to_string() });
        assert_eq!(ask(publish).await, 1, "{channel}");
        subscriber.wait_for_line(|line| line.contains(handled));
    }
    ask(json!({ "do": "psubscribe", "pattern": "events.*" })).await;
    let published = run("notifications", &["--role", "publisher"], Some(&url)).succeeded();
    assert!(!published.is_empty());
    let heard = ask(json!({ "do": "receive" })).await;
    assert_eq!((&heard["pattern"], &heard["channel"]), (&json!("events.*"), &json!("events.login")));
    subscriber.terminate();
    subscriber.end().succeeded();
    script.finish().await;
}

#[test]
fn notifications_says_how_it_is_used() {
    for arguments in [&["--role"][..], &["--role", "listener"], &["subscriber"]] {
        let Ended { status, lines, complaints } = run("notifications", arguments, None);
        assert_eq!((status.code(), lines.len()), (Some(2), 0), "{arguments:?}: {complaints}");
        assert!(
            complaints.starts_with("usage: notifications [--role subscriber|publisher|health]\n"),
            "{complaints}"
        );
    }
    for role in ["subscriber", "publisher", "health"] {
        let complaint = run("notifications", &["--role", role], Some("memory://")).failed(1);
        assert!(complaint.contains("two processes cannot share memory"), "{complaint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifest_of_redis_is_as_described() {
    let Some(deployment) = deployment("notifications").await else { return };
    let manifests = deployment["manifests"].as_array().expect("there are manifests");
    let redis = manifests.iter().find(|manifest| manifest["kind"] == "Deployment").expect("there is one");
    let container = &redis["spec"]["template"]["spec"]["containers"][0];
    assert!(container["image"].as_str().unwrap().starts_with("redis:7.2"), "{container}");
    let resources = json!({
        "requests": { "memory": "2Gi", "cpu": "1" },
        "limits": { "memory": "4Gi", "cpu": "2" },
    });
    assert_eq!(container["resources"], resources);
}
