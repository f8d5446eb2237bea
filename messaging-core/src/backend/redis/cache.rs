//! The cache's commands: reading on a connection of its own that batches, the lease protocol, removing exactly and by
//! pattern.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join};
use redis::{FromRedisValue, RedisResult, ScriptInvocation, cmd, pipe};

use super::commands::Commands;
use super::connection::command;
use super::link::Served;
use super::node::Node;
use super::pipe::Replies;
use super::scripts::fingerprint;
use super::{Redis, millis, refusal, unlink};
use crate::backend::{Attempt, CacheKey, Grant, Lease, Looked, Notice, Reply, Token, lease_is_of};
use crate::channel::glob_matches;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::deadline;

/// How often a script is sent that the server does not know.
const MOST_ATTEMPTS: u32 = 4;

impl Redis {
    /// The value, who is loading it and, if it is asked for, how long it has to live.
    pub(crate) async fn look(&self, key: &CacheKey, with_ttl: bool) -> Result<Looked> {
        if self.is_cluster() {
            return self.look_apart(key, with_ttl).await;
        }
        let until = deadline(self.cache_timeout);
        let replies = self.reader.send(until, if with_ttl { 2 } else { 1 }, |out| {
            command(out, &[b"MGET", key.value.as_bytes(), key.lease.as_bytes()]);
            if with_ttl {
                command(out, &[b"PTTL", key.value.as_bytes()]);
            }
        });
        let (looked, left) = match replies.await? {
            Replies::One(looked) => (looked, None),
            Replies::Several(mut replies) => {
                let left = replies.pop();
                (replies.pop().unwrap_or(Reply::Done), left)
            }
        };
        let mut values = match looked {
            Reply::Values(values) => values.into_iter(),
            Reply::Error(error) => return Err(refusal(&self.endpoint, &error)),
            _ => return Err(self.unexpected("MGET")),
        };
        let (Some(Reply::Value(value)), Some(Reply::Value(holder))) = (values.next(), values.next()) else {
            return Err(self.unexpected("MGET"));
        };
        let left = left.and_then(|left| match left {
            Reply::Integer(left) => lifetime(left),
            _ => None,
        });
        Ok(Looked { value, holder: holder.map(token), left })
    }

    /// While a slot moves between two nodes, only commands of one key work there. What is between the answers does not
    /// matter: whoever takes the lease asks for the value once more.
    async fn look_apart(&self, key: &CacheKey, with_ttl: bool) -> Result<Looked> {
        let about = |verb: &str, key: &str| {
            let mut about = cmd(verb);
            about.arg(key);
            about
        };
        let mut value = pipe();
        value.add_command(about("GET", &key.value));
        if with_ttl {
            value.add_command(about("PTTL", &key.value));
        }
        let lease = about("GET", &key.lease);
        let looking = self.link.run(self.cache_timeout, async |connection| {
            let (mut one, mut other) = (connection.clone(), connection);
            try_join(
                async {
                    if with_ttl {
                        value.query_async::<(Option<Bytes>, i64)>(&mut one).await
                    } else {
                        value.query_async::<(Option<Bytes>,)>(&mut one).await.map(|(value,)| (value, -1))
                    }
                },
                lease.query_async::<Option<Bytes>>(&mut other),
            )
            .await
        });
        let ((value, left), holder) = looking.await?;
        Ok(Looked { value, holder: holder.map(token), left: lifetime(left) })
    }

    pub(super) fn unexpected(&self, verb: &str) -> Error {
        Error::new(ErrorKind::Connection, format!("redis at {} answered {verb} unexpectedly", self.endpoint))
    }

    /// Writes a value, removes the lease and announces it, all in one.
    pub(crate) async fn set(
        &self,
        key: &CacheKey,
        value: &Bytes,
        ttl: Duration,
        notice: &Notice,
    ) -> Result<()> {
        let mut batch = pipe();
        batch.atomic();
        batch.cmd("SET").arg(&key.value).arg(&value[..]).arg("PX").arg(millis(ttl)).ignore();
        batch.cmd("UNLINK").arg(&key.lease).ignore();
        if self.is_cluster() {
            self.link
                .run(self.command_timeout, async |mut connection| {
                    batch.query_async::<()>(&mut connection).await
                })
                .await?;
            return self.announce(notice).await;
        }
        let until = deadline(self.command_timeout);
        let packed = batch.get_packed_pipeline();
        let replies = self.publisher.send(until, 5, |out| {
            out.extend_from_slice(&packed);
            command(out, &[b"PUBLISH", notice.channel.as_bytes(), &notice.payload]);
        });
        let Replies::Several(replies) = replies.await? else { return Err(self.unexpected("EXEC")) };
        // MULTI, SET, UNLINK, EXEC, PUBLISH.
        self.carried_out(&replies[..replies.len().min(4)])?;
        self.note_announced(replies.get(4));
        Ok(())
    }

    /// What the commands of a transaction have answered, of which these are all replies: what was refused when it was queued
    /// has refused all of it.
    fn carried_out<'r>(&self, replies: &'r [Reply]) -> Result<&'r [Reply]> {
        let mut done = &[][..];
        for reply in replies {
            match reply {
                Reply::Error(error) => return Err(refusal(&self.endpoint, error)),
                Reply::Values(answers) => {
                    done = answers;
                    if let Some(Reply::Error(error)) =
                        done.iter().find(|reply| matches!(reply, Reply::Error(_)))
                    {
                        return Err(refusal(&self.endpoint, error).maybe_sent());
                    }
                }
                _ => {}
            }
        }
        Ok(done)
    }

    /// Reads a value, and removes it with its lease, and announces it, all in one.
    pub(crate) async fn take(&self, key: &CacheKey, notice: &Notice) -> Result<Option<Bytes>> {
        let (mut lease, mut value) = (cmd("UNLINK"), cmd("GETDEL"));
        lease.arg(&key.lease);
        value.arg(&key.value);
        if self.is_cluster() {
            // One key at a time, which works also in a slot that is moving; the lease first, as when keys are forgotten.
            let taking = self.link.run(self.command_timeout, async |mut connection| {
                lease.query_async::<()>(&mut connection).await?;
                value.query_async::<Option<Bytes>>(&mut connection).await
            });
            let taken = taking.await?;
            self.announce(notice).await?;
            return Ok(taken);
        }
        let mut batch = pipe();
        batch.atomic().add_command(lease).add_command(value);
        let until = deadline(self.command_timeout);
        let packed = batch.get_packed_pipeline();
        let replies = self.publisher.send(until, 5, |out| {
            out.extend_from_slice(&packed);
            command(out, &[b"PUBLISH", notice.channel.as_bytes(), &notice.payload]);
        });
        let Replies::Several(replies) = replies.await? else { return Err(self.unexpected("EXEC")) };
        // MULTI, UNLINK, GETDEL, EXEC, PUBLISH.
        let taken = match self.carried_out(&replies[..replies.len().min(4)])? {
            [_, Reply::Value(value)] => value.clone(),
            _ => return Err(self.unexpected("GETDEL")),
        };
        self.note_announced(replies.get(4));
        Ok(taken)
    }

    /// A server that does not let us announce keeps the local layers of other processes older than they should be.
    fn note_announced(&self, reply: Option<&Reply>) {
        if let Some(Reply::Error(error)) = reply
            && !self.told_refused.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                error,
                "cannot tell other processes what was invalidated, so that their local layers keep it for their ttl; allow this user `&*:cache:*` channels"
            );
        }
    }

    /// Tells the local layers of other processes.
    pub(crate) async fn announce(&self, notice: &Notice) -> Result<()> {
        let until = deadline(self.command_timeout);
        let replies = self.publisher.send(until, 1, |out| {
            command(out, &[b"PUBLISH", notice.channel.as_bytes(), &notice.payload]);
        });
        if let Replies::One(reply) = replies.await? {
            self.note_announced(Some(&reply));
        }
        Ok(())
    }

    pub(crate) async fn lease(
        &self,
        key: &CacheKey,
        attempt: &Attempt<'_>,
        seen: Option<&Bytes>,
        ttl: Duration,
    ) -> Result<Lease> {
        let mut call = self.scripts.lease.key(&key.value);
        call.key(&key.lease).arg(&attempt.token.0).arg(fingerprint(seen)).arg(millis(ttl));
        attempt.earlier.iter().for_each(|token| _ = call.arg(&token.0));
        let leasing = self.link.run_served(self.cache_timeout, None, async |mut connection| {
            invoke::<(u8, Option<Bytes>)>(&call, &mut connection).await
        });
        let Served::By(server, (outcome, found)) = leasing.await? else {
            return Err(self.unexpected("LEASE"));
        };
        let found = found.unwrap_or_default();
        Ok(match outcome {
            0 => Lease::Granted(Some(server)),
            1 => Lease::Value(found),
            _ => Lease::Held(token(found)),
        })
    }

    /// Stores on the connection that the lease was granted on, or not at all: another one may lead to a server that has
    /// lost an invalidation.
    pub(crate) async fn store(
        &self,
        key: &CacheKey,
        grant: &Grant,
        seen: Option<&Bytes>,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<bool> {
        let mut call = self.scripts.store.key(&key.value);
        call.key(&key.lease).arg(&grant.token.0).arg(fingerprint(seen)).arg(&value[..]).arg(millis(ttl));
        let storing = self.link.run_served(self.command_timeout, grant.by, async |mut connection| {
            invoke::<bool>(&call, &mut connection).await
        });
        // What is refused in the middle of this script has written the value already.
        match storing.await.map_err(Error::maybe_sent)? {
            Served::By(_, stored) => Ok(stored),
            Served::Elsewhere => {
                // Nobody should wait until the lease expires, should it be there.
                self.release(&key.lease, &grant.token).await?;
                Ok(false)
            }
        }
    }

    pub(crate) async fn renew(&self, lease: &str, token: &Token, ttl: Duration) -> Result<()> {
        let mut call = self.scripts.renew.key(lease);
        call.arg(&token.0).arg(millis(ttl));
        self.link.run(self.command_timeout, async |mut connection| invoke(&call, &mut connection).await).await
    }

    pub(crate) async fn release(&self, lease: &str, token: &Token) -> Result<()> {
        let mut call = self.scripts.release.key(lease);
        call.arg(&token.0);
        self.link.run(self.command_timeout, async |mut connection| invoke(&call, &mut connection).await).await
    }

    pub(crate) async fn forget(&self, keys: &[CacheKey], notice: Option<&Notice>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        if self.is_cluster() {
            self.forget_within(self.command_timeout, keys).await?;
            return match notice {
                Some(notice) => self.announce(notice).await,
                None => Ok(()),
            };
        }
        let until = deadline(self.command_timeout);
        let packed = unlink(keys).get_packed_command();
        let replies = self.publisher.send(until, 1 + usize::from(notice.is_some()), |out| {
            out.extend_from_slice(&packed);
            if let Some(notice) = notice {
                command(out, &[b"PUBLISH", notice.channel.as_bytes(), &notice.payload]);
            }
        });
        let removed = match replies.await? {
            Replies::One(reply) => reply,
            Replies::Several(mut replies) => {
                self.note_announced(replies.pop().as_ref());
                replies.pop().unwrap_or(Reply::Done)
            }
        };
        match removed {
            Reply::Error(error) => Err(refusal(&self.endpoint, &error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn forget_within(&self, limit: Duration, keys: &[CacheKey]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
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
                let lease = |key: &str| with_leases && lease_is_of(&self.namespace, key, &wanted);
                return self.scan_and_unlink("*", &|key| wanted(key) || lease(key)).await;
            }
            self.scan_and_unlink(&leases, &|lease| lease_is_of(&self.namespace, lease, &wanted)).await?;
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

    /// On all primaries; anew if slots were moved meanwhile, since keys that moved may have been missed.
    pub(crate) async fn keys_matching(&self, glob: &str) -> Result<BTreeSet<String>> {
        loop {
            let mut found = BTreeSet::new();
            let (nodes, slots) = self.link.primaries(self.command_timeout).await?;
            for node in nodes {
                let mut cursor = 0;
                loop {
                    let keys;
                    (cursor, keys) = self.scan(&node, cursor, glob).await?;
                    found.extend(keys.into_iter().filter_map(|key| String::from_utf8(key.into()).ok()));
                    if cursor == 0 {
                        break;
                    }
                }
            }
            if !self.is_cluster() || self.link.primaries(self.command_timeout).await?.1 == slots {
                return Ok(found);
            }
        }
    }

    /// One step of a scan: where the next begins, and keys of values.
    async fn scan(&self, node: &Node, cursor: u64, glob: &str) -> Result<(u64, Vec<Bytes>)> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(glob).arg("COUNT").arg(1_000).arg("TYPE").arg("string");
        self.command_on(node, &scan).await
    }

    async fn scan_node_and_unlink(
        &self,
        node: &Node,
        glob: &str,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<u64> {
        let (mut cursor, mut removed) = (0_u64, 0);
        loop {
            let (next, keys) = stepped!(scan => self.scan(node, cursor, glob).await?);
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
}

/// Runs a script. The `redis` crate loads one that is not there; which somebody may flush again before it is run.
async fn invoke<T: FromRedisValue>(call: &ScriptInvocation<'_>, connection: &mut Commands) -> RedisResult<T> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match call.invoke_async(connection).await {
            Err(error) if attempts < MOST_ATTEMPTS && error.code() == Some("NOSCRIPT") => {}
            answer => return answer,
        }
    }
}

fn token(bytes: Bytes) -> Token {
    Token(String::from_utf8_lossy(&bytes).into_owned())
}

/// What PTTL says: without an end, or without a value, there is none.
fn lifetime(left: i64) -> Option<Duration> {
    u64::try_from(left).ok().map(Duration::from_millis)
}
