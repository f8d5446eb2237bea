//! Removing values: exactly, by pattern, of a whole function; here, in Redis, and in the memory of other processes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::Cache;
use super::journal::{Backlog, Journal};
use super::listener;
use super::rules::Rules;
use crate::backend::CacheKey;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::registry::FunctionDescriptor;

/// States of [`Rules::flushing`].
pub(super) const IDLE: u8 = 0;
const FLUSHING: u8 = 1;
const FLUSHING_AGAIN: u8 = 2;

/// How many keys of the journal are removed at once.
const TOGETHER: usize = 1_000;

impl Cache {
    /// Removes values, and defeats the loads of them that are running.
    ///
    /// # Errors
    /// What the backend says; then they are removed before this process serves anything again.
    ///
    /// Cancellation: what was sent is carried out.
    pub(crate) async fn forget(self: &Arc<Self>, keys: Vec<CacheKey>) -> Result<()> {
        let notice = listener::gone(&self.names, &self.id, Some(&keys));
        for key in &keys {
            if let Some(rules) = self.rules_of(&key.value) {
                rules.tally.by_call.up();
            }
        }
        let undone = Undone { cache: self, keys };
        let forgotten = self.backend.forget(&undone.keys, Some(&notice)).await;
        let keys = undone.done();
        self.or_journal(forgotten, |journal| journal.note(self.noted(&keys)))
    }

    /// Reads a value; nothing if it is still to be removed.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        let outdated = self.journal.has(&key.value);
        let looked = self.backend.look(key, false).await?;
        Ok(looked.value.filter(|_| !outdated))
    }

    /// Reads a value and removes it in one step, and defeats any load of it that is running; nothing if it was still to be
    /// removed.
    ///
    /// # Errors
    /// What the backend says; then what is there is removed before this process serves anything again.
    ///
    /// Cancellation: what was sent is carried out.
    pub(crate) async fn take(self: &Arc<Self>, key: CacheKey) -> Result<Option<Bytes>> {
        let notice = listener::gone(&self.names, &self.id, Some(std::slice::from_ref(&key)));
        if let Some(rules) = self.rules_of(&key.value) {
            rules.tally.by_call.up();
        }
        let outdated = self.journal.has(&key.value);
        let undone = Undone { cache: self, keys: vec![key] };
        let taken = self.backend.take(&undone.keys[0], &notice).await;
        let keys = undone.done();
        let taken = self.or_journal(taken, |journal| journal.note(self.noted(&keys)))?;
        Ok(taken.filter(|_| !outdated))
    }

    /// Writes a value and defeats any load of it that is running.
    ///
    /// # Errors
    /// What the backend says; then whatever is there is removed before this process serves anything again.
    ///
    /// Cancellation: what was sent is carried out.
    pub(crate) async fn set(self: &Arc<Self>, key: CacheKey, value: &Bytes, ttl: Duration) -> Result<()> {
        let notice = listener::gone(&self.names, &self.id, Some(std::slice::from_ref(&key)));
        let undone = Undone { cache: self, keys: vec![key] };
        let written = self.backend.set(&undone.keys[0], value, ttl, &notice).await;
        let keys = undone.done();
        self.or_journal(written, |journal| journal.note(self.noted(&keys)))
    }

    /// The keys of values that match a glob, without the deployment's prefix, sorted.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn keys_matching(&self, glob: &str) -> Result<Vec<String>> {
        let found = self.backend.keys_matching(&self.glob(glob)).await?;
        let ours = ["lease:", "{"].map(|next| format!("{}:{next}", self.config.namespace));
        let prefix = match self.config.cache_prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}:"),
        };
        // Leases and what else is ours are no values; nor is there what is still to be removed.
        let is_ours = |key: &str| ours.iter().any(|begin| key.starts_with(begin));
        let values = found.iter().filter(|key| !is_ours(key) && !self.journal.has(key));
        Ok(values.filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    pub(crate) async fn forget_matching(self: &Arc<Self>, glob: &str) -> Result<u64> {
        let glob = self.glob(glob);
        let forgotten = self.backend.forget_matching(&glob, &|_| true).await;
        self.clear_local();
        self.flights.invalidate_all();
        let forgotten = self.or_journal(forgotten, |journal| journal.note_glob(&glob))?;
        self.announce_all().await;
        Ok(forgotten)
    }

    /// Removes all values of a cached function.
    pub(crate) async fn forget_all_of(
        self: &Arc<Self>,
        descriptor: &'static FunctionDescriptor,
    ) -> Result<u64> {
        let Some(family) = self.families.get(descriptor) else { return Ok(0) };
        if !family.rules.key.has_literal_head() {
            let text = format!(
                "the key {:?} of `{}` begins with a placeholder, so that all of its values cannot be told from the keys of others; give the function a `prefix`",
                descriptor.key, descriptor.id
            );
            return Err(Error::new(ErrorKind::InvalidKey, text).before_sending());
        }
        let forgotten = self.flush_now(&family.rules).await;
        let forgotten = self.or_journal(forgotten, |journal| journal.note_family(&family.rules))?;
        self.announce_all().await;
        Ok(forgotten)
    }

    pub(super) async fn announce_all(&self) {
        self.tell(None).await;
    }

    /// Tells other processes that these are out of date.
    pub(super) async fn announce(&self, keys: &[CacheKey]) {
        self.tell(Some(keys)).await;
    }

    async fn tell(&self, keys: Option<&[CacheKey]>) {
        let notice = listener::gone(&self.names, &self.id, keys);
        if let Err(error) = self.backend.announce(&notice).await {
            tracing::warn!(
                error = %chain(&error),
                "other processes could not be told what is out of date; their local layers keep what they have for its ttl"
            );
        }
    }

    /// Removes all values of a family, here and on the backend.
    pub(super) async fn flush_now(&self, rules: &Arc<Rules>) -> Result<u64> {
        self.flush_together(std::slice::from_ref(rules)).await
    }

    /// Removes all values of some families in one pass.
    pub(super) async fn flush_together(&self, families: &[Arc<Rules>]) -> Result<u64> {
        if families.is_empty() {
            return Ok(0);
        }
        let could_be = |key: &str| families.iter().any(|rules| rules.could_be(key));
        let flushed = self.backend.forget_matching(&common_glob(families), &could_be).await;
        self.clear_local();
        self.flights.invalidate_all();
        if let Ok(removed) = &flushed {
            for rules in families {
                rules.tally.flushes.up();
                tracing::debug!(function = rules.id(), removed, "flushed a cached function");
            }
        }
        flushed
    }

    /// Removes all values of a family in the background, trying until it succeeds: one flush at a time, and one more
    /// after it if there was a new reason meanwhile, since it may have passed the key already.
    pub(super) fn flush_later(self: &Arc<Self>, rules: &Arc<Rules>) {
        let next = |state| Some(if state == IDLE { FLUSHING } else { FLUSHING_AGAIN });
        if rules.flushing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) != Ok(IDLE) {
            return;
        }
        let (cache, rules, stop) = (Arc::clone(self), Arc::clone(rules), self.stop.clone());
        let busy = self.activity.guard();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            rules.flushing.store(IDLE, Ordering::SeqCst);
            return;
        };
        let flushing = async move {
            let _busy = busy;
            tokio::select! {
                () = stop.cancelled() => {}
                () = cache.flush(&rules) => {}
            }
        };
        drop(self.work.spawn_on(flushing, &runtime));
    }

    async fn flush(&self, rules: &Arc<Rules>) {
        let function = rules.id();
        let mut attempt = 0;
        loop {
            rules.flushing.store(FLUSHING, Ordering::SeqCst);
            match self.flush_now(rules).await {
                Ok(_) => {
                    attempt = 0;
                    let done =
                        rules.flushing.compare_exchange(FLUSHING, IDLE, Ordering::SeqCst, Ordering::SeqCst);
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

    /// Nothing that is kept in this process is served any more.
    pub(super) fn clear_local(&self) {
        self.epochs.raise_all();
        self.families.with_local().for_each(|(_, layer)| layer.clear());
    }

    /// As [`clear_local`](Self::clear_local), of one key as it is on the backend.
    pub(super) fn forget_local(&self, key: &str) {
        let prefix = self.config.cache_prefix.as_str();
        let text = match prefix {
            "" => Some(key),
            prefix => key.strip_prefix(prefix).and_then(|key| key.strip_prefix(':')),
        };
        if let Some(text) = text {
            self.epochs.raise(text);
            self.families.with_local().for_each(|(_, layer)| layer.remove(text));
        }
    }

    /// The family that a key as it is on the backend belongs to, if it is one of ours.
    fn rules_of(&self, key: &str) -> Option<Arc<Rules>> {
        // A key that begins with a placeholder could be anybody's.
        let mut rules = self.families.iter().map(|family| &family.rules);
        rules.find(|rules| rules.key.has_literal_head() && rules.could_be(key)).cloned()
    }

    /// Notes what could not be removed, unless that is forbidden. `note` tells whether it is the first that is noted.
    pub(super) fn or_journal<T>(
        self: &Arc<Self>,
        outcome: Result<T>,
        note: impl FnOnce(&Journal) -> bool,
    ) -> Result<T> {
        if let Err(error) = &outcome
            && !error.is_forbidden()
            && note(&self.journal)
        {
            self.write_off_later();
        }
        outcome
    }

    /// Keys as the journal wants them.
    fn noted(&self, keys: &[CacheKey]) -> impl Iterator<Item = (Option<Arc<Rules>>, String)> {
        keys.iter().map(|key| (self.rules_of(&key.value), key.value.clone()))
    }

    /// Notes keys of which it is not known whether they were removed.
    pub(super) fn journal_keys(self: &Arc<Self>, keys: &[CacheKey]) {
        if self.journal.note(self.noted(keys)) {
            self.write_off_later();
        }
    }

    /// Removes what is in the journal, trying until it is done.
    pub(super) fn write_off_later(self: &Arc<Self>) {
        let (cache, stop) = (Arc::clone(self), self.stop.clone());
        // Without a runtime nothing can be removed any more, and nobody asks.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let writing_off = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = cache.write_off() => {}
            }
        };
        drop(self.work.spawn_on(writing_off, &runtime));
    }

    async fn write_off(self: &Arc<Self>) {
        let mut attempt = 0;
        loop {
            let lost = self.journal.take_lost();
            if lost > 0 {
                tracing::error!(
                    keys = lost,
                    "more keys were invalidated than can be remembered while redis is away; these live until their ttl"
                );
            }
            let backlog = self.journal.backlog();
            match self.remove(&backlog).await {
                Ok(()) => {
                    tracing::info!(
                        keys = backlog.keys.len(),
                        "what was invalidated while redis was away has been removed"
                    );
                }
                Err(error) if error.is_forbidden() => {
                    tracing::error!(error = %chain(&error), "what was invalidated must not be removed; it lives until its ttl");
                }
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "what was invalidated cannot be removed yet");
                    tokio::time::sleep(self.config.reconnect.delay(attempt)).await;
                    attempt = attempt.saturating_add(1);
                    continue;
                }
            }
            if self.journal.written_off(&backlog) {
                return;
            }
        }
    }

    async fn remove(self: &Arc<Self>, backlog: &Backlog) -> Result<()> {
        for keys in backlog.keys.chunks(TOGETHER) {
            let keys: Vec<_> = keys.iter().map(|(key, _)| self.key_of(key.clone())).collect();
            let notice = listener::gone(&self.names, &self.id, Some(&keys));
            self.backend.forget(&keys, Some(&notice)).await?;
        }
        for (glob, _) in &backlog.globs {
            self.backend.forget_matching(glob, &|_| true).await?;
        }
        for (rules, _) in &backlog.families {
            self.flush_now(rules).await?;
        }
        if !backlog.globs.is_empty() || !backlog.families.is_empty() {
            self.announce_all().await;
        }
        Ok(())
    }

    /// Whether a loaded value of this function may be stored.
    pub(super) fn may_store(&self, descriptor: &'static FunctionDescriptor) -> bool {
        if self.journal.is_pending() {
            return false;
        }
        match self.families.get(descriptor) {
            Some(family) if family.has_events() => {
                self.ear().is_some_and(|ear| ear.serves(family, tokio::time::Instant::now()))
            }
            _ => true,
        }
    }
}

/// A glob that matches all keys of these families.
fn common_glob(families: &[Arc<Rules>]) -> String {
    let mut globs = families.iter().map(|rules| rules.glob());
    let first = globs.next().unwrap_or_default();
    let rest: Vec<_> = globs.collect();
    if rest.is_empty() {
        return first;
    }
    let is_common = |end: usize| rest.iter().all(|glob| glob.get(..end) == first.get(..end));
    // Not within an escape.
    let literal = first.find(['*', '\\']).unwrap_or(first.len());
    let ends = first.char_indices().map(|(end, _)| end).chain([first.len()]);
    let common = ends.filter(|end| *end <= literal && is_common(*end)).max().unwrap_or(0);
    format!("{}*", &first[..common])
}

/// Keys that are being removed. Whatever becomes of the future, this process does not serve them from its own memory, nor
/// lets callers join the loads of them.
struct Undone<'c> {
    cache: &'c Arc<Cache>,
    keys: Vec<CacheKey>,
}

impl Undone<'_> {
    fn done(mut self) -> Vec<CacheKey> {
        self.forget();
        std::mem::take(&mut self.keys)
    }

    fn forget(&self) {
        self.cache.flights.invalidate(&self.keys);
        self.keys.iter().for_each(|key| self.cache.forget_local(&key.value));
    }
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        // Nobody has waited to see whether it was carried out.
        self.forget();
        self.cache.journal_keys(&self.keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::Definition;

    #[test]
    fn several_families_share_a_glob() {
        let glob = |keys: &[&str]| {
            let rules = |key: &&str| {
                let text = format!(
                    r#"{{"id":"f","cache_prefix":"","channel_prefix":"","key":"{key}","keep_ms":1,"on":[]}}"#
                );
                Rules::new(Definition::from_json(&text).unwrap()).unwrap()
            };
            common_glob(&keys.iter().map(rules).collect::<Vec<_>>())
        };
        assert_eq!(glob(&["camera:{id}:x"]), "camera:*:x");
        assert_eq!(glob(&["camera:{id}", "camera:mac:{mac}"]), "camera:*");
        assert_eq!(glob(&["camera:{id}", "user:{id}"]), "*");
        assert_eq!(glob(&["a*b:{id}", "a*c:{id}"]), "a*");
        assert_eq!(glob(&["käse:{id}", "kåse:{id}"]), "k*");
        assert_eq!(glob(&["x", "xy"]), "x*");
    }
}
