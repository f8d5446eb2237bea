//! One event of a channel, as everybody on it gets it, and events that stand together on their way.

use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::frame::Frame;
use crate::payload::Payload;
use crate::protocol::Protocol;

/// One event of a channel: encoded once, shared by all who get it.
#[derive(Debug)]
pub(crate) struct Event {
    channel: Arc<str>,
    /// Where a client that has seen it goes on.
    at: Option<At>,
    payload: Payload,
    /// One for each protocol, where somebody speaks it: events of the past are part of an answer.
    frames: [OnceLock<Frame>; Protocol::COUNT],
}

/// Where an event stands, as clients keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// The position in each stream that carries the channel.
    pub(crate) offset: Box<str>,
    /// The number in the one stream that does; none for what a foreign publisher has appended.
    pub(crate) number: Option<NonZeroU64>,
}

impl Event {
    pub(crate) fn new(channel: &Arc<str>, at: Option<At>, payload: Payload) -> Self {
        Self { channel: Arc::clone(channel), at, payload, frames: Default::default() }
    }

    pub(crate) fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    pub(crate) fn offset(&self) -> Option<&str> {
        self.at.as_ref().map(|at| &*at.offset)
    }

    pub(crate) fn number(&self) -> Option<NonZeroU64> {
        self.at.as_ref().and_then(|at| at.number)
    }

    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// As it is told; encoded when it is asked for first.
    pub(crate) fn frame(&self, protocol: Protocol) -> &Frame {
        self.frames[protocol as usize].get_or_init(|| protocol.event(self))
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
    pub(crate) fn of<'a>(
        protocol: Protocol,
        events: impl IntoIterator<Item = &'a Arc<Event>>,
    ) -> Vec<Arc<Self>> {
        let (mut runs, mut run, mut size) = (Vec::new(), Vec::new(), 0);
        for event in events {
            let length = event.frame(protocol).len();
            if size + length > Self::SIZE && size > 0 {
                runs.push(Self::new(protocol, std::mem::take(&mut run)));
                size = 0;
            }
            size += length;
            run.push(Arc::clone(event));
        }
        if !run.is_empty() {
            runs.push(Self::new(protocol, run));
        }
        runs
    }

    fn new(protocol: Protocol, events: Vec<Arc<Event>>) -> Arc<Self> {
        let wire = match &*events {
            [event] => event.frame(protocol).wire().clone(),
            events => {
                let frames = events.iter().map(|event| event.frame(protocol).wire());
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
