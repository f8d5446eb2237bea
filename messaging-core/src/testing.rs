//! Testing handlers and cached functions without a server.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::dispatch::Seen;
use crate::error::{Error, ErrorKind, Result};
use crate::messaging::{Builder, Messaging, Running};

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
/// test.publish("orders.created", &42).await?;
/// test.settled().await;
/// assert!(test.seen("billing::bill").is_empty());
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
        if !messaging.is_memory() {
            let text = format!("a test runs on memory://, not on {}", messaging.config().endpoint);
            return Err(Error::new(ErrorKind::Configuration, text));
        }
        provide(&messaging)?;
        let running = messaging.start_without_default().await?;
        Ok(Self { running, seen })
    }

    /// Waits until everything that was published has been handled, and everything that handlers published in turn.
    /// Messages in the hands of a [`Subscription`](crate::Subscription) do not count.
    pub async fn settled(&self) {
        self.core().activity.idle().await;
    }

    /// The calls of a handler so far, failed ones included, in the order in which they ended. The id may be shortened
    /// to its last parts, as long as it is clear: `notify_admins` for `service::notify_admins`.
    #[must_use]
    pub fn seen(&self, handler: &str) -> Vec<Seen> {
        let seen = lock(&self.seen);
        let is_it =
            |id: &str| id == handler || id.strip_suffix(handler).is_some_and(|rest| rest.ends_with("::"));
        seen.iter().filter(|(id, _)| is_it(id)).flat_map(|(_, calls)| calls.iter().cloned()).collect()
    }
}

impl Deref for TestMessaging {
    type Target = Messaging;

    fn deref(&self) -> &Messaging {
        self.running.messaging()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
