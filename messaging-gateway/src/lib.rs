//! Channels to browsers: WebSocket and Server-Sent Events, on axum.

#![forbid(unsafe_code)]

mod access;
mod asyncapi;
mod code;
mod descriptor;
mod discovery;
mod identity;
mod internal;
mod limits;
mod metrics;
mod rest;
mod schema;

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
pub use crate::discovery::{
    DiscoveredService, Discovery, DiscoveryHealth, Polling, RemoteEntity, RemoteFilter, RemoteService,
};
pub use crate::identity::{AuthError, Credentials, Identity};
pub use crate::internal::{InternalState, internal_router};
pub use crate::limits::{Limits, Rate};
pub use crate::metrics::{Count, GapCounts, Metrics, RejectionCounts, SlowCounts};
pub use crate::rest::{ModelRoutes, Problem, model_routes};
pub use crate::schema::{EntitySchema, ModelSchema, PublishSchema, Schema};
