//! Caching: keys, loads that are shared, and what events make out of date.
//!
//! The protocol of a load is a lease, as in "Scaling Memcache at Facebook" (Nishtala et al., NSDI 2013, section 3.2.1):
//! who finds no value asks for a lease, and only its holder may store; an invalidation removes value and lease in one
//! command, so that a value loaded before it is never stored after it.

mod families;
mod flight;
#[cfg(test)]
pub(crate) mod interleavings;
mod key;
mod listener;
mod load;
pub(crate) mod shape;
pub(crate) mod source;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use families::{Families, Family};
use flight::Flights;
pub(crate) use key::{KeyTemplate, check_literal};
pub(crate) use listener::Listener;

use crate::activity::Activity;
use crate::backend::{Backend, CacheKey, Outgoing};
use crate::config::Config;
use crate::dispatch::Carrier;
use crate::error::{Result, chain};
use crate::registry::Registry;

/// How long a lease lives that nobody renews: a crashed loader delays others by at most this.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// More own events than this on their way back to us mean that we do not hear them.
const MOST_OWN: usize = 10_000;
/// An own event that has not come back for so long does not come any more.
const OWN_FOR: Duration = Duration::from_secs(5);

/// States of [`Family::flushing`].
const IDLE: u8 = 0;
const FLUSHING: u8 = 1;
const FLUSHING_AGAIN: u8 = 2;

/// The cache of one [`Messaging`](crate::Messaging).
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) backend: Arc<Backend>,
    pub(crate) families: Families,
    config: Config,
    flights: Flights,
    activity: Activity,
    work: TaskTracker,
    background: TaskTracker,
    stop: CancellationToken,
    listener: OnceLock<Listener>,
    own: OwnEvents,
}

/// What one cached function has done since this process started.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct CacheStats {
    /// The function's id.
    pub function: String,
    /// Calls that were answered with a stored value.
    pub hits: u64,
    /// Calls that found no value.
    pub misses: u64,
    /// Calls of the function itself.
    pub loads: u64,
    /// Calls that shared another caller's load.
    pub joins: u64,
    /// Loaded values that were not stored, because an invalidation came in between.
    pub refused_stores: u64,
    /// Stored values that could not be decoded and were replaced.
    pub undecodable: u64,
    /// Calls that went to the function because the cache did not answer, or had no key for them.
    pub uncached: u64,
    /// Keys that events made out of date.
    pub invalidations: u64,
    /// Times that all values were removed, because an event did not say which.
    pub flushes: u64,
}

impl Cache {
    pub(crate) fn new(
        backend: Arc<Backend>,
        registry: &Registry,
        config: &Config,
        activity: Activity,
        work: TaskTracker,
        background: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self> {
        Ok(Self {
            backend,
            families: Families::new(registry)?,
            config: config.clone(),
            flights: Flights::default(),
            activity,
            work,
            background,
            stop,
            listener: OnceLock::new(),
            own: OwnEvents::default(),
        })
    }

    /// The key on the backend for a key without the deployment's prefix.
    pub(crate) fn key(&self, text: &str) -> CacheKey {
        let value = match self.config.cache_prefix.as_str() {
            "" => text.to_owned(),
            prefix => format!("{prefix}:{text}"),
        };
        CacheKey::new(&self.config.namespace, value)
    }

    /// The glob on the backend for a glob without the deployment's prefix.
    fn glob(&self, glob: &str) -> String {
        match self.config.cache_prefix.as_str() {
            "" => glob.to_owned(),
            prefix => {
                let mut prefixed = String::new();
                crate::channel::escape_glob(prefix, &mut prefixed);
                format!("{prefixed}:{glob}")
            }
        }
    }

    pub(crate) async fn forget(&self, keys: &[CacheKey]) -> Result<()> {
        let forgotten = self.backend.forget(keys).await;
        self.flights.invalidate(keys);
        forgotten
    }

    pub(crate) async fn forget_matching(&self, glob: &str) -> Result<u64> {
        self.backend.forget_matching(&self.glob(glob), &|_| true).await
    }

    /// Removes all values of a family.
    pub(crate) async fn forget_family(&self, family: &Family) -> Result<u64> {
        let prefix = match self.config.cache_prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}:"),
        };
        // The glob covers more than the family's keys.
        let of_family = |key: &str| key.strip_prefix(&prefix).is_some_and(|key| family.key.could_be(key));
        self.backend.forget_matching(&self.glob(&family.key.glob()), &of_family).await
    }

    /// Publishes, removing first what the messages make out of date in the cache. Returns the number of receivers.
    ///
    /// Cancellation: what was written is carried out, and so is what follows from it.
    pub(crate) async fn publish(self: &Arc<Self>, messages: &[Outgoing]) -> Result<u64> {
        let mut forget = Vec::new();
        let mut exact = Vec::new();
        let mut consequences = Consequences { cache: self, flush: Vec::new(), marks: Vec::new() };
        let hears = self.listener.get().is_some_and(Listener::hears);
        for message in messages {
            let outdated = self.families.outdated_by(&message.channel, &message.payload);
            if outdated.keys.is_empty() && outdated.families.is_empty() {
                continue;
            }
            // The listener does not hear sharded channels.
            if hears && message.carrier == Carrier::Broadcast {
                consequences.marks.push(self.own.sent(message));
            }
            for (family, key) in outdated.keys {
                family.tally.invalidations.fetch_add(1, Ordering::Relaxed);
                forget.push(self.key(&key));
                exact.push(family);
            }
            consequences.flush.extend(outdated.families);
        }
        let published = self.backend.publish(messages, &forget).await;
        self.flights.invalidate(&forget);
        match published {
            Ok(published) => {
                consequences.marks.clear();
                if let Err(error) = published.forgotten {
                    tracing::error!(error = %chain(&error), "cached values could not be removed; flushing their functions");
                    consequences.flush.extend(exact);
                }
                Ok(published.receivers)
            }
            Err(error) => {
                // It may have been published, and it may have removed nothing.
                consequences.flush.extend(exact);
                Err(error)
            }
        }
    }

    /// Removes what an event of somebody else makes out of date.
    async fn heard(self: &Arc<Self>, channel: &str, payload: &Bytes) {
        if self.own.heard(channel, payload) {
            return;
        }
        let outdated = self.families.outdated_by(channel, payload);
        let mut exact = Vec::new();
        let mut keys = Vec::new();
        for (family, key) in outdated.keys {
            family.tally.invalidations.fetch_add(1, Ordering::Relaxed);
            exact.push(family);
            keys.push(self.key(&key));
        }
        if !keys.is_empty()
            && let Err(error) = self.forget(&keys).await
        {
            tracing::error!(channel, error = %chain(&error), "an event's cached values could not be removed; flushing");
            exact.into_iter().for_each(|family| self.flush_later(family));
        }
        for family in outdated.families {
            self.flush_later(family);
        }
    }

    /// Messages may have been missed: everything that events invalidate may be out of date.
    fn missed(self: &Arc<Self>) {
        self.own.clear();
        for family in self.families.iter().filter(|family| !family.descriptor.invalidate_on.is_empty()) {
            self.flush_later(family);
        }
    }

    /// Removes all values of a family in the background, trying until it succeeds: one flush at a time, and one more
    /// after it if there was a new reason meanwhile, since it may have passed the key already.
    fn flush_later(self: &Arc<Self>, family: &Family) {
        let next = |state| Some(if state == IDLE { FLUSHING } else { FLUSHING_AGAIN });
        if family.flushing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) != Ok(IDLE) {
            return;
        }
        let (cache, descriptor, stop) = (Arc::clone(self), family.descriptor, self.stop.clone());
        let busy = self.activity.guard();
        self.background.spawn(async move {
            let _busy = busy;
            let Some(family) = cache.families.get(descriptor) else { return };
            tokio::select! {
                () = stop.cancelled() => {}
                () = cache.flush(family) => {}
            }
        });
    }

    async fn flush(&self, family: &Family) {
        let function = family.descriptor.id;
        let mut attempt = 0;
        loop {
            family.flushing.store(FLUSHING, Ordering::SeqCst);
            match self.forget_family(family).await {
                Ok(removed) => {
                    attempt = 0;
                    family.tally.flushes.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(function, removed, "flushed a cached function");
                    let done =
                        family.flushing.compare_exchange(FLUSHING, IDLE, Ordering::SeqCst, Ordering::SeqCst);
                    if done.is_ok() {
                        return;
                    }
                }
                Err(error) => {
                    if attempt == 0 {
                        tracing::error!(function, error = %chain(&error), "a cached function could not be flushed; trying again");
                    }
                    tokio::time::sleep(self.config.reconnect.delay(attempt)).await;
                    attempt = attempt.saturating_add(1);
                }
            }
        }
    }

    /// Starts to listen to the events of `invalidate_on`, once; no function has any: `None`.
    pub(crate) fn listener(self: &Arc<Self>) -> Option<&Listener> {
        let patterns = self.families.patterns();
        if patterns.is_empty() {
            return None;
        }
        Some(self.listener.get_or_init(|| {
            Listener::start(self, patterns, &self.config, &self.background, self.stop.clone())
        }))
    }

    /// The listener, if it has been started.
    pub(crate) fn started_listener(&self) -> Option<&Listener> {
        self.listener.get()
    }

    pub(crate) fn stats(&self) -> Vec<CacheStats> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let of = |family: &Family| {
            let tally = &family.tally;
            CacheStats {
                function: family.descriptor.id.to_owned(),
                hits: load(&tally.hits),
                misses: load(&tally.misses),
                loads: load(&tally.loads),
                joins: load(&tally.joins),
                refused_stores: load(&tally.refused_stores),
                undecodable: load(&tally.undecodable),
                uncached: load(&tally.uncached),
                invalidations: load(&tally.invalidations),
                flushes: load(&tally.flushes),
            }
        };
        self.families.iter().map(of).collect()
    }
}

/// What follows from a publish whatever becomes of its future: the flushes, and taking back the marks of messages that
/// may not have been sent.
struct Consequences<'c> {
    cache: &'c Arc<Cache>,
    flush: Vec<&'c Family>,
    marks: Vec<u64>,
}

impl Drop for Consequences<'_> {
    fn drop(&mut self) {
        self.marks.drain(..).for_each(|mark| self.cache.own.take_back(mark));
        self.flush.drain(..).for_each(|family| self.cache.flush_later(family));
    }
}

/// Our own events that are on their way back to our listener. What they make out of date was removed before they were
/// published; removing it again when we hear them would only defeat loads that began since. A mark is made only while
/// the listener hears, and forgotten after a while, so that it cannot swallow an equal event of somebody else later.
#[derive(Debug, Default)]
struct OwnEvents {
    hasher: RandomState,
    expected: Mutex<HashMap<u64, VecDeque<Instant>>>,
}

impl OwnEvents {
    fn sent(&self, message: &Outgoing) -> u64 {
        let mark = self.hasher.hash_one((message.channel.as_str(), &message.payload));
        let mut expected = self.expected();
        if expected.len() >= MOST_OWN {
            expected.clear();
        }
        expected.entry(mark).or_default().push_back(Instant::now());
        mark
    }

    /// Whether this event is one of ours; each counts once.
    fn heard(&self, channel: &str, payload: &Bytes) -> bool {
        let mark = self.hasher.hash_one((channel, payload));
        let mut expected = self.expected();
        let Some(sent) = expected.get_mut(&mark) else { return false };
        sent.retain(|at| at.elapsed() < OWN_FOR);
        let ours = sent.pop_front().is_some();
        if sent.is_empty() {
            expected.remove(&mark);
        }
        ours
    }

    fn take_back(&self, mark: u64) {
        let mut expected = self.expected();
        if let Some(sent) = expected.get_mut(&mark) {
            sent.pop_back();
            if sent.is_empty() {
                expected.remove(&mark);
            }
        }
    }

    fn clear(&self) {
        self.expected().clear();
    }

    fn expected(&self) -> MutexGuard<'_, HashMap<u64, VecDeque<Instant>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
