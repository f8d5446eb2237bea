//! Values that are kept in this process, each for a short time. It knows nothing of Redis; whether it may be used at the
//! moment is the listener's to say.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::source::Kept;
use crate::registry::LocalOptions;

/// How many groups of keys have an epoch of their own.
const STRIPES: usize = 1_024;
/// An entry counts once for each so many bytes of JSON that it has begun.
const UNIT: usize = 1 << 10;

/// The values of one function.
pub(crate) struct LocalLayer {
    entries: Cache<Box<str>, Entry, ByWeight>,
    options: LocalOptions,
}

#[derive(Clone)]
struct Entry {
    value: Kept,
    until: Instant,
    weight: u64,
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<Box<str>, Entry> for ByWeight {
    fn weight(&self, _key: &Box<str>, entry: &Entry) -> u64 {
        entry.weight
    }
}

impl LocalLayer {
    pub(crate) fn new(options: LocalOptions) -> Self {
        let max = options.max.max(1);
        Self { entries: Cache::with_weighter(max, max as u64, ByWeight), options }
    }

    pub(crate) fn get(&self, key: &str, now: Instant) -> Option<Kept> {
        let entry = self.entries.get(key)?;
        (entry.until > now).then_some(entry.value)
    }

    /// Keeps a value for `longest` at most, unless something was invalidated since the epochs were read.
    pub(crate) fn insert(
        &self,
        key: &str,
        value: Kept,
        size: usize,
        longest: Option<Duration>,
        epochs: &Epochs,
        read: Epoch,
    ) {
        if epochs.read(key) != read {
            return;
        }
        let ttl = longest.map_or(self.options.ttl, |longest| longest.min(self.options.ttl));
        let weight = (1 + size / UNIT) as u64;
        let entry = Entry { value, until: crate::retry::deadline(ttl), weight };
        self.entries.insert(key.into(), entry);
        // Whoever invalidates after the first look raises the epoch before removing: one of the two removes it.
        if epochs.read(key) != read {
            self.entries.remove(key);
        }
    }

    pub(crate) fn remove(&self, key: &str) {
        self.entries.remove(key);
    }

    pub(crate) fn clear(&self) {
        self.entries.clear();
    }
}

impl fmt::Debug for LocalLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLayer").field("options", &self.options).finish_non_exhaustive()
    }
}

/// How often keys were invalidated: of a group of keys, and all of them.
pub(crate) struct Epochs {
    stripes: Box<[AtomicU64]>,
    process: AtomicU64,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    stripe: u64,
    process: u64,
}

impl Default for Epochs {
    fn default() -> Self {
        let stripes = (0..STRIPES).map(|_| AtomicU64::new(0)).collect();
        Self { stripes, process: AtomicU64::new(0), hasher: RandomState::new() }
    }
}

impl Epochs {
    pub(crate) fn read(&self, key: &str) -> Epoch {
        let stripe = self.stripe(key).load(Ordering::SeqCst);
        Epoch { stripe, process: self.process.load(Ordering::SeqCst) }
    }

    /// A key was invalidated.
    pub(crate) fn raise(&self, key: &str) {
        self.stripe(key).fetch_add(1, Ordering::SeqCst);
    }

    /// All keys may have been.
    pub(crate) fn raise_all(&self) {
        self.process.fetch_add(1, Ordering::SeqCst);
    }

    fn stripe(&self, key: &str) -> &AtomicU64 {
        &self.stripes[self.hasher.hash_one(key) as usize % STRIPES]
    }
}

impl fmt::Debug for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epochs").field("process", &self.process).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(max: usize) -> LocalLayer {
        LocalLayer::new(LocalOptions { ttl: Duration::from_secs(5), max })
    }

    fn kept(number: u32) -> Kept {
        Some(std::sync::Arc::new(number))
    }

    fn got(layer: &LocalLayer, key: &str) -> Option<u32> {
        layer.get(key, Instant::now()).map(|kept| *kept.unwrap().downcast_ref().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_kept_for_its_time_and_no_longer() {
        let (layer, epochs) = (layer(10), Epochs::default());
        layer.insert("a", kept(1), 10, None, &epochs, epochs.read("a"));
        layer.insert("b", kept(2), 10, Some(Duration::from_secs(1)), &epochs, epochs.read("b"));
        assert_eq!((got(&layer, "a"), got(&layer, "b"), got(&layer, "c")), (Some(1), Some(2), None));
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert_eq!((got(&layer, "a"), got(&layer, "b")), (Some(1), None));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(got(&layer, "a"), None);
    }

    #[tokio::test]
    async fn what_was_read_before_an_invalidation_is_not_kept() {
        let (layer, epochs) = (layer(10), Epochs::default());
        for invalidate in [Epochs::raise_all, |epochs: &Epochs| epochs.raise("a")] {
            let read = epochs.read("a");
            invalidate(&epochs);
            layer.insert("a", kept(1), 10, None, &epochs, read);
            assert_eq!(got(&layer, "a"), None);
        }
    }

    #[tokio::test]
    async fn large_values_count_more() {
        let (layer, epochs) = (layer(100), Epochs::default());
        for number in 0..100 {
            let key = number.to_string();
            layer.insert(&key, kept(number), 100 * UNIT / 10, None, &epochs, epochs.read(&key));
        }
        let there = (0..100).filter(|number| got(&layer, &number.to_string()).is_some()).count();
        assert!((1..=10).contains(&there), "{there}");
    }
}
