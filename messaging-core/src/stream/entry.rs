//! An entry of a stream: its id, its fields, and what handlers see of them.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// The names of an entry's own fields. All others are headers.
pub(crate) mod field {
    pub(crate) const ID: &str = "id";
    pub(crate) const NUMBER: &str = "n";
    pub(crate) const CHANNEL: &str = "channel";
    pub(crate) const TIME: &str = "time";
    pub(crate) const KIND: &str = "type";
    pub(crate) const KEY: &str = "key";
    pub(crate) const DATA: &str = "data";
    /// The one group that a replayed entry is for.
    pub(crate) const ONLY: &str = "only";
    /// In front of what a dead-letter stream adds.
    pub(crate) const DEAD: &str = "dead.";

    const ALL: [&str; 8] = [ID, NUMBER, CHANNEL, TIME, DATA, KIND, KEY, ONLY];

    /// Whether a header may not have this name.
    pub(crate) fn is_reserved(name: &str) -> bool {
        ALL.contains(&name) || name.starts_with(DEAD)
    }

    /// The same name as one that need not be kept, if it is one of these.
    pub(crate) fn known(name: &[u8]) -> Option<&'static str> {
        ALL.into_iter().find(|known| known.as_bytes() == name)
    }
}

/// The place of an entry in its stream, as Redis gives it: milliseconds and a number. It sorts by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Redis's clock in milliseconds since 1970 when it was appended.
    pub millis: u64,
    /// Its number among those of one millisecond.
    pub sequence: u64,
}

impl EntryId {
    pub(crate) const MIN: Self = Self { millis: 0, sequence: 0 };
    pub(crate) const MAX: Self = Self { millis: u64::MAX, sequence: u64::MAX };

    /// The next possible one; the last is its own.
    pub(crate) fn next(self) -> Self {
        match (self.sequence.checked_add(1), self.millis.checked_add(1)) {
            (Some(sequence), _) => Self { sequence, ..self },
            (None, Some(millis)) => Self { millis, sequence: 0 },
            (None, None) => self,
        }
    }

    /// The one before; the first is its own.
    pub(crate) fn previous(self) -> Self {
        match (self.sequence.checked_sub(1), self.millis.checked_sub(1)) {
            (Some(sequence), _) => Self { sequence, ..self },
            (None, Some(millis)) => Self { millis, sequence: u64::MAX },
            (None, None) => self,
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for EntryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('-').and_then(|(millis, sequence)| {
            Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            Error::new(ErrorKind::Decode, format!("{text:?} is not an entry's id like 1700000000000-0"))
        })
    }
}

impl Serialize for EntryId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What identifies an event, however often it is delivered or published again: a UUIDv7 unless its publisher gave it
/// another id. As a handler's argument, it is that of the message.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub(crate) ByteString);

impl EventId {
    /// A new one: a UUID of version 7.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().hyphenated().to_string().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One that may be kept: what was read with it does not stay in memory for its sake.
    pub(crate) fn to_keep(&self) -> Self {
        Self(ByteString::from(&*self.0))
    }
}

impl Deref for EventId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

/// The headers of a durable message, such as `traceparent`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub(crate) Vec<(ByteString, ByteString)>);

impl Headers {
    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(header, _)| header == name).map(|(_, value)| &**value)
    }

    /// Names and values, in the publisher's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    /// For tests that call a handler as the function that it is.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let text = |text: String| ByteString::from(text);
        Self(headers.into_iter().map(|(name, value)| (text(name.into()), text(value.into()))).collect())
    }
}

/// An entry as it was read, before anyone looked into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawEntry {
    pub(crate) id: EntryId,
    pub(crate) fields: Vec<(Bytes, Bytes)>,
}

impl RawEntry {
    /// The same, which may be kept: what was read with it does not stay in memory for its sake.
    pub(crate) fn alone(mut self) -> Self {
        for (name, value) in &mut self.fields {
            if field::known(name).is_none() {
                *name = Bytes::copy_from_slice(name);
            }
            *value = Bytes::copy_from_slice(value);
        }
        self
    }
}

/// What a stream says of a message, beside its channel and its payload.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) event: EventId,
    /// Its number in the stream, counted from 1; 0 if whoever appended it gave none.
    pub(crate) number: u64,
    /// Milliseconds since 1970, by the publisher's clock.
    pub(crate) time: u64,
    pub(crate) kind: Option<ByteString>,
    pub(crate) key: Option<ByteString>,
    pub(crate) only: Option<ByteString>,
    pub(crate) headers: Headers,
    /// Where its reader keeps the stream.
    pub(crate) stream: usize,
    /// How often its reader had begun anew with the stream.
    pub(crate) epoch: u64,
    /// Which attempt at it is the next, counted from 1.
    pub(crate) attempt: u32,
    /// How long its next attempt has to wait.
    pub(crate) wait: Duration,
}

impl Entry {
    /// Takes an entry apart: what the stream says, the channel as on the wire, the payload. `None` if it has no channel
    /// or no data: then it was not made by a publisher of ours. What has no id of its own gets that of its entry.
    pub(crate) fn read(raw: RawEntry, stream: usize) -> Option<(Self, Bytes, Bytes)> {
        let mut entry = Self {
            id: raw.id,
            event: EventId(ByteString::new()),
            number: 0,
            time: raw.id.millis,
            kind: None,
            key: None,
            only: None,
            headers: Headers::default(),
            stream,
            epoch: 0,
            attempt: 1,
            wait: Duration::ZERO,
        };
        let (mut channel, mut data) = (None, None);
        for (name, value) in raw.fields {
            let text = |value: Bytes| ByteString::try_from(value).ok();
            match std::str::from_utf8(&name).unwrap_or_default() {
                field::CHANNEL => channel = Some(value),
                field::DATA => data = Some(value),
                field::ID => entry.event = EventId(text(value)?),
                field::NUMBER => entry.number = text(value)?.parse().unwrap_or_default(),
                field::TIME => entry.time = text(value)?.parse().unwrap_or(raw.id.millis),
                field::KIND => entry.kind = text(value),
                field::KEY => entry.key = text(value),
                field::ONLY => entry.only = text(value),
                _ => {
                    if let (Some(name), Some(value)) = (text(name), text(value)) {
                        entry.headers.0.push((name, value));
                    }
                }
            }
        }
        if entry.event.is_empty() {
            entry.event = EventId(raw.id.to_string().into());
        }
        Some((entry, channel?, data?))
    }

    /// When it was published.
    pub(crate) fn published(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.time)
    }
}

/// What a dead-letter stream says of an entry, beside the entry's own fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadRecord {
    pub(crate) handler: String,
    pub(crate) error: String,
    pub(crate) attempts: u32,
    /// Milliseconds since 1970.
    pub(crate) failed_at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(fields: &[(&'static str, &'static str)]) -> RawEntry {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        RawEntry {
            id: EntryId { millis: 5, sequence: 1 },
            fields: fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
        }
    }

    #[test]
    fn entries_are_taken_apart() {
        let fields = [
            ("id", "e"),
            ("n", "7"),
            ("channel", "c"),
            ("time", "4"),
            ("type", "t"),
            ("key", "k"),
            ("traceparent", "00"),
            ("data", "{}"),
        ];
        let (entry, channel, data) = Entry::read(raw(&fields), 3).unwrap();
        assert_eq!((&*channel, &*data), (&b"c"[..], &b"{}"[..]));
        assert_eq!((entry.event.as_str(), entry.number, entry.time, entry.stream), ("e", 7, 4, 3));
        assert_eq!((entry.kind.as_deref(), entry.key.as_deref()), (Some("t"), Some("k")));
        assert_eq!(entry.headers.iter().collect::<Vec<_>>(), [("traceparent", "00")]);
        let (foreign, ..) = Entry::read(raw(&[("channel", "c"), ("data", "1")]), 0).unwrap();
        assert_eq!((foreign.event.as_str(), foreign.number, foreign.time), ("5-1", 0, 5));
        assert!(Entry::read(raw(&[("data", "1")]), 0).is_none());
        assert!(Entry::read(raw(&[("channel", "c")]), 0).is_none());
    }

    #[test]
    fn ids_are_read_and_written_and_sort_by_age() {
        let id: EntryId = "1700000000000-3".parse().unwrap();
        assert_eq!(id.to_string(), "1700000000000-3");
        assert!(id < id.next() && id.next().previous() == id);
        assert!(EntryId { sequence: u64::MAX, ..id }.next() > id);
        assert_eq!((EntryId::MIN.previous(), EntryId::MAX.next()), (EntryId::MIN, EntryId::MAX));
        for nonsense in ["", "1", "1-", "-1", "a-b", "1-2-3"] {
            assert!(nonsense.parse::<EntryId>().is_err(), "{nonsense}");
        }
    }
}
