//! The cameras: four services on one Redis, in one process and in four, with others who read their keys and hear their channels.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use messaging_core::Timestamp;
use messaging_tests::{RedisServer, eventually, free_port};
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use super::{Listener, example, run, told};
use crate::asyncapi;
use crate::gateway::client::Client;
use crate::programs::{Ended, Program};

const MAC: &str = "AA:BB:CC:DD:EE:FF";
const KEY: &str = "camera:mac:AA:BB:CC:DD:EE:FF";

/// Without how long it took, and where somebody listens.
fn without_chance(told: Vec<String>) -> Vec<String> {
    let told = told.into_iter().map(|told| match told.rsplit_once(" in ") {
        Some((what, took)) if took.ends_with('s') => what.to_owned(),
        _ => match told.split_once("://127.0.0.1:") {
            Some((scheme, _)) => scheme.to_owned(),
            None => told,
        },
    });
    told.collect()
}

/// Checks what the story tells: who asks whom and when the cache answers, what becomes out of date, and who is told.
#[track_caller]
fn check_story(lines: &[String]) {
    let told = |who: &str| without_chance(told(lines, who));
    let seven = |by: &str, resolution: &str| format!(r#"{by} camera 7 is {{"resolution":"{resolution}"}}"#);
    let expected = [
        "serves http".to_owned(),
        "listens on_camera_updated on camera.settings.updated".to_owned(),
        seven("by HTTP", "1080p"),
        seven("from cache", "1080p"),
        seven("from cache", "1080p"),
        r#"by HTTP camera 8 is {"resolution":"1080p"}"#.to_owned(),
        seven("from cache", "4K"),
        r#"from cache camera 9 is {"resolution":"720p"}"#.to_owned(),
        format!("invalidated Camera {MAC} cache invalidated"),
        seven("by HTTP", "8K"),
        seven("from cache", "8K"),
        format!("by HTTP no camera {MAC}"),
    ];
    assert_eq!(told("events"), expected, "{lines:#?}");
    let expected = [
        "listens notify_admins on camera.settings.updated".to_owned(),
        format!("notify_admins to ada, grace: Camera {MAC} settings updated"),
    ];
    assert_eq!(told("notifications"), expected);
    let expected = [
        "serves http",
        "PATCH /cameras/7: 200 OK",
        "POST /import: 200 OK",
        "PUT /cameras/7/settings: 200 OK",
        "DELETE /cameras/7: 204 No Content",
    ];
    assert_eq!(told("access-control"), expected);
    assert_eq!(told("gateway"), ["serves ws", "found CameraEvents by /__schema of events"]);
    assert_eq!(told("cache"), ["camera:mac:… nothing"]);

    let motion = ["event motion_detected at camera 7"; 3];
    let all = [&["subscribed camera.events"][..], &motion, &["event line_crossed at camera 8"]].concat();
    assert_eq!(told("browser-all"), all);
    let filtered = [&[r#"subscribed camera.events, only {"camera_id":7}"#][..], &motion].concat();
    assert_eq!(told("browser-7"), filtered);
    assert_eq!(told("browser-12"), [&["subscribed camera.events.complex:12"][..], &motion].concat());

    let monitoring = told("monitoring");
    let number = |line: &str, before: &str| -> u64 {
        let number = line.strip_prefix(before).unwrap_or_else(|| panic!("{before} is not before {line}"));
        number.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(number(&monitoring[0], "redis connected clients: ") > 0);
    assert!(number(&monitoring[1], "redis active channels: ") > 0);
    let cached = monitoring.iter().find(|line| line.contains("get_camera_by_mac")).unwrap();
    assert!(cached.ends_with(" hits, 4 loads, 2 invalidated by what was published"), "{cached}");
    assert_eq!(lines.last().map(String::as_str), Some("Shut down: everything was finished."));
}

#[test]
fn the_story_is_told_in_memory() {
    check_story(&run("cameras", &[], None).succeeded());
}

/// Hears an event of a camera, in the form and on the channels that are promised.
#[track_caller]
fn hear_event(
    listener: &mut Listener,
    kind: &str,
    camera: u64,
    mac: &str,
    data: &Value,
    complex: Option<u64>,
) {
    let complexes = complex.map(|id| format!("camera.events.complex:{id}"));
    for expected in [Some("camera.events".to_owned()), complexes].into_iter().flatten() {
        let (channel, payload) = listener.hear();
        let event: Value = serde_json::from_str(&payload).unwrap();
        let timestamp = event["timestamp"].as_str().unwrap();
        assert_eq!(timestamp.parse::<Moment>(), Ok(Moment), "{payload}");
        let complex = complex.map(|id| format!(r#","complex_id":{id}"#)).unwrap_or_default();
        let form = format!(
            r#"{{"event_type":"{kind}","camera_id":{camera},"mac_address":"{mac}","timestamp":"{timestamp}","data":{data}{complex}}}"#
        );
        assert_eq!((channel, payload), (expected, form));
    }
}

/// RFC 3339 in UTC.
#[derive(Debug, PartialEq)]
struct Moment;

impl std::str::FromStr for Moment {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let moment: Timestamp = serde_json::from_value(text.into()).map_err(drop)?;
        (moment.to_string() == text).then_some(Self).ok_or(())
    }
}

#[test]
fn the_story_is_told_on_redis_where_anybody_can_hear_it() {
    let redis = RedisServer::start();
    let mut listener = Listener::psubscribe(&redis, "camera.*");
    // What the first run leaves behind does not disturb the second one.
    for _ in 0..2 {
        check_story(&run("cameras", &[], Some(&redis.url())).succeeded());
        let motion = json!({ "eventType": "VMD" });
        let mut seven = |times| {
            for _ in 0..times {
                hear_event(&mut listener, "motion_detected", 7, MAC, &motion, Some(12));
            }
        };
        seven(3);
        let crossed = json!({ "event": "line_crossed" });
        hear_event(&mut listener, "line_crossed", 8, "AA:BB:CC:DD:EE:00", &crossed, None);
        assert_eq!(listener.hear(), ("camera.updated".to_owned(), published("4K")));
        hear_event(&mut listener, "motion_detected", 7, MAC, &motion, Some(12));
        // Nobody is told of what is imported.
        hear_event(&mut listener, "alarm", 9, "AA:BB:CC:DD:EE:01", &json!({}), None);
        let changed = format!(r#"{{"id":7,"mac_address":"{MAC}","settings":{{"resolution":"8K"}}}}"#);
        assert_eq!(listener.hear(), ("camera.settings.updated".to_owned(), changed));
        for _ in 0..2 {
            hear_event(&mut listener, "motion_detected", 7, MAC, &motion, Some(12));
        }
        assert_eq!(listener.hear(), ("camera.deleted".to_owned(), published("8K")));
    }
}

/// Camera 7, as its changes are published.
fn published(resolution: &str) -> String {
    format!(
        r#"{{"id":7,"mac_address":"{MAC}","model":"Hikvision DS-2CD","settings":{{"resolution":"{resolution}"}}}}"#
    )
}

/// Camera 7, as it is cached.
fn cached(resolution: &str) -> String {
    let published = published(resolution);
    format!(r#"{},"complex_id":12}}"#, published.strip_suffix('}').unwrap())
}

/// A role in a process of its own, and where it listens.
struct Role {
    program: Program,
    port: u16,
}

impl Role {
    fn start(name: &str, port: u16, url: &str, more: &[(&str, u16)]) -> Self {
        let number = port.to_string();
        let mut command = example("cameras", &["--role", name, "--port", &number], Some(url));
        command.envs(more.iter().map(|(variable, port)| (variable, format!("http://127.0.0.1:{port}"))));
        let mut program = Program::start(command);
        program.wait_for_line(|line| line.starts_with(&format!("{name} on ")));
        Self { program, port }
    }

    /// Sends a request once it listens; the answer's status and body.
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let body = body.to_string();
        let head = format!("{method} {path} HTTP/1.0\r\nhost: cameras\r\ncontent-type: application/json\r\n");
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("it answers");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("it is text");
        let (_, body) = rest.split_once("\r\n\r\n").expect("a head ends");
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Camera 7 has seen something move.
    #[track_caller]
    fn moves(&self) -> Value {
        let (status, event) =
            self.ask("POST", "/raw", &json!({ "mac_address": MAC, "data": { "eventType": "VMD" } }));
        assert_eq!(status, 202, "{event}");
        event
    }

    /// Ends it as a supervisor does.
    #[track_caller]
    fn end(self) -> Ended {
        self.program.terminate();
        let ended = self.program.end();
        assert!(ended.status.success(), "{}: {}", ended.status, ended.complaints);
        assert!(ended.lines.last().is_some_and(|line| line.contains("shut down")), "{:?}", ended.lines);
        ended
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn four_services_in_four_processes_share_what_is_on_redis() {
    let redis = RedisServer::start();
    let url = redis.url();
    let mut keys = redis::Client::open(&*url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut listener = Listener::psubscribe(&redis, "camera.*");
    // The gateway finds what the others have to offer when they are there.
    let ports = [free_port(), free_port(), free_port()];
    let [access_control, events, gateway] = ports;
    let (at_access_control, at_events) = (("ACCESS_CONTROL_URL", access_control), ("EVENTS_URL", events));
    let mut gateway = Role::start("gateway", gateway, &url, &[at_access_control, at_events]);
    let address = ([127, 0, 0, 1], gateway.port).into();
    let mut early = Client::connect(address).await;
    early.say(json!({ "type": "hello" })).await;
    let subscribe = json!({ "type": "subscribe", "entity": "CameraEvents" });
    assert_eq!(early.ask(subscribe).await["code"], 103);
    let access_control = Role::start("access-control", access_control, &url, &[]);
    let mut events = Role::start("events", events, &url, &[at_access_control]);
    let mut notifications = Role::start("notifications", free_port(), &url, &[]);
    gateway.program.wait_for_line(|line| line.contains("found") && line.contains("CameraEvents"));
    // A cached function is kept from when what invalidates it is heard on.
    for role in [&access_control, &events] {
        eventually("it is ready", async || role.ask("GET", "/readyz", &Value::Null).0 == 200).await;
    }
    eventually("both handlers are subscribed", async || {
        let mut asked = redis::cmd("PUBSUB");
        asked.arg("NUMSUB").arg("camera.settings.updated");
        asked.query_async::<(String, u64)>(&mut keys.clone()).await.unwrap().1 == 2
    })
    .await;

    // Clients of the gateway: of one camera, of several, of a complex.
    let mut clients = Vec::new();
    for wanted in [
        json!({ "filters": { "camera_id": 7 } }),
        json!({ "filters": { "camera_id": { "in": [7, 8] }, "complex_id": 12 } }),
        json!({ "filters": { "complex_id": { "in": [11, 12] } } }),
        json!({ "params": { "complex_id": 12 } }),
    ] {
        let mut client = Client::connect(address).await;
        client.say(json!({ "type": "hello" })).await;
        client.next_of("welcome").await;
        let mut subscribe = wanted;
        subscribe["entity"] = "CameraEvents".into();
        client.subscribe(subscribe).await;
        clients.push(client);
    }
    let mut stranger = Client::connect(address).await;
    stranger.say(json!({ "type": "hello" })).await;
    stranger
        .subscribe(json!({ "entity": "CameraEvents", "filters": { "camera_id": 8, "complex_id": 12 } }))
        .await;

    // The first time by HTTP, then from Redis, where it is plain JSON for an hour at most.
    assert_eq!(keys.exists(KEY).await, Ok(false));
    let event = events.moves();
    events.program.wait_for_line(|line| line.contains("by HTTP"));
    eventually("it is cached", async || keys.clone().get(KEY).await == Ok(Some(cached("1080p")))).await;
    let ttl: u64 = keys.ttl(KEY).await.unwrap();
    assert!((3200..=3600).contains(&ttl), "{ttl}");
    events.moves();
    events.program.wait_for_line(|line| line.contains("from cache"));
    let data = json!({ "eventType": "VMD" });
    for _ in 0..2 {
        hear_event(&mut listener, "motion_detected", 7, MAC, &data, Some(12));
    }
    for client in &mut clients {
        let heard = client.data(2).await;
        assert_eq!((&heard[0], heard.len()), (&event, 2));
    }

    // A model without a known vendor; what there is of models is kept for a day.
    let other = json!({ "mac_address": "AA:BB:CC:DD:EE:00", "data": { "event": "line_crossed" } });
    assert_eq!(events.ask("POST", "/raw", &other).0, 202);
    hear_event(&mut listener, "line_crossed", 8, "AA:BB:CC:DD:EE:00", &other["data"], None);
    eventually("models are cached", async || keys.clone().exists("camera:models").await == Ok(true)).await;
    let ttl: u64 = keys.ttl("camera:models").await.unwrap();
    assert!((77_000..=86_400).contains(&ttl), "{ttl}");

    // A change is published, and the model keeps its own entry.
    let (status, camera) =
        access_control.ask("PATCH", "/cameras/7", &json!({ "settings": { "resolution": "4K" } }));
    assert_eq!((status, &camera["settings"]["resolution"]), (200, &json!("4K")));
    assert_eq!(listener.hear(), ("camera.updated".to_owned(), published("4K")));
    assert_eq!(keys.get(KEY).await, Ok(Some(cached("4K"))));
    let ttl: u64 = keys.ttl(KEY).await.unwrap();
    assert!((3500..=3600).contains(&ttl), "{ttl}");

    let made = json!({
        "id": 9, "mac_address": "AA:BB:CC:DD:EE:09", "model": null, "settings": {}, "complex_id": null,
    });
    assert_eq!(access_control.ask("POST", "/cameras", &made), (201, made));
    let created = r#"{"id":9,"mac_address":"AA:BB:CC:DD:EE:09","model":null,"settings":{}}"#;
    assert_eq!(listener.hear(), ("camera.created".to_owned(), created.to_owned()));
    let entry = created.replace('}', "").replace(r#""settings":{"#, r#""settings":{},"complex_id":null}"#);
    assert_eq!(keys.get("camera:mac:AA:BB:CC:DD:EE:09").await, Ok(Some(entry)));

    // Two services react to the settings.
    let (status, _) = access_control.ask("PUT", "/cameras/7/settings", &json!({ "resolution": "8K" }));
    assert_eq!(status, 200);
    let notified = format!("to ada, grace: Camera {MAC} settings updated");
    notifications.program.wait_for_line(|line| line.ends_with(&notified));
    events.program.wait_for_line(|line| line.ends_with(&format!("Camera {MAC} cache invalidated")));
    assert_eq!(keys.exists(KEY).await, Ok(false));
    eventually("users are cached", async || keys.clone().exists("users:active").await == Ok(true)).await;
    let ttl: u64 = keys.ttl("users:active").await.unwrap();
    assert!((260..=300).contains(&ttl), "{ttl}");
    assert_eq!(listener.hear().0, "camera.settings.updated");
    // Who does not say which camera changes nothing.
    for payload in ["{}", r#"{"mac_address":"AA:BB:CC:DD:EE:09"}"#] {
        let _: u64 = keys.publish("camera.settings.updated", payload).await.unwrap();
        assert_eq!(listener.hear().1, payload);
    }
    events.program.wait_for_line(|line| line.ends_with("Camera AA:BB:CC:DD:EE:09 cache invalidated"));
    assert_eq!(keys.exists("camera:models").await, Ok(true));

    // A program that knows nothing of us publishes, and the value goes; it writes one, and it is served.
    events.moves();
    eventually("it is cached", async || keys.clone().get(KEY).await == Ok(Some(cached("8K")))).await;
    let foreign = json!({ "mac_address": MAC }).to_string();
    let _: u64 = keys.publish("camera.updated", &foreign).await.unwrap();
    eventually("the event invalidates", async || keys.clone().exists(KEY).await == Ok(false)).await;
    let _: () = keys.set(KEY, cached("1080p").replace("12", "13")).await.unwrap();
    assert_eq!(events.moves()["complex_id"], 13);
    let _: () = keys.del(KEY).await.unwrap();

    // AccessControl is away: there is an answer, which is not kept, and an error in the log.
    access_control.end().succeeded();
    let away = json!({ "mac_address": MAC, "data": {} });
    assert_eq!(events.ask("POST", "/raw", &away).0, 404);
    events.program.wait_for_line(|line| line.contains("failed to fetch camera") && line.contains(MAC));
    assert_eq!(keys.exists(KEY).await, Ok(false));
    let access_control = Role::start("access-control", ports[0], &url, &[]);
    events.moves();

    // What was filtered out has not come.
    let aside = stranger.take_aside();
    assert!(aside.iter().all(|message| message["type"] != "event"), "{aside:?}");
    let lines = events.end().succeeded();
    let invalidated = told(&lines, "events").into_iter().filter(|told| told.starts_with("invalidated"));
    assert_eq!(invalidated.count(), 2, "{lines:#?}");
    for role in [gateway, notifications, access_control] {
        role.end().succeeded();
    }
}

#[test]
fn a_role_needs_a_redis_and_a_port_of_its_own() {
    for role in ["access-control", "events", "notifications", "gateway"] {
        let complaint = run("cameras", &["--role", role], None).failed(1);
        assert!(complaint.contains("two processes cannot share memory; set REDIS_URL"), "{complaint}");
    }
    let redis = RedisServer::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let arguments = ["--role", "events", "--port", &address.port().to_string()];
    let complaint = run("cameras", &arguments, Some(&redis.url())).failed(1);
    assert!(complaint.starts_with(&format!("cameras: cannot listen on {address}, try another --port: ")));
}

#[tokio::test]
async fn three_ways_to_cache_a_camera_leave_the_same_in_redis() {
    let (redis, mut listener) = {
        let redis = RedisServer::start();
        let listener = Listener::psubscribe(&redis, "camera.*");
        (redis, listener)
    };
    let lines = run("cameras", &["migration"], Some(&redis.url())).succeeded();
    let entry = |resolution: &str| {
        let camera: Value = serde_json::from_str(&cached(resolution)).unwrap();
        format!("  {KEY} = {camera}")
    };
    let event: Value = serde_json::from_str(&published("8K")).unwrap();
    let expected = [
        "By hand, with the redis crate",
        &entry("1080p"),
        "",
        "With CacheManager",
        &entry("4K"),
        "",
        "By the model",
        &entry("8K"),
        &format!("  and published on camera.updated: {event}"),
    ];
    assert_eq!(lines[2..], expected, "{lines:#?}");
    assert_eq!(listener.hear(), ("camera.updated".to_owned(), published("8K")));
    let mut keys =
        redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    assert_eq!(keys.get(KEY).await, Ok(Some(cached("8K"))));

    let lines = run("cameras", &["migration"], None).succeeded();
    assert!(lines.iter().any(|line| line.contains("that needs a Redis")), "{lines:#?}");
}

/// What it says of what, in a part of it.
#[track_caller]
fn said<'a>(lines: &'a [String], part: &str, what: &str) -> Vec<&'a str> {
    let begin = lines.iter().position(|line| line.starts_with(part)).unwrap_or_else(|| panic!("{lines:#?}"));
    let part = lines[begin + 1..].iter().take_while(|line| !line.is_empty());
    part.filter_map(|line| line.trim_start().strip_prefix(what)).map(str::trim).collect()
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let redis = RedisServer::start();
    for url in [None, Some(redis.url())] {
        let lines = run("cameras", &["troubleshoot"], url.as_deref()).succeeded();
        let named = if url.is_some() { "is set" } else { "is not set: this program stays in memory" };
        assert_eq!(said(&lines, "1.", "REDIS_URL"), [named]);
        let [error] = said(&lines, "1.", "elsewhere")[..] else { panic!("{lines:#?}") };
        assert!(error.starts_with("cannot connect to redis at redis://127.0.0.1:1/0: "), "{error}");
        assert!(error.ends_with("is it running there? (kind Connection)"), "{error}");
        let health = ["phase Built, ready false before start", "phase Running, ready true after start"];
        assert_eq!(said(&lines, "1.", "health"), health);
        assert_eq!(said(&lines, "1.", "ping"), ["answered"]);

        let receivers = [
            "test.channel: 0 receivers, nobody is subscribed",
            "test.channel: 0 receivers, the handler is elsewhere:",
            "test.channel: 1 receivers, with a handler of the right name",
        ];
        assert_eq!(said(&lines, "2.", "publish"), receivers);
        assert!(said(&lines, "2.", "handler").contains(&"Running on test.chanel"), "{lines:#?}");

        assert_eq!(said(&lines, "3.", "handlers"), ["have been started"]);
        let matching = ["camera.updated", "camera.deleted"];
        let matching = matching
            .map(|channel| format!("{channel} of camera:mac:{{mac_address}}: published by a model here"));
        assert_eq!(said(&lines, "3.", "invalidate_on"), matching);
        assert_eq!(said(&lines, "3.", "describe"), [""; 0]);
        assert_eq!(said(&lines, "3.", "by hand"), [format!("{KEY} is gone")]);
    }
}

#[test]
fn what_is_declared_is_printed_as_text_and_as_a_valid_asyncapi_document() {
    let text = run("cameras", &["describe"], None).succeeded().join("\n");
    for expected in [
        "create -> camera.created",
        "update -> camera.updated",
        "delete -> camera.deleted",
        "update -> camera.settings.updated",
        "create -> camera.events.complex:{complex_id}",
        "carries id, mac_address, model, settings\n",
        "on camera.settings.updated",
        "key camera:mac:{mac_address}\n    invalidated on camera.updated, camera.deleted",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(!text.contains("warning: ") && !text.contains("note: "), "{text}");

    let text = run("cameras", &["asyncapi"], None).succeeded().join("\n");
    let document: Value = serde_json::from_str(&text).unwrap();
    let event = &document["components"]["messages"]["cameras.camera.CameraEvent"]["payload"];
    assert_eq!(event["properties"]["event_type"]["type"], "string");
    assert_eq!(document["components"]["messages"].as_object().unwrap().len(), 3);
    let Some(parsed) = asyncapi::parse(&text) else { return };
    assert_eq!(parsed.complaints, [""; 0]);
    let mut channels = parsed.channels;
    channels.sort_unstable();
    let expected = [
        "camera.created",
        "camera.deleted",
        "camera.events",
        "camera.events.complex:{complex_id}",
        "camera.settings.updated",
        "camera.updated",
    ];
    assert_eq!(channels, expected);
}

#[test]
fn the_cameras_say_how_they_are_used() {
    for arguments in [
        &["--role"][..],
        &["--role", "camera"],
        &["--role", "events", "--port"],
        &["--role", "events", "--port", "65536"],
        &["events"],
    ] {
        let Ended { status, lines, complaints } = run("cameras", arguments, None);
        assert_eq!((status.code(), lines.len()), (Some(2), 0), "{arguments:?}: {complaints}");
        assert!(complaints.starts_with("usage: cameras [--role <role> [--port <number>]]\n"), "{complaints}");
    }
}
