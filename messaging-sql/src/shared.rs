//! What all units of work and relays of a database share in this process: the turns of SQLite's one writer, and the news
//! that something was written to the outbox.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use messaging_core::{Error, ErrorKind, Result};
use sqlx::{Pool, SqlSafeStr as _, Transaction};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::crash;
use crate::database::{self, Database, Dialect};
use crate::error::of_database;

#[derive(Debug)]
pub(crate) struct Shared {
    /// Who may write. Without it writers of one process would wait for each other inside SQLite, which looks from time to
    /// time, and would give up although nobody has held the database for long.
    turn: Arc<Semaphore>,
    has_turns: bool,
    pub(crate) written: Notify,
}

static ALL: Mutex<Option<HashMap<String, Weak<Shared>>>> = Mutex::new(None);

/// What is shared of a pool's database.
pub(crate) fn of<DB: Database>(pool: &Pool<DB>) -> Arc<Shared> {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let all = all.get_or_insert_default();
    let name = DB::identity(pool);
    if let Some(shared) = all.get(&name).and_then(Weak::upgrade) {
        return shared;
    }
    all.retain(|_, shared| shared.strong_count() > 0);
    let shared = Arc::new(Shared {
        turn: Arc::new(Semaphore::new(1)),
        has_turns: DB::DIALECT == Dialect::Sqlite,
        written: Notify::new(),
    });
    all.insert(name, Arc::downgrade(&shared));
    shared
}

impl Shared {
    /// Waits for the turn to write, for as long as the pool would for a connection; in the order of asking.
    pub(crate) async fn turn<DB: Database>(&self, pool: &Pool<DB>) -> Result<Turn> {
        if !self.has_turns {
            return Ok(Turn(None));
        }
        let limit = pool.options().get_acquire_timeout();
        match tokio::time::timeout(limit, Arc::clone(&self.turn).acquire_owned()).await {
            Ok(turn) => Ok(Turn(turn.ok())),
            Err(_) => Err(busy(limit)),
        }
    }

    /// Begins a transaction that may write.
    pub(crate) async fn begin<DB: Database>(
        &self,
        pool: &Pool<DB>,
    ) -> Result<(Transaction<'static, DB>, Turn)> {
        // Before the connection: those who wait for their turn should not keep connections from those who read.
        let turn = self.turn(pool).await?;
        crash::point();
        let begin = || pool.begin_with(database::begin_statement::<DB>().into_sql_str());
        let begun = patiently(pool, begin).await;
        crash::point();
        Ok((begun.map_err(|error| of_database::<DB>("begin a transaction", error))?, turn))
    }
}

/// Tries again while another process writes, for as long as the pool would wait for a connection: SQLite serves writers
/// in no order, so that one can miss his turn often.
pub(crate) async fn patiently<DB: Database, T, F: Future<Output = sqlx::Result<T>>>(
    pool: &Pool<DB>,
    mut attempt: impl FnMut() -> F,
) -> sqlx::Result<T> {
    let until = Instant::now() + pool.options().get_acquire_timeout();
    loop {
        match attempt().await {
            Err(error) if DB::is_busy(&error) && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            done => return done,
        }
    }
}

/// The turn to write, for as long as it is kept.
pub(crate) struct Turn(#[allow(dead_code, reason = "it is kept")] Option<OwnedSemaphorePermit>);

fn busy(limit: Duration) -> Error {
    let text = format!(
        "other units of work of this process have held the database's one writer for {limit:?}; commit or drop them sooner, and never begin one inside another"
    );
    messaging_core::__private::error(ErrorKind::Timeout, text)
}
