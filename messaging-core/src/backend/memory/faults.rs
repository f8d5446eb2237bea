//! What a test does to the way between a messaging and its bus, and what it notes there.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;

use super::{Memory, lock};
use crate::channel::{Channel, Pattern};
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug, Default)]
pub(super) struct Faults {
    /// How many say that the server is away.
    down: AtomicUsize,
    /// How often all connections were cut.
    pub(super) cuts: AtomicU64,
    /// Groups that get the next message on one of these channels twice.
    twice: Mutex<Vec<(Arc<[Pattern]>, String)>>,
    /// What has been published, in its order, once somebody wants to know.
    published: OnceLock<Mutex<Vec<(Channel, Bytes)>>>,
}

impl Faults {
    pub(super) fn check(&self) -> Result<()> {
        if self.down.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let text = "connect to memory: connection refused, because the test has taken redis down";
        Err(Error::new(ErrorKind::Connection, text).before_sending())
    }

    pub(super) fn note(&self, channel: &Channel, payload: &Bytes) {
        if let Some(published) = self.published.get() {
            lock(published).push((channel.clone(), payload.clone()));
        }
    }

    /// The groups that get a message on this channel twice; no other one after it.
    pub(super) fn twice(&self, channel: &str) -> Vec<String> {
        let mut twice = lock(&self.twice);
        let concerned = |(patterns, _): &mut (Arc<[Pattern]>, String)| {
            patterns.iter().any(|pattern| pattern.matches(channel))
        };
        twice.extract_if(.., concerned).map(|(_, group)| group).collect()
    }
}

impl Memory {
    /// # Errors
    /// [`ErrorKind::Connection`] while the server is away.
    pub(crate) fn up(&self) -> Result<&Self> {
        self.faults.check().map(|()| self)
    }

    /// Takes the server away, or gives it back.
    pub(crate) fn set_down(&self, down: bool) {
        if down {
            self.faults.down.fetch_add(1, Ordering::SeqCst);
            self.cut();
        } else {
            self.faults.down.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Cuts all connections of this messaging. What was on its way to it is lost; streams keep what is theirs.
    pub(crate) fn cut(&self) {
        self.faults.cuts.fetch_add(1, Ordering::SeqCst);
        let bus = lock(&self.bus.0);
        for inbox in bus.inboxes().iter().filter(|inbox| inbox.activity.is(&self.activity)) {
            let mut state = lock(&inbox.state);
            state.closed = true;
            inbox.drop_pushes(&mut state);
            inbox.arrived.notify_one();
        }
        bus.store.readers.wake();
    }

    /// Removes a group from all streams, as XGROUP DESTROY does; returns from how many.
    pub(crate) fn lose_group(&self, group: &str) -> usize {
        let mut bus = lock(&self.bus.0);
        let lost = bus.store.lose_group(group);
        bus.store.readers.wake();
        lost
    }

    /// How many streams have the group.
    pub(crate) fn streams_with_group(&self, group: &str) -> usize {
        lock(&self.bus.0).store.streams_with_group(group)
    }

    /// The next message of ours on one of these channels goes to the group twice.
    pub(crate) fn duplicate(&self, patterns: &Arc<[Pattern]>, group: &str) {
        lock(&self.faults.twice).push((Arc::clone(patterns), group.to_owned()));
    }

    /// From now on it is noted what is published.
    pub(crate) fn note_published(&self) {
        self.faults.published.get_or_init(Mutex::default);
    }

    /// What has been published since.
    pub(crate) fn published(&self) -> Vec<(Channel, Bytes)> {
        self.faults.published.get().map(|published| lock(published).clone()).unwrap_or_default()
    }

    /// Keys of the cache that have a value, in order.
    pub(crate) fn cached_keys(&self) -> Vec<String> {
        let bus = lock(&self.bus.0);
        let now = tokio::time::Instant::now();
        let lease = format!("{}:lease:", self.namespace);
        let alive = bus.entries.iter().filter(|(key, entry)| entry.expires > now && !key.starts_with(&lease));
        let mut keys: Vec<_> = alive.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }
}
