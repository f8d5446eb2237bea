//! The API: what browsers see. The gateway brings them updates, from whichever service they are; two routes begin something.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use messaging_core::{BoxError, Messaging};
use messaging_gateway::Gateway;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::updates::{GeneralUpdate, REQUESTS, Task, pass_on, publish_general_update};

/// The longest title or message, in characters.
const LONGEST: usize = 200;

/// Where the API listens.
pub(crate) struct Addresses {
    pub(crate) listen: SocketAddr,
    /// For operators and probes.
    pub(crate) internal: Option<SocketAddr>,
}

/// An API that is being served.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    serving: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Api {
    pub(crate) async fn serve(messaging: &Messaging, addresses: Addresses) -> Result<Self, BoxError> {
        let gateway = Gateway::builder(messaging).allow_anonymous().build()?;
        let routes = Router::new()
            .route(
                "/",
                get(async || "task_updates: POST /tasks, POST /announcements, GET /events, GET /subscribe\n"),
            )
            .route("/tasks", post(request_task))
            .route("/announcements", post(announce))
            .with_state(messaging.clone())
            .merge(gateway.router());
        let (address, serving) = serve(addresses.listen, routes, &gateway).await?;
        println!("live on http://{address}, as in: curl -N 'http://{address}/events?entity=TaskUpdates'");
        let mut api = Self { address, serving: vec![serving] };
        if let Some(internal) = addresses.internal {
            let (address, serving) = serve(internal, gateway.internal_router("api"), &gateway).await?;
            println!("operators: http://{address}/readyz, /healthz and /metrics");
            api.serving.push(serving);
        }
        Ok(api)
    }

    /// Gives requests a moment to end. Some never do: nobody has to send the rest of one.
    pub(crate) async fn end(self) -> Result<(), BoxError> {
        for serving in self.serving {
            if let Ok(served) = tokio::time::timeout(Duration::from_secs(1), serving).await {
                served??;
            }
        }
        Ok(())
    }
}

async fn serve(
    address: SocketAddr,
    routes: Router,
    gateway: &Gateway,
) -> Result<(SocketAddr, JoinHandle<std::io::Result<()>>), BoxError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}, try another address: {error}"))?;
    let address = listener.local_addr()?;
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, routes).with_graceful_shutdown(gateway.drained());
    Ok((address, tokio::spawn(serving.into_future())))
}

#[derive(Deserialize)]
struct Titled {
    title: String,
}

async fn request_task(State(messaging): State<Messaging>, Json(Titled { title }): Json<Titled>) -> Response {
    if title.chars().count() > LONGEST {
        return (StatusCode::BAD_REQUEST, "a title has 200 characters at most").into_response();
    }
    let task = Task { task_id: format!("task-{}", uuid::Uuid::new_v4()), title };
    match pass_on(&messaging, REQUESTS, &task).await {
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({ "task_id": task.task_id }))).into_response(),
        Err(error) => failed(&error),
    }
}

async fn announce(State(messaging): State<Messaging>, Json(update): Json<GeneralUpdate>) -> Response {
    if update.message.chars().count() > LONGEST {
        return (StatusCode::BAD_REQUEST, "a message has 200 characters at most").into_response();
    }
    match publish_general_update(&messaging, &update).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &messaging_core::Error) -> Response {
    tracing::warn!(%error, "a request could not be carried out");
    (StatusCode::SERVICE_UNAVAILABLE, "try again").into_response()
}
