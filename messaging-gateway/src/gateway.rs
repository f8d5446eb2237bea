//! The gateway: built with what it may do, it gives the router that browsers see, and looks after all connections until it is
//! drained.

mod builder;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use messaging_core::{Messaging, Result, Service, ServiceHealth};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use builder::Builder;

use crate::access::States;
use crate::auth::{Authenticator, Counted, Origins, Place, Shown, Tickets};
use crate::calls::Calls;
use crate::code::{DisconnectCode, UnsubscribeCode};
use crate::connection::{Connection, Connections, Open, Taken, Transport};
use crate::descriptor::BoxFuture;
use crate::discovery::Discovery;
use crate::entity::Catalog;
use crate::hub::Hub;
use crate::identity::Identity;
use crate::internal::InternalState;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::native::Say;
use crate::outbox::End;
use crate::presence::Rooms;
use crate::tickets::Shelves;
use crate::{sse, tickets, ws};

/// How often connections are looked after.
const SWEEP: Duration = Duration::from_secs(1);
/// How many connections are closed together when the gateway ends.
const CLOSED_TOGETHER: usize = 100;
/// How long after these the next are.
const BETWEEN_BATCHES: Duration = Duration::from_millis(20);

/// Streams channels to browsers and other clients. Cheap to clone; it ends when the last clone and the last
/// [`router`](Self::router) are dropped, or when it is [drained](Self::drain).
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use messaging_core::Messaging;
/// use messaging_gateway::{Gateway, subscription};
///
/// #[subscription(channels = ["camera.events", "camera.events.complex:{complex_id}"], filters = { camera_id = [eq, in] }, public)]
/// pub struct CameraEvents;
///
/// let messaging = Messaging::builder().url("memory://").build().await?;
/// let gateway = Gateway::builder(&messaging).allow_anonymous().allowed_origins(["https://app.example"]).build()?;
/// let _running = messaging.start().await?;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let app = gateway.router().into_make_service_with_connect_info::<std::net::SocketAddr>();
/// axum::serve(listener, app).with_graceful_shutdown(gateway.drained()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) messaging: Messaging,
    pub(crate) hub: Arc<Hub>,
    pub(crate) rooms: Rooms,
    pub(crate) limits: Limits,
    pub(crate) authenticator: Authenticator,
    pub(crate) origins: Origins,
    pub(crate) tickets: Tickets<Shelves>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) states: Arc<States>,
    pub(crate) calls: Calls,
    /// Connections, and what they need.
    pub(crate) tasks: TaskTracker,
    catalog: RwLock<Arc<Catalog>>,
    /// What is wrong with what other services declare.
    complaints: RwLock<Vec<String>>,
    discovery: OnceLock<Discovery>,
    counted: Counted,
    connections: Arc<Connections>,
    is_draining: AtomicBool,
    drained: CancellationToken,
    stop: CancellationToken,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// A request that may become a connection.
pub(crate) struct Admitted {
    pub(crate) shown: Shown,
    pub(crate) place: Place,
    /// Who had the ticket.
    pub(crate) redeemed: Option<Identity>,
}

/// Why a request does not become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Draining,
    Origin,
    TooMany,
    Ticket,
    Unavailable,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "this gateway is about to end"),
            Self::Origin => (StatusCode::FORBIDDEN, "this origin is not allowed"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "there are too many connections"),
            Self::Ticket => (StatusCode::UNAUTHORIZED, "the ticket is not valid"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "try again"),
        };
        let mut response = (status, text).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl Gateway {
    /// Begins to build one that serves what is published through this messaging.
    pub fn builder(messaging: &Messaging) -> Builder {
        Builder::new(messaging)
    }

    /// What browsers and other clients see: `/subscribe`, `/connection/websocket`, `/events` and `/ticket`. Serve it
    /// [with connect info](Router::into_make_service_with_connect_info) of [`SocketAddr`], so that connections can be counted by
    /// address.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/subscribe", get(ws::upgrade))
            .route("/connection/websocket", get(ws::upgrade_centrifugo))
            .route("/events", get(sse::events).options(tickets::preflight))
            .route("/ticket", post(tickets::issue).options(tickets::preflight))
            .with_state(Arc::clone(&self.0))
    }

    /// What operators and other gateways see: [`internal_router`](crate::internal_router) with what this gateway counts. `service` is
    /// what this process calls itself.
    pub fn internal_router(&self, service: &str) -> Router {
        let state = InternalState::new(service, &self.0.messaging).metrics(&self.0.metrics);
        crate::internal::internal_router(state)
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.len()
    }

    /// Closes all connections that a user has to this gateway, whatever protocol they speak, and returns how many those are.
    /// [`ForceReconnect`](DisconnectCode::ForceReconnect) lets clients come back, and be asked again who they are;
    /// [`ForceNoReconnect`](DisconnectCode::ForceNoReconnect) does not. Other gateways have to be told to do the same, for example by a
    /// handler of a channel that each of them hears.
    pub fn disconnect(&self, user: &str, code: DisconnectCode) -> usize {
        let connections = self.0.connections_of(user);
        connections.iter().for_each(|connection| connection.outbox.end(End::Close(code)));
        connections.len()
    }

    /// Ends the subscriptions of a user to a channel on this gateway, and returns how many those are. After
    /// [`Server`](UnsubscribeCode::Server) clients do not subscribe again by themselves, after the others they do.
    pub fn unsubscribe(&self, user: &str, channel: &str, code: UnsubscribeCode) -> usize {
        let connections = self.0.connections_of(user);
        connections.iter().filter(|connection| self.0.end_subscription(connection, channel, code)).count()
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> ServiceHealth {
        self.0.health()
    }

    /// Ends it: no connection is taken up any more, clients are told to go elsewhere within [`Limits::goaway`], and those
    /// that are left are closed with code 3001. Returns when all are gone, or after `deadline`. Shutting the messaging down does
    /// this too.
    ///
    /// # Cancellation
    /// It stays as far as it has come, and can be called again.
    pub async fn drain(&self, deadline: Duration) {
        self.0.drain(deadline).await;
    }

    /// Ready when it has been drained: for
    /// [`with_graceful_shutdown`](https://docs.rs/axum/latest/axum/serve/struct.Serve.html#method.with_graceful_shutdown).
    ///
    /// What has not sent a whole request yet is no connection of the gateway, and axum waits for it without a bound: a process
    /// that has to end puts a [`timeout`](tokio::time::timeout) around what is left of serving once this is ready.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.drained.clone().cancelled_owned()
    }
}

impl Shared {
    /// Whether a request may become a connection.
    pub(crate) async fn admit(&self, request: &Parts) -> Result<Admitted, Refusal> {
        if self.is_draining.load(Ordering::SeqCst) {
            self.metrics.rejected.shutdown.increment();
            return Err(Refusal::Draining);
        }
        if !self.origins.check(&request.headers).is_allowed() {
            self.metrics.rejected.origin.increment();
            return Err(Refusal::Origin);
        }
        let address = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let place = self.counted.enter(address).map_err(|_| {
            self.metrics.rejected.connections.increment();
            Refusal::TooMany
        })?;
        let shown = Shown::by(&request.headers, &request.uri, address);
        let redeemed = match &shown.ticket {
            None => None,
            Some(ticket) => match self.tickets.redeem(ticket).await {
                Ok(Some(identity)) => Some(identity),
                Ok(None) => {
                    self.metrics.rejected.credentials.increment();
                    return Err(Refusal::Ticket);
                }
                Err(error) => {
                    tracing::warn!(%error, "a ticket could not be redeemed");
                    return Err(Refusal::Unavailable);
                }
            },
        };
        Ok(Admitted { shown, place, redeemed })
    }

    /// Takes a connection up.
    ///
    /// # Errors
    /// If the gateway has begun to end since it was admitted.
    pub(crate) fn open(&self, transport: Transport, place: Place) -> Result<Open, Refusal> {
        let open = self.connections.open(transport, &self.limits);
        // Only now: either draining sees the connection, or this sees that it has begun.
        if self.is_draining.load(Ordering::SeqCst) {
            self.metrics.rejected.shutdown.increment();
            return Err(Refusal::Draining);
        }
        open.connection.with_place(|kept| *kept = Some(place));
        self.metrics.connections.increment();
        self.metrics.opened.increment();
        Ok(open)
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes other entities up; who is subscribed to one that is no more is told so.
    fn set_catalog(&self, catalog: Catalog, complaints: Vec<String>) {
        let catalog = Arc::new(catalog);
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&catalog);
        *self.complaints.write().unwrap_or_else(PoisonError::into_inner) = complaints;
        for connection in self.connections.all() {
            for channel in connection.channels() {
                let Some(subscribed) = connection.subscription(&channel) else { continue };
                if !catalog.has(&subscribed.entity) {
                    self.end_subscription(&connection, &channel, UnsubscribeCode::InsufficientState);
                }
            }
        }
    }

    fn health(&self) -> ServiceHealth {
        let is_draining = self.is_draining.load(Ordering::SeqCst);
        let details = json!({
            "draining": is_draining,
            "connections": self.connections.len(),
            "channels": self.hub.channels(),
            "entities": self.catalog().iter().map(|entity| entity.name.to_string()).collect::<Vec<_>>(),
        });
        let lost = self.hub.lost();
        let is_sound = !is_draining && lost.is_none();
        let mut health =
            if is_sound { ServiceHealth::sound(details) } else { ServiceHealth::unsound(details) };
        if let Some(reason) = lost {
            health = health.warning(format!("streams cannot be read: {reason}"));
        }
        let complaints = self.complaints.read().unwrap_or_else(PoisonError::into_inner).clone();
        let discovered = self.discovery.get().map(Discovery::health);
        let discovered = discovered.iter().flat_map(|health| health.warnings());
        complaints.into_iter().chain(discovered).fold(health, ServiceHealth::warning)
    }

    /// Pings, ends what is stale, and gives up what nobody needs, for ever.
    async fn sweep(shared: Weak<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(shared) = shared.upgrade() else { return };
            for connection in shared.connections.all() {
                if connection.look_after(&shared.limits) == Some(DisconnectCode::Stale) {
                    shared.metrics.rejected.stale.increment();
                }
                for channel in connection.expired() {
                    let Some(subscribed) = connection.subscription(&channel) else { continue };
                    let expire = |connection: &Connection| connection.forget_expired(&channel);
                    subscribed.topic.end(&connection, UnsubscribeCode::Expired, expire);
                }
                // Its own task may be held up by a client that does not read.
                if connection.outbox.has_ended().is_some() {
                    shared.let_go(&connection);
                }
            }
            shared.hub.sweep();
            #[cfg(feature = "metrics")]
            crate::metrics::record(&shared.metrics);
        }
    }

    /// Ends a subscription, and tells the client why; `false` if there is none.
    pub(crate) fn end_subscription(
        &self,
        connection: &Arc<Connection>,
        channel: &str,
        code: UnsubscribeCode,
    ) -> bool {
        let topic = connection.subscription(channel).map(|subscribed| subscribed.topic);
        // It may be just beginning.
        let topic = topic.or_else(|| self.hub.opened(channel));
        topic.is_some_and(|topic| {
            topic.end(connection, code, |connection| Taken::Ended(connection.forget(channel)))
        })
    }

    /// The connections of a user, whom an anonymous one is not.
    fn connections_of(&self, user: &str) -> Vec<Arc<Connection>> {
        let mut all = self.connections.all();
        all.retain(|connection| {
            connection.identity().is_some_and(|identity| !identity.is_anonymous() && identity.user == user)
        });
        all
    }

    /// Ends all that a connection is subscribed to.
    pub(crate) fn let_go(&self, connection: &Arc<Connection>) {
        for _ in 0..connection.leave() {
            self.metrics.subscriptions.decrement();
        }
    }

    async fn drain(&self, deadline: Duration) {
        self.is_draining.store(true, Ordering::SeqCst);
        let until = tokio::time::Instant::now() + deadline;
        let away = self.limits.goaway.min(deadline / 2);
        let after_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
        let goaway = Say::Goaway { after_ms };
        self.connections.all().iter().for_each(|connection| connection.say(&goaway));
        let going = async {
            while self.connections.len() > 0 {
                tokio::time::sleep(BETWEEN_BATCHES).await;
            }
        };
        // Whoever is still there then is closed.
        let _ = tokio::time::timeout(away, going).await;
        loop {
            let left = self.connections.all();
            if left.is_empty() || tokio::time::Instant::now() >= until {
                break;
            }
            for connection in
                left.iter().filter(|connection| connection.outbox.has_ended().is_none()).take(CLOSED_TOGETHER)
            {
                connection.outbox.end(End::Close(DisconnectCode::Shutdown));
            }
            tokio::time::sleep(BETWEEN_BATCHES).await;
        }
        self.drained.cancel();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
        self.drained.cancel();
    }
}

/// The gateway as its messaging knows it, which it must not keep alive.
struct Attached(Weak<Shared>);

impl Service for Attached {
    fn name(&self) -> &str {
        "gateway"
    }

    fn run(self: Arc<Self>, stop: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            stop.await;
            if let Some(shared) = self.0.upgrade() {
                let deadline = shared.messaging.config().drain_timeout;
                shared.drain(deadline).await;
            }
        })
    }

    fn health(&self) -> ServiceHealth {
        match self.0.upgrade() {
            Some(shared) => shared.health(),
            None => ServiceHealth::sound(json!({ "ended": true })),
        }
    }
}
