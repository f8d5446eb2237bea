//! The registry of cached functions and the counters that tell which sessions together have heard everything.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use redis::{cmd, pipe};

use super::connection::command;
use super::pipe::Replies;
use super::{Redis, millis, refusal};
use crate::backend::{
    Catalog, Cover, Generation, Joined, Joining, Proof, Registration, Reply, Token, generation_of,
};
use crate::error::{ErrorKind, Result};
use crate::retry::deadline;

impl Redis {
    /// Registers definitions, or renews them; forgets those that nobody has renewed. Returns the generation.
    pub(crate) async fn register_families(&self, registrations: &[Registration]) -> Result<i64> {
        let names = &self.names;
        let mut call = self.scripts.register.key(&names.families);
        call.key(&names.expiries).key(&names.generation);
        for Registration { name, definition, keep } in registrations {
            call.arg(name).arg(definition).arg(millis(*keep));
        }
        self.link
            .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await
    }

    /// All definitions, with the generation that they are of at least.
    pub(crate) async fn catalog(&self) -> Result<Catalog> {
        let names = &self.names;
        if self.is_cluster() {
            let mut batch = pipe();
            batch.cmd("GET").arg(&names.generation).cmd("HVALS").arg(&names.families);
            let (generation, definitions): (Option<i64>, Vec<String>) = self
                .link
                .run(self.command_timeout, async |mut connection| batch.query_async(&mut connection).await)
                .await?;
            return Ok(Catalog { generation: generation.unwrap_or(0), definitions });
        }
        // What is registered in between is of a later generation than we say.
        let replies = self.publisher.send(deadline(self.command_timeout), 2, |out| {
            command(out, &[b"GET", names.generation.as_bytes()]);
            command(out, &[b"HVALS", names.families.as_bytes()]);
        });
        let Replies::Several(replies) = replies.await? else { return Err(self.unexpected("HVALS")) };
        match &replies[..] {
            [Reply::Error(error), _] | [_, Reply::Error(error)] => Err(refusal(&self.endpoint, error)),
            [Reply::Value(generation), Reply::Values(definitions)] => {
                let Generation::Number(generation) = generation_of(generation.as_deref()) else {
                    return Err(self.unexpected("GET"));
                };
                let text = |definition: &Reply| match definition {
                    Reply::Value(Some(text)) => String::from_utf8(text.to_vec()).ok(),
                    _ => None,
                };
                Ok(Catalog { generation, definitions: definitions.iter().filter_map(text).collect() })
            }
            _ => Err(self.unexpected("HVALS")),
        }
    }

    /// The generation of the registry, asked for on its own.
    pub(super) async fn generation(&self, limit: Duration) -> Generation {
        let mut get = cmd("GET");
        get.arg(&self.names.generation);
        match self.command_within::<Option<Bytes>>(limit, &get).await {
            Ok(text) => generation_of(text.as_deref()),
            Err(error) if error.kind() == ErrorKind::Refused => Generation::Refused,
            Err(_) => Generation::Unknown,
        }
    }

    pub(crate) async fn join_cover(&self, families: &[Joining<'_>]) -> Result<Vec<Joined>> {
        let mut call = self.scripts.join.key(&self.names.cover);
        // Who is subscribed at other nodes of a cluster, one node does not know.
        call.arg(if self.is_cluster() { "" } else { self.names.own.as_str() });
        families.iter().for_each(|family| _ = call.arg(family.name));
        let (server, alone, marks): (String, bool, Vec<(u64, bool)>) = self
            .link
            .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await?;
        let joined =
            |(mark, is_first)| Joined::Marked { server: server.clone(), mark, alone: alone || is_first };
        Ok(marks.into_iter().map(joined).collect())
    }

    /// The primaries of a cluster as they are known; `None` if it is none.
    pub(crate) fn known_primaries(&self) -> Option<BTreeSet<String>> {
        let slots = self.dialer.locator.slots_known()?;
        Some(slots.primaries().into_iter().map(|address| format!("{address:?}")).collect())
    }

    /// Reads the counters and who the server is, then publishes `number` on our own channel: what was published before arrives before it.
    pub(crate) async fn read_cover(
        &self,
        families: &[&str],
        session: &str,
        number: u64,
    ) -> Result<(String, Vec<Cover>)> {
        let mut call = self.scripts.prove.key(&self.names.cover);
        call.arg(self.names.here(session)).arg(number);
        families.iter().for_each(|family| _ = call.arg(family));
        type Counters = (Option<String>, Option<u64>, Option<u64>);
        let (server, covers): (String, Vec<Counters>) = self
            .link
            .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await?;
        let cover = |(server, joined, proven): (_, Option<u64>, Option<u64>)| Cover {
            server,
            joined: joined.unwrap_or(0),
            proven: proven.unwrap_or(0),
        };
        Ok((server, covers.into_iter().map(cover).collect()))
    }

    pub(crate) async fn prove_cover(&self, proofs: &[Proof<'_>]) -> Result<()> {
        let mut call = self.scripts.proven.key(&self.names.cover);
        for Proof { family, server, joined } in proofs {
            call.arg(family).arg(server).arg(joined);
        }
        self.link
            .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await
    }

    /// Asks to be the one who flushes a family; `false` if somebody else does.
    pub(crate) async fn begin_flush(&self, family: &str, token: &Token, ttl: Duration) -> Result<bool> {
        let mut set = cmd("SET");
        set.arg(self.names.flush(family)).arg(&token.0).arg("NX").arg("PX").arg(millis(ttl));
        if self.command::<Option<String>>(&set).await?.is_some() {
            return Ok(true);
        }
        // An attempt whose answer was lost may have succeeded.
        let holder: Option<String> = self.command(cmd("GET").arg(self.names.flush(family))).await?;
        Ok(holder.as_deref() == Some(&token.0))
    }

    /// What the server does when its memory is full; `None` if it does not say.
    pub(crate) async fn maxmemory_policy(&self) -> Result<Option<String>> {
        let info: String = self.command(cmd("INFO").arg("memory")).await?;
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
        Ok(policy.map(|policy| policy.trim().to_owned()))
    }
}
