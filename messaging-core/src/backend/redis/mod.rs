//! The Redis backend: publishing, subscriptions and reading streams on connections of our own, all other commands through
//! the `redis` crate.

mod answers;
mod cache;
mod client;
mod cluster;
mod commands;
mod connection;
mod cover;
mod durable;
mod link;
mod node;
mod operate;
mod pipe;
mod presence;
mod push;
mod reader;
mod rights;
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{join, join_all};
use redis::{Cmd, FromRedisValue, cmd};
use tokio::time::Instant;

pub(crate) use connection::Connection;
#[cfg(test)]
pub(crate) use connection::Stream;
pub(crate) use shards::Connection as ClusterConnection;

use answers::refusal;
use connection::{Dialer, Role, command};
use link::Link;
use node::Node;
use pipe::{Pipe, Replies};
use presence::PresenceScripts;
pub(crate) use reader::StreamReader;
use scripts::Scripts;
use stream_scripts::{APPEND, StreamScripts};
use streams::Registered;
use topology::Locator;

use super::names::Names;
use super::presence::Places;
use super::{CacheKey, Generation, Outgoing, Published, Reply};
use crate::config::{Config, Server};
use crate::dispatch::Carrier;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::deadline;

/// What is asked beside publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Generation,
    Nothing,
}

pub(crate) struct Redis {
    link: Link,
    publisher: Pipe,
    reader: Pipe,
    names: Names,
    places: Places,
    dialer: Arc<Dialer>,
    endpoint: String,
    scripts: Scripts,
    stream_scripts: StreamScripts,
    presence_scripts: PresenceScripts,
    registered: Registered,
    /// For what waits for replicas, which would hold all others up.
    confirming: OnceLock<Link>,
    channel_prefix: String,
    namespace: String,
    command_timeout: Duration,
    cache_timeout: Duration,
    max_payload: usize,
    /// It has been told that announcements are refused.
    told_refused: AtomicBool,
    /// An ACL does not let us mark what we publish.
    marks_refused: AtomicBool,
}

impl Redis {
    pub(crate) fn new(server: &Server, config: &Config) -> Result<Self> {
        let locator = Arc::new(Locator::new(server, config)?);
        let dialer = Arc::new(Dialer::new(server, config, Arc::clone(&locator))?);
        let endpoint = config.endpoint.to_string();
        let names = Names::new(&config.namespace, &config.channel_prefix);
        // On a cluster the connection may lead to any node, which does not have the key.
        let question = (!locator.is_cluster()).then(|| {
            let mut question = Vec::new();
            command(&mut question, &[b"GET", names.generation.as_bytes()]);
            question
        });
        let pipe = |role, timeouts, question| Pipe::new(&dialer, role, timeouts, endpoint.clone(), question);
        Ok(Self {
            link: Link::new(config, &locator),
            publisher: pipe(Role::Publisher, (config.command_timeout, config.command_timeout), question),
            reader: pipe(Role::Cache, (config.cache_timeout, config.command_timeout), None),
            names,
            places: Places::new(&config.namespace, &config.channel_prefix),
            dialer,
            endpoint,
            scripts: Scripts::new(),
            stream_scripts: StreamScripts::new(),
            presence_scripts: PresenceScripts::new(),
            registered: Registered::default(),
            confirming: OnceLock::new(),
            channel_prefix: config.channel_prefix.clone(),
            namespace: config.namespace.clone(),
            command_timeout: config.command_timeout,
            cache_timeout: config.cache_timeout,
            max_payload: config.max_payload,
            told_refused: AtomicBool::new(false),
            marks_refused: AtomicBool::new(false),
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
            return self.publish_on_cluster(until, messages, forget, Ask::Generation).await;
        }
        self.publish_together(until, messages, forget).await
    }

    /// The keys first, each where it is. They may take half of the time, so that the message goes out in any case.
    async fn publish_on_cluster(
        &self,
        until: Instant,
        messages: &[Outgoing],
        forget: &[CacheKey],
        ask: Ask,
    ) -> Result<Published> {
        let half = self.command_timeout / 2;
        let asking = async {
            match ask {
                Ask::Generation => self.generation(half).await,
                Ask::Nothing => Generation::Refused,
            }
        };
        if forget.is_empty() {
            let (generation, published) = join(asking, self.publish_to_all(until, messages)).await;
            return published.map(|receivers| Published { receivers, forgotten: Ok(()), generation });
        }
        let (generation, forgotten) = join(asking, self.forget_within(half, forget)).await;
        let receivers = if forgotten.is_ok() {
            self.publish_to_all(until, messages).await?
        } else {
            self.publish_to_all(until, &unmarked(messages)).await?
        };
        Ok(Published { receivers, forgotten, generation })
    }

    async fn publish_to_all(&self, until: Instant, messages: &[Outgoing]) -> Result<u64> {
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
            None => Ok(receivers),
            Some(error) => Err(if any_sent { error.maybe_sent() } else { error }),
        }
    }

    /// In one piece on one connection.
    async fn publish_together(
        &self,
        until: Instant,
        messages: &[Outgoing],
        forget: &[CacheKey],
    ) -> Result<Published> {
        let removals = usize::from(!forget.is_empty());
        let replies = match self.publish_marked(until, messages, forget).await? {
            Some(replies) => replies,
            None => {
                let plainly = self.publisher.send(until, messages.len() + removals, |out| {
                    if !forget.is_empty() {
                        out.extend_from_slice(&unlink(forget).get_packed_command());
                    }
                    messages.iter().for_each(|message| self.encode_message(out, message));
                });
                match plainly.await? {
                    Replies::One(reply) => {
                        let receivers = count(&self.endpoint, reply)?;
                        let generation = self.publisher.noted();
                        return Ok(Published { receivers, forgotten: Ok(()), generation });
                    }
                    Replies::Several(replies) => replies,
                }
            }
        };
        let mut replies = replies.into_iter();
        let forgotten = match forget {
            [] => Ok(()),
            _ => replies.next().map_or(Ok(0), |reply| count(&self.endpoint, reply)).map(drop),
        };
        let (mut receivers, mut any_sent, mut refusal) = (0, false, None);
        for message in messages {
            match count(&self.endpoint, replies.next().unwrap_or(Reply::Done)) {
                Ok(count) => {
                    receivers += count;
                    any_sent = true;
                }
                Err(error) => _ = refusal.get_or_insert((&message.channel, error)),
            }
        }
        match refusal {
            None => Ok(Published { receivers, forgotten, generation: self.publisher.noted() }),
            Some((channel, error)) => {
                let error = error.context(format_args!("channel {channel:?}"));
                Err(if any_sent { error.maybe_sent() } else { error })
            }
        }
    }

    /// Publishes messages with their marks, if there are any, in one transaction with the removals that a mark speaks of:
    /// who hears a mark relies on them, and a mark without its message would hide an equal one of somebody else. Returns
    /// the answers to the removal and to each message; `None` if nothing was published.
    async fn publish_marked(
        &self,
        until: Instant,
        messages: &[Outgoing],
        forget: &[CacheKey],
    ) -> Result<Option<Vec<Reply>>> {
        let mark_of = |message: &'_ Outgoing| {
            let broadcast = message.carrier == Carrier::Broadcast && message.durable.is_none();
            message.mark.clone().filter(|_| broadcast)
        };
        let marks = messages.iter().filter(|message| mark_of(message).is_some()).count();
        if marks == 0 || self.marks_refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let own = &self.names.own;
        let removals = usize::from(!forget.is_empty());
        let queued = removals + marks + messages.len();
        let replies = self.publisher.send(until, 2 + queued, |out| {
            command(out, &[b"MULTI"]);
            if !forget.is_empty() {
                out.extend_from_slice(&unlink(forget).get_packed_command());
            }
            for message in messages {
                if let Some(mark) = mark_of(message) {
                    command(out, &[b"PUBLISH", own.as_bytes(), &mark]);
                }
                self.encode_message(out, message);
            }
            command(out, &[b"EXEC"]);
        });
        let Replies::Several(mut replies) = replies.await? else { return Ok(None) };
        let mut answers = match replies.pop() {
            Some(Reply::Values(answers)) => answers.into_iter(),
            Some(Reply::Error(error)) if !error.starts_with("EXECABORT") => {
                // There was no transaction, which an ACL may forbid: each command has an answer of its own.
                self.marks_refused.store(true, Ordering::Relaxed);
                replies.remove(0);
                replies.into_iter()
            }
            _ => {
                // Nothing was carried out. Without marks the others invalidate what we do not.
                let mut queued = replies.iter().skip(1 + removals);
                for message in messages {
                    if mark_of(message).is_some()
                        && matches!(queued.next(), Some(Reply::Error(error)) if error.starts_with("NOPERM"))
                    {
                        self.marks_refused.store(true, Ordering::Relaxed);
                    }
                    queued.next();
                }
                return Ok(None);
            }
        };
        let mut told = Vec::with_capacity(removals + messages.len());
        told.extend((0..removals).filter_map(|_| answers.next()));
        for message in messages {
            if mark_of(message).is_some() {
                answers.next();
            }
            told.extend(answers.next());
        }
        Ok(Some(told))
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

/// Messages whose publisher could not remove what they make out of date.
fn unmarked(messages: &[Outgoing]) -> Vec<Outgoing> {
    messages.iter().map(|message| Outgoing { mark: None, ..message.clone() }).collect()
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
        Reply::Done | Reply::Pong | Reply::Unsubscribed(_) | Reply::Value(_) | Reply::Values(_) => Ok(0),
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}
