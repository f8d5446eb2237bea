//! A message as it was received, before anyone looked into it. No I/O.

use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;

use crate::channel::{Captures, Channel, Pattern};
use crate::dispatch::Segments;
use crate::error::Result;
use crate::json;
use crate::stream::Entry;

/// What the reader hands over: the concrete channel (without the configured prefix) and the payload.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) channel: Channel,
    pub(crate) payload: Bytes,
    pub(crate) at: Instant,
    /// Which of the receiver's patterns it came by.
    pub(crate) pattern: u16,
    /// What the stream says of it, if it came by one.
    pub(crate) entry: Option<Box<Entry>>,
}

/// A message of a [`Subscription`](crate::Subscription).
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) channel: Channel,
    pub(crate) payload: Bytes,
    pub(crate) segments: Segments,
}

impl Message {
    /// The channel that it came on.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The payload as it was received.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The values at the placeholders of the template that was subscribed to; empty for channels and globs.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Reads the payload as JSON, borrowing from it where `T` does.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if it is not JSON of that shape.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        json::decode(&self.payload).map_err(|error| {
            error.context(format_args!(
                "message on {:?}, payload {:?}",
                self.channel,
                json::excerpt(&self.payload)
            ))
        })
    }
}

/// The named values at `captures`.
pub(crate) fn segments(pattern: &Pattern, channel: &Channel, captures: &Captures) -> Segments {
    pattern.names().zip(captures).map(|(name, range)| (name, &channel[range.clone()])).collect()
}
