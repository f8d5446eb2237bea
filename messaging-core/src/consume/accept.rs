//! From an entry that was read to a message that waits for its handler: whose it is, and whether it is known already.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Consumer, lock};
use crate::backend::streams::{MOST_TAKEOVERS, Taken};
use crate::channel::{Captures, Channel};
use crate::dispatch::{Fate, Hold, Outcome, Place};
use crate::error::Result;
use crate::message::Received;
use crate::stream::{Entry, EntryId, EventId, RawEntry};

/// How many events a resumable handler remembers at most.
const MOST_RECENT: usize = 100_000;

/// The events that a resumable handler has seen lately.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<RecentState>);

#[derive(Debug, Default)]
struct RecentState {
    seen: HashMap<EventId, std::time::Instant>,
    order: VecDeque<EventId>,
}

impl Recent {
    /// Whether an event was noted within `window`; it is noted now.
    pub(super) fn note(&self, event: &EventId, window: Duration) -> bool {
        let mut state = lock(&self.0);
        let now = std::time::Instant::now();
        while let Some(oldest) = state.order.front() {
            let keep = state.seen.get(oldest).is_some_and(|at| now.duration_since(*at) < window);
            if keep && state.order.len() < MOST_RECENT {
                break;
            }
            if let Some(oldest) = state.order.pop_front() {
                state.seen.remove(&oldest);
            }
        }
        if state.seen.contains_key(event) {
            return true;
        }
        let event = event.to_keep();
        state.seen.insert(event.clone(), now);
        state.order.push_back(event);
        false
    }
}

/// What an entry turned out to be.
pub(super) enum Judged {
    /// For the handler.
    Message(Received),
    /// For others; with its number.
    NotOurs(u64),
    /// It was made by nobody who knows how.
    Unreadable,
}

impl Consumer {
    /// Takes an entry apart and asks whether it is for the handler.
    pub(super) fn judge(&self, raw: RawEntry, stream: usize, at: std::time::Instant) -> Judged {
        let Some((entry, channel, payload)) = Entry::read(raw, stream) else { return Judged::Unreadable };
        let Some(channel) = Channel::from_wire(channel) else { return Judged::Unreadable };
        let Some(channel) = channel.without_prefix(&self.core.config.channel_prefix) else {
            return Judged::NotOurs(entry.number);
        };
        // A replay is for one group alone.
        if entry.only.as_deref().is_some_and(|only| self.group() != Some(only)) {
            return Judged::NotOurs(entry.number);
        }
        let mut captures = Captures::new();
        let mut patterns = self.running.patterns.iter();
        let Some(pattern) = patterns.position(|pattern| pattern.captures(&channel, &mut captures)) else {
            return Judged::NotOurs(entry.number);
        };
        let pattern = u16::try_from(pattern).unwrap_or(u16::MAX);
        Judged::Message(Received { channel, payload, at, pattern, entry: Some(Box::new(entry)) })
    }

    /// Accepts what is new of a queue's stream.
    pub(super) async fn accept(&self, stream: usize, entries: Vec<RawEntry>) -> Result<()> {
        let fresh =
            entries.into_iter().map(|entry| Taken { entry, attempt: 1, takeovers: 0, wait: Duration::ZERO });
        self.accept_taken(stream, fresh.collect()).await
    }

    /// Accepts entries of a queue's stream: those for the handler go to its workers, all others are settled.
    pub(super) async fn accept_taken(&self, stream: usize, taken: Vec<Taken>) -> Result<()> {
        let at = std::time::Instant::now();
        let mut batch = VecDeque::with_capacity(taken.len());
        let known = Arc::clone(&self.table.all()[stream]);
        let epoch = self.ledger().epoch(stream);
        for Taken { entry, attempt, takeovers, wait } in taken {
            let place = (stream, entry.id);
            match self.ledger().hold(place) {
                // What came before it has been handed back.
                Hold::New if known.leaving.load(Ordering::Relaxed) => {
                    self.settle_at_once(place, attempt, Fate::HandBack);
                    continue;
                }
                Hold::New => {}
                Hold::Known | Hold::NotOurs => continue,
                Hold::Unclear => {
                    known.recover(self.is_exclusive());
                    if self.is_exclusive() {
                        // What comes after it must not go before it.
                        break;
                    }
                    continue;
                }
            }
            if entry.fields.is_empty() {
                // Its body was trimmed away.
                self.counts.lost.by(1);
                self.settle_at_once(place, attempt, Fate::Done);
                continue;
            }
            if takeovers > MOST_TAKEOVERS {
                let text = format!("{takeovers} consumers were gone before they had handled it");
                self.settle_at_once(place, attempt, Fate::Dead(text));
                continue;
            }
            match self.judge(entry, stream, at) {
                Judged::NotOurs(_) => self.settle_at_once(place, attempt, Fate::Done),
                Judged::Unreadable => {
                    let text = "it has no channel or no data as UTF-8 text".to_owned();
                    self.settle_at_once(place, attempt, Fate::Dead(text));
                }
                Judged::Message(mut received) => {
                    if let Some(entry) = &mut received.entry {
                        entry.epoch = epoch;
                        entry.attempt = attempt;
                        entry.wait = wait;
                    }
                    batch.push_back(received);
                }
            }
        }
        if self.running.options.dedupe.is_some() && !batch.is_empty() {
            self.pass_over_seen(stream, &mut batch).await?;
        }
        self.running.mailbox.push_asked_for(&mut batch);
        Ok(())
    }

    /// Settles what the group remembers as handled.
    async fn pass_over_seen(&self, stream: usize, batch: &mut VecDeque<Received>) -> Result<()> {
        let entries = batch.iter().filter_map(|received| received.entry.as_ref());
        let events: Vec<_> = entries.map(|entry| entry.event.clone()).collect();
        let name = self.table.all()[stream].name.clone();
        let seen = match self.core.backend.seen(&name, &self.member.group, &events).await {
            Ok(seen) => seen,
            Err(error) => {
                // They are read again, as after a lost answer.
                let places = batch.drain(..).filter_map(|received| received.entry.map(|entry| entry.id));
                self.ledger().forget(places.map(|id| (stream, id)));
                return Err(error);
            }
        };
        let mut seen = seen.into_iter();
        batch.retain(|received| {
            let passed_over = seen.next().unwrap_or(false);
            if let (true, Some(entry)) = (passed_over, &received.entry) {
                self.running.tally.duplicates.up();
                self.settle_at_once((stream, entry.id), entry.attempt, Fate::Done);
            }
            !passed_over
        });
        Ok(())
    }

    fn settle_at_once(&self, place: Place, attempt: u32, fate: Fate) {
        self.ledger().end(Outcome { place, event: EventId::default(), attempt, fate });
    }

    /// The highest of these ids.
    pub(super) fn last_of(entries: &[RawEntry]) -> EntryId {
        entries.iter().map(|entry| entry.id).max().unwrap_or(EntryId::MIN)
    }
}
