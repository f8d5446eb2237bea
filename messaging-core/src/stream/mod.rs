//! What durable channels are made of: streams and their names, the ids of their entries, what is kept of them. Pure
//! values; no I/O.

mod entry;
mod name;

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

pub(crate) use entry::{DeadRecord, Entry, RawEntry, field};
pub use entry::{EntryId, EventId, Headers};
pub(crate) use name::{StreamInfo, StreamName};

use crate::error::{Error, ErrorKind, Result};

/// How much of a durable channel is kept: whatever is over one of the bounds is removed, oldest first, whether it has
/// been handled or not.
///
/// ```
/// use messaging_core::Retention;
/// use std::time::Duration;
///
/// let hour = Retention { max_age: Duration::from_secs(3600), ..Retention::DEFAULT };
/// assert_eq!(hour.max_len.get(), 100_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many messages at least; Redis removes them in chunks, so that up to about a hundred more stay.
    pub max_len: NonZeroU64,
    /// For how long; what is older goes, in chunks too, when something is published, and all of it when nothing is for so
    /// long.
    pub max_age: Duration,
}

impl Retention {
    /// 100,000 messages or 24 hours.
    pub const DEFAULT: Self = Self {
        max_len: NonZeroU64::new(100_000).expect("a hundred thousand is not zero"),
        max_age: Duration::from_secs(24 * 60 * 60),
    };

    /// What a dead-letter stream keeps: 100,000 messages or 14 days.
    pub(crate) const DEAD: Self = Self { max_age: Duration::from_secs(14 * 24 * 60 * 60), ..Self::DEFAULT };
}

impl Default for Retention {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a channel is durable: what is kept of it, into how many partitions it is divided, and how many replicas have to
/// confirm a message before its publisher is told that it was published.
///
/// ```
/// use messaging_core::{Durability, Retention};
/// use std::num::NonZeroU16;
///
/// let kept = Durability::from(Retention::DEFAULT);
/// let ordered = Durability::DEFAULT.partitions(NonZeroU16::new(16).unwrap());
/// assert_ne!(kept, ordered);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Durability {
    /// What is kept; of each partition, if there are several.
    pub retention: Retention,
    /// Messages with the same key go to the same partition, in which handlers can keep their order.
    pub partitions: Option<NonZeroU16>,
    /// How many replicas have to confirm each message (`WAIT`).
    pub wait_replicas: Option<NonZeroU32>,
}

impl Durability {
    /// 100,000 messages or 24 hours, one partition, no waiting for replicas.
    pub const DEFAULT: Self = Self { retention: Retention::DEFAULT, partitions: None, wait_replicas: None };

    /// The most partitions that a channel can have.
    pub const MOST_PARTITIONS: u16 = 1_024;

    /// Keeps so much.
    #[must_use]
    pub const fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Divides it into so many partitions, at most 1,024. Changing the number later moves keys to other partitions.
    #[must_use]
    pub const fn partitions(mut self, partitions: NonZeroU16) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Waits for so many replicas, up to the command timeout: when fewer have confirmed the message, publishing fails with
    /// [`ErrorKind::Timeout`], though it is in the stream. `memory://` has no replicas and does not wait.
    ///
    /// [`ErrorKind::Timeout`]: crate::ErrorKind::Timeout
    #[must_use]
    pub const fn wait_replicas(mut self, replicas: NonZeroU32) -> Self {
        self.wait_replicas = Some(replicas);
        self
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self, pattern: &str) -> Result<()> {
        let refuse = |reason: &str| {
            let text = format!("the durable channel {pattern:?} {reason}");
            Err(Error::new(ErrorKind::Configuration, text))
        };
        if self.retention.max_age < Duration::from_secs(1) {
            return refuse("keeps messages for less than a second; give `max_age` a longer time");
        }
        if self.partitions.is_some_and(|partitions| partitions.get() > Self::MOST_PARTITIONS) {
            return refuse("has more than 1,024 partitions");
        }
        Ok(())
    }
}

impl Default for Durability {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl From<Retention> for Durability {
    fn from(retention: Retention) -> Self {
        Self::DEFAULT.retention(retention)
    }
}

/// The partition of a key: its FNV-1a hash (32 bit; Fowler, Noll and Vo, RFC 9923) modulo the number of partitions, so
/// that publishers in other languages can find it too.
pub(crate) fn partition_of(key: &str, partitions: NonZeroU16) -> u16 {
    let mut hash = 0x811c_9dc5_u32;
    for byte in key.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    (hash % u32::from(partitions.get())) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_those_of_fnv_1a() {
        let most = NonZeroU16::new(1_024).unwrap();
        for (key, hash) in [("", 0x811c_9dc5_u32), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(u32::from(partition_of(key, most)), hash % 1_024, "{key}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let young = Retention { max_age: Duration::from_millis(10), ..Retention::DEFAULT };
        let many = Durability::DEFAULT.partitions(NonZeroU16::new(1_025).unwrap());
        for (durability, reason) in [(young.into(), "less than a second"), (many, "1,024")] {
            let error = durability.check("orders.*").unwrap_err().to_string();
            assert!(error.contains("orders.*") && error.contains(reason), "{error}");
        }
        Durability::DEFAULT.check("orders.*").unwrap();
    }
}
