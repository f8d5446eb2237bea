//! What the services know of each other: models, which say what is published when they change, and what is cached of a camera.

use messaging_core::{Timestamp, event_config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How long the settings of a camera are cached: they rarely change.
pub(crate) const ONE_HOUR: u64 = 3600;

/// A camera, as AccessControl keeps it. Every change is published and written into the cache, by itself.
#[event_config(
    publish = { create = "camera.created", update = "camera.updated", delete = "camera.deleted" },
    payload_fields = [id, mac_address, model, settings],
    cache = {
        key = "camera:mac:{mac_address}",
        ttl = 3600,
        fields = [id, mac_address, model, settings, complex_id],
    },
)]
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Camera {
    pub(crate) id: u64,
    pub(crate) mac_address: String,
    pub(crate) model: Option<String>,
    pub(crate) settings: Value,
    /// Where it hangs, if anywhere.
    #[serde(default)]
    pub(crate) complex_id: Option<u64>,
}

/// The settings alone. Other services hear that they have changed, and do about it what they have to.
#[event_config(publish = { update = "camera.settings.updated" })]
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CameraSettings {
    pub(crate) id: u64,
    pub(crate) mac_address: String,
    pub(crate) settings: Value,
}

/// What is cached of a camera. AccessControl and Events write the same JSON under the same key, so that either finds what the
/// other has written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CachedCamera {
    pub(crate) id: u64,
    pub(crate) mac_address: String,
    pub(crate) model: Option<String>,
    pub(crate) settings: Value,
    #[serde(default)]
    pub(crate) complex_id: Option<u64>,
}

/// What a camera has seen, once it is processed. It goes to everybody, and to those of the camera's complex: a channel whose
/// field is `None` is left out.
#[event_config(publish = { create = ["camera.events", "camera.events.complex:{complex_id}"] })]
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CameraEvent {
    pub(crate) event_type: String,
    pub(crate) camera_id: u64,
    pub(crate) mac_address: String,
    #[schemars(with = "String")]
    pub(crate) timestamp: Timestamp,
    pub(crate) data: Value,
    /// Clients filter by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) complex_id: Option<u64>,
}

impl From<Camera> for CachedCamera {
    fn from(camera: Camera) -> Self {
        let Camera { id, mac_address, model, settings, complex_id } = camera;
        Self { id, mac_address, model, settings, complex_id }
    }
}
