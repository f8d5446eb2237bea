//! The handle: building, starting and running, publishing and subscribing, draining.

mod builder;
#[cfg(feature = "metrics")]
mod report;
mod running;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use builder::Builder;
use running::terminated;
pub use running::{Running, ShutdownReport, Unfinished};

use crate::cache_manager::CacheManager;
use crate::channel::{Pattern, ToChannel, ToPattern};
use crate::client::RedisClient;
use crate::config::{Config, StartPolicy};
use crate::core::{Core, Current, Runtime as CurrentRuntime};
use crate::dead_letters::DeadLetters;
use crate::describe::describe;
use crate::dispatch::{
    BoxFuture, Carrier, Context, Delivery, ErrorHandler, FromContext, FromDelivery, Observer, Rejection,
    States,
};
use crate::error::{Error, ErrorKind, HandlerError, Result, chain};
use crate::event::{Model, Op};
use crate::follow::{self, Follow, StreamEnd, StreamEntry, StreamRef};
use crate::handlers::{HandlerSpec, HandlerTask, Handlers, Setup, check_needs};
use crate::health::Health;
use crate::history::History;
use crate::operator::Operator;
use crate::pending::{self, PendingEvent};
use crate::presence::{Node, Presence};
use crate::publish::{Change, Publish, to_the_end};
use crate::queues::{self, QueueState};
use crate::service::{Service, Services};
use crate::session::Session;
use crate::stream::EntryId;
use crate::subscriber::Subscriber;
use crate::subscription::Subscription;
use crate::trace::{self, Trace};

/// How long [`start`](Messaging::start) waits for Redis.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// The handle on messaging: publishes, subscribes, caches, and runs the handlers of this process. Cheap to clone; when
/// the last clone, the last [`Running`] and the last [`Subscription`] are dropped, everything stops.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::Messaging;
///
/// let messaging = Messaging::builder().url("memory://").build().await?;
/// let mut audit = messaging.subscribe("auditlog:42").await?;
/// messaging.publish("auditlog:42", "logged in").await?;
///
/// let message = audit.get_message(None).await?.expect("there is one");
/// assert_eq!(message.json::<String>()?, "logged in");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Messaging(Arc<Runtime>);

/// The half of a [`Messaging`] that holds state and handlers. Tasks hold only the other half, so that dropping this one
/// ends them.
pub(crate) struct Runtime {
    core: Arc<Core>,
    states: Mutex<States>,
    selected: Handlers,
    error_handler: Option<ErrorHandler>,
    observer: Option<Observer>,
    session: OnceLock<Session>,
    /// What this messaging has joined.
    node: Arc<Node>,
    tasks: Mutex<Vec<Arc<HandlerTask>>>,
    services: Mutex<Services>,
    phase: Mutex<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Built,
    Starting,
    Running,
    ShutDown,
}

/// What handlers keep of their [`Messaging`], so that they do not keep it alive.
struct WeakMessaging(Weak<Runtime>);

impl Messaging {
    /// Starts to build one.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The current one: that of the [`scope`](Self::scope) this task runs in, or else the process's default.
    ///
    /// # Errors
    /// [`ErrorKind::NotStarted`] if there is neither.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// use messaging_core::{CacheManager, ErrorKind, Messaging, init_redis, redis_publish};
    ///
    /// assert_eq!(Messaging::current().unwrap_err().kind(), ErrorKind::NotStarted);
    /// assert_eq!(redis_publish("c", &1).await.unwrap_err().kind(), ErrorKind::NotStarted);
    /// assert_eq!(CacheManager::new("c").invalidate("k").await.unwrap_err().kind(), ErrorKind::NotStarted);
    ///
    /// let first = init_redis("memory://").await?;
    /// let _second = init_redis("memory://").await?; // the first one stays the default
    /// let _subscription = first.subscribe("c").await?;
    /// assert_eq!(redis_publish("c", &1).await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn current() -> Result<Self> {
        let current = Current::require()?;
        let runtime = match current.runtime {
            CurrentRuntime::Strong(runtime) => Some(runtime),
            CurrentRuntime::Weak(runtime) => runtime.upgrade(),
        };
        let runtime = runtime.and_then(|runtime| runtime.downcast::<Runtime>().ok());
        runtime.map(Self).ok_or_else(|| Error::new(ErrorKind::Closed, "messaging has been shut down"))
    }

    /// Gives handlers state that could only be made with the handle itself, such as a
    /// [`Repository`](crate::Repository).
    ///
    /// # Errors
    /// [`ErrorKind::Registration`] after [`start`](Self::start), or if there is state of this type already.
    pub fn provide<T: Send + Sync + 'static>(&self, state: T) -> Result<()> {
        let name = std::any::type_name::<T>();
        if *lock(&self.0.phase) != Phase::Built {
            let text = format!("state of type `{name}` was provided after start; handlers would not see it");
            return Err(Error::new(ErrorKind::Registration, text));
        }
        if lock(&self.0.states).insert(Arc::new(state)) {
            return Ok(());
        }
        let text = format!("state of type `{name}` was given twice; wrap one of them in a type of its own");
        Err(Error::new(ErrorKind::Registration, text))
    }

    /// Starts every registered handler (see [`Builder::handlers`]) and returns when all their subscriptions are
    /// confirmed. If the process has no default messaging yet, this one becomes it.
    ///
    /// # Errors
    /// [`ErrorKind::Registration`] names everything that handlers lack. Without Redis it fails after 5 seconds, unless
    /// `MESSAGING_START=wait`. A subscription that Redis refuses fails it at once. After an error nothing runs.
    ///
    /// # Cancellation
    /// Handlers that were started are stopped.
    pub async fn start(&self) -> Result<Running> {
        let running = self.start_without_default().await?;
        self.current_weak().install();
        Ok(running)
    }

    /// As [`start`](Self::start), leaving the process's default alone.
    pub(crate) async fn start_without_default(&self) -> Result<Running> {
        {
            let mut phase = lock(&self.0.phase);
            if *phase != Phase::Built {
                return Err(Error::new(ErrorKind::Registration, "messaging has been started already"));
            }
            *phase = Phase::Starting;
        }
        let mut starting = Starting { messaging: Some(self), tasks: Vec::new() };
        let until = Instant::now() + START_PATIENCE;
        let states = lock(&self.0.states).clone();
        let registered = self.core().registry.handlers.iter();
        let all: Vec<_> = registered.map(|handler| Arc::new(HandlerSpec::from(*handler))).collect();
        let handlers = self.0.selected.select(&all)?;
        check_needs(&handlers, &states)?;
        match self.core().config.start {
            StartPolicy::Wait => self.connected().await?,
            StartPolicy::Fail => {
                let last = Mutex::new(None);
                let connected = self.connected_noting(&last);
                tokio::time::timeout_at(until, connected).await.unwrap_or_else(|_| {
                    let reason = lock(&last).take();
                    Err(reason.unwrap_or_else(|| self.not_there("it did not answer")))
                })?;
            }
        }
        self.start_handlers(&handlers, states, until, &mut starting.tasks).await?;
        starting.succeeded();
        self.report_abandoned();
        #[cfg(feature = "metrics")]
        self.core().background.spawn(report::report(self.runtime(), Arc::clone(self.core())));
        for warning in describe().warnings {
            tracing::warn!("{warning}");
        }
        let endpoint = &self.core().config.endpoint;
        tracing::info!(handlers = handlers.len(), %endpoint, "messaging started");
        Ok(Running(self.clone()))
    }

    /// [`start`](Self::start), then waits for SIGINT or SIGTERM, then [`shutdown`](Running::shutdown) within
    /// `MESSAGING_DRAIN_TIMEOUT`.
    ///
    /// # Errors
    /// As `start`.
    pub async fn run(&self) -> Result<()> {
        // Before the first handler runs: from then on a signal has to be answered by draining.
        let terminated = terminated();
        let running = self.start().await?;
        running.end_on(terminated).await;
        Ok(())
    }

    /// Publishes a message: `messaging.publish("channel", &payload).await?`. It returns the number of receivers, as
    /// Redis counts them; 0 means that nobody is subscribed. On a cluster every node passes the message on, and counts only
    /// its own receivers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`], [`ErrorKind::Encode`] and [`ErrorKind::PayloadTooLarge`] before anything is sent;
    /// otherwise [`Error::is_not_sent`] tells whether the message certainly reached nobody.
    ///
    /// # Delivery
    /// At most once, to whoever is subscribed now. Cached values that the message makes out of date are removed before
    /// it is published.
    pub fn publish<C: ToChannel + ?Sized, T: Serialize + ?Sized>(&self, channel: &C, payload: &T) -> Publish {
        Publish::new(self.core(), channel, payload)
    }

    /// Publishes the event of an operation on a model; returns the number of receivers. An operation that the model
    /// does not publish publishes nothing.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); also if the value of a placeholder is not valid.
    ///
    /// # Cancellation
    /// The event is captured at once and published even if the future is dropped after its first poll.
    pub async fn emit<M: Model>(&self, op: Op, model: &M) -> Result<u64> {
        self.emit_change(Change::capture(model, op, None)?).await
    }

    /// Publishes the update event of a model with what it was before: for models with `previous` fields, and so that
    /// cached values under an old key are removed.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub async fn emit_changed<M: Model>(&self, old: &M, new: &M) -> Result<u64> {
        self.emit_change(Change::capture(new, Op::Update, Some(old))?).await
    }

    /// Publishes events that were captured before, in their order and as many at once as can be; what each came to.
    /// Where one fails, those that have to stay in [order](PendingEvent::order) with it fail too, with
    /// [`ErrorKind::Held`]; where there is no connection, all that follow.
    ///
    /// # Delivery
    /// An event whose fate is unknown may be published again: it has the same id.
    ///
    /// # Cancellation
    /// They are published even if the future is dropped after its first poll.
    pub async fn publish_pending(&self, events: Vec<PendingEvent>) -> Vec<Result<()>> {
        let core = Arc::clone(self.core());
        to_the_end(self.core(), async move { pending::publish(&core, events).await }).await
    }

    /// Runs a service beside the handlers: it is started by [`start`](Self::start), or at once if that has been done, and
    /// ended by shutting down.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after shutting down.
    pub fn attach(&self, service: impl Service) -> Result<()> {
        let service: Arc<dyn Service> = Arc::new(service);
        let phase = lock(&self.0.phase);
        match *phase {
            Phase::ShutDown => return Err(Error::new(ErrorKind::Closed, "messaging has been shut down")),
            Phase::Running => self.run_service(&service),
            Phase::Built | Phase::Starting => {}
        }
        lock(&self.0.services).0.push(service);
        Ok(())
    }

    fn run_service(&self, service: &Arc<dyn Service>) {
        let stop = self.core().draining.clone();
        let running = Arc::clone(service).run(Box::pin(async move { stop.cancelled().await }));
        self.core().work.spawn(self.current_weak().scope(running));
    }

    /// Notes events that nobody will hear of: the changes that they tell of were made.
    #[doc(hidden)]
    pub fn note_lost_events(&self, events: u64) {
        self.core().lost_events.add(events);
    }

    /// Whether it has been shut down.
    #[doc(hidden)]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core().has_ended() || self.core().work.is_closed()
    }

    /// Runs work to its end even if the caller is dropped; shutting down waits for it.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after shutting down; then nothing was begun.
    #[doc(hidden)]
    pub async fn to_the_end<T: Send + 'static>(&self, work: BoxFuture<'static, T>) -> Result<T> {
        let core = self.core();
        if self.is_closed() {
            return Err(Error::new(ErrorKind::Closed, "messaging has been shut down").before_sending());
        }
        Ok(match Current::get() {
            Some(current) => to_the_end(core, current.scope(work)).await,
            None => to_the_end(core, work).await,
        })
    }

    async fn emit_change(&self, change: Change) -> Result<u64> {
        let core = Arc::clone(self.core());
        to_the_end(self.core(), async move { change.publish(&core).await }).await
    }

    /// Subscribes to a channel, a template or a glob, and returns when Redis has confirmed it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`]; [`ErrorKind::Refused`] by an ACL; [`ErrorKind::Timeout`] if Redis has not
    /// confirmed within `MESSAGING_CONNECT_TIMEOUT`.
    ///
    /// # Cancellation
    /// Dropping the future unsubscribes.
    pub async fn subscribe<P: ToPattern + ?Sized>(&self, pattern: &P) -> Result<Subscription> {
        self.open_subscription(pattern.to_pattern()?, Carrier::Broadcast).await
    }

    /// Subscribes to one sharded channel, from Redis 7.0 on: it gets what is published with
    /// [`sharded`](Publish::sharded), and nothing else. Returns when Redis has confirmed it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`] if it is a template or a glob, which Redis cannot do here; otherwise as
    /// [`subscribe`](Self::subscribe).
    ///
    /// # Cancellation
    /// Dropping the future unsubscribes.
    pub async fn subscribe_sharded<P: ToPattern + ?Sized>(&self, channel: &P) -> Result<Subscription> {
        let pattern = channel.to_pattern()?;
        match pattern {
            Pattern::Exact(_) => self.open_subscription(pattern, Carrier::Sharded).await,
            _ => {
                let text =
                    format!("{:?} is not one channel; sharded channels have no patterns", pattern.as_str());
                Err(Error::new(ErrorKind::InvalidChannel, text).before_sending())
            }
        }
    }

    async fn open_subscription(&self, pattern: Pattern, carrier: Carrier) -> Result<Subscription> {
        Subscription::open(self.alive(), self.core(), self.session(), pattern, carrier).await
    }

    /// The past of a durable channel, template or glob, as far as it is kept, oldest first:
    /// `messaging.history("orders.created").since(position).limit(100).await?`.
    ///
    /// # Errors
    /// See [`History`].
    pub fn history<P: ToPattern + ?Sized>(&self, pattern: &P) -> History {
        History::new(self.core(), pattern.to_pattern())
    }

    /// The streams that may carry a durable channel, template or glob: those that somebody has registered, and those that
    /// this process makes by its configuration and its models. Sorted. Others may come up later, so that who follows them
    /// asks again now and then.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`]; otherwise what the backend says.
    pub async fn streams_of<P: ToPattern + ?Sized>(&self, pattern: &P) -> Result<Vec<StreamRef>> {
        follow::streams_of(self.core(), &pattern.to_pattern()?).await
    }

    /// Where a stream ends, and which incarnation of it that is; one that is not there ends where it will begin. Whoever
    /// keeps numbers asks again after [`Followed::Restored`](crate::Followed::Restored), and when they go back: then the
    /// epoch may be another one. It is kept for at least 60 days after it was asked for, which following a stream does
    /// by itself.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn stream_end(&self, stream: &StreamRef) -> Result<StreamEnd> {
        follow::stream_end(self.core(), stream, None).await
    }

    /// The same for whoever has seen the numbers of a stream go back under an epoch, as after a failover that has lost entries: that
    /// epoch is over then, for everybody, and another one begins, if nobody has begun it yet.
    ///
    /// # Errors
    /// As [`stream_end`](Self::stream_end).
    pub async fn stream_end_after(&self, stream: &StreamRef, epoch: &str) -> Result<StreamEnd> {
        follow::stream_end(self.core(), stream, Some(epoch)).await
    }

    /// The entries of a stream that are older than `before`, the youngest first, and at most `most` of them: with the
    /// oldest of them asked again, it goes back to the beginning. Fewer mean that there are no more.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// use messaging_core::Messaging;
    ///
    /// let messaging = Messaging::builder().url("memory://").build().await?;
    /// for number in 1..=3 {
    ///     messaging.publish("orders.created", &number).durable().await?;
    /// }
    /// let stream = &messaging.streams_of("orders.created").await?[0];
    /// let end = messaging.stream_end(stream).await?;
    /// let before = messaging.stream_before(stream, end.position.id, 10).await?;
    /// let numbers: Vec<u64> = before.iter().map(|entry| entry.position.number).collect();
    /// assert_eq!((end.position.number, numbers), (3, vec![2, 1]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the backend says.
    pub async fn stream_before(
        &self,
        stream: &StreamRef,
        before: EntryId,
        most: usize,
    ) -> Result<Vec<StreamEntry>> {
        follow::stream_before(self.core(), stream, before, most).await
    }

    /// Reads streams of durable channels as they grow, each entry once; none as long as none is
    /// [added](crate::FollowHandle::add).
    pub fn follow(&self) -> Follow {
        Follow::new(self.core())
    }

    /// Who is present on a channel: joining and leaving, who is there, and what changes. A channel that is not valid is
    /// refused when it is used.
    #[must_use]
    pub fn presence<C: ToChannel + ?Sized>(&self, channel: &C) -> Presence {
        Presence::new(self.clone(), channel)
    }

    /// How the queues are: of every group, in this process or elsewhere, what waits and how many processes handle it.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn queues(&self) -> Result<Vec<QueueState>> {
        queues::queues(self.core()).await
    }

    /// What a group of queue handlers has given up: the option `group`, or else the handler's id.
    #[must_use]
    pub fn dead_letters(&self, group: &str) -> DeadLetters {
        DeadLetters::new(self.core(), group)
    }

    /// What is known of the whole deployment, for whoever looks after it.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(self.core())
    }

    /// Adds handlers at run time.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber::new(self.clone())
    }

    /// Cached values under a prefix; an empty one takes full keys.
    #[must_use]
    pub fn cache(&self, prefix: &str) -> CacheManager {
        CacheManager::with_core(prefix, Arc::clone(self.core()))
    }

    /// What can be asked of the server itself.
    #[must_use]
    pub fn client(&self) -> RedisClient {
        RedisClient::new(Arc::clone(self.core()))
    }

    /// How messaging is, right now.
    #[must_use]
    pub fn health(&self) -> Health {
        let sessions = self.0.session.get().map(Session::health);
        let tasks = lock(&self.0.tasks).clone();
        let services = lock(&self.0.services).clone();
        Health::new(self.core(), *lock(&self.0.phase), sessions, &tasks, &services, self.0.node.health())
    }

    pub(crate) fn tasks(&self) -> Vec<Arc<HandlerTask>> {
        lock(&self.0.tasks).clone()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.core().config
    }

    /// Makes this the current messaging for a future and everything it awaits: cached functions and the free functions
    /// use it, whatever the process's default is.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        let _alive = self.clone();
        self.current_weak().scope(future).await
    }

    /// Spawns a task that has this as its current messaging, and within a handler the trace of its message.
    ///
    /// # Cancellation
    /// Dropping the handle leaves the task running, as with [`tokio::spawn`]. Shutting down does not wait for it.
    pub fn spawn<F: Future<Output: Send + 'static> + Send + 'static>(
        &self,
        future: F,
    ) -> JoinHandle<F::Output> {
        tokio::spawn(trace::within(Trace::handled(), self.current_weak().scope(future)))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    pub(crate) fn current_strong(&self) -> Current {
        let runtime: Arc<dyn Any + Send + Sync> = Arc::clone(&self.0) as _;
        Current { core: Arc::clone(self.core()), runtime: CurrentRuntime::Strong(runtime) }
    }

    fn current_weak(&self) -> Current {
        let runtime: Weak<dyn Any + Send + Sync> = Arc::downgrade(&self.0) as _;
        Current { core: Arc::clone(self.core()), runtime: CurrentRuntime::Weak(runtime) }
    }

    /// What keeps it alive.
    pub(crate) fn alive(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.0) as _
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    /// The subscription connection that handlers and subscriptions share.
    pub(crate) fn session(&self) -> &Session {
        self.0.session.get_or_init(|| {
            let core = self.core();
            Session::start(
                "subscriptions",
                "subscriptions",
                Arc::clone(&core.backend),
                &core.config,
                &core.background,
                core.stop.clone(),
            )
        })
    }

    pub(crate) fn setup(&self, states: States) -> Setup {
        Setup {
            core: Arc::clone(self.core()),
            current: self.current_weak(),
            states,
            error_handler: self.0.error_handler.clone(),
            observer: self.0.observer.clone(),
            session: self.session().clone(),
        }
    }

    pub(crate) fn states(&self) -> States {
        lock(&self.0.states).clone()
    }

    pub(crate) fn runtime(&self) -> Weak<Runtime> {
        Arc::downgrade(&self.0)
    }

    pub(crate) async fn connected(&self) -> Result<()> {
        self.connected_noting(&Mutex::new(None)).await
    }

    /// Waits until Redis answers. Only what cannot get better by itself is an error.
    async fn connected_noting(&self, last: &Mutex<Option<Error>>) -> Result<()> {
        let core = self.core();
        let mut attempt = 0;
        loop {
            let error = match core.backend.ping().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let hopeless = matches!(error.kind(), ErrorKind::Refused | ErrorKind::Configuration);
            if hopeless && core.config.start == StartPolicy::Fail {
                return Err(error);
            }
            if attempt == 0 {
                tracing::warn!(error = %chain(&error), "redis is not there yet; trying again");
            }
            *lock(last) = Some(error);
            tokio::time::sleep(core.config.reconnect.delay(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn start_handlers(
        &self,
        handlers: &[Arc<HandlerSpec>],
        states: States,
        until: Instant,
        tasks: &mut Vec<Arc<HandlerTask>>,
    ) -> Result<()> {
        let setup = self.setup(states);
        for handler in handlers {
            let task = HandlerTask::start(handler, &setup)?;
            tasks.push(Arc::clone(&task));
            self.0.adopt(&task)?;
        }
        let cache = &self.core().cache;
        let listener = cache.listener();
        let confirmed = async {
            if let Some(listener) = listener {
                let confirmed = self.patiently(|| listener.ready(cache)).await;
                confirmed.map_err(|error| error.context("subscribe to the events of invalidate_on"))?;
            }
            join_all(tasks.iter().map(|task| self.patiently(|| task.confirmed())))
                .await
                .into_iter()
                .collect::<Result<Vec<()>>>()
        };
        match self.core().config.start {
            StartPolicy::Wait => confirmed.await?,
            StartPolicy::Fail => tokio::time::timeout_at(until, confirmed).await.unwrap_or_else(|_| {
                Err(self
                    .not_there(&format!("it did not confirm the subscriptions within {START_PATIENCE:?}")))
            })?,
        };
        Ok(())
    }

    /// Looks, once the groups of our own handlers are there, for those that nobody handles.
    fn report_abandoned(&self) {
        let (core, stop) = (Arc::clone(self.core()), self.core().stop.clone());
        self.core().background.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = queues::report_abandoned(&core) => {}
            }
        });
    }

    /// Waits for a confirmation; whoever waits for Redis waits also for an ACL that refuses.
    async fn patiently<F: Future<Output = Result<()>>>(&self, confirmed: impl Fn() -> F) -> Result<()> {
        loop {
            match confirmed().await {
                Err(error)
                    if error.kind() == ErrorKind::Refused
                        && self.core().config.start == StartPolicy::Wait =>
                {
                    tokio::time::sleep(self.core().config.reconnect.max).await;
                }
                confirmed => return confirmed,
            }
        }
    }

    fn not_there(&self, reason: &str) -> Error {
        let endpoint = &self.core().config.endpoint;
        Error::new(ErrorKind::Connection, format!("cannot use redis at {endpoint}: {reason}"))
            .before_sending()
    }
}

impl Runtime {
    /// Takes up a handler that was added at run time; `Err` if its id is taken or everything is ending.
    pub(crate) fn adopt(&self, task: &Arc<HandlerTask>) -> Result<()> {
        if *lock(&self.phase) == Phase::ShutDown {
            return Err(Error::new(ErrorKind::Closed, "messaging has been shut down"));
        }
        let mut tasks = lock(&self.tasks);
        if tasks.iter().any(|other| other.running.id == task.running.id) {
            let text = format!(
                "there is a handler with the id `{}` already; give this one another id",
                task.running.id
            );
            return Err(Error::new(ErrorKind::Registration, text));
        }
        tasks.push(Arc::clone(task));
        Ok(())
    }

    pub(crate) fn release(&self, task: &Arc<HandlerTask>) {
        lock(&self.tasks).retain(|other| !Arc::ptr_eq(other, task));
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.core.end();
    }
}

/// Undoes a start that did not succeed: ends what it has started, and nothing else.
struct Starting<'m> {
    messaging: Option<&'m Messaging>,
    tasks: Vec<Arc<HandlerTask>>,
}

impl Starting<'_> {
    fn succeeded(mut self) {
        if let Some(messaging) = self.messaging.take() {
            let mut phase = lock(&messaging.0.phase);
            *phase = Phase::Running;
            lock(&messaging.0.services).0.iter().for_each(|service| messaging.run_service(service));
        }
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        let Some(messaging) = self.messaging else { return };
        for task in self.tasks.drain(..) {
            messaging.0.release(&task);
            task.abandon();
        }
        *lock(&messaging.0.phase) = Phase::Built;
    }
}

impl fmt::Debug for Messaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messaging").field("endpoint", &self.core().config.endpoint).finish_non_exhaustive()
    }
}

impl<'d> FromDelivery<'d> for Messaging {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        Self::from_context(delivery.context()).map_err(Rejection::failed)
    }
}

impl FromContext for Messaging {
    fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let runtime = context.state::<WeakMessaging>().and_then(|weak| weak.0.upgrade());
        runtime.map(Self).ok_or_else(|| HandlerError::skip("messaging has been shut down"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
