//! Events that are captured now and published later: after a commit, or from a table that they were written to.

use std::borrow::Cow;
use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backend::Outgoing;
use crate::channel::{Channel, ToChannel};
use crate::core::Core;
use crate::dispatch::Carrier;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Model, ModelEvent, Op};
use crate::json;
use crate::publish::{CacheChange, Change, outgoing, report_cache};
use crate::stream::{Durability, EventId, Retention};
use crate::trace::Trace;

/// How many events are handed over at once, and of how many bytes.
const TOGETHER: usize = 256;
const BYTES_TOGETHER: usize = 1024 * 1024;

/// An event that was captured when something changed, to be published when the change is sure to stay: with
/// [`Messaging::publish_pending`](crate::Messaging::publish_pending) after the commit of a transaction. Until then it
/// can be kept as JSON, in a table of the same database: any process can publish it from there, even one without the
/// model.
///
/// It is published under the same [`id`](Self::id) however often that is tried, so that handlers with `dedupe` handle
/// it once.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::{Messaging, Op, PendingEvent, event_config};
/// use serde::Serialize;
///
/// #[event_config(publish = { create = "order.created" })]
/// #[derive(Serialize)]
/// struct Order { id: u64 }
///
/// # let messaging = Messaging::builder().url("memory://").build().await?;
/// # let mut orders = messaging.subscribe("order.created").await?;
/// let event = PendingEvent::capture(Op::Create, &Order { id: 7 })?.expect("creations are published");
/// let row = event.to_json()?;
/// // … the transaction commits …
/// let event = PendingEvent::from_json(&row)?;
/// for published in messaging.publish_pending(vec![event]).await {
///     published?;
/// }
/// # assert_eq!(orders.get_message(None).await?.unwrap().payload(), r#"{"id":7}"#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PendingEvent {
    id: EventId,
    order: Option<String>,
    event: Option<ModelEvent>,
    cache: Option<CacheChange>,
}

impl PendingEvent {
    /// The event of an operation on a model, as it is now; `None` if there is nothing to tell: the model does not publish
    /// the operation and has no cache entry.
    ///
    /// # Errors
    /// As [`Messaging::emit`](crate::Messaging::emit), as far as nothing is sent.
    pub fn capture<M: Model>(op: Op, model: &M) -> Result<Option<Self>> {
        Self::of(Change::capture(model, op, None)?, model)
    }

    /// The update event of a model with what it was before.
    ///
    /// # Errors
    /// As [`capture`](Self::capture).
    pub fn capture_changed<M: Model>(old: &M, new: &M) -> Result<Option<Self>> {
        Self::of(Change::capture(new, Op::Update, Some(old))?, new)
    }

    fn of<M: Model>(change: Change, model: &M) -> Result<Option<Self>> {
        let Change { event, cache } = change;
        let event = event.filter(|event| !event.channels.is_empty());
        if event.is_none() && cache.is_none() {
            return Ok(None);
        }
        let key = event.as_ref().and_then(|event| event.key.clone());
        let together = match M::DESCRIPTOR.key {
            Some(row) if key.is_none() => model.field(row)?,
            _ => key,
        };
        let order = together.map(|together| format!("{}:{together}", M::DESCRIPTOR.id));
        Ok(Some(Self { id: EventId::random(), order, event, cache }))
    }

    /// A message of any kind on a channel. It is durable where the channel is by the configuration of whoever publishes
    /// it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`], [`ErrorKind::Encode`].
    pub fn message<C: ToChannel + ?Sized, T: Serialize + ?Sized>(channel: &C, payload: &T) -> Result<Self> {
        let template = channel.template();
        let channel = channel.to_channel()?;
        let payload = json::encode(payload)
            .map_err(|error| error.context(format_args!("publish on {:?}", channel.as_str())))?;
        let event = ModelEvent {
            channels: vec![(channel, template.map(Cow::Borrowed))],
            payload,
            op: None,
            durable: None,
            carrier: Carrier::Broadcast,
            key: None,
            trace: Trace::current(),
        };
        Ok(Self { id: EventId::random(), order: None, event: Some(event), cache: None })
    }

    /// Says what it has to stay in order with: events of one text are published in the order in which they were
    /// captured. Without it that is its model's key, if it is durable and has one; or else the row that it tells of, if
    /// the model has a table; or else its first channel.
    #[must_use]
    pub fn in_order_of(mut self, text: impl Into<String>) -> Self {
        self.order = Some(text.into());
        self
    }

    /// The id under which it is published if its channel is durable.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id.0
    }

    /// What it has to stay in order with.
    #[must_use]
    pub fn order(&self) -> &str {
        let channels = self.event.as_ref().map(|event| &event.channels);
        let of_channel =
            || channels.and_then(|channels| channels.first()).map(|(channel, _)| channel.as_str());
        let of_cache = || self.cache.as_ref().map(CacheChange::key);
        self.order.as_deref().or_else(of_channel).or_else(of_cache).unwrap_or_default()
    }

    /// Everything that is needed to publish it, as JSON.
    ///
    /// # Errors
    /// None that are known.
    pub fn to_json(&self) -> Result<String> {
        let wire = Wire::of(self)?;
        serde_json::to_string(&wire).map_err(|source| {
            Error::new(ErrorKind::Encode, format!("an event cannot be written as JSON: {source}"))
                .with_source(source)
        })
    }

    /// Reads what [`to_json`](Self::to_json) has written.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`], [`ErrorKind::InvalidChannel`].
    pub fn from_json(text: &str) -> Result<Self> {
        let wire: Wire<'_> = serde_json::from_str(text).map_err(|source| {
            Error::new(ErrorKind::Decode, format!("this is no pending event: {source}")).with_source(source)
        })?;
        wire.read()
    }

    fn outgoing(&self, core: &Core) -> Result<Vec<Outgoing>> {
        let Some(event) = &self.event else { return Ok(Vec::new()) };
        let outgoing = outgoing(core, &self.id, event.clone())?;
        outgoing.iter().try_for_each(|message| core.check_size(message))?;
        Ok(outgoing)
    }
}

/// Publishes events in their order, as many at once as can be. One that fails holds up those that it has to stay in order
/// with.
pub(crate) async fn publish(core: &Arc<Core>, events: Vec<PendingEvent>) -> Vec<Result<()>> {
    let mut outcomes: Vec<Option<Result<()>>> = events.iter().map(|_| None).collect();
    let mut batch = Batch::default();
    let mut failed = Failed::default();
    for (position, event) in events.iter().enumerate() {
        if failed.holds_up(event) {
            continue;
        }
        match event.outgoing(core) {
            Ok(messages) => {
                batch.positions.push(position);
                batch.bytes += messages.iter().map(|message| message.payload.len()).sum::<usize>();
                batch.messages.extend(messages);
            }
            Err(error) => {
                failed.orders.insert(event.order());
                outcomes[position] = Some(Err(error));
            }
        }
        if batch.messages.len() >= TOGETHER || batch.bytes >= BYTES_TOGETHER {
            let batch = std::mem::take(&mut batch);
            batch.publish(core, &events, &mut outcomes, &mut failed).await;
        }
    }
    batch.publish(core, &events, &mut outcomes, &mut failed).await;
    let held_up = || {
        let text = "an event that has to come before this one could not be published";
        Err(Error::new(ErrorKind::Held, text).before_sending())
    };
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(held_up)).collect()
}

/// What keeps others from being published.
#[derive(Default)]
struct Failed<'e> {
    orders: HashSet<&'e str>,
    /// There is no way to publish at the moment.
    everything: Option<(ErrorKind, String)>,
}

impl Failed<'_> {
    fn holds_up(&self, event: &PendingEvent) -> bool {
        self.everything.is_some() || self.orders.contains(event.order())
    }
}

#[derive(Default)]
struct Batch {
    positions: Vec<usize>,
    messages: Vec<Outgoing>,
    bytes: usize,
}

impl Batch {
    async fn publish<'e>(
        self,
        core: &Arc<Core>,
        events: &'e [PendingEvent],
        outcomes: &mut [Option<Result<()>>],
        failed: &mut Failed<'e>,
    ) {
        let positions = self.positions;
        let of_all = if failed.everything.is_some() { return } else { core.publish(self.messages).await };
        if of_all.is_ok() {
            for position in positions {
                events[position].change_cache(core).await;
                outcomes[position] = Some(Ok(()));
            }
            return;
        }
        // One of them is to blame, which one only they can tell; what is published twice has the same id.
        for position in positions {
            let event = &events[position];
            if failed.holds_up(event) {
                continue;
            }
            let published = match event.outgoing(core) {
                Ok(messages) => core.publish(messages).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &published {
                failed.orders.insert(event.order());
                if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Closed) {
                    failed.everything = Some((error.kind(), error.to_string()));
                }
            } else {
                event.change_cache(core).await;
            }
            outcomes[position] = Some(published.map(|_| ()));
        }
    }
}

impl PendingEvent {
    async fn change_cache(&self, core: &Core) {
        if let Some(change) = self.cache.clone() {
            report_cache(change.apply(core).await);
        }
    }
}

/// A pending event as it is written.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    event: Option<WireEvent<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache: Option<WireCache<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireEvent<'a> {
    channels: Vec<WireChannel<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    op: Option<Op>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    durable: Option<WireDurability>,
    #[serde(default, skip_serializing_if = "is_false")]
    sharded: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize, Deserialize)]
struct WireChannel<'a> {
    name: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct WireDurability {
    max_len: NonZeroU64,
    max_age_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitions: Option<NonZeroU16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_replicas: Option<NonZeroU32>,
}

#[derive(Serialize, Deserialize)]
struct WireCache<'a> {
    key: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<Cow<'a, str>>,
    /// Without it the entry is removed.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(default)]
    ttl_ms: u64,
}

fn raw(json: &Bytes) -> Result<&RawValue> {
    json::decode(json)
}

fn bytes(raw: &RawValue) -> Bytes {
    Bytes::copy_from_slice(raw.get().as_bytes())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> Wire<'a> {
    fn of(pending: &'a PendingEvent) -> Result<Self> {
        let event = pending.event.as_ref().map(WireEvent::of).transpose()?;
        let cache = pending.cache.as_ref().map(WireCache::of).transpose()?;
        let order = pending.order.as_deref().map(Cow::Borrowed);
        Ok(Self { id: Cow::Borrowed(&*pending.id.0), order, event, cache })
    }

    fn read(self) -> Result<PendingEvent> {
        if self.id.is_empty() {
            return Err(Error::new(ErrorKind::Decode, "a pending event has no id"));
        }
        Ok(PendingEvent {
            id: EventId(self.id.into_owned().into()),
            order: self.order.map(Cow::into_owned),
            event: self.event.map(WireEvent::read).transpose()?,
            cache: self.cache.map(WireCache::read),
        })
    }
}

impl<'a> WireEvent<'a> {
    fn of(event: &'a ModelEvent) -> Result<Self> {
        let channel = |(name, template): &'a (Channel, Option<Cow<'static, str>>)| WireChannel {
            name: Cow::Borrowed(name.as_str()),
            template: template.as_deref().map(Cow::Borrowed),
        };
        let durable = |durability: Durability| WireDurability {
            max_len: durability.retention.max_len,
            max_age_ms: millis(durability.retention.max_age),
            partitions: durability.partitions,
            wait_replicas: durability.wait_replicas,
        };
        Ok(Self {
            channels: event.channels.iter().map(channel).collect(),
            op: event.op,
            key: event.key.as_deref().map(Cow::Borrowed),
            durable: event.durable.map(durable),
            sharded: event.carrier == Carrier::Sharded,
            traceparent: event.trace.as_ref().map(|trace| Cow::Borrowed(&*trace.parent)),
            tracestate: event.trace.as_ref().and_then(|trace| trace.state.as_deref()).map(Cow::Borrowed),
            payload: raw(&event.payload)?,
        })
    }

    fn read(self) -> Result<ModelEvent> {
        let channel = |WireChannel { name, template }: WireChannel<'_>| {
            Ok((Channel::new(&name)?, template.map(|template| Cow::Owned(template.into_owned()))))
        };
        let durable = |wire: WireDurability| {
            let max_age = Duration::from_millis(wire.max_age_ms);
            let durability = Durability::from(Retention { max_len: wire.max_len, max_age });
            Durability { partitions: wire.partitions, wait_replicas: wire.wait_replicas, ..durability }
        };
        Ok(ModelEvent {
            channels: self.channels.into_iter().map(channel).collect::<Result<_>>()?,
            payload: bytes(self.payload),
            op: self.op,
            durable: self.durable.map(durable),
            carrier: if self.sharded { Carrier::Sharded } else { Carrier::Broadcast },
            key: self.key.map(Cow::into_owned),
            trace: self.traceparent.map(|parent| Trace {
                parent: parent.into_owned().into(),
                state: self.tracestate.map(|state| state.into_owned().into()),
            }),
        })
    }
}

impl<'a> WireCache<'a> {
    fn of(change: &'a CacheChange) -> Result<Self> {
        Ok(match change {
            CacheChange::Remove { key } => {
                Self { key: Cow::Borrowed(key), old: None, value: None, ttl_ms: 0 }
            }
            CacheChange::Write { key, old, value, ttl } => Self {
                key: Cow::Borrowed(key),
                old: old.as_deref().map(Cow::Borrowed),
                value: Some(raw(value)?),
                ttl_ms: millis(*ttl),
            },
        })
    }

    fn read(self) -> CacheChange {
        let key = self.key.into_owned();
        match self.value {
            None => CacheChange::Remove { key },
            Some(value) => CacheChange::Write {
                key,
                old: self.old.map(Cow::into_owned),
                value: bytes(value),
                ttl: Duration::from_millis(self.ttl_ms),
            },
        }
    }
}
