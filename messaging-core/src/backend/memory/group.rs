//! What a group knows of its stream: what has been handed out and to whom, what waits for another attempt, who lives.
//! Pure bookkeeping: the caller says what time it is and hands in the entries.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::clock::later;
use super::log::Log;
use super::schedule::Schedule;
use super::unfinished::Unfinished;
use crate::backend::streams::{From, GroupState, Settlement, Taken, Tend, Tended};
use crate::stream::{EntryId, EventId, RawEntry};

#[cfg(test)]
mod tests;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// The last entry that was handed out.
    read: EntryId,
    /// How many entries come after it.
    unread: usize,
    /// What consumers have.
    pending: BTreeMap<EntryId, Pending>,
    /// When what nobody has may be tried again.
    delayed: Schedule<EntryId>,
    /// What is known of entries that have been tried.
    notes: HashMap<EntryId, Note>,
    /// For how long events that have been handled are remembered.
    remembered: Schedule<EventId>,
    /// Until when consumers live.
    alive: Schedule<String>,
    /// Consumers that have shown life and have not left: who is among them and does not live has lapsed.
    known: HashSet<String>,
    owner: Option<Owner>,
    pub(super) unfinished: Unfinished,
}

#[derive(Debug)]
struct Pending {
    consumer: Arc<str>,
    takeovers: u32,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    /// The number of the next attempt.
    next: u32,
    due: u64,
}

/// Who has an exclusive stream.
#[derive(Debug)]
struct Owner {
    consumer: String,
    until: u64,
}

impl Group {
    pub(super) fn new(log: &Log, from: From) -> Self {
        let read = match from {
            From::Beginning => EntryId::MIN,
            From::Now => log.last(),
            From::Time(millis) => EntryId { millis, sequence: 0 }.previous(),
            From::After(id) if id > log.last() => EntryId::MIN,
            From::After(id) => id,
        };
        let mut group = Self { read, unread: log.count_after(read), ..Self::default() };
        group.count();
        group
    }

    /// Tells who waits how much is unfinished. Whoever changes the group calls this when everything is in its place.
    pub(super) fn count(&mut self) {
        self.unfinished.set(self.unread + self.pending.len() + self.delayed.len());
    }

    /// An entry was appended, and others were removed for it.
    pub(super) fn note_appended(&mut self, id: EntryId, removed: &[EntryId]) {
        self.unread += usize::from(id > self.read);
        self.unread -= removed.iter().filter(|id| **id > self.read).count();
        self.count();
    }

    /// Hands out what nobody has read yet.
    pub(super) fn read(&mut self, log: &Log, consumer: &str, most: usize) -> Vec<RawEntry> {
        if self.unread == 0 {
            return Vec::new();
        }
        let entries: Vec<_> = log.after(self.read).take(most).collect();
        let consumer = Arc::from(consumer);
        for entry in &entries {
            self.read = entry.id;
            self.pending.insert(entry.id, Pending { consumer: Arc::clone(&consumer), takeovers: 0 });
        }
        self.unread -= entries.len();
        self.count();
        entries
    }

    pub(super) fn held_by(&self, consumer: &str) -> impl Iterator<Item = EntryId> {
        self.pending.iter().filter(move |(_, pending)| *pending.consumer == *consumer).map(|(id, _)| *id)
    }

    pub(super) fn tend(&mut self, log: &Log, consumer: &String, tend: Tend, now: u64) -> Tended {
        let until = later(now, tend.lease);
        let lapsed = self.known.contains(consumer) && !self.alive.is_ahead(consumer, now);
        self.alive.set(consumer.clone(), until);
        self.known.insert(consumer.clone());
        if tend.exclusive {
            if self.owner.as_ref().is_some_and(|owner| owner.until > now && owner.consumer != *consumer) {
                return Tended { lapsed, read: self.read, ..Tended::default() };
            }
            self.owner = Some(Owner { consumer: consumer.clone(), until });
        }
        let mut tended = Tended { ours: true, lapsed, read: self.read, ..Tended::default() };
        let own: Vec<_> = self.held_by(consumer).filter(|_| tend.recover).collect();
        let available = self.available(consumer, tend, now);
        tended.more = available.len() > tend.take;
        let consumer = Arc::from(consumer.as_str());
        for id in own.into_iter().chain(available.into_iter().take(tend.take)) {
            match self.take_over(log, id, &consumer, now) {
                Some(taken) => tended.taken.push(taken),
                None => tended.lost += 1,
            }
        }
        tended.taken.sort_unstable_by_key(|taken| taken.entry.id);
        self.remove_dead(now);
        let in_time = |due: u64| Duration::from_millis(due.saturating_sub(now));
        tended.next_due = self.delayed.first().map(in_time);
        self.count();
        tended
    }

    /// Whether an exclusive stream is this consumer's.
    pub(super) fn is_owned_by(&self, consumer: &str, now: u64) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.until > now && owner.consumer == consumer)
    }

    /// What a consumer may take: what is due, and what others have who are gone, or whose turn is over. At least one
    /// more than it wants, if there are as many.
    fn available(&self, consumer: &str, tend: Tend, now: u64) -> Vec<EntryId> {
        let living: HashSet<&str> = self.alive.ahead(now).map(String::as_str).collect();
        let abandoned = self.pending.iter().filter(|(_, pending)| {
            *pending.consumer != *consumer && (tend.exclusive || !living.contains(&*pending.consumer))
        });
        let available = self.delayed.due(now).copied().chain(abandoned.map(|(id, _)| *id));
        if tend.exclusive {
            // Whichever way they come, the oldest go first: the stream's order is kept from one call to the next.
            let mut available: Vec<_> = available.collect();
            available.sort_unstable();
            available
        } else {
            available.take(tend.take.saturating_add(1)).collect()
        }
    }

    /// `None` if its body is not there any more; then it is settled.
    fn take_over(&mut self, log: &Log, id: EntryId, consumer: &Arc<str>, now: u64) -> Option<Taken> {
        self.delayed.remove(&id);
        let Some(entry) = log.get(id) else {
            self.forget(id);
            return None;
        };
        let takeovers = self
            .pending
            .get(&id)
            .map_or(0, |pending| pending.takeovers.saturating_add(u32::from(pending.consumer != *consumer)));
        self.pending.insert(id, Pending { consumer: Arc::clone(consumer), takeovers });
        let note = self.notes.get(&id).copied().unwrap_or(Note { next: 1, due: now });
        let wait = Duration::from_millis(note.due.saturating_sub(now));
        Some(Taken { entry, attempt: note.next, takeovers, wait })
    }

    /// Removes dead consumers that have nothing.
    fn remove_dead(&mut self, now: u64) {
        let busy: HashSet<&str> = self.pending.values().map(|pending| &*pending.consumer).collect();
        let idle = self.alive.due(now).filter(|consumer| !busy.contains(consumer.as_str()));
        let idle: Vec<_> = idle.cloned().collect();
        idle.iter().for_each(|consumer| self.alive.remove(consumer));
    }

    /// Settles an entry; returns it if it has to go to the dead letters. What is not ours is only ever marked as done.
    pub(super) fn settle(
        &mut self,
        log: &Log,
        consumer: &str,
        settlement: &Settlement,
        now: u64,
    ) -> Option<RawEntry> {
        let id = settlement.id();
        let ours = self.pending.get_mut(&id).filter(|pending| *pending.consumer == *consumer);
        match (settlement, ours) {
            (Settlement::Done { remember, .. }, _) => {
                self.forget(id);
                if let Some((event, window)) = remember {
                    self.remembered.drop_due(now);
                    self.remembered.set(event.clone(), later(now, *window));
                }
            }
            (_, None) => {}
            (Settlement::Retry { next, delay, .. }, Some(_)) => {
                let due = later(now, *delay);
                self.notes.insert(id, Note { next: *next, due });
                self.delay(id, due);
            }
            (Settlement::Note { next, delay, .. }, Some(pending)) => {
                // An attempt at it has ended: its handler outlives it.
                pending.takeovers = 0;
                self.notes.insert(id, Note { next: *next, due: later(now, *delay) });
            }
            (Settlement::HandBack { .. }, Some(_)) => self.delay(id, now),
            (Settlement::Dead { .. }, Some(_)) => {
                self.forget(id);
                return log.get(id);
            }
        }
        None
    }

    fn delay(&mut self, id: EntryId, due: u64) {
        self.pending.remove(&id);
        self.delayed.set(id, due);
    }

    fn forget(&mut self, id: EntryId) {
        self.pending.remove(&id);
        self.delayed.remove(&id);
        self.notes.remove(&id);
    }

    /// Which of these events are remembered.
    pub(super) fn seen(&self, events: &[EventId], now: u64) -> Vec<bool> {
        events.iter().map(|event| self.remembered.is_ahead(event, now)).collect()
    }

    pub(super) fn leave(&mut self, consumer: &String) {
        self.owner.take_if(|owner| owner.consumer == *consumer);
        self.alive.remove(consumer);
        if self.held_by(consumer).next().is_none() {
            self.known.remove(consumer);
        }
    }

    pub(super) fn state(&self, name: &str, now: u64) -> GroupState {
        GroupState {
            group: name.to_owned(),
            pending: self.pending.len() as u64,
            delayed: self.delayed.len() as u64,
            unread: self.unread as u64,
            alive: self.alive.ahead(now).count() as u64,
        }
    }
}
