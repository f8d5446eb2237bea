//! AccessControl: owns the cameras, and tells what happens to them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use messaging_core::{CacheManager, Error, Messaging, Op, Repository, Storage, Updated};
use messaging_gateway::{InternalState, Problem, internal_router, model_routes};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::camera::{CachedCamera, Camera, CameraSettings, ONE_HOUR};

/// What the database takes.
const SLOWLY: Duration = Duration::from_millis(40);

#[derive(Clone)]
struct AccessControl {
    cameras: Repository<Cameras>,
    messaging: Messaging,
}

/// The routes of the service.
pub(crate) fn router(messaging: &Messaging) -> Router {
    let cameras = Repository::new(Cameras::installed(), messaging);
    // What gateways ask for; there is nothing here that clients could subscribe to.
    let internal = InternalState::new("access_control", messaging).without_entities();
    Router::new()
        .route("/cameras/{id}/settings", put(update_settings))
        .route("/entity/Camera", get(find))
        .route("/import", post(import))
        .route("/models", get(async || Json(["Hikvision DS-2CD", "Axis P3245"])))
        .with_state(AccessControl { cameras: cameras.clone(), messaging: messaging.clone() })
        .nest("/cameras", model_routes::<Camera, _>(cameras))
        .merge(internal_router(internal.version(env!("CARGO_PKG_VERSION"))))
}

/// Changes nothing but the settings, and tells it as such.
async fn update_settings(
    State(this): State<AccessControl>,
    Path(id): Path<u64>,
    Json(settings): Json<Value>,
) -> Result<Json<CameraSettings>, Problem> {
    let camera = this.cameras.storage().set_settings(id, settings);
    let Camera { mac_address, settings, .. } =
        camera.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such camera"))?;
    let changed = CameraSettings { id, mac_address, settings };
    this.messaging.emit(Op::Update, &changed).await.map_err(unavailable)?;
    Ok(Json(changed))
}

#[derive(Deserialize)]
struct Find {
    filters: String,
}

#[derive(Deserialize)]
struct Filters {
    #[serde(rename = "mac_address__eq")]
    mac_address: String,
}

/// `?filters={"mac_address__eq":"…"}`: whoever does not find a camera in the cache asks here.
async fn find(
    State(this): State<AccessControl>,
    Query(Find { filters }): Query<Find>,
) -> Result<Json<Vec<Camera>>, Problem> {
    let filters: Filters = serde_json::from_str(&filters).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the filters cannot be read: {error}"))
    })?;
    tokio::time::sleep(SLOWLY).await;
    let cameras: Vec<Camera> = this.cameras.list().await.map_err(unavailable)?;
    Ok(Json(cameras.into_iter().filter(|camera| camera.mac_address == filters.mac_address).collect()))
}

/// Many cameras at once, past the repository: nobody is told, and the cache is written by hand.
async fn import(
    State(this): State<AccessControl>,
    Json(cameras): Json<Vec<Camera>>,
) -> Result<Json<Value>, Problem> {
    let imported = cameras.len();
    for camera in cameras {
        this.cameras.storage().table().insert(camera.id, camera.clone());
        sync_to_redis(camera).await.map_err(unavailable)?;
    }
    Ok(Json(json!({ "imported": imported })))
}

/// What `cache = { … }` of the model does by itself.
async fn sync_to_redis(camera: Camera) -> Result<(), Error> {
    let cache = CacheManager::new("camera");
    let camera = CachedCamera::from(camera);
    cache.set(&format!("mac:{}", camera.mac_address), &camera, Duration::from_secs(ONE_HOUR)).await
}

fn unavailable(error: Error) -> Problem {
    tracing::error!(%error, "a request failed");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "try again")
}

/// Stands for a database.
struct Cameras(Mutex<BTreeMap<u64, Camera>>);

impl Cameras {
    /// Two that have been there for long: nothing of them is in the cache.
    fn installed() -> Self {
        let camera = |id, mac_address: &str, model: &str, complex_id| Camera {
            id,
            mac_address: mac_address.to_owned(),
            model: Some(model.to_owned()),
            settings: json!({ "resolution": "1080p" }),
            complex_id,
        };
        let cameras = [
            camera(7, "AA:BB:CC:DD:EE:FF", "Hikvision DS-2CD", Some(12)),
            camera(8, "AA:BB:CC:DD:EE:00", "Axis P3245", None),
        ];
        Self(Mutex::new(cameras.into_iter().map(|camera| (camera.id, camera)).collect()))
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, Camera>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The camera as it is then.
    fn set_settings(&self, id: u64, settings: Value) -> Option<Camera> {
        let mut table = self.table();
        let camera = table.get_mut(&id)?;
        camera.settings = settings;
        Some(camera.clone())
    }
}

impl Storage<Camera> for Cameras {
    type Id = u64;
    type Error = Infallible;

    async fn insert(&self, camera: Camera) -> Result<Camera, Infallible> {
        self.table().insert(camera.id, camera.clone());
        Ok(camera)
    }

    async fn update(&self, camera: Camera) -> Result<Option<Updated<Camera>>, Infallible> {
        let mut table = self.table();
        let Some(stored) = table.get_mut(&camera.id) else { return Ok(None) };
        let before = Some(std::mem::replace(stored, camera.clone()));
        Ok(Some(Updated { before, after: camera }))
    }

    async fn delete(&self, id: &u64) -> Result<Option<Camera>, Infallible> {
        Ok(self.table().remove(id))
    }

    async fn get(&self, id: &u64) -> Result<Option<Camera>, Infallible> {
        Ok(self.table().get(id).cloned())
    }

    async fn list(&self) -> Result<Vec<Camera>, Infallible> {
        Ok(self.table().values().cloned().collect())
    }
}
