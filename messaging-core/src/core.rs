//! What every handle of one [`Messaging`](crate::Messaging) shares below its handlers and state: the backend, the cache,
//! the tasks. Also which one is current: in this task's scope, or the process's default.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::activity::Activity;
use crate::backend::{Backend, Outgoing, Token};
use crate::cache::Cache;
use crate::channel::Pattern;
use crate::config::Config;
use crate::durable::Durables;
use crate::error::{Error, ErrorKind, Result};
use crate::labels::{Labels, Subscribers};
use crate::meter::{self, Count};
use crate::registry::Registry;
use crate::stream::Durability;
use crate::trace;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) backend: Arc<Backend>,
    pub(crate) registry: Registry,
    pub(crate) durables: Durables,
    pub(crate) cache: Arc<Cache>,
    pub(crate) activity: Activity,
    /// Work that must be finished before shutting down: storing, publishing after a change.
    pub(crate) work: TaskTracker,
    /// Tasks that end when `stop` says so: sessions, listeners.
    pub(crate) background: TaskTracker,
    /// Cancelled by [`end`](Self::end), and by nobody else.
    pub(crate) stop: CancellationToken,
    has_ended: AtomicBool,
    /// What this process is called in the groups of streams, and how many consumers it has had.
    process: String,
    consumers: AtomicUsize,
    /// A number of its own.
    pub(crate) number: usize,
    /// Which consumer reads which stream for which group, with the id of its handler.
    pub(crate) claims: Mutex<HashMap<(String, String), Claim>>,
    /// Shutting down has begun: handlers that look at it can finish early.
    pub(crate) draining: CancellationToken,
    /// Events of changes that were made, and that could not be published.
    pub(crate) lost_events: Count,
    /// What channels are called where they are counted.
    pub(crate) labels: Labels,
    pub(crate) subscribers: Arc<Subscribers>,
}

impl Core {
    /// Ends everything.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.stop.cancel();
    }

    /// Whether it has been ended; asked for each event and each call of a cached function, and the token has a lock.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    pub(crate) fn new(config: Config, durable: Vec<(Pattern, Durability)>) -> Result<Arc<Self>> {
        config.check()?;
        let registry = Registry::collect();
        registry.check()?;
        meter::describe();
        let labels = Labels::new(&registry, durable.iter().map(|(pattern, _)| pattern));
        let durables = Durables::new(durable, &registry, &config.channel_prefix)?;
        let activity = Activity::default();
        let backend = Arc::new(Backend::new(&config, activity.clone())?);
        let (work, background, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        let cache = Cache::new(
            Arc::clone(&backend),
            &registry,
            &config,
            activity.clone(),
            work.clone(),
            background.clone(),
            stop.clone(),
        )?;
        Ok(Arc::new(Self {
            config,
            backend,
            registry,
            durables,
            cache: Arc::new(cache),
            activity,
            work,
            background,
            process: process_name(),
            consumers: AtomicUsize::new(0),
            number: fastrand::usize(..),
            claims: Mutex::default(),
            draining: stop.child_token(),
            lost_events: Count::of(meter::LOST_EVENTS, &[]),
            labels,
            subscribers: Arc::default(),
            stop,
            has_ended: AtomicBool::new(false),
        }))
    }

    /// The name of a consumer: what one has had that is gone comes to the next, of this process too.
    pub(crate) fn next_consumer(&self) -> String {
        format!("{}:{}", self.process, self.consumers.fetch_add(1, Ordering::Relaxed))
    }

    /// Publishes messages in one batch. Returns the number of receivers.
    ///
    /// Cancellation: what was handed to the connection is carried out.
    pub(crate) async fn publish(&self, messages: Vec<Outgoing>) -> Result<u64> {
        if self.has_ended() {
            return Err(Error::new(ErrorKind::Closed, "messaging has been shut down").before_sending());
        }
        messages.iter().try_for_each(|message| self.check_size(message))?;
        if messages.is_empty() {
            return Ok(0);
        }
        let (first, more) =
            (messages[0].channel.clone(), if messages.len() > 1 { " and others" } else { "" });
        let labels: Vec<_> = if meter::IS_MEASURED {
            messages.iter().map(|message| self.labels.find(&message.channel)).collect()
        } else {
            Vec::new()
        };
        let span = trace::publishing(&first, messages.len());
        let published = self.cache.publish(messages).instrument(span).await;
        labels.iter().for_each(|label| label.published(published.as_ref().err()));
        published.map_err(|error| error.context(format_args!("publish on {first:?}{more}")))
    }
}

impl Core {
    pub(crate) fn check_size(&self, Outgoing { channel, payload, .. }: &Outgoing) -> Result<()> {
        let (size, limit) = (payload.len(), self.config.max_payload);
        if size <= limit {
            return Ok(());
        }
        let text = format!(
            "the payload for {channel:?} has {size} bytes, the limit is {limit}; publish a reference to it, or raise MESSAGING_MAX_PAYLOAD everywhere"
        );
        Err(Error::new(ErrorKind::PayloadTooLarge, text))
    }
}

/// Who reads a stream for a group.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) consumer: String,
    pub(crate) handler: Arc<str>,
}

/// Unique, and for operators: the process and the host, if it says its name.
fn process_name() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.');
    let host: String = host.chars().filter(|character| plain(*character)).take(64).collect();
    let host = if host.is_empty() { "process" } else { &host };
    format!("{host}:{}:{}", std::process::id(), &Token::random().0[..12])
}

/// The messaging that code without a handle uses.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) core: Arc<Core>,
    /// The handlers' half, which lies above this module.
    pub(crate) runtime: Runtime,
}

#[derive(Clone)]
pub(crate) enum Runtime {
    Strong(Arc<dyn Any + Send + Sync>),
    Weak(Weak<dyn Any + Send + Sync>),
}

tokio::task_local! {
    static SCOPED: Current;
}

static DEFAULT: RwLock<Option<Current>> = RwLock::new(None);

impl Current {
    pub(crate) fn get() -> Option<Self> {
        let default = || DEFAULT.read().unwrap_or_else(PoisonError::into_inner).clone();
        SCOPED.try_with(Self::clone).ok().or_else(|| default().filter(Self::lives))
    }

    /// Lets `look` see the core of the current one.
    pub(crate) fn peek<T>(look: impl Fn(&Core) -> Option<T>) -> Option<T> {
        match SCOPED.try_with(|current| look(&current.core)) {
            Ok(seen) => seen,
            Err(_) => {
                // Not under the lock: who looks may copy values of users.
                let default = DEFAULT.read().unwrap_or_else(PoisonError::into_inner);
                let core = default
                    .as_ref()
                    .filter(|current| current.lives())
                    .map(|current| Arc::clone(&current.core));
                drop(default);
                look(&*core?)
            }
        }
    }

    fn lives(&self) -> bool {
        !self.core.has_ended()
    }

    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        SCOPED.scope(self, future).await
    }

    /// Makes this the process's default if there is none that lives; `false` if there is.
    pub(crate) fn install(self) -> bool {
        let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
        let free = !default.as_ref().is_some_and(Self::lives);
        if free {
            *default = Some(self);
        }
        free
    }

    /// Takes the process's default away, if it is this core's.
    pub(crate) fn uninstall(core: &Arc<Core>) {
        let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
        if default.as_ref().is_some_and(|current| Arc::ptr_eq(&current.core, core)) {
            *default = None;
        }
    }

    pub(crate) fn require() -> Result<Self> {
        Self::get().ok_or_else(|| {
            Error::new(
                ErrorKind::NotStarted,
                "there is no current messaging; call init_redis or Messaging::start first, or run inside messaging.scope(…)",
            )
        })
    }
}
