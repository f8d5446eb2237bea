//! The Redis backend: publishing and subscriptions on connections of our own, all other commands through the `redis`
//! crate.

mod connection;
mod link;
mod publisher;
mod push;
mod scripts;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, cmd, pipe};

pub(crate) use connection::Connection;
#[cfg(test)]
pub(crate) use connection::Stream;
use connection::{Dialer, command};
use link::{Link, refusal};
use publisher::{Publisher, Replies};
use scripts::{Scripts, fingerprint};

use super::{CacheKey, Lease, Outgoing, Published, Reply, Token};
use crate::channel::glob_matches;
use crate::config::{Config, Server};
use crate::error::{Error, Result};

pub(crate) struct Redis {
    link: Link,
    publisher: Publisher,
    dialer: Arc<Dialer>,
    endpoint: String,
    scripts: Scripts,
    channel_prefix: String,
    namespace: String,
    command_timeout: Duration,
    cache_timeout: Duration,
}

impl Redis {
    pub(crate) fn new(server: &Server, config: &Config) -> Result<Self> {
        // The dialer names the variable of a file that cannot be used; the `redis` crate would only name the file.
        let dialer = Arc::new(Dialer::new(server, config)?);
        let endpoint = config.endpoint.to_string();
        Ok(Self {
            link: Link::new(server, config)?,
            publisher: Publisher::new(&dialer, config.command_timeout, endpoint.clone()),
            dialer,
            endpoint,
            scripts: Scripts::new(),
            channel_prefix: config.channel_prefix.clone(),
            namespace: config.namespace.clone(),
            command_timeout: config.command_timeout,
            cache_timeout: config.cache_timeout,
        })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        self.dialer.subscriber().await
    }

    pub(crate) async fn publish(&self, messages: &[Outgoing], forget: &[CacheKey]) -> Result<Published> {
        let commands = messages.len() + usize::from(!forget.is_empty());
        let replies = self.publisher.send(commands, |out| {
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
        let channel = message.channel.as_str();
        let prefixed;
        let channel = match self.channel_prefix.as_str() {
            "" => channel,
            prefix => {
                prefixed = format!("{prefix}{channel}");
                &prefixed
            }
        };
        command(out, &[b"PUBLISH", channel.as_bytes(), &message.payload]);
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        self.ping_within(self.command_timeout).await
    }

    pub(crate) async fn ping_within(&self, limit: Duration) -> Result<()> {
        let ping = cmd("PING");
        self.link.run(limit, async |mut connection| ping.query_async(&mut connection).await).await
    }

    pub(crate) async fn look(&self, key: &CacheKey) -> Result<(Option<Bytes>, Option<Token>)> {
        let mut look = cmd("MGET");
        look.arg(&key.value).arg(&key.lease);
        let (value, holder): (Option<Bytes>, Option<String>) = self
            .link
            .run(self.cache_timeout, async |mut connection| look.query_async(&mut connection).await)
            .await?;
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
        if keys.is_empty() { Ok(()) } else { self.command(&unlink(keys)).await }
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
            self.scan_and_unlink(&leases, &|lease| super::lease_is_of(&self.namespace, lease, &wanted))
                .await?;
            self.scan_and_unlink(glob, &wanted).await
        };
        // Some may be gone already.
        removed.await.map_err(Error::maybe_sent)
    }

    async fn scan_and_unlink(&self, glob: &str, wanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<u64> {
        let (mut cursor, mut removed) = (0_u64, 0);
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(glob).arg("COUNT").arg(1_000).arg("TYPE").arg("string");
            let (next, keys): (u64, Vec<Bytes>) = self.command(&scan).await?;
            // Keys that are not text are nobody's of ours.
            let keys: Vec<&str> = keys
                .iter()
                .filter_map(|key| std::str::from_utf8(key).ok())
                .filter(|key| wanted(key))
                .collect();
            if !keys.is_empty() {
                removed += self.command::<u64>(cmd("UNLINK").arg(&keys)).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }

    pub(crate) async fn info(&self) -> Result<String> {
        self.command(&cmd("INFO")).await
    }

    pub(crate) async fn pubsub_channels(&self, glob: &str) -> Result<Vec<String>> {
        self.command(cmd("PUBSUB").arg("CHANNELS").arg(glob)).await
    }

    pub(crate) async fn pubsub_numsub(&self, channels: &[String]) -> Result<Vec<u64>> {
        let counts: Vec<(String, u64)> = self.command(cmd("PUBSUB").arg("NUMSUB").arg(channels)).await?;
        Ok(counts.into_iter().map(|(_, subscribers)| subscribers).collect())
    }

    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        self.link
            .run(self.command_timeout, async |mut connection| command.query_async(&mut connection).await)
            .await
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
        Reply::Done | Reply::Pong => Ok(0),
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}
