//! Caching: keys, loads that are shared, and what events make out of date.
//!
//! The protocol of a load is a lease, as in "Scaling Memcache at Facebook" (Nishtala et al., NSDI 2013, section 3.2.1):
//! who finds no value asks for a lease, and only its holder may store; an invalidation removes value and lease in one
//! command, so that a value loaded before it is never stored after it.

mod breaker;
mod catalog;
mod cover;
mod families;
mod flight;
mod forget;
#[cfg(test)]
pub(crate) mod interleavings;
mod journal;
mod key;
mod lead;
mod listener;
mod load;
mod local;
mod marks;
mod operate;
mod publish;
mod rules;
pub(crate) mod shape;
pub(crate) mod source;
mod tally;
mod wait;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use breaker::Breaker;
use catalog::Catalog;
pub(crate) use families::{Families, Family};
use flight::Flights;
use journal::Journal;
pub(crate) use key::{KeyTemplate, check_literal};
use listener::Ear;
pub(crate) use listener::Listener;
pub(crate) use load::Ask;
use local::Epochs;
pub(crate) use operate::Registered;
pub use tally::{CacheStats, Invalidations};

use crate::activity::Activity;
use crate::backend::{Backend, CacheKey, Names};
use crate::channel::Pattern;
use crate::config::Config;
use crate::error::Result;
use crate::registry::Registry;

/// How long a lease lives that nobody renews: a crashed loader delays others by at most this.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

tokio::task_local! {
    static BYPASSED: ();
}

/// Runs a future in which cached functions are called as if there were no cache.
pub(crate) async fn bypass<F: Future>(future: F) -> F::Output {
    BYPASSED.scope((), future).await
}

/// Whether this is within [`bypass`].
pub(crate) fn is_bypassed() -> bool {
    BYPASSED.try_with(|()| ()).is_ok()
}

/// The cache of one [`Messaging`](crate::Messaging).
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) backend: Arc<Backend>,
    pub(crate) families: Families,
    /// What all processes cache, as far as is known.
    catalog: Catalog,
    names: Names,
    /// A name of its own.
    id: String,
    own_channels: [Pattern; 3],
    config: Config,
    flights: Flights,
    epochs: Epochs,
    breaker: Breaker,
    journal: Journal,
    activity: Activity,
    work: TaskTracker,
    background: TaskTracker,
    stop: CancellationToken,
    listener: OnceLock<Listener>,
    warning: Mutex<Option<String>>,
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
        let families = Families::new(registry, config)?;
        let with_events = families.with_events().map(|family| Arc::clone(&family.rules)).collect();
        let names = Names::new(&config.namespace, &config.channel_prefix);
        let id = listener::id();
        let own_channels = listener::own_channels(&names, &id, &config.channel_prefix)?;
        Ok(Self {
            backend,
            families,
            catalog: Catalog::new(with_events),
            names,
            id,
            own_channels,
            config: config.clone(),
            flights: Flights::default(),
            epochs: Epochs::default(),
            breaker: Breaker::default(),
            journal: Journal::default(),
            activity,
            work,
            background,
            stop,
            listener: OnceLock::new(),
            warning: Mutex::default(),
        })
    }

    /// The key on the backend for a key without the deployment's prefix.
    pub(crate) fn key(&self, text: &str) -> CacheKey {
        let value = match self.config.cache_prefix.as_str() {
            "" => text.to_owned(),
            prefix => format!("{prefix}:{text}"),
        };
        self.key_of(value)
    }

    /// The key with its lease, for a key as it is on the backend.
    fn key_of(&self, value: String) -> CacheKey {
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

    /// Starts to listen to what makes values out of date, once; nothing here needs it: `None`.
    pub(crate) fn listener(self: &Arc<Self>) -> Option<&Listener> {
        if let Some(listener) = self.listener.get() {
            return Some(listener);
        }
        let patterns = self.families.patterns();
        if patterns.is_empty() && self.families.with_local().next().is_none() {
            return None;
        }
        Some(
            self.listener
                .get_or_init(|| Listener::start(self, &patterns, &self.config, &self.background, &self.stop)),
        )
    }

    /// The listener, if it has been started.
    pub(crate) fn started_listener(&self) -> Option<&Listener> {
        self.listener.get()
    }

    fn ear(&self) -> Option<&Ear> {
        self.listener.get().map(|listener| &*listener.0)
    }

    /// Before a handler is called for this event: what it makes out of date is not read any more. `false` if that cannot be
    /// made sure of; then the handler had better not read from the cache at all.
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn catch_up(&self, channel: &str, payload: &Bytes) -> bool {
        let Some(listener) = self.listener.get().filter(|_| self.families.book.concerns(channel)) else {
            return true;
        };
        if !self.backend.is_cluster() {
            return listener.catch_up(self, self.config.cache_timeout).await;
        }
        // The listener may be at another node, where the event has not arrived yet.
        let outdated = self.families.book.outdated_by(channel, payload);
        if !outdated.families.is_empty() {
            return false;
        }
        let keys: Vec<_> = outdated.keys.into_iter().map(|(_, key)| self.key_of(key)).collect();
        let forgotten = timeout(self.config.cache_timeout, self.backend.forget(&keys, None)).await;
        keys.iter().for_each(|key| self.forget_local(&key.value));
        matches!(forgotten, Ok(Ok(())))
    }

    /// What an operator should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn stats(&self) -> Vec<CacheStats> {
        let mut stats: Vec<_> =
            self.families.iter().map(|family| family.rules.tally.stats(family.descriptor.id)).collect();
        let by_hand = &self.families.by_hand;
        if by_hand.rules.tally.was_used() {
            stats.push(by_hand.rules.tally.stats(by_hand.descriptor.id));
        }
        stats
    }
}

#[cfg(test)]
mod tests;
