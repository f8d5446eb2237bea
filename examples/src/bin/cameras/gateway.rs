//! Gateway: streams what other services declare to browsers. It is told where they are; what they have to offer it finds out.

use std::time::Duration;

use messaging_core::{Backoff, Messaging, Result};
use messaging_gateway::{AccessRequest, Gateway, Polling};

/// A gateway of these two services.
pub(crate) fn build(messaging: &Messaging, access_control: &str, events: &str) -> Result<Gateway> {
    let mut polling = Polling::default();
    polling.retry = Backoff { initial: Duration::from_millis(200), max: Duration::from_secs(5) };
    Gateway::builder(messaging)
        .allow_anonymous()
        // This program is all services, and the gateway nothing but that.
        .only_services()
        .service("access_control", access_control, ["access."])
        .service("events", events, ["camera."])
        .polling(polling)
        .authorize("CameraEvents", everybody)
        .build()
}

/// That it is public there means nothing here: the gateway decides. (A real one would ask who it is.)
async fn everybody(_: AccessRequest) -> bool {
    true
}

/// Waits until this entity is served.
pub(crate) async fn found(gateway: &Gateway, entity: &str) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    while !gateway.health().details["entities"].as_array().is_some_and(|found| found.contains(&entity.into()))
    {
        looks.tick().await;
    }
}
