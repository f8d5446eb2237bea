//! What this process has joined, and what has been written of it. Members count only while their node shows that it lives:
//! `keeper` does that.

mod keeper;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::record::{Record, left_notice, put_notice};
use super::roster::Roster;
use crate::backend::presence::{Dead, JoinKey, NodeId};
use crate::channel::Channel;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result, chain};

/// How many beats in a row it is made sure that nothing comes late of what had an unknown fate.
const DOUBTED_FOR: u32 = 20;

/// What this messaging has joined.
#[derive(Debug)]
pub(crate) struct Node {
    pub(super) core: Arc<Core>,
    pub(super) id: NodeId,
    pub(super) roster: Roster,
    state: Mutex<State>,
    /// One beat at a time.
    pulse: tokio::sync::Mutex<Pulse>,
    alive: Alive,
    /// There is something to do before the next beat.
    news: Notify,
    /// What was written has to be looked at: all of it, and now.
    alarmed: AtomicBool,
    versions: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    joins: HashMap<(Channel, Arc<str>), Arc<Join>>,
    leaving: Vec<Arc<Join>>,
    /// Channels where something of unknown fate may come late, and for how many beats that is looked for.
    doubts: HashMap<Channel, u32>,
    keeper: Option<tokio::task::JoinHandle<()>>,
    /// Nothing is joined any more.
    closed: bool,
}

/// How this node shows that it lives.
#[derive(Debug, Default)]
struct Pulse {
    /// Of the last beat.
    number: u64,
    /// The last beat that was answered.
    confirmed: Option<u64>,
    connection: Option<u64>,
    alive_until: Option<Instant>,
    failing: bool,
}

/// When Redis was told for certain that this node lives.
type Alive = Mutex<Option<Instant>>;

/// How the presence of this process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PresenceHealth {
    /// Members that this process has on its channels.
    pub members: usize,
    /// The channels that they are on.
    pub channels: usize,
    /// Members that are not written as they should be, yet or any more.
    pub unsettled: usize,
    /// How long ago, in milliseconds, Redis was told for certain that this process lives. Its members count as gone
    /// when that is longer ago than `MESSAGING_PRESENCE_TTL`. Nothing without members.
    pub last_alive_ms: Option<u64>,
}

/// One join: what it should be, and what has been written of it.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) channel: Channel,
    pub(super) key: JoinKey,
    wish: Mutex<Wish>,
    /// One write at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Wish {
    /// Which of those who have joined under this id, one after the other, it is for.
    owner: u64,
    version: u64,
    /// Nothing when it has been left.
    record: Option<Record>,
    /// The version that is known to be there.
    written: u64,
    /// Some version may be there.
    touched: bool,
}

/// What makes a join what it should be.
enum Step {
    Put(Bytes),
    Remove,
    Nothing,
}

impl Node {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            id: NodeId::random(),
            roster: Roster::default(),
            state: Mutex::default(),
            pulse: tokio::sync::Mutex::default(),
            alive: Alive::default(),
            news: Notify::new(),
            alarmed: AtomicBool::new(false),
            versions: AtomicU64::new(0),
        })
    }

    /// Notes a join, which is not written yet. Returns with it who owns it.
    pub(super) fn enter(
        self: &Arc<Self>,
        channel: &Channel,
        id: &str,
        record: Record,
    ) -> Result<(Arc<Join>, u64)> {
        let key = JoinKey { node: self.id.clone(), id: id.into() };
        record.check_size(&key, self.core.config.max_payload)?;
        let version = self.next_version();
        let join = {
            let mut state = self.state();
            if state.closed || self.core.stop.is_cancelled() {
                return Err(Error::new(ErrorKind::Closed, "messaging has been shut down").before_sending());
            }
            let place = (channel.clone(), Arc::clone(&key.id));
            let join = state.joins.entry(place).or_insert_with(|| Arc::new(Join::new(channel, key)));
            let mut wish = join.wish();
            if wish.record.is_some() {
                let text =
                    format!("{id:?} has joined {channel:?} already; leave first, or join under another id");
                return Err(Error::new(ErrorKind::Conflict, text).before_sending());
            }
            (wish.owner, wish.version, wish.record) = (version, version, Some(record));
            drop(wish);
            Arc::clone(join)
        };
        self.keep();
        Ok((join, version))
    }

    /// Changes what a join should be; nothing to do if it has been left.
    pub(super) fn change(&self, join: &Join, owner: u64, record: Record) -> Result<()> {
        record.check_size(&join.key, self.core.config.max_payload)?;
        let version = self.next_version();
        let mut wish = join.wish();
        if wish.owner != owner || wish.record.is_none() {
            let text = format!("{:?} has left {:?}", join.key.id, join.channel);
            return Err(Error::new(ErrorKind::Closed, text).before_sending());
        }
        (wish.version, wish.record) = (version, Some(record));
        Ok(())
    }

    /// A join should be no more; `false` if that is nothing new.
    pub(super) fn abandon(&self, join: &Join, owner: u64) -> bool {
        let version = self.next_version();
        let mut wish = join.wish();
        let is_news = wish.owner == owner && wish.record.is_some();
        if is_news {
            (wish.version, wish.record) = (version, None);
        }
        is_news
    }

    /// As [`abandon`](Self::abandon), and removes it in the background.
    pub(super) fn leave_later(self: &Arc<Self>, join: &Arc<Join>, owner: u64) {
        if self.abandon(join, owner) {
            self.state().leaving.push(Arc::clone(join));
            self.keep();
            self.news.notify_one();
        }
    }

    /// Makes sure that this node counts as alive.
    pub(super) async fn alive(&self) -> Result<()> {
        let mut pulse = self.pulse.lock().await;
        match pulse.alive_until {
            Some(until) if until > Instant::now() + self.ttl() / 2 => Ok(()),
            _ => self.beat(&mut pulse).await,
        }
    }

    /// Makes a join what it should be.
    pub(super) async fn settle(&self, join: &Arc<Join>) -> Result<()> {
        let _turn = join.turn.lock().await;
        let (version, step) = {
            let mut wish = join.wish();
            if wish.written == wish.version {
                return Ok(());
            }
            let step = match &wish.record {
                Some(record) => Step::Put(record.encode(wish.version)),
                None if wish.touched => Step::Remove,
                // It was left before it was written.
                None => Step::Nothing,
            };
            wish.touched |= matches!(step, Step::Put(_));
            (wish.version, step)
        };
        let backend = &self.core.backend;
        let settled = match step {
            Step::Put(value) => {
                let notice = put_notice(&join.key, &value);
                backend.put_member(&join.channel, &join.key, &value, &notice).await
            }
            Step::Remove => backend.remove_member(&join.channel, &join.key, &left_notice(&join.key)).await,
            Step::Nothing => Ok(()),
        };
        match settled {
            Ok(()) => {
                join.wish().written = version;
                self.forget_if_left(join);
                Ok(())
            }
            Err(error) => {
                if !error.is_not_sent() {
                    self.state().doubts.insert(join.channel.clone(), DOUBTED_FOR);
                }
                Err(error)
            }
        }
    }

    /// Removes joins of dead nodes behind the caller's back.
    pub(super) fn bury(&self, channel: &Channel, dead: Vec<(JoinKey, Bytes)>) {
        if dead.is_empty() {
            return;
        }
        let bury = |(key, value)| Dead { notice: left_notice(&key), key, value };
        let dead: Vec<_> = dead.into_iter().map(bury).collect();
        let (core, channel) = (Arc::clone(&self.core), channel.clone());
        self.core.work.spawn(async move {
            // Whoever looks next tries again.
            if let Err(error) = core.backend.remove_dead(&channel, &dead).await {
                tracing::debug!(%channel, error = %chain(&error), "members of dead processes could not be removed");
            }
        });
    }

    fn forget_if_left(&self, join: &Arc<Join>) {
        let mut state = self.state();
        let wish = join.wish();
        if wish.record.is_none() && wish.written == wish.version {
            let place = (join.channel.clone(), Arc::clone(&join.key.id));
            if state.joins.get(&place).is_some_and(|there| Arc::ptr_eq(there, join)) {
                state.joins.remove(&place);
            }
        }
    }

    pub(crate) fn health(&self) -> PresenceHealth {
        let joins: Vec<_> = {
            let state = self.state();
            state.joins.values().chain(&state.leaving).cloned().collect()
        };
        let (mut health, mut channels) = (PresenceHealth::default(), HashSet::new());
        for join in &joins {
            let wish = join.wish();
            if wish.record.is_some() {
                health.members += 1;
                channels.insert(&join.channel);
            }
            health.unsettled += usize::from(wish.written != wish.version);
        }
        health.channels = channels.len();
        let alive = *self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let since = alive.filter(|_| health.members > 0).map(|alive| alive.elapsed().as_millis());
        health.last_alive_ms = since.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX));
        health
    }

    fn ttl(&self) -> Duration {
        self.core.config.presence_ttl
    }

    fn interval(&self) -> Duration {
        self.ttl() * 3 / 10
    }

    fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Join {
    fn new(channel: &Channel, key: JoinKey) -> Self {
        let wish = Wish { owner: 0, version: 0, record: None, written: 0, touched: false };
        Self { channel: channel.clone(), key, wish: Mutex::new(wish), turn: tokio::sync::Mutex::new(()) }
    }

    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
