//! Channels to browsers: WebSocket and Server-Sent Events, on axum.

#![forbid(unsafe_code)]

mod access;
mod auth;
mod code;
mod command;
mod connection;
mod descriptor;
mod entity;
mod event;
mod filter;
mod frame;
mod gateway;
mod hub;
mod identity;
mod limits;
mod metrics;
mod native;
mod outbox;
mod payload;
mod presence;
mod session;
mod shim;
mod sse;
mod tickets;
mod ws;

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
pub use crate::gateway::{Builder, Gateway};
pub use crate::identity::{AuthError, Credentials, Identity};
pub use crate::limits::{Limits, Rate};

/// The client for browsers and Node: one ES module, to be served beside the page as `text/javascript`.
pub const CLIENT: &str = include_str!("../client/messaging.js");

/// The types of [`CLIENT`], for TypeScript.
pub const CLIENT_TYPES: &str = include_str!("../client/messaging.d.ts");
