//! Publishing with what follows from it: what the messages make out of date is removed first, in all processes' functions.

use std::sync::Arc;

use bytes::Bytes;

use super::Cache;
use super::catalog::Snapshot;
use super::marks::mark;
use super::rules::{Outdated, Rules};
use crate::backend::{CacheKey, Generation, Outgoing};
use crate::dispatch::Carrier;
use crate::error::{Result, chain};

impl Cache {
    /// Publishes, removing first what the messages make out of date in the cache. Returns the number of receivers.
    ///
    /// Cancellation: what was written is carried out, and so is what follows from it.
    pub(crate) async fn publish(self: &Arc<Self>, mut messages: Vec<Outgoing>) -> Result<u64> {
        let snapshot = self.snapshot().await;
        let mut after = After { cache: self, keys: Vec::new(), families: Vec::new(), messages: Vec::new() };
        let mut forget = Vec::new();
        for message in &mut messages {
            let outdated = snapshot.book.outdated_by(&message.channel, &message.payload);
            if outdated.is_empty() {
                continue;
            }
            // Whoever hears it can rely on us if we know all functions, and which of their values it means.
            if let Some(generation) = snapshot.generation
                && snapshot.is_complete
                && outdated.families.is_empty()
                && message.carrier == Carrier::Broadcast
            {
                message.mark = Some(mark(&message.channel, &message.payload, generation));
            }
            for (rules, key) in outdated.keys {
                rules.tally.by_publish.up();
                forget.push(self.key_of(key.clone()));
                after.keys.push((rules, key));
            }
            for rules in outdated.families {
                tracing::debug!(
                    function = rules.id(),
                    "an event of ours does not say which values it means; flushing"
                );
                after.families.push(rules);
            }
        }
        after.messages = messages;
        let published = self.backend.publish(&after.messages, &forget).await;
        let published = match published {
            Ok(published) => published,
            Err(error) => {
                // It may have been published, and it may have removed nothing.
                let failed = self.or_journal(Err(error), |journal| journal.note(after.journal()));
                after.done();
                return failed;
            }
        };
        if let Err(error) = published.forgotten {
            tracing::error!(error = %chain(&error), "cached values could not be removed by what was published");
            let _ = self.or_journal::<()>(Err(error), |journal| journal.note(after.journal()));
        }
        if self.is_behind(&snapshot, published.generation) {
            // Boxed, as whatever is rare: each future in a future is a level of types that the compiler has to get
            // through in programs that publish.
            Box::pin(after.catch_up(&snapshot)).await;
        }
        if after.messages.iter().any(|message| message.carrier == Carrier::Sharded) {
            Box::pin(after.tell()).await;
        }
        after.done();
        Ok(published.receivers)
    }

    /// What all processes cache; asks for it if that has not been done.
    async fn snapshot(&self) -> Arc<Snapshot> {
        let known = self.catalog.snapshot();
        if known.generation.is_some() && !known.is_worth_another_try() {
            return known;
        }
        // Redis may be away; the publish will tell.
        match tokio::time::timeout(self.config.cache_timeout, self.renew_catalog(&known)).await {
            Ok(Ok(renewed)) => renewed,
            Ok(Err(_)) | Err(_) => known,
        }
    }

    fn is_behind(&self, snapshot: &Snapshot, generation: Generation) -> bool {
        match generation {
            _ if snapshot.unreadable_since.is_some() => false,
            Generation::Number(number) => snapshot.generation != Some(number),
            Generation::Unknown => true,
            // Other processes' functions cannot be known.
            Generation::Refused => false,
        }
    }

    /// Reads the registry, unless somebody has since it was like this.
    pub(super) async fn renew_catalog(&self, old: &Arc<Snapshot>) -> Result<Arc<Snapshot>> {
        let _turn = self.catalog.reading.lock().await;
        let now = self.catalog.snapshot();
        if !Arc::ptr_eq(&now, old) {
            return Ok(now);
        }
        match self.backend.catalog().await {
            Ok(written) => self.catalog.renew(&written, &self.config.channel_prefix),
            Err(error) if error.is_forbidden() => {
                tracing::warn!(
                    error = %chain(&error),
                    "what other processes cache cannot be known here, so that what is published makes only our own values out of date at once"
                );
                self.catalog.give_up();
            }
            Err(error) => return Err(error),
        }
        Ok(self.catalog.snapshot())
    }

    /// An event that was heard: notes the keys that have to be removed from Redis, which for our own events is done.
    pub(super) fn heard(
        self: &Arc<Self>,
        channel: &str,
        payload: &Bytes,
        is_own: bool,
        forget: &mut Vec<CacheKey>,
    ) {
        let Outdated { keys, families } = self.families.book.outdated_by(channel, payload);
        for (rules, key) in keys {
            self.forget_local(&key);
            if !is_own {
                rules.tally.by_event.up();
                forget.push(self.key_of(key));
            }
        }
        if !families.is_empty() {
            self.clear_local();
        }
        for rules in families {
            tracing::debug!(
                function = rules.id(),
                channel,
                "an event does not say which values it means; flushing"
            );
            self.flush_later(&rules);
        }
    }
}

/// What follows from a publish whatever becomes of its future.
struct After<'c> {
    cache: &'c Arc<Cache>,
    keys: Vec<(Arc<Rules>, String)>,
    families: Vec<Arc<Rules>>,
    /// Until it is done.
    messages: Vec<Outgoing>,
}

impl After<'_> {
    fn journal(&self) -> Vec<(Option<Arc<Rules>>, String)> {
        self.keys.iter().map(|(rules, key)| (Some(Arc::clone(rules)), key.clone())).collect()
    }

    /// The registry has changed since we knew it: removes what we did not know of.
    async fn catch_up(&mut self, old: &Arc<Snapshot>) {
        let cache = self.cache;
        let renewed = match cache.renew_catalog(old).await {
            Ok(renewed) => renewed,
            Err(error) => {
                tracing::error!(error = %chain(&error), "what other processes cache could not be found out after a publish");
                return;
            }
        };
        let mut forget = Vec::new();
        for message in &self.messages {
            let mut outdated = renewed.book.outdated_by(&message.channel, &message.payload);
            outdated.keys.retain(|(_, key)| !self.keys.iter().any(|(_, known)| known == key));
            outdated.families.retain(|rules| !self.families.iter().any(|known| known.name == rules.name));
            for (rules, key) in outdated.keys {
                rules.tally.by_publish.up();
                forget.push(cache.key_of(key.clone()));
                self.keys.push((rules, key));
            }
            self.families.extend(outdated.families);
        }
        if !forget.is_empty()
            && let Err(error) = cache.backend.forget(&forget, None).await
        {
            tracing::error!(error = %chain(&error), "cached values could not be removed by what was published");
            let _ = cache.or_journal::<()>(Err(error), |journal| journal.note(self.journal()));
        }
    }

    /// Tells other processes what they do not hear by themselves: nobody listens to sharded channels.
    async fn tell(&mut self) {
        let cache = self.cache;
        if !self.keys.is_empty() {
            let keys: Vec<_> = self.keys.iter().map(|(_, key)| cache.key_of(key.clone())).collect();
            cache.announce(&keys).await;
        }
        if self.families.is_empty() {
            return;
        }
        // Only afterwards: what is still in Redis would be kept in memory again.
        let flushed = cache.flush_together(&self.families).await;
        let flushed = cache.or_journal(flushed, |journal| {
            self.families.iter().fold(false, |first, rules| journal.note_family(rules) | first)
        });
        self.families.clear();
        match flushed {
            Ok(_) => cache.announce_all().await,
            Err(error) => {
                tracing::error!(error = %chain(&error), "cached functions could not be flushed after a publish");
            }
        }
    }

    fn done(mut self) {
        self.messages.clear();
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        let cache = self.cache;
        let keys: Vec<_> = self.keys.drain(..).map(|(_, key)| cache.key_of(key)).collect();
        cache.flights.invalidate(&keys);
        keys.iter().for_each(|key| cache.forget_local(&key.value));
        if !self.families.is_empty() {
            cache.flights.invalidate_all();
            cache.clear_local();
        }
        self.families.drain(..).for_each(|rules| cache.flush_later(&rules));
        // Nobody has waited to see whether it was carried out.
        let messages = std::mem::take(&mut self.messages);
        if !messages.is_empty() && !keys.is_empty() {
            cache.journal_keys(&keys);
        }
        if messages.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let cache = Arc::clone(cache);
        let tasks = cache.work.clone();
        tasks.spawn(async move {
            let snapshot = cache.catalog.snapshot();
            let mut after = After { cache: &cache, keys: Vec::new(), families: Vec::new(), messages };
            after.catch_up(&snapshot).await;
            after.done();
        });
    }
}
