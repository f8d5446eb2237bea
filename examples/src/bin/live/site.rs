//! The page, and what it asks for beside the gateway.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use messaging_core::Messaging;
use serde::Deserialize;
use serde_json::json;

use crate::sessions::{LIFETIME, Sessions};
use crate::tasks::Task;

const POLICY: &str = "default-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self' ws: wss:";
/// The longest name or title.
const LONGEST: usize = 60;

#[derive(Clone)]
struct Site {
    messaging: Messaging,
    sessions: Sessions,
}

/// The page with all that it needs.
pub(crate) fn router(messaging: &Messaging, sessions: Sessions) -> Router {
    Router::new()
        .route("/", get(page("text/html; charset=utf-8", include_str!("page/index.html"))))
        .route("/live.css", get(page("text/css; charset=utf-8", include_str!("page/live.css"))))
        .route("/live.js", get(page("text/javascript; charset=utf-8", include_str!("page/live.js"))))
        .route("/messaging.js", get(page("text/javascript; charset=utf-8", messaging_gateway::CLIENT)))
        .route("/favicon.ico", get(StatusCode::NO_CONTENT))
        .route("/session", post(begin_session))
        .route("/tasks", post(start_task))
        .with_state(Site { messaging: messaging.clone(), sessions })
}

fn page(kind: &'static str, text: &'static str) -> impl IntoResponse + Clone {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text)
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Titled {
    title: String,
}

/// A text that a person has written, as it is shown: `None` if there is nothing in it, or too much.
fn plain(text: &str) -> Option<String> {
    let text: String = text.trim().chars().filter(|character| !character.is_control()).collect();
    (!text.is_empty() && text.chars().count() <= LONGEST).then_some(text)
}

async fn begin_session(State(site): State<Site>, Json(Named { name }): Json<Named>) -> Response {
    let Some(name) = plain(&name) else {
        return (StatusCode::BAD_REQUEST, "a name has 1 to 60 characters").into_response();
    };
    match site.sessions.begin(&name).await {
        Ok(token) => {
            Json(json!({ "token": token, "expires_in_ms": LIFETIME.as_millis() as u64 })).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn start_task(State(site): State<Site>, Json(Titled { title }): Json<Titled>) -> Response {
    let Some(title) = plain(&title) else {
        return (StatusCode::BAD_REQUEST, "a title has 1 to 60 characters").into_response();
    };
    let task_id = uuid::Uuid::new_v4().to_string();
    match (Task { task_id: task_id.clone(), title }).start(&site.messaging).await {
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({ "task_id": task_id }))).into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &messaging_core::Error) -> Response {
    tracing::warn!(%error, "a request could not be carried out");
    (StatusCode::SERVICE_UNAVAILABLE, "try again").into_response()
}
