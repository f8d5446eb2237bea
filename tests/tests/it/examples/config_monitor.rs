//! The configuration monitor: who is told of what, in the form that is promised; what becomes of the replica; and that the
//! verification finds what is wrong.

use std::time::Duration;

use messaging_tests::{RedisServer, shared_redis, unique};
use serde_json::{Value, json};

use super::{Listener, example, run, told};
use crate::place::PATIENCE;
use crate::programs::{Ended, Program};

/// Checks what the day tells: what the service does, and what the monitor then knows.
#[track_caller]
fn check_day(lines: &[String]) {
    let service = [
        "activate_tenant acme",
        "cache_network ethereum, which all share",
        "cache_monitor whales of acme",
        "cache_trigger duty of acme",
        "cache_monitor whales of acme, paused",
        "cache_platform settings",
        "cache_network devnet of acme",
        "delete_trigger duty of acme",
        "activate_tenant globex",
        "cache_monitor minting of globex",
        "invalidate_tenant_cache acme: 2 deleted",
        "cache_monitor whales of acme",
        "deactivate_tenant globex",
        "cache_monitor minting of globex, paused",
        "pubsub blip0:tenant:globex:update has 0 subscribers",
        "delete_monitor whales of acme",
        "delete_network ethereum",
        "delete_platform settings",
        "deactivate_tenant acme",
        "invalidate_tenant_cache globex: 1 deleted",
    ];
    assert_eq!(told(lines, "service"), service);
    let monitor = [
        "subscribed blip0:tenant:acme:update",
        "resynced 3 resources of 1 active tenants",
        "refreshed tenant:acme:monitor:whales",
        "refreshed platform:platform:settings",
        "refreshed tenant:acme:network:devnet",
        "removed tenant:acme:trigger:duty",
        "subscribed blip0:tenant:globex:update",
        "refreshed tenant:globex:monitor:minting",
        "cleared tenant:acme:*, which were 2",
        "refreshed tenant:acme:monitor:whales",
        // Nothing of what is cached for it afterwards.
        "unsubscribed from what concerns globex",
        "removed tenant:acme:monitor:whales",
        "removed platform:network:ethereum",
        "removed platform:platform:settings",
        "unsubscribed from what concerns acme",
    ];
    assert_eq!(told(lines, "monitor"), monitor, "{lines:#?}");
    assert_eq!(lines.last().map(String::as_str), Some("Shut down: everything was finished."));
}

#[test]
fn the_monitor_knows_of_each_change_in_memory() {
    check_day(&run("config_monitor", &[], None).succeeded());
}

/// A program on the shared Redis, with names of its own.
struct Apart {
    channels: String,
    keys: String,
}

impl Apart {
    fn new() -> Self {
        Self { channels: format!("{}.", unique("ch")), keys: unique("cache") }
    }

    fn start(&self, arguments: &[&str]) -> Program {
        let mut command = example("config_monitor", arguments, Some(&shared_redis().url()));
        command.env("MESSAGING_CHANNEL_PREFIX", &self.channels).env("MESSAGING_CACHE_PREFIX", &self.keys);
        command.env("MESSAGING_NAMESPACE", &self.keys);
        Program::start(command)
    }
}

/// What an event is about: its kind, its resource with its id and its tenant, and what the metadata tells of it.
type Change<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, u64);

/// The metadata as text: its keys have an order.
fn metadata((kind, resource, id, _, detail): Change<'_>) -> String {
    match resource {
        _ if kind == "invalidate" => format!(r#"{{"deleted_keys":{detail}}}"#),
        "monitor" => format!(
            r#"{{"active":true,"paused":{},"validated":true,"name":"Large transfers, {id}","slug":"{id}"}}"#,
            detail == 1
        ),
        "network" => {
            format!(r#"{{"active":true,"name":"Chain {detail}","slug":"{id}","chain_id":{detail}}}"#)
        }
        "trigger" => format!(r#"{{"active":true,"validated":true,"name":"Tell {id}","slug":"{id}"}}"#),
        "platform" => r#"{"name":"Settings"}"#.to_owned(),
        "tenant" => format!(r#"{{"name":"{}{}"}}"#, id[..1].to_uppercase(), &id[1..]),
        _ => panic!("{resource}"),
    }
}

/// Hears an event on each of its channels: byte for byte, but for the moment.
#[track_caller]
fn hear_change(listener: &mut Listener, prefix: &str, change: Change<'_>) {
    let (kind, resource, id, tenant, _) = change;
    let own = match (kind, resource) {
        ("invalidate", _) => None,
        (_, "tenant") => Some("platform".to_owned()),
        (_, resource) => Some(resource.to_owned()),
    };
    let of_tenant = tenant.map(|tenant| format!("tenant:{tenant}"));
    for channel in own.into_iter().chain(of_tenant).chain(["config".to_owned()]) {
        let (heard_on, payload) = listener.hear();
        assert_eq!(heard_on, format!("{prefix}blip0:{channel}:update"), "{payload}");
        let event: Value = serde_json::from_str(&payload).unwrap();
        let timestamp = event["timestamp"].as_str().unwrap();
        let form = timestamp.replace(|c: char| c.is_ascii_digit(), "0");
        assert_eq!(form, "0000-00-00T00:00:00Z");
        let (tenant, data) = (json!(tenant), metadata(change));
        let expected = format!(
            r#"{{"event_type":"{kind}","resource_type":"{resource}","resource_id":"{id}","tenant_id":{tenant},"timestamp":"{timestamp}","metadata":{data}}}"#
        );
        assert_eq!(payload, expected);
    }
}

#[test]
fn each_operation_is_heard_on_its_channels_on_redis_and_nowhere_else() {
    let (redis, apart) = (shared_redis(), Apart::new());
    let mut listener = Listener::psubscribe(redis, &format!("{}blip0:*", apart.channels));
    check_day(&apart.start(&[]).end().succeeded());
    let (acme, globex) = (Some("acme"), Some("globex"));
    let changes = [
        ("create", "tenant", "acme", acme, 0),
        ("update", "network", "ethereum", None, 1),
        ("update", "monitor", "whales", acme, 0),
        ("update", "trigger", "duty", acme, 0),
        ("update", "monitor", "whales", acme, 1),
        ("update", "platform", "settings", None, 0),
        ("update", "network", "devnet", acme, 31_337),
        ("delete", "trigger", "duty", acme, 0),
        ("create", "tenant", "globex", globex, 0),
        ("update", "monitor", "minting", globex, 0),
        ("invalidate", "tenant", "acme", acme, 2),
        ("update", "monitor", "whales", acme, 0),
        ("delete", "tenant", "globex", globex, 0),
        ("update", "monitor", "minting", globex, 1),
        ("delete", "monitor", "whales", acme, 0),
        ("delete", "network", "ethereum", None, 1),
        ("delete", "platform", "settings", None, 0),
        ("delete", "tenant", "acme", acme, 0),
        ("invalidate", "tenant", "globex", globex, 1),
    ];
    for change in changes {
        hear_change(&mut listener, &apart.channels, change);
    }
    let end = format!("{}blip0:end", apart.channels);
    redis.cli(&["PUBLISH", &end, "nothing more"]);
    assert_eq!(listener.hear(), (end, "nothing more".to_owned()));
    // What was cached is deleted with it.
    assert_eq!(redis.cli(&["KEYS", &format!("{}:blip0:*", apart.keys)]).trim(), "");
}

/// Checks that the verification shows all events of all operations.
#[track_caller]
fn check_verified(lines: &[String]) {
    let verify = told(lines, "verify");
    let channels: Vec<&str> = verify.iter().filter_map(|line| line.strip_prefix("subscribed ")).collect();
    assert_eq!(
        channels[..5],
        ["config", "monitor", "network", "trigger", "platform"].map(|name| format!("blip0:{name}:update"))
    );
    let tenant = channels[5].strip_prefix("blip0:tenant:").and_then(|rest| rest.strip_suffix(":update"));
    tenant.unwrap().parse::<uuid::Uuid>().unwrap();
    assert_eq!(channels.len(), 6);
    let operations: Vec<&str> = verify[6..]
        .iter()
        .map(|line| line.split_once(' ').expect("an operation and its subject").0)
        .collect();
    let expected = [
        "activate_tenant",
        "cache_monitor",
        "cache_trigger",
        "cache_network",
        "cache_network",
        "cache_platform",
        "delete_monitor",
        "delete_trigger",
        "delete_network",
        "delete_platform",
        "invalidate_tenant_cache",
        "deactivate_tenant",
    ];
    assert_eq!(operations, expected);
    // Each channel has carried something, and what it was is shown.
    let events = told(lines, "event");
    assert_eq!(events.len(), 31, "{events:#?}");
    for channel in channels {
        assert!(
            events.iter().any(|event| event.starts_with(&format!("{channel} "))),
            "{channel}: {events:#?}"
        );
    }
    assert_eq!(events.iter().filter(|event| event.contains(r#"{"event_type":""#)).count(), 12);
    let verified = "Verified: 31 events, on all channels and in the form that is promised.";
    assert!(lines.iter().any(|line| line == verified), "{lines:#?}");
}

#[test]
fn the_verification_hears_all_events_in_memory_and_on_redis() {
    check_verified(&run("config_monitor", &["--role", "verify"], None).succeeded());
    let apart = Apart::new();
    // What others publish meanwhile does not disturb it.
    let others = apart.start(&["--role", "service"]);
    check_verified(&apart.start(&["--role", "verify"]).end().succeeded());
    others.end().succeeded();
}

#[test]
fn the_verification_fails_if_an_event_cannot_be_published() {
    let redis = RedisServer::start();
    for url in ["memory://", &redis.url()] {
        let mut command = example("config_monitor", &["--role", "verify"], Some(url));
        // Enough for all events but those of monitors.
        command.env("MESSAGING_MAX_PAYLOAD", "300");
        let ended = Program::start(command).end();
        let faults = told(&ended.lines, "FAULT");
        assert_eq!(faults.len(), 2, "{:#?}\n{}", ended.lines, ended.complaints);
        assert!(faults.iter().all(|fault| fault.starts_with("failed the payload for")), "{faults:#?}");
        let complaint = ended.failed(1);
        assert_eq!(complaint, "config_monitor: not verified: 2 faults, which are shown above");
    }
}

/// A monitor on a Redis of its own, and whoever changes things there by hand.
struct Watched {
    redis: RedisServer,
    monitor: Program,
}

impl Watched {
    fn start() -> Self {
        let redis = RedisServer::start();
        redis.cli(&["SET", "blip0:active:acme", r#"{"id":"acme","name":"Acme"}"#]);
        redis.cli(&["SET", "blip0:tenant:acme:monitor:m1", r#"{"id":"m1"}"#]);
        redis.cli(&["SET", "blip0:platform:network:n1", r#"{"id":"n1"}"#]);
        let monitor = Program::start(example("config_monitor", &["--role", "monitor"], Some(&redis.url())));
        let mut watched = Self { redis, monitor };
        watched.sees("resynced", "2 resources of 1 active tenants");
        watched
    }

    #[track_caller]
    fn sees(&mut self, what: &str, text: &str) {
        self.sees_within(PATIENCE, what, text);
    }

    #[track_caller]
    fn sees_within(&mut self, patience: Duration, what: &str, text: &str) {
        let expected = format!("{what} {text}");
        self.monitor.wait_for_line_within(patience, |line| {
            told(&[line.to_owned()], "monitor").first() == Some(&expected)
        });
    }

    /// As a service in Python would write it, with another form of moments.
    fn publish(&self, channel: &str, head: [&str; 3], tenant: Option<&str>) -> u64 {
        let [kind, resource, id] = head;
        let event = json!({
            "event_type": kind, "resource_type": resource, "resource_id": id, "tenant_id": tenant,
            "timestamp": "2025-01-14T15:30:00.123456+00:00", "metadata": {},
        });
        let channel = format!("blip0:{channel}:update");
        self.redis
            .cli(&["PUBLISH", &channel, &event.to_string()])
            .trim()
            .parse()
            .expect("a number of receivers")
    }
}

#[cfg(unix)]
#[test]
fn the_monitor_follows_any_service_and_its_tenants() {
    let mut watched = Watched::start();
    // (update, monitor): refreshed from Redis. (delete, monitor): removed. (invalidate, tenant): cleared.
    watched.redis.cli(&["SET", "blip0:tenant:acme:trigger:t1", r#"{"id":"t1"}"#]);
    assert_eq!(watched.publish("tenant:acme", ["update", "trigger", "t1"], Some("acme")), 1);
    watched.sees("refreshed", "tenant:acme:trigger:t1");
    watched.redis.cli(&["DEL", "blip0:tenant:acme:trigger:t1"]);
    watched.publish("tenant:acme", ["delete", "trigger", "t1"], Some("acme"));
    watched.sees("removed", "tenant:acme:trigger:t1");
    watched.publish("network", ["update", "network", "n1"], None);
    watched.sees("refreshed", "platform:network:n1");
    // What an event says of a tenant does not lead out of the channel that it is heard on.
    watched.publish("tenant:acme", ["update", "monitor", "m1"], Some("globex"));
    watched.sees("refreshed", "tenant:acme:monitor:m1");
    watched.publish("tenant:acme", ["invalidate", "tenant", "acme"], Some("acme"));
    watched.sees("cleared", "tenant:acme:*, which were 1");

    // A tenant comes and goes at run time, and nobody listens to the channels of others.
    assert_eq!(watched.publish("tenant:globex", ["update", "monitor", "m2"], Some("globex")), 0);
    watched.redis.cli(&["SET", "blip0:active:globex", r#"{"id":"globex","name":"Globex"}"#]);
    watched.publish("platform", ["create", "tenant", "globex"], Some("globex"));
    watched.sees("subscribed", "blip0:tenant:globex:update");
    watched.redis.cli(&["SET", "blip0:tenant:globex:monitor:m2", r#"{"id":"m2"}"#]);
    assert_eq!(watched.publish("tenant:globex", ["create", "monitor", "m2"], Some("globex")), 1);
    watched.sees("refreshed", "tenant:globex:monitor:m2");
    watched.redis.cli(&["DEL", "blip0:active:globex"]);
    watched.publish("platform", ["delete", "tenant", "globex"], Some("globex"));
    watched.sees("unsubscribed", "from what concerns globex");
    assert_eq!(watched.publish("tenant:globex", ["update", "monitor", "m2"], Some("globex")), 0);

    // What nobody tells of, or what was told while the connection was away, is found by the resync after it.
    watched.redis.cli(&["SET", "blip0:tenant:acme:monitor:m3", r#"{"id":"m3"}"#]);
    watched.redis.cli(&["SET", "blip0:tenant:acme:monitor:m4", r#"{"id":"m4"}"#]);
    watched.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    // m1, m3, m4 and n1: what was invalidated is in the cache still.
    watched.sees("resynced", "4 resources of 1 active tenants");
    // And without any reason every 30 seconds: the polling of old goes on.
    watched.redis.cli(&["SET", "blip0:tenant:acme:monitor:m5", r#"{"id":"m5"}"#]);
    let half_a_minute = Duration::from_secs(30);
    watched.sees_within(half_a_minute + PATIENCE, "resynced", "5 resources of 1 active tenants");

    watched.monitor.terminate();
    let lines = watched.monitor.end().succeeded();
    assert_eq!(told(&lines, "monitor").last().unwrap(), "shut down what had arrived has been handled");
}

#[cfg(unix)]
#[test]
fn a_monitor_and_a_service_are_two_processes() {
    let apart = Apart::new();
    let mut monitor = apart.start(&["--role", "monitor"]);
    monitor.wait_for_line(|line| line.contains("resynced"));
    apart.start(&["--role", "service"]).end().succeeded();
    monitor.wait_for_line(|line| line.ends_with("from what concerns acme"));
    monitor.terminate();
    let told = told(&monitor.end().succeeded(), "monitor");
    for line in ["refreshed tenant:globex:monitor:minting", "cleared tenant:acme:*, which were 2"] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
    }
}

#[test]
fn the_configuration_monitor_says_how_it_is_used() {
    for arguments in [&["--role"][..], &["--role", "bystander"], &["monitor"]] {
        let Ended { status, lines, complaints } = run("config_monitor", arguments, None);
        assert_eq!((status.code(), lines.len()), (Some(2), 0), "{arguments:?}: {complaints}");
        assert!(
            complaints.starts_with("usage: config_monitor [--role service|monitor|verify]\n"),
            "{complaints}"
        );
    }
    for role in ["service", "monitor"] {
        let complaint = run("config_monitor", &["--role", role], Some("memory://shared")).failed(1);
        assert!(complaint.contains("two processes cannot share memory"), "{complaint}");
    }
}
