//! What carries messages and holds cached values: this process's memory, or a Redis. A closed enum whose methods are
//! meanings ("publish these and forget those keys"), so that each side can do them in its best way.

#[macro_use]
mod stepped;

mod memory;
mod names;
pub(crate) mod operate;
pub(crate) mod presence;
mod redis;
pub(crate) mod streams;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::activity::Activity;
use crate::channel::{self, Channel, Wire};
use crate::config::{Config, Kind};
use crate::dispatch::Carrier;
use crate::error::{Error, ErrorKind, Result};

pub(crate) use memory::Memory;
pub(crate) use memory::StreamWatch;
pub(crate) use names::Names;
pub(crate) use redis::Redis;
#[cfg(test)]
pub(crate) use redis::{Connection as RedisConnection, Stream as RedisStream};

#[derive(Debug)]
pub(crate) enum Backend {
    Memory(Memory),
    Redis(Box<Redis>),
}

/// One message on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) channel: Channel,
    pub(crate) payload: Bytes,
    /// It is also appended to a stream.
    pub(crate) durable: Option<Box<streams::Append>>,
    pub(crate) carrier: Carrier,
    /// What tells those who hear the message that its publisher has removed what it makes out of date.
    pub(crate) mark: Option<Bytes>,
}

/// What publishing came to.
#[derive(Debug)]
pub(crate) struct Published {
    /// How many receivers there were in all.
    pub(crate) receivers: u64,
    /// Whether the keys were removed: the messages are out even if they were not.
    pub(crate) forgotten: Result<()>,
    /// Of the registry, from when the messages were about to be published.
    pub(crate) generation: Generation,
}

/// The number that is raised with every change of the registry of cached functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    Number(i64),
    /// An ACL forbids to know it, or there is something else under its name.
    Refused,
    /// The answer was lost.
    Unknown,
}

/// The generation as it is stored; 0 where there is none.
fn generation_of(text: Option<&[u8]>) -> Generation {
    let Some(text) = text else { return Generation::Number(0) };
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.filter(|number| *number >= 0).map_or(Generation::Refused, Generation::Number)
}

/// Messages that were read together.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// What was read.
    pub(crate) bytes: Bytes,
    /// Where the messages are in it.
    pub(crate) places: Vec<Place>,
}

/// Where the parts of a message are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// By which subscription it came.
    pub(crate) kind: channel::Kind,
    /// Of [`Glob`](channel::Kind::Glob).
    pub(crate) pattern: Range<usize>,
    pub(crate) channel: Range<usize>,
    pub(crate) payload: Range<usize>,
}

/// What a subscription connection receives.
#[derive(Clone, Debug)]
pub(crate) enum Push {
    Messages(Chunk),
    Message {
        kind: channel::Kind,
        /// What was subscribed: the channel, or a glob.
        name: Bytes,
        channel: Bytes,
        payload: Bytes,
    },
    /// A message that was over a limit and has been skipped: its payload, or a name, and then `channel` is empty.
    Oversized {
        channel: Bytes,
        size: usize,
    },
    /// The answer to the oldest request that has none yet.
    Reply(Reply),
    /// The answer to the request of this number, counted from 0 on this connection: where several nodes answer, none has
    /// to wait for another.
    Answer {
        number: u64,
        reply: Reply,
    },
    /// These were confirmed and are not any more, though the connection goes on: a node of the cluster was lost, or what
    /// it served has moved. They are to be asked for again.
    Lost {
        wires: Vec<Wire>,
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    Pong,
    /// A sharded channel is not subscribed any more.
    Unsubscribed(Bytes),
    Integer(i64),
    /// A bulk string, or a null.
    Value(Option<Bytes>),
    /// An array of what is not an array.
    Values(Vec<Reply>),
    Error(String),
}

/// What can be asked on a subscription connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Subscribe(Wire),
    Unsubscribe(Wire),
    Ping,
}

/// A subscription connection.
#[derive(Debug)]
pub(crate) enum Connection {
    Memory(memory::Connection),
    Redis(Box<redis::Connection>),
    Cluster(Box<redis::ClusterConnection>),
}

/// A key of the cache with the key of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub(crate) value: String,
    pub(crate) lease: String,
}

impl CacheKey {
    /// The key of a value with the key of its lease, which is always in the same cluster slot. No two values share a
    /// lease: what follows `:lease:` begins with a brace only if this put it there.
    pub(crate) fn new(namespace: &str, value: String) -> Self {
        let tagged =
            value.find('{').is_some_and(|open| value[open + 1..].find('}').is_some_and(|end| end > 0));
        let lease = if tagged {
            format!("{namespace}:lease:tagged:{value}")
        } else {
            format!("{namespace}:lease:{{{value}}}")
        };
        Self { value, lease }
    }
}

/// Whether `lease` is the lease of a value whose key passes `wanted`.
fn lease_is_of(namespace: &str, lease: &str, wanted: &dyn Fn(&str) -> bool) -> bool {
    let Some(lease) = lease.strip_prefix(namespace).and_then(|rest| rest.strip_prefix(":lease:")) else {
        return false;
    };
    let untagged = || lease.strip_prefix('{').and_then(|key| key.strip_suffix('}'));
    lease.strip_prefix("tagged:").or_else(untagged).is_some_and(wanted)
}

/// 128 random bits that stand for one attempt to load a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token(pub(crate) String);

impl Token {
    pub(crate) fn random() -> Self {
        #[cfg(test)]
        if let Some(token) = crate::cache::interleavings::mutants::token() {
            return token;
        }
        let mut bits = [0; 16];
        // Without the system's random numbers there is no safe token; the fallback is seeded by the process's hash keys.
        if getrandom::fill(&mut bits).is_err() {
            fastrand::fill(&mut bits);
        }
        let digit = |four: u8| char::from(b"0123456789abcdef"[usize::from(four)]);
        Self(bits.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }
}

/// What was found under a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looked {
    pub(crate) value: Option<Bytes>,
    /// Who is loading it.
    pub(crate) holder: Option<Token>,
    /// How long it has to live, if that was asked for and there is an end.
    pub(crate) left: Option<Duration>,
}

/// One attempt to get a lease. Each has a token of its own: a duplicate of it that comes late must not make a lease again
/// that was removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) token: &'a Token,
    /// Those of attempts of ours whose fate is unknown, and which this one may replace.
    pub(crate) earlier: &'a [Token],
}

/// What asking for a lease came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// It is ours: load the value and store it on this connection.
    Granted(Option<u64>),
    /// Somebody stored the value meanwhile.
    Value(Bytes),
    /// Whoever has this token is loading the value.
    Held(Token),
}

/// A lease that is ours.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) token: Token,
    /// The connection that it was granted on.
    pub(crate) by: Option<u64>,
}

/// What is told to all processes.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// As it is on the wire.
    pub(crate) channel: String,
    pub(crate) payload: Bytes,
}

/// A cached function, as publishers in all processes know it.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) definition: String,
    /// How long after the last renewal it is known.
    pub(crate) keep: Duration,
}

/// The registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) generation: i64,
    pub(crate) definitions: Vec<String>,
}

/// A family whose events a session has begun to hear.
pub(crate) struct Joining<'a> {
    pub(crate) name: &'a str,
    /// Its keys: what matches the glob and passes the test.
    pub(crate) glob: String,
    pub(crate) keep: &'a (dyn Fn(&str) -> bool + Sync),
}

/// What joining a family came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Nothing was missed, or what was has been removed.
    Covered,
    /// Covered as soon as somebody has proven this mark on this server, or the family has been flushed.
    Marked {
        server: String,
        mark: u64,
        /// There is nobody else who could prove it.
        alone: bool,
    },
}

/// The counters of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub(crate) server: Option<String>,
    pub(crate) joined: u64,
    pub(crate) proven: u64,
}

/// That everything has been heard up to a mark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof<'a> {
    pub(crate) family: &'a str,
    pub(crate) server: &'a str,
    pub(crate) joined: u64,
}

impl Push {
    /// The bytes of messages; nothing for what is none.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Messages(chunk) => chunk.bytes.len(),
            Self::Message { channel, payload, .. } => channel.len() + payload.len(),
            Self::Oversized { .. } | Self::Reply(_) | Self::Answer { .. } | Self::Lost { .. } => 0,
        }
    }
}

impl Backend {
    pub(crate) fn new(config: &Config, activity: Activity) -> Result<Self> {
        match &config.endpoint.0 {
            Kind::Memory(name) => Ok(Self::Memory(Memory::open(name.as_deref(), config, activity))),
            Kind::Redis(server) => Redis::new(server, config).map(Box::new).map(Self::Redis),
        }
    }

    /// Whether there are several servers, between which what is published takes different ways.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Redis(redis) if redis.is_cluster())
    }

    /// Removes the keys, then publishes the messages in order.
    ///
    /// # Errors
    /// Of a message; a [`Refused`](ErrorKind::Refused) one is "not sent" only if no other message was published.
    ///
    /// Cancellation: what was written is carried out.
    pub(crate) async fn publish(&self, messages: &[Outgoing], forget: &[CacheKey]) -> Result<Published> {
        stepped!(publish(self, messages, forget));
        match self {
            Self::Memory(memory) => Ok(memory.up()?.publish(messages, forget)),
            Self::Redis(redis) => redis.publish(messages, forget).await,
        }
    }

    /// Opens a subscription connection.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        match self {
            Self::Memory(memory) => Ok(Connection::Memory(memory.up()?.connect())),
            Self::Redis(redis) => redis.connect().await,
        }
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        match self {
            Self::Memory(memory) => memory.up().map(drop),
            Self::Redis(redis) => redis.ping().await,
        }
    }

    /// [`ping`](Self::ping) with a limit of its own, connecting included.
    pub(crate) async fn ping_within(&self, limit: Duration) -> Result<()> {
        match self {
            Self::Memory(memory) => memory.up().map(drop),
            Self::Redis(redis) => redis.ping_within(limit).await,
        }
    }

    /// The value of a key, who is loading it and, if that is wanted, how long it has to live.
    pub(crate) async fn look(&self, key: &CacheKey, with_ttl: bool) -> Result<Looked> {
        stepped!(look);
        match self {
            Self::Memory(memory) => Ok(memory.up()?.look(key)),
            Self::Redis(redis) => redis.look(key, with_ttl).await,
        }
    }

    /// Writes a value, defeats any load of it that is running, and tells all processes.
    pub(crate) async fn set(
        &self,
        key: &CacheKey,
        value: &Bytes,
        ttl: Duration,
        notice: &Notice,
    ) -> Result<()> {
        stepped!(set(self, key, value, ttl, notice));
        match self {
            Self::Memory(memory) => {
                memory.up()?.set(key, value, ttl, notice);
                Ok(())
            }
            Self::Redis(redis) => redis.set(key, value, ttl, notice).await,
        }
    }

    /// Asks to be the one who loads a value that is not there; `seen` is the stored value that is to be replaced.
    pub(crate) async fn lease(
        &self,
        key: &CacheKey,
        attempt: &Attempt<'_>,
        seen: Option<&Bytes>,
        ttl: Duration,
    ) -> Result<Lease> {
        stepped!(lease(self, key, attempt, seen, ttl));
        match self {
            Self::Memory(memory) => Ok(memory.up()?.lease(key, attempt, seen, ttl)),
            Self::Redis(redis) => redis.lease(key, attempt, seen, ttl).await,
        }
    }

    /// Writes a loaded value and gives the lease up, if the lease is still ours and the value is as it was when it was
    /// granted. `true` if it was written.
    pub(crate) async fn store(
        &self,
        key: &CacheKey,
        grant: &Grant,
        seen: Option<&Bytes>,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<bool> {
        stepped!(store(self, key, grant, seen, value, ttl));
        match self {
            Self::Memory(memory) => Ok(memory.up()?.store(key, &grant.token, seen, value, ttl)),
            Self::Redis(redis) => redis.store(key, grant, seen, value, ttl).await,
        }
    }

    /// Prolongs a lease that is still ours.
    pub(crate) async fn renew(&self, key: &CacheKey, token: &Token, ttl: Duration) -> Result<()> {
        stepped!(renew(self, key, token, ttl));
        match self {
            Self::Memory(memory) => {
                memory.up()?.renew(key, token, ttl);
                Ok(())
            }
            Self::Redis(redis) => redis.renew(&key.lease, token, ttl).await,
        }
    }

    /// Gives a lease up that is still ours.
    pub(crate) async fn release(&self, key: &CacheKey, token: &Token) -> Result<()> {
        stepped!(release(self, key, token));
        match self {
            Self::Memory(memory) => {
                memory.up()?.release(key, token);
                Ok(())
            }
            Self::Redis(redis) => redis.release(&key.lease, token).await,
        }
    }

    /// Removes values, defeats the loads of them that are running, and tells all processes if there is something to tell.
    pub(crate) async fn forget(&self, keys: &[CacheKey], notice: Option<&Notice>) -> Result<()> {
        stepped!(forget(self, keys, notice));
        match self {
            Self::Memory(memory) => {
                memory.up()?.forget(keys, notice);
                Ok(())
            }
            Self::Redis(redis) => redis.forget(keys, notice).await,
        }
    }

    /// Reads a value and removes it with its lease in one step, and tells all processes.
    pub(crate) async fn take(&self, key: &CacheKey, notice: &Notice) -> Result<Option<Bytes>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.take(key, notice)),
            Self::Redis(redis) => redis.take(key, notice).await,
        }
    }

    /// Tells all processes.
    pub(crate) async fn announce(&self, notice: &Notice) -> Result<()> {
        stepped!(announce);
        match self {
            Self::Memory(memory) => {
                memory.up()?.announce(notice);
                Ok(())
            }
            Self::Redis(redis) => redis.announce(notice).await,
        }
    }

    /// Registers cached functions, or renews them. Returns the registry's generation.
    pub(crate) async fn register_families(&self, registrations: &[Registration]) -> Result<i64> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.register_families(registrations)),
            Self::Redis(redis) => redis.register_families(registrations).await,
        }
    }

    /// The registry of cached functions.
    pub(crate) async fn catalog(&self) -> Result<Catalog> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.catalog()),
            Self::Redis(redis) => redis.catalog().await,
        }
    }

    /// Tells that a session hears the events of these families, for as long as it holds on to `session`.
    pub(crate) async fn join_cover(
        &self,
        families: &[Joining<'_>],
        session: &Arc<()>,
    ) -> Result<Vec<Joined>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.join_cover(families, session)),
            Self::Redis(redis) => redis.join_cover(families).await,
        }
    }

    /// Removes all values whose key matches a glob and passes `keep`, with their leases; returns how many values.
    pub(crate) async fn forget_matching(
        &self,
        glob: &str,
        keep: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<u64> {
        match self {
            Self::Memory(memory) => {
                stepped!(flush(self));
                Ok(memory.up()?.forget_matching(glob, keep))
            }
            Self::Redis(redis) => redis.forget_matching(glob, keep).await,
        }
    }

    /// The keys that match a glob: of values, and of what else lies beside them.
    pub(crate) async fn keys_matching(&self, glob: &str) -> Result<BTreeSet<String>> {
        match self {
            Self::Memory(memory) => Ok(memory.keys_matching(glob)),
            Self::Redis(redis) => redis.keys_matching(glob).await,
        }
    }

    /// The `INFO` of the server, as text; a minimal one for memory.
    pub(crate) async fn info(&self) -> Result<String> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.info()),
            Self::Redis(redis) => redis.info().await,
        }
    }

    /// The channels with at least one exact subscriber, among those that match `glob`, as they are on the wire.
    pub(crate) async fn pubsub_channels(&self, glob: &str) -> Result<Vec<String>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.pubsub_channels(glob)),
            Self::Redis(redis) => redis.pubsub_channels(glob).await,
        }
    }

    /// How many exact subscribers each channel has.
    pub(crate) async fn pubsub_numsub(&self, channels: &[String]) -> Result<Vec<u64>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.pubsub_numsub(channels)),
            Self::Redis(redis) => redis.pubsub_numsub(channels).await,
        }
    }
}

impl Connection {
    /// Waits until something arrives and appends the pushes that it completes, of which there may be none yet: any
    /// byte shows that the other side lives.
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn receive(&mut self, pushes: &mut Vec<Push>) -> Result<()> {
        match self {
            Self::Memory(connection) => connection.receive(pushes).await,
            Self::Redis(connection) => connection.receive(pushes).await,
            Self::Cluster(connection) => connection.receive(pushes).await,
        }
    }

    /// Sends requests; each is answered by one [`Push::Reply`], in order, or one [`Push::Answer`].
    pub(crate) async fn send(&mut self, requests: &[Request]) -> Result<()> {
        match self {
            Self::Memory(connection) => connection.send(requests),
            Self::Redis(connection) => connection.send(requests).await,
            Self::Cluster(connection) => connection.send(requests).await,
        }
    }

    /// Whether the other side has closed it, as far as can be known without reading what is left.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(connection) => connection.is_closed(),
            Self::Cluster(connection) => connection.is_closed(),
        }
    }

    /// How many of the messages given out by [`receive`](Self::receive) the backend counts as unfinished until they
    /// are acknowledged with this.
    pub(crate) fn delivered(&self, messages: usize) {
        if let Self::Memory(connection) = self {
            connection.delivered(messages);
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Connection, "the connection was closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_share_a_lease() {
        let keys =
            ["user:1", "{user:1}", "tagged:{user:1}", "tagged:user:1", "{}", "{{user:1}}", "a{b}c", "{a}{b}"];
        let leases: Vec<_> = keys.iter().map(|key| CacheKey::new("msg", (*key).to_owned()).lease).collect();
        assert_eq!(leases[..2], ["msg:lease:{user:1}", "msg:lease:tagged:{user:1}"]);
        for (key, lease) in keys.iter().zip(&leases) {
            assert_eq!(leases.iter().filter(|other| *other == lease).count(), 1, "{lease}");
            let of: Vec<_> =
                keys.iter().filter(|wanted| lease_is_of("msg", lease, &|key| key == **wanted)).collect();
            assert_eq!(of, [key], "{lease}");
        }
    }
}
