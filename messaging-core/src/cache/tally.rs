//! What cached functions have done: counting, and what is told of it.

use serde::Serialize;

use crate::meter::{CACHE_CALLS, CACHE_INVALIDATIONS, CACHE_LOADS, CACHE_REFUSED, Count};

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) hits: Count,
    pub(crate) local_hits: Count,
    pub(crate) misses: Count,
    pub(crate) loads: Count,
    pub(crate) joins: Count,
    pub(crate) waits: Count,
    pub(crate) stale: Count,
    pub(crate) refused_stores: Count,
    pub(crate) undecodable: Count,
    pub(crate) uncached: Count,
    pub(crate) by_call: Count,
    pub(crate) by_publish: Count,
    pub(crate) by_event: Count,
    pub(crate) flushes: Count,
    pub(crate) bytes_read: Count,
    pub(crate) bytes_stored: Count,
}

/// What one cached function has done since this process started.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct CacheStats {
    /// The function's id.
    pub function: String,
    /// Calls that were answered with a value from Redis.
    pub hits: u64,
    /// Calls that were answered with a value that this process had kept (`local`).
    pub local_hits: u64,
    /// Calls that found no value.
    pub misses: u64,
    /// Calls of the function itself.
    pub loads: u64,
    /// Calls that shared another caller's load in this process.
    pub joins: u64,
    /// Calls that were answered with the load of another process, for which they had waited.
    pub waits: u64,
    /// Calls that were answered with a value older than `ttl`, while another one was loaded (`stale`).
    pub stale: u64,
    /// Loaded values that were not stored, because an invalidation or a write came in between.
    pub refused_stores: u64,
    /// Stored values that could not be decoded and were replaced.
    pub undecodable: u64,
    /// Calls that went to the function because the cache could not be used, or had no key for them.
    pub uncached: u64,
    /// What was removed, by cause.
    pub invalidations: Invalidations,
    /// Bytes of JSON that were read from Redis.
    pub bytes_read: u64,
    /// Bytes of JSON that were stored in Redis.
    pub bytes_stored: u64,
}

/// What was removed from the cache by this process, by cause.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Invalidations {
    /// Keys, by a call of `invalidate`.
    pub calls: u64,
    /// Keys, by what this process has published.
    pub publishes: u64,
    /// Keys, by events of publishers that know nothing of caches.
    pub events: u64,
    /// Times that all values were removed: by a call of `invalidate_all`, by an event that did not say which values it
    /// meant, or because events may have been missed.
    pub flushes: u64,
}

impl Tally {
    /// Of the function with this id.
    pub(crate) fn of(function: &str) -> Self {
        let call = |result| Count::of(CACHE_CALLS, &[("function", function), ("result", result)]);
        let removed = |cause| Count::of(CACHE_INVALIDATIONS, &[("function", function), ("cause", cause)]);
        Self {
            hits: call("hit"),
            local_hits: call("local_hit"),
            misses: call("miss"),
            stale: call("stale"),
            uncached: call("uncached"),
            loads: Count::of(CACHE_LOADS, &[("function", function)]),
            refused_stores: Count::of(CACHE_REFUSED, &[("function", function)]),
            by_call: removed("call"),
            by_publish: removed("publish"),
            by_event: removed("event"),
            flushes: removed("flush"),
            ..Self::default()
        }
    }

    /// Whether there is anything to tell.
    pub(crate) fn was_used(&self) -> bool {
        self.hits.read() + self.misses.read() + self.loads.read() > 0
    }

    pub(crate) fn stats(&self, function: &str) -> CacheStats {
        CacheStats {
            function: function.to_owned(),
            hits: self.hits.read(),
            local_hits: self.local_hits.read(),
            misses: self.misses.read(),
            loads: self.loads.read(),
            joins: self.joins.read(),
            waits: self.waits.read(),
            stale: self.stale.read(),
            refused_stores: self.refused_stores.read(),
            undecodable: self.undecodable.read(),
            uncached: self.uncached.read(),
            invalidations: Invalidations {
                calls: self.by_call.read(),
                publishes: self.by_publish.read(),
                events: self.by_event.read(),
                flushes: self.flushes.read(),
            },
            bytes_read: self.bytes_read.read(),
            bytes_stored: self.bytes_stored.read(),
        }
    }
}
