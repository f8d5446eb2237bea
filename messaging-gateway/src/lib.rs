#![doc = include_str!("lib.md")]
#![forbid(unsafe_code)]

mod access;
mod asyncapi;
mod auth;
mod calls;
mod centrifugo;
mod code;
mod command;
mod connection;
#[cfg(test)]
mod declared;
mod descriptor;
mod discovery;
mod entity;
mod event;
mod fan_out;
mod filter;
mod frame;
mod gateway;
mod hub;
mod identity;
mod internal;
mod limits;
mod metrics;
mod native;
mod outbox;
mod payload;
mod presence;
mod protocol;
mod rest;
mod schema;
mod session;
mod sse;
mod stream;
mod tickets;
mod ws;

#[doc(hidden)]
pub mod __private {
    pub use crate::descriptor::decide;
    pub use crate::fan_out::FanOut;
    pub use inventory;
    pub use messaging_core::Location;
}

/// Makes a struct something that clients of a gateway can subscribe to.
///
/// ```
/// use messaging_gateway::{AccessRequest, Decision, Operator, Subscription, subscription};
///
/// /// What the cameras of a tenant see: of all of them or of one complex.
/// #[subscription(
///     channels = ["camera.events", "camera.events.complex:{complex_id}"],
///     filters = { camera_id = [eq, in], "metadata.zone" = [eq] },
///     authorize = can_see_cameras,
///     tenant = tenant_id,
///     slow = "latest",
/// )]
/// pub struct CameraEvents;
///
/// /// Guards see everything; others what happens in their own complex.
/// async fn can_see_cameras(request: AccessRequest) -> Decision {
///     let claims = &request.identity().claims;
///     if claims.get("role").is_some_and(|role| role == "guard") {
///         return Decision::allow();
///     }
///     let own = claims.get("complex_id").and_then(|complex| complex.as_str());
///     Decision::from(own.is_some() && own == request.param("complex_id"))
/// }
///
/// let declared = CameraEvents::DESCRIPTOR;
/// assert_eq!(declared.entity, "CameraEvents");
/// assert_eq!(declared.filters[0].operators, [Operator::Eq, Operator::In]);
///
/// /// What a user did: `{user_id}` is who subscribes, so there is nobody to ask.
/// #[subscription(entity = "auditlog", channels = "auditlog:{user_id}", public)]
/// pub struct AuditLog;
/// ```
pub use messaging_macros::subscription;

pub use crate::access::{AccessRequest, Decision, IntoDecision, Verb};
pub use crate::asyncapi::asyncapi;
#[cfg(feature = "jwt")]
pub use crate::auth::{Jwt, Key, SubscriptionToken};
pub use crate::calls::{ClientRequest, RpcError};
pub use crate::code::{DisconnectCode, ErrorCode, UnsubscribeCode};
pub use crate::descriptor::{
    AuthorizeFn, BoxFuture, DeclaredAccess, FilterField, Operator, SlowPolicy, Subscription,
    SubscriptionDescriptor,
};
pub use crate::discovery::{
    DiscoveredService, Discovery, DiscoveryHealth, Polling, RemoteEntity, RemoteFilter, RemoteService,
};
pub use crate::gateway::{Builder, Gateway};
pub use crate::identity::{AuthError, Credentials, Identity};
pub use crate::internal::{InternalState, internal_router};
pub use crate::limits::{Limits, Rate};

/// The client for browsers and Node: one ES module, to be served beside the page as `text/javascript`.
pub const CLIENT: &str = include_str!("../client/messaging.js");

/// The types of [`CLIENT`], for TypeScript.
pub const CLIENT_TYPES: &str = include_str!("../client/messaging.d.ts");
pub use crate::metrics::{Count, GapCounts, Metrics, RejectionCounts, SlowCounts};
pub use crate::rest::{ModelRoutes, Problem, model_routes};
pub use crate::schema::{EntitySchema, ModelSchema, PublishSchema, Schema};
