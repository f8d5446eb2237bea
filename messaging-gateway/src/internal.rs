//! The router for operators and for other services: what this process offers, and how it is.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use messaging_core::{Health, Messaging, ServiceHealth, describe};
use serde::Serialize;

use crate::asyncapi::asyncapi;
use crate::metrics::{Metrics, prometheus};
use crate::schema::Schema;

/// What an [`internal_router`] tells of.
#[derive(Clone)]
pub struct InternalState {
    service: String,
    version: String,
    messaging: Messaging,
    schema: Schema,
    metrics: Arc<Metrics>,
    gateway: Arc<dyn Fn() -> Option<ServiceHealth> + Send + Sync>,
}

impl InternalState {
    /// That of a process with this messaging, under the name that gateways know it by.
    #[must_use]
    pub fn new(service: impl Into<String>, messaging: &Messaging) -> Self {
        let service = service.into();
        Self {
            schema: Schema::of_process(&*service),
            service,
            version: "0.0.0".into(),
            messaging: messaging.clone(),
            metrics: Arc::default(),
            gateway: Arc::new(|| None),
        }
    }

    /// The version that `/asyncapi.json` says; `0.0.0` without it.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The same with none of the subscriptions of this process in `/__schema`: for a program that can be each of several
    /// services, where it is one that offers nothing to clients.
    #[must_use]
    pub fn without_entities(mut self) -> Self {
        self.schema.entities.clear();
        self
    }

    /// The same with what a gateway counts.
    #[must_use]
    pub fn metrics(mut self, metrics: &Arc<Metrics>) -> Self {
        self.metrics = Arc::clone(metrics);
        self
    }

    /// The same with how a gateway is: it is asked by `/readyz`, which is not ready while the gateway is not sound.
    #[must_use]
    pub fn gateway(mut self, health: impl Fn() -> ServiceHealth + Send + Sync + 'static) -> Self {
        self.gateway = Arc::new(move || Some(health()));
        self
    }
}

impl fmt::Debug for InternalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalState").field("service", &self.service).finish_non_exhaustive()
    }
}

/// The routes for operators and for gateways elsewhere: `/__schema`, `/asyncapi.json`, `/describe.json` (what
/// [`describe`] says), `/healthz`, `/readyz` and `/metrics`.
///
/// They tell names of handlers and channels, and errors of Redis: serve them on a port of their own that browsers do not
/// reach.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::Messaging;
/// use messaging_gateway::{InternalState, internal_router};
///
/// let messaging = Messaging::builder().url("memory://").build().await?;
/// let internal = internal_router(InternalState::new("events", &messaging).version("1.4.0"));
/// # let _: axum::Router = internal;
/// # Ok(())
/// # }
/// ```
pub fn internal_router(state: InternalState) -> Router {
    // What is declared does not change while a process runs.
    let schema = json_bytes(&state.schema);
    let asyncapi = json_bytes(&asyncapi(&state.service, &state.version));
    let description = json_bytes(&describe());
    Router::new()
        .route("/__schema", get(async move || json(StatusCode::OK, schema)))
        .route("/asyncapi.json", get(async move || json(StatusCode::OK, asyncapi)))
        .route("/describe.json", get(async move || json(StatusCode::OK, description)))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    gateway: Option<ServiceHealth>,
    messaging: Health,
}

async fn ready(State(state): State<InternalState>) -> Response {
    let (gateway, messaging) = ((state.gateway)(), state.messaging.health());
    let ready = messaging.is_ready() && gateway.as_ref().is_none_or(|gateway| gateway.is_sound);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, json_bytes(&Readiness { ready, gateway, messaging }))
}

async fn metrics(State(state): State<InternalState>) -> Response {
    let text = prometheus(&state.metrics, &state.messaging.health());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn json(status: StatusCode, body: Bytes) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn json_bytes<T: Serialize>(value: &T) -> Bytes {
    // Keys are strings, and numbers are finite.
    serde_json::to_vec(value).expect("it is made of what JSON has").into()
}
