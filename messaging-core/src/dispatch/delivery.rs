//! What a handler is called with: one message and the handler's surroundings.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::extract::{Segments, States};
use crate::channel::{Captures, Channel, Pattern};
use crate::message::{self, Received};
use crate::stream::{Entry, EventId, Headers};

/// One message on its way into a handler. Handlers see it through their arguments; [`FromDelivery`](super::FromDelivery)
/// implementations see it whole.
#[derive(Debug)]
pub struct Delivery {
    pub(super) received: Received,
    pub(super) patterns: Arc<[Pattern]>,
    pub(super) captures: Captures,
    pub(super) attempt: u32,
    pub(super) context: Context,
}

impl Delivery {
    /// The channel that the message came on.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.received.channel
    }

    /// The payload as it was received.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.received.payload
    }

    /// Which attempt at this message it is, counted from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What identifies the event; messages of a broadcast have none.
    #[must_use]
    pub fn event_id(&self) -> Option<&EventId> {
        self.entry().map(|entry| &entry.event)
    }

    /// The headers; none for messages of a broadcast.
    #[must_use]
    pub fn headers(&self) -> Option<&Headers> {
        self.entry().map(|entry| &entry.headers)
    }

    /// What kind of event its publisher says it is: `create`, `update` or `delete` for those of models.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.entry()?.kind.as_deref()
    }

    /// When it was published, by its publisher's clock; unknown for messages of a broadcast.
    #[must_use]
    pub fn published_at(&self) -> Option<SystemTime> {
        self.entry().map(Entry::published)
    }

    pub(super) fn entry(&self) -> Option<&Entry> {
        self.received.entry.as_deref()
    }

    /// The handler's surroundings.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The text at the placeholder `name` of the template that the handler subscribed to.
    #[must_use]
    pub fn segment(&self, name: &str) -> Option<&str> {
        let position = self.pattern().names().position(|placeholder| placeholder == name)?;
        self.captures.get(position).map(|range| &self.received.channel[range.clone()])
    }

    pub(crate) fn segments(&self) -> Segments {
        message::segments(self.pattern(), &self.received.channel, &self.captures)
    }

    fn pattern(&self) -> &Pattern {
        &self.patterns[usize::from(self.received.pattern)]
    }
}

/// What surrounds a handler: its id, the service's state, and whether the service is shutting down. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Surroundings>);

struct Surroundings {
    handler: Arc<str>,
    states: States,
    shutdown: CancellationToken,
}

impl Context {
    pub(crate) fn new(handler: Arc<str>, states: States, shutdown: CancellationToken) -> Self {
        Self(Arc::new(Surroundings { handler, states, shutdown }))
    }

    /// The handler's id.
    #[must_use]
    pub fn handler(&self) -> &str {
        &self.0.handler
    }

    /// The state of type `T`, if it was given.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.states.get()
    }

    /// Whether the service is shutting down: a long handler can use it to stop early.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.0.shutdown.is_cancelled()
    }

    /// Waits until the service is shutting down.
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    pub async fn shutting_down(&self) {
        self.0.shutdown.cancelled().await;
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("handler", &self.0.handler).finish_non_exhaustive()
    }
}
