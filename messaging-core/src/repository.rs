//! A storage whose changes are published.

use std::future::Future;
use std::sync::Arc;

use crate::core::{Core, Current};
use crate::dispatch::BoxFuture;
use crate::error::{BoxError, Error, ErrorKind, Result, chain};
use crate::event::{Model, Op};
use crate::messaging::Messaging;
use crate::publish::{Change, to_the_end};

/// Where models are kept. Implement it for your database; [`Repository`] adds the events.
pub trait Storage<M: Model>: Send + Sync + 'static {
    /// What identifies a model.
    type Id: Send + Sync + 'static;
    /// What can go wrong; it becomes the source of an [`ErrorKind::Storage`] error.
    type Error: Into<BoxError> + Send + 'static;

    /// Inserts a model and returns it as it was stored, with whatever the storage filled in.
    fn insert(&self, model: M) -> impl Future<Output = Result<M, Self::Error>> + Send;

    /// Replaces a model; `None` if there is none to replace.
    fn update(&self, model: M) -> impl Future<Output = Result<Option<Updated<M>>, Self::Error>> + Send;

    /// Removes a model and returns it; `None` if there was none.
    fn delete(&self, id: &Self::Id) -> impl Future<Output = Result<Option<M>, Self::Error>> + Send;

    /// Reads a model.
    fn get(&self, id: &Self::Id) -> impl Future<Output = Result<Option<M>, Self::Error>> + Send;

    /// Reads all models.
    fn list(&self) -> impl Future<Output = Result<Vec<M>, Self::Error>> + Send;
}

/// A model that was updated.
#[derive(Clone, Debug)]
pub struct Updated<M> {
    /// As it was, if the storage can tell; events with `previous` fields need it.
    pub before: Option<M>,
    /// As it is now.
    pub after: M,
}

/// What a [`Repository`] does when the storage succeeded and the publish failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PublishFailure {
    /// The operation succeeds; the failure is logged as an error.
    #[default]
    Log,
    /// The operation returns the publish's error. The change in the storage stays.
    Return,
}

/// A [`Storage`] that publishes: each change of a model is followed by its event.
///
/// A change and its event run in a task of their own, which [`shutdown`](crate::Running::shutdown) waits for; after
/// that, or when the last [`Messaging`] has been dropped, changes are refused with [`ErrorKind::Closed`].
///
/// # Cancellation
/// A caller whose future is dropped (a web request that went away) loses neither the change nor its event.
#[derive(Debug)]
pub struct Repository<S> {
    storage: Arc<S>,
    core: Arc<Core>,
    on_failure: PublishFailure,
}

impl<S> Clone for Repository<S> {
    fn clone(&self) -> Self {
        Self { storage: Arc::clone(&self.storage), core: Arc::clone(&self.core), on_failure: self.on_failure }
    }
}

impl<S> Repository<S> {
    /// Wraps a storage.
    pub fn new(storage: S, messaging: &Messaging) -> Self {
        Self {
            storage: Arc::new(storage),
            core: Arc::clone(messaging.core()),
            on_failure: PublishFailure::Log,
        }
    }

    /// Says what a failed publish does to the operation.
    #[must_use]
    pub fn on_publish_failure(mut self, on_failure: PublishFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// The storage itself, for queries of its own.
    #[must_use]
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Inserts a model, publishes its creation, and returns it as it was stored.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the storage failed; then nothing is published.
    pub async fn create<M: Model>(&self, model: M) -> Result<M>
    where
        S: Storage<M>,
    {
        let this = self.clone();
        self.run(Box::pin(async move {
            let stored = this.storage.insert(model).await.map_err(|error| failed::<M>("insert", error))?;
            this.publish(&stored, Op::Create, None).await?;
            Ok(stored)
        }))
        .await
    }

    /// Replaces a model, publishes the change, and returns it as it is stored now; `None` if there was none to
    /// replace, and then nothing is published.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the storage failed; then nothing is published.
    pub async fn update<M: Model>(&self, model: M) -> Result<Option<M>>
    where
        S: Storage<M>,
    {
        let this = self.clone();
        self.run(Box::pin(async move {
            let updated = this.storage.update(model).await.map_err(|error| failed::<M>("update", error))?;
            let Some(Updated { before, after }) = updated else { return Ok(None) };
            this.publish(&after, Op::Update, before.as_ref()).await?;
            Ok(Some(after))
        }))
        .await
    }

    /// Removes a model, publishes its deletion, and returns it; `None` if there was none, and then nothing is
    /// published.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the storage failed; then nothing is published.
    pub async fn delete<M: Model>(&self, id: S::Id) -> Result<Option<M>>
    where
        S: Storage<M>,
    {
        let this = self.clone();
        self.run(Box::pin(async move {
            let deleted = this.storage.delete(&id).await.map_err(|error| failed::<M>("delete", error))?;
            if let Some(model) = &deleted {
                this.publish(model, Op::Delete, None).await?;
            }
            Ok(deleted)
        }))
        .await
    }

    /// Reads a model.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the storage failed.
    pub async fn get<M: Model>(&self, id: &S::Id) -> Result<Option<M>>
    where
        S: Storage<M>,
    {
        self.storage.get(id).await.map_err(|error| failed::<M>("get", error))
    }

    /// Reads all models.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the storage failed.
    pub async fn list<M: Model>(&self) -> Result<Vec<M>>
    where
        S: Storage<M>,
    {
        self.storage.list().await.map_err(|error| failed::<M>("list", error))
    }

    /// The work is boxed so that what it is made of is no part of the types of whoever calls.
    async fn run<T: Send + 'static>(&self, work: BoxFuture<'static, Result<T>>) -> Result<T> {
        if self.core.stop.is_cancelled() || self.core.work.is_closed() {
            // A change whose event nobody can hear of any more is better not made.
            let text = "messaging has been shut down; nothing is changed, because it could not be published";
            return Err(Error::new(ErrorKind::Closed, text).before_sending());
        }
        match Current::get() {
            Some(current) => to_the_end(&self.core, current.scope(work)).await,
            None => to_the_end(&self.core, work).await,
        }
    }

    async fn publish<M: Model>(&self, model: &M, op: Op, before: Option<&M>) -> Result<()> {
        let published = match Change::capture(model, op, before) {
            Ok(change) => change.publish(&self.core).await.map(|_| ()),
            Err(error) => Err(error),
        };
        match (published, self.on_failure) {
            (Err(error), PublishFailure::Log) => {
                self.core.lost_events.up();
                tracing::error!(
                    model = M::DESCRIPTOR.id, %op, error = %chain(&error),
                    "the change is stored, but its event could not be published"
                );
                Ok(())
            }
            (published, _) => published,
        }
    }
}

fn failed<M: Model>(attempted: &str, error: impl Into<BoxError>) -> Error {
    let error = error.into();
    Error::new(ErrorKind::Storage, format!("{attempted} `{}`: {error}", M::DESCRIPTOR.name))
        .with_source(error)
}
