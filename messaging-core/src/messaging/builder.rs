//! Building a [`Messaging`].

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::{Messaging, Phase, Runtime, WeakMessaging};
use crate::channel::{Pattern, ToPattern};
use crate::config::Config;
use crate::core::Core;
use crate::dispatch::{ErrorContext, ErrorHandler, Observer, States};
use crate::error::{Error, ErrorAction, ErrorKind, HandlerError, Result};
use crate::handlers::Handlers;
use crate::presence::Node;
use crate::stream::Durability;

/// Makes a [`Messaging`].
#[must_use = "nothing happens before `build`"]
pub struct Builder {
    config: Option<Result<Config>>,
    states: States,
    given_twice: Option<&'static str>,
    selected: Handlers,
    error_handler: Option<ErrorHandler>,
    observer: Option<Observer>,
    durable: Result<Vec<(Pattern, Durability)>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            config: None,
            states: States::default(),
            given_twice: None,
            selected: Handlers::all(),
            error_handler: None,
            observer: None,
            durable: Ok(Vec::new()),
        }
    }

    /// Takes these settings; without them they come from the environment, as [`Config::from_env`] reads it.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(Ok(config));
        self
    }

    /// Takes this URL, such as `memory://` or `redis://127.0.0.1:6379`, and the `MESSAGING_*` variables of the
    /// environment for the rest.
    pub fn url(mut self, url: &str) -> Self {
        self.config = Some(Config::from_env_at(url));
        self
    }

    /// Gives handlers a value that they take as [`State<T>`](crate::State); one of each type.
    pub fn state<T: Send + Sync + 'static>(mut self, state: T) -> Self {
        if !self.states.insert(Arc::new(state)) {
            self.given_twice.get_or_insert(std::any::type_name::<T>());
        }
        self
    }

    /// Gives the instance whose `#[subscribers]` methods are handlers. Handlers can also take it as
    /// [`State<T>`](crate::State).
    pub fn service<T: Send + Sync + 'static>(self, service: T) -> Self {
        self.state(service)
    }

    /// Chooses which of the registered handlers [`start`](Messaging::start) starts; without this, all of them.
    pub fn handlers(mut self, handlers: Handlers) -> Self {
        self.selected = handlers;
        self
    }

    /// Decides what becomes of failed calls. It overrides the handlers' retry policies and is overridden by what an
    /// error itself asks for ([`HandlerError::retry`], [`HandlerError::skip`]). `None` leaves it to the policy.
    pub fn error_handler<A: Into<Option<ErrorAction>>>(
        mut self,
        decide: impl Fn(&HandlerError, &ErrorContext) -> A + Send + Sync + 'static,
    ) -> Self {
        self.error_handler = Some(Arc::new(move |error, context| decide(error, context).into()));
        self
    }

    /// Makes channels durable, whoever of this process publishes on them: messages are also appended to a stream, from
    /// which handlers with `delivery = "queue"` or `"resumable"` read. The pattern is a channel, a template or a glob; two
    /// that overlap are refused when this is built.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// use messaging_core::{Messaging, Retention};
    /// use std::time::Duration;
    ///
    /// let hour = Retention { max_age: Duration::from_secs(3600), ..Retention::DEFAULT };
    /// let messaging = Messaging::builder().url("memory://").durable("orders.*", hour).build().await?;
    /// messaging.publish("orders.created", &42).await?;
    /// assert_eq!(messaging.history("orders.created").await?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn durable<P: ToPattern + ?Sized>(mut self, pattern: &P, durability: impl Into<Durability>) -> Self {
        if let Ok(durable) = &mut self.durable {
            match pattern.to_pattern() {
                Ok(pattern) => durable.push((pattern, durability.into())),
                Err(error) => self.durable = Err(error.context("a durable channel")),
            }
        }
        self
    }

    pub(crate) fn observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Checks the settings and everything that the attributes registered, and makes the handle. It connects to nothing;
    /// the first use does.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for a wrong setting, [`ErrorKind::Registration`] for two declarations of one id.
    #[allow(clippy::unused_async)] // Backends to come have to ask a server who they are.
    pub async fn build(self) -> Result<Messaging> {
        let config = match self.config {
            Some(config) => config?,
            None => Config::from_env()?,
        };
        if let Some(name) = self.given_twice {
            let text =
                format!("state of type `{name}` was given twice; wrap one of them in a type of its own");
            return Err(Error::new(ErrorKind::Registration, text));
        }
        let core = Core::new(config, self.durable?)?;
        Ok(Messaging(Arc::new_cyclic(|weak| {
            let mut states = self.states;
            states.insert(Arc::new(WeakMessaging(Weak::clone(weak))));
            Runtime {
                node: Node::new(&core),
                core,
                states: Mutex::new(states),
                selected: self.selected,
                error_handler: self.error_handler,
                observer: self.observer,
                session: OnceLock::new(),
                tasks: Mutex::default(),
                services: Mutex::default(),
                phase: Mutex::new(Phase::Built),
            }
        })))
    }
}
