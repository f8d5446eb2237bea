//! Programs that are not ours: redis-py publishes, subscribes, reads and writes, and neither side notices that the other
//! one is written in another language. Nothing here has a prefix: this is what a service does by default.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use messaging_core::{
    ChangeEvent, ChangeKind, Config, Handlers, Messaging, Op, Running, State, Timestamp, event_config,
    redis_cache, redis_publish, subscribe,
};
use messaging_tests::{Python, RedisServer, Script, eventually};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::place::{Place, Probe};

/// A Redis, and a Python program that takes part there.
struct Abroad {
    script: Script,
    place: Place,
    _redis: RedisServer,
}

/// `None` without a Python: the suite has nothing to do then, and `cargo xtask test` says so.
fn abroad() -> Option<Abroad> {
    let python = Python::find()?;
    let redis = RedisServer::start();
    let script = python.run(include_str!("../../python/participant.py"), &[&redis.url()]);
    let mut config = Config::new(&redis.url()).expect("a server's URL is valid");
    // A machine that is busy with other tests must not look like a slow Redis.
    config.cache_timeout = Duration::from_secs(5);
    config.command_timeout = Duration::from_secs(10);
    Some(Abroad { script, place: Place { config }, _redis: redis })
}

impl Abroad {
    async fn ask(&mut self, command: Value) -> Value {
        self.script.send_line(&command.to_string());
        serde_json::from_str(&self.script.read_line().await).expect("the script answers in JSON")
    }

    async fn subscribe(&mut self, channel: &str) {
        self.ask(json!({ "do": "subscribe", "channel": channel })).await;
    }

    async fn psubscribe(&mut self, pattern: &str) {
        self.ask(json!({ "do": "psubscribe", "pattern": pattern })).await;
    }

    /// The next message: the pattern that it came through, its channel, and its bytes.
    async fn receive(&mut self) -> (Option<String>, String, String) {
        let message = self.ask(json!({ "do": "receive" })).await;
        let text = |field: &str| message[field].as_str().map(str::to_owned);
        let payload = bytes(&message["payload"]).expect("a message has a payload");
        (text("pattern"), text("channel").expect("a message has a channel"), payload)
    }

    /// Publishes JSON as `json.dumps` writes it; returns the number of receivers.
    async fn publish(&mut self, channel: &str, json: &str) -> u64 {
        let receivers = self.ask(json!({ "do": "publish", "channel": channel, "text": json })).await;
        receivers.as_u64().expect("PUBLISH answers with a number")
    }

    /// The same with `ensure_ascii=False`.
    async fn publish_unicode(&mut self, channel: &str, json: &str) {
        let publish = json!({ "do": "publish", "channel": channel, "text": json, "ensure_ascii": false });
        self.ask(publish).await;
    }

    async fn publish_bytes(&mut self, channel: &[u8], payload: &[u8]) -> u64 {
        let publish = json!({ "do": "publish_bytes", "channel": hex(channel), "payload": hex(payload) });
        self.ask(publish).await.as_u64().expect("PUBLISH answers with a number")
    }

    async fn get(&mut self, key: &str) -> Option<String> {
        bytes(&self.ask(json!({ "do": "get", "key": key })).await)
    }

    /// What Python makes of a JSON text, with the keys in the order in which it reads them.
    async fn in_order(&mut self, json: &str) -> Value {
        self.ask(json!({ "do": "in_order", "text": json })).await
    }

    /// The Unix time of a moment that ends in `Z`, as Python reads it.
    async fn seconds(&mut self, moment: &str) -> u64 {
        self.ask(json!({ "do": "seconds", "moment": moment })).await.as_u64().expect("a moment after 1970")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text that came as hexadecimal digits; `None` for nil.
fn bytes(hex: &Value) -> Option<String> {
    let digits = hex.as_str()?.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    Some(String::from_utf8(digits.chunks(2).map(byte).collect()).expect("it is text"))
}

// --- Python listens.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_receives_exactly_what_was_published() {
    let Some(mut python) = abroad() else { return };
    let messaging = python.place.messaging().await;
    python.subscribe("letters").await;
    python.psubscribe("camera.*").await;
    let letter = json!({ "id": u64::MAX, "text": "Grüße, Привет 🎥 \"\\\n\u{1}", "none": null });
    assert_eq!(messaging.publish("letters", &letter).await.unwrap(), 1);
    let written =
        format!(r#"{{"id":18446744073709551615,"none":null,"text":"Grüße, Привет 🎥 \"\\\n{}"}}"#, r"\u0001");
    assert_eq!(python.receive().await, (None, "letters".into(), written.clone()));
    let read = python.in_order(&written).await;
    let expected = json!({ "object": [["id", u64::MAX], ["none", null], ["text", letter["text"]]] });
    assert_eq!(read, expected);

    assert_eq!(messaging.publish("camera.created", "a string").await.unwrap(), 1);
    let (pattern, channel, payload) = python.receive().await;
    assert_eq!(
        (pattern.as_deref(), &*channel, &*payload),
        (Some("camera.*"), "camera.created", r#""a string""#)
    );
}

/// The event of a monitor, as the document on the cache service's events shows it.
const MONITOR_UPDATE: &str = r#"{
  "event_type": "update",
  "resource_type": "monitor",
  "resource_id": "uuid-here",
  "tenant_id": "tenant-uuid",
  "timestamp": "2025-01-14T15:30:00Z",
  "metadata": {
    "active": true,
    "paused": false,
    "validated": true,
    "name": "Monitor Name",
    "slug": "monitor-slug"
  }
}"#;

#[event_config(
    publish = { update = ["blip0:monitor:update", "blip0:tenant:{tenant_id}:update"], delete = "blip0:monitor:update" },
    envelope = { resource = "monitor", id = id, tenant = tenant_id, metadata = [active, paused, validated, name, slug] },
)]
#[derive(Clone, Serialize, Deserialize)]
struct Monitor {
    // Not in the order of the event.
    slug: String,
    name: String,
    validated: bool,
    paused: bool,
    active: bool,
    tenant_id: Option<String>,
    id: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reads_the_events_of_the_cache_service() {
    let Some(mut python) = abroad() else { return };
    let messaging = python.place.messaging().await;
    python.psubscribe("blip0:*").await;
    let monitor = Monitor {
        slug: "monitor-slug".into(),
        name: "Monitor Name".into(),
        validated: true,
        paused: false,
        active: true,
        tenant_id: Some("tenant-uuid".into()),
        id: "uuid-here".into(),
    };
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    assert_eq!(messaging.emit(Op::Update, &monitor).await.unwrap(), 2);
    let after = now();
    for expected in ["blip0:monitor:update", "blip0:tenant:tenant-uuid:update"] {
        let (_, channel, payload) = python.receive().await;
        assert_eq!(channel, expected);
        let event: ChangeEvent = serde_json::from_str(&payload).unwrap();
        let moment = event.timestamp.to_string();
        let document = MONITOR_UPDATE.replace("2025-01-14T15:30:00Z", &moment);
        assert_eq!(python.in_order(&payload).await, python.in_order(&document).await);
        let seconds = python.seconds(&moment).await;
        assert!((before..=after).contains(&seconds), "{moment} is not now");
    }

    // All monitors of a tenant at once, with how many they were.
    let purge = ChangeEvent::invalidate("tenant", "tenant-uuid").tenant("tenant-uuid");
    let purge = purge.metadata(&json!({ "deleted": 12 })).unwrap();
    messaging.publish("blip0:tenant:tenant-uuid:update", &purge).await.unwrap();
    let (_, _, payload) = python.receive().await;
    let keys = ["event_type", "resource_type", "resource_id", "tenant_id", "timestamp", "metadata"];
    let read = python.in_order(&payload).await;
    let read = read["object"].as_array().unwrap();
    assert_eq!(read.iter().map(|pair| pair[0].as_str().unwrap()).collect::<Vec<_>>(), keys);
    assert_eq!((&read[0][1], &read[5][1]), (&json!("invalidate"), &json!({ "object": [["deleted", 12]] })));
}

#[event_config(
    publish = { create = "camera.created", update = "camera.updated", delete = "camera.deleted" },
    payload_fields = [id, mac_address, model, settings],
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Camera {
    // Not in the order of the event.
    settings: Settings,
    model: String,
    mac_address: String,
    #[serde(default)]
    password: String,
    id: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    resolution: String,
    fps: u8,
}

/// What Events tells of a camera, as the document on messaging between services shows it.
#[derive(Serialize)]
struct ProcessedEvent {
    event_type: &'static str,
    camera_id: u64,
    mac_address: &'static str,
    timestamp: Timestamp,
    data: HashMap<String, u32>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reads_the_events_of_cameras() {
    let Some(mut python) = abroad() else { return };
    let messaging = python.place.messaging().await;
    python.psubscribe("camera.*").await;
    let camera = Camera {
        settings: Settings { resolution: "4K".into(), fps: 25 },
        model: "Hikvision DS-2CD".into(),
        mac_address: "AA:BB:CC:DD:EE:FF".into(),
        password: "secret".into(),
        // Where floating-point numbers have long given up.
        id: (1 << 53) + 1,
    };
    let document = r#"{
      "id": 9007199254740993,
      "mac_address": "AA:BB:CC:DD:EE:FF",
      "model": "Hikvision DS-2CD",
      "settings": { "resolution": "4K", "fps": 25 }
    }"#;
    let document = python.in_order(document).await;
    let events =
        [(Op::Create, "camera.created"), (Op::Update, "camera.updated"), (Op::Delete, "camera.deleted")];
    for (op, expected) in events {
        messaging.emit(op, &camera).await.unwrap();
        let (_, channel, payload) = python.receive().await;
        assert_eq!(channel, expected);
        assert_eq!(python.in_order(&payload).await, document);
    }

    let event = ProcessedEvent {
        event_type: "motion_detected",
        camera_id: camera.id,
        mac_address: "AA:BB:CC:DD:EE:FF",
        timestamp: (SystemTime::UNIX_EPOCH + Duration::from_secs(1_768_384_800)).into(),
        data: HashMap::from([("zone".into(), 3)]),
    };
    let publish = async {
        redis_publish("camera.events", &event).await.unwrap();
        redis_publish("camera.events.complex:12", &event).await.unwrap();
    };
    messaging.scope(publish).await;
    let document = r#"{
      "event_type": "motion_detected",
      "camera_id": 9007199254740993,
      "mac_address": "AA:BB:CC:DD:EE:FF",
      "timestamp": "2026-01-14T10:00:00Z",
      "data": { "zone": 3 }
    }"#;
    let document = python.in_order(document).await;
    for expected in ["camera.events", "camera.events.complex:12"] {
        let (_, channel, payload) = python.receive().await;
        assert_eq!(channel, expected);
        assert_eq!(python.in_order(&payload).await, document);
    }
}

/// An entry, as the document on the audit log shows it.
const AUDIT_ENTRY: &str = r#"{
  "id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
  "user_id": "123e4567-e89b-12d3-a456-426614174000",
  "activity_type": "TASK_COMPLETED",
  "occurred_at": "2026-01-14T10:00:00Z",
  "entity_id": "6ba7b811-9dad-11d1-80b4-00c04fd430c8",
  "entity_type": "task",
  "meta": {
    "action_created_at": "2026-01-14T10:00:00Z"
  }
}"#;

#[event_config(publish = { create = "auditlog:{user_id}" })]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct AuditLog {
    id: Uuid,
    user_id: Uuid,
    activity_type: String,
    occurred_at: Timestamp,
    entity_id: Uuid,
    entity_type: String,
    meta: Meta,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meta {
    action_created_at: Timestamp,
}

fn audit_entry() -> AuditLog {
    let moment = Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(1_768_384_800));
    AuditLog {
        id: Uuid::from_u128(0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8),
        user_id: Uuid::from_u128(0x123e_4567_e89b_12d3_a456_4266_1417_4000),
        activity_type: "TASK_COMPLETED".into(),
        occurred_at: moment,
        entity_id: Uuid::from_u128(0x6ba7_b811_9dad_11d1_80b4_00c0_4fd4_30c8),
        entity_type: "task".into(),
        meta: Meta { action_created_at: moment },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reads_the_audit_log() {
    let Some(mut python) = abroad() else { return };
    let messaging = python.place.messaging().await;
    let channel = "auditlog:123e4567-e89b-12d3-a456-426614174000";
    python.subscribe(channel).await;
    assert_eq!(messaging.emit(Op::Create, &audit_entry()).await.unwrap(), 1);
    let (_, came_on, payload) = python.receive().await;
    assert_eq!(came_on, channel);
    assert_eq!(python.in_order(&payload).await, python.in_order(AUDIT_ENTRY).await);
    assert_eq!(python.seconds("2026-01-14T10:00:00Z").await, 1_768_384_800);

    // The subscription is two-way.
    let subscription = messaging.subscribe(channel).await.unwrap();
    assert_eq!(subscription.send_message(&json!({ "type": "acknowledgment" })).await.unwrap(), 2);
    assert_eq!(python.receive().await.2, r#"{"type":"acknowledgment"}"#);
}

// --- Python publishes.

/// Starts handlers of this module.
async fn started(python: &Abroad, handlers: &[&str]) -> (Running, Probe) {
    let probe = Probe::default();
    let ids = handlers.iter().map(|name| format!("it::python::{name}"));
    let builder = python.place.builder().handlers(Handlers::only(ids)).state(probe.clone());
    let messaging = builder.build().await.expect("it builds");
    (messaging.start().await.expect("it starts"), probe)
}

#[derive(Deserialize)]
struct Note<'a> {
    id: u64,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[subscribe("notes:{author}")]
async fn on_note(author: &str, note: Note<'_>, probe: State<Probe>) {
    probe.tell((author, note.id, &note.text, matches!(note.text, Cow::Borrowed(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_act_on_what_python_publishes() {
    let Some(mut python) = abroad() else { return };
    let (running, probe) = started(&python, &["on_note"]).await;
    let note = r#"{"id": 18446744073709551615, "text": "Привет, 🎥"}"#;
    // `json.dumps` writes \u escapes, a pair of them for the camera: there is nothing that could be borrowed.
    assert_eq!(python.publish("notes:ada", note).await, 1);
    python.publish_unicode("notes:ада", note).await;
    python.publish("notes:bob", r#"{"text": "plain", "more": [1.5, null], "id": 1}"#).await;
    let told = probe.wait_for(3).await;
    let expected = [
        r#"("ada", 18446744073709551615, "Привет, 🎥", false)"#,
        r#"("ада", 18446744073709551615, "Привет, 🎥", true)"#,
        r#"("bob", 1, "plain", true)"#,
    ];
    assert_eq!(told, expected);
    eventually("all are counted", async || running.messaging().health().handlers[0].counts.handled == 3)
        .await;
}

#[subscribe(["blip0:monitor:update", "blip0:platform:update"])]
async fn on_change(change: ChangeEvent, probe: State<Probe>) {
    let metadata: HashMap<String, Value> = change.metadata_as().unwrap();
    let slug = metadata.get("slug").cloned().unwrap_or_default();
    let is_update = change.event_type == ChangeKind::Update;
    probe.tell((is_update, change.resource_id, change.tenant_id, change.timestamp.to_string(), slug));
}

#[subscribe("camera.updated")]
async fn on_camera(camera: Camera, probe: State<Probe>) {
    probe.tell((camera.id, camera.mac_address, camera.settings.resolution));
}

#[subscribe("auditlog:{user_id}")]
async fn on_audit(user_id: Uuid, entry: AuditLog, probe: State<Probe>) {
    probe.tell((user_id == entry.user_id, entry == audit_entry()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_understand_the_documented_events() {
    let Some(mut python) = abroad() else { return };
    let (_running, probe) = started(&python, &["on_change", "on_camera", "on_audit"]).await;
    python.publish("blip0:monitor:update", MONITOR_UPDATE).await;
    let monitor =
        r#"(true, "uuid-here", Some("tenant-uuid"), "2025-01-14T15:30:00Z", String("monitor-slug"))"#;
    assert_eq!(probe.wait_for(1).await[0], monitor);

    // UTC as Python writes it by itself.
    let moment = python.ask(json!({ "do": "isoformat", "seconds": 1_768_384_800.25 })).await;
    assert_eq!(moment, "2026-01-14T10:00:00.250000+00:00");
    let platform = MONITOR_UPDATE
        .replace("2025-01-14T15:30:00Z", moment.as_str().unwrap())
        .replace(r#""tenant-uuid""#, "null");
    python.publish("blip0:platform:update", &platform).await;
    let platform = r#"(true, "uuid-here", None, "2026-01-14T10:00:00Z", String("monitor-slug"))"#;
    assert_eq!(probe.wait_for(2).await[1], platform);

    let camera = r#"{"id": 9007199254740993, "mac_address": "AA:BB", "model": "Hikvision", "settings": {"resolution": "4K", "fps": 25}}"#;
    python.publish("camera.updated", camera).await;
    assert_eq!(probe.wait_for(3).await[2], r#"(9007199254740993, "AA:BB", "4K")"#);
    python.publish("auditlog:123e4567-e89b-12d3-a456-426614174000", AUDIT_ENTRY).await;
    assert_eq!(probe.wait_for(4).await[3], "(true, true)");
}

#[derive(Deserialize)]
struct Reading {
    value: u32,
    #[serde(default)]
    unit: String,
}

#[subscribe("reading.*")]
async fn on_reading(reading: Reading, probe: State<Probe>) {
    probe.tell((reading.value, reading.unit));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_survive_whatever_python_publishes() {
    let Some(mut python) = abroad() else { return };
    let (running, probe) = started(&python, &["on_reading"]).await;
    let bad: [&[u8]; 9] = [
        b"",
        b"{",
        b"not json",
        b"{'value': 1}",
        b"NaN",
        b"null",
        br#"{"value": "seven"}"#,
        br#"{"value": -1}"#,
        b"{\"value\": 1, \"unit\": \"\xb0C\"}",
    ];
    for (number, payload) in (1..).zip(bad) {
        assert_eq!(python.publish_bytes(b"reading.a", payload).await, 1);
        let handler = async || running.messaging().health().handlers[0].counts.undecodable == number;
        eventually(&format!("{:?} is counted", payload.escape_ascii().to_string()), handler).await;
    }
    // Python's channels are bytes.
    assert_eq!(python.publish_bytes(b"reading.\xff\xfe", br#"{"value": 1}"#).await, 1);
    assert_eq!(python.publish("reading.b", r#"{"value": 42, "unit": "°C"}"#).await, 1);
    assert_eq!(probe.wait_for(1).await, [r#"(42, "°C")"#]);
    let health = running.messaging().health();
    eventually("it is settled", async || running.messaging().health().handlers[0].counts.handled == 1).await;
    let counts = running.messaging().health().handlers[0].counts;
    assert_eq!((counts.undecodable, counts.failed, counts.retried, counts.mismatched), (9, 0, 0, 0));
    assert_eq!(health.sessions.iter().map(|session| session.unreadable).sum::<u64>(), 1);
    assert!(health.is_ready() && health.sessions.iter().all(|session| session.reconnects == 0), "{health:?}");
}

// --- The cache is common property.

/// How often each key was loaded.
static LOADS: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(Mutex::default);

fn loads(key: &str) -> u32 {
    LOADS.lock().unwrap().get(key).copied().unwrap_or(0)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CameraView {
    id: u64,
    model: String,
}

#[redis_cache(key = "view:mac:{mac_address}", ttl = 3600, invalidate_on = ["view.updated", "view.deleted"])]
async fn camera_by_mac(mac_address: &str) -> Option<CameraView> {
    let mut loads = LOADS.lock().unwrap();
    let count = loads.entry(mac_address.to_owned()).or_default();
    *count += 1;
    Some(CameraView { id: u64::MAX, model: format!("Модель {count}") })
}

#[redis_cache(key = "owner:{id}", ttl = 60, invalidate_on = ["owner.changed"])]
async fn owner(id: u64) -> u32 {
    let mut loads = LOADS.lock().unwrap();
    let count = loads.entry(format!("owner {id}")).or_default();
    *count += 1;
    *count
}

async fn model(messaging: &Messaging, mac_address: &str) -> String {
    messaging.scope(camera_by_mac(mac_address)).await.expect("there is one").model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_from_python_invalidates_what_it_names() {
    let Some(mut python) = abroad() else { return };
    // A process that has been started hears the events of others.
    let (running, _probe) = started(&python, &[]).await;
    let messaging = running.messaging();
    let macs = ["AA:01", "AA:02", "камера-3"];
    for mac in macs {
        assert_eq!(model(messaging, mac).await, "Модель 1");
    }
    python.publish("view.updated", r#"{"id": 7, "mac_address": "AA:01"}"#).await;
    eventually("the first is loaded again", async || model(messaging, "AA:01").await == "Модель 2").await;
    // Its name comes in \u escapes, and is the same name.
    python.publish("view.deleted", r#"{"mac_address": "камера-3"}"#).await;
    eventually("the third is loaded again", async || model(messaging, "камера-3").await == "Модель 2").await;
    assert_eq!(model(messaging, "AA:02").await, "Модель 1", "nobody said anything of the second");
    assert_eq!(macs.map(loads), [2, 1, 2]);

    // A number is the number that was written, not the nearest that fits into a double.
    let (large, next) = (u64::MAX, u64::MAX - 1);
    let ask = async |id| messaging.scope(owner(id)).await;
    assert_eq!((ask(large).await, ask(next).await), (1, 1));
    python.publish("owner.changed", r#"{"id": 18446744073709551615}"#).await;
    eventually("the owner is asked for again", async || ask(large).await == 2).await;
    assert_eq!(ask(next).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_values_are_read_and_written_by_python() {
    let Some(mut python) = abroad() else { return };
    let messaging = python.place.messaging().await;
    assert_eq!(model(&messaging, "BB:01").await, "Модель 1");
    let stored = eventually("it is stored", async || python.get("view:mac:BB:01").await).await;
    assert_eq!(stored, r#"{"id":18446744073709551615,"model":"Модель 1"}"#);
    let read = python.in_order(&stored).await;
    assert_eq!(read, json!({ "object": [["id", u64::MAX], ["model", "Модель 1"]] }));
    // A tenth of its hour is drawn at random.
    let ttl = python.ask(json!({ "do": "ttl", "key": "view:mac:BB:01" })).await.as_u64().unwrap();
    assert!((3_200..=3_600).contains(&ttl), "{ttl}");

    // What Python writes is taken, whether it was loaded before or never.
    for key in ["BB:01", "BB:02"] {
        let text = r#"{"model": "Модель из Python", "id": 9007199254740993}"#;
        python.ask(json!({ "do": "set_value", "key": format!("view:mac:{key}"), "text": text })).await;
        let expected = CameraView { id: (1 << 53) + 1, model: "Модель из Python".into() };
        assert_eq!(messaging.scope(camera_by_mac(key)).await, Some(expected));
    }
    assert_eq!((loads("BB:01"), loads("BB:02")), (1, 0));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct CachedCamera {
    id: u64,
    mac_address: String,
    model: Option<String>,
    settings: HashMap<String, String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_kept_by_hand_is_shared_with_python() {
    let Some(mut python) = abroad() else { return };
    let messaging = python.place.messaging().await;
    let cache = messaging.cache("camera");
    let camera = CachedCamera {
        id: 7,
        mac_address: "AA:BB".into(),
        model: None,
        settings: HashMap::from([("resolution".into(), "4K".into())]),
    };
    cache.set("mac:AA:BB", &camera, Duration::from_secs(3600)).await.unwrap();
    let document = r#"{"id":7,"mac_address":"AA:BB","model":null,"settings":{"resolution":"4K"}}"#;
    assert_eq!(python.get("camera:mac:AA:BB").await.as_deref(), Some(document));
    // The other way round, with the spaces that Python writes.
    python.ask(json!({ "do": "set_value", "key": "camera:mac:CC:DD", "text": document })).await;
    assert_eq!(cache.get::<CachedCamera>("mac:CC:DD").await.unwrap(), Some(camera));
    cache.invalidate("mac:AA:BB").await.unwrap();
    assert_eq!(cache.invalidate_pattern("mac:*").await.unwrap(), 1);
    for key in ["camera:mac:AA:BB", "camera:mac:CC:DD"] {
        assert_eq!(python.get(key).await, None);
    }
}
