//! Caching: keys, loads that are shared, and what events make out of date.
//!
//! The protocol of a load is a lease, as in "Scaling Memcache at Facebook" (Nishtala et al., NSDI 2013, section 3.2.1):
//! who finds no value asks for a lease, and only its holder may store; an invalidation removes value and lease in one
//! command, so that a value loaded before it is never stored after it.

mod families;
mod flight;
mod key;
mod listener;
mod load;
pub(crate) mod shape;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use families::{Families, Family};
use flight::Flights;
pub(crate) use key::{KeyTemplate, check_literal};
pub(crate) use listener::Listener;

use crate::backend::{Backend, CacheKey, Outgoing};
use crate::config::Config;
use crate::error::{Result, chain};
use crate::registry::Registry;

/// How long a lease lives that nobody renews: a crashed loader delays others by at most this.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// More own events than this on their way back to us mean that we do not hear them.
const MOST_OWN: usize = 10_000;

/// The cache of one [`Messaging`](crate::Messaging).
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) backend: Arc<Backend>,
    pub(crate) families: Families,
    config: Config,
    flights: Flights,
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
        work: TaskTracker,
        background: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self> {
        Ok(Self {
            backend,
            families: Families::new(registry)?,
            config: config.clone(),
            flights: Flights::default(),
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

    /// Publishes, removing first what the messages make out of date in the cache. Returns the number of receivers.
    pub(crate) async fn publish(self: &Arc<Self>, messages: &[Outgoing]) -> Result<u64> {
        let mut forget = Vec::new();
        let mut flush = Vec::new();
        for message in messages {
            let outdated = self.families.outdated_by(&message.channel, &message.payload);
            if outdated.keys.is_empty() && outdated.families.is_empty() {
                continue;
            }
            self.own.sent(message);
            forget.extend(outdated.keys.into_iter().map(|(family, key)| {
                family.tally.invalidations.fetch_add(1, Ordering::Relaxed);
                self.key(&key)
            }));
            flush.extend(outdated.families);
        }
        let published = self.backend.publish(messages, &forget).await;
        self.flights.invalidate(&forget);
        for family in flush {
            self.flush_later(family);
        }
        published
    }

    /// Removes what an event of somebody else makes out of date.
    async fn heard(self: &Arc<Self>, channel: &str, payload: &Bytes) {
        if self.own.heard(channel, payload) {
            return;
        }
        let outdated = self.families.outdated_by(channel, payload);
        let count = |(family, key): (&Family, String)| {
            family.tally.invalidations.fetch_add(1, Ordering::Relaxed);
            self.key(&key)
        };
        let keys: Vec<_> = outdated.keys.into_iter().map(count).collect();
        if !keys.is_empty()
            && let Err(error) = self.forget(&keys).await
        {
            tracing::error!(channel, error = %chain(&error), "an event's cached values could not be removed");
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

    /// Removes all values of a family in the background; one flush at a time, and one more if it is asked for again.
    fn flush_later(self: &Arc<Self>, family: &Family) {
        if family.flushing.swap(true, Ordering::SeqCst) {
            return;
        }
        let cache = Arc::clone(self);
        let descriptor = family.descriptor;
        self.work.spawn(async move {
            let Some(family) = cache.families.get(descriptor) else { return };
            // From here on a new reason needs a new flush: this one may have passed the key already.
            family.flushing.store(false, Ordering::SeqCst);
            family.tally.flushes.fetch_add(1, Ordering::Relaxed);
            match cache.forget_matching(&family.key.glob()).await {
                Ok(removed) => tracing::debug!(function = descriptor.id, removed, "flushed a cached function"),
                Err(error) => {
                    tracing::error!(function = descriptor.id, error = %chain(&error), "a cached function could not be flushed");
                }
            }
        });
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

/// Our own events that are on their way back to our listener. What they make out of date was removed before they were
/// published; removing it again when we hear them would only defeat loads that began since.
#[derive(Debug, Default)]
struct OwnEvents {
    hasher: RandomState,
    expected: Mutex<HashMap<u64, usize>>,
}

impl OwnEvents {
    fn sent(&self, message: &Outgoing) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.len() >= MOST_OWN {
            expected.clear();
        }
        *expected.entry(self.hasher.hash_one((message.channel.as_str(), &message.payload))).or_default() += 1;
    }

    /// Whether this event is one of ours; each counts once.
    fn heard(&self, channel: &str, payload: &Bytes) -> bool {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = self.hasher.hash_one((channel, payload));
        let Some(count) = expected.get_mut(&hash) else { return false };
        *count -= 1;
        if *count == 0 {
            expected.remove(&hash);
        }
        true
    }

    fn clear(&self) {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
