//! Nodes that live, as keys that expire, and what they have joined, as a hash for each channel.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use redis::{Pipeline, Script, cmd, pipe};

use super::link::Served;
use super::scripts::fingerprint;
use super::{Redis, millis};
use crate::backend::presence::{Audited, Beat, Dead, JoinKey, KEPT, Life, NodeId};
use crate::channel::Channel;
use crate::error::{Error, ErrorKind, Result};

/// How many nodes are asked for, and joins compared, at once.
const AT_ONCE: usize = 500;
/// What says that it lives for longer is no node of ours.
const LONGEST_LIFE: Duration = Duration::from_secs(60 * 60);

pub(super) struct PresenceScripts {
    remove_dead: Script,
    audit: Script,
}

impl PresenceScripts {
    pub(super) fn new() -> Self {
        Self { remove_dead: Script::new(REMOVE_DEAD), audit: Script::new(AUDIT) }
    }
}

/// KEYS: members. ARGV: where those who watch hear of it; then for each join its field, the digest of its value, and what to
/// tell.
const REMOVE_DEAD: &str = "\
for i = 2, #ARGV, 3 do
  local value = redis.call('HGET', KEYS[1], ARGV[i])
  if value and redis.sha1hex(value) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('PUBLISH', ARGV[1], ARGV[i + 2])
  end
end
return true";

/// KEYS: members. ARGV: for how many milliseconds they are kept; what the fields begin with that are all wanted, or nothing;
/// then for each join its field and the digest of its value. Returns the fields that are not so, and those that are wanted.
const AUDIT: &str = "\
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local wrong, there = {}, {}
for i = 3, #ARGV, 2 do
  local value = redis.call('HGET', KEYS[1], ARGV[i])
  if not value or redis.sha1hex(value) ~= ARGV[i + 1] then wrong[#wrong + 1] = ARGV[i] end
end
if ARGV[2] ~= '' then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, #ARGV[2]) == ARGV[2] then there[#there + 1] = field end
  end
end
return {wrong, there}";

impl Redis {
    pub(crate) async fn beat(
        &self,
        node: &NodeId,
        number: u64,
        ttl: Duration,
        limit: Duration,
    ) -> Result<Beat> {
        let ttl = millis(ttl);
        let mut set = cmd("SET");
        set.arg(self.places.node(node)).arg(format!("{number} {ttl}")).arg("PX").arg(ttl).arg("GET");
        let limit = limit.min(self.command_timeout);
        let served = self.link.run_served(limit, None, async |mut connection| {
            set.query_async::<Option<Bytes>>(&mut connection).await
        });
        match served.await? {
            Served::By(connection, before) => {
                let before = before.as_deref().and_then(read_pulse).map(|(number, _)| number);
                Ok(Beat { before, connection })
            }
            Served::Elsewhere => {
                Err(Error::new(ErrorKind::Connection, "the connection was lost").before_sending())
            }
        }
    }

    pub(crate) async fn end_node(&self, node: &NodeId) -> Result<()> {
        self.command(cmd("DEL").arg(self.places.node(node))).await
    }

    pub(crate) async fn lives(&self, nodes: &[NodeId]) -> Result<Vec<Option<Life>>> {
        // On a cluster each is somewhere else.
        let together = if self.is_cluster() { 1 } else { AT_ONCE };
        let mut lives = Vec::with_capacity(nodes.len());
        for some in nodes.chunks(AT_ONCE) {
            let asked = join_all(some.chunks(together).map(|nodes| self.lives_of(nodes))).await;
            for answer in asked {
                lives.extend(answer?);
            }
        }
        Ok(lives)
    }

    async fn lives_of(&self, nodes: &[NodeId]) -> Result<Vec<Option<Life>>> {
        let mut batch = pipe();
        for node in nodes {
            let key = self.places.node(node);
            batch.cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        }
        let answers: Vec<redis::Value> = self
            .link
            .run(self.command_timeout, async |mut connection| batch.query_async(&mut connection).await)
            .await?;
        Ok(answers.chunks(2).map(read_life).collect())
    }

    pub(crate) async fn put_member(
        &self,
        channel: &Channel,
        key: &JoinKey,
        value: &Bytes,
        notice: &Bytes,
    ) -> Result<()> {
        let members = self.places.members(channel);
        let mut step = pipe();
        step.atomic().cmd("HSET").arg(&members).arg(key.to_string()).arg(&value[..]).ignore();
        step.cmd("PEXPIRE").arg(&members).arg(millis(KEPT)).ignore();
        self.and_tell(step, channel, notice).await
    }

    pub(crate) async fn remove_member(&self, channel: &Channel, key: &JoinKey, notice: &Bytes) -> Result<()> {
        let mut step = pipe();
        step.atomic().cmd("HDEL").arg(self.places.members(channel)).arg(key.to_string()).ignore();
        self.and_tell(step, channel, notice).await
    }

    /// On a cluster all that is told of a channel takes one way: from the node that has its members.
    async fn and_tell(&self, mut step: Pipeline, channel: &Channel, notice: &Bytes) -> Result<()> {
        step.cmd("PUBLISH").arg(self.notices(channel)).arg(&notice[..]).ignore();
        self.link
            .run(self.command_timeout, async |mut connection| step.query_async(&mut connection).await)
            .await
    }

    pub(crate) async fn members(&self, channel: &Channel) -> Result<Vec<(JoinKey, Bytes)>> {
        let all: Vec<(Bytes, Bytes)> = self.command(cmd("HGETALL").arg(self.places.members(channel))).await?;
        Ok(self.sound(all))
    }

    pub(crate) async fn members_marked(
        &self,
        channel: &Channel,
        watcher: &str,
        number: u64,
    ) -> Result<Vec<(JoinKey, Bytes)>> {
        let here = self.places.on_the_wire(&self.places.here(watcher));
        let mut step = pipe();
        step.atomic().cmd("HGETALL").arg(self.places.members(channel));
        step.cmd("PUBLISH").arg(here).arg(number).ignore();
        let (all,): (Vec<(Bytes, Bytes)>,) = self
            .link
            .run(self.command_timeout, async |mut connection| step.query_async(&mut connection).await)
            .await?;
        Ok(self.sound(all))
    }

    pub(crate) async fn remove_dead(&self, channel: &Channel, dead: &[Dead]) -> Result<()> {
        for some in dead.chunks(AT_ONCE) {
            let mut call = self.presence_scripts.remove_dead.key(self.places.members(channel));
            call.arg(self.notices(channel));
            for Dead { key, value, notice } in some {
                call.arg(key.to_string()).arg(fingerprint(Some(value))).arg(&notice[..]);
            }
            self.link
                .run(self.command_timeout, async |mut connection| {
                    call.invoke_async::<()>(&mut connection).await
                })
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn audit_members(
        &self,
        channel: &Channel,
        expected: &[(JoinKey, Bytes)],
        doubted: Option<&NodeId>,
    ) -> Result<Audited> {
        let mut audited = Audited::default();
        let mut prefix = doubted.map(NodeId::field_prefix).unwrap_or_default();
        let mut left = expected;
        loop {
            let (some, rest) = left.split_at(left.len().min(AT_ONCE));
            let mut call = self.presence_scripts.audit.key(self.places.members(channel));
            call.arg(millis(KEPT)).arg(std::mem::take(&mut prefix));
            for (key, value) in some {
                call.arg(key.to_string()).arg(fingerprint(Some(value)));
            }
            let (wrong, there): (Vec<Bytes>, Vec<Bytes>) = self
                .link
                .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
                .await?;
            audited.wrong.extend(wrong.iter().filter_map(read_field));
            audited.there.extend(there.iter().filter_map(read_field));
            if rest.is_empty() {
                return Ok(audited);
            }
            left = rest;
        }
    }

    fn notices(&self, channel: &Channel) -> String {
        self.places.on_the_wire(&self.places.notices(channel))
    }

    /// What can be a join and is not larger than what may be told of one.
    fn sound(&self, all: Vec<(Bytes, Bytes)>) -> Vec<(JoinKey, Bytes)> {
        let small = all.into_iter().filter(|(_, value)| value.len() <= self.max_payload);
        small.filter_map(|(field, value)| Some((read_field(&field)?, value))).collect()
    }
}

fn read_field(field: &Bytes) -> Option<JoinKey> {
    std::str::from_utf8(field).ok().and_then(JoinKey::parse)
}

/// The number of a node's last beat, and for how many milliseconds it counts.
fn read_pulse(pulse: &[u8]) -> Option<(u64, u64)> {
    let (number, ttl) = std::str::from_utf8(pulse).ok()?.split_once(' ')?;
    Some((number.parse().ok()?, ttl.parse().ok()?))
}

/// From a node's key and how long that has to live. Something else under its name is no sign of life.
fn read_life(answers: &[redis::Value]) -> Option<Life> {
    let [redis::Value::BulkString(pulse), redis::Value::Int(left)] = answers else { return None };
    let (_, ttl) = read_pulse(pulse)?;
    let left = Duration::from_millis(u64::try_from(*left).ok()?);
    let plausible = !left.is_zero() && left <= LONGEST_LIFE;
    plausible.then(|| Life { left, ago: Duration::from_millis(ttl).saturating_sub(left) })
}
