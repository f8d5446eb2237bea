//! One event of a channel, as everybody on it gets it.

use std::sync::{Arc, OnceLock};

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
    /// Events of the past are part of an answer.
    frame: OnceLock<Frame>,
}

impl Event {
    pub(crate) fn new(channel: &Arc<str>, offset: Option<Box<str>>, payload: Payload) -> Self {
        Self { channel: Arc::clone(channel), offset, payload, frame: OnceLock::new() }
    }

    /// One that is told to everybody.
    pub(crate) fn told(channel: &Arc<str>, offset: Option<Box<str>>, payload: Payload) -> Self {
        let event = Self::new(channel, offset, payload);
        event.frame();
        event
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
        self.frame.get_or_init(|| native::event(&self.channel, self.offset.as_deref(), &self.payload))
    }
}
