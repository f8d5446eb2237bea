//! Channels to browsers: WebSocket and Server-Sent Events, on axum.

#![forbid(unsafe_code)]

mod access;
mod code;
mod descriptor;
mod identity;
mod limits;
mod rest;

#[doc(hidden)]
pub mod __private {
    pub use crate::descriptor::decide;
    pub use inventory;
}

pub use crate::access::{AccessRequest, Decision, IntoDecision, Verb};
pub use crate::code::{DisconnectCode, ErrorCode, UnsubscribeCode};
pub use crate::descriptor::{
    AuthorizeFn, BoxFuture, DeclaredAccess, FilterField, Operator, SlowPolicy, Subscription,
    SubscriptionDescriptor,
};
pub use crate::identity::{AuthError, Credentials, Identity};
pub use crate::limits::{Limits, Rate};
pub use crate::rest::{ModelRoutes, Problem, model_routes};
