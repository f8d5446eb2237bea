//! The table of events that wait to be published: writing to it, claiming from it, settling what was claimed, and what an
//! operator can do with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use messaging_core::{PendingEvent, Result};
use serde::Serialize;
use sqlx::Pool;

use crate::database::{self, Database, Dialect};
use crate::error::of_database;
use crate::shared::{self, Shared};
use crate::statement::Statement;

/// How many rows a statement is about at most.
const TOGETHER: usize = 500;
/// How far a backlog is counted.
const COUNTED: i64 = 100_000;

/// Writes events, in their order, in the caller's transaction.
pub(crate) async fn write<DB: Database>(
    connection: &mut DB::Connection,
    events: &[PendingEvent],
) -> Result<()> {
    for events in events.chunks(TOGETHER) {
        let mut statement =
            Statement::<DB>::new("INSERT INTO messaging_outbox (id, ordering, event) VALUES ");
        statement.is_usual = events.len() == 1;
        for (position, event) in events.iter().enumerate() {
            statement.push(if position == 0 { "(" } else { ", (" });
            statement.text(event.id()).push(", ").text(event.order()).push(", ").text(&event.to_json()?);
            statement.push(")");
        }
        let written = database::rows(connection, statement).await;
        written.map_err(|error| of_database::<DB>("write events to the outbox", error))?;
    }
    Ok(())
}

/// The table of events that wait to be published, for operators. Relays work it off: [`OutboxRelay`](crate::OutboxRelay).
pub struct Outbox<DB: Database> {
    pool: Pool<DB>,
    shared: Arc<Shared>,
}

/// A row of the outbox.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct OutboxRow {
    /// The event's id, under which it is published.
    pub id: String,
    /// What it stays in order with.
    pub ordering: String,
    /// The event as JSON: see [`PendingEvent::from_json`].
    pub event: String,
    /// How often publishing it has failed.
    pub attempts: u64,
    /// Why, the last time.
    pub error: Option<String>,
    /// How long it has been waiting.
    pub age: Duration,
}

/// How an outbox is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OutboxStats {
    /// Rows that wait, counted up to 100,000.
    pub waiting: u64,
    /// Those of them whose publishing has failed, so that they hold up what comes after them in their ordering.
    pub failing: u64,
    /// How long the oldest has been waiting, in milliseconds.
    pub oldest_ms: Option<u64>,
}

/// What a relay has claimed.
pub(crate) struct Claimed {
    pub(crate) seq: i64,
    pub(crate) ordering: String,
    pub(crate) event: String,
    pub(crate) attempts: u64,
}

/// The current time in SQL, in milliseconds since 1970: that of the database, which all relays share.
fn now<DB: Database>() -> &'static str {
    match DB::DIALECT {
        Dialect::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        Dialect::Postgres => "(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT",
    }
}

fn number<DB: Database>(row: &DB::Row, column: usize) -> sqlx::Result<u64> {
    Ok(u64::try_from(DB::integer(row, column)?.unwrap_or_default()).unwrap_or_default())
}

impl<DB: Database> Outbox<DB> {
    /// The outbox of a database.
    #[must_use]
    pub fn new(pool: &Pool<DB>) -> Self {
        Self { pool: pool.clone(), shared: shared::of(pool) }
    }

    pub(crate) fn pool(&self) -> &Pool<DB> {
        &self.pool
    }

    /// Resolves when somebody of this process has written to it.
    pub(crate) async fn written(&self) {
        self.shared.written.notified().await;
    }

    /// How it is.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    pub async fn stats(&self) -> Result<OutboxStats> {
        let mut statement = Statement::new("SELECT count(*), count(CASE WHEN attempts > 0 THEN 1 END), ");
        statement
            .push(now::<DB>())
            .push(" - min(created_ms) FROM (SELECT attempts, created_ms FROM messaging_outbox ");
        statement
            .push("WHERE published_ms IS NULL ORDER BY seq LIMIT ")
            .integer(COUNTED)
            .push(") AS waiting");
        let rows = self.rows(statement, "look at the outbox").await?;
        let read = |row: &DB::Row| {
            let oldest_ms = DB::integer(row, 2)?.map(|age| u64::try_from(age).unwrap_or_default());
            Ok(OutboxStats { waiting: number::<DB>(row, 0)?, failing: number::<DB>(row, 1)?, oldest_ms })
        };
        Ok(read_all::<DB, _>(&rows, read)?.pop().unwrap_or_default())
    }

    /// Rows that were tried this often at least and are still there, oldest first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    pub async fn failing(&self, attempts: u32, most: u32) -> Result<Vec<OutboxRow>> {
        let mut statement = Statement::new("SELECT id, ordering, event, attempts, error, ");
        statement.push(now::<DB>()).push(" - created_ms FROM messaging_outbox WHERE published_ms IS NULL ");
        statement.push("AND attempts >= ").integer(i64::from(attempts.max(1)));
        statement.push(" ORDER BY seq LIMIT ").integer(i64::from(most));
        let rows = self.rows(statement, "look at the outbox").await?;
        read_all::<DB, _>(&rows, |row| {
            Ok(OutboxRow {
                id: DB::text(row, 0)?.unwrap_or_default(),
                ordering: DB::text(row, 1)?.unwrap_or_default(),
                event: DB::text(row, 2)?.unwrap_or_default(),
                attempts: number::<DB>(row, 3)?,
                error: DB::text(row, 4)?,
                age: Duration::from_millis(number::<DB>(row, 5)?),
            })
        })
    }

    /// Lets relays try a row at once that waits for another attempt; `false` if there is no such row.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    pub async fn retry(&self, id: &str) -> Result<bool> {
        let mut statement = Statement::new("UPDATE messaging_outbox SET free_ms = 0, claimed_by = NULL ");
        statement.push("WHERE published_ms IS NULL AND id = ").text(id).push(" RETURNING seq");
        let found = !self.change(statement, "let a row of the outbox be tried").await?.is_empty();
        if found {
            self.shared.written.notify_one();
        }
        Ok(found)
    }

    /// Removes a row that will never be published, so that what comes after it in its ordering is; `false` if there is
    /// no such row.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    pub async fn discard(&self, id: &str) -> Result<bool> {
        let mut statement =
            Statement::new("DELETE FROM messaging_outbox WHERE published_ms IS NULL AND id = ");
        statement.text(id).push(" RETURNING seq");
        let found = !self.change(statement, "discard a row of the outbox").await?.is_empty();
        if found {
            self.shared.written.notify_one();
        }
        Ok(found)
    }

    /// Claims rows, in order: none whose ordering has an earlier row that somebody else has claimed, or that has failed and
    /// waits.
    pub(crate) async fn claim(&self, claimant: &str, lease: Duration, most: usize) -> Result<Vec<Claimed>> {
        let lease = millis(lease);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut statement;
        match DB::DIALECT {
            Dialect::Postgres => {
                statement = Statement::<DB>::new(
                    "SELECT seq, ordering, event, attempts FROM messaging_outbox_claim(",
                );
                statement.text(claimant).push(", ").integer(lease).push(", ").integer(most).push(")");
            }
            // There is one writer, so that nothing can happen in the middle.
            Dialect::Sqlite => {
                let now = now::<DB>();
                statement = Statement::new("UPDATE messaging_outbox SET claimed_by = ");
                statement.text(claimant).push(", free_ms = ").push(now).push(" + ").integer(lease);
                statement.push(" WHERE seq IN (SELECT seq FROM messaging_outbox AS waiting ");
                statement.push("WHERE published_ms IS NULL AND free_ms <= ").push(now);
                statement.push(" AND NOT EXISTS (SELECT 1 FROM messaging_outbox AS earlier ");
                statement.push(
                    "WHERE earlier.published_ms IS NULL AND earlier.free_ms > 0 AND earlier.free_ms > ",
                );
                statement.push(now).push(" AND earlier.ordering = waiting.ordering ");
                statement.push("AND earlier.seq < waiting.seq) ORDER BY seq LIMIT ").integer(most);
                statement.push(") RETURNING seq, ordering, event, attempts");
            }
        }
        let rows = self.change(statement, "claim rows of the outbox").await?;
        let mut claimed = read_all::<DB, _>(&rows, |row| {
            Ok(Claimed {
                seq: DB::integer(row, 0)?.unwrap_or_default(),
                ordering: DB::text(row, 1)?.unwrap_or_default(),
                event: DB::text(row, 2)?.unwrap_or_default(),
                attempts: number::<DB>(row, 3)?,
            })
        })?;
        claimed.sort_unstable_by_key(|row| row.seq);
        Ok(claimed)
    }

    /// Notes that rows were published; or removes them, if nobody wants to see them again.
    pub(crate) async fn published(&self, seqs: &[i64], keep: bool) -> Result<()> {
        self.of_all(seqs, "note what was published", |statement| {
            if keep {
                statement
                    .push("UPDATE messaging_outbox SET claimed_by = NULL, error = NULL, published_ms = ");
                statement.push(now::<DB>());
            } else {
                statement.push("DELETE FROM messaging_outbox");
            }
        })
        .await
    }

    /// Lets go of rows that were not tried.
    pub(crate) async fn release(&self, seqs: &[i64]) -> Result<()> {
        self.of_all(seqs, "let go of rows of the outbox", |statement| {
            statement.push("UPDATE messaging_outbox SET claimed_by = NULL, free_ms = 0");
        })
        .await
    }

    async fn of_all(&self, seqs: &[i64], attempted: &str, write: impl Fn(&mut Statement<DB>)) -> Result<()> {
        for seqs in seqs.chunks(TOGETHER) {
            let mut statement = Statement::new("");
            write(&mut statement);
            // One text for any number of rows.
            let seqs = serde_json::to_string(seqs).expect("numbers can be written");
            statement.push(" WHERE published_ms IS NULL AND seq IN (SELECT value");
            match DB::DIALECT {
                Dialect::Sqlite => statement.push(" FROM json_each(").text(&seqs).push("))"),
                Dialect::Postgres => {
                    statement.push("::BIGINT FROM json_array_elements_text(").text(&seqs).push("::JSON))")
                }
            };
            self.change(statement, attempted).await?;
        }
        Ok(())
    }

    /// Notes that a row could not be published, and when it may be tried again.
    pub(crate) async fn failed(&self, seq: i64, error: &str, again: Duration) -> Result<()> {
        let mut statement =
            Statement::new("UPDATE messaging_outbox SET claimed_by = NULL, attempts = attempts + 1, ");
        statement.push("error = ").text(error).push(", free_ms = ").push(now::<DB>()).push(" + ");
        statement.integer(millis(again).max(1)).push(" WHERE published_ms IS NULL AND seq = ").integer(seq);
        self.change(statement, "note what could not be published").await.map(drop)
    }

    /// Removes rows that were published so long ago; returns how many, 1,000 at most.
    pub(crate) async fn clean(&self, keep: Duration) -> Result<usize> {
        let mut statement =
            Statement::new("DELETE FROM messaging_outbox WHERE seq IN (SELECT seq FROM messaging_outbox ");
        statement.push("WHERE published_ms IS NOT NULL AND published_ms < ").push(now::<DB>()).push(" - ");
        statement.integer(millis(keep)).push(" LIMIT 1000) RETURNING seq");
        Ok(self.change(statement, "remove what was published").await?.len())
    }

    async fn rows(&self, statement: Statement<DB>, attempted: &str) -> Result<Vec<DB::Row>> {
        let failed = |error| of_database::<DB>(attempted, error);
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        database::rows(&mut *connection, statement).await.map_err(failed)
    }

    /// As `rows`, in turn with the units of work.
    async fn change(&self, statement: Statement<DB>, attempted: &str) -> Result<Vec<DB::Row>> {
        let failed = |error| of_database::<DB>(attempted, error);
        let _turn = self.shared.turn(&self.pool).await?;
        let pool = &self.pool;
        let changed = shared::patiently(pool, move || {
            let statement = statement.clone();
            async move {
                let mut connection = pool.acquire().await?;
                database::rows(&mut *connection, statement).await
            }
        });
        changed.await.map_err(failed)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

fn read_all<DB: Database, T>(rows: &[DB::Row], read: impl Fn(&DB::Row) -> sqlx::Result<T>) -> Result<Vec<T>> {
    let read: sqlx::Result<Vec<T>> = rows.iter().map(read).collect();
    read.map_err(|error| of_database::<DB>("read the outbox", error))
}

impl<DB: Database> Clone for Outbox<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<DB: Database> fmt::Debug for Outbox<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}
