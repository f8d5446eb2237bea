//! The edge: commands over HTTP, and the WebSocket on which a user's browsers hear her channels. Who she is, is known by her
//! token; a channel's user is never taken from what a client says.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::routing::post;
use axum::{Json, Router};
use messaging_core::{BoxError, CacheManager, Messaging, Timestamp};
use messaging_gateway::{AuthError, Credentials, Gateway, Identity, Limits, subscription};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::commands::Commands;

/// What a user did, of one type of activity if she likes. What one of her browsers sends is published for all that listen on
/// her channel, with who has sent it.
#[subscription(entity = "auditlog", channels = "auditlog:{user_id}", filters = { activity_type = [eq, in] }, public, send)]
pub(crate) struct Entries;

#[subscription(entity = "notification", channels = "notification:{user_id}", public)]
pub(crate) struct Notifications;

const LIFETIME: Duration = Duration::from_secs(60 * 60);

#[derive(Clone)]
struct Site {
    messaging: Messaging,
    commands: Commands,
}

fn sessions(messaging: &Messaging) -> CacheManager {
    messaging.cache("auditlog:session")
}

/// A token for a user.
pub(crate) async fn session(messaging: &Messaging, user: &str) -> messaging_core::Result<String> {
    let token = Uuid::new_v4().simple().to_string();
    sessions(messaging).set(&token, user, LIFETIME).await?;
    Ok(token)
}

/// Serves on this port of the loopback, or on any that is free, until messaging is shut down.
pub(crate) async fn serve(
    messaging: &Messaging,
    commands: &Commands,
    port: u16,
) -> Result<SocketAddr, BoxError> {
    let site = Site { messaging: messaging.clone(), commands: commands.clone() };
    let sessions = sessions(messaging);
    let verify = move |credentials: Credentials| {
        let sessions = sessions.clone();
        async move {
            let token = credentials.token.ok_or_else(|| AuthError::invalid("there is no token"))?;
            match sessions.get::<String>(&token).await {
                Ok(user) => user.map(Identity::user).ok_or(AuthError::Expired),
                Err(error) => Err(AuthError::Unavailable(error.into())),
            }
        }
    };
    let mut limits = Limits::default();
    // Channels that nobody listens to any more are kept for a while, for those who come back. The show would wait for that.
    limits.linger = Duration::ZERO;
    let gateway = Gateway::builder(messaging).authenticate(verify).limits(limits).build()?;
    let app = Router::new()
        .route("/login/{user_id}", post(log_in))
        .route("/tasks", post(create_task))
        .route("/tasks/{id}/complete", post(complete_task))
        .with_state(site)
        .merge(gateway.router());

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|error| format!("cannot listen on {address}, try another port: {error}"))?;
    let address = listener.local_addr()?;
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(gateway.drained());
    // It ends with the gateway, and the gateway with messaging.
    tokio::spawn(serving.into_future());
    Ok(address)
}

type Answer<T> = Result<T, (StatusCode, &'static str)>;

/// A real service would ask for more than a name.
async fn log_in(State(site): State<Site>, Path(user_id): Path<Uuid>) -> Answer<String> {
    session(&site.messaging, &user_id.to_string()).await.map_err(failed)
}

async fn create_task(user: User, State(site): State<Site>, title: String) -> Answer<Json<Value>> {
    let meta = json!({ "action_created_at": Timestamp::now() });
    let task = site.commands.create_task(&user.0, &title, meta).await.map_err(failed)?;
    Ok(Json(json!({ "id": task.id })))
}

async fn complete_task(user: User, State(site): State<Site>, Path(id): Path<String>) -> Answer<()> {
    let open = site.commands.open_tasks(&user.0).await.map_err(failed)?;
    if !open.iter().any(|task| task.id == id) {
        return Err((StatusCode::NOT_FOUND, "there is no such task, or it is completed"));
    }
    site.commands.complete_tasks(&[id]).await.map_err(failed)
}

/// Whoever the token is of.
struct User(String);

impl FromRequestParts<Site> for User {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Answer<Self> {
        let shown = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = shown.and_then(|shown| shown.strip_prefix("Bearer ")) else {
            return Err((StatusCode::UNAUTHORIZED, "log in first"));
        };
        let user = sessions(&site.messaging).get(token).await.map_err(failed)?;
        user.map(Self).ok_or((StatusCode::UNAUTHORIZED, "log in again"))
    }
}

fn failed(error: impl Into<BoxError>) -> (StatusCode, &'static str) {
    let error = error.into();
    tracing::warn!(error, "a request could not be carried out");
    (StatusCode::SERVICE_UNAVAILABLE, "try again")
}
