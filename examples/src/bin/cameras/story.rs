//! What happens between the services, from top to bottom, with all of them in one process. It ends by itself.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use messaging_core::{BoxError, CacheManager, Config, Messaging, get_redis_client};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::camera::CachedCamera;
use crate::events::CameraProcessor;
use crate::http::Http;
use crate::role::Served;
use crate::screen::Screen;
use crate::{access_control, events, gateway};

const CAMERA: &str = "AA:BB:CC:DD:EE:FF";
const IN_NO_COMPLEX: &str = "AA:BB:CC:DD:EE:00";
const IMPORTED: &str = "AA:BB:CC:DD:EE:01";

const PATIENCE: Duration = Duration::from_secs(5);

struct Story {
    access_control: SocketAddr,
    events: SocketAddr,
    http: Http,
    cache: CacheManager,
    screen: Screen,
}

pub(crate) async fn tell(config: Config) -> Result<(), BoxError> {
    println!("messaging on {}\n", config.endpoint);
    let screen = Screen::new();
    let messaging = Messaging::builder().config(config).state(screen.clone()).build().await?;
    let running = messaging.start().await?;
    // What an earlier run has left behind.
    let cache = CacheManager::new("camera");
    cache.invalidate_pattern("mac:*").await?;

    println!(
        "Four services: two with HTTP, one that only listens, and a gateway, which asks what there is to stream."
    );
    let access_control = Served::at(0, access_control::router(&messaging)).await?;
    screen.line("access-control", "serves", &format!("http://{}", access_control.address));
    let url = format!("http://{}", access_control.address);
    let processor = CameraProcessor::new(url.clone(), &messaging, &screen);
    let events = Served::at(0, events::router(processor, &messaging)).await?;
    screen.line("events", "serves", &format!("http://{}", events.address));
    for handler in messaging.health().handlers {
        let name = handler.id.rsplit("::").next().unwrap_or_default();
        let service = handler.id.split("::").nth(1).unwrap_or_default();
        screen.line(service, "listens", &format!("{name} on {}", handler.channels.join(", ")));
    }
    let gateway = gateway::build(&messaging, &url, &format!("http://{}", events.address))?;
    let streaming = Served::at(0, gateway.router()).await?;
    screen.line("gateway", "serves", &format!("ws://{}/subscribe", streaming.address));
    let found = tokio::time::timeout(PATIENCE, gateway::found(&gateway, "CameraEvents")).await;
    found.map_err(|_| format!("the gateway has not found CameraEvents: {:?}", gateway.health().warnings))?;
    screen.line("gateway", "found", "CameraEvents by /__schema of events");

    let story = Story {
        access_control: access_control.address,
        events: events.address,
        http: Http::new(),
        cache,
        screen,
    };
    story.run(&messaging, streaming.address).await?;

    let report = running.shutdown(PATIENCE).await;
    for served in [streaming, events, access_control] {
        served.end().await?;
    }
    println!("\nShut down: {report}.");
    Ok(())
}

impl Story {
    async fn run(&self, messaging: &Messaging, gateway: SocketAddr) -> Result<(), BoxError> {
        println!("\nThree browsers: all events, those of camera 7, those of complex 12.");
        let of_seven = json!({ "filters": { "camera_id": 7 } });
        let of_complex = json!({ "params": { "complex_id": 12 } });
        let mut all = Browser::subscribe("browser-all", gateway, json!({}), &self.screen).await?;
        let mut seven = Browser::subscribe("browser-7", gateway, of_seven, &self.screen).await?;
        let mut complex = Browser::subscribe("browser-12", gateway, of_complex, &self.screen).await?;

        println!("\nCamera 7 moves, three times. Its settings are asked for by HTTP once.");
        for _ in 0..3 {
            self.motion(CAMERA).await?;
        }
        println!("\nThat was streamed; camera 8, of no complex, is seen by the first browser only.");
        self.see(IN_NO_COMPLEX, json!({ "event": "line_crossed" })).await?;
        for _ in 0..4 {
            all.event().await?;
        }
        for browser in [&mut seven, &mut complex] {
            for _ in 0..3 {
                browser.event().await?;
            }
        }

        println!(
            "\nCamera 7 is updated: the old entry goes before anybody hears of it, the new one is there already."
        );
        self.request(Method::PATCH, "/cameras/7", json!({ "settings": { "resolution": "4K" } })).await?;
        self.motion(CAMERA).await?;

        println!("\nA camera is imported past the model, and the cache written by hand.");
        let camera =
            json!({ "id": 9, "mac_address": IMPORTED, "model": null, "settings": { "resolution": "720p" } });
        self.request(Method::POST, "/import", json!([camera])).await?;
        self.see(IMPORTED, json!({})).await?;

        println!(
            "\nOnly its settings are changed. Two services listen to that, and one invalidates by hand."
        );
        self.request(Method::PUT, "/cameras/7/settings", json!({ "resolution": "8K" })).await?;
        tokio::time::timeout(PATIENCE, self.screen.until_handled(2))
            .await
            .map_err(|_| format!("two handlers were to be called; they were not within {PATIENCE:?}"))?;
        let entry: Option<CachedCamera> = self.cache.get(&format!("mac:{CAMERA}")).await?;
        self.screen.line("cache", "camera:mac:…", entry.map_or("nothing", |_| "still there"));
        self.motion(CAMERA).await?;
        self.motion(CAMERA).await?;

        println!("\nIt is removed.");
        self.request(Method::DELETE, "/cameras/7", json!(null)).await?;
        self.motion(CAMERA).await?;

        println!("\nWhat an operator sees.");
        self.monitor(messaging).await
    }

    /// Calls AccessControl.
    async fn request(&self, method: Method, path: &str, body: Value) -> Result<(), BoxError> {
        let url = format!("http://{}{path}", self.access_control);
        let status = self.http.send(method.clone(), &url, &body).await?;
        self.screen.line("access-control", method.as_str(), &format!("{path}: {status}"));
        if status.is_success() { Ok(()) } else { Err(format!("{method} {path}: {status}").into()) }
    }

    async fn motion(&self, mac_address: &str) -> Result<(), BoxError> {
        self.see(mac_address, json!({ "eventType": "VMD" })).await
    }

    /// A camera sends what it has seen to Events.
    async fn see(&self, mac_address: &str, data: Value) -> Result<(), BoxError> {
        let url = format!("http://{}/raw", self.events);
        let raw = json!({ "mac_address": mac_address, "data": data });
        match self.http.send(Method::POST, &url, &raw).await? {
            StatusCode::ACCEPTED | StatusCode::NOT_FOUND => Ok(()),
            status => Err(format!("POST {url}: {status}").into()),
        }
    }

    async fn monitor(&self, messaging: &Messaging) -> Result<(), BoxError> {
        let client = get_redis_client()?;
        let info = client.info().await?;
        let clients = info.get("connected_clients").map_or("none", String::as_str);
        self.screen.line("monitoring", "redis", &format!("connected clients: {clients}"));
        let channels = client.pubsub_channels().await?;
        self.screen.line("monitoring", "redis", &format!("active channels: {}", channels.len()));
        for cache in messaging.health().caches {
            let name = cache.function.rsplit("::").next().unwrap_or_default();
            let removed = &cache.invalidations;
            let text = format!(
                "{name}: {} hits, {} loads, {} invalidated by what was published",
                cache.hits, cache.loads, removed.publishes
            );
            self.screen.line("monitoring", "cache", &text);
        }
        Ok(())
    }
}
