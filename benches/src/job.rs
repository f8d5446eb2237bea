//! What the orchestrator tells a child process to do, and what the child says: one line of JSON each. Plain values.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why something could not be measured.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The channel of everything that is published.
pub(crate) const CHANNEL: &str = "orders.created";
/// What Redis is asked for by the handler of a template that covers it.
pub(crate) const PATTERN: &str = "orders.*";
/// The group that works a queue off.
pub(crate) const GROUP: &str = "bench";

/// Whose code is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Client {
    /// messaging-core.
    Ours,
    /// The `redis` crate, used well by hand.
    Raw,
    /// A socket, a decoder of a few lines, and serde_json: the ceiling.
    Hand,
}

/// Whose hits in the process are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Store {
    /// `#[redis_cache(local = …)]`.
    Ours,
    /// The `quick_cache` crate, used by hand.
    QuickCache,
    /// The `moka` crate, used by hand.
    Moka,
}

/// What is kept in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    /// `Arc<Order>`.
    Shared,
    /// `Order`.
    Owned,
}

/// Who inserts rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Writer {
    /// A unit of work, which publishes after its commit.
    Publishing,
    /// One that writes its events to the outbox.
    WithOutbox,
    /// sqlx, used by hand: there are no events.
    Raw,
}

/// Who publishes what waits in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Relay {
    /// An `OutboxRelay` as it is by default: what was published stays for a while.
    Keeping,
    /// One that removes what it has published.
    Removing,
    /// sqlx and the `redis` crate, used by hand.
    Raw,
}

/// Whose gateway is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Server {
    /// messaging-gateway.
    Ours,
    /// axum and a broadcast channel, as one writes it by hand.
    Naive,
    /// Socket.IO with its Redis adapter.
    SocketIo,
}

/// How the payload is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    Owned,
    Borrowed,
    /// Owned, by a template with a placeholder: a pattern at Redis.
    Template,
}

/// Whether the service has a `tracing` subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Logging {
    Off,
    Info,
}

/// How fast is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// As fast as the socket takes it.
    Flood,
    /// So many messages in a second.
    PerSecond(u64),
}

/// When the next message is published whose latency is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Turn {
    /// When the one before has been handled.
    OneInFlight,
    /// So many times in a second.
    PerSecond(u64),
    /// By so many callers, each when what it published before has been taken.
    Callers(u64),
}

/// Whose library is measured beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Peer {
    /// `cached`, with its Redis store.
    Cached,
    /// `fred`, used by hand.
    Fred,
    /// `ruststream` with `ruststream-fred`.
    RustStream,
    /// `sea-streamer-redis`.
    SeaStreamer,
}

/// How the entries of a queue look to who reads them. The payload is the same in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Layout {
    Ours,
    RustStream,
    SeaStreamer,
}

impl Layout {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::RustStream, Self::SeaStreamer];

    /// The key of the stream.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Ours => "msg:{orders.queued}:stream",
            Self::RustStream => "ruststream.queued",
            Self::SeaStreamer => "sea-streamer.queued",
        }
    }
}

/// The task of one child process that is of the program `benches/peers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum PeerJob {
    /// Handles everything that arrives, up to the last order.
    Subscribe { peer: Peer, port: u16 },
    /// Publishes with this many tasks, each of which waits for its answers.
    Send { peer: Peer, port: u16, in_flight: u64, messages: u64 },
    /// Asks for cached orders with this many tasks.
    Hits { peer: Peer, port: u16, in_flight: u64, calls: u64 },
    /// Handles what lies in its stream, as a queue.
    Queue { peer: Peer, port: u16, messages: u64 },
}

/// The part of a child process in a curve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Growth {
    /// So many handlers, each with a channel of its own, handle so many messages in all.
    Handlers { port: u16, handlers: u64, messages: u64 },
    /// So many subscriptions, each read by a task of its own, do.
    Channels { port: u16, channels: u64, messages: u64 },
    /// One handler of messages with so many bytes.
    Payload { port: u16, messages: u64 },
    /// So many cached keys: asked for so many times, then removed together.
    Keys { port: u16, keys: u64, calls: u64 },
}

/// What is published, and where.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) port: u16,
    pub(crate) channels: u64,
    pub(crate) messages: u64,
    /// Of a note; without, it is an order.
    pub(crate) bytes: Option<u64>,
}

/// The task of one child process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Stands in for Redis: sends whoever subscribes this many messages.
    Replay { messages: u64 },
    /// Publishes over a plain socket.
    Publish { port: u16, messages: u64, pace: Pace },
    /// Handles everything that arrives, up to the last order.
    Subscribe { client: Client, form: Form, port: u16, logging: Logging },
    /// Never returns from its first message; tells its memory when its standard input ends.
    Stopped { client: Client, port: u16 },
    /// Decodes the same bytes again and again: what every subscriber has to do at least.
    Decode { form: Form, messages: u64 },
    /// Publishes with this many tasks, each of which waits for its answers.
    Send { client: Client, port: u16, in_flight: u64, messages: u64 },
    /// Publishes to itself and times each message.
    Latency { client: Client, port: u16, turn: Turn, messages: u64 },
    /// Asks for cached orders with this many tasks.
    Hits { client: Client, port: u16, in_flight: u64, calls: u64 },
    /// Asks for orders that are not cached yet, with this many tasks.
    Loads { client: Client, port: u16, in_flight: u64, calls: u64 },
    /// Asks for orders that are kept in the process, so many times for all of them.
    LocalHits { store: Store, kept: Kept, port: u16, rounds: u64 },
    /// Appends messages to an empty stream of this layout, which has a group that has read none of them.
    Fill { layout: Layout, port: u16, messages: u64 },
    /// Handles what lies in the stream, as a queue.
    Queue { client: Client, port: u16, messages: u64 },
    /// Inserts rows into a database with this URL, so many in each transaction.
    Insert { writer: Writer, database: String, rows: u64, together: u64 },
    /// Publishes rows that wait in a database with this URL.
    Relay { relay: Relay, database: String, port: u16, rows: u64 },
    /// Publishes to itself in memory.
    Dispatch { messages: u64 },
    /// Is our gateway.
    Serve { redis: u16 },
    /// Publishes so many messages together to all clients of a gateway, and waits for them, as often as there is time for.
    Deliver { gateway: Gateway, clients: u64, together: u64, millis: u64 },
    /// Tells events to subscriptions that are spread over filters, in our gateway without sockets.
    FanOut { subscriptions: u64, filters: u64, events: u64 },
    /// Keeps clients of a gateway that have nothing to do.
    Idle { gateway: Gateway, clients: u64 },
    /// Has more and more of something.
    Grow(Growth),
    /// Publishes to what is there more and more of.
    Spread(Spread),
}

/// A gateway that runs, and the Redis that it listens to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Gateway {
    pub(crate) server: Server,
    pub(crate) port: u16,
    pub(crate) process: u32,
    pub(crate) redis: u16,
}

/// What a child says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// It listens, on this port if it is a server; or it is subscribed.
    Ready { port: u16 },
    /// A replay server has sent everything to a subscriber.
    Sent,
    /// It is done.
    Done(Report),
}

impl Said {
    pub(crate) fn say(&self) {
        println!("{}", serde_json::to_string(self).expect("a report is valid JSON"));
    }
}

/// What was measured. Programs in other languages leave out what they do not know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// Messages, calls, answers or deliveries.
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    /// The processor time that they took, where the system tells it; of deliveries, that of the server.
    pub(crate) cpu_seconds: Option<f64>,
    /// The most memory that the process had, where the system tells it.
    pub(crate) peak_mib: Option<f64>,
    /// Allocations since the process began, where they are counted.
    pub(crate) allocations: Option<u64>,
    /// Messages that our buffer dropped.
    pub(crate) dropped: u64,
    /// How often our subscription was lost: Redis cuts off who does not keep up.
    pub(crate) reconnects: u64,
    /// Deliveries that were due and did not come.
    pub(crate) lost: u64,
    /// What a connection adds to the server's memory, in KiB: without a message so far, and after some.
    pub(crate) kib_idle: f64,
    pub(crate) kib_used: f64,
    /// What was done once for all of them took: subscribing, or removing.
    #[serde(default)]
    pub(crate) once_seconds: f64,
    /// Of the latency, in seconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::QuickCache => "quick_cache",
            Self::Moka => "moka",
        })
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Owned => "owned",
        })
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owned => "owned",
            Self::Borrowed => "borrowed",
            Self::Template => "template",
        })
    }
}
