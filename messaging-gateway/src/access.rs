//! Who may do what on a channel: the question, and the answers that there are.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use messaging_core::{BoxError, Messaging};
use serde_json::Value;

use crate::identity::Identity;

/// What a connection wants to do on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// Get its events from now on.
    Subscribe,
    /// Get what it missed, and its events from now on.
    Resume,
    /// Change the filters of a subscription.
    Update,
    /// Read its past.
    History,
    /// See who is there, and be seen.
    Presence,
    /// Publish on it.
    Send,
}

/// The question that a subscription's `authorize` answers.
#[derive(Clone)]
pub struct AccessRequest(pub(crate) Arc<Asked>);

pub(crate) struct Asked {
    pub(crate) identity: Arc<Identity>,
    pub(crate) verb: Verb,
    pub(crate) entity: Arc<str>,
    pub(crate) channel: Arc<str>,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) states: Arc<States>,
    pub(crate) messaging: Messaging,
}

impl AccessRequest {
    /// Who asks.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// What it wants to do.
    #[must_use]
    pub fn verb(&self) -> Verb {
        self.0.verb
    }

    /// The entity that is subscribed to.
    #[must_use]
    pub fn entity(&self) -> &str {
        &self.0.entity
    }

    /// The channel, with its values.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.0.channel
    }

    /// The value of a placeholder of the channel.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.0.params.iter().find(|(param, _)| param == name).map(|(_, value)| value.as_str())
    }

    /// State that the gateway was built with.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.states.get()
    }

    /// The messaging that the gateway serves, for cached look-ups.
    #[must_use]
    pub fn messaging(&self) -> &Messaging {
        &self.0.messaging
    }
}

impl fmt::Debug for AccessRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessRequest")
            .field("user", &self.0.identity.user)
            .field("verb", &self.0.verb)
            .field("channel", &self.0.channel)
            .finish_non_exhaustive()
    }
}

/// Whether something is allowed, and how much of it.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a decision that nobody reads allows nothing"]
pub struct Decision {
    pub(crate) is_allowed: bool,
    /// Fields of the payload, each with the values that may be seen.
    pub(crate) only: Vec<(String, Vec<Value>)>,
}

impl Decision {
    /// All of it.
    pub const fn allow() -> Self {
        Self { is_allowed: true, only: Vec::new() }
    }

    /// None of it.
    pub const fn deny() -> Self {
        Self { is_allowed: false, only: Vec::new() }
    }

    /// Only events whose payload has one of these values in this field: live, in the past, and among what was missed.
    pub fn only(
        mut self,
        field: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<Value>>,
    ) -> Self {
        self.only.push((field.into(), values.into_iter().map(Into::into).collect()));
        self
    }

    /// Whether it is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.is_allowed
    }
}

impl From<bool> for Decision {
    fn from(is_allowed: bool) -> Self {
        if is_allowed { Self::allow() } else { Self::deny() }
    }
}

/// What an `authorize` may return: `bool`, [`Decision`], or a `Result` of these. An error denies, and is logged.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whether something is allowed",
    note = "an `authorize` returns `bool`, `Decision`, or a `Result` of one of them"
)]
pub trait IntoDecision {
    /// The decision.
    ///
    /// # Errors
    /// If it could not be found out.
    fn into_decision(self) -> Result<Decision, BoxError>;
}

impl IntoDecision for bool {
    fn into_decision(self) -> Result<Decision, BoxError> {
        Ok(self.into())
    }
}

impl IntoDecision for Decision {
    fn into_decision(self) -> Result<Decision, BoxError> {
        Ok(self)
    }
}

impl<D: IntoDecision, E: Into<BoxError>> IntoDecision for Result<D, E> {
    fn into_decision(self) -> Result<Decision, BoxError> {
        self.map_err(Into::into)?.into_decision()
    }
}

/// What the gateway was built with, by type.
#[derive(Default)]
pub(crate) struct States(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States").field("count", &self.0.len()).finish()
    }
}

impl States {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, state: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(state));
    }

    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}
