//! Durable channels: models that publish to them and handlers that read from them, with every option.
#![deny(warnings, clippy::all, clippy::unwrap_used, clippy::expect_used)]

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use messaging_core::__private::{DeliveryMode, HandlerDescriptor, HandlerOptions, OrderedBy, StartAt};
use messaging_core::{
    Attempt, Carrier, ChannelOf, Durability, EventId, Headers, Model, ModelDurability, Raw, Retention, State,
    Subscribers, channel, event_config, subscribe, subscribers,
};
use serde::{Deserialize, Serialize};

#[event_config(
    publish = { create = "order.created:{shop}", update = ["order.changed", "shop:{shop}.orders"] },
    payload_fields = [shop, total],
    durable = { max_len = 50_000, max_age = "12h", partitions = 16, key = r#type, wait_replicas = 2 },
)]
#[derive(Deserialize)]
pub struct Order {
    shop: u32,
    total: u64,
    // Not in the payload.
    #[serde(default)]
    r#type: Option<String>,
}

#[event_config(publish = { delete = "session.deleted" }, durable, sharded)]
#[derive(Serialize)]
pub struct Session {
    token: String,
}

#[event_config(
    publish = { update = "monitor.changed" },
    envelope = { resource = "monitor", id = id },
    durable = { key = id, max_age = 90, partitions = 1_024 },
)]
pub struct Monitor {
    id: u64,
}

#[subscribe(["session.deleted", "session.ended"], sharded)]
async fn on_shards(session: Raw) {
    drop(session);
}

#[event_config(publish = { update = "none" }, durable = {})]
#[derive(Serialize)]
pub struct Defaults {
    #[cfg(any())]
    absent: Absent,
}

#[channel("auditlog:{key}.{channel}")]
pub struct AuditLog {
    pub key: u64,
    pub channel: u64,
}

#[subscribe(
    "order.created:{shop}",
    delivery = "queue",
    group = "billing:v2_a-b.c",
    start = "beginning",
    dedupe = "24h",
    dead_letter = "orders.dead",
    ordered_by = key,
    retry = { attempts = 5, initial = "100ms", multiplier = 2.0, max_delay = "30s" },
    timeout = "5m",
    buffer = { messages = 500 },
)]
async fn bill(shop: u32, order: Order, _: Attempt, id: EventId, _: Headers) -> Result<(), String> {
    if order.shop == shop { Ok(()) } else { Err(format!("{id}: {} {:?}", order.total, order.r#type)) }
}

#[subscribe(["orders.*", "shop:*"], delivery = "resumable", start = "new", dedupe = 60, resync = reload, resync_every = 30)]
async fn on_order(_: serde_json::Value) {}

async fn reload() {}

#[subscribe("session.deleted", delivery = "broadcast")]
async fn on_session(_: serde_json::Value) {}

// Without a publisher's key there is nothing else that `key` could mean.
#[subscribe("other:{key}", workers = 2, ordered_by = key)]
async fn on_other(key: u64) {
    let _ = key;
}

#[subscribe(AuditLog, delivery = "queue", workers = 8, ordered_by = key, dead_letter = "audit.dead")]
#[subscribe(AuditLog, delivery = "resumable", workers = 8, ordered_by = channel, id = "audit_again")]
async fn audit(_: ChannelOf<AuditLog>, _: EventId) {}

struct Service;

#[subscribers]
impl Service {
    #[subscribe("order.changed", delivery = "queue", group = "service", dead_letter = "service.dead")]
    #[subscribe("order.changed", delivery = "resumable", start = "beginning", resync = Self::reload, id = "again")]
    async fn handle(&self, _: Order) {}

    #[subscribe("order.changed", delivery = "queue", dedupe = "90ms", workers = 2, ordered_by = key)]
    async fn plain(&self, _: Order) {}

    async fn reload(_: State<Self>) {}
}

fn main() {
    assert_eq!(Session::DESCRIPTOR.carrier, Carrier::Sharded);
    assert_eq!(Order::DESCRIPTOR.carrier, Carrier::Broadcast);
    let order = Order { shop: 7, total: 1, r#type: Some("gift".into()) };
    let kept = Retention {
        max_len: NonZeroU64::new(50_000).unwrap_or(NonZeroU64::MIN),
        max_age: Duration::from_secs(12 * 3_600),
    };
    let partitions = NonZeroU16::new(16).unwrap_or(NonZeroU16::MIN);
    let replicas = NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN);
    let all = Durability::from(kept).partitions(partitions).wait_replicas(replicas);
    let key = |key| ModelDurability { durability: all, key };
    assert_eq!(Order::DESCRIPTOR.durable, Some(key(Some("type"))));
    assert_eq!(order.field("type").unwrap_or_default().as_deref(), Some("gift"));
    assert_eq!(order.field("shop").unwrap_or_default().as_deref(), Some("7"));
    assert!(order.field("total").is_err());

    assert_eq!(
        Session::DESCRIPTOR.durable,
        Some(ModelDurability { durability: Durability::DEFAULT, key: None })
    );
    assert_eq!(Defaults::DESCRIPTOR.durable, Session::DESCRIPTOR.durable);
    let kept = Retention { max_age: Duration::from_secs(90), ..Retention::DEFAULT };
    let most = NonZeroU16::new(Durability::MOST_PARTITIONS).unwrap_or(NonZeroU16::MIN);
    let durability = Durability::from(kept).partitions(most);
    assert_eq!(Monitor::DESCRIPTOR.durable, Some(ModelDurability { durability, key: Some("id") }));

    let [first, second, third] = &*Service::handlers() else { unreachable!("three handlers") };
    let HandlerDescriptor { group, dead_letter, .. } = first;
    assert_eq!((*group, *dead_letter), (Some("service"), Some("service.dead")));
    assert_eq!(first.options, HandlerOptions::DEFAULT.delivery(DeliveryMode::Queue));
    let resumable = HandlerOptions::DEFAULT.delivery(DeliveryMode::Resumable).start(StartAt::Beginning);
    assert_eq!(second.options, resumable);
    assert!(second.resync.is_some() && second.group.is_none() && second.dead_letter.is_none());
    let ordered = HandlerOptions::DEFAULT.delivery(DeliveryMode::Queue).dedupe(Duration::from_millis(90));
    let two = NonZeroUsize::MIN.saturating_add(1);
    assert_eq!(third.options, ordered.workers(two).ordered_by(OrderedBy::Key));

    let _ = (Session { token: String::new() }.token, Monitor { id: 1 }.id, Defaults {});
    let _ = (bill, on_order, on_session, on_other, audit, Service::handle, Service);
}
