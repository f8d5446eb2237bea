//! What can be done about presence, in the words that both backends understand: nodes that show that they live, and what
//! they have joined.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Backend, Token};
use crate::channel::Channel;
use crate::error::Result;

/// How long the members of a channel are kept after the last sign of any of them. Nodes look after theirs more often.
pub(super) const KEPT: Duration = Duration::from_secs(60 * 60);

/// One messaging of one process, by 128 random bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(Arc<str>);

impl NodeId {
    pub(crate) fn random() -> Self {
        Self(Token::random().0.into())
    }

    /// `None` if it cannot be one: what Redis has under this name must not get into the names of keys.
    fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| Self(text.into()))
    }

    /// What the fields of its joins begin with.
    pub(super) fn field_prefix(&self) -> String {
        format!("{self}/")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One join among the members of a channel: who looks after it, and its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct JoinKey {
    pub(crate) node: NodeId,
    pub(crate) id: Arc<str>,
}

impl JoinKey {
    pub(crate) fn parse(field: &str) -> Option<Self> {
        let (node, id) = field.split_once('/')?;
        Some(Self { node: NodeId::parse(node)?, id: id.into() }).filter(|key| !key.id.is_empty())
    }
}

impl fmt::Display for JoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.id)
    }
}

/// What was found when a node showed that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    /// The number of the beat before, if the backend still knew it.
    pub(crate) before: Option<u64>,
    /// The connection that it went out on.
    pub(crate) connection: u64,
}

/// What is known of a node that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// How long it counts as alive without another sign.
    pub(crate) left: Duration,
    /// How long ago its last sign was.
    pub(crate) ago: Duration,
}

/// A join of a node that is dead: removed if it is still as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Dead {
    pub(crate) key: JoinKey,
    pub(crate) value: Bytes,
    /// What is told to those who watch.
    pub(crate) notice: Bytes,
}

/// What became of a node's joins in a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audited {
    /// Those that are not as they should be.
    pub(crate) wrong: Vec<JoinKey>,
    /// All that are there of the node, if that was asked for.
    pub(crate) there: Vec<JoinKey>,
}

/// Keys and channels of presence.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    namespace: String,
    channel_prefix: String,
}

impl Places {
    pub(crate) fn new(namespace: &str, channel_prefix: &str) -> Self {
        Self { namespace: namespace.to_owned(), channel_prefix: channel_prefix.to_owned() }
    }

    /// Hash: the members of a channel.
    pub(super) fn members(&self, channel: &Channel) -> String {
        format!("{}:{{{}{channel}}}:presence", self.namespace, self.channel_prefix)
    }

    /// String that expires: a node lives.
    pub(super) fn node(&self, node: &NodeId) -> String {
        format!("{}:presence:node:{node}", self.namespace)
    }

    /// What the names of our own channels begin with, without the deployment's prefix.
    fn internal(&self) -> String {
        format!("{}:presence:", self.namespace)
    }

    /// The same as it is on the wire.
    pub(crate) fn internal_on_the_wire(&self) -> String {
        self.on_the_wire(&self.internal())
    }

    /// Where it is told what happens to the members of a channel.
    pub(crate) fn notices(&self, channel: &str) -> String {
        format!("{}in:{channel}", self.internal())
    }

    /// Where one watcher hears itself.
    pub(crate) fn here(&self, watcher: &str) -> String {
        format!("{}here:{watcher}", self.internal())
    }

    pub(super) fn on_the_wire(&self, channel: &str) -> String {
        format!("{}{channel}", self.channel_prefix)
    }
}

impl Backend {
    /// Shows that a node lives, for so long. Each beat has a number.
    pub(crate) async fn beat(
        &self,
        node: &NodeId,
        number: u64,
        ttl: Duration,
        limit: Duration,
    ) -> Result<Beat> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.beat(node, number, ttl)),
            Self::Redis(redis) => redis.beat(node, number, ttl, limit).await,
        }
    }

    /// A node lives no more: nothing of what it has joined counts from now on.
    pub(crate) async fn end_node(&self, node: &NodeId) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.end_node(node);
                Ok(())
            }
            Self::Redis(redis) => redis.end_node(node).await,
        }
    }

    /// Which of these nodes live.
    pub(crate) async fn lives(&self, nodes: &[NodeId]) -> Result<Vec<Option<Life>>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.lives(nodes)),
            Self::Redis(redis) => redis.lives(nodes).await,
        }
    }

    /// Writes a join and tells those who watch, in one step.
    ///
    /// Cancellation: what was written is carried out.
    pub(crate) async fn put_member(
        &self,
        channel: &Channel,
        key: &JoinKey,
        value: &Bytes,
        notice: &Bytes,
    ) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.put_member(channel, key, value, notice);
                Ok(())
            }
            Self::Redis(redis) => redis.put_member(channel, key, value, notice).await,
        }
    }

    /// Removes a join and tells those who watch, in one step.
    ///
    /// Cancellation: what was written is carried out.
    pub(crate) async fn remove_member(&self, channel: &Channel, key: &JoinKey, notice: &Bytes) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.remove_member(channel, key, notice);
                Ok(())
            }
            Self::Redis(redis) => redis.remove_member(channel, key, notice).await,
        }
    }

    /// All joins of a channel, those of dead nodes too.
    pub(crate) async fn members(&self, channel: &Channel) -> Result<Vec<(JoinKey, Bytes)>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.members(channel)),
            Self::Redis(redis) => redis.members(channel).await,
        }
    }

    /// The same, and in the same step tells `watcher` the number: what it hears before that is in the answer, what it hears
    /// after is not.
    pub(crate) async fn members_marked(
        &self,
        channel: &Channel,
        watcher: &str,
        number: u64,
    ) -> Result<Vec<(JoinKey, Bytes)>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.members_marked(channel, watcher, number)),
            Self::Redis(redis) => redis.members_marked(channel, watcher, number).await,
        }
    }

    /// Removes joins of dead nodes, and tells those who watch. One that has been written again meanwhile stays.
    pub(crate) async fn remove_dead(&self, channel: &Channel, dead: &[Dead]) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.remove_dead(channel, dead);
                Ok(())
            }
            Self::Redis(redis) => redis.remove_dead(channel, dead).await,
        }
    }

    /// Compares what there is of a node's joins with what should be, and keeps the channel for another while. `doubted` is
    /// the node if all that is there of it is wanted.
    pub(crate) async fn audit_members(
        &self,
        channel: &Channel,
        expected: &[(JoinKey, Bytes)],
        doubted: Option<&NodeId>,
    ) -> Result<Audited> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.audit_members(channel, expected, doubted)),
            Self::Redis(redis) => redis.audit_members(channel, expected, doubted).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_and_nothing_else_does() {
        let key = JoinKey { node: NodeId::random(), id: "a/b {c}".into() };
        assert_eq!(JoinKey::parse(&key.to_string()), Some(key.clone()));
        let node = &key.node;
        let longer = format!("{node}0/x");
        for nonsense in
            ["", "/", "x", "x/y", "0123456789abcdef0123456789abcde}/x", &node.to_string(), &longer]
        {
            assert_eq!(JoinKey::parse(nonsense), None, "{nonsense}");
        }
        assert_eq!(JoinKey::parse(&node.field_prefix()), None);
    }

    #[test]
    fn names_look_like_the_others() {
        let places = Places::new("msg", "staging.");
        let node = NodeId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let channel = Channel::new("chat:7").unwrap();
        assert_eq!(places.members(&channel), "msg:{staging.chat:7}:presence");
        assert_eq!(places.node(&node), "msg:presence:node:0123456789abcdef0123456789abcdef");
        assert_eq!(places.on_the_wire(&places.notices(&channel)), "staging.msg:presence:in:chat:7");
        assert!(places.on_the_wire(&places.here("w")).starts_with(&places.internal_on_the_wire()));
    }
}
