//! Events: takes what cameras have seen, looks up what it has to know of them, and publishes what it makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use messaging_core::{CacheManager, Messaging, Op, Result, State, Timestamp, redis_cache, subscribe};
use messaging_gateway::{InternalState, Problem, internal_router, subscription};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::camera::{CachedCamera, CameraEvent};
use crate::http::{Http, HttpError};
use crate::screen::Screen;

/// What clients of the gateway can subscribe to, which finds it by `/__schema`: all events or those of one complex.
#[subscription(
    entity = "CameraEvents",
    channels = ["camera.events", "camera.events.complex:{complex_id}"],
    filters = { camera_id = [eq, in], complex_id = [eq, in] },
    public,
)]
pub(crate) struct CameraEventsSubscription;

/// The routes of the service.
pub(crate) fn router(processor: CameraProcessor, messaging: &Messaging) -> Router {
    let internal = InternalState::new("events", messaging).version(env!("CARGO_PKG_VERSION"));
    Router::new().route("/raw", post(take)).with_state(Arc::new(processor)).merge(internal_router(internal))
}

/// What cameras send.
#[derive(Serialize, Deserialize)]
pub(crate) struct RawEvent {
    pub(crate) mac_address: String,
    #[serde(default = "Timestamp::now")]
    pub(crate) timestamp: Timestamp,
    pub(crate) data: Value,
}

async fn take(
    Shared(processor): Shared<Arc<CameraProcessor>>,
    Json(raw): Json<RawEvent>,
) -> Result<(StatusCode, Json<CameraEvent>), Problem> {
    match processor.process_event(raw).await {
        Ok(Some(event)) => Ok((StatusCode::ACCEPTED, Json(event))),
        Ok(None) => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such camera")),
        Err(error) => {
            tracing::error!(%error, "an event could not be published");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "try again"))
        }
    }
}

pub(crate) struct CameraProcessor {
    access_control: String,
    http_client: Http,
    messaging: Messaging,
    screen: Screen,
    /// How often AccessControl was asked for a camera.
    asked: AtomicU32,
}

impl CameraProcessor {
    /// Asks AccessControl at this address.
    pub(crate) fn new(access_control: String, messaging: &Messaging, screen: &Screen) -> Self {
        let (messaging, screen) = (messaging.clone(), screen.clone());
        Self { access_control, http_client: Http::new(), messaging, screen, asked: AtomicU32::new(0) }
    }

    /// The first time by HTTP, then from Redis, until an event says that it has changed.
    #[redis_cache(
        key = "camera:mac:{mac_address}",
        ttl = 3600,
        invalidate_on = ["camera.updated", "camera.deleted"],
    )]
    async fn get_camera_by_mac(&self, mac_address: &str) -> Option<CachedCamera> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.fetch_camera(mac_address).await {
            Ok(camera) => camera,
            // `None` is not cached: the next event asks again.
            Err(error) => {
                tracing::error!(%error, mac_address, "failed to fetch camera");
                None
            }
        }
    }

    async fn fetch_camera(&self, mac_address: &str) -> Result<Option<CachedCamera>, HttpError> {
        let filters = json!({ "mac_address__eq": mac_address }).to_string();
        let filters = utf8_percent_encode(&filters, NON_ALPHANUMERIC);
        let url = format!("{}/entity/Camera?filters={filters}", self.access_control);
        Ok(self.http_client.get::<Vec<CachedCamera>>(&url).await?.pop())
    }

    /// What there is never changes: a day. Unlike above, an error goes to the caller, and is not cached either.
    #[redis_cache(key = "camera:models", ttl = 86_400)]
    async fn camera_models(&self) -> Result<Vec<String>, HttpError> {
        self.http_client.get(&format!("{}/models", self.access_control)).await
    }

    /// Publishes what has happened; `None` if there is no such camera.
    pub(crate) async fn process_event(&self, raw_event: RawEvent) -> Result<Option<CameraEvent>> {
        let (asked, begun) = (self.asked.load(Ordering::Relaxed), Instant::now());
        let camera = self.get_camera_by_mac(&raw_event.mac_address).await;
        let by = if self.asked.load(Ordering::Relaxed) > asked { "by HTTP" } else { "from cache" };
        let took = begun.elapsed();
        let Some(camera) = camera else {
            self.screen.line("events", by, &format!("no camera {} in {took:.1?}", raw_event.mac_address));
            return Ok(None);
        };
        self.screen.line("events", by, &format!("camera {} is {} in {took:.1?}", camera.id, camera.settings));
        let event = match &camera.model {
            Some(model) if model.starts_with("Hikvision") => process_hikvision(raw_event, &camera),
            Some(model) => {
                if self.camera_models().await.is_ok_and(|models| !models.contains(model)) {
                    tracing::warn!(model, "nobody knows this model");
                }
                process_other(raw_event, &camera)
            }
            None => process_other(raw_event, &camera),
        };
        self.messaging.emit(Op::Create, &event).await?;
        Ok(Some(event))
    }
}

/// Hikvision calls motion `VMD`.
fn process_hikvision(raw: RawEvent, camera: &CachedCamera) -> CameraEvent {
    let kind = if raw.data["eventType"] == "VMD" { "motion_detected" } else { "alarm" };
    processed(kind, raw, camera)
}

fn process_other(raw: RawEvent, camera: &CachedCamera) -> CameraEvent {
    let kind = raw.data["event"].as_str().unwrap_or("alarm").to_owned();
    processed(&kind, raw, camera)
}

fn processed(event_type: &str, raw: RawEvent, camera: &CachedCamera) -> CameraEvent {
    CameraEvent {
        event_type: event_type.to_owned(),
        camera_id: camera.id,
        mac_address: camera.mac_address.clone(),
        timestamp: raw.timestamp,
        data: raw.data,
        complex_id: camera.complex_id,
    }
}

#[derive(Deserialize)]
struct SettingsChange {
    mac_address: Option<String>,
}

/// Invalidates by hand. Whoever asks before this was called gets the old settings, which `invalidate_on` would not let happen.
#[subscribe("camera.settings.updated")]
async fn on_camera_updated(change: SettingsChange, screen: State<Screen>) -> Result<()> {
    if let Some(mac) = change.mac_address {
        CacheManager::new("").invalidate(&format!("camera:mac:{mac}")).await?;
        screen.handled("events", "invalidated", &format!("Camera {mac} cache invalidated"));
    }
    Ok(())
}
