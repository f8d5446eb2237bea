//! Routes of a model: reading and changing it through a repository, which publishes the changes.

mod body;
mod problem;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, OriginalUri, Path, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use messaging_core::__private::chain;
use messaging_core::{Error, Model, Repository, Storage};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use problem::Problem;

/// How many models a list has without `limit`, and how many it has at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// All but what RFC 3986 calls unreserved.
const IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The routes of a model behind a repository: [`ModelRoutes`] with everything as it is by default.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use std::convert::Infallible;
/// # use std::sync::Mutex;
/// # use messaging_core::{Messaging, Repository, Storage, Updated, event_config};
/// # use serde::{Deserialize, Serialize};
/// use messaging_gateway::model_routes;
///
/// #[event_config(publish = { create = "camera.created", update = "camera.updated", delete = "camera.deleted" })]
/// #[derive(Clone, Serialize, Deserialize)]
/// pub struct Camera {
///     id: i64,
///     name: String,
/// }
/// # #[derive(Default)]
/// # struct Cameras(Mutex<BTreeMap<i64, Camera>>);
/// # impl Storage<Camera> for Cameras {
/// #     type Id = i64;
/// #     type Error = Infallible;
/// #     async fn insert(&self, camera: Camera) -> Result<Camera, Infallible> { Ok(camera) }
/// #     async fn update(&self, _: Camera) -> Result<Option<Updated<Camera>>, Infallible> { Ok(None) }
/// #     async fn delete(&self, _: &i64) -> Result<Option<Camera>, Infallible> { Ok(None) }
/// #     async fn get(&self, _: &i64) -> Result<Option<Camera>, Infallible> { Ok(None) }
/// #     async fn list(&self) -> Result<Vec<Camera>, Infallible> { Ok(vec![]) }
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// # let messaging = Messaging::builder().url("memory://").build().await?;
/// let repository = Repository::new(Cameras::default(), &messaging);
/// let app = axum::Router::new().nest("/cameras", model_routes::<Camera, _>(repository));
/// // Who may do this is said by a layer: `.layer(axum::middleware::from_fn(authenticated))`.
/// # let _: axum::Router = app;
/// # Ok(())
/// # }
/// ```
pub fn model_routes<M, S>(repository: Repository<S>) -> Router
where
    M: Model + Serialize + DeserializeOwned,
    S: Storage<M, Id: FromStr + PartialEq>,
{
    ModelRoutes::new(repository).into_router()
}

/// Builds the routes of a model, whose changes are published by its repository.
///
/// | | answers | |
/// |---|---|---|
/// | `GET /` | 200 and an array | `?limit=` (100, 1,000 at most) and `?offset=`; `X-Total-Count` says how many there are |
/// | `POST /` | 201, `Location`, and the model as it was stored | |
/// | `GET /{id}` | 200 and the model | |
/// | `PUT /{id}` | 200 and the model as it is stored now | replaces it; makes none. The id in the body has to agree, or the answer is 409 |
/// | `PATCH /{id}` | the same | a JSON merge patch (RFC 7396); it cannot change the id either |
/// | `DELETE /{id}` | 204 | |
///
/// **Everybody may do all of this.** Who may not is turned away by a layer around the router, such as
/// [`axum::middleware::from_fn`]. A body has to say that it is JSON, which a form of another site cannot.
///
/// **A list costs as much as all of it**: [`Storage::list`] reads every model, and the page is taken out of what it has
/// returned, in its order. It is for hundreds of models, not for millions.
///
/// **A patch** is read, merged and replaced. Of two at the same time the later one wins, also where they change different
/// fields, unless the storage checks a version: then the answer to the one is 409. What the model's JSON does not show
/// (`#[serde(skip)]`) is what the model's `Deserialize` makes of it, after a patch as after a `PUT`.
///
/// **Errors** are `application/problem+json` (RFC 9457): 400 for what is no JSON, no id or no page; 404; 409 where somebody
/// else was faster, or there is one already ([`ErrorKind::Conflict`](messaging_core::ErrorKind::Conflict)); 413 above
/// axum's limit of 2 MB, which a [`DefaultBodyLimit`](axum::extract::DefaultBodyLimit) around the router changes; 415; 422
/// for JSON that is no such model, with the place; 500 without the reason, which is logged; 503 after shutting down.
///
/// **Ids** in paths are read by [`FromStr`]. That of a model is, in this order, what [`id`](Self::id) says; the
/// field that `key = …` names; the member `id` of its JSON. A model that has none of them gets no `Location`, and cannot
/// be replaced.
///
/// # Cancellation
/// A client that goes away loses neither the change nor its event: see [`Repository`].
pub struct ModelRoutes<M, S> {
    repository: Repository<S>,
    id: Arc<IdOf<M>>,
    explain: Arc<Explain>,
}

type IdOf<M> = dyn Fn(&M) -> Option<String> + Send + Sync;
type Explain = dyn Fn(&Error) -> Option<Problem> + Send + Sync;

impl<M, S> ModelRoutes<M, S>
where
    M: Model + Serialize + DeserializeOwned,
    S: Storage<M, Id: FromStr + PartialEq>,
{
    /// The routes of the models in this repository.
    #[must_use]
    pub fn new(repository: Repository<S>) -> Self {
        Self { repository, id: Arc::new(declared_id), explain: Arc::new(|_| None) }
    }

    /// Says what a model's id is, as text that its `FromStr` reads back.
    #[must_use]
    pub fn id<I: fmt::Display>(mut self, id: impl Fn(&M) -> I + Send + Sync + 'static) -> Self {
        self.id = Arc::new(move |model| Some(id(model).to_string()));
        self
    }

    /// Says what a client is told of an error of the repository, whose source is the storage's own: that a name is taken
    /// (409), that a value is not possible (422). What it knows nothing of is answered as everything is.
    #[must_use]
    pub fn explain(mut self, explain: impl Fn(&Error) -> Option<Problem> + Send + Sync + 'static) -> Self {
        self.explain = Arc::new(explain);
        self
    }

    /// The routes, relative to where they are nested.
    pub fn into_router(self) -> Router {
        Router::new()
            .route("/", get(Self::list).post(Self::create))
            .route("/{id}", get(Self::one).put(Self::replace).patch(Self::patch).delete(Self::delete))
            .method_not_allowed_fallback(async || {
                Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "there is no such method here; `Allow` says which are",
                )
            })
            .with_state(self)
    }

    async fn list(State(this): State<Self>, Page { limit, offset }: Page) -> Result<Response, Problem> {
        let mut models = this.repository.list::<M>().await.map_err(|error| this.problem("list", &error))?;
        let total = models.len();
        models.drain(..offset.min(total));
        models.truncate(limit);
        Ok(([(TOTAL, total.to_string())], this.json(&models)?).into_response())
    }

    async fn one(State(this): State<Self>, id: IdInPath<S::Id>) -> Result<Response, Problem> {
        Ok(this.json(&this.read(&id.0).await?)?.into_response())
    }

    async fn create(
        State(this): State<Self>,
        uri: OriginalUri,
        request: Request,
    ) -> Result<Response, Problem> {
        let model = body::parse(&body::read(request).await?)?;
        let stored: M =
            this.repository.create(model).await.map_err(|error| this.problem("create", &error))?;
        let mut headers = HeaderMap::new();
        if let Some(id) = (this.id)(&stored) {
            let id = utf8_percent_encode(&id, IN_A_PATH);
            let location = format!("{}/{id}", uri.path().trim_end_matches('/'));
            if let Ok(location) = HeaderValue::try_from(location) {
                headers.insert(LOCATION, location);
            }
        }
        Ok((StatusCode::CREATED, headers, this.json(&stored)?).into_response())
    }

    async fn replace(
        State(this): State<Self>,
        id: IdInPath<S::Id>,
        request: Request,
    ) -> Result<Response, Problem> {
        let model = body::parse(&body::read(request).await?)?;
        this.store(&id.0, model).await
    }

    async fn patch(
        State(this): State<Self>,
        id: IdInPath<S::Id>,
        request: Request,
    ) -> Result<Response, Problem> {
        let patch: Value = body::parse(&body::read(request).await?)?;
        if !patch.is_object() {
            return Err(Problem::bad_request("a patch is a JSON object with what is to be changed"));
        }
        let model = this.read(&id.0).await?;
        let mut merged = serde_json::to_value(&model).map_err(|error| this.unwritable(&error))?;
        body::merge(&mut merged, patch);
        this.store(&id.0, body::convert(merged)?).await
    }

    async fn delete(State(this): State<Self>, id: IdInPath<S::Id>) -> Result<StatusCode, Problem> {
        let deleted =
            this.repository.delete::<M>(id.0).await.map_err(|error| this.problem("delete", &error))?;
        deleted.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| Problem::not_found(M::DESCRIPTOR.name))
    }

    async fn read(&self, id: &S::Id) -> Result<M, Problem> {
        let model = self.repository.get(id).await.map_err(|error| self.problem("read", &error))?;
        model.ok_or_else(|| Problem::not_found(M::DESCRIPTOR.name))
    }

    /// Replaces the model with this id, if the new one is of the same.
    async fn store(&self, id: &S::Id, model: M) -> Result<Response, Problem> {
        let own = (self.id)(&model).and_then(|own| own.parse::<S::Id>().ok());
        if own.as_ref() != Some(id) {
            let text = "the id in the body is not that in the path; a model keeps its id";
            return Err(Problem::new(StatusCode::CONFLICT, text));
        }
        let stored = self.repository.update(model).await.map_err(|error| self.problem("update", &error))?;
        Ok(self.json(&stored.ok_or_else(|| Problem::not_found(M::DESCRIPTOR.name))?)?.into_response())
    }

    /// What the client is told; what it is not is logged.
    fn problem(&self, attempted: &str, error: &Error) -> Problem {
        let problem = (self.explain)(error).unwrap_or_else(|| Problem::of(error));
        if problem.status().is_server_error() {
            tracing::error!(model = M::DESCRIPTOR.id, error = %chain(error), "a request to {attempted} a model failed");
        }
        problem
    }

    fn json<T: Serialize>(&self, value: &T) -> Result<impl IntoResponse + use<T, M, S>, Problem> {
        let body = serde_json::to_vec(value).map_err(|error| self.unwritable(&error))?;
        Ok(([(CONTENT_TYPE, "application/json")], body))
    }

    fn unwritable(&self, error: &serde_json::Error) -> Problem {
        tracing::error!(model = M::DESCRIPTOR.id, %error, "a model could not be written as JSON");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "what is stored could not be shown")
    }
}

/// The id that the model declares, or that its JSON has.
fn declared_id<M: Model + Serialize>(model: &M) -> Option<String> {
    if let Some(key) = M::DESCRIPTOR.key {
        return model.field(key).ok().flatten();
    }
    match serde_json::to_value(model).ok()?.get_mut("id")?.take() {
        Value::String(id) => Some(id),
        id @ (Value::Number(_) | Value::Bool(_)) => Some(id.to_string()),
        _ => None,
    }
}

impl<M, S> Clone for ModelRoutes<M, S> {
    fn clone(&self) -> Self {
        let Self { repository, id, explain } = self;
        Self { repository: repository.clone(), id: Arc::clone(id), explain: Arc::clone(explain) }
    }
}

impl<M, S> fmt::Debug for ModelRoutes<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelRoutes").field("model", &std::any::type_name::<M>()).finish_non_exhaustive()
    }
}

/// The id of the path.
struct IdInPath<Id>(Id);

impl<Id: FromStr, T: Send + Sync> FromRequestParts<T> for IdInPath<Id> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = text.and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(|| Problem::bad_request("what the path ends with is no id"))
    }
}

/// Which part of a list is wanted.
#[derive(Deserialize)]
struct Page {
    #[serde(default = "Page::usual")]
    limit: usize,
    #[serde(default)]
    offset: usize,
}

impl Page {
    fn usual() -> usize {
        PAGE
    }
}

impl<T: Send + Sync> FromRequestParts<T> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Self, Problem> {
        match Query::<Self>::from_request_parts(parts, state).await {
            Ok(Query(page)) if page.limit <= LARGEST_PAGE => Ok(page),
            _ => Err(Problem::bad_request(format!(
                "`limit` is a number up to {LARGEST_PAGE}, and `offset` a number"
            ))),
        }
    }
}
