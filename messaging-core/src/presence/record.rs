//! What is stored of a join and told of it, as JSON. What comes from the backend may be anything.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::PresenceEntry;
use crate::backend::presence::JoinKey;
use crate::error::{Error, ErrorKind, Result};

/// Longer names of users and joins are a mistake.
const LONGEST_NAME: usize = 1_024;

/// A join, as whoever has joined wants it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) user: String,
    meta: Box<RawValue>,
    /// When it was joined or updated, in milliseconds since 1970: it tells which of a user's joins speaks for him.
    at: u64,
}

/// The same as it is stored.
#[derive(Serialize)]
struct Written<'a> {
    user: &'a str,
    meta: &'a RawValue,
    at: u64,
    /// Makes each time that it is written different: what has been written again is not removed for what it was.
    n: u64,
}

/// The same as it is read.
#[derive(Deserialize)]
struct Read {
    user: String,
    meta: Value,
    #[serde(default)]
    at: u64,
}

/// What those who watch are told: what a join is now, or without a value that it is no more.
#[derive(Serialize, Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    join: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
}

/// A join that was read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) entry: PresenceEntry,
    pub(super) at: u64,
    /// As it is stored.
    pub(super) value: Bytes,
}

impl Record {
    /// # Errors
    /// [`ErrorKind::Encode`] also for what could be written and not be read again.
    pub(super) fn new<T: Serialize + ?Sized>(user: &str, meta: &T, at: u64) -> Result<Self> {
        check_name("user", user)?;
        let encode = |source: serde_json::Error| {
            let text = format!("cannot write the meta of {user:?} as JSON that can be read: {source}");
            Error::new(ErrorKind::Encode, text).with_source(source)
        };
        let text = serde_json::to_string(meta).map_err(encode)?;
        // Too deeply nested, nobody could see it; `{"meta":…}` is one level more.
        serde_json::from_str::<Value>(&format!("[{text}]")).map_err(encode)?;
        let meta = RawValue::from_string(text).map_err(encode)?;
        Ok(Self { user: user.to_owned(), meta, at })
    }

    /// As it is stored, the time of this number.
    pub(super) fn encode(&self, n: u64) -> Bytes {
        let written = Written { user: &self.user, meta: &self.meta, at: self.at, n };
        serde_json::to_vec(&written).expect("texts and numbers can be written").into()
    }

    /// Refuses what those who watch would skip.
    pub(super) fn check_size(&self, key: &JoinKey, limit: usize) -> Result<()> {
        let size = put_notice(key, &self.encode(u64::MAX)).len();
        if size <= limit {
            return Ok(());
        }
        let text = format!(
            "the presence of {:?} has {size} bytes, the limit is {limit}; make its meta smaller, or raise MESSAGING_MAX_PAYLOAD everywhere",
            self.user
        );
        Err(Error::new(ErrorKind::PayloadTooLarge, text))
    }
}

pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    if !name.is_empty() && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let text = format!("the {what} of a join has {} bytes; it must have 1 to {LONGEST_NAME}", name.len());
    Err(Error::new(ErrorKind::InvalidKey, text))
}

impl Seen {
    pub(super) fn read(value: Bytes) -> Option<Self> {
        let Read { user, meta, at } = serde_json::from_slice(&value).ok()?;
        check_name("user", &user).ok()?;
        Some(Self { entry: PresenceEntry { user, meta }, at, value })
    }
}

/// That a join is this now.
pub(super) fn put_notice(key: &JoinKey, value: &Bytes) -> Bytes {
    let value = serde_json::from_slice(value).expect("it was written as JSON");
    told(key, Some(value))
}

/// That a join is no more.
pub(super) fn left_notice(key: &JoinKey) -> Bytes {
    told(key, None)
}

fn told(key: &JoinKey, value: Option<&RawValue>) -> Bytes {
    let told = Told { join: key.to_string().into(), value };
    serde_json::to_vec(&told).expect("texts can be written").into()
}

/// Reads what was told. `Some((key, None))` says that a join is no more; `None` that this is no sense.
pub(super) fn read_notice(notice: &[u8]) -> Option<(JoinKey, Option<Seen>)> {
    let Told { join, value } = serde_json::from_slice(notice).ok()?;
    let key = JoinKey::parse(&join)?;
    match value {
        None => Some((key, None)),
        Some(value) => {
            let seen = Seen::read(Bytes::copy_from_slice(value.get().as_bytes()))?;
            Some((key, Some(seen)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::presence::NodeId;

    fn key() -> JoinKey {
        JoinKey { node: NodeId::random(), id: "tab \"1\"/x".into() }
    }

    #[test]
    fn what_is_told_is_what_is_stored() {
        let meta = json!({ "name": "Ada \u{2028}\0\"", "large": u64::MAX, "none": null });
        let record = Record::new("ada\n", &meta, 7).unwrap();
        let (key, stored) = (key(), record.encode(3));
        let (told, seen) = read_notice(&put_notice(&key, &stored)).unwrap();
        let seen = seen.unwrap();
        assert_eq!((told, &seen.value, seen.at), (key.clone(), &stored, 7));
        assert_eq!(seen.entry, PresenceEntry { user: "ada\n".to_owned(), meta });
        assert!(matches!(read_notice(&left_notice(&key)), Some((left, None)) if left == key));
        assert_ne!(record.encode(4), stored);
    }

    #[test]
    fn what_is_no_sense_is_nobody() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let deep = format!(r#"{{"user":"a","meta":{deep}}}"#);
        for value in [
            "",
            "{}",
            "[]",
            r#"{"user":"a"}"#,
            r#"{"user":1,"meta":1}"#,
            r#"{"user":"","meta":1}"#,
            "\u{ff}",
            &deep,
        ] {
            assert!(Seen::read(Bytes::copy_from_slice(value.as_bytes())).is_none(), "{value}");
            assert!(read_notice(value.as_bytes()).is_none(), "{value}");
            let told = format!(r#"{{"join":"{}/x","value":{value}}}"#, NodeId::random());
            assert!(read_notice(told.as_bytes()).is_none(), "{told}");
        }
        assert!(read_notice(br#"{"join":"x/y"}"#).is_none());
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let nested = |depth: usize| (1..depth).fold(json!([]), |inner, _| json!([inner]));
        for depth in [126, 127, 128, 200] {
            match Record::new("ada", &nested(depth), 0) {
                Ok(record) => assert!(Seen::read(record.encode(1)).is_some(), "{depth}"),
                Err(error) => {
                    assert_eq!((error.kind(), error.is_not_sent()), (ErrorKind::Encode, true));
                    assert!(depth > 126);
                }
            }
        }
        assert!(Record::new("ada", &nested(200), 0).is_err());
        for user in ["", &"x".repeat(1_025)] {
            assert_eq!(Record::new(user, &(), 0).unwrap_err().kind(), ErrorKind::InvalidKey);
        }
        let (record, key) = (Record::new("ada", &"x".repeat(100), 0).unwrap(), key());
        let size = put_notice(&key, &record.encode(u64::MAX)).len();
        record.check_size(&key, size).unwrap();
        assert_eq!(record.check_size(&key, size - 1).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    }
}
