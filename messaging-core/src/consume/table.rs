//! The streams that one handler reads, as they become known. They keep their numbers.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Consumer, LOOK_EVERY, lock};
use crate::backend::streams::From;
use crate::core::Claim;
use crate::dispatch::StartAt;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{EntryId, RawEntry, StreamInfo, StreamName};

/// For how long a group counts as listening after one of its processes has looked for streams.
const LISTENING: Duration = LOOK_EVERY.saturating_mul(3);

#[derive(Debug, Default)]
pub(super) struct Table {
    streams: Mutex<Vec<Arc<Known>>>,
    /// The backend's clock when the first look was taken; before that, if others of the group were there already.
    since: Mutex<Option<u64>>,
    /// Others of the group were there already.
    joined: AtomicBool,
    /// Wakes readers: there are other streams to read.
    pub(super) changed: Notify,
    /// Readers have not been woken yet.
    unheard: AtomicBool,
    /// What a message weighed lately, in bytes, on average.
    usual_size: AtomicUsize,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) number: usize,
    pub(super) name: StreamName,
    /// It came up after the handler had started: everything since then is the handler's.
    later: bool,
    /// The last entry that this process has read, or knows that its group has.
    pub(super) read: Mutex<EntryId>,
    gate: Mutex<Gate>,
    /// It is ours, where it is exclusive.
    pub(super) owned: AtomicBool,
    /// It is being given up to another consumer.
    pub(super) leaving: AtomicBool,
    /// Its key is refused: something else is in its place, or an ACL forbids it.
    pub(super) refused: AtomicBool,
    /// Of an exclusive stream one is told at a time, so that what is older is never overtaken: by who reads, or who tends.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Where the wait for something new begins, where that is not part of the reading.
    pub(super) bell: Mutex<EntryId>,
}

impl Table {
    pub(super) fn all(&self) -> Vec<Arc<Known>> {
        lock(&self.streams).clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.streams).is_empty()
    }

    pub(super) fn any_refused(&self) -> bool {
        lock(&self.streams).iter().any(|stream| stream.refused.load(Ordering::Relaxed))
    }

    pub(super) fn readable(&self) -> Vec<Arc<Known>> {
        let streams = lock(&self.streams);
        streams.iter().filter(|stream| stream.is_readable()).cloned().collect()
    }

    /// There are other streams to read; readers are woken by [`tell`](Self::tell), once for all changes of one look around.
    pub(super) fn note_change(&self) {
        self.unheard.store(true, Ordering::Relaxed);
    }

    pub(super) fn tell(&self) {
        if self.unheard.swap(false, Ordering::Relaxed) {
            self.changed.notify_waiters();
        }
    }

    /// What a message weighs, by those that were read lately.
    pub(super) fn usual_size(&self) -> usize {
        self.usual_size.load(Ordering::Relaxed)
    }

    pub(super) fn note_sizes(&self, entries: &[RawEntry]) {
        let Some(count) = NonZeroUsize::new(entries.len()) else { return };
        let size = |entry: &RawEntry| entry.fields.iter().map(|(_, value)| value.len()).sum::<usize>();
        let average = entries.iter().map(size).sum::<usize>() / count;
        let before = self.usual_size();
        self.usual_size
            .store(if before == 0 { average } else { (before * 3 + average) / 4 }, Ordering::Relaxed);
    }

    fn add(&self, name: &StreamName, later: bool) -> Option<Arc<Known>> {
        let mut streams = lock(&self.streams);
        if streams.iter().any(|known| known.name == *name) {
            return None;
        }
        let known = Arc::new(Known {
            number: streams.len(),
            name: name.clone(),
            later,
            read: Mutex::new(EntryId::MIN),
            gate: Mutex::default(),
            owned: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
            bell: Mutex::new(EntryId::MIN),
        });
        streams.push(Arc::clone(&known));
        Some(known)
    }
}

/// Whether a stream may be read.
#[derive(Debug, Default)]
struct Gate {
    /// Its group is there, and if it is exclusive, it is ours and what was pending has been taken.
    readable: bool,
    /// Something that is ours may not have arrived.
    recover: bool,
    /// What is ours has not all been told yet, for lack of room.
    rest: bool,
}

/// What has to be told again of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Nothing,
    /// What there was no room for.
    Rest,
    /// All that is ours.
    All,
}

impl Known {
    /// Up to where it has been read, as far as this process knows.
    pub(super) fn last_read(&self) -> EntryId {
        *lock(&self.read)
    }

    pub(super) fn note_read(&self, id: EntryId) {
        let mut read = lock(&self.read);
        *read = id.max(*read);
    }

    pub(super) fn is_readable(&self) -> bool {
        lock(&self.gate).readable
    }

    /// Lets it be read; not while something has to be recovered first, if it keeps an order. `true` if that is new.
    pub(super) fn open(&self, ordered: bool) -> bool {
        let mut gate = lock(&self.gate);
        let readable = !(ordered && gate.recover);
        std::mem::replace(&mut gate.readable, readable) != readable
    }

    /// Lets it not be read; `true` if that is new.
    pub(super) fn close(&self) -> bool {
        std::mem::take(&mut lock(&self.gate).readable)
    }

    /// Something that is ours may not have arrived. What keeps an order is not read before that is here.
    pub(super) fn recover(&self, ordered: bool) {
        let mut gate = lock(&self.gate);
        gate.recover = true;
        gate.readable &= !ordered;
    }

    /// Not all that is ours could be told.
    pub(super) fn note_rest(&self) {
        lock(&self.gate).rest = true;
    }

    /// What has to be recovered; whoever asks does it.
    pub(super) fn take_again(&self) -> Again {
        let mut gate = lock(&self.gate);
        match (std::mem::take(&mut gate.recover), std::mem::take(&mut gate.rest)) {
            (true, _) => Again::All,
            (false, true) => Again::Rest,
            (false, false) => Again::Nothing,
        }
    }
}

impl Consumer {
    /// Looks for streams that may carry what the handler listens to; returns those that are new. Streams of publishers
    /// in this process are registered on the way, so that what they publish first finds its group there.
    pub(super) async fn look(&self) -> Result<Vec<Arc<Known>>> {
        let backend = &self.core.backend;
        let later = lock(&self.table.since).is_some();
        let now = backend.now().await?;
        let mut since = now;
        if self.is_queue() {
            for wire in &self.wires {
                let group = &self.member.group;
                since = since.min(backend.listens_since(group, &wire.name, now, LISTENING).await?);
            }
        }
        let carries = |stream: &StreamInfo| self.wires.iter().any(|wire| stream.name.may_carry(wire));
        let mut ours = self.core.durables.all(&self.core.registry);
        ours.retain(carries);
        if !later {
            backend.register(&ours).await?;
        }
        let mut streams = backend.streams().await?;
        streams.retain(carries);
        streams.extend(ours);
        if !later {
            self.table.joined.store(since < now, Ordering::Relaxed);
            *lock(&self.table.since) = Some(since);
        }
        if !later && streams.is_empty() {
            tracing::warn!(
                handler = %self.running.id,
                "no durable publisher is known for what this handler listens to; it waits for one. A publisher makes a channel durable with `durable` in its `#[event_config]`, `.durable()` on a publish, or builder.durable(…)"
            );
        }
        if self.is_queue() {
            for stream in &streams {
                self.claim(&stream.name)?;
            }
        }
        Ok(streams.iter().filter_map(|stream| self.table.add(&stream.name, later)).collect())
    }

    /// Two handlers of one group on one stream would each settle what is the other's.
    fn claim(&self, stream: &StreamName) -> Result<()> {
        let mut claims = lock(&self.core.claims);
        if self.stop_reading.is_cancelled() {
            return Ok(());
        }
        let (consumer, handler) = (&self.member.consumer, &self.running.id);
        let claim = claims
            .entry((stream.to_string(), self.member.group.clone()))
            .or_insert_with(|| Claim { consumer: consumer.clone(), handler: Arc::clone(handler) });
        if claim.consumer == *consumer {
            return Ok(());
        }
        let text = format!(
            "the handlers `{}` and `{handler}` are both in the group `{}` and read the stream {stream}; give them different groups",
            claim.handler, self.member.group
        );
        Err(Error::new(ErrorKind::Registration, text))
    }

    pub(super) fn drop_claims(&self) {
        lock(&self.core.claims).retain(|_, claim| claim.consumer != self.member.consumer);
    }

    /// Where the group of a stream begins that is not there.
    pub(super) fn group_begins(&self, stream: &Known) -> From {
        let read = stream.last_read();
        if read > EntryId::MIN {
            // It was there, and went: with the stream, or by somebody's hand. What is not settled comes again.
            let oldest = self.ledger().oldest_of(stream.number);
            return From::After(oldest.map_or(read, |oldest| oldest.previous().min(read)));
        }
        // It was there and went before anything was read: what has come since is the group's.
        if stream.owned.load(Ordering::Relaxed) && self.running.options.start == StartAt::New {
            return From::Time(self.since());
        }
        match (self.running.options.start, stream.later) {
            (StartAt::Beginning, _) => From::Beginning,
            // What came up before our first look may have come up after another's.
            (StartAt::New, false) if !self.table.joined.load(Ordering::Relaxed) => From::Now,
            (StartAt::New, _) => From::Time(self.since()),
        }
    }

    /// The entry after which a resumable handler reads a stream that is not there at the start.
    pub(super) fn later_begins(&self) -> EntryId {
        EntryId { millis: self.since(), sequence: 0 }.previous()
    }

    fn since(&self) -> u64 {
        lock(&self.table.since).unwrap_or_default()
    }

    pub(super) fn is_later(stream: &Known) -> bool {
        stream.later
    }
}
