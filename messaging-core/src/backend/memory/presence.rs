//! Nodes that live and what they have joined, under the bus's lock.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{BusState, Memory, lock};
use crate::backend::Notice;
use crate::backend::presence::{Audited, Beat, Dead, JoinKey, Life, NodeId};
use crate::channel::Channel;
use crate::retry::deadline;

/// By the names that they would have on Redis, so that namespaces and prefixes separate.
#[derive(Debug, Default)]
pub(super) struct Presences {
    members: HashMap<String, BTreeMap<JoinKey, Bytes>>,
    nodes: HashMap<String, Pulse>,
}

#[derive(Debug)]
struct Pulse {
    number: u64,
    ttl: Duration,
    expires: Instant,
}

impl Memory {
    pub(crate) fn beat(&self, node: &NodeId, number: u64, ttl: Duration) -> Beat {
        let mut bus = lock(&self.bus.0);
        let now = Instant::now();
        bus.presences.nodes.retain(|_, pulse| pulse.expires > now);
        let pulse = Pulse { number, ttl, expires: deadline(ttl) };
        let before = bus.presences.nodes.insert(self.places.node(node), pulse);
        Beat { before: before.map(|before| before.number), connection: 0 }
    }

    pub(crate) fn end_node(&self, node: &NodeId) {
        lock(&self.bus.0).presences.nodes.remove(&self.places.node(node));
    }

    pub(crate) fn lives(&self, nodes: &[NodeId]) -> Vec<Option<Life>> {
        let bus = lock(&self.bus.0);
        let now = Instant::now();
        let life = |node: &NodeId| {
            let pulse = bus.presences.nodes.get(&self.places.node(node))?;
            let left = pulse.expires.checked_duration_since(now).filter(|left| !left.is_zero())?;
            Some(Life { left, ago: pulse.ttl.saturating_sub(left) })
        };
        nodes.iter().map(life).collect()
    }

    pub(crate) fn put_member(&self, channel: &Channel, key: &JoinKey, value: &Bytes, notice: &Bytes) {
        let mut bus = lock(&self.bus.0);
        let members = bus.presences.members.entry(self.places.members(channel)).or_default();
        members.insert(key.clone(), value.clone());
        self.tell_watchers(&mut bus, &self.places.notices(channel), notice);
    }

    pub(crate) fn remove_member(&self, channel: &Channel, key: &JoinKey, notice: &Bytes) {
        let mut bus = lock(&self.bus.0);
        bus.presences.remove(&self.places.members(channel), key);
        self.tell_watchers(&mut bus, &self.places.notices(channel), notice);
    }

    pub(crate) fn members(&self, channel: &Channel) -> Vec<(JoinKey, Bytes)> {
        lock(&self.bus.0).presences.all(&self.places.members(channel))
    }

    pub(crate) fn members_marked(
        &self,
        channel: &Channel,
        watcher: &str,
        number: u64,
    ) -> Vec<(JoinKey, Bytes)> {
        let mut bus = lock(&self.bus.0);
        let all = bus.presences.all(&self.places.members(channel));
        self.tell_watchers(&mut bus, &self.places.here(watcher), &Bytes::from(number.to_string()));
        all
    }

    pub(crate) fn remove_dead(&self, channel: &Channel, dead: &[Dead]) {
        let mut bus = lock(&self.bus.0);
        let name = self.places.members(channel);
        for Dead { key, value, notice } in dead {
            let is_there = |members: &BTreeMap<_, _>| members.get(key) == Some(value);
            if bus.presences.members.get(&name).is_some_and(is_there) {
                bus.presences.remove(&name, key);
                self.tell_watchers(&mut bus, &self.places.notices(channel), notice);
            }
        }
    }

    pub(crate) fn audit_members(
        &self,
        channel: &Channel,
        expected: &[(JoinKey, Bytes)],
        doubted: Option<&NodeId>,
    ) -> Audited {
        let bus = lock(&self.bus.0);
        let members = bus.presences.members.get(&self.places.members(channel));
        let is_wrong = |(key, value): &&(JoinKey, Bytes)| members.and_then(|all| all.get(key)) != Some(value);
        let wrong = expected.iter().filter(is_wrong).map(|(key, _)| key.clone()).collect();
        let keys = members.into_iter().flat_map(BTreeMap::keys);
        let there = keys.filter(|key| Some(&key.node) == doubted).cloned().collect();
        Audited { wrong, there }
    }

    fn tell_watchers(&self, bus: &mut BusState, channel: &str, payload: &Bytes) {
        bus.announce(&Notice { channel: self.places.on_the_wire(channel), payload: payload.clone() });
    }
}

impl Presences {
    fn all(&self, name: &str) -> Vec<(JoinKey, Bytes)> {
        let members = self.members.get(name).into_iter().flatten();
        members.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn remove(&mut self, name: &str, key: &JoinKey) {
        if let Some(members) = self.members.get_mut(name) {
            members.remove(key);
            if members.is_empty() {
                self.members.remove(name);
            }
        }
    }
}
