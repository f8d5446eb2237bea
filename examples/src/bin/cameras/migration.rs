//! From hand-written cache code to ours: the same camera under the same key, three ways. `cameras migration` runs them.

use std::time::Duration;

use messaging_core::{BoxError, CacheManager, Config, Messaging, Op};
use serde_json::{Value, json};

use crate::camera::Camera;

/// Before: a client of Redis, the key, the JSON and the time, wherever a camera changes. Whoever has read it from the database a
/// moment earlier stores the old one again; nobody else hears of it; while Redis is away the change fails.
mod before {
    use redis::AsyncCommands as _;
    use redis::aio::MultiplexedConnection;

    use super::{Camera, Value, json};

    fn build_camera_cache_data(camera: &Camera) -> Value {
        json!({
            "id": camera.id,
            "mac_address": camera.mac_address,
            "model": camera.model,
            "settings": camera.settings,
            "complex_id": camera.complex_id,
        })
    }

    async fn cache_camera_by_mac(
        redis: &mut MultiplexedConnection,
        mac_address: &str,
        data: &Value,
    ) -> redis::RedisResult<()> {
        redis.set_ex(format!("camera:mac:{mac_address}"), data.to_string(), 3600).await
    }

    pub(super) async fn sync_camera_to_cache(
        redis: &mut MultiplexedConnection,
        camera: &Camera,
    ) -> redis::RedisResult<()> {
        let data = build_camera_cache_data(camera);
        cache_camera_by_mac(redis, &camera.mac_address, &data).await
    }
}

/// After: one call, which defeats a load that has read the old one.
mod after {
    use super::{CacheManager, Camera, Duration, json};

    pub(super) async fn sync_camera_to_cache(camera: &Camera) -> messaging_core::Result<()> {
        let cache = CacheManager::new("camera");
        let data = json!({
            "id": camera.id,
            "mac_address": camera.mac_address,
            "model": camera.model,
            "settings": camera.settings,
            "complex_id": camera.complex_id,
        });
        cache.set(&format!("mac:{}", camera.mac_address), &data, Duration::from_secs(3600)).await
    }
}

/// Simpler still: nothing. The model says where it is cached and what is published (`#[event_config]` in `camera.rs`); a
/// `Repository` does this by itself with each change.
mod simpler {
    use super::{Camera, Messaging, Op};

    pub(super) async fn camera_was_updated(
        messaging: &Messaging,
        camera: &Camera,
    ) -> messaging_core::Result<u64> {
        messaging.emit(Op::Update, camera).await
    }
}

/// Caches a camera in each way, and shows what is in Redis then.
pub(crate) async fn show(config: Config) -> Result<(), BoxError> {
    println!("messaging on {}", config.endpoint);
    let url = std::env::var("REDIS_URL").ok().filter(|url| url.starts_with("redis://"));
    let running = Messaging::builder()
        .config(config)
        .handlers(messaging_core::Handlers::none())
        .build()
        .await?
        .start()
        .await?;
    let messaging = running.messaging();
    let cache = CacheManager::new("camera");
    let mut camera = Camera {
        id: 7,
        mac_address: "AA:BB:CC:DD:EE:FF".to_owned(),
        model: Some("Hikvision DS-2CD".to_owned()),
        settings: json!({ "resolution": "1080p" }),
        complex_id: Some(12),
    };
    let mut updates = messaging.subscribe("camera.updated").await?;
    cache.invalidate("mac:AA:BB:CC:DD:EE:FF").await?;

    println!("\nBy hand, with the redis crate");
    match url {
        Some(url) => {
            let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
            before::sync_camera_to_cache(&mut redis, &camera).await?;
            show_entry(&cache).await?;
        }
        None => println!("  that needs a Redis: set REDIS_URL to one, such as redis://127.0.0.1:6379"),
    }

    println!("\nWith CacheManager");
    camera.settings = json!({ "resolution": "4K" });
    after::sync_camera_to_cache(&camera).await?;
    show_entry(&cache).await?;

    println!("\nBy the model");
    camera.settings = json!({ "resolution": "8K" });
    simpler::camera_was_updated(messaging, &camera).await?;
    show_entry(&cache).await?;
    // So far nobody had been told.
    match updates.get_message(Duration::from_secs(5)).await? {
        Some(event) => println!("  and published on camera.updated: {}", event.json::<Value>()?),
        None => return Err("camera.updated was to be published; it was not within 5s".into()),
    }
    drop(updates);
    running.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

async fn show_entry(cache: &CacheManager) -> Result<(), BoxError> {
    let entry: Option<Value> = cache.get("mac:AA:BB:CC:DD:EE:FF").await?;
    println!("  camera:mac:AA:BB:CC:DD:EE:FF = {}", entry.ok_or("nothing was cached")?);
    Ok(())
}
