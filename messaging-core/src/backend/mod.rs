//! What carries messages and holds cached values: this process's memory, or a Redis. A closed enum whose methods are
//! meanings ("publish these and forget those keys"), so that each side can do them in its best way.

mod memory;
mod redis;

use std::time::Duration;

use bytes::Bytes;

use crate::activity::Activity;
use crate::channel::{Channel, Wire};
use crate::config::{Config, Kind};
use crate::error::{Error, ErrorKind, Result};

pub(crate) use memory::Memory;
pub(crate) use redis::Redis;

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
}

/// What a subscription connection receives.
#[derive(Clone, Debug)]
pub(crate) enum Push {
    Message {
        pattern: Option<Bytes>,
        channel: Bytes,
        payload: Bytes,
    },
    /// A message whose payload was over the limit and has been skipped.
    Oversized {
        channel: Bytes,
        size: usize,
    },
    /// The answer to the oldest request that has none yet.
    Reply(Reply),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    Pong,
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
}

/// A key of the cache with the key of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub(crate) value: String,
    pub(crate) lease: String,
}

impl CacheKey {
    /// The key of a value with the key of its lease, which is always in the same cluster slot.
    pub(crate) fn new(namespace: &str, value: String) -> Self {
        let tagged =
            value.find('{').is_some_and(|open| value[open + 1..].find('}').is_some_and(|end| end > 0));
        let lease = if tagged {
            format!("{namespace}:lease:{value}")
        } else {
            format!("{namespace}:lease:{{{value}}}")
        };
        Self { value, lease }
    }
}

/// Whether `lease` is the lease of a value whose key passes `wanted`.
fn lease_is_of(namespace: &str, lease: &str, wanted: &dyn Fn(&str) -> bool) -> bool {
    let Some(key) = lease.strip_prefix(namespace).and_then(|rest| rest.strip_prefix(":lease:")) else {
        return false;
    };
    let untagged = key.strip_prefix('{').and_then(|key| key.strip_suffix('}'));
    wanted(key) || untagged.is_some_and(wanted)
}

/// 128 random bits that stand for one attempt to load a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token(pub(crate) String);

impl Token {
    pub(crate) fn random() -> Self {
        let mut bits = [0; 16];
        // Without the system's random numbers there is no safe token; the fallback is seeded by the process's hash keys.
        if getrandom::fill(&mut bits).is_err() {
            fastrand::fill(&mut bits);
        }
        Self(bits.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What asking for a lease came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// It is ours: load the value and store it.
    Granted,
    /// Somebody stored the value meanwhile.
    Value(Bytes),
    /// Whoever has this token is loading the value.
    Held(Token),
}

impl Backend {
    pub(crate) fn new(config: &Config, activity: Activity) -> Result<Self> {
        match &config.endpoint.0 {
            Kind::Memory(name) => Ok(Self::Memory(Memory::open(name.as_deref(), config, activity))),
            Kind::Redis(server) => Redis::new(server, config).map(Box::new).map(Self::Redis),
        }
    }

    /// Removes the keys, then publishes the messages in order; returns how many receivers there were in all.
    ///
    /// Cancellation: what was written is carried out.
    pub(crate) async fn publish(&self, messages: &[Outgoing], forget: &[CacheKey]) -> Result<u64> {
        match self {
            Self::Memory(memory) => Ok(memory.publish(messages, forget)),
            Self::Redis(redis) => redis.publish(messages, forget).await,
        }
    }

    /// Opens a subscription connection.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        match self {
            Self::Memory(memory) => Ok(Connection::Memory(memory.connect())),
            Self::Redis(redis) => redis.connect().await.map(Box::new).map(Connection::Redis),
        }
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.ping().await,
        }
    }

    /// The value of a key, and the token of who is loading it.
    pub(crate) async fn look(&self, key: &CacheKey) -> Result<(Option<Bytes>, Option<Token>)> {
        match self {
            Self::Memory(memory) => Ok(memory.look(key)),
            Self::Redis(redis) => redis.look(key).await,
        }
    }

    /// Writes a value and defeats any load of it that is running.
    pub(crate) async fn set(&self, key: &CacheKey, value: &Bytes, ttl: Duration) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.set(key, value, ttl);
                Ok(())
            }
            Self::Redis(redis) => redis.set(key, value, ttl).await,
        }
    }

    /// Asks to be the one who loads a value that is not there; `seen` is the stored value that is to be replaced.
    pub(crate) async fn lease(
        &self,
        key: &CacheKey,
        token: &Token,
        seen: Option<&Bytes>,
        ttl: Duration,
    ) -> Result<Lease> {
        match self {
            Self::Memory(memory) => Ok(memory.lease(key, token, seen, ttl)),
            Self::Redis(redis) => redis.lease(key, token, seen, ttl).await,
        }
    }

    /// Writes a loaded value and gives the lease up, if the lease is still ours and the value is as it was when it was
    /// granted. `true` if it was written.
    pub(crate) async fn store(
        &self,
        key: &CacheKey,
        token: &Token,
        seen: Option<&Bytes>,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<bool> {
        match self {
            Self::Memory(memory) => Ok(memory.store(key, token, seen, value, ttl)),
            Self::Redis(redis) => redis.store(key, token, seen, value, ttl).await,
        }
    }

    /// Prolongs a lease that is still ours.
    pub(crate) async fn renew(&self, key: &CacheKey, token: &Token, ttl: Duration) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.renew(key, token, ttl);
                Ok(())
            }
            Self::Redis(redis) => redis.renew(key, token, ttl).await,
        }
    }

    /// Gives a lease up that is still ours.
    pub(crate) async fn release(&self, key: &CacheKey, token: &Token) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.release(key, token);
                Ok(())
            }
            Self::Redis(redis) => redis.release(key, token).await,
        }
    }

    /// Removes values and defeats the loads of them that are running.
    pub(crate) async fn forget(&self, keys: &[CacheKey]) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.forget(keys);
                Ok(())
            }
            Self::Redis(redis) => redis.forget(keys).await,
        }
    }

    /// Removes all values whose key matches a glob and passes `keep`, with their leases; returns how many values.
    pub(crate) async fn forget_matching(
        &self,
        glob: &str,
        keep: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<u64> {
        match self {
            Self::Memory(memory) => Ok(memory.forget_matching(glob, keep)),
            Self::Redis(redis) => redis.forget_matching(glob, keep).await,
        }
    }

    /// The `INFO` of the server, as text; a minimal one for memory.
    pub(crate) async fn info(&self) -> Result<String> {
        match self {
            Self::Memory(memory) => Ok(memory.info()),
            Self::Redis(redis) => redis.info().await,
        }
    }

    /// The channels with at least one exact subscriber, among those that match `glob`, as they are on the wire.
    pub(crate) async fn pubsub_channels(&self, glob: &str) -> Result<Vec<String>> {
        match self {
            Self::Memory(memory) => Ok(memory.pubsub_channels(glob)),
            Self::Redis(redis) => redis.pubsub_channels(glob).await,
        }
    }

    /// How many exact subscribers each channel has.
    pub(crate) async fn pubsub_numsub(&self, channels: &[String]) -> Result<Vec<u64>> {
        match self {
            Self::Memory(memory) => Ok(memory.pubsub_numsub(channels)),
            Self::Redis(redis) => redis.pubsub_numsub(channels).await,
        }
    }
}

impl Connection {
    /// Waits for at least one push and appends what has arrived.
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn receive(&mut self, pushes: &mut Vec<Push>) -> Result<()> {
        match self {
            Self::Memory(connection) => connection.receive(pushes).await,
            Self::Redis(connection) => connection.receive(pushes).await,
        }
    }

    /// Sends requests; each is answered by one [`Push::Reply`], in order.
    pub(crate) async fn send(&mut self, requests: &[Request]) -> Result<()> {
        match self {
            Self::Memory(connection) => connection.send(requests),
            Self::Redis(connection) => connection.send(requests).await,
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
