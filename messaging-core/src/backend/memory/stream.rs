//! One stream: its entries, their numbers, its groups. Pure bookkeeping: the caller says what time it is.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::group::Group;
use super::log::{Fields, Log};
use crate::activity::Activity;
use crate::backend::streams::{Append, From, GroupState, Tail};
use crate::stream::{DeadRecord, RawEntry, Retention, field};

#[derive(Debug, Default)]
pub(super) struct Stream {
    log: Log,
    /// The number of the last entry.
    number: u64,
    groups: BTreeMap<String, Group>,
}

impl Stream {
    /// A stream whose numbers begin after this one.
    pub(super) fn after(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Appends a message, for one group or for all.
    pub(super) fn append(
        &mut self,
        message: &Append,
        channel: &Bytes,
        payload: &Bytes,
        only: Option<&str>,
        now: u64,
    ) {
        let number = self.next_number();
        let mut fields = vec![
            (name(field::ID), text(message.event.as_str())),
            (name(field::NUMBER), number),
            (name(field::CHANNEL), channel.clone()),
            (name(field::TIME), text(&now.to_string())),
        ];
        let kind = message.kind.iter().map(|kind| (name(field::KIND), text(kind)));
        let key = message.key.iter().map(|key| (name(field::KEY), text(key)));
        let only = only.map(|group| (name(field::ONLY), text(group)));
        fields.extend(kind.chain(key).chain(only));
        fields.extend(message.headers.iter().map(|(name, value)| (text(name), text(value))));
        fields.push((name(field::DATA), payload.clone()));
        self.append_fields(fields, message.durability.retention, now);
    }

    /// Appends a dead letter again, for its group alone.
    pub(super) fn replay(&mut self, mut letter: Fields, group: &str, now: u64) {
        let number = self.next_number();
        letter.retain(|(name, _)| name != field::ONLY && !name.starts_with(field::DEAD.as_bytes()));
        for (name, value) in &mut letter {
            if name == field::NUMBER {
                *value = number.clone();
            }
        }
        letter.push((name(field::ONLY), text(group)));
        self.append_fields(letter, self.log.retention(), now);
    }

    fn next_number(&mut self) -> Bytes {
        self.number += 1;
        text(&self.number.to_string())
    }

    fn append_fields(&mut self, fields: Fields, retention: Retention, now: u64) {
        let (id, removed) = self.log.append(fields, retention, now);
        for group in self.groups.values_mut() {
            group.note_appended(id, &removed);
        }
    }

    pub(super) fn is_gone(&self, now: u64) -> bool {
        self.log.is_gone(now)
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn tail(&self) -> Tail {
        Tail { id: self.log.last(), number: self.number }
    }

    /// Makes a group, unless it is there.
    pub(super) fn ensure_group(&mut self, name: &str, from: From) -> &mut Group {
        self.groups.entry(name.to_owned()).or_insert_with(|| Group::new(&self.log, from))
    }

    /// Removes a group.
    pub(super) fn lose_group(&mut self, name: &str) -> Option<Group> {
        self.groups.remove(name)
    }

    /// A group, and the entries that it reads.
    pub(super) fn group(&mut self, name: &str) -> Option<(&mut Group, &Log)> {
        self.groups.get_mut(name).map(|group| (group, &self.log))
    }

    pub(super) fn groups(&self, now: u64) -> Vec<GroupState> {
        self.groups.iter().map(|(name, group)| group.state(name, now)).collect()
    }

    /// What is unfinished is no concern of this activity any more.
    pub(super) fn detach(&mut self, activity: &Activity) {
        self.groups.values_mut().for_each(|group| group.unfinished.detach(activity));
    }
}

/// What a dead-letter stream keeps of an entry.
pub(super) fn dead_letter(entry: RawEntry, group: &str, record: &DeadRecord) -> Fields {
    let mut fields = entry.fields;
    let mut add =
        |what: &str, value: &str| fields.push((text(&format!("{}{what}", field::DEAD)), text(value)));
    add("entry", &entry.id.to_string());
    add("group", group);
    add("handler", &record.handler);
    add("error", &record.error);
    add("attempts", &record.attempts.to_string());
    add("at", &record.failed_at.to_string());
    fields
}

fn name(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
