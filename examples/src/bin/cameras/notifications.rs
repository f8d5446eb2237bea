//! Notifications: tells people what has changed.

use messaging_core::{State, redis_cache, subscribe};
use serde::Deserialize;

use crate::screen::Screen;

#[derive(Deserialize)]
struct SettingsChange {
    mac_address: String,
}

#[subscribe("camera.settings.updated")]
async fn notify_admins(change: SettingsChange, screen: State<Screen>) {
    send_notification(&screen, &format!("Camera {} settings updated", change.mac_address)).await;
}

async fn send_notification(screen: &Screen, text: &str) {
    screen.handled(
        "notifications",
        "notify_admins",
        &format!("to {}: {text}", active_users().await.join(", ")),
    );
}

/// Changes often: five minutes.
#[redis_cache(key = "users:active", ttl = 300)]
async fn active_users() -> Vec<String> {
    // A query, say.
    ["ada", "grace"].map(str::to_owned).to_vec()
}
