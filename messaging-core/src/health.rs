//! How messaging is, as a value that serializes to JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::cache::CacheStats;
use crate::channel::Kind;
use crate::consume::Consumer;
use crate::core::Core;
use crate::dispatch::{Counts, DeliveryMode};
use crate::handlers::HandlerTask;
use crate::messaging::Phase;
use crate::presence::PresenceHealth;
use crate::service::{ServiceHealth, Services};
use crate::session::SessionHealth;
use crate::source::Source;

/// How messaging is at one moment. [`is_ready`](Self::is_ready) answers a readiness probe; the rest says why.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Where Redis is, without the password.
    pub endpoint: String,
    /// What has been done with the handle.
    pub phase: HealthPhase,
    /// Whether everything that should be subscribed is, and no handler has been stopped.
    pub ready: bool,
    /// Channels that are subscribed to, by the handlers of this process.
    pub channels: Vec<String>,
    /// Templates and globs that are subscribed to, by the handlers of this process.
    pub patterns: Vec<String>,
    /// How many handlers and subscriptions of this process listen to each template, glob or declared channel; those to
    /// channels of no template are counted together, as `other`.
    pub subscribers: BTreeMap<String, usize>,
    /// The subscription connections.
    pub sessions: Vec<SessionHealth>,
    /// How long ago, in milliseconds, everything that listens to something was known to be alive: the longest of its
    /// connections and of those who read streams; nothing if nothing listens, or one of them never was.
    pub last_alive_ms: Option<u64>,
    /// The handlers.
    pub handlers: Vec<HandlerHealth>,
    /// The cached functions.
    pub caches: Vec<CacheStats>,
    /// What this process has joined.
    pub presence: PresenceHealth,
    /// What runs beside the handlers.
    pub services: Vec<ServiceHealth>,
    /// Events of changes that were made, and that nobody will hear of: publishing them failed.
    pub lost_events: u64,
    /// What works, and should still be changed.
    pub warnings: Vec<String>,
}

/// What has been done with a [`Messaging`](crate::Messaging).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthPhase {
    /// It has not been started.
    Built,
    /// Handlers are being subscribed.
    Starting,
    /// Handlers run.
    Running,
    /// It is shutting down, or has been shut down.
    ShutDown,
}

/// How one handler is.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HandlerHealth {
    /// Its id.
    pub id: String,
    /// What it listens to.
    pub channels: Vec<String>,
    /// Whether it runs.
    pub state: HandlerState,
    /// Calls in progress.
    pub in_flight: usize,
    /// Messages that wait.
    pub waiting: usize,
    /// The payload bytes of the messages that wait.
    pub waiting_bytes: usize,
    /// How long ago, in milliseconds, it took up a message.
    pub last_message_ms: Option<u64>,
    /// How long, in microseconds, the last message waited between its arrival in this process and its call.
    pub lag_us: u64,
    /// How long ago, in milliseconds, its connection was known to be alive.
    pub last_alive_ms: Option<u64>,
    /// Who gets a message, and what is promised.
    pub delivery: DeliveryMode,
    /// The group of a queue.
    pub group: Option<String>,
    /// The streams that it reads, if its delivery is by stream; none if no durable publisher is known.
    pub streams: Vec<String>,
    /// Why its streams could not be read, or entries could not be settled, the last time.
    pub last_error: Option<String>,
    /// What has happened since it started.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Whether a handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HandlerState {
    /// Its subscription has not been confirmed yet.
    Starting,
    /// It is subscribed.
    Running,
    /// Its connection is lost, or one of its channels is refused: messages are being missed, or if they come by stream,
    /// are waiting.
    Deaf,
    /// An error stopped it for good.
    Stopped,
}

impl Health {
    pub(crate) fn new(
        core: &Core,
        phase: Phase,
        shared: Option<SessionHealth>,
        tasks: &[Arc<HandlerTask>],
        services: &Services,
        presence: PresenceHealth,
    ) -> Self {
        let services = services.health();
        let of_services = services.iter().flat_map(|service| {
            service.warnings.iter().map(|warning| format!("{}: {warning}", service.name))
        });
        let warnings = core.cache.warnings().into_iter().chain(of_services).collect();
        let mut sessions: Vec<_> = shared.into_iter().collect();
        sessions.extend(tasks.iter().filter_map(|task| task.source.own_session()));
        sessions.extend(core.cache.started_listener().map(|listener| listener.health()));
        let handlers: Vec<_> =
            tasks.iter().map(|task| HandlerHealth::new(task, &core.config.channel_prefix)).collect();
        let names = |globs: bool| {
            let mut names: Vec<_> = tasks
                .iter()
                .flat_map(|task| task.running.patterns.iter())
                .filter(|pattern| (pattern.wire().kind == Kind::Glob) == globs)
                .map(|pattern| pattern.as_str().to_owned())
                .collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        let sound = |session: &SessionHealth| {
            !session.in_use || (session.connected && session.unconfirmed.is_empty())
        };
        let ready = phase == Phase::Running
            && sessions.iter().all(sound)
            && handlers.iter().all(|handler| handler.state == HandlerState::Running)
            && services.iter().all(|service| service.is_sound);
        Self {
            endpoint: core.config.endpoint.to_string(),
            phase: match phase {
                Phase::Built => HealthPhase::Built,
                Phase::Starting => HealthPhase::Starting,
                Phase::Running => HealthPhase::Running,
                Phase::ShutDown => HealthPhase::ShutDown,
            },
            ready,
            channels: names(false),
            patterns: names(true),
            subscribers: core.subscribers.counts(),
            last_alive_ms: last_alive(&sessions, &handlers),
            sessions,
            handlers,
            presence,
            caches: core.cache.stats(),
            services,
            lost_events: core.lost_events.read(),
            warnings,
        }
    }

    /// Whether this process can do its work: started, subscribed to everything, no handler stopped.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }
}

/// The longest of all times.
fn last_alive(sessions: &[SessionHealth], handlers: &[HandlerHealth]) -> Option<u64> {
    let sessions = sessions.iter().filter(|session| session.in_use).map(|session| session.last_alive_ms);
    let streams = handlers.iter().filter(|handler| handler.delivery != DeliveryMode::Broadcast);
    let all: Option<Vec<u64>> = sessions.chain(streams.map(|handler| handler.last_alive_ms)).collect();
    all?.into_iter().max()
}

impl HandlerHealth {
    fn new(task: &HandlerTask, prefix: &str) -> Self {
        let running = &task.running;
        let (hears, last_alive_ms) = match &task.source {
            Source::Channels { session, .. } => {
                let session = session.health();
                let unconfirmed = running.patterns.iter().any(|pattern| {
                    let wire = format!("{prefix}{}", pattern.wire().name);
                    session.unconfirmed.iter().any(|other| other.channel == wire)
                });
                (session.connected && !unconfirmed, session.last_alive_ms)
            }
            Source::Streams(consumer) => {
                let alive = consumer.last_alive();
                let millis = alive.map(|alive| u64::try_from(alive.as_millis()).unwrap_or(u64::MAX));
                (consumer.is_sound(), millis)
            }
        };
        let consumer = task.source.consumer();
        let mut counts = running.counts();
        if let Some(consumer) = consumer {
            consumer.add_counts(&mut counts);
        }
        let state = if task.is_stopped() {
            HandlerState::Stopped
        } else if !task.is_established() {
            HandlerState::Starting
        } else if hears {
            HandlerState::Running
        } else {
            HandlerState::Deaf
        };
        let (waiting, waiting_bytes) = running.mailbox.waiting();
        let since = |then: SystemTime| {
            let ago = SystemTime::now().duration_since(then).unwrap_or(Duration::ZERO);
            u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)
        };
        Self {
            id: running.id.to_string(),
            channels: running.patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            state,
            in_flight: running.in_flight(),
            waiting,
            waiting_bytes,
            last_message_ms: running.last_message().map(since),
            lag_us: u64::try_from(running.lag().as_micros()).unwrap_or(u64::MAX),
            last_alive_ms,
            delivery: running.options.delivery,
            group: consumer.and_then(|consumer| consumer.group().map(str::to_owned)),
            streams: consumer.map(|consumer| consumer.streams()).unwrap_or_default(),
            last_error: consumer.and_then(Consumer::last_error),
            counts,
        }
    }
}
