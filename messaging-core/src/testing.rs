//! Testing handlers and cached functions without a server.

mod seen;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

pub use seen::{Calls, Published};

use crate::backend::{Backend, Memory};
use crate::cache::CacheStats;
use crate::channel::ToPattern;
use crate::config::Config;
use crate::core::Core;
use crate::dispatch::Seen;
use crate::error::{Error, ErrorKind, Result};
use crate::handlers::HandlerTask;
use crate::health::{HandlerState, Health};
use crate::json;
use crate::messaging::{Builder, Messaging, Running};
use crate::session::SessionHealth;

/// How long a fault, or the recovery from one, may take to be noticed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has been.
const LOOK: Duration = Duration::from_millis(1);

/// A [`Messaging`] for tests: in memory, private to the test, with all its handlers started. It derefs to
/// [`Messaging`]; cached functions and free functions use it inside [`scope`](Messaging::scope).
///
/// It never becomes the process's default, so that tests can run side by side.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::{Handlers, TestMessaging};
///
/// let test = TestMessaging::with(|builder| builder.handlers(Handlers::none())).await?;
/// test.subscriber().id("bill").on("orders.created", async |_order: u64| {}).await?;
/// test.publish("orders.created", &42).await?;
/// test.settled().await;
/// test.handler("bill").called(1).called_with(&42);
/// test.published("orders.*").times(1).with(&42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestMessaging {
    running: Running,
    seen: Arc<Mutex<HashMap<String, Vec<Seen>>>>,
}

impl TestMessaging {
    /// Starts all handlers that are linked into this test.
    ///
    /// # Errors
    /// As [`Messaging::start`]: state that handlers need is given with [`with`](Self::with).
    pub async fn start() -> Result<Self> {
        Self::with(|builder| builder).await
    }

    /// Starts with state, or with a choice of handlers. The backend stays `memory://`.
    ///
    /// # Errors
    /// As [`Messaging::start`].
    pub async fn with(set_up: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        Self::with_provided(set_up, |_| Ok(())).await
    }

    /// As [`with`](Self::with), with state that needs the handle itself, such as a
    /// [`Repository`](crate::Repository).
    ///
    /// # Errors
    /// As [`Messaging::start`], and those of `provide`.
    pub async fn with_provided(
        set_up: impl FnOnce(Builder) -> Builder,
        provide: impl FnOnce(&Messaging) -> Result<()>,
    ) -> Result<Self> {
        let seen = Arc::<Mutex<HashMap<String, Vec<Seen>>>>::default();
        let record = {
            let seen = Arc::clone(&seen);
            move |handler: &str, call: Seen| lock(&seen).entry(handler.to_owned()).or_default().push(call)
        };
        let builder =
            set_up(Messaging::builder().config(Config::new("memory://")?)).observer(Arc::new(record));
        let messaging = builder.build().await?;
        let Some(memory) = memory(messaging.core()) else {
            let text = format!("a test runs on memory://, not on {}", messaging.config().endpoint);
            return Err(Error::new(ErrorKind::Configuration, text));
        };
        memory.note_published();
        provide(&messaging)?;
        let running = messaging.start_without_default().await?;
        Ok(Self { running, seen })
    }

    /// Stops this test's clock, that of tokio: from now on time passes only when everything waits for it, or by
    /// [`advance`](Self::advance). Delays, timeouts and the lives of cached values cost no time then. A test with
    /// `#[tokio::test(start_paused = true)]` has such a clock from its beginning, and does not call this.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// # use messaging_core::{Handlers, TestMessaging};
    /// use std::time::Duration;
    ///
    /// let test = TestMessaging::with(|builder| builder.handlers(Handlers::none())).await?.paused();
    /// test.cache("session").set("42", "ada", Duration::from_secs(3600)).await?;
    /// test.advance(Duration::from_secs(3599)).await;
    /// assert_eq!(test.cached("session:42"), Some("ada".to_owned()));
    /// test.advance(Duration::from_secs(1)).await;
    /// assert_eq!(test.cached::<String>("session:42"), None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the clock is stopped already, or the runtime has several threads.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn paused(self) -> Self {
        tokio::time::pause();
        self
    }

    /// Lets time pass: what is due meanwhile happens in its order, and what follows from it has been handled when this
    /// returns. A clock that is not [stopped](Self::paused) takes its time.
    #[cfg(feature = "testing")]
    pub async fn advance(&self, time: Duration) {
        // Not `tokio::time::advance`, with which all that is due would be due at once.
        sleep(time).await;
        self.settled().await;
    }

    /// Waits until everything that was published has been handled, and everything that handlers published in turn, and
    /// until handlers with `resync` have caught up with their gaps. Messages in the hands of a
    /// [`Subscription`](crate::Subscription) do not count.
    pub async fn settled(&self) {
        self.core().activity.idle().await;
    }

    /// The calls of a handler so far, failed ones included, in the order in which they ended. The id may be shortened
    /// to its last parts, as long as it is clear: `notify_admins` for `service::notify_admins`.
    #[must_use]
    pub fn seen(&self, handler: &str) -> Vec<Seen> {
        let seen = lock(&self.seen);
        seen.iter()
            .filter(|(id, _)| is_called(id, handler))
            .flat_map(|(_, calls)| calls.iter().cloned())
            .collect()
    }

    /// The calls of a handler that runs, to assert something of them. The id may be shortened to its last parts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// # use messaging_core::{HandlerError, Handlers, TestMessaging};
    /// # let test = TestMessaging::with(|builder| builder.handlers(Handlers::none())).await?;
    /// let bill = async |order: u64| if order == 0 { Err(HandlerError::skip("no such order")) } else { Ok(()) };
    /// test.subscriber().id("bill").on("orders.created", bill).await?;
    /// test.publish("orders.created", &42).await?;
    /// test.publish("orders.created", &0).await?;
    /// test.settled().await;
    /// test.handler("bill").called(2).called_with(&42).failed(1);
    /// assert_eq!(test.handler("bill").payloads::<u64>(), [42, 0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If no such handler runs, or several do.
    #[track_caller]
    pub fn handler(&self, handler: &str) -> Calls {
        let tasks = self.tasks();
        let ids: Vec<&str> = tasks.iter().map(|task| &*task.running.id).collect();
        let id = the_one("handler", handler, &ids);
        let calls = lock(&self.seen).get(id).cloned().unwrap_or_default();
        Calls { handler: id.to_owned(), calls }
    }

    /// What has been published through this messaging on a channel, a template or a glob: by the test, by handlers, by
    /// repositories; in its order.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// # use messaging_core::{Handlers, TestMessaging};
    /// # let test = TestMessaging::with(|builder| builder.handlers(Handlers::none())).await?;
    /// test.publish("camera.updated", &1).await?;
    /// test.publish("camera.deleted", &2).await?;
    /// test.published("camera.updated").times(1).with(&1);
    /// assert_eq!(test.published("camera.*").payloads::<u64>(), [1, 2]);
    /// test.published("user.{id}").times(0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the pattern is not valid.
    #[track_caller]
    pub fn published<P: ToPattern + ?Sized>(&self, pattern: &P) -> Published {
        let pattern = pattern.to_pattern().unwrap_or_else(|error| panic!("published(…): {error}"));
        let all = self.memory().published();
        let (messages, others) = all.into_iter().partition(|(channel, _)| pattern.matches(channel));
        Published { pattern: pattern.as_str().to_owned(), messages, others }
    }

    /// The value that is cached under a key, by a cached function or by hand; `None` if there is none. The key is the
    /// whole one, such as `price:tea`. What `local` keeps in the process is not looked at.
    ///
    /// # Panics
    /// If there is one of another shape.
    #[track_caller]
    #[must_use]
    pub fn cached<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let value = self.memory().look(&self.core().cache.key(key)).value?;
        let decoded = json::decode(&value);
        Some(decoded.unwrap_or_else(|error| {
            let wanted = std::any::type_name::<T>();
            panic!("what is cached under {key:?} is no `{wanted}`: {}: {error}", json::excerpt(&value))
        }))
    }

    /// The keys under which something is cached, sorted.
    #[must_use]
    pub fn cached_keys(&self) -> Vec<String> {
        let prefix = match self.config().cache_prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}:"),
        };
        let keys = self.memory().cached_keys();
        keys.iter().filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    /// What a cached function has done: its hits, misses and loads. The id may be shortened to its last parts.
    ///
    /// # Panics
    /// If there is no such function, or several.
    #[track_caller]
    #[must_use]
    pub fn cache_stats(&self, function: &str) -> CacheStats {
        let mut all = self.core().cache.stats();
        let ids: Vec<&str> = all.iter().map(|stats| stats.function.as_str()).collect();
        let id = the_one("cached function", function, &ids).to_owned();
        let place = all.iter().position(|stats| stats.function == id).expect("it is one of them");
        all.swap_remove(place)
    }

    /// Cuts all connections, as a network that fails for a moment does, and returns when everything is subscribed again:
    /// handlers with `resync` are told of a gap, subscriptions get an error of the kind [`ErrorKind::Gap`], and what was
    /// on its way to this process is lost, unless a stream has it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// # use messaging_core::{ErrorKind, Handlers, TestMessaging};
    /// # let test = TestMessaging::with(|builder| builder.handlers(Handlers::none())).await?;
    /// let mut prices = test.subscribe("prices").await?;
    /// test.kill_connections().await;
    /// test.publish("prices", &5).await?;
    /// assert_eq!(prices.get_message(None).await.unwrap_err().kind(), ErrorKind::Gap);
    /// assert_eq!(prices.get_message(None).await?.unwrap().json::<u64>()?, 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If that has not happened after ten seconds.
    pub async fn kill_connections(&self) {
        let before = self.health();
        self.memory().cut();
        let reconnected = |health: &Health| {
            health.sessions.iter().all(|session| {
                let earlier = before.sessions.iter().find(|earlier| earlier.name == session.name);
                let had = earlier.filter(|earlier| earlier.in_use && earlier.connected);
                had.is_none_or(|had| session.reconnects > had.reconnects || !session.in_use)
            })
        };
        self.wait_for("the connections that were cut are noticed", reconnected).await;
        self.recovered().await;
    }

    /// Takes Redis away until the guard is dropped: publishing fails with an error of the kind
    /// [`ErrorKind::Connection`] that [is not sent](Error::is_not_sent), cached functions are called without the cache, and
    /// handlers are [deaf](HandlerState::Deaf). It returns when that has been noticed. What was stored is there
    /// afterwards, and everything recovers by itself: [`recovered`](Self::recovered) waits for that.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// # use messaging_core::{ErrorKind, Handlers, TestMessaging};
    /// # let test = TestMessaging::with(|builder| builder.handlers(Handlers::none())).await?;
    /// let down = test.redis_down().await;
    /// let error = test.publish("orders.created", &42).await.unwrap_err();
    /// assert!(error.kind() == ErrorKind::Connection && error.is_not_sent());
    /// drop(down);
    /// test.recovered().await;
    /// test.publish("orders.created", &42).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If it has not been noticed after ten seconds.
    pub async fn redis_down(&self) -> RedisDown {
        let down = RedisDown(Arc::clone(self.core()));
        self.memory().set_down(true);
        let noticed = |health: &Health| {
            let hears = |handler: &crate::HandlerHealth| handler.state == HandlerState::Running;
            !health.sessions.iter().any(|session| session.connected) && !health.handlers.iter().any(hears)
        };
        self.wait_for("that redis is down is noticed", noticed).await;
        down
    }

    /// Waits until everything is subscribed, handlers run, cached functions can use the cache, and everything has been
    /// handled.
    ///
    /// # Panics
    /// If that has not happened after ten seconds.
    pub async fn recovered(&self) {
        let sound = |session: &SessionHealth| {
            !session.in_use || (session.connected && session.unconfirmed.is_empty())
        };
        let recovered = |health: &Health| {
            health.sessions.iter().all(sound)
                && !health.handlers.iter().any(|handler| handler.state == HandlerState::Deaf)
        };
        self.wait_for("everything has recovered", recovered).await;
        // Gaps are announced right after that, before the next answer.
        for task in self.tasks().iter().filter(|task| !task.is_stopped()) {
            let _ = task.confirmed().await;
        }
        let cache = &self.core().cache;
        if let Some(listener) = cache.started_listener() {
            let _ = listener.ready(cache).await;
        }
        self.settled().await;
    }

    /// Removes the group of queue handlers from its streams, as `XGROUP DESTROY` does, and returns when the handlers of
    /// this test have made it anew, which they do by themselves. Nothing is lost; what they had in hand may come again. The
    /// name may be shortened to its last parts.
    ///
    /// # Panics
    /// If no handler of this test is in such a group, no stream has it yet, or it has not come back after ten seconds.
    pub async fn lose_group(&self, group: &str) {
        let (group, _) = self.queue(group);
        let lost = self.memory().lose_group(&group);
        assert!(lost > 0, "no stream has the group `{group}` yet: publish something durable first");
        let is_back = |_: &Health| self.memory().streams_with_group(&group) >= lost;
        self.wait_for("the group is made anew", is_back).await;
    }

    /// The next durable message on a channel of the group's handler comes to it twice, as when its publisher was not told
    /// that it had arrived and published it again: both have the same id, so that a handler with `dedupe` passes over
    /// the second one. The name may be shortened to its last parts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// # use messaging_core::{DeliveryMode, Handlers, TestMessaging};
    /// # let test = TestMessaging::with(|builder| builder.handlers(Handlers::none())).await?;
    /// let queue = test.subscriber().id("bill").group("billing").delivery(DeliveryMode::Queue);
    /// queue.on("orders.created", async |_order: u64| {}).await?;
    /// test.duplicate("billing");
    /// test.publish("orders.created", &42).durable().await?;
    /// test.settled().await;
    /// test.handler("bill").called(2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If no handler of this test is in such a group.
    #[track_caller]
    pub fn duplicate(&self, group: &str) {
        let (group, task) = self.queue(group);
        self.memory().duplicate(&task.running.patterns, &group);
    }

    /// The group, and a handler that is in it.
    #[track_caller]
    fn queue(&self, group: &str) -> (String, Arc<HandlerTask>) {
        let tasks = self.tasks();
        let group_of = |task: &Arc<HandlerTask>| task.source.consumer()?.group().map(str::to_owned);
        let mut groups: Vec<_> = tasks.iter().filter_map(group_of).collect();
        groups.sort_unstable();
        groups.dedup();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let group = the_one("group of a queue", group, &groups);
        let task = tasks.iter().find(|task| group_of(task).as_deref() == Some(group));
        (group.to_owned(), Arc::clone(task.expect("the group is that of a handler")))
    }

    async fn wait_for(&self, what: &str, is_so: impl Fn(&Health) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let health = self.health();
            if is_so(&health) {
                return;
            }
            assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}: {health:#?}");
            sleep(LOOK).await;
        }
    }

    fn tasks(&self) -> Vec<Arc<HandlerTask>> {
        self.running.messaging().tasks()
    }

    fn memory(&self) -> &Memory {
        memory(self.core()).expect("a test was started on memory")
    }
}

impl Deref for TestMessaging {
    type Target = Messaging;

    fn deref(&self) -> &Messaging {
        self.running.messaging()
    }
}

/// Redis is away for as long as this lives; from [`TestMessaging::redis_down`].
#[derive(Debug)]
#[must_use = "dropped, redis is there again"]
pub struct RedisDown(Arc<Core>);

impl Drop for RedisDown {
    fn drop(&mut self) {
        if let Some(memory) = memory(&self.0) {
            memory.set_down(false);
        }
    }
}

fn memory(core: &Core) -> Option<&Memory> {
    match &*core.backend {
        Backend::Memory(memory) => Some(memory),
        Backend::Redis(_) => None,
    }
}

fn is_called(id: &str, wanted: &str) -> bool {
    id == wanted || id.strip_suffix(wanted).is_some_and(|rest| rest.ends_with("::"))
}

/// The one of `ids` that is meant.
#[track_caller]
fn the_one<'i>(what: &str, wanted: &str, ids: &[&'i str]) -> &'i str {
    let mut meant = ids.iter().filter(|id| is_called(id, wanted));
    match (meant.next(), meant.next()) {
        (Some(id), None) => id,
        (None, _) => panic!("there is no {what} `{wanted}`; there are: {}", ids.join(", ")),
        (Some(one), Some(other)) => panic!("`{wanted}` may be the {what} `{one}` or `{other}`"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
