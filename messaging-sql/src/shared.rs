//! What all units of work and relays of a database share in this process: the turns of SQLite's one writer, and the news
//! that something was written to the outbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use messaging_core::{Error, ErrorKind, Result};
use sqlx::Pool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::database::{Database, Dialect};

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
    pub(crate) async fn turn<DB: Database>(&self, pool: &Pool<DB>) -> Result<Option<OwnedSemaphorePermit>> {
        if !self.has_turns {
            return Ok(None);
        }
        let limit = pool.options().get_acquire_timeout();
        match tokio::time::timeout(limit, Arc::clone(&self.turn).acquire_owned()).await {
            Ok(turn) => Ok(turn.ok()),
            Err(_) => Err(busy(limit)),
        }
    }
}

fn busy(limit: std::time::Duration) -> Error {
    let text = format!(
        "other units of work of this process have held the database's one writer for {limit:?}; commit or drop them sooner, and never begin one inside another"
    );
    messaging_core::__private::error(ErrorKind::Timeout, text)
}
