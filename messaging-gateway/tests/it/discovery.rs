//! What is believed of other services, and what becomes of it when they go, change or lie.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use messaging_core::{Backoff, Messaging};
use messaging_gateway::{
    Discovery, InternalState, Operator, Polling, RemoteService, SlowPolicy, internal_router,
};
use messaging_tests::eventually;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::web::Server;

type Say = Box<dyn Fn() -> Response + Send>;

/// A service whose schema is what the test wants.
struct Fake {
    server: Server,
    says: Arc<Mutex<(Say, usize)>>,
}

impl Fake {
    async fn start(say: impl Fn() -> Response + Send + 'static) -> Self {
        let says: Arc<Mutex<(Say, usize)>> = Arc::new(Mutex::new((Box::new(say), 0)));
        let shared = Arc::clone(&says);
        let answer = async move || {
            let mut says = shared.lock().unwrap();
            says.1 += 1;
            (says.0)()
        };
        Self { server: Server::start(Router::new().route("/__schema", get(answer))).await, says }
    }

    fn say(&self, say: impl Fn() -> Response + Send + 'static) {
        self.says.lock().unwrap().0 = Box::new(say);
    }

    fn asked(&self) -> usize {
        self.says.lock().unwrap().1
    }

    fn service(&self, name: &str, prefix: &str) -> RemoteService {
        RemoteService::new(name, &self.server.url(), [prefix]).unwrap()
    }
}

/// A schema with these entities, each with one channel.
fn schema(service: &str, entities: &[(&str, &str)]) -> Response {
    let entities: Vec<_> =
        entities.iter().map(|(entity, channel)| json!({"entity": entity, "channels": [channel]})).collect();
    axum::Json(json!({"protocol": 1, "service": service, "entities": entities})).into_response()
}

struct Discovering {
    discovery: Discovery,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn quick() -> Polling {
    let mut polling = Polling::default();
    polling.every = Duration::from_millis(20);
    polling.retry = Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(20) };
    polling
}

impl Discovering {
    fn start<const N: usize>(services: [RemoteService; N], local: &[&str], polling: Polling) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let local = local.iter().copied();
        let discovery = Discovery::start(services, local, polling, &tasks, &stop).unwrap();
        Self { discovery, tasks, stop }
    }

    fn names(&self) -> Vec<String> {
        self.discovery.entities().iter().map(|entity| entity.entity.clone()).collect()
    }

    async fn serves(&self, names: &[&str]) {
        eventually(&format!("{names:?} are served"), async || self.names() == names).await;
    }

    async fn warns(&self, text: &str) {
        eventually(&format!("health says {text:?}"), async || {
            self.discovery.health().warnings().any(|warning| warning.contains(text))
        })
        .await;
    }

    /// Ends it, as its owner does.
    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await.expect("the tasks end");
    }
}

#[tokio::test]
async fn a_service_is_known_by_what_its_own_router_says() {
    let messaging = Messaging::builder().url("memory://").build().await.unwrap();
    let server = Server::start(internal_router(InternalState::new("events", &messaging))).await;
    let service = RemoteService::new("events", &server.url(), ["shown."]).unwrap();
    let discovering = Discovering::start([service], &[], quick());
    discovering.serves(&["Shown"]).await;
    let entities = discovering.discovery.entities();
    let shown = &entities[0];
    assert_eq!(&*shown.service, "events");
    let channels: Vec<_> = shown.channels.iter().map(messaging_core::Pattern::as_str).collect();
    assert_eq!(channels, ["shown.all", "shown.of:{id}"]);
    let filters: Vec<_> = shown.filters.iter().map(|filter| (&*filter.field, &*filter.operators)).collect();
    assert_eq!(filters, [("a.b", &[Operator::Eq][..]), ("id", &[Operator::Eq, Operator::In])]);
    assert_eq!((shown.tenant.as_deref(), shown.send, shown.presence), (Some("org"), true, false));
    assert_eq!(shown.slow, SlowPolicy::Latest);
    // The binary has another entity, which is not below the prefix.
    discovering.warns("service `events`: entity \"Hidden\": channel \"hidden\"").await;
    assert!(!discovering.discovery.health().is_sound());
    discovering.end().await;
}

#[tokio::test]
async fn the_last_good_answer_is_kept_and_a_change_takes_effect() {
    let fake = Fake::start(|| schema("events", &[("A", "cam.a"), ("B", "cam.b")])).await;
    let discovering = Discovering::start([fake.service("events", "cam.")], &[], quick());
    let mut changes = discovering.discovery.changes();
    discovering.serves(&["A", "B"]).await;
    assert!(discovering.discovery.health().is_sound());
    changes.borrow_and_update();

    fake.say(|| (axum::http::StatusCode::BAD_GATEWAY, "down").into_response());
    discovering.warns("service `events`: it answered 502 Bad Gateway").await;
    assert_eq!(discovering.names(), ["A", "B"]);
    let health = discovering.discovery.health();
    assert!(!health.services[0].is_reached && health.services[0].last_answer_ms.is_some());

    // Not what it was, though it is reached again.
    fake.say(|| schema("events", &[("B", "cam.b2"), ("C", "cam.c"), ("D", "orders.d")]));
    discovering.serves(&["B", "C"]).await;
    assert!(changes.has_changed().unwrap());
    assert_eq!(discovering.discovery.entities()[0].channels[0].as_str(), "cam.b2");
    discovering
        .warns("entity \"D\": channel \"orders.d\": it begins with none of the service's prefixes")
        .await;

    // The same again is no change.
    let asked = fake.asked();
    changes.borrow_and_update();
    eventually("it is asked again", async || fake.asked() > asked + 2).await;
    assert!(!changes.has_changed().unwrap());

    drop(fake);
    discovering.warns("service `events`: it cannot be reached").await;
    assert_eq!(discovering.names(), ["B", "C"]);
    discovering.end().await;
}

#[tokio::test]
async fn after_a_failure_it_is_asked_again_soon() {
    let fake = Fake::start(|| (axum::http::StatusCode::SERVICE_UNAVAILABLE, "").into_response()).await;
    let mut polling = quick();
    polling.every = Duration::from_secs(3_600);
    let discovering = Discovering::start([fake.service("events", "cam.")], &[], polling);
    discovering.warns("it answered 503 Service Unavailable").await;
    fake.say(|| schema("events", &[("A", "cam.a")]));
    discovering.serves(&["A"]).await;
    discovering.end().await;
}

#[tokio::test]
async fn what_two_declare_nobody_is_served_until_one_gives_way() {
    let a = Fake::start(|| schema("a", &[("Shared", "cam.s"), ("A", "cam.a"), ("Ours", "cam.o")])).await;
    let b = Fake::start(|| schema("b", &[("Shared", "ord.s"), ("B", "ord.b")])).await;
    let services = [a.service("a", "cam."), b.service("b", "ord.")];
    let discovering = Discovering::start(services, &["Ours"], quick());
    discovering.serves(&["A", "B"]).await;
    discovering.warns("entity `Shared` is declared by `a` and `b`; none of them is served").await;
    discovering.warns("entity `Ours` is declared by this process and by `a`").await;
    assert!(!discovering.discovery.health().is_sound());

    b.say(|| schema("b", &[("B", "ord.b")]));
    a.say(|| schema("a", &[("Shared", "cam.s"), ("A", "cam.a")]));
    discovering.serves(&["A", "B", "Shared"]).await;
    eventually("it is sound", async || discovering.discovery.health().is_sound()).await;

    // What is refused takes nothing from those who may declare it.
    b.say(|| schema("b", &[("B", "ord.b"), ("A", "cam.a")]));
    discovering.warns("service `b`: entity \"A\"").await;
    assert_eq!(discovering.names(), ["A", "B", "Shared"]);
    discovering.end().await;
}

#[tokio::test]
async fn what_is_no_schema_is_an_error() {
    let fake = Fake::start(|| schema("events", &[("A", "cam.a")])).await;
    let mut polling = quick();
    polling.timeout = Duration::from_millis(300);
    polling.most = NonZeroUsize::new(1_000).unwrap();
    let discovering = Discovering::start([fake.service("events", "cam.")], &[], polling);
    discovering.serves(&["A"]).await;
    let json = [("content-type", "application/json")];

    fake.say(|| (axum::http::StatusCode::FOUND, [("location", "/other")]).into_response());
    discovering.warns("redirects are not followed").await;
    fake.say(move || (json, "x".repeat(1_001)).into_response());
    discovering.warns("its schema is larger than 1000 bytes").await;
    fake.say(|| axum::response::Html("<p>").into_response());
    discovering.warns("something else than application/json").await;
    // Without a length in its head.
    fake.say(move || {
        let chunks =
            futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'['; 100])));
        (json, Body::from_stream(chunks)).into_response()
    });
    discovering.warns("its schema is larger than 1000 bytes").await;
    fake.say(move || (json, "{\"protocol\":").into_response());
    discovering.warns("the schema cannot be read").await;
    fake.say(|| schema("billing", &[]));
    discovering.warns("calls itself \"billing\"").await;
    // The head, and then nothing.
    fake.say(move || {
        let nothing = futures_util::stream::pending::<Result<Bytes, Infallible>>();
        (json, Body::from_stream(nothing)).into_response()
    });
    discovering.warns("it did not answer within 300ms").await;
    assert_eq!(discovering.names(), ["A"]);
    discovering.end().await;
}

#[tokio::test]
async fn it_ends_while_it_waits_for_an_answer() {
    // Accepts, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut polling = Polling::default();
    polling.timeout = Duration::from_secs(3_600);
    let service = RemoteService::new("events", &url, ["cam."]).unwrap();
    let discovering = Discovering::start([service], &[], polling);
    listener.set_nonblocking(true).unwrap();
    let _connection = eventually("it is asked", async || listener.accept().ok()).await;
    assert!(!discovering.discovery.health().is_sound(), "nothing is known yet");
    discovering.end().await;
}

#[tokio::test]
async fn a_name_is_that_of_one_service() {
    let service = || RemoteService::new("events", "http://127.0.0.1:1", ["cam."]).unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let local: [&str; 0] = [];
    let error =
        Discovery::start([service(), service()], local, Polling::default(), &tasks, &stop).unwrap_err();
    assert_eq!(error.to_string(), "there are two services with the name \"events\"; each has one address");
    assert!(tasks.is_empty());
}
