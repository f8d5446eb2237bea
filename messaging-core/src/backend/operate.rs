//! What operators ask and no handler needs: how streams and groups are, what is registered of cached functions, what an
//! ACL allows. Nothing here is on the way of a message.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::Backend;
use super::streams::GroupState;
use crate::error::Result;
use crate::stream::{EntryId, StreamName};

/// What somebody may want to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Feature {
    /// Publish.
    Publish,
    /// Subscribe to channels, templates and globs.
    Subscribe,
    /// Sharded channels, from Redis 7.0 on.
    Sharded,
    /// Publish durably, read the past, and follow it.
    Durable,
    /// Handlers with `delivery = "queue"`.
    Queue,
    /// Cached functions, and values by hand.
    Cache,
    /// Presence.
    Presence,
    /// What [`Operator`](crate::Operator) does.
    Operate,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamFacts {
    pub(crate) length: u64,
    pub(crate) first: Option<EntryId>,
    pub(crate) last: EntryId,
    /// The last number that was given.
    pub(crate) number: u64,
}

/// A group, and who is in it.
#[derive(Clone, Debug)]
pub(crate) struct GroupFacts {
    pub(crate) state: GroupState,
    /// `unread` is only known to be no less.
    pub(crate) at_least: bool,
    /// The oldest entry in the hands of a consumer.
    pub(crate) oldest: Option<EntryId>,
    pub(crate) consumers: Vec<ConsumerFacts>,
    pub(crate) dead: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct ConsumerFacts {
    pub(crate) name: String,
    pub(crate) pending: u64,
    pub(crate) idle: Duration,
    pub(crate) lives: bool,
}

/// What the registry knows of a cached function beside its definition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FamilyFacts {
    /// How long it is known unless somebody renews it.
    pub(crate) known_for: Option<Duration>,
    /// How many sessions have joined since the server began, and how many of them are known to have missed nothing.
    pub(crate) joined: u64,
    pub(crate) proven: u64,
}

/// What is looked at for [`Backend::rights`].
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// As on the wire.
    pub(crate) channel: String,
    pub(crate) stream: StreamName,
    pub(crate) group: String,
    /// A cached value and its lease, as they are on the backend, and the glob of all such values.
    pub(crate) value: String,
    pub(crate) lease: String,
    pub(crate) values: String,
}

/// One command, and what an ACL said to it.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    pub(crate) feature: Feature,
    pub(crate) command: String,
    pub(crate) refusal: Option<Refusal>,
}

#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// In the server's words.
    pub(crate) reason: String,
    /// What would allow it, in the words of an ACL; nothing where the server lacks the command.
    pub(crate) rule: Option<String>,
}

impl Backend {
    pub(crate) async fn stream_facts(&self, stream: &StreamName) -> Result<StreamFacts> {
        match self {
            Self::Memory(memory) => {
                let kept = memory.range(stream, EntryId::MIN, EntryId::MAX, usize::MAX);
                let tail = memory.tail(stream);
                Ok(StreamFacts {
                    length: kept.len() as u64,
                    first: kept.first().map(|entry| entry.id),
                    last: tail.id,
                    number: tail.number,
                })
            }
            Self::Redis(redis) => redis.stream_facts(stream).await,
        }
    }

    /// The groups of a stream. In memory nothing is known of their consumers.
    pub(crate) async fn group_facts(&self, stream: &StreamName) -> Result<Vec<GroupFacts>> {
        match self {
            Self::Memory(memory) => {
                let facts = |state: GroupState| GroupFacts {
                    dead: memory.dead(stream, &state.group, EntryId::MIN, usize::MAX).len() as u64,
                    at_least: false,
                    oldest: None,
                    consumers: Vec::new(),
                    state,
                };
                Ok(memory.groups(stream).into_iter().map(facts).collect())
            }
            Self::Redis(redis) => redis.group_facts(stream).await,
        }
    }

    /// How many dead letters a group has in a stream.
    pub(crate) async fn dead_count(&self, stream: &StreamName, group: &str) -> Result<u64> {
        match self {
            Self::Memory(memory) => Ok(memory.dead(stream, group, EntryId::MIN, usize::MAX).len() as u64),
            Self::Redis(redis) => redis.dead_count(stream, group).await,
        }
    }

    /// The groups that have dead letters in one of these streams, also those that are no more. It scans the key space.
    pub(crate) async fn dead_groups(&self, streams: &[StreamName]) -> Result<BTreeSet<String>> {
        match self {
            Self::Memory(memory) => {
                let groups = streams.iter().flat_map(|stream| {
                    let groups = memory.groups(stream).into_iter().map(|state| state.group);
                    groups.filter(|group| !memory.dead(stream, group, EntryId::MIN, 1).is_empty())
                });
                Ok(groups.collect())
            }
            Self::Redis(redis) => redis.dead_groups(streams).await,
        }
    }

    /// Removes a stream and what is kept beside it for its groups, and takes it out of the registry; `false` if it was in
    /// neither.
    pub(crate) async fn remove_stream(&self, stream: &StreamName) -> Result<bool> {
        match self {
            // What is in memory goes with the process.
            Self::Memory(_) => Ok(false),
            Self::Redis(redis) => redis.remove_stream(stream).await,
        }
    }

    /// How often each command was called since the server was started; of a cluster, on all primaries together.
    pub(crate) async fn command_calls(&self) -> Result<BTreeMap<String, u64>> {
        match self {
            Self::Memory(_) => Ok(BTreeMap::new()),
            Self::Redis(redis) => redis.command_calls().await,
        }
    }

    /// What is registered of these definitions.
    pub(crate) async fn family_facts(&self, names: &[&str]) -> Result<Vec<FamilyFacts>> {
        match self {
            Self::Memory(_) => Ok(vec![FamilyFacts::default(); names.len()]),
            Self::Redis(redis) => redis.family_facts(names).await,
        }
    }

    /// Asks of each command that the library sends whether an ACL allows it; none is carried out. In memory there is no
    /// ACL.
    pub(crate) async fn rights(&self, scope: &Scope) -> Result<Vec<Tried>> {
        match self {
            Self::Memory(_) => Ok(Vec::new()),
            Self::Redis(redis) => redis.rights(scope).await,
        }
    }
}
