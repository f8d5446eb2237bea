//! What a test has seen, and what it says when that is not what it should be.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::channel::Channel;
use crate::dispatch::Seen;
use crate::json;

/// The calls of one handler so far, failed ones included, in the order in which they ended; from
/// [`TestMessaging::handler`](super::TestMessaging::handler). What is asserted and is not so panics with all of them.
#[derive(Clone, Debug)]
#[must_use = "it asserts nothing by itself"]
pub struct Calls {
    pub(super) handler: String,
    pub(super) calls: Vec<Seen>,
}

/// Messages that have been published, in their order; from [`TestMessaging::published`](super::TestMessaging::published).
/// What is asserted and is not so panics with all of them.
#[derive(Clone, Debug)]
#[must_use = "it asserts nothing by itself"]
pub struct Published {
    pub(super) pattern: String,
    pub(super) messages: Vec<(Channel, Bytes)>,
    /// On other channels.
    pub(super) others: Vec<(Channel, Bytes)>,
}

impl Calls {
    /// Asserts how often it was called, each attempt counted.
    ///
    /// # Panics
    /// If it was another number, with the calls.
    #[track_caller]
    pub fn called(&self, times: usize) -> &Self {
        assert!(self.calls.len() == times, "{self}, not {}", count(times, "time"));
        self
    }

    /// Asserts that it was called with a payload, whose JSON is compared as a value.
    ///
    /// # Panics
    /// If it was not, with the calls.
    #[track_caller]
    pub fn called_with<T: Serialize + ?Sized>(&self, payload: &T) -> &Self {
        let expected = value_of(payload);
        let found = self.calls.iter().any(|call| is(&call.payload, &expected));
        assert!(found, "{self}, never with {expected}");
        self
    }

    /// Asserts how many of the calls failed.
    ///
    /// # Panics
    /// If it was another number, with the calls.
    #[track_caller]
    pub fn failed(&self, times: usize) -> &Self {
        let failed = self.calls.iter().filter(|call| call.error.is_some()).count();
        assert!(failed == times, "{self}; {failed} of them failed, not {times}");
        self
    }

    /// The payloads, decoded.
    ///
    /// # Panics
    /// If one of them has another shape.
    #[track_caller]
    #[must_use]
    pub fn payloads<T: DeserializeOwned>(&self) -> Vec<T> {
        self.calls.iter().map(|call| decode(&call.payload, &self)).collect()
    }

    /// The calls themselves.
    #[must_use]
    pub fn all(&self) -> &[Seen] {
        &self.calls
    }
}

impl Published {
    /// Asserts how many there are.
    ///
    /// # Panics
    /// If it is another number, with the messages.
    #[track_caller]
    pub fn times(&self, times: usize) -> &Self {
        assert!(self.messages.len() == times, "{self}, not {}", count(times, "message"));
        self
    }

    /// Asserts that one of them has a payload, whose JSON is compared as a value.
    ///
    /// # Panics
    /// If there is none, with the messages.
    #[track_caller]
    pub fn with<T: Serialize + ?Sized>(&self, payload: &T) -> &Self {
        let expected = value_of(payload);
        let found = self.messages.iter().any(|(_, payload)| is(payload, &expected));
        assert!(found, "{self}, none with {expected}");
        self
    }

    /// The payloads, decoded.
    ///
    /// # Panics
    /// If one of them has another shape.
    #[track_caller]
    #[must_use]
    pub fn payloads<T: DeserializeOwned>(&self) -> Vec<T> {
        self.messages.iter().map(|(_, payload)| decode(payload, &self)).collect()
    }

    /// The channels that they went to.
    #[must_use]
    pub fn channels(&self) -> Vec<&str> {
        self.messages.iter().map(|(channel, _)| channel.as_str()).collect()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` was called {}", self.handler, count(self.calls.len(), "time"))?;
        for Seen { channel, payload, attempt, error } in &self.calls {
            write!(f, "\n  {channel}, attempt {attempt}: {}", json::excerpt(payload))?;
            if let Some(error) = error {
                write!(f, "\n    failed: {error}")?;
            }
        }
        if self.calls.is_empty() { Ok(()) } else { f.write_str("\n") }
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = count(self.messages.len(), "message");
        write!(f, "{what} published on {:?}", self.pattern)?;
        let lines = |f: &mut fmt::Formatter<'_>, messages: &[(Channel, Bytes)]| {
            messages
                .iter()
                .try_for_each(|(channel, payload)| write!(f, "\n  {channel}: {}", json::excerpt(payload)))
        };
        lines(f, &self.messages)?;
        if !self.others.is_empty() {
            f.write_str("\nbeside")?;
            lines(f, &self.others)?;
        }
        if self.messages.len() + self.others.len() == 0 { Ok(()) } else { f.write_str("\n") }
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[track_caller]
fn value_of<T: Serialize + ?Sized>(payload: &T) -> Value {
    serde_json::to_value(payload).unwrap_or_else(|error| panic!("the expected payload is no JSON: {error}"))
}

fn is(payload: &[u8], expected: &Value) -> bool {
    serde_json::from_slice::<Value>(payload).is_ok_and(|payload| payload == *expected)
}

#[track_caller]
fn decode<T: DeserializeOwned>(payload: &Bytes, all: &impl fmt::Display) -> T {
    let decoded = json::decode(payload);
    decoded.unwrap_or_else(|error| {
        let wanted = std::any::type_name::<T>();
        panic!("{} is no `{wanted}`: {error}\nin: {all}", json::excerpt(payload))
    })
}
