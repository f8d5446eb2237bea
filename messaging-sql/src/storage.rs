//! Models in a table as the storage of a repository.

use std::fmt;
use std::sync::Arc;

use messaging_core::{Error, Result, Storage, Updated};
use sqlx::{Pool, Transaction};

use crate::database::{self, Database};
use crate::error::of_database;
use crate::filter::{Filter, Listing};
use crate::model::SqlModel;
use crate::rows::{self, Lock};
use crate::shared::{self, Shared};

/// The tables of a database as a [`Storage`], for [`Repository`](messaging_core::Repository): each operation is a
/// transaction of its own.
pub struct SqlStorage<DB: Database> {
    pool: Pool<DB>,
    shared: Arc<Shared>,
}

impl<DB: Database> SqlStorage<DB> {
    /// The tables that this pool reaches.
    #[must_use]
    pub fn new(pool: &Pool<DB>) -> Self {
        Self { pool: pool.clone(), shared: shared::of(pool) }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Pool<DB> {
        &self.pool
    }

    /// Reads rows.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage), also for a field that the model has not, or a value
    /// of another type.
    pub async fn list_where<M: SqlModel<DB>>(&self, which: impl Into<Listing<DB>>) -> Result<Vec<M>> {
        let mut connection = self.acquire().await?;
        rows::list(&mut *connection, which.into(), Lock::None).await
    }

    async fn acquire(&self) -> Result<sqlx::pool::PoolConnection<DB>> {
        self.pool.acquire().await.map_err(|error| of_database::<DB>("take a connection", error))
    }
}

async fn commit<DB: Database>(transaction: Transaction<'static, DB>) -> Result<()> {
    database::commit(transaction).await.map_err(|error| of_database::<DB>("commit", error))
}

impl<DB: Database, M: SqlModel<DB>> Storage<M> for SqlStorage<DB> {
    type Id = M::Key;
    type Error = Error;

    async fn insert(&self, model: M) -> Result<M> {
        let (mut transaction, _turn) = self.shared.begin(&self.pool).await?;
        let done = rows::insert(&mut *transaction, &model).await?;
        commit(transaction).await?;
        Ok(done)
    }

    async fn update(&self, model: M) -> Result<Option<Updated<M>>> {
        let (mut transaction, _turn) = self.shared.begin(&self.pool).await?;
        let done = rows::update(&mut *transaction, &model).await?;
        commit(transaction).await?;
        Ok(done)
    }

    async fn delete(&self, id: &M::Key) -> Result<Option<M>> {
        let (mut transaction, _turn) = self.shared.begin(&self.pool).await?;
        let done = rows::delete_key::<DB, M>(&mut *transaction, id).await?;
        commit(transaction).await?;
        Ok(done)
    }

    async fn get(&self, id: &M::Key) -> Result<Option<M>> {
        let mut connection = self.acquire().await?;
        rows::get(&mut *connection, id, Lock::None).await
    }

    async fn list(&self) -> Result<Vec<M>> {
        self.list_where(Filter::all()).await
    }
}

impl<DB: Database> Clone for SqlStorage<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<DB: Database> fmt::Debug for SqlStorage<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStorage").finish_non_exhaustive()
    }
}
