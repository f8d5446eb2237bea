//! The way to the facade `metrics`, and what is said of each name.

use std::time::Duration;

use metrics::{Label, Unit};

use super::{Labels, Name};

pub(crate) const IS_MEASURED: bool = true;

#[derive(Debug)]
pub(crate) struct Counter(metrics::Counter);

impl Counter {
    pub(crate) fn increment(&self, more: u64) {
        self.0.increment(more);
    }
}

#[derive(Debug)]
pub(super) struct Histogram(metrics::Histogram);

impl Histogram {
    pub(super) fn record(&self, value: Duration) {
        self.0.record(value.as_secs_f64());
    }
}

#[derive(Debug)]
pub(crate) struct Gauge(metrics::Gauge);

impl Gauge {
    pub(crate) fn of(name: Name, labels: Labels<'_>) -> Self {
        Self(metrics::gauge!(name, owned(labels)))
    }

    pub(crate) fn add(&self, more: f64) {
        self.0.increment(more);
    }

    pub(crate) fn set(&self, value: f64) {
        self.0.set(value);
    }
}

pub(super) fn counter(name: Name, labels: Labels<'_>) -> Counter {
    Counter(metrics::counter!(name, owned(labels)))
}

pub(super) fn histogram(name: Name, labels: Labels<'_>) -> Histogram {
    Histogram(metrics::histogram!(name, owned(labels)))
}

fn owned(labels: Labels<'_>) -> Vec<Label> {
    labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Everything that is measured: docs/operating.md has the same.
const ALL: &[(Kind, Name, Unit, &str)] = {
    use Kind::{Counter, Gauge, Histogram};
    use Unit::{Bytes, Count, Seconds};
    &[
        (
            Counter,
            super::MESSAGES,
            Count,
            "Messages, by template and by whether they were published or received.",
        ),
        (Gauge, super::SUBSCRIBERS, Count, "Handlers and subscriptions of this process, by template."),
        (Histogram, super::PROCESSING, Seconds, "How long calls of a handler took, each attempt by itself."),
        (
            Counter,
            super::PUBLISH_FAILURES,
            Count,
            "Messages that could not be published, or whose fate is unknown.",
        ),
        (
            Histogram,
            super::LATENCY_RECEIVE,
            Seconds,
            "From a message's arrival in this process to its handler.",
        ),
        (Histogram, super::LATENCY_PUBLISH, Seconds, "From a durable message's publication to its handler."),
        (Histogram, super::ROUND_TRIP, Seconds, "From telling Redis something to hearing of it."),
        (Counter, super::OUTCOMES, Count, "What became of messages."),
        (Counter, super::RETRIES, Count, "Further attempts at messages."),
        (Counter, super::PANICS, Count, "Calls that panicked."),
        (Counter, super::TIMEOUTS, Count, "Calls that took longer than the handler's timeout."),
        (Counter, super::DROPS, Count, "Messages that were dropped because the handler's buffer was full."),
        (Counter, super::GAPS, Count, "Gaps that were announced to the handler."),
        (Counter, super::RESYNCS, Count, "Runs of the handler's resync function."),
        (Counter, super::DEAD_LETTERS, Count, "Messages that went to the dead letters."),
        (Counter, super::TAKEN_OVER, Count, "Messages that were taken over from processes that were gone."),
        (Counter, super::REMOVED, Count, "Messages that retention removed before they were handled."),
        (Counter, super::RECONNECTS, Count, "How often a subscription connection was lost and made again."),
        (
            Counter,
            super::CUT_OFF,
            Count,
            "Connections that were closed while a slow handler held the reader up.",
        ),
        (Counter, super::SKIPPED, Count, "Messages that were skipped because they are too large or no text."),
        (
            Counter,
            super::LOST_EVENTS,
            Count,
            "Events of changes that were made, and that could not be published.",
        ),
        (Counter, super::CACHE_CALLS, Count, "Calls of a cached function, by where the answer came from."),
        (Counter, super::CACHE_LOADS, Count, "Calls of the function behind the cache."),
        (
            Counter,
            super::CACHE_INVALIDATIONS,
            Count,
            "Keys, and of flushes families, that were removed, by cause.",
        ),
        (Counter, super::CACHE_REFUSED, Count, "Loaded values that an invalidation kept from being stored."),
        (Gauge, super::READY, Count, "1 if this process can do its work, else 0."),
        (Gauge, super::HANDLERS, Count, "Handlers, by state."),
        (Gauge, super::DEPTH, Count, "Messages that wait for a handler in this process."),
        (
            Gauge,
            super::DEPTH_BYTES,
            Bytes,
            "The payloads of the messages that wait for a handler in this process.",
        ),
        (Gauge, super::IN_FLIGHT, Count, "Calls of a handler in progress."),
        (Gauge, super::CONNECTED, Count, "1 if a subscription connection is up, else 0."),
        (Gauge, super::SERVICE_SOUND, Count, "1 if a service does its work, else 0."),
        (Gauge, super::LAG, Count, "Messages of a stream that a group has not read yet."),
        (Gauge, super::PENDING, Count, "Messages of a stream that processes of a group have in their hands."),
        (Gauge, super::DELAYED, Count, "Messages of a stream that wait for another attempt by a group."),
        (Gauge, super::CONSUMERS, Count, "Processes that live and handle a group's messages."),
        (Gauge, super::MEMORY, Bytes, "Memory that Redis uses."),
        (Gauge, super::MEMORY_LIMIT, Bytes, "Redis's maxmemory; 0 without a limit."),
    ]
};

/// Tells the recorder what the names mean.
pub(crate) fn describe() {
    for (kind, name, unit, text) in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *unit, *text),
            Kind::Gauge => metrics::describe_gauge!(*name, *unit, *text),
            Kind::Histogram => metrics::describe_histogram!(*name, *unit, *text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_each_name_with_its_kind_and_unit() {
        let guide = include_str!("../../../docs/operating.md");
        for (kind, name, unit, _) in ALL {
            let line = guide.lines().find(|line| line.starts_with(&format!("| `{name}")));
            let line = line.unwrap_or_else(|| panic!("docs/operating.md lacks `{name}`"));
            let kind = format!("{kind:?}").to_lowercase();
            assert!(line.contains(&kind), "{name} is a {kind}: {line}");
            if *unit != Unit::Count {
                assert!(line.contains(unit.as_str()), "{name} is in {}: {line}", unit.as_str());
            }
        }
    }
}
