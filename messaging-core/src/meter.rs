//! What is measured for operators: the names, their units, and handles that are made once for each handler, channel and
//! function. With the feature `metrics` they go to whatever recorder the program has installed; without it there are only
//! the counts that health shows.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(not(feature = "metrics"))]
mod silent;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "metrics")]
use facade as recorder;
#[cfg(not(feature = "metrics"))]
use silent as recorder;

use recorder::Histogram;
pub(crate) use recorder::{Counter, IS_MEASURED};
pub(crate) use recorder::{Gauge, describe};

use crate::message::Received;

/// A name of something that is measured.
pub(crate) type Name = &'static str;

/// What tells the measurements of one name apart.
pub(crate) type Labels<'l> = &'l [(&'static str, &'l str)];

pub(crate) const MESSAGES: Name = "pubsub.messages";
pub(crate) const SUBSCRIBERS: Name = "pubsub.subscribers";
pub(crate) const PROCESSING: Name = "pubsub.processing.duration";
pub(crate) const PUBLISH_FAILURES: Name = "messaging.publish.failures";
pub(crate) const LATENCY_RECEIVE: Name = "messaging.latency.receive";
pub(crate) const LATENCY_PUBLISH: Name = "messaging.latency.publish";
pub(crate) const ROUND_TRIP: Name = "messaging.round_trip";
pub(crate) const OUTCOMES: Name = "messaging.handler.outcomes";
pub(crate) const RETRIES: Name = "messaging.handler.retries";
pub(crate) const PANICS: Name = "messaging.handler.panics";
pub(crate) const TIMEOUTS: Name = "messaging.handler.timeouts";
pub(crate) const DROPS: Name = "messaging.handler.drops";
pub(crate) const GAPS: Name = "messaging.handler.gaps";
pub(crate) const RESYNCS: Name = "messaging.handler.resyncs";
pub(crate) const DEAD_LETTERS: Name = "messaging.handler.dead_letters";
pub(crate) const TAKEN_OVER: Name = "messaging.handler.taken_over";
pub(crate) const REMOVED: Name = "messaging.handler.removed";
pub(crate) const RECONNECTS: Name = "messaging.session.reconnects";
pub(crate) const CUT_OFF: Name = "messaging.session.cut_off";
pub(crate) const SKIPPED: Name = "messaging.session.skipped";
pub(crate) const LOST_EVENTS: Name = "messaging.lost_events";
pub(crate) const CACHE_CALLS: Name = "messaging.cache.calls";
pub(crate) const CACHE_LOADS: Name = "messaging.cache.loads";
pub(crate) const CACHE_INVALIDATIONS: Name = "messaging.cache.invalidations";
pub(crate) const CACHE_REFUSED: Name = "messaging.cache.refused_stores";
#[cfg(feature = "metrics")]
pub(crate) const READY: Name = "messaging.ready";
#[cfg(feature = "metrics")]
pub(crate) const HANDLERS: Name = "messaging.handlers";
#[cfg(feature = "metrics")]
pub(crate) const DEPTH: Name = "messaging.queue.depth";
#[cfg(feature = "metrics")]
pub(crate) const DEPTH_BYTES: Name = "messaging.queue.bytes";
#[cfg(feature = "metrics")]
pub(crate) const IN_FLIGHT: Name = "messaging.handler.in_flight";
#[cfg(feature = "metrics")]
pub(crate) const CONNECTED: Name = "messaging.session.connected";
#[cfg(feature = "metrics")]
pub(crate) const SERVICE_SOUND: Name = "messaging.service.sound";
#[cfg(feature = "metrics")]
pub(crate) const LAG: Name = "messaging.group.lag";
#[cfg(feature = "metrics")]
pub(crate) const PENDING: Name = "messaging.group.pending";
#[cfg(feature = "metrics")]
pub(crate) const DELAYED: Name = "messaging.group.delayed";
#[cfg(feature = "metrics")]
pub(crate) const CONSUMERS: Name = "messaging.group.consumers";
#[cfg(feature = "metrics")]
pub(crate) const MEMORY: Name = "messaging.redis.memory";
#[cfg(feature = "metrics")]
pub(crate) const MEMORY_LIMIT: Name = "messaging.redis.memory_limit";

/// A count that goes up: health shows it, and a recorder counts along.
#[derive(Debug, Default)]
pub(crate) struct Count {
    value: AtomicU64,
    counter: Option<Counter>,
}

impl Count {
    /// A count that is also a counter of this name.
    pub(crate) fn of(name: Name, labels: Labels<'_>) -> Self {
        Self { value: AtomicU64::new(0), counter: IS_MEASURED.then(|| recorder::counter(name, labels)) }
    }

    pub(crate) fn up(&self) {
        self.add(1);
    }

    pub(crate) fn by(&self, more: usize) {
        self.add(more as u64);
    }

    pub(crate) fn add(&self, more: u64) {
        self.value.fetch_add(more, Ordering::Relaxed);
        if let Some(counter) = &self.counter {
            counter.increment(more);
        }
    }

    pub(crate) fn read(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// What is rare enough to be looked up by name each time. Nothing more makes it known.
pub(crate) fn count(name: Name, labels: Labels<'_>, more: u64) {
    if IS_MEASURED {
        recorder::counter(name, labels).increment(more);
    }
}

/// How long it took from telling Redis something to hearing of it, by which way.
pub(crate) fn round_trip(path: &'static str, took: Duration) {
    if IS_MEASURED {
        recorder::histogram(ROUND_TRIP, &[("path", path)]).record(took);
    }
}

/// What is measured of each message and call of a handler, for each of its patterns.
#[derive(Debug)]
pub(crate) struct HandlerMeters(Box<[PatternMeters]>);

#[derive(Debug)]
struct PatternMeters {
    received: Counter,
    processing: Histogram,
    since_received: Histogram,
    since_published: Histogram,
}

impl HandlerMeters {
    /// For a handler that measurements call `handler`, with the label of each of its patterns.
    pub(crate) fn new<'l>(handler: &str, channels: impl Iterator<Item = &'l str>) -> Self {
        let of = |channel: &str| {
            let labels = [("channel", channel), ("handler", handler)];
            PatternMeters {
                received: received(channel),
                processing: recorder::histogram(PROCESSING, &labels),
                since_received: recorder::histogram(LATENCY_RECEIVE, &labels),
                since_published: recorder::histogram(LATENCY_PUBLISH, &labels),
            }
        };
        Self(if IS_MEASURED { channels.map(of).collect() } else { Box::default() })
    }

    /// A message is taken up now.
    pub(crate) fn took_up(&self, message: &Received, now: Instant) {
        let Some(meters) = self.0.get(usize::from(message.pattern)) else { return };
        meters.since_received.record(now.saturating_duration_since(message.at));
        // An entry that is tried again was counted before.
        if message.entry.as_ref().is_some_and(|entry| entry.attempt > 1) {
            return;
        }
        meters.received.increment(1);
        if let Some(entry) = &message.entry {
            // Two clocks: if the publisher's goes ahead, no time has passed.
            let since = SystemTime::now().duration_since(entry.published()).unwrap_or_default();
            meters.since_published.record(since);
        }
    }

    /// A call that began then has ended.
    pub(crate) fn called(&self, message: &Received, begun: tokio::time::Instant) {
        if let Some(meters) = self.0.get(usize::from(message.pattern)) {
            meters.processing.record(begun.elapsed());
        }
    }
}

/// Messages that somebody of this process has received on channels of this label.
pub(crate) fn received(channel: &str) -> Counter {
    recorder::counter(MESSAGES, &[("channel", channel), ("type", "received")])
}

/// Messages that this process has published on channels of this label.
pub(crate) fn published(channel: &str) -> Counter {
    recorder::counter(MESSAGES, &[("channel", channel), ("type", "published")])
}
