//! Routes of models.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use messaging_core::{Error, Messaging, Model, Repository, Storage, Subscription, Updated, event_config};
use messaging_gateway::{ModelRoutes, Problem, model_routes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::web::Server;

#[event_config(
    publish = { create = "rest.camera.created", update = "rest.camera.updated", delete = "rest.camera.deleted" },
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    id: i64,
    name: String,
    note: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, i64>,
}

/// Its id is not called so, and has to be escaped in a path.
#[event_config(publish = { create = "rest.label.created" })]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    text: String,
    color: u8,
}

#[event_config(publish = { update = "rest.order.updated" }, table = "orders", key = number, version = revision)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    number: i64,
    state: String,
    revision: i64,
}

/// A storage in memory that can be told to fail.
struct Shelf<M> {
    models: Arc<Mutex<BTreeMap<String, M>>>,
    fails: Arc<AtomicBool>,
}

impl<M> Shelf<M> {
    fn new() -> Self {
        Self { models: Arc::new(Mutex::new(BTreeMap::new())), fails: Arc::new(AtomicBool::new(false)) }
    }
}

impl<M> Clone for Shelf<M> {
    fn clone(&self) -> Self {
        Self { models: Arc::clone(&self.models), fails: Arc::clone(&self.fails) }
    }
}

#[derive(Debug)]
enum ShelfError {
    Broken,
    Taken,
}

impl fmt::Display for ShelfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken => f.write_str("connect to db://root:hunter2@shelf failed"),
            Self::Taken => f.write_str("the key is taken"),
        }
    }
}

impl std::error::Error for ShelfError {}

trait Kept: Model + Clone {
    type Id: fmt::Display + Send + Sync + 'static;

    fn id(&self) -> Self::Id;
}

impl Kept for Camera {
    type Id = i64;

    fn id(&self) -> i64 {
        self.id
    }
}

impl Kept for Label {
    type Id = String;

    fn id(&self) -> String {
        self.text.clone()
    }
}

impl<M: Kept> Shelf<M> {
    fn open(&self) -> Result<std::sync::MutexGuard<'_, BTreeMap<String, M>>, ShelfError> {
        if self.fails.load(Ordering::Relaxed) {
            Err(ShelfError::Broken)
        } else {
            Ok(self.models.lock().unwrap())
        }
    }
}

impl<M: Kept> Storage<M> for Shelf<M> {
    type Id = M::Id;
    type Error = ShelfError;

    async fn insert(&self, model: M) -> Result<M, ShelfError> {
        let mut models = self.open()?;
        if models.contains_key(&model.id().to_string()) {
            return Err(ShelfError::Taken);
        }
        models.insert(model.id().to_string(), model.clone());
        Ok(model)
    }

    async fn update(&self, model: M) -> Result<Option<Updated<M>>, ShelfError> {
        let mut models = self.open()?;
        let Some(stored) = models.get_mut(&model.id().to_string()) else { return Ok(None) };
        let before = Some(std::mem::replace(stored, model.clone()));
        Ok(Some(Updated { before, after: model }))
    }

    async fn delete(&self, id: &M::Id) -> Result<Option<M>, ShelfError> {
        Ok(self.open()?.remove(&id.to_string()))
    }

    async fn get(&self, id: &M::Id) -> Result<Option<M>, ShelfError> {
        Ok(self.open()?.get(&id.to_string()).cloned())
    }

    async fn list(&self) -> Result<Vec<M>, ShelfError> {
        Ok(self.open()?.values().cloned().collect())
    }
}

struct Cameras {
    server: Server,
    shelf: Shelf<Camera>,
    messaging: Messaging,
    events: Subscription,
}

impl Cameras {
    async fn start() -> Self {
        let messaging = Messaging::builder().url("memory://").build().await.unwrap();
        let shelf = Shelf::<Camera>::new();
        let routes = model_routes::<Camera, _>(Repository::new(shelf.clone(), &messaging));
        let app = Router::new().nest("/api/cameras", routes).layer(DefaultBodyLimit::max(1_000));
        let events = messaging.subscribe("rest.camera.*").await.unwrap();
        Self { server: Server::start(app).await, shelf, messaging, events }
    }

    /// What is published next.
    async fn event(&mut self) -> (String, Value) {
        let message =
            self.events.get_message(Some(Duration::from_secs(10))).await.unwrap().expect("an event");
        (message.channel().to_string(), message.json().unwrap())
    }

    /// Nothing has been published: the next thing that comes is ours.
    async fn silent(&mut self) {
        self.messaging.publish("rest.camera.end", &0).await.unwrap();
        assert_eq!(self.event().await.0, "rest.camera.end");
    }
}

#[tokio::test]
async fn a_model_is_made_read_changed_and_deleted_and_all_of_it_is_published() {
    let mut cameras = Cameras::start().await;
    let camera = json!({"id": 7, "name": "Gate", "note": "old", "tags": {"a": 1, "b": 2}});

    let made = cameras.server.json(Method::POST, "/api/cameras", &camera.to_string()).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.header("location"), "/api/cameras/7");
    assert_eq!(made.value(), camera);
    assert_eq!(cameras.event().await, ("rest.camera.created".to_owned(), camera.clone()));

    let read = cameras.server.get(made.header("location")).await;
    assert_eq!((read.status.as_u16(), read.header("content-type")), (200, "application/json"));
    assert_eq!(
        read.text(),
        r#"{"id":7,"name":"Gate","note":"old","tags":{"a":1,"b":2}}"#,
        "in the order of the fields"
    );

    let patch = r#"{"name":"Door","note":null,"tags":{"a":null,"c":3}}"#;
    let headers = [("content-type", "application/merge-patch+json")];
    let patched = cameras.server.send(Method::PATCH, "/api/cameras/7", &headers, patch).await;
    let expected = json!({"id": 7, "name": "Door", "note": null, "tags": {"b": 2, "c": 3}});
    assert_eq!((patched.status.as_u16(), patched.value()), (200, expected.clone()));
    assert_eq!(cameras.event().await, ("rest.camera.updated".to_owned(), expected));

    let put = cameras.server.json(Method::PUT, "/api/cameras/7", r#"{"id":7,"name":"Yard"}"#).await;
    let expected = json!({"id": 7, "name": "Yard", "note": null, "tags": {}});
    assert_eq!((put.status.as_u16(), put.value()), (200, expected.clone()));
    assert_eq!(cameras.event().await, ("rest.camera.updated".to_owned(), expected.clone()));

    let deleted = cameras.server.json(Method::DELETE, "/api/cameras/7", "").await;
    assert_eq!((deleted.status.as_u16(), deleted.text()), (204, ""));
    assert_eq!(cameras.event().await, ("rest.camera.deleted".to_owned(), expected));
    assert_eq!(cameras.server.get("/api/cameras/7").await.problem(404), "there is no Camera with this id");
    cameras.silent().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_nothing_is_published() {
    let mut cameras = Cameras::start().await;
    let one = r#"{"id":9,"name":"x"}"#;
    for (method, body) in [(Method::GET, ""), (Method::PUT, one), (Method::PATCH, "{}"), (Method::DELETE, "")]
    {
        let answer = cameras.server.json(method, "/api/cameras/9", body).await;
        assert_eq!(answer.problem(404), "there is no Camera with this id");
    }
    cameras.silent().await;
}

#[tokio::test]
async fn a_model_keeps_its_id() {
    let mut cameras = Cameras::start().await;
    cameras.server.json(Method::POST, "/api/cameras", r#"{"id":7,"name":"Gate"}"#).await;
    cameras.server.json(Method::POST, "/api/cameras", r#"{"id":8,"name":"Door"}"#).await;
    for _ in 0..2 {
        assert_eq!(cameras.event().await.0, "rest.camera.created");
    }

    for (method, body) in [(Method::PUT, r#"{"id":8,"name":"x"}"#), (Method::PATCH, r#"{"id":8}"#)] {
        let answer = cameras.server.json(method, "/api/cameras/7", body).await;
        assert_eq!(answer.problem(409), "the id in the body is not that in the path; a model keeps its id");
    }
    assert_eq!(cameras.server.get("/api/cameras/8").await.value()["name"], "Door");
    cameras.silent().await;
    // The same id, written in another way.
    let same = cameras.server.json(Method::PATCH, "/api/cameras/+007", r#"{"name":"y"}"#).await;
    assert_eq!(same.status, 200);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_place() {
    let mut cameras = Cameras::start().await;
    cameras.server.json(Method::POST, "/api/cameras", r#"{"id":7,"name":"Gate"}"#).await;
    cameras.event().await;
    let check = async |method: Method, path: &str, body: &str, status: u16, detail: &str| {
        let answer = cameras.server.json(method, &format!("/api/cameras{path}"), body).await;
        assert_eq!(answer.problem(status), detail);
    };
    let no_id = "what the path ends with is no id";
    check(Method::GET, "/seven", "", 400, no_id).await;
    check(Method::DELETE, "/%ff", "", 400, no_id).await;
    let broken = "the body is not JSON: expected `,` or `}` at line 1 column 9";
    check(Method::POST, "", r#"{"id":7 "name":""}"#, 400, broken).await;
    let unfit =
        "the JSON does not fit at `tags.a`: invalid type: string \"1\", expected i64 at line 1 column 33";
    check(Method::PUT, "/7", r#"{"id":7,"name":"","tags":{"a":"1"}}"#, 422, unfit).await;
    let missing = "the JSON does not fit: missing field `name`";
    check(Method::PATCH, "/7", r#"{"name":null}"#, 422, missing).await;
    check(Method::PATCH, "/7", "[]", 400, "a patch is a JSON object with what is to be changed").await;
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let limit = "the body is not JSON: recursion limit exceeded at line 1 column 128";
    check(Method::PATCH, "/7", &deep, 400, limit).await;
    let large = format!(r#"{{"id":1,"name":"{}"}}"#, "x".repeat(1_000));
    check(Method::POST, "", &large, 413, "the body is too large").await;

    let form =
        cameras.server.send(Method::POST, "/api/cameras", &[("content-type", "text/plain")], "{}").await;
    assert_eq!(form.problem(415), "the body has to be JSON; send it as `Content-Type: application/json`");
    let wrong = cameras.server.json(Method::PUT, "/api/cameras", "{}").await;
    assert_eq!(wrong.problem(405), "there is no such method here; `Allow` says which are");
    assert_eq!(wrong.header("allow"), "GET,HEAD,POST");
    assert_eq!(cameras.server.get("/api/cameras/7").await.value()["name"], "Gate");
    cameras.silent().await;
}

#[tokio::test]
async fn a_list_has_pages() {
    let cameras = Cameras::start().await;
    for id in 100..250 {
        let camera = Camera { id, name: String::new(), note: None, tags: BTreeMap::new() };
        cameras.shelf.models.lock().unwrap().insert(id.to_string(), camera);
    }
    for (query, first, length) in [
        ("", Some(100), 100),
        ("?limit=2", Some(100), 2),
        ("?limit=1000&offset=149", Some(249), 1),
        ("?offset=150", None, 0),
        ("?offset=18446744073709551615", None, 0),
        ("?limit=0", None, 0),
    ] {
        let page = cameras.server.get(&format!("/api/cameras{query}")).await;
        assert_eq!(page.status, 200, "{query}");
        assert_eq!(page.header("x-total-count"), "150");
        let page: Vec<Camera> = serde_json::from_slice(&page.body).unwrap();
        assert_eq!((page.first().map(|camera| camera.id), page.len()), (first, length), "{query}");
    }
    for query in ["?limit=1001", "?limit=-1", "?limit=x", "?offset=1.5", "?offset=18446744073709551616"] {
        let answer = cameras.server.get(&format!("/api/cameras{query}")).await;
        assert_eq!(answer.problem(400), "`limit` is a number up to 1000, and `offset` a number", "{query}");
    }
}

#[tokio::test]
async fn what_the_storage_says_stays_here() {
    let cameras = Cameras::start().await;
    cameras.shelf.fails.store(true, Ordering::Relaxed);
    let one = r#"{"id":7,"name":"x"}"#;
    for (method, path, body) in [
        (Method::GET, "", ""),
        (Method::POST, "", one),
        (Method::GET, "/7", ""),
        (Method::PUT, "/7", one),
        (Method::PATCH, "/7", "{}"),
        (Method::DELETE, "/7", ""),
    ] {
        let answer = cameras.server.json(method, &format!("/api/cameras{path}"), body).await;
        assert_eq!(answer.problem(500), "the storage failed");
        assert!(!answer.text().contains("hunter2"));
    }
}

#[tokio::test]
async fn ids_and_errors_can_be_explained() {
    let messaging = Messaging::builder().url("memory://").build().await.unwrap();
    let repository = Repository::new(Shelf::<Label>::new(), &messaging);
    let taken = |error: &Error| {
        let source = std::error::Error::source(error)?.downcast_ref::<ShelfError>()?;
        matches!(source, ShelfError::Taken)
            .then(|| Problem::new(409.try_into().unwrap(), "there is one already"))
    };
    let routes = ModelRoutes::new(repository).id(|label: &Label| label.text.clone()).explain(taken);
    let server = Server::start(routes.into_router()).await;

    let label = r#"{"text":"a/b c:ä?","color":1}"#;
    let made = server.json(Method::POST, "/", label).await;
    assert_eq!((made.status.as_u16(), made.header("location")), (201, "/a%2Fb%20c%3A%C3%A4%3F"));
    let read = server.get(made.header("location")).await;
    assert_eq!((read.status.as_u16(), read.text()), (200, label));
    let put = server.json(Method::PUT, made.header("location"), &label.replace('1', "2")).await;
    assert_eq!(put.value()["color"], 2);
    let again = server.json(Method::POST, "/", label).await;
    assert_eq!(again.problem(409), "there is one already");
}

#[tokio::test]
async fn a_model_without_an_id_has_no_place() {
    let messaging = Messaging::builder().url("memory://").build().await.unwrap();
    let repository = Repository::new(Shelf::<Label>::new(), &messaging);
    let server = Server::start(model_routes::<Label, _>(repository)).await;
    let label = r#"{"text":"a","color":1}"#;
    let made = server.json(Method::POST, "/", label).await;
    assert_eq!((made.status.as_u16(), made.headers.get("location")), (201, None));
    server.json(Method::PUT, "/a", label).await.problem(409);
}

#[tokio::test]
async fn after_the_end_nothing_is_changed() {
    let messaging = Messaging::builder()
        .url("memory://")
        .handlers(messaging_core::Handlers::none())
        .build()
        .await
        .unwrap();
    let shelf = Shelf::<Camera>::new();
    let server = Server::start(model_routes::<Camera, _>(Repository::new(shelf.clone(), &messaging))).await;
    let running = messaging.start().await.unwrap();
    running.shutdown(Duration::from_secs(10)).await;
    let answer = server.json(Method::POST, "/", r#"{"id":7,"name":"x"}"#).await;
    assert_eq!(answer.problem(503), "the service is shutting down; try again");
    assert!(shelf.models.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_table_is_a_storage_and_its_versions_are_kept() {
    let messaging = Messaging::builder().url("memory://").build().await.unwrap();
    let pool = messaging_sql::sqlx::sqlite::SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    let table =
        "CREATE TABLE orders (number INTEGER PRIMARY KEY, state TEXT NOT NULL, revision INTEGER NOT NULL)";
    messaging_sql::sqlx::query(table).execute(&pool).await.unwrap();
    let repository = Repository::new(messaging_sql::SqlStorage::new(&pool), &messaging);
    let server = Server::start(Router::new().nest("/orders", model_routes::<Order, _>(repository))).await;

    let made = server.json(Method::POST, "/orders", r#"{"number":4,"state":"new","revision":1}"#).await;
    assert_eq!((made.status.as_u16(), made.header("location")), (201, "/orders/4"));
    let patched = server.json(Method::PATCH, "/orders/4", r#"{"state":"paid"}"#).await;
    assert_eq!(patched.value(), json!({"number": 4, "state": "paid", "revision": 2}));
    let late = server.json(Method::PUT, "/orders/4", r#"{"number":4,"state":"lost","revision":1}"#).await;
    let text =
        "there is one already, or somebody else has changed it since it was read; read it, and decide again";
    assert_eq!(late.problem(409), text);
    assert_eq!(server.get("/orders/4").await.value()["state"], "paid");
    assert_eq!(server.json(Method::DELETE, "/orders/4", "").await.status, 204);
    assert_eq!(server.get("/orders").await.text(), "[]");
}
