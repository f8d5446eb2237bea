//! Models that publish, and repositories.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use messaging_core::{
    ChangeEvent, ErrorKind, Messaging, Model, Op, PublishFailure, Repository, Storage, Subscription, Updated,
    event_config,
};
use messaging_tests::eventually;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::place::{Place, on_each_backend, soon};

on_each_backend! {
    events_carry_exactly_the_payload_fields_in_their_order
    without_payload_fields_the_whole_model_is_the_payload
    an_operation_that_is_not_published_publishes_nothing
    several_channels_and_null_placeholders
    a_placeholder_that_is_not_valid_is_refused
    the_envelope_is_that_of_the_configuration_monitor
    an_invalidation_is_published_by_hand
    updates_can_carry_what_was_before
    a_repository_publishes_what_it_stores
    a_failed_operation_publishes_nothing
    a_failed_publish_fails_the_operation_only_if_asked
    a_caller_that_goes_away_loses_no_event
    after_shutdown_nothing_is_changed
    a_model_keeps_its_own_cache_entry
}

#[event_config(
    publish = { create = "camera.created", update = "camera.updated", delete = "camera.deleted" },
    payload_fields = [id, mac_address, model, settings],
    cache = { key = "camera:mac:{mac_address}", ttl = 3600 },
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    pub id: Uuid,
    pub model: String,
    pub settings: Value,
    pub mac_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub secret: String,
}

pub fn camera() -> Camera {
    Camera {
        id: Uuid::from_u128(7),
        model: "Hikvision".into(),
        settings: json!({ "fps": 25 }),
        mac_address: "AA:BB".into(),
        note: None,
        secret: "never".into(),
    }
}

async fn next(subscription: &mut Subscription) -> String {
    let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
    String::from_utf8(message.payload().to_vec()).unwrap()
}

async fn events_carry_exactly_the_payload_fields_in_their_order(place: Place) {
    let messaging = place.messaging().await;
    let mut events = messaging.subscribe("camera.*").await.unwrap();
    for (op, channel) in
        [(Op::Create, "camera.created"), (Op::Update, "camera.updated"), (Op::Delete, "camera.deleted")]
    {
        place.counts(messaging.emit(op, &camera()).await.unwrap(), 1);
        let message = soon(events.get_message(None)).await.unwrap().unwrap();
        assert_eq!(message.channel(), &channel);
        let expected = r#"{"id":"00000000-0000-0000-0000-000000000007","mac_address":"AA:BB","model":"Hikvision","settings":{"fps":25}}"#;
        assert_eq!(std::str::from_utf8(message.payload()).unwrap(), expected);
    }
}

#[event_config(publish = { create = "auditlog:{user_id}" })]
#[derive(Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[allow(dead_code, reason = "the point of `hidden` is that nobody reads it")]
#[serde(rename_all = "camelCase")]
struct AuditLog {
    #[serde(rename = "user_id")]
    user_id: u32,
    activity_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<u8>,
    #[serde(skip)]
    hidden: u8,
}

async fn without_payload_fields_the_whole_model_is_the_payload(place: Place) {
    let messaging = place.messaging().await;
    let mut events = messaging.subscribe("auditlog:7").await.unwrap();
    let entry = AuditLog { user_id: 7, activity_type: "TASK_COMPLETED".into(), meta: None, hidden: 1 };
    messaging.emit(Op::Create, &entry).await.unwrap();
    assert_eq!(next(&mut events).await, r#"{"user_id":7,"activityType":"TASK_COMPLETED"}"#);
    let carried: Vec<_> =
        AuditLog::DESCRIPTOR.payload.iter().map(|field| (field.field, field.path)).collect();
    assert_eq!(carried, [("user_id", "user_id"), ("activity_type", "activityType"), ("meta", "meta")]);
    assert!((AuditLog::DESCRIPTOR.schema)().unwrap()["properties"]["activityType"].is_object());
    assert!((Camera::DESCRIPTOR.schema)().is_none());
}

async fn an_operation_that_is_not_published_publishes_nothing(place: Place) {
    let messaging = place.messaging().await;
    let _all = messaging.subscribe("*").await.unwrap();
    let entry = AuditLog { user_id: 7, activity_type: String::new(), meta: None, hidden: 1 };
    assert_eq!(messaging.emit(Op::Delete, &entry).await.unwrap(), 0);
}

#[event_config(
    publish = { update = ["blip0:monitor:update", "blip0:tenant:{tenant_id}:update"], delete = "blip0:monitor:update" },
    envelope = { resource = "monitor", id = id, tenant = tenant_id, metadata = [active, paused, validated, name, slug] },
)]
#[derive(Clone, Serialize, Deserialize)]
struct Monitor {
    slug: String,
    name: String,
    active: bool,
    paused: bool,
    validated: bool,
    id: Uuid,
    tenant_id: Option<String>,
}

fn monitor(tenant_id: Option<&str>) -> Monitor {
    Monitor {
        slug: "monitor-slug".into(),
        name: "Monitor Name".into(),
        active: true,
        paused: false,
        validated: true,
        id: Uuid::from_u128(1),
        tenant_id: tenant_id.map(Into::into),
    }
}

async fn several_channels_and_null_placeholders(place: Place) {
    let messaging = place.messaging().await;
    let mut events = messaging.subscribe("blip0:*").await.unwrap();
    place.counts(messaging.emit(Op::Update, &monitor(Some("t-1"))).await.unwrap(), 2);
    let mut channels = Vec::new();
    for _ in 0..2 {
        channels.push(soon(events.get_message(None)).await.unwrap().unwrap().channel().to_string());
    }
    assert_eq!(channels, ["blip0:monitor:update", "blip0:tenant:t-1:update"]);
    place.counts(messaging.emit(Op::Update, &monitor(None)).await.unwrap(), 1);
}

async fn a_placeholder_that_is_not_valid_is_refused(place: Place) {
    let messaging = place.messaging().await;
    let _all = messaging.subscribe("*").await.unwrap();
    for tenant in ["", "a:b", "*", "a b"] {
        let error = messaging.emit(Op::Update, &monitor(Some(tenant))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidChannel, "{tenant:?}");
        assert!(error.is_not_sent() && error.to_string().contains("Monitor"), "{error}");
    }
}

async fn the_envelope_is_that_of_the_configuration_monitor(place: Place) {
    let messaging = place.messaging().await;
    let mut events = messaging.subscribe("blip0:monitor:update").await.unwrap();
    messaging.emit(Op::Update, &monitor(Some("tenant-uuid"))).await.unwrap();
    let json = next(&mut events).await;
    let event: ChangeEvent = serde_json::from_str(&json).unwrap();
    let timestamp = event.timestamp.to_string();
    assert!(timestamp.len() == 20 && timestamp.ends_with('Z'), "{timestamp}");
    assert_eq!(
        json,
        format!(
            r#"{{"event_type":"update","resource_type":"monitor","resource_id":"00000000-0000-0000-0000-000000000001","tenant_id":"tenant-uuid","timestamp":"{timestamp}","metadata":{{"active":true,"paused":false,"validated":true,"name":"Monitor Name","slug":"monitor-slug"}}}}"#
        )
    );
    messaging.emit(Op::Delete, &monitor(None)).await.unwrap();
    let deleted = next(&mut events).await;
    assert!(
        deleted.starts_with(r#"{"event_type":"delete","#) && deleted.contains(r#""tenant_id":null"#),
        "{deleted}"
    );
}

async fn an_invalidation_is_published_by_hand(place: Place) {
    let messaging = place.messaging().await;
    let mut events = messaging.subscribe("blip0:tenant:t-1:update").await.unwrap();
    let event =
        ChangeEvent::invalidate("tenant", "t-1").tenant("t-1").metadata(&json!({ "deleted": 12 })).unwrap();
    messaging.publish("blip0:tenant:t-1:update", &event).await.unwrap();
    let read: ChangeEvent = serde_json::from_str(&next(&mut events).await).unwrap();
    assert_eq!(read.metadata_as::<BTreeMap<String, u32>>().unwrap()["deleted"], 12);
}

#[event_config(
    publish = { create = "device.created", update = "device.updated" },
    payload_fields = [id, address],
    previous = [address],
)]
#[derive(Clone, Serialize, Deserialize)]
struct Device {
    id: u64,
    #[serde(rename = "addr")]
    address: String,
}

async fn updates_can_carry_what_was_before(place: Place) {
    let messaging = place.messaging().await;
    let mut events = messaging.subscribe("device.*").await.unwrap();
    let (old, new) = (Device { id: 1, address: "old".into() }, Device { id: 1, address: "new".into() });
    messaging.emit(Op::Create, &old).await.unwrap();
    messaging.emit_changed(&old, &new).await.unwrap();
    assert_eq!(next(&mut events).await, r#"{"id":1,"addr":"old"}"#);
    assert_eq!(next(&mut events).await, r#"{"id":1,"addr":"new","previous":{"addr":"old"}}"#);
}

/// A storage that can fail, and whose updates can be held up.
#[derive(Clone)]
struct Table {
    rows: Arc<Mutex<BTreeMap<Uuid, Camera>>>,
    gate: Arc<Semaphore>,
    /// How many updates have begun.
    begun: Arc<AtomicU32>,
    fails: Arc<AtomicBool>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            rows: Arc::default(),
            gate: Arc::new(Semaphore::new(1_000)),
            begun: Arc::default(),
            fails: Arc::default(),
        }
    }
}

impl Table {
    fn check(&self) -> Result<(), std::io::Error> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(std::io::Error::other("the disk is full")),
            false => Ok(()),
        }
    }
}

impl Storage<Camera> for Table {
    type Id = Uuid;
    type Error = std::io::Error;

    async fn insert(&self, camera: Camera) -> Result<Camera, Self::Error> {
        self.check()?;
        self.rows.lock().unwrap().insert(camera.id, camera.clone());
        Ok(camera)
    }

    async fn update(&self, camera: Camera) -> Result<Option<Updated<Camera>>, Self::Error> {
        self.check()?;
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        let mut rows = self.rows.lock().unwrap();
        let Some(row) = rows.get_mut(&camera.id) else { return Ok(None) };
        let before = std::mem::replace(row, camera.clone());
        Ok(Some(Updated { before: Some(before), after: camera }))
    }

    async fn delete(&self, id: &Uuid) -> Result<Option<Camera>, Self::Error> {
        self.check()?;
        Ok(self.rows.lock().unwrap().remove(id))
    }

    async fn get(&self, id: &Uuid) -> Result<Option<Camera>, Self::Error> {
        self.check()?;
        Ok(self.rows.lock().unwrap().get(id).cloned())
    }

    async fn list(&self) -> Result<Vec<Camera>, Self::Error> {
        self.check()?;
        Ok(self.rows.lock().unwrap().values().cloned().collect())
    }
}

async fn repository(place: &Place) -> (Messaging, Table, Repository<Table>, Subscription) {
    let messaging = place.messaging().await;
    let table = Table::default();
    let repository = Repository::new(table.clone(), &messaging);
    let events = messaging.subscribe("camera.*").await.unwrap();
    (messaging, table, repository, events)
}

async fn a_repository_publishes_what_it_stores(place: Place) {
    let (_messaging, _table, repository, mut events) = repository(&place).await;
    let created = repository.create(camera()).await.unwrap();
    assert_eq!(repository.get(&created.id).await.unwrap(), Some(created.clone()));
    let changed = Camera { settings: json!({ "fps": 50 }), ..created };
    assert_eq!(repository.update(changed.clone()).await.unwrap(), Some(changed.clone()));
    assert_eq!(repository.list::<Camera>().await.unwrap(), std::slice::from_ref(&changed));
    assert_eq!(repository.delete(changed.id).await.unwrap(), Some(changed.clone()));
    // What is not there is not changed, and nobody is told that it was.
    assert_eq!(repository.update(changed.clone()).await.unwrap(), None);
    assert_eq!(repository.delete::<Camera>(changed.id).await.unwrap(), None);
    let mut channels = Vec::new();
    for _ in 0..3 {
        channels.push(soon(events.get_message(None)).await.unwrap().unwrap().channel().to_string());
    }
    assert_eq!(channels, ["camera.created", "camera.updated", "camera.deleted"]);
    assert!(events.get_message(std::time::Duration::ZERO).await.unwrap().is_none());
}

async fn a_failed_operation_publishes_nothing(place: Place) {
    let (messaging, table, repository, mut events) = repository(&place).await;
    table.fails.store(true, Ordering::SeqCst);
    for error in [
        repository.create(camera()).await.unwrap_err(),
        repository.update(camera()).await.unwrap_err(),
        repository.delete::<Camera>(camera().id).await.unwrap_err(),
        repository.get::<Camera>(&camera().id).await.unwrap_err(),
        repository.list::<Camera>().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert!(error.to_string().ends_with("`Camera`: the disk is full"), "{error}");
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.downcast_ref::<std::io::Error>().is_some());
    }
    messaging.publish("camera.end", &()).await.unwrap();
    assert_eq!(soon(events.get_message(None)).await.unwrap().unwrap().channel(), &"camera.end");
}

async fn a_failed_publish_fails_the_operation_only_if_asked(mut place: Place) {
    place.config.max_payload = 10;
    let (_messaging, table, repository, _events) = repository(&place).await;
    repository.create(camera()).await.unwrap();
    assert_eq!(table.rows.lock().unwrap().len(), 1, "the change stays");
    let strict = repository.on_publish_failure(PublishFailure::Return);
    let error = strict.create(camera()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    assert_eq!(table.rows.lock().unwrap().len(), 1);
}

async fn a_caller_that_goes_away_loses_no_event(place: Place) {
    let (_messaging, table, repository, mut events) = repository(&place).await;
    repository.create(camera()).await.unwrap();
    assert_eq!(soon(events.get_message(None)).await.unwrap().unwrap().channel(), &"camera.created");
    table.gate.forget_permits(1_000);
    let request = tokio::spawn(async move { repository.update(camera()).await });
    // The request is in the middle of the storage call when it is dropped.
    eventually("it waits in the storage", async || table.begun.load(Ordering::SeqCst) == 1).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    table.gate.add_permits(1);
    assert_eq!(soon(events.get_message(None)).await.unwrap().unwrap().channel(), &"camera.updated");
}

async fn after_shutdown_nothing_is_changed(place: Place) {
    let (messaging, table, repository, _events) = repository(&place).await;
    let running = messaging.start().await.unwrap();
    repository.create(camera()).await.unwrap();
    running.shutdown(crate::place::PATIENCE).await;
    let error = repository.delete::<Camera>(camera().id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.is_not_sent());
    assert_eq!(table.rows.lock().unwrap().len(), 1);
}

async fn a_model_keeps_its_own_cache_entry(place: Place) {
    let (messaging, _table, repository, _events) = repository(&place).await;
    let cache = messaging.cache("camera");
    repository.create(camera()).await.unwrap();
    let cached: Value = cache.get("mac:AA:BB").await.unwrap().unwrap();
    assert_eq!(
        cached,
        json!({ "id": camera().id, "mac_address": "AA:BB", "model": "Hikvision", "settings": { "fps": 25 } })
    );
    // A key that changes leaves no entry under the old one.
    repository.update(Camera { mac_address: "CC:DD".into(), ..camera() }).await.unwrap();
    assert!(cache.get::<Value>("mac:AA:BB").await.unwrap().is_none());
    assert!(cache.get::<Value>("mac:CC:DD").await.unwrap().is_some());
    repository.delete::<Camera>(camera().id).await.unwrap();
    assert!(cache.get::<Value>("mac:CC:DD").await.unwrap().is_none());
}
