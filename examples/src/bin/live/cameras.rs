//! Eight cameras in three complexes that see something now and then.

use std::time::Duration;

use messaging_core::{Messaging, Timestamp};
use messaging_gateway::subscription;
use serde::Serialize;

/// What clients can subscribe to: all events, or those of one complex, and of some cameras only.
#[subscription(
    channels = ["camera.events", "camera.events.complex:{complex_id}"],
    filters = { camera_id = [eq, in], complex_id = [eq, in] },
    public,
)]
pub(crate) struct CameraEvents;

#[derive(Serialize)]
struct CameraEvent {
    /// Counts all events, one by one.
    id: u64,
    event_type: &'static str,
    camera_id: u8,
    complex_id: u8,
    mac_address: String,
    timestamp: Timestamp,
    data: Seen,
}

#[derive(Serialize)]
struct Seen {
    confidence: f32,
}

/// Publishes what the cameras see, for ever.
pub(crate) async fn simulate(messaging: &Messaging) {
    let mut id = last_id(messaging).await + 1;
    loop {
        let event = random_event(id);
        // A camera does not know who watches, and tells those of its complex too.
        let everywhere = messaging.publish("camera.events", &event).await;
        let channel = format!("camera.events.complex:{}", event.complex_id);
        match everywhere.and(messaging.publish(&channel, &event).await) {
            Ok(_) => id += 1,
            Err(error) => {
                tracing::warn!(%error, "an event could not be published");
                // It may have arrived all the same.
                tokio::time::sleep(Duration::from_secs(1)).await;
                id = last_id(messaging).await + 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(150..900))).await;
    }
}

/// The number of the last event, which is its place in the channel's stream: another process may have published before.
async fn last_id(messaging: &Messaging) -> u64 {
    loop {
        let found = async {
            let streams = messaging.streams_of("camera.events").await?;
            match streams.first() {
                Some(stream) => Ok(messaging.stream_end(stream).await?.position.number),
                None => Ok::<_, messaging_core::Error>(0),
            }
        };
        match found.await {
            Ok(number) => return number,
            Err(error) => tracing::warn!(%error, "the last event is not known"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn random_event(id: u64) -> CameraEvent {
    let camera_id = fastrand::u8(1..=8);
    let kinds = [
        "motion_detected",
        "motion_detected",
        "motion_detected",
        "vehicle",
        "vehicle",
        "person",
        "line_crossed",
    ];
    CameraEvent {
        id,
        event_type: kinds[fastrand::usize(..kinds.len())],
        camera_id,
        complex_id: (camera_id - 1) % 3 + 1,
        mac_address: format!("02:00:5E:00:53:{camera_id:02X}"),
        timestamp: Timestamp::now(),
        data: Seen { confidence: (60.0 + fastrand::f32() * 39.0).round() / 100.0 },
    }
}
