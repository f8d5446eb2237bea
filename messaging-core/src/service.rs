//! What runs beside the handlers for as long as they do, and is asked how it is: a relay of an outbox, a gateway.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::dispatch::BoxFuture;

/// Something that runs beside the handlers: given to [`Messaging::attach`](crate::Messaging::attach), started with them,
/// and ended by shutting down.
pub trait Service: Send + Sync + 'static {
    /// What it is called in logs and in [`Health`](crate::Health).
    fn name(&self) -> &str;

    /// Runs until `stop` is ready, and then ends what it is at: shutting down waits for it until its deadline. The
    /// messaging is the [current](crate::Messaging::current) one; who keeps it keeps everything alive.
    fn run(self: Arc<Self>, stop: BoxFuture<'static, ()>) -> BoxFuture<'static, ()>;

    /// How it is.
    fn health(&self) -> ServiceHealth;
}

/// How a [`Service`] is.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ServiceHealth {
    /// Its name; filled in by [`Messaging::health`](crate::Messaging::health).
    pub name: String,
    /// Whether it does its work; a process with a service that does not is not ready.
    pub is_sound: bool,
    /// What it says of itself.
    pub details: serde_json::Value,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

impl ServiceHealth {
    /// A service that does its work, with what it says of itself.
    #[must_use]
    pub fn sound(details: serde_json::Value) -> Self {
        Self { is_sound: true, details, ..Self::default() }
    }

    /// A service that does not do its work, with what it says of itself.
    #[must_use]
    pub fn unsound(details: serde_json::Value) -> Self {
        Self { details, ..Self::default() }
    }

    /// Adds what an operator should know.
    #[must_use]
    pub fn warning(mut self, warning: impl Into<String>) -> Self {
        self.warnings.push(warning.into());
        self
    }
}

/// The services of one messaging.
#[derive(Clone, Default)]
pub(crate) struct Services(pub(crate) Vec<Arc<dyn Service>>);

impl Services {
    pub(crate) fn health(&self) -> Vec<ServiceHealth> {
        let of = |service: &Arc<dyn Service>| ServiceHealth {
            name: service.name().to_owned(),
            ..service.health()
        };
        self.0.iter().map(of).collect()
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|service| service.name())).finish()
    }
}
