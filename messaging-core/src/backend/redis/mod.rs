//! The Redis backend: publishing and subscriptions on connections of our own, all other commands through the `redis`
//! crate.

mod answers;
mod client;
mod cluster;
mod commands;
mod connection;
mod durable;
mod link;
mod node;
mod publisher;
mod push;
mod scripts;
mod shards;
mod slots;
mod stream_scripts;
mod streams;
#[cfg(feature = "tls")]
mod tls;
mod topology;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join};
use redis::{Cmd, FromRedisValue, cmd, pipe};
use tokio::time::Instant;

pub(crate) use connection::Connection;
#[cfg(test)]
pub(crate) use connection::Stream;
pub(crate) use shards::Connection as ClusterConnection;

use answers::refusal;
use connection::{Dialer, command};
use link::Link;
use node::Node;
use publisher::{Publisher, Replies};
use scripts::{Scripts, fingerprint};
use stream_scripts::{APPEND, StreamScripts};
use streams::Registered;
pub(crate) use streams::StreamReader;
use topology::Locator;

use super::{CacheKey, Lease, Outgoing, Published, Reply, Token};
use crate::channel::glob_matches;
use crate::config::{Config, Server};
use crate::dispatch::Carrier;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::deadline;

pub(crate) struct Redis {
    link: Link,
    publisher: Publisher,
    dialer: Arc<Dialer>,
    endpoint: String,
    scripts: Scripts,
    stream_scripts: StreamScripts,
    registered: Registered,
    /// For what waits for replicas, which would hold all others up.
    confirming: OnceLock<Link>,
    channel_prefix: String,
    namespace: String,
    command_timeout: Duration,
    cache_timeout: Duration,
}

impl Redis {
    pub(crate) fn new(server: &Server, config: &Config) -> Result<Self> {
        let locator = Arc::new(Locator::new(server, config)?);
        let dialer = Arc::new(Dialer::new(server, config, Arc::clone(&locator))?);
        let endpoint = config.endpoint.to_string();
        Ok(Self {
            link: Link::new(config, &locator),
            publisher: Publisher::new(&dialer, config.command_timeout, endpoint.clone()),
            dialer,
            endpoint,
            scripts: Scripts::new(),
            stream_scripts: StreamScripts::new(),
            registered: Registered::default(),
            confirming: OnceLock::new(),
            channel_prefix: config.channel_prefix.clone(),
            namespace: config.namespace.clone(),
            command_timeout: config.command_timeout,
            cache_timeout: config.cache_timeout,
        })
    }

    pub(crate) async fn connect(&self) -> Result<super::Connection> {
        if self.is_cluster() {
            let connection = ClusterConnection::open(&self.dialer).await?;
            return Ok(super::Connection::Cluster(Box::new(connection)));
        }
        self.dialer.subscriber().await.map(Box::new).map(super::Connection::Redis)
    }

    /// Whether keys are spread over several servers: commands with several keys need them in one slot.
    pub(super) fn is_cluster(&self) -> bool {
        self.link.is_cluster()
    }

    pub(crate) async fn publish(&self, messages: &[Outgoing], forget: &[CacheKey]) -> Result<Published> {
        if messages.iter().any(|message| message.durable.is_some()) {
            return self.publish_durably(messages, forget).await;
        }
        self.publish_plainly(deadline(self.command_timeout), messages, forget).await
    }

    async fn publish_plainly(
        &self,
        until: Instant,
        messages: &[Outgoing],
        forget: &[CacheKey],
    ) -> Result<Published> {
        if self.is_cluster() {
            return self.publish_on_cluster(until, messages, forget).await;
        }
        self.publish_together(until, messages, forget).await
    }

    /// The keys first, each where it is. They may take half of the time, so that the message goes out in any case.
    async fn publish_on_cluster(
        &self,
        until: Instant,
        messages: &[Outgoing],
        forget: &[CacheKey],
    ) -> Result<Published> {
        let forgotten = self.forget_within(self.command_timeout / 2, forget).await;
        let (sharded, plain): (Vec<_>, Vec<_>) =
            messages.iter().cloned().partition(|message| message.carrier == Carrier::Sharded);
        let (mut receivers, mut any_sent) = (0, false);
        if !plain.is_empty() {
            receivers += self.publish_together(until, &plain, &[]).await?.receivers;
            any_sent = true;
        }
        // One channel that is refused does not keep the others from being published.
        let mut failure = None;
        for message in sharded {
            let limit = until.saturating_duration_since(Instant::now());
            let mut publish = cmd("SPUBLISH");
            publish.arg(self.prefixed(&message).as_ref()).arg(&message.payload[..]);
            let published =
                self.link.run(limit, async |mut link| publish.query_async::<u64>(&mut link).await);
            match published.await {
                Ok(count) => {
                    receivers += count;
                    any_sent = true;
                }
                Err(error) => {
                    let error = error.context(format_args!("channel {:?}", message.channel));
                    any_sent |= !error.is_not_sent();
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            None => Ok(Published { receivers, forgotten }),
            Some(error) => Err(if any_sent { error.maybe_sent() } else { error }),
        }
    }

    /// In one piece on one connection.
    async fn publish_together(
        &self,
        deadline: Instant,
        messages: &[Outgoing],
        forget: &[CacheKey],
    ) -> Result<Published> {
        let commands = messages.len() + usize::from(!forget.is_empty());
        let replies = self.publisher.send(deadline, commands, |out| {
            if !forget.is_empty() {
                out.extend_from_slice(&unlink(forget).get_packed_command());
            }
            for message in messages {
                self.encode_message(out, message);
            }
        });
        let replies = match replies.await? {
            Replies::One(reply) => {
                let receivers = count(&self.endpoint, reply)?;
                return Ok(Published { receivers, forgotten: Ok(()) });
            }
            Replies::Several(replies) => replies,
        };
        let mut replies = replies.into_iter().map(|reply| count(&self.endpoint, reply));
        let forgotten = match forget {
            [] => Ok(()),
            _ => replies.next().unwrap_or(Ok(0)).map(drop),
        };
        let (mut receivers, mut any_sent, mut refusal) = (0, false, None);
        for (message, reply) in messages.iter().zip(replies) {
            match reply {
                Ok(count) => {
                    receivers += count;
                    any_sent = true;
                }
                Err(error) => _ = refusal.get_or_insert((&message.channel, error)),
            }
        }
        match refusal {
            None => Ok(Published { receivers, forgotten }),
            Some((channel, error)) => {
                let error = error.context(format_args!("channel {channel:?}"));
                Err(if any_sent { error.maybe_sent() } else { error })
            }
        }
    }

    fn encode_message(&self, out: &mut Vec<u8>, message: &Outgoing) {
        let verb: &[u8] = match message.carrier {
            Carrier::Broadcast => b"PUBLISH",
            Carrier::Sharded => b"SPUBLISH",
        };
        command(out, &[verb, self.prefixed(message).as_bytes(), &message.payload]);
    }

    /// The channel on the wire.
    fn prefixed<'m>(&self, message: &'m Outgoing) -> Cow<'m, str> {
        match self.channel_prefix.as_str() {
            "" => message.channel.as_str().into(),
            prefix => format!("{prefix}{}", message.channel).into(),
        }
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        self.ping_within(self.command_timeout).await
    }

    pub(crate) async fn ping_within(&self, limit: Duration) -> Result<()> {
        let ping = cmd("PING");
        self.link.run(limit, async |mut connection| ping.query_async(&mut connection).await).await
    }

    pub(crate) async fn look(&self, key: &CacheKey) -> Result<(Option<Bytes>, Option<Token>)> {
        if self.is_cluster() {
            return self.look_apart(key).await;
        }
        let mut look = cmd("MGET");
        look.arg(&key.value).arg(&key.lease);
        let (value, holder): (Option<Bytes>, Option<String>) = self
            .link
            .run(self.cache_timeout, async |mut connection| look.query_async(&mut connection).await)
            .await?;
        Ok((value, holder.map(Token)))
    }

    /// While a slot moves between two nodes, only commands of one key work there. What is between the two answers does not
    /// matter: whoever takes the lease asks for the value once more.
    async fn look_apart(&self, key: &CacheKey) -> Result<(Option<Bytes>, Option<Token>)> {
        let get = |key: &str| {
            let mut get = cmd("GET");
            get.arg(key);
            get
        };
        let (value, lease) = (get(&key.value), get(&key.lease));
        let looking = self.link.run(self.cache_timeout, async |connection| {
            let (mut one, mut other) = (connection.clone(), connection);
            try_join(value.query_async(&mut one), lease.query_async::<Option<String>>(&mut other)).await
        });
        let (value, holder) = looking.await?;
        Ok((value, holder.map(Token)))
    }

    pub(crate) async fn set(&self, key: &CacheKey, value: &Bytes, ttl: Duration) -> Result<()> {
        let mut batch = pipe();
        batch.atomic();
        batch.cmd("SET").arg(&key.value).arg(&value[..]).arg("PX").arg(millis(ttl)).ignore();
        batch.cmd("UNLINK").arg(&key.lease).ignore();
        self.link
            .run(self.command_timeout, async |mut connection| batch.query_async(&mut connection).await)
            .await
    }

    pub(crate) async fn lease(
        &self,
        key: &CacheKey,
        token: &Token,
        seen: Option<&Bytes>,
        ttl: Duration,
    ) -> Result<Lease> {
        let mut call = self.scripts.lease.key(&key.value);
        call.key(&key.lease).arg(&token.0).arg(fingerprint(seen)).arg(millis(ttl));
        let (outcome, found): (u8, Option<Bytes>) = self
            .link
            .run(self.cache_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await?;
        let found = found.unwrap_or_default();
        Ok(match outcome {
            0 => Lease::Granted,
            1 => Lease::Value(found),
            _ => Lease::Held(Token(String::from_utf8_lossy(&found).into_owned())),
        })
    }

    pub(crate) async fn store(
        &self,
        key: &CacheKey,
        token: &Token,
        seen: Option<&Bytes>,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<bool> {
        let mut call = self.scripts.store.key(&key.value);
        call.key(&key.lease).arg(&token.0).arg(fingerprint(seen)).arg(&value[..]).arg(millis(ttl));
        // What is refused in the middle of this script has written the value already.
        self.link
            .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await
            .map_err(Error::maybe_sent)
    }

    pub(crate) async fn renew(&self, key: &CacheKey, token: &Token, ttl: Duration) -> Result<()> {
        let mut call = self.scripts.renew.key(&key.lease);
        call.arg(&token.0).arg(millis(ttl));
        self.link
            .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await
    }

    pub(crate) async fn release(&self, key: &CacheKey, token: &Token) -> Result<()> {
        let mut call = self.scripts.release.key(&key.lease);
        call.arg(&token.0);
        self.link
            .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await
    }

    pub(crate) async fn forget(&self, keys: &[CacheKey]) -> Result<()> {
        self.forget_within(self.command_timeout, keys).await
    }

    async fn forget_within(&self, limit: Duration, keys: &[CacheKey]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        if !self.is_cluster() {
            return self.command_within(limit, &unlink(keys)).await;
        }
        // One key at a time, which works also in a slot that is moving between two nodes. The lease goes first: a load that
        // has lost it stores nothing, and one that takes it in between finds another value than it saw.
        let forgetting = keys.iter().map(async |key| {
            let (mut lease, mut value) = (cmd("UNLINK"), cmd("UNLINK"));
            lease.arg(&key.lease);
            value.arg(&key.value);
            self.link
                .run(limit, async |mut connection| {
                    lease.query_async::<()>(&mut connection).await?;
                    value.query_async::<()>(&mut connection).await
                })
                .await
        });
        let forgotten: Result<()> = join_all(forgetting).await.into_iter().collect();
        // Some may be gone already.
        forgotten.map_err(|error| if keys.len() > 1 { error.maybe_sent() } else { error })
    }

    /// Two complete scans: first the leases, so that no running load stores a value behind the second, then the values.
    pub(crate) async fn forget_matching(
        &self,
        glob: &str,
        keep: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<u64> {
        let wanted = |key: &str| glob_matches(glob.as_bytes(), key.as_bytes()) && keep(key);
        let mut leases = String::new();
        crate::channel::escape_glob(&self.namespace, &mut leases);
        leases.push_str(":lease:*");
        let removed = async {
            #[cfg(test)]
            if let Some(with_leases) = crate::cache::interleavings::mutants::one_pass() {
                let lease = |key: &str| with_leases && super::lease_is_of(&self.namespace, key, &wanted);
                return self.scan_and_unlink("*", &|key| wanted(key) || lease(key)).await;
            }
            self.scan_and_unlink(&leases, &|lease| super::lease_is_of(&self.namespace, lease, &wanted))
                .await?;
            self.scan_and_unlink(glob, &wanted).await
        };
        // Some may be gone already.
        removed.await.map_err(Error::maybe_sent)
    }

    /// On all primaries; once more if slots were moved meanwhile, since keys that moved may have been missed.
    async fn scan_and_unlink(&self, glob: &str, wanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<u64> {
        let mut removed = 0;
        loop {
            let (nodes, slots) = self.link.primaries(self.command_timeout).await?;
            for node in nodes {
                removed += self.scan_node_and_unlink(&node, glob, wanted).await?;
            }
            if !self.is_cluster() || self.link.primaries(self.command_timeout).await?.1 == slots {
                return Ok(removed);
            }
        }
    }

    async fn scan_node_and_unlink(
        &self,
        node: &Node,
        glob: &str,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<u64> {
        let (mut cursor, mut removed) = (0_u64, 0);
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(glob).arg("COUNT").arg(1_000).arg("TYPE").arg("string");
            let (next, keys): (u64, Vec<Bytes>) = stepped!(scan => self.command_on(node, &scan).await?);
            // Keys that are not text are nobody's of ours.
            let keys: Vec<&str> = keys
                .iter()
                .filter_map(|key| std::str::from_utf8(key).ok())
                .filter(|key| wanted(key))
                .collect();
            if self.is_cluster() {
                let unlinking =
                    keys.iter().map(async |key| self.command::<u64>(cmd("UNLINK").arg(key)).await);
                let counts: Result<Vec<_>> = join_all(unlinking).await.into_iter().collect();
                removed += counts?.into_iter().sum::<u64>();
            } else if !keys.is_empty() {
                removed += stepped!(unlink => self.command::<u64>(cmd("UNLINK").arg(&keys)).await?);
            }
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }

    /// Of a cluster, that of each primary in turn.
    pub(crate) async fn info(&self) -> Result<String> {
        let infos: Vec<String> = self.of_each_primary(&cmd("INFO")).await?;
        Ok(infos.join("\r\n"))
    }

    pub(crate) async fn pubsub_channels(&self, glob: &str) -> Result<Vec<String>> {
        let channels = self.of_each_node::<Vec<String>>(cmd("PUBSUB").arg("CHANNELS").arg(glob)).await?;
        let channels: BTreeSet<String> = channels.into_iter().flatten().collect();
        Ok(channels.into_iter().collect())
    }

    pub(crate) async fn pubsub_numsub(&self, channels: &[String]) -> Result<Vec<u64>> {
        let counts =
            self.of_each_node::<Vec<(String, u64)>>(cmd("PUBSUB").arg("NUMSUB").arg(channels)).await?;
        let mut sums = vec![0; channels.len()];
        for counts in counts {
            sums.iter_mut().zip(counts).for_each(|(sum, (_, count))| *sum += count);
        }
        Ok(sums)
    }

    async fn of_each_primary<T: FromRedisValue>(&self, command: &Cmd) -> Result<Vec<T>> {
        let (nodes, _) = self.link.primaries(self.command_timeout).await?;
        let answers = nodes.iter().map(async |node| self.command_on(node, command).await);
        join_all(answers).await.into_iter().collect()
    }

    /// Whoever is subscribed may be so at any node. At one that cannot be reached nobody is.
    async fn of_each_node<T: FromRedisValue>(&self, command: &Cmd) -> Result<Vec<T>> {
        let nodes = self.link.nodes(self.command_timeout).await?;
        let answers = join_all(nodes.iter().map(async |node| self.command_on(node, command).await)).await;
        let reached = answers.iter().any(Result::is_ok);
        let gone = |error: &Error| reached && error.kind() == ErrorKind::Connection && error.is_not_sent();
        answers.into_iter().filter(|answer| !answer.as_ref().is_err_and(gone)).collect()
    }

    async fn command_on<T: FromRedisValue>(&self, node: &Node, command: &Cmd) -> Result<T> {
        let limit = self.command_timeout;
        self.link.run_on(node, limit, async |mut connection| command.query_async(&mut connection).await).await
    }

    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        self.command_within(self.command_timeout, command).await
    }

    async fn command_within<T: FromRedisValue>(&self, limit: Duration, command: &Cmd) -> Result<T> {
        self.link.run(limit, async |mut connection| command.query_async(&mut connection).await).await
    }
}

fn unlink(keys: &[CacheKey]) -> Cmd {
    let mut unlink = cmd("UNLINK");
    for key in keys {
        unlink.arg(&key.value).arg(&key.lease);
    }
    unlink
}

fn millis(duration: Duration) -> u64 {
    // Redis adds the present to it, and the sum must fit into 63 bits.
    const FAR: u128 = (i64::MAX / 2) as u128;
    duration.as_millis().clamp(1, FAR) as u64
}

fn count(endpoint: &str, reply: Reply) -> Result<u64> {
    match reply {
        Reply::Integer(count) => Ok(count.unsigned_abs()),
        Reply::Error(error) => Err(refusal(endpoint, &error)),
        Reply::Done | Reply::Pong | Reply::Unsubscribed(_) => Ok(0),
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}
