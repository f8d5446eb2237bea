//! What happened to a model: operations, the [`Model`] trait that `#[event_config]` implements, and the
//! [`ChangeEvent`] envelope. No I/O.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use humantime::TimestampError;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::dispatch::Carrier;
use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::registry::ModelDescriptor;
use crate::stream::Durability;
use crate::trace::Trace;

/// An operation on a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It was created.
    Create,
    /// It was changed.
    Update,
    /// It was deleted.
    Delete,
}

impl Op {
    /// `create`, `update` or `delete`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A struct whose creation, change and deletion are published. Implemented by
/// [`#[event_config]`](macro@crate::event_config), never by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a model",
    label = "put `#[event_config(…)]` on the struct"
)]
pub trait Model: Send + Sync + 'static {
    /// What is published where, as data.
    const DESCRIPTOR: &'static ModelDescriptor;

    /// The event's payload as JSON. `previous` is the model as it was before an update.
    #[doc(hidden)]
    fn payload(&self, op: Op, previous: Option<&Self>) -> Result<Bytes>;

    /// The scalar text of the Rust field `field`, for channels and cache keys; `None` if it is null.
    #[doc(hidden)]
    fn field(&self, field: &str) -> Result<Option<String>>;

    /// The value for the model's own cache entry.
    #[doc(hidden)]
    fn cached(&self) -> Result<Bytes>;
}

/// One event, ready to be published.
#[derive(Clone, Debug)]
pub(crate) struct ModelEvent {
    /// With the templates that they are of, as far as there are any.
    pub(crate) channels: Vec<(Channel, Option<Cow<'static, str>>)>,
    pub(crate) payload: Bytes,
    /// What happened to a model; `None` for a message of another kind.
    pub(crate) op: Option<Op>,
    pub(crate) durable: Option<Durability>,
    pub(crate) carrier: Carrier,
    /// What keeps durable events in order.
    pub(crate) key: Option<String>,
    /// Where it was captured.
    pub(crate) trace: Option<Trace>,
}

/// The event of `op` on `model`, captured as it is now; `None` if that operation is not published.
pub(crate) fn capture<M: Model>(model: &M, op: Op, previous: Option<&M>) -> Result<Option<ModelEvent>> {
    let Some(templates) = M::DESCRIPTOR.channels(op) else { return Ok(None) };
    let mut channels = Vec::with_capacity(templates.len());
    for template in templates {
        if let Some(channel) = crate::channel::fill(template, |field| model.field(field))? {
            channels.push((channel, Some(Cow::Borrowed(*template))));
        }
    }
    let durable = M::DESCRIPTOR.durable;
    let key = match durable.and_then(|durable| durable.key) {
        Some(field) => model.field(field)?,
        None => None,
    };
    Ok(Some(ModelEvent {
        channels,
        payload: model.payload(op, previous)?,
        op: Some(op),
        durable: durable.map(|durable| durable.durability),
        carrier: M::DESCRIPTOR.carrier,
        key,
        trace: Trace::current(),
    }))
}

/// What a [`ChangeEvent`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChangeKind {
    /// The resource was created.
    Create,
    /// The resource was changed.
    Update,
    /// The resource was deleted.
    Delete,
    /// Everything known of the resource is out of date: a bulk invalidation.
    Invalidate,
}

impl From<Op> for ChangeKind {
    fn from(op: Op) -> Self {
        match op {
            Op::Create => Self::Create,
            Op::Update => Self::Update,
            Op::Delete => Self::Delete,
        }
    }
}

/// A change of some resource in the envelope that `#[event_config(envelope = …)]` publishes: always the same seven
/// keys in the same order, whatever the model is.
///
/// ```
/// use messaging_core::{ChangeEvent, ChangeKind};
///
/// let event = ChangeEvent::invalidate("tenant", "t-1").tenant("t-1").metadata(&serde_json::json!({"deleted": 12}))?;
/// assert_eq!(event.event_type, ChangeKind::Invalidate);
/// let json = serde_json::to_string(&event).unwrap();
/// assert!(json.starts_with(r#"{"event_type":"invalidate","resource_type":"tenant","resource_id":"t-1","tenant_id":"t-1","timestamp":""#));
/// assert!(json.ends_with(r#"Z","metadata":{"deleted":12}}"#));
/// # Ok::<(), messaging_core::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeEvent {
    /// What happened.
    pub event_type: ChangeKind,
    /// The kind of resource, such as `monitor`.
    pub resource_type: String,
    /// Which one.
    pub resource_id: String,
    /// Whose it is; `null` for resources of the whole platform.
    pub tenant_id: Option<String>,
    /// When, in whole seconds.
    pub timestamp: Timestamp,
    /// Whatever else was said, as JSON.
    metadata: Box<RawValue>,
}

impl ChangeEvent {
    /// An event of `kind` on one resource, stamped with the current time, without tenant or metadata.
    #[must_use]
    pub fn new(kind: ChangeKind, resource_type: impl Into<String>, resource_id: impl Into<String>) -> Self {
        Self {
            event_type: kind,
            resource_type: resource_type.into(),
            resource_id: resource_id.into(),
            tenant_id: None,
            timestamp: Timestamp::now(),
            metadata: empty_object(),
        }
    }

    /// A bulk invalidation.
    #[must_use]
    pub fn invalidate(resource_type: impl Into<String>, resource_id: impl Into<String>) -> Self {
        Self::new(ChangeKind::Invalidate, resource_type, resource_id)
    }

    /// Sets the tenant.
    #[must_use]
    pub fn tenant(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant_id = Some(tenant_id.into());
        self
    }

    /// Sets the metadata; its keys keep their order.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if it cannot be written as JSON.
    pub fn metadata<T: Serialize + ?Sized>(mut self, metadata: &T) -> Result<Self> {
        self.metadata = serde_json::value::to_raw_value(metadata).map_err(|source| {
            Error::new(ErrorKind::Encode, format!("cannot write the metadata as JSON: {source}"))
                .with_source(source)
        })?;
        Ok(self)
    }

    /// Reads the metadata as a type of your own.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if it has another shape.
    pub fn metadata_as<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        json::decode(self.metadata.get().as_bytes())
    }

    /// The metadata as JSON text.
    #[must_use]
    pub fn metadata_json(&self) -> &str {
        self.metadata.get()
    }
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("an empty object is JSON")
}

/// A moment in UTC with a precision of one second, written as RFC 3339 with `Z`: `2025-01-14T15:30:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The current moment; 1970 on a machine whose clock stands before it.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        Self::UNIX_EPOCH + Duration::from_secs(timestamp.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&humantime::format_rfc3339_seconds(SystemTime::from(*self)), f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_moment(&text).map(Self).map_err(|error| {
            D::Error::custom(format_args!("{text:?} is not a moment like 2025-01-14T15:30:00Z: {error}"))
        })
    }
}

/// The seconds since 1970 of a moment with `Z` or an offset; without either, as Python's `isoformat()` writes a naive
/// one, it is taken as UTC.
fn parse_moment(text: &str) -> Result<u64, TimestampError> {
    // The last second of the year 9999: what comes after it could not be written.
    const LATEST: u64 = 253_402_300_799;
    let split = text.len().checked_sub(6).and_then(|at| text.split_at_checked(at));
    let (moment, east, offset) = match split.map(|(moment, offset)| (moment, offset.as_bytes())) {
        Some((moment, [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2])) if !moment.ends_with('Z') => {
            let digit = |byte: &u8| char::from(*byte).to_digit(10).ok_or(TimestampError::InvalidDigit);
            let hours = digit(h1)? * 10 + digit(h2)?;
            let minutes = digit(m1)? * 10 + digit(m2)?;
            if hours > 23 || minutes > 59 {
                return Err(TimestampError::OutOfRange);
            }
            (moment, *sign == b'+', u64::from((hours * 60 + minutes) * 60))
        }
        _ => (text, true, 0),
    };
    let local = Timestamp::from(humantime::parse_rfc3339_weak(moment)?).0;
    let utc = if east { local.checked_sub(offset) } else { local.checked_add(offset) };
    utc.filter(|utc| *utc <= LATEST).ok_or(TimestampError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_reads_what_it_writes() {
        let json = r#"{"event_type":"update","resource_type":"monitor","resource_id":"uuid-here","tenant_id":"tenant-uuid","timestamp":"2025-01-14T15:30:00Z","metadata":{"active":true,"paused":false,"validated":true,"name":"Monitor Name","slug":"monitor-slug"}}"#;
        let event: ChangeEvent = serde_json::from_str(json).unwrap();
        assert_eq!(event.event_type, ChangeKind::Update);
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
    }

    #[test]
    fn moments_of_other_publishers_are_read_as_utc() {
        for (text, utc) in [
            ("2025-01-14T15:30:00Z", "2025-01-14T15:30:00Z"),
            ("2025-01-14T15:30:00.999999Z", "2025-01-14T15:30:00Z"),
            ("2025-01-14T15:30:00+00:00", "2025-01-14T15:30:00Z"),
            ("2025-01-14T15:30:00.123456+00:00", "2025-01-14T15:30:00Z"),
            ("2025-01-14T15:30:00-00:00", "2025-01-14T15:30:00Z"),
            ("2025-01-14T15:30:00+03:00", "2025-01-14T12:30:00Z"),
            ("2025-01-14T01:30:00.5+03:00", "2025-01-13T22:30:00Z"),
            ("2025-12-31T23:30:00-03:30", "2026-01-01T03:00:00Z"),
            ("2025-01-14T15:30:00", "2025-01-14T15:30:00Z"),
            ("2025-01-14T15:30:00.123456", "2025-01-14T15:30:00Z"),
            ("2025-01-14 15:30:00", "2025-01-14T15:30:00Z"),
        ] {
            let timestamp: Timestamp = serde_json::from_value(text.into()).unwrap();
            assert_eq!(timestamp.to_string(), utc, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "+03:00",
            "2025-01-14",
            "2025-01-14T15:30+03:00",
            "2025-01-14T15:30:00Z+03:00",
            "2025-01-14T15:30:00+03:00Z",
            "2025-01-14T15:30:00+24:00",
            "2025-01-14T15:30:00+03:60",
            "2025-01-14T15:30:00++3:00",
            "2025-01-14T15:30:00+0é:0",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert!(serde_json::from_value::<Timestamp>(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_timestamp_is_refused_with_an_example() {
        let error = serde_json::from_str::<Timestamp>(r#""yesterday""#).unwrap_err().to_string();
        assert!(error.contains("2025-01-14T15:30:00Z"), "{error}");
    }
}
