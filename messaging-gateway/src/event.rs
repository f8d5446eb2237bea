//! One event of a channel, as everybody on it gets it, and events that stand together on their way.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

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

/// Events of one channel that follow each other, and are written at once.
#[derive(Debug)]
pub(crate) struct Run {
    events: Box<[Arc<Event>]>,
    wire: Bytes,
}

impl Run {
    /// How many bytes stand together at most, unless one event is larger: a slow client loses whole runs.
    const SIZE: usize = 16 << 10;

    /// Puts events together, in order; those are of one channel.
    pub(crate) fn of<'a>(events: impl IntoIterator<Item = &'a Arc<Event>>) -> Vec<Arc<Self>> {
        let (mut runs, mut run, mut size) = (Vec::new(), Vec::new(), 0);
        for event in events {
            let length = event.frame().len();
            if size + length > Self::SIZE && size > 0 {
                runs.push(Self::new(std::mem::take(&mut run)));
                size = 0;
            }
            size += length;
            run.push(Arc::clone(event));
        }
        if !run.is_empty() {
            runs.push(Self::new(run));
        }
        runs
    }

    fn new(events: Vec<Arc<Event>>) -> Arc<Self> {
        let wire = match &*events {
            [event] => event.frame().wire().clone(),
            events => {
                let frames = events.iter().map(|event| event.frame().wire());
                let mut wire = BytesMut::with_capacity(frames.clone().map(Bytes::len).sum());
                frames.for_each(|frame| wire.extend_from_slice(frame));
                wire.freeze()
            }
        };
        Arc::new(Self { events: events.into(), wire })
    }

    pub(crate) fn channel(&self) -> &Arc<str> {
        self.events[0].channel()
    }

    pub(crate) fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// As they are on a WebSocket.
    pub(crate) fn wire(&self) -> &Bytes {
        &self.wire
    }
}
