//! One event of a channel, as everybody on it gets it.

use std::sync::Arc;

use crate::frame::Frame;
use crate::native;
use crate::payload::Payload;

/// One event of a channel: encoded once, shared by all who get it.
#[derive(Debug)]
pub(crate) struct Event {
    channel: Arc<str>,
    /// Where a client that has seen it goes on.
    offset: Option<Box<str>>,
    payload: Payload,
    frame: Frame,
}

impl Event {
    pub(crate) fn new(channel: &Arc<str>, offset: Option<Box<str>>, payload: Payload) -> Self {
        let frame = native::event(channel, offset.as_deref(), &payload);
        Self { channel: Arc::clone(channel), offset, payload, frame }
    }

    pub(crate) fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    pub(crate) fn offset(&self) -> Option<&str> {
        self.offset.as_deref()
    }

    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// In the native protocol.
    pub(crate) fn frame(&self) -> &Frame {
        &self.frame
    }
}
