//! What is published, before it goes to clients: checked, because whatever is on Redis is untrusted, and made one line.

use bytes::Bytes;
use serde_json::value::RawValue;

/// Why a payload does not go to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    TooLarge,
    /// It is not JSON in UTF-8.
    NotJson,
}

/// A payload that is JSON on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload(Bytes);

impl Payload {
    pub(crate) fn check(payload: Bytes, most: usize) -> Result<Self, Unfit> {
        if payload.len() > most {
            return Err(Unfit::TooLarge);
        }
        serde_json::from_slice::<&RawValue>(&payload).map_err(|_| Unfit::NotJson)?;
        // Within a text of JSON no line can end, so that each of these stands between two of its parts.
        let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
        if !payload.iter().any(is_break) {
            return Ok(Self(payload));
        }
        let one_line = |byte: &u8| if is_break(byte) { b' ' } else { *byte };
        Ok(Self(payload.iter().map(one_line).collect::<Vec<_>>().into()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_json(&self) -> &RawValue {
        serde_json::from_slice(&self.0).expect("it was checked to be JSON")
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_passes_and_it_is_one_line() {
        let check = |payload: &'static [u8]| {
            Payload::check(Bytes::from_static(payload), 64).map(|payload| payload.as_bytes().to_vec())
        };
        assert_eq!(check(b"{\"a\":\"b\\n\"}").unwrap(), b"{\"a\":\"b\\n\"}");
        assert_eq!(check(b"{\r\n \"a\": 1\n}\n").unwrap(), b"{   \"a\": 1 } ");
        for bad in [&b"test message"[..], b"", b"{", b"{\"a\":\"\n\"}", b"\"\xff\"", b"1 2"] {
            assert_eq!(check(bad), Err(Unfit::NotJson), "{bad:?}");
        }
        assert_eq!(check(&[b'1'; 65]), Err(Unfit::TooLarge));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        Payload::check(deep.into(), 200_000).unwrap();
    }
}
