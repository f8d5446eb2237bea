//! Streams, places in them, and what is there. Pure values; no I/O.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::channel::Channel;
use crate::error::{Error, ErrorKind};
use crate::history::PastMessage;
use crate::stream::{Entry, EntryId, RawEntry, StreamName, field};

/// One stream of a durable channel: what is published on all channels of a template, or one partition of it. It is shown
/// as the registry calls it, such as `orders:<>#3`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamRef(pub(super) StreamName);

impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a stream. It sorts by age, and is text like `1700000000000-3.42` for whoever keeps it.
///
/// ```
/// use messaging_core::{EntryId, Position};
///
/// let position = Position { id: EntryId { millis: 1_700_000_000_000, sequence: 3 }, number: 42 };
/// assert_eq!(position.to_string(), "1700000000000-3.42");
/// assert_eq!("1700000000000-3.42".parse::<Position>()?, position);
/// assert!("1700000000000-3".parse::<Position>().is_err());
/// # Ok::<(), messaging_core::Error>(())
/// ```
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Where it is.
    pub id: EntryId,
    /// Its number in the stream, counted from 1: where one is missing, an entry has been removed. 0 if whoever appended
    /// it gave it none; at the end of a stream, the last number that was given.
    pub number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.number)
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Reads exactly what [`Display`](fmt::Display) writes.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] for all other text.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text
            .split_once('.')
            .and_then(|(id, number)| Some(Self { id: id.parse().ok()?, number: number.parse().ok()? }));
        // Numbers may be written in more than one way, and what was not written here is not to be trusted.
        parsed.filter(|position| position.to_string() == text).ok_or_else(|| {
            Error::new(ErrorKind::Decode, format!("{text:?} is not a position like 1700000000000-3.42"))
        })
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a stream ends, and which incarnation of it that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// The last entry, be it kept or not, and the last number that was given. The id is `0-0` while there is no stream.
    pub position: Position,
    /// Random text that stands for one counting of the numbers: under the same epoch, what comes after a number are the
    /// entries with greater ones. Where they begin anew, it is another.
    pub epoch: String,
}

/// An entry of a stream.
#[derive(Clone, Debug)]
pub struct StreamEntry {
    /// Where it is.
    pub position: Position,
    /// The message; `None` for what is nobody's news: it was replayed for one group, was not made by a publisher of
    /// ours, or has a channel without the deployment's prefix. Its position counts all the same.
    pub message: Option<PastMessage>,
}

impl StreamEntry {
    pub(super) fn read(raw: RawEntry, prefix: &str) -> Self {
        let position = Position { id: raw.id, number: number_of(&raw.fields) };
        let message = Entry::read(raw, 0).and_then(|(entry, channel, payload)| {
            let channel = Channel::from_wire(channel)?.without_prefix(prefix)?;
            entry.only.is_none().then(|| PastMessage::new(channel, payload, entry))
        });
        Self { position, message }
    }
}

/// Also of an entry that cannot be read otherwise.
fn number_of(fields: &[(Bytes, Bytes)]) -> u64 {
    let number = fields.iter().rev().find(|(name, _)| name == field::NUMBER);
    let text = number.and_then(|(_, value)| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written_and_in_no_other_way() {
        for text in
            ["0-0.0", "1700000000000-3.42", "18446744073709551615-18446744073709551615.18446744073709551615"]
        {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
            let json = format!("{text:?}");
            let read: Position = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
        for text in [
            "",
            "1-2",
            "1.2",
            "1-2.",
            "-2.3",
            "1-.3",
            "+1-2.3",
            "1-2.+3",
            "01-2.3",
            "1-2.03",
            "1-2.3 ",
            "1-2.3.4",
            "1-2-3.4",
            "18446744073709551616-0.1",
            "1-2.x",
        ] {
            let error = text.parse::<Position>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode, "{text}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn positions_sort_by_age() {
        let positions = ["1-0.9", "1-2.3", "1-10.1", "2-0.0", "10-0.0"];
        let mut sorted: Vec<Position> = positions.iter().rev().map(|text| text.parse().unwrap()).collect();
        sorted.sort_unstable();
        assert_eq!(sorted.iter().map(Position::to_string).collect::<Vec<_>>(), positions);
    }

    #[test]
    fn what_is_nobodys_news_has_a_position() {
        let read = |fields: &[(&'static str, &'static [u8])]| {
            let bytes = |(name, value): &(&'static str, &'static [u8])| {
                (Bytes::from_static(name.as_bytes()), Bytes::from_static(value))
            };
            let raw = RawEntry {
                id: EntryId { millis: 5, sequence: 1 },
                fields: fields.iter().map(bytes).collect(),
            };
            let entry = StreamEntry::read(raw, "p.");
            let channel = entry.message.map(|message| message.channel().to_string());
            (entry.position.to_string(), channel)
        };
        let news = Some("orders".to_owned());
        assert_eq!(
            read(&[("n", b"7"), ("channel", b"p.orders"), ("data", b"1")]),
            ("5-1.7".to_owned(), news.clone())
        );
        assert_eq!(read(&[("channel", b"p.orders"), ("data", b"1")]), ("5-1.0".to_owned(), news));
        for nobodys in [
            &[("n", b"7" as &[u8]), ("channel", b"p.orders"), ("data", b"1"), ("only", b"billing")][..],
            &[("n", b"7"), ("channel", b"q.orders"), ("data", b"1")],
            &[("n", b"7"), ("channel", b"p.\xff"), ("data", b"1")],
            &[("n", b"7"), ("channel", b"p.orders")],
            &[("n", b"7"), ("id", b"\xff"), ("channel", b"p.orders"), ("data", b"1")],
        ] {
            assert_eq!(read(nobodys), ("5-1.7".to_owned(), None), "{nobodys:?}");
        }
        assert_eq!(read(&[("n", b"\xff")]), ("5-1.0".to_owned(), None));
        assert_eq!(read(&[]), ("5-1.0".to_owned(), None));
    }
}
