//! What a gateway counts, and how it is told to Prometheus: text format 0.0.4.

#[cfg(feature = "metrics")]
mod facade;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};

use messaging_core::{Counts, HandlerHealth, HandlerState, Health};

#[cfg(feature = "metrics")]
pub(crate) use self::facade::record;
use self::text::{Kind, Text};
use crate::descriptor::SlowPolicy;
use crate::native::GapReason;

/// A number that many tasks change, and that a scrape reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// One less.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a gateway counts.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Connections there are now.
    pub connections: Count,
    /// Connections there have been.
    pub opened: Count,
    /// Subscriptions of connections there are now.
    pub subscriptions: Count,
    /// Channels that the gateway listens to now.
    pub channels: Count,
    /// Events that have arrived for a channel.
    pub events: Count,
    /// Messages that did not become events, because they are too large or no JSON.
    pub unfit: Count,
    /// Reads of what was before, for those who resume and those who ask for the past.
    pub history_reads: Count,
    /// Events that were put into the queue of a connection.
    pub deliveries: Count,
    /// Bytes that were written to connections.
    pub bytes: Count,
    /// Times that a connection did not keep up.
    pub slow: SlowCounts,
    /// Gaps that connections were told of.
    pub gaps: GapCounts,
    /// Subscriptions that were resumed with everything that they had missed.
    pub recovered: Count,
    /// Subscriptions that were resumed without.
    pub unrecovered: Count,
    /// What was not allowed.
    pub rejected: RejectionCounts,
}

/// Times that a connection did not keep up, by what was done then.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SlowCounts {
    /// It was disconnected.
    pub disconnect: Count,
    /// It got the latest event only.
    pub latest: Count,
    /// It lost the oldest events.
    pub drop_oldest: Count,
}

impl SlowCounts {
    /// The count of a policy.
    #[must_use]
    pub fn of(&self, policy: SlowPolicy) -> &Count {
        match policy {
            SlowPolicy::Disconnect => &self.disconnect,
            SlowPolicy::Latest => &self.latest,
            SlowPolicy::DropOldest => &self.drop_oldest,
        }
    }
}

/// Gaps, by their reasons on the wire.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct GapCounts {
    /// The gateway had lost Redis.
    pub reconnected: Count,
    /// The client did not keep up.
    pub slow: Count,
    /// The channel's retention was faster.
    pub removed: Count,
    /// The stream was made anew, or has become one.
    pub reset: Count,
    /// An event was too large.
    pub too_large: Count,
}

/// What was not allowed, by reason.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RejectionCounts {
    /// An upgrade from an origin that is not allowed.
    pub origin: Count,
    /// Credentials that are not valid, or have expired.
    pub credentials: Count,
    /// Nobody said in time who he is.
    pub stale: Count,
    /// A connection too many: of a user, of an address, or at all.
    pub connections: Count,
    /// A subscription too many.
    pub subscriptions: Count,
    /// Commands in too short a time.
    pub rate: Count,
    /// Something that an `authorize` denied, or that is not there.
    pub permission: Count,
    /// A message that makes no sense or is too large.
    pub message: Count,
    /// An upgrade while the gateway ends.
    pub shutdown: Count,
}

impl GapCounts {
    /// The count of a reason.
    pub(crate) fn of(&self, reason: GapReason) -> &Count {
        match reason {
            GapReason::Reconnected => &self.reconnected,
            GapReason::Slow => &self.slow,
            GapReason::Removed => &self.removed,
            GapReason::Reset => &self.reset,
            GapReason::TooLarge => &self.too_large,
        }
    }
}

/// One of a gateway's numbers, or several that a label tells apart.
struct Told {
    /// What follows the gateway's own name.
    name: &'static str,
    kind: Kind,
    help: &'static str,
    /// The label's name, and each value of it with its number.
    by: Option<&'static str>,
    samples: Vec<(&'static str, u64)>,
}

impl Metrics {
    /// The gateway's part.
    fn told(&self) -> Vec<Told> {
        let one = |name, kind, help, count: &Count| Told {
            name,
            kind,
            help,
            by: None,
            samples: vec![("", count.read())],
        };
        let by = |name, help, label, counts: &[(&'static str, &Count)]| Told {
            name,
            kind: Kind::Counter,
            help,
            by: Some(label),
            samples: counts.iter().map(|(value, count)| (*value, count.read())).collect(),
        };
        let unfit = "Messages that did not become events, because they are too large or no JSON.";
        let Self { slow, gaps, rejected, .. } = self;
        vec![
            one("connections", Kind::Gauge, "Connections there are now.", &self.connections),
            one(
                "subscriptions",
                Kind::Gauge,
                "Subscriptions of connections there are now.",
                &self.subscriptions,
            ),
            one("channels", Kind::Gauge, "Channels that the gateway listens to now.", &self.channels),
            one("connections_opened", Kind::Counter, "Connections there have been.", &self.opened),
            one("events", Kind::Counter, "Events that have arrived for a channel.", &self.events),
            one("unfit_events", Kind::Counter, unfit, &self.unfit),
            one("history_reads", Kind::Counter, "Reads of what was before.", &self.history_reads),
            one(
                "deliveries",
                Kind::Counter,
                "Events that were put into the queue of a connection.",
                &self.deliveries,
            ),
            one("sent_bytes", Kind::Counter, "Bytes that were written to connections.", &self.bytes),
            by(
                "slow",
                "Times that a connection did not keep up, by what was done then.",
                "policy",
                &[
                    ("disconnect", &slow.disconnect),
                    ("latest", &slow.latest),
                    ("drop_oldest", &slow.drop_oldest),
                ],
            ),
            by(
                "gaps",
                "Gaps that connections were told of.",
                "reason",
                &[
                    ("reconnected", &gaps.reconnected),
                    ("slow", &gaps.slow),
                    ("removed", &gaps.removed),
                    ("reset", &gaps.reset),
                    ("too_large", &gaps.too_large),
                ],
            ),
            by(
                "resumes",
                "Subscriptions that were resumed, by whether everything missed was there.",
                "recovered",
                &[("true", &self.recovered), ("false", &self.unrecovered)],
            ),
            by(
                "rejected",
                "What was not allowed, by reason.",
                "reason",
                &[
                    ("origin", &rejected.origin),
                    ("credentials", &rejected.credentials),
                    ("stale", &rejected.stale),
                    ("connections", &rejected.connections),
                    ("subscriptions", &rejected.subscriptions),
                    ("rate", &rejected.rate),
                    ("permission", &rejected.permission),
                    ("message", &rejected.message),
                    ("shutdown", &rejected.shutdown),
                ],
            ),
        ]
    }

    fn write(&self, text: &mut Text) {
        for Told { name, kind, help, by, samples } in self.told() {
            let suffix = match kind {
                Kind::Counter => "_total",
                Kind::Gauge => "",
            };
            let mut family = text.family(&format!("messaging_gateway_{name}{suffix}"), kind, help);
            for (value, number) in samples {
                let label = by.map(|by| (by, value));
                family.sample(label.as_slice(), number);
            }
        }
    }
}

/// Everything, as `/metrics` answers it.
pub(crate) fn prometheus(metrics: &Metrics, health: &Health) -> String {
    let mut text = Text::default();
    metrics.write(&mut text);
    write_health(health, &mut text);
    text.finish()
}

/// What messaging says of itself.
fn write_health(health: &Health, text: &mut Text) {
    text.family("messaging_ready", Kind::Gauge, "Whether messaging is ready.")
        .sample(&[], u64::from(health.is_ready()));
    text.family(
        "messaging_lost_events_total",
        Kind::Counter,
        "Events of changes that were made, and that could not be published.",
    )
    .sample(&[], health.lost_events);
    let mut sound = text.family("messaging_service_sound", Kind::Gauge, "Whether a service does its work.");
    for service in &health.services {
        sound.sample(&[("service", &service.name)], u64::from(service.is_sound));
    }
    drop(sound);
    let mut connected =
        text.family("messaging_session_connected", Kind::Gauge, "Subscription connections that are up.");
    for session in &health.sessions {
        connected.sample(&[("session", &session.name)], u64::from(session.connected));
    }
    drop(connected);
    let mut reconnects = text.family(
        "messaging_session_reconnects_total",
        Kind::Counter,
        "How often a subscription connection was made again.",
    );
    for session in &health.sessions {
        reconnects.sample(&[("session", &session.name)], session.reconnects);
    }
    drop(reconnects);
    write_handlers(&health.handlers, text);
    write_caches(health, text);
}

fn write_handlers(handlers: &[HandlerHealth], text: &mut Text) {
    let mut states = text.family("messaging_handlers", Kind::Gauge, "Handlers, by state.");
    for (label, state) in [
        ("starting", HandlerState::Starting),
        ("running", HandlerState::Running),
        ("deaf", HandlerState::Deaf),
        ("stopped", HandlerState::Stopped),
    ] {
        let count = handlers.iter().filter(|handler| handler.state == state).count();
        states.sample(&[("state", label)], count as u64);
    }
    drop(states);
    type Gauge = fn(&HandlerHealth) -> u64;
    let gauges: [(&str, &str, Gauge); 3] = [
        ("in_flight", "Calls in progress.", |handler| handler.in_flight as u64),
        ("waiting", "Messages that wait.", |handler| handler.waiting as u64),
        ("waiting_bytes", "Payload bytes of messages that wait.", |handler| handler.waiting_bytes as u64),
    ];
    for (name, help, value) in gauges {
        let mut family = text.family(&format!("messaging_handler_{name}"), Kind::Gauge, help);
        for handler in handlers {
            family.sample(&[("handler", &handler.id)], value(handler));
        }
    }
    type Counter = fn(&Counts) -> u64;
    let counters: [(&str, &str, Counter); 15] = [
        ("handled", "Messages that a handler succeeded with.", |counts| counts.handled),
        ("failed", "Messages that were given up.", |counts| counts.failed),
        ("retried", "Further attempts at messages.", |counts| counts.retried),
        ("panicked", "Calls that panicked.", |counts| counts.panicked),
        ("timed_out", "Calls that took too long.", |counts| counts.timed_out),
        ("undecodable", "Messages whose payload could not be decoded.", |counts| counts.undecodable),
        ("mismatched", "Messages that did not match the handler's template.", |counts| counts.mismatched),
        ("dropped", "Messages that were dropped because the buffer was full.", |counts| counts.dropped),
        ("gaps", "Gaps that were announced to a handler.", |counts| counts.gaps),
        ("resyncs", "Successful runs of a resync function.", |counts| counts.resyncs),
        ("resync_failures", "Failed runs of a resync function.", |counts| counts.resync_failures),
        ("dead_lettered", "Messages that went to the dead letters.", |counts| counts.dead_lettered),
        ("taken_over", "Messages that were taken over from processes that were gone.", |counts| {
            counts.taken_over
        }),
        ("removed", "Messages that retention removed before they were handled.", |counts| counts.removed),
        ("duplicates", "Messages that were passed over as duplicates.", |counts| counts.duplicates),
    ];
    for (name, help, value) in counters {
        let mut family = text.family(&format!("messaging_handler_{name}_total"), Kind::Counter, help);
        for handler in handlers {
            family.sample(&[("handler", &handler.id)], value(&handler.counts));
        }
    }
}

fn write_caches(health: &Health, text: &mut Text) {
    let mut calls =
        text.family("messaging_cache_calls_total", Kind::Counter, "Calls of cached functions, by result.");
    for cache in &health.caches {
        for (result, count) in [
            ("hit", cache.hits),
            ("local_hit", cache.local_hits),
            ("miss", cache.misses),
            ("stale", cache.stale),
            ("uncached", cache.uncached),
        ] {
            calls.sample(&[("function", &cache.function), ("result", result)], count);
        }
    }
    drop(calls);
    let mut loads =
        text.family("messaging_cache_loads_total", Kind::Counter, "Calls of the functions behind the cache.");
    for cache in &health.caches {
        loads.sample(&[("function", &cache.function)], cache.loads);
    }
    drop(loads);
    let mut removed = text.family(
        "messaging_cache_invalidated_keys_total",
        Kind::Counter,
        "Keys that this process removed from the cache, by cause.",
    );
    for cache in &health.caches {
        let causes = &cache.invalidations;
        for (cause, count) in
            [("call", causes.calls), ("publish", causes.publishes), ("event", causes.events)]
        {
            removed.sample(&[("function", &cache.function), ("cause", cause)], count);
        }
    }
    drop(removed);
    let mut flushes =
        text.family("messaging_cache_flushes_total", Kind::Counter, "Times that all values were removed.");
    for cache in &health.caches {
        flushes.sample(&[("function", &cache.function)], cache.invalidations.flushes);
    }
}
