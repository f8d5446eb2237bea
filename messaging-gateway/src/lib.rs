//! Channels to browsers: WebSocket and Server-Sent Events, on axum.

#![forbid(unsafe_code)]

mod access;
// Until connections call it.
#[allow(dead_code, unused_imports)]
mod auth;
mod code;
mod descriptor;
mod identity;
mod limits;

#[doc(hidden)]
pub mod __private {
    pub use crate::descriptor::decide;
    pub use inventory;
}

pub use crate::access::{AccessRequest, Decision, IntoDecision, Verb};
#[cfg(feature = "jwt")]
pub use crate::auth::{Jwt, Key, SubscriptionToken};
pub use crate::code::{DisconnectCode, ErrorCode, UnsubscribeCode};
pub use crate::descriptor::{
    AuthorizeFn, BoxFuture, DeclaredAccess, FilterField, Operator, SlowPolicy, Subscription,
    SubscriptionDescriptor,
};
pub use crate::identity::{AuthError, Credentials, Identity};
pub use crate::limits::{Limits, Rate};
