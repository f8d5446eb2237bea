//! `POST /ticket`: who has proven who they are gets a ticket, for a connection that can carry no header. Where tickets wait is
//! the cache, so that any gateway on the same Redis takes them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use messaging_core::{CacheManager, Messaging, Result};
use serde_json::json;

use crate::auth::{Shelf, Stored};
use crate::gateway::{Admitted, Shared};
use crate::identity::AuthError;

/// Where tickets wait.
#[derive(Clone, Debug)]
pub(crate) struct Shelves(CacheManager);

impl Shelves {
    pub(crate) fn new(messaging: &Messaging) -> Self {
        Self(messaging.cache(&format!("{}:gateway:ticket", messaging.config().namespace)))
    }
}

impl Shelf for Shelves {
    async fn put(&self, key: &str, value: &Stored, ttl: Duration) -> Result<()> {
        self.0.set(key, value, ttl).await
    }

    async fn take(&self, key: &str) -> Result<Option<Stored>> {
        self.0.take(key).await
    }
}

/// `OPTIONS` of what pages of other origins ask for.
pub(crate) async fn preflight(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    (StatusCode::NO_CONTENT, shared.origins.preflight(request.headers())).into_response()
}

/// `POST /ticket`.
pub(crate) async fn issue(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let cors = shared.origins.answer(&request.headers);
    let Admitted { shown, place: _place, redeemed } = match shared.admit(&request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return (cors, refusal).into_response(),
    };
    let identity = match redeemed {
        // Else one that has leaked could be renewed for ever.
        Some(_) => Err(AuthError::invalid("a ticket is for a connection, not for another ticket")),
        None => shared.authenticator.authenticate(shown.credentials, shared.limits.decision).await,
    };
    let identity = match identity {
        Ok(identity) => identity,
        Err(error) => {
            shared.metrics.rejected.credentials.increment();
            return (status_of(&error), cors).into_response();
        }
    };
    match shared.tickets.issue(&identity).await {
        Ok(ticket) => {
            let expires_in_ms = u64::try_from(ticket.lifetime().as_millis()).unwrap_or(u64::MAX);
            (cors, Json(json!({ "ticket": ticket.as_str(), "expires_in_ms": expires_in_ms }))).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "a ticket could not be issued");
            (StatusCode::SERVICE_UNAVAILABLE, cors).into_response()
        }
    }
}

/// What a request is told whose credentials are not taken.
pub(crate) fn status_of(error: &AuthError) -> StatusCode {
    tracing::debug!(%error, "a request that has not proven who it is");
    match error {
        AuthError::Invalid(_) | AuthError::Expired => StatusCode::UNAUTHORIZED,
        AuthError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
