//! Handlers that are added at run time.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::dispatch::{
    BoxFuture, Buffer, Carrier, Closure, DeliveryMode, HandlerFn, HandlerOptions, OrderedBy, Overflow, Queue,
    Resync, ResyncFn, StartAt, States, worker,
};
use crate::error::{Error, ErrorKind, Result};
use crate::handlers::{HandlerSpec, HandlerTask, check_needs};
use crate::messaging::{Messaging, Running, Runtime};
use crate::registry::{HandlerDescriptor, Location, Subscribers};
use crate::retry::{Retry, deadline};

/// What measurements call handlers without a name.
const UNNAMED: &str = "(run time)";

/// Adds handlers at run time: closures with [`on`](Self::on), or those of a `#[subscribers]` instance with
/// [`service`](Self::service).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::{Messaging, Segments};
///
/// let messaging = Messaging::builder().url("memory://").build().await?;
/// let handler = messaging
///     .subscriber()
///     .on("chat:{room}", async |text: String, segments: Segments| {
///         println!("{}: {text}", segments.get("room").unwrap_or_default());
///     })
///     .await?;
/// messaging.publish("chat:lobby", "hello").await?;
/// handler.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it adds nothing by itself"]
pub struct Subscriber {
    messaging: Messaging,
    id: Option<String>,
    options: HandlerOptions,
    group: Option<String>,
    dead_letter: Option<String>,
    resync: Option<Resync>,
    resync_every: Option<Duration>,
}

impl Subscriber {
    pub(crate) fn new(messaging: Messaging) -> Self {
        Self {
            messaging,
            id: None,
            options: HandlerOptions::DEFAULT,
            group: None,
            dead_letter: None,
            resync: None,
            resync_every: None,
        }
    }

    /// Starts the handlers that attributes registered: [`Messaging::start`].
    ///
    /// # Errors
    /// As [`Messaging::start`].
    pub async fn start(&self) -> Result<Running> {
        self.messaging.start().await
    }

    /// Names the handler, as logs and [`Health`](crate::Health) show it; by default its channel and a number.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How many messages are handled at the same time; 1 by default, in order.
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.options.workers = workers;
        self
    }

    /// With several workers: what keeps messages in order among each other.
    pub fn ordered_by(mut self, ordered_by: OrderedBy) -> Self {
        self.options.ordered_by = Some(ordered_by);
        self
    }

    /// How much may wait for the workers.
    pub fn buffer(mut self, buffer: Buffer) -> Self {
        self.options.buffer = buffer;
        self
    }

    /// What happens when more arrives than may wait.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.options.overflow = overflow;
        self
    }

    /// How long one call may take; 30 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// What happens when a call fails.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Listens to the sharded channel of this name, from Redis 7.0 on: to what is published with
    /// [`sharded`](crate::Publish::sharded). It has to be one channel, not a template or a glob.
    pub fn sharded(mut self) -> Self {
        self.options.carrier = Carrier::Sharded;
        self
    }

    /// How many calls one message gets at most, the first one included.
    pub fn attempts(mut self, attempts: NonZeroU32) -> Self {
        self.options.retry.attempts = attempts;
        self
    }

    /// Who gets a message, and what is promised; a broadcast by default.
    pub fn delivery(mut self, delivery: DeliveryMode) -> Self {
        self.options.delivery = delivery;
        self
    }

    /// The group of a queue: of all processes with a handler in it, one gets each message. By default the handler's id,
    /// which should then be given too.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Where a queue or a resumable handler begins that has never run before.
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.options.start = start;
        self
    }

    /// Handles an event that was published twice within this time once.
    pub fn dedupe(mut self, window: Duration) -> Self {
        self.options.dedupe = Some(window);
        self
    }

    /// A channel that is told of each dead letter of a queue.
    pub fn dead_letter(mut self, channel: impl Into<String>) -> Self {
        self.dead_letter = Some(channel.into());
        self
    }

    /// What catches up: it runs when the subscription is confirmed, before the first message, and after every gap, while
    /// messages wait. Its arguments are those of a `resync = …` function; a closure that captures something is cloned
    /// for each run. A queue has no gaps.
    pub fn resync<Args, F: ResyncFn<Args> + Clone>(mut self, catch_up: F) -> Self {
        self.resync = Some(Resync::of(catch_up));
        self
    }

    /// Has the [`resync`](Self::resync) run at this interval too.
    pub fn resync_every(mut self, interval: Duration) -> Self {
        self.resync_every = Some(interval);
        self
    }

    /// Adds a handler and returns when its subscription is confirmed. Its payload argument is owned; the values of the
    /// template's placeholders come as [`Segments`](crate::Segments).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`]; [`ErrorKind::Registration`] if state is missing, the id is taken, or there are
    /// two payload arguments; otherwise as [`Messaging::subscribe`].
    ///
    /// # Cancellation
    /// Dropping the future removes the handler.
    pub async fn on<Args: 'static, F: HandlerFn<Args>>(
        self,
        channel: &str,
        handler: F,
    ) -> Result<HandlerHandle> {
        if F::PAYLOADS > 1 {
            let text =
                format!("the handler on {channel:?} takes {} payloads; a message has one", F::PAYLOADS);
            return Err(Error::new(ErrorKind::Registration, text));
        }
        if self.options.delivery == DeliveryMode::Queue && self.id.is_none() && self.group.is_none() {
            let text = format!(
                "the queue handler on {channel:?} needs a group (or an id) that is the same in every process: add `.group(\"…\")`"
            );
            return Err(Error::new(ErrorKind::Registration, text));
        }
        if self.resync_every.is_some() && self.resync.is_none() {
            let text = format!("the handler on {channel:?} has a `resync_every` without a `resync`");
            return Err(Error::new(ErrorKind::Registration, text));
        }
        let resync = self.resync.clone().map(|resync| resync.every(self.resync_every));
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let label = self.id.as_deref().unwrap_or(UNNAMED).into();
        let id = self
            .id
            .clone()
            .unwrap_or_else(|| format!("{channel}#{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let function = Arc::new(handler);
        let start = move |queue: Queue| -> BoxFuture<'static, ()> {
            Box::pin(worker(Closure::<F, Args>::new(Arc::clone(&function)), queue))
        };
        let spec = HandlerSpec {
            id: id.into(),
            label,
            channels: vec![channel.to_owned()],
            options: self.options,
            group: self.group.clone(),
            dead_letter: self.dead_letter.clone(),
            resync,
            needs: <F as HandlerFn<Args>>::needs,
            start: Arc::new(start),
            location: Location { file: "(added at run time)", line: 0 },
        };
        self.add(vec![Arc::new(spec)], self.messaging.states()).await
    }

    /// Adds the `#[subscribers]` handlers of an instance: of a type that registers none by itself
    /// (`#[subscribers(manual)]`, generic types), or of one instance more. With an [`id`](Self::id) the handlers are
    /// called `id::method`. Of the options only those of the attributes count.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    ///
    /// # Cancellation
    /// Dropping the future removes the handlers.
    pub async fn service<S: Subscribers>(self, service: S) -> Result<HandlerHandle> {
        let mut states = self.messaging.states();
        states.replace(Arc::new(service));
        let named = |descriptor: &HandlerDescriptor| {
            let mut spec = HandlerSpec::from(descriptor);
            if let Some(id) = &self.id {
                let method = descriptor.id.rsplit("::").next().unwrap_or(descriptor.id);
                spec.id = format!("{id}::{method}").into();
                spec.label = Arc::clone(&spec.id);
            }
            Arc::new(spec)
        };
        let specs = S::handlers().iter().map(named).collect();
        self.add(specs, states).await
    }

    async fn add(&self, specs: Vec<Arc<HandlerSpec>>, states: States) -> Result<HandlerHandle> {
        check_needs(&specs, &states)?;
        let setup = self.messaging.setup(states);
        let runtime = self.messaging.runtime();
        // From here on dropping the handle-to-be removes what was added.
        let mut adding = Adding(HandlerHandle {
            tasks: Vec::new(),
            runtime,
            drain_timeout: self.messaging.config().drain_timeout,
        });
        for spec in &specs {
            let task = HandlerTask::start(spec, &setup)?;
            if let Some(runtime) = adding.0.runtime.upgrade()
                && let Err(error) = runtime.adopt(&task)
            {
                task.abandon();
                return Err(error);
            }
            adding.0.tasks.push(task);
        }
        let limit = self.messaging.config().connect_timeout;
        for task in &adding.0.tasks {
            tokio::time::timeout(limit, task.confirmed()).await.unwrap_or_else(|_| {
                let text = format!("start handler `{}`: not confirmed within {limit:?}", task.running.id);
                Err(Error::new(ErrorKind::Timeout, text).before_sending())
            })?;
        }
        Ok(adding.succeeded())
    }
}

/// Handlers that were added at run time. Dropping it leaves them running.
#[derive(Debug)]
#[must_use = "only `stop` ends the handler before shutdown"]
pub struct HandlerHandle {
    tasks: Vec<Arc<HandlerTask>>,
    runtime: Weak<Runtime>,
    drain_timeout: Duration,
}

impl HandlerHandle {
    /// The handlers' ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| &*task.running.id)
    }

    /// Unsubscribes, lets the handlers work off what waits, for up to `MESSAGING_DRAIN_TIMEOUT`, and ends them.
    ///
    /// # Cancellation
    /// The handlers are ended at once.
    pub async fn stop(self) {
        // Whatever becomes of this future, the handlers' ids are free again.
        let leaving = Leaving(self);
        let until = deadline(leaving.0.drain_timeout);
        for task in &leaving.0.tasks {
            task.stop(until).await;
        }
    }
}

/// Handlers that are being stopped.
struct Leaving(HandlerHandle);

impl Drop for Leaving {
    fn drop(&mut self) {
        for task in &self.0.tasks {
            if let Some(runtime) = self.0.runtime.upgrade() {
                runtime.release(task);
            }
            // What was not stopped in order is ended at once.
            task.abandon();
        }
    }
}

/// Handlers whose adding is not finished; dropped, it removes them.
struct Adding(HandlerHandle);

impl Adding {
    fn succeeded(mut self) -> HandlerHandle {
        let tasks = std::mem::take(&mut self.0.tasks);
        HandlerHandle { tasks, runtime: Weak::clone(&self.0.runtime), drain_timeout: self.0.drain_timeout }
    }
}

impl Drop for Adding {
    fn drop(&mut self) {
        for task in self.0.tasks.drain(..) {
            if let Some(runtime) = self.0.runtime.upgrade() {
                runtime.release(&task);
            }
            task.abandon();
        }
    }
}
