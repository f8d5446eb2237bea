//! What can be done with streams, on the bus: each call is one step under its lock.

use std::time::Duration;

use bytes::Bytes;

use super::{Memory, lock};
use crate::backend::streams::{From, GroupState, Member, Settlement, Tail, Tend, Tended};
use crate::channel::Channel;
use crate::dispatch::Carrier;
use crate::error::Result;
use crate::stream::{EntryId, EventId, RawEntry, StreamInfo, StreamName};

#[cfg(test)]
mod tests;

impl Memory {
    pub(crate) fn now(&self) -> u64 {
        lock(&self.bus.0).store.now()
    }

    pub(crate) fn streams(&self) -> Vec<StreamInfo> {
        lock(&self.bus.0).store.registered()
    }

    pub(crate) fn register(&self, streams: &[StreamInfo]) {
        lock(&self.bus.0).store.register(streams);
    }

    pub(crate) fn ensure_group(&self, stream: &StreamName, group: &str, from: From) {
        let mut bus = lock(&self.bus.0);
        bus.store.stream_or_new(stream).ensure_group(group, from).unfinished.attach(&self.activity);
    }

    pub(crate) fn tend(&self, stream: &StreamName, member: &Member, tend: Tend) -> Result<Tended> {
        let mut bus = lock(&self.bus.0);
        let now = bus.store.now();
        let (group, log) = bus.store.group(stream, &member.group)?;
        group.unfinished.attach(&self.activity);
        Ok(group.tend(log, &member.consumer, tend, now))
    }

    pub(crate) fn read_exclusive(
        &self,
        stream: &StreamName,
        member: &Member,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        let mut bus = lock(&self.bus.0);
        let now = bus.store.now();
        let (group, log) = bus.store.group(stream, &member.group)?;
        group.unfinished.attach(&self.activity);
        let ours = group.is_owned_by(&member.consumer, now);
        Ok(if ours { group.read(log, &member.consumer, most) } else { Vec::new() })
    }

    pub(crate) fn join(&self, stream: &StreamName, member: &Member, lease: Duration) -> u64 {
        lock(&self.bus.0).store.join(stream, member, lease)
    }

    pub(crate) fn holdings(&self, stream: &StreamName, member: &Member) -> Vec<EntryId> {
        let mut bus = lock(&self.bus.0);
        let group = bus.store.group(stream, &member.group);
        group.map(|(group, _)| group.held_by(&member.consumer).collect()).unwrap_or_default()
    }

    pub(crate) fn settle(&self, stream: &StreamName, member: &Member, settlements: &[Settlement]) {
        let mut bus = lock(&self.bus.0);
        let inboxes = bus.inboxes();
        let store = &mut bus.store;
        let now = store.now();
        for settlement in settlements {
            let Ok((group, log)) = store.group(stream, &member.group) else { return };
            let given_up = group.settle(log, &member.consumer, settlement, now);
            if let (Some(entry), Settlement::Dead { record, notice, .. }) = (given_up, settlement) {
                store.bury(stream, &member.group, entry, record);
                if let Some(notice) = notice {
                    let channel = Bytes::copy_from_slice(notice.channel.as_bytes());
                    let named = Channel::from_wire(channel.clone());
                    if let Some(named) = named.and_then(|named| named.without_prefix(&self.channel_prefix)) {
                        self.faults.note(&named, &notice.payload);
                    }
                    for inbox in &inboxes {
                        inbox.offer(Carrier::Broadcast, &channel, &notice.payload);
                    }
                }
            }
        }
        // Not before the notices are on their way: whoever waits until nothing is left to do waits for them too.
        if let Ok((group, _)) = store.group(stream, &member.group) {
            group.count();
        }
    }

    pub(crate) fn seen(&self, stream: &StreamName, group: &str, events: &[EventId]) -> Vec<bool> {
        let mut bus = lock(&self.bus.0);
        let now = bus.store.now();
        match bus.store.group(stream, group) {
            Ok((group, _)) => group.seen(events, now),
            Err(_) => vec![false; events.len()],
        }
    }

    pub(crate) fn leave(&self, stream: &StreamName, member: &Member) {
        lock(&self.bus.0).store.leave(stream, member, &self.activity);
    }

    pub(crate) fn withdraw(&self, stream: &StreamName, member: &Member) {
        lock(&self.bus.0).store.withdraw(stream, member);
    }

    pub(crate) fn groups(&self, stream: &StreamName) -> Vec<GroupState> {
        let mut bus = lock(&self.bus.0);
        let now = bus.store.now();
        bus.store.stream(stream).map(|stream| stream.groups(now)).unwrap_or_default()
    }

    pub(crate) fn tail(&self, stream: &StreamName) -> Tail {
        lock(&self.bus.0).store.tail(stream)
    }

    pub(crate) fn end(&self, stream: &StreamName, over: Option<&str>) -> (Tail, String) {
        lock(&self.bus.0).store.end(stream, over)
    }

    pub(crate) fn range_back(&self, stream: &StreamName, last: EntryId, most: usize) -> Vec<RawEntry> {
        let mut bus = lock(&self.bus.0);
        let stream = bus.store.stream(stream);
        let entries = stream.map(|stream| stream.log().range(EntryId::MIN, last).rev().take(most).collect());
        entries.unwrap_or_default()
    }

    pub(crate) fn range(
        &self,
        stream: &StreamName,
        first: EntryId,
        last: EntryId,
        most: usize,
    ) -> Vec<RawEntry> {
        let mut bus = lock(&self.bus.0);
        let entries =
            bus.store.stream(stream).map(|stream| stream.log().range(first, last).take(most).collect());
        entries.unwrap_or_default()
    }

    pub(crate) fn dead(
        &self,
        stream: &StreamName,
        group: &str,
        after: EntryId,
        most: usize,
    ) -> Vec<RawEntry> {
        let mut bus = lock(&self.bus.0);
        let letters = bus.store.dead(stream, group).map(|letters| letters.after(after).take(most).collect());
        letters.unwrap_or_default()
    }

    pub(crate) fn replay(&self, stream: &StreamName, group: &str, id: EntryId) -> bool {
        lock(&self.bus.0).store.replay(stream, group, id)
    }

    pub(crate) fn purge(&self, stream: &StreamName, group: &str, ids: &[EntryId]) -> u64 {
        let mut bus = lock(&self.bus.0);
        let Some(letters) = bus.store.dead(stream, group) else { return 0 };
        ids.iter().filter(|id| letters.remove(**id).is_some()).count() as u64
    }
}
