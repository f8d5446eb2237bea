//! What `#[subscription]` declares, collected from the whole program.

use std::future::Future;
use std::pin::Pin;

use messaging_core::{BoxError, Location};
use serde::{Deserialize, Serialize};

use crate::access::{AccessRequest, Decision, IntoDecision};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Answers whether something is allowed.
pub type AuthorizeFn = fn(AccessRequest) -> BoxFuture<'static, Result<Decision, BoxError>>;

/// A struct with `#[subscription]`.
pub trait Subscription {
    /// What it declares.
    const DESCRIPTOR: &'static SubscriptionDescriptor;
}

/// An entity that clients can subscribe to.
#[derive(Debug)]
pub struct SubscriptionDescriptor {
    /// `module_path!()::Name`, or what `id` says.
    pub id: &'static str,
    /// What clients call it.
    pub entity: &'static str,
    /// The templates of its channels.
    pub channels: &'static [&'static str],
    /// The fields of the payload that clients may filter by.
    pub filters: &'static [FilterField],
    /// The field of the payload that has to be the tenant of who subscribes.
    pub tenant: Option<&'static str>,
    /// Who may subscribe.
    pub access: DeclaredAccess,
    /// Clients may publish on it, if `access` says so.
    pub send: bool,
    /// Clients may see who is there.
    pub presence: bool,
    /// What happens to a client that does not keep up.
    pub slow: SlowPolicy,
    /// Where it is declared.
    pub location: Location,
}

inventory::collect!(SubscriptionDescriptor);

/// A field of the payload that clients may filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterField {
    /// Its name in the JSON; dots lead into objects.
    pub field: &'static str,
    /// How it may be compared.
    pub operators: &'static [Operator],
}

/// How a filter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// `{"camera_id": 7}`: is this value.
    Eq,
    /// `{"camera_id": {"in": [7, 8]}}`: is one of these.
    In,
}

/// Who may subscribe.
#[derive(Clone, Copy, Debug)]
pub enum DeclaredAccess {
    /// Everybody who may connect.
    Public,
    /// Whoever this function allows.
    Authorize(AuthorizeFn),
}

/// What happens to a client that does not keep up with a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowPolicy {
    /// It is disconnected with code 3008, and comes back.
    #[default]
    Disconnect,
    /// It gets the latest event of the channel only.
    Latest,
    /// It loses the oldest events of the channel, and is told so by a `gap`.
    DropOldest,
}

/// What generated code calls.
#[doc(hidden)]
pub fn decide<F>(future: F) -> BoxFuture<'static, Result<Decision, BoxError>>
where
    F: Future<Output: IntoDecision> + Send + 'static,
{
    Box::pin(async move { future.await.into_decision() })
}
