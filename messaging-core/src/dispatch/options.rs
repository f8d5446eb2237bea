//! What can be set on a handler, as constants that attributes and builders write and the dispatcher reads.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Serialize;

use crate::retry::Retry;

/// The settings of one handler; `HandlerOptions::DEFAULT` is what a bare `#[subscribe("channel")]` has.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct HandlerOptions {
    /// How many messages are handled at the same time. 1 means strictly in order.
    pub workers: NonZeroUsize,
    /// With several workers: what keeps messages in order among each other.
    pub ordered_by: Option<OrderedBy>,
    /// How much may wait for the workers.
    pub buffer: Buffer,
    /// What happens when more arrives than may wait.
    pub overflow: Overflow,
    /// How long one call may take before it is cancelled and counted as failed.
    pub timeout: Duration,
    /// What happens when a call fails.
    pub retry: Retry,
    /// Who gets a message, and what is promised.
    pub delivery: DeliveryMode,
    /// Where a queue or a resumable handler begins that has never run before.
    pub start: StartAt,
    /// For how long the ids of handled events are remembered, so that an event that was published twice is handled
    /// once; not at all without it.
    pub dedupe: Option<Duration>,
    /// What carries its messages.
    pub carrier: Carrier,
}

impl HandlerOptions {
    /// One worker, 1,000 messages or 16 MiB, waiting for room, 30 s a call, three attempts.
    pub const DEFAULT: Self = Self {
        workers: NonZeroUsize::MIN,
        ordered_by: None,
        buffer: Buffer::DEFAULT,
        overflow: Overflow::Wait,
        timeout: Duration::from_secs(30),
        retry: Retry::DEFAULT,
        delivery: DeliveryMode::Broadcast,
        start: StartAt::New,
        dedupe: None,
        carrier: Carrier::Broadcast,
    };

    #[doc(hidden)]
    #[must_use]
    pub const fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.workers = workers;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn ordered_by(mut self, ordered_by: OrderedBy) -> Self {
        self.ordered_by = Some(ordered_by);
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn buffer(mut self, buffer: Buffer) -> Self {
        self.buffer = buffer;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn delivery(mut self, delivery: DeliveryMode) -> Self {
        self.delivery = delivery;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn dedupe(mut self, window: Duration) -> Self {
        self.dedupe = Some(window);
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }
}

impl Default for HandlerOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What messages are kept in order by when a handler has several workers: messages with the same value are handled one
/// after the other, those with different values at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderedBy {
    /// The concrete channel.
    Channel,
    /// The value of a placeholder of the handler's channels.
    Placeholder(&'static str),
    /// The key that the publisher gave the message. With `delivery = "queue"` and a channel that its publisher divides
    /// into partitions, the order holds over all processes of the group.
    Key,
}

/// Who gets a message, and what is promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeliveryMode {
    /// Every process, at most once; gaps are announced. Any publisher will do.
    #[default]
    Broadcast,
    /// Every process; nothing is lost across reconnects while it is within the channel's retention. The channel has to
    /// be durable.
    Resumable,
    /// One process of each group, at least once, with durable retries and a dead-letter stream. The channel has to be
    /// durable.
    Queue,
}

/// Where a queue's group begins when it is made, and where a resumable handler begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// With what is published from then on.
    #[default]
    New,
    /// With the oldest message that is kept.
    Beginning,
}

/// What carries the messages of a channel. The two are apart: what is published on one is not heard on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carrier {
    /// PUBLISH: on a cluster every node gets every message.
    #[default]
    Broadcast,
    /// SPUBLISH, from Redis 7.0 on: on a cluster only the nodes of the channel's hash slot get it, so that more nodes
    /// carry more messages. One channel at a time: no templates, no globs.
    Sharded,
}

/// How much may wait for a handler's workers, all of them together: whichever bound is reached first.
///
/// A queue with the default number of messages takes ahead only what it handles in about half a second, so that the rest is
/// there for other processes; with any other number it takes ahead as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// How many messages.
    pub messages: NonZeroUsize,
    /// How many bytes of payload.
    pub bytes: NonZeroUsize,
}

impl Buffer {
    /// 1,000 messages or 16 MiB.
    pub const DEFAULT: Self = Self {
        messages: NonZeroUsize::new(1_000).expect("a thousand is not zero"),
        bytes: NonZeroUsize::new(16 << 20).expect("16 MiB is not zero"),
    };
}

impl Default for Buffer {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What happens to messages that arrive while a handler's buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The reader waits for room, so that a burst loses nothing. A handler may hold the reader up for one second in
    /// total since its queue was last half empty; after that its oldest messages are dropped, counted, and announced
    /// to it as a gap.
    Wait,
    /// The oldest waiting messages are dropped and counted. The reader never waits for this handler.
    DropOldest,
    /// Nothing is dropped: the reader waits as long as it takes. The handler has a subscription connection of its
    /// own, so that no other handler waits with it.
    Block,
}
