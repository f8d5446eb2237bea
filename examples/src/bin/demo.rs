//! The camera demo: a service that owns cameras, a service that processes their events, and a service that notifies
//! people, all in one process. `cargo run` shows it in memory, with `REDIS_URL` set on a Redis, where any other client
//! sees the same events.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a demo is for")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use messaging_core::{
    Config, Error, Messaging, Repository, State, Storage, Updated, event_config, redis_cache, subscribe,
    subscribers,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

// --- AccessControl: owns the cameras. Every change of one is published by itself.

#[event_config(
    publish = { create = "camera.created", update = "camera.updated", delete = "camera.deleted" },
    payload_fields = [id, mac_address, model, settings],
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Camera {
    id: u64,
    mac_address: String,
    model: String,
    settings: Value,
    password: String,
}

/// Stands for a database.
#[derive(Default)]
struct Cameras(Mutex<BTreeMap<u64, Camera>>);

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

impl Cameras {
    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Camera>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// --- Events: needs a camera's settings for each raw event, and asks the slow source only once for each camera.

struct CameraProcessor {
    cameras: Repository<Cameras>,
    slow_calls: AtomicU32,
}

impl CameraProcessor {
    #[redis_cache(
        key = "camera:mac:{mac_address}",
        ttl = 3600,
        invalidate_on = [Camera(update, delete)],
    )]
    async fn get_camera_by_mac(&self, mac_address: &str) -> Result<Option<CameraView>, Error> {
        // An HTTP call to AccessControl, say.
        self.slow_calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(60)).await;
        let all: Vec<Camera> = self.cameras.list().await?;
        let found = all.into_iter().find(|camera| camera.mac_address == mac_address);
        Ok(found.map(|camera| CameraView { id: camera.id, model: camera.model, settings: camera.settings }))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct CameraView {
    id: u64,
    model: String,
    settings: Value,
}

#[derive(Serialize, Deserialize)]
struct CameraEvent {
    event_type: String,
    camera_id: u64,
}

#[subscribe("camera.events.complex:{complex_id}")]
async fn on_complex_event(complex_id: u32, event: CameraEvent, screen: State<Screen>) {
    screen.line("handler", "on_complex_event", &format!("complex_id = {complex_id}: {}", event.event_type));
    screen.handled.notify_one();
}

// --- Notifications: a service whose methods are handlers.

struct Notifications {
    screen: Screen,
}

/// What the handlers want of a camera's event; the rest of the payload does not concern them.
#[derive(Deserialize)]
struct CameraChange {
    mac_address: String,
    model: String,
}

#[subscribers]
impl Notifications {
    #[subscribe("camera.created")]
    async fn welcome(&self, camera: CameraChange) {
        self.tell("welcome", &format!("{} is new, a {}", camera.mac_address, camera.model));
    }

    #[subscribe("camera.updated")]
    async fn notify_admins(&self, camera: CameraChange) {
        self.tell("notify_admins", &format!("settings of {} changed", camera.mac_address));
    }

    #[subscribe("camera.deleted")]
    async fn goodbye(&self, camera: CameraChange) {
        self.tell("goodbye", &format!("{} is gone", camera.mac_address));
    }
}

impl Notifications {
    fn tell(&self, handler: &str, text: &str) {
        self.screen.line("handler", handler, text);
        self.screen.handled.notify_one();
    }
}

// --- The demo itself.

/// Prints aligned lines with the time since the start, and knows when a handler has printed.
#[derive(Clone)]
struct Screen {
    start: Instant,
    handled: std::sync::Arc<Notify>,
}

impl Screen {
    fn line(&self, who: &str, what: &str, text: &str) {
        println!("{:>6} ms  {who:<11} {what:<18} {text}", self.start.elapsed().as_millis());
    }

    /// Waits for the handler of what was just published.
    async fn wait_for_handler(&self) -> Result<(), String> {
        let waited = tokio::time::timeout(Duration::from_secs(5), self.handled.notified()).await;
        waited.map_err(|_| "no handler was called within 5 seconds".to_owned())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<(), Box<dyn std::error::Error>> {
    let config = match std::env::var_os("REDIS_URL").filter(|url| !url.is_empty()) {
        Some(_) => Config::from_env()?,
        None => Config::new("memory://")?,
    };
    println!("messaging on {}\n", config.endpoint);
    let screen = Screen { start: Instant::now(), handled: std::sync::Arc::default() };
    let messaging = Messaging::builder()
        .config(config)
        .state(screen.clone())
        .service(Notifications { screen: screen.clone() })
        .build()
        .await?;
    let running = messaging.start().await?;
    for handler in messaging.health().handlers {
        let name = handler.id.rsplit("::").next().unwrap_or_default();
        screen.line("started", name, &format!("on {}", handler.channels.join(", ")));
    }

    let cameras = Repository::new(Cameras::default(), &messaging);
    let processor = CameraProcessor { cameras: cameras.clone(), slow_calls: AtomicU32::new(0) };
    let mac = "AA:BB:CC:DD:EE:FF";
    // A value that an earlier run on the same Redis has left behind.
    CameraProcessor::get_camera_by_mac_cache().invalidate(mac).await?;

    println!("\nA camera is created.");
    let mut camera = Camera {
        id: 7,
        mac_address: mac.to_owned(),
        model: "Hikvision DS-2CD".to_owned(),
        settings: json!({ "resolution": "1080p" }),
        password: "never published".to_owned(),
    };
    screen.line("repository", "create", "publishes on camera.created");
    camera = cameras.create(camera).await?;
    screen.wait_for_handler().await?;

    println!("\nIts settings are needed, three times.");
    for _ in 0..3 {
        look_up(&processor, &screen, mac).await?;
    }

    println!("\nIt is updated. The cached value goes before anybody hears of it.");
    camera.settings = json!({ "resolution": "4K" });
    screen.line("repository", "update", "publishes on camera.updated");
    cameras.update(camera).await?;
    screen.wait_for_handler().await?;
    screen.line("cache", "invalidated", &CameraProcessor::get_camera_by_mac_cache().key(mac)?);
    for _ in 0..2 {
        look_up(&processor, &screen, mac).await?;
    }

    println!("\nAn event of the complex where it hangs.");
    let event = CameraEvent { event_type: "motion_detected".to_owned(), camera_id: 7 };
    screen.line("publish", "motion_detected", "on camera.events.complex:12");
    messaging.publish("camera.events.complex:12", &event).await?;
    screen.wait_for_handler().await?;

    println!("\nIt is deleted.");
    screen.line("repository", "delete", "publishes on camera.deleted");
    cameras.delete::<Camera>(7).await?;
    screen.wait_for_handler().await?;
    look_up(&processor, &screen, mac).await?;

    let report = running.shutdown(Duration::from_secs(1)).await;
    println!("\nShut down: {report}.");
    Ok(())
}

/// Asks for a camera and says whether the slow source was asked.
async fn look_up(processor: &CameraProcessor, screen: &Screen, mac: &str) -> Result<(), Error> {
    let (calls, start) = (processor.slow_calls.load(Ordering::Relaxed), Instant::now());
    let found = processor.get_camera_by_mac(mac).await?;
    let took = start.elapsed();
    let result = if processor.slow_calls.load(Ordering::Relaxed) > calls { "miss" } else { "hit" };
    let settings = found.map_or_else(|| "no such camera".to_owned(), |camera| camera.settings.to_string());
    screen.line("cache", result, &format!("{settings} in {took:.1?}"));
    Ok(())
}
