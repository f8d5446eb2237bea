//! How much one client may have and do.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

const fn size(size: usize) -> NonZeroUsize {
    NonZeroUsize::new(size).expect("not zero")
}

/// How much one client may have and do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message of a client, in bytes.
    pub message: NonZeroUsize,
    /// How deep its JSON may be nested.
    pub depth: NonZeroUsize,
    /// How many channels a connection may be subscribed to.
    pub subscriptions: NonZeroUsize,
    /// How many connections a user may have on this gateway; anonymous ones count by address alone.
    pub connections_per_user: NonZeroUsize,
    /// How many connections may come from one address.
    pub connections_per_address: NonZeroUsize,
    /// How many connections there may be at all.
    pub connections: NonZeroUsize,
    /// How many bytes may wait for a connection that does not keep up.
    pub queue: NonZeroUsize,
    /// How many bytes of events one answer carries: who has missed more is told that it is not recovered, and histories have
    /// shorter pages. An answer has at least one event.
    pub answer: NonZeroUsize,
    /// How often a connection may subscribe, update, and ask for history or presence.
    pub commands: Rate,
    /// How often a connection may send.
    pub sends: Rate,
    /// How long a connection has to say who it is.
    pub unauthenticated: Duration,
    /// How long a connection is silent before it is pinged.
    pub ping: Duration,
    /// How long it may take to answer.
    pub pong: Duration,
    /// How long `authorize` and `authenticate` may take.
    pub decision: Duration,
    /// For how long a channel that nobody listens to any more is kept.
    pub linger: Duration,
    /// How often one looks whether channels that somebody listens to have become durable.
    pub look_out: Duration,
    /// How long clients have to go elsewhere when the gateway ends.
    pub goaway: Duration,
    /// How many entries are kept of each stream, for those who come back.
    pub ring: NonZeroUsize,
    /// How many bytes of payload are kept of each stream.
    pub ring_bytes: NonZeroUsize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: size(64 << 10),
            depth: size(32),
            subscriptions: size(128),
            connections_per_user: size(32),
            connections_per_address: size(1_024),
            connections: size(100_000),
            queue: size(1 << 20),
            answer: size(4 << 20),
            commands: Rate {
                burst: NonZeroU32::new(256).expect("not zero"),
                per_second: NonZeroU32::new(64).expect("not zero"),
            },
            sends: Rate {
                burst: NonZeroU32::new(32).expect("not zero"),
                per_second: NonZeroU32::new(16).expect("not zero"),
            },
            unauthenticated: Duration::from_secs(10),
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(8),
            decision: Duration::from_secs(10),
            linger: Duration::from_secs(5),
            look_out: Duration::from_secs(10),
            goaway: Duration::from_secs(3),
            ring: size(10_000),
            ring_bytes: size(16 << 20),
        }
    }
}

/// A token bucket: so many at once, and so many a second in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once.
    pub burst: NonZeroU32,
    /// How many a second.
    pub per_second: NonZeroU32,
}
