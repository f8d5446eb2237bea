//! All streams of a bus, and what belongs to no single one: the registry, dead letters, who shares partitions, who waits
//! for entries or for other streams.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::clock::{Clock, later, millis};
use super::group::Group;
use super::log::Log;
use super::news::Watchers;
use super::reader::Readers;
use super::schedule::Schedule;
use super::stream::{Stream, dead_letter};
use crate::activity::Activity;
use crate::backend::Token;
use crate::backend::streams::{Append, Member, Tail};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{DeadRecord, EntryId, RawEntry, Retention, StreamInfo, StreamName};

#[derive(Debug, Default)]
pub(super) struct Store {
    clock: Clock,
    registry: BTreeMap<StreamName, StreamInfo>,
    streams: HashMap<StreamName, Stream>,
    /// The last numbers of streams that are gone: they go on if the stream comes back.
    numbers: HashMap<StreamName, u64>,
    /// What stands for the counting of a stream's numbers, which ends with the bus.
    epochs: HashMap<StreamName, String>,
    /// By stream and group.
    dead: HashMap<(StreamName, String), Log>,
    /// By template and group: until when its consumers live.
    members: HashMap<(String, String), Schedule<String>>,
    pub(super) readers: Readers,
    pub(super) watchers: Watchers,
}

impl Store {
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Appends a message that is published on `channel`, for one group or for all, and registers the streams of its
    /// template.
    pub(super) fn append(&mut self, message: &Append, channel: &Bytes, payload: &Bytes, only: Option<&str>) {
        let target = message.target(&String::from_utf8_lossy(channel));
        if !self.is_registered(&target, message) {
            self.register(&StreamInfo::all(&message.stream, &message.durability));
        }
        let now = self.now();
        self.stream_or_new(&target).append(message, channel, payload, only, now);
        self.readers.appended(&target);
    }

    /// Whether the registry knows a stream as it is now. Then it knows all other partitions too.
    fn is_registered(&self, target: &StreamName, message: &Append) -> bool {
        let durability = &message.durability;
        self.registry.get(target).is_some_and(|StreamInfo { kept, .. }| {
            kept.partitions == durability.partitions.map(std::num::NonZeroU16::get)
                && kept.max_len == durability.retention.max_len.get()
                && kept.max_age_ms == millis(durability.retention.max_age)
        })
    }

    pub(super) fn register(&mut self, streams: &[StreamInfo]) {
        let known = self.registry.len();
        self.registry.extend(streams.iter().map(|info| (info.name.clone(), info.clone())));
        if self.registry.len() > known {
            self.watchers.tell();
        }
    }

    /// Everyone who reads streams asks this again and again, so that it is the time to remove what nobody looks at.
    pub(super) fn registered(&mut self) -> Vec<StreamInfo> {
        let now = self.now();
        for (name, gone) in self.streams.extract_if(|_, stream| stream.is_gone(now)) {
            self.numbers.insert(name, gone.tail().number);
        }
        self.dead.retain(|_, letters| !letters.is_gone(now));
        self.registry.values().cloned().collect()
    }

    /// A stream, if it is there: one to which nothing was appended for its maximal age is not.
    pub(super) fn stream(&mut self, name: &StreamName) -> Option<&mut Stream> {
        let now = self.now();
        if self.streams.get(name).is_some_and(|stream| stream.is_gone(now)) {
            let gone = self.streams.remove(name);
            self.numbers.insert(name.clone(), gone.map_or(0, |gone| gone.tail().number));
        }
        self.streams.get_mut(name)
    }

    /// Where a stream ends.
    pub(super) fn tail(&mut self, name: &StreamName) -> Tail {
        let tail = self.stream(name).map(|stream| stream.tail());
        let number = self.numbers.get(name).copied().unwrap_or_default();
        tail.unwrap_or(Tail { number, ..Tail::default() })
    }

    /// The same, with what stands for this counting of its numbers.
    pub(super) fn end(&mut self, name: &StreamName, over: Option<&str>) -> (Tail, String) {
        let epoch = self.epochs.entry(name.clone()).or_insert_with(|| Token::random().0);
        if over == Some(epoch.as_str()) {
            *epoch = Token::random().0;
        }
        let epoch = epoch.clone();
        (self.tail(name), epoch)
    }

    pub(super) fn stream_or_new(&mut self, name: &StreamName) -> &mut Stream {
        if self.stream(name).is_none() {
            let number = self.numbers.remove(name).unwrap_or_default();
            self.streams.insert(name.clone(), Stream::after(number));
        }
        self.streams.get_mut(name).expect("it was put there if it was missing")
    }

    /// A group of a stream with the entries that it reads.
    pub(super) fn group(&mut self, stream: &StreamName, group: &str) -> Result<(&mut Group, &Log)> {
        self.stream(stream).and_then(|stream| stream.group(group)).ok_or_else(|| {
            let text = format!("the stream {stream} or its group {group:?} is not there");
            Error::new(ErrorKind::NotFound, text)
        })
    }

    pub(super) fn join(&mut self, stream: &StreamName, member: &Member, lease: Duration) -> u64 {
        let now = self.now();
        let members = self.members.entry((stream.template().to_owned(), member.group.clone())).or_default();
        members.drop_due(now);
        members.set(member.consumer.clone(), later(now, lease));
        members.len() as u64
    }

    pub(super) fn leave(&mut self, stream: &StreamName, member: &Member, activity: &Activity) {
        if let Ok((group, _)) = self.group(stream, &member.group) {
            group.leave(&member.consumer);
            group.unfinished.detach(activity);
        }
    }

    pub(super) fn withdraw(&mut self, stream: &StreamName, member: &Member) {
        let key = (stream.template().to_owned(), member.group.clone());
        if let Some(members) = self.members.get_mut(&key) {
            members.remove(&member.consumer);
            if members.len() == 0 {
                self.members.remove(&key);
            }
        }
    }

    /// Puts an entry among the dead letters.
    pub(super) fn bury(&mut self, stream: &StreamName, group: &str, entry: RawEntry, record: &DeadRecord) {
        let now = self.now();
        let letter = dead_letter(entry, group, record);
        let letters = self.dead.entry((stream.clone(), group.to_owned())).or_default();
        letters.append(letter, Retention::DEAD, now);
    }

    /// The dead letters of a group, if there are any.
    pub(super) fn dead(&mut self, stream: &StreamName, group: &str) -> Option<&mut Log> {
        let now = self.now();
        let key = (stream.clone(), group.to_owned());
        if self.dead.get(&key).is_some_and(|letters| letters.is_gone(now)) {
            self.dead.remove(&key);
        }
        self.dead.get_mut(&key)
    }

    pub(super) fn replay(&mut self, stream: &StreamName, group: &str, id: EntryId) -> bool {
        let Some(letter) = self.dead(stream, group).and_then(|letters| letters.remove(id)) else {
            return false;
        };
        let now = self.now();
        self.stream_or_new(stream).replay(letter, group, now);
        self.readers.appended(stream);
        true
    }

    pub(super) fn lose_group(&mut self, group: &str) -> usize {
        self.streams.values_mut().filter_map(|stream| stream.lose_group(group)).count()
    }

    pub(super) fn streams_with_group(&mut self, group: &str) -> usize {
        self.streams.values_mut().filter_map(|stream| stream.group(group)).count()
    }

    /// What is unfinished is no concern of this activity any more.
    pub(super) fn detach(&mut self, activity: &Activity) {
        self.streams.values_mut().for_each(|stream| stream.detach(activity));
    }
}
