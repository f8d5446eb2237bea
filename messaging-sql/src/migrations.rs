//! The outbox's table, and bringing it there.

use std::time::Duration;

use messaging_core::Result;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Pool, SqlSafeStr as _};

use crate::database::{Database, Dialect};
use crate::error::storage;

/// Where it is noted what has been applied: apart from the migrations of your own.
const NOTED_IN: &str = "_messaging_migrations";

/// The statements that make what SQLite needs, one after the other, for whoever has a tool of his own for migrations.
#[cfg(feature = "sqlite")]
pub const SQLITE_MIGRATIONS: &[&str] = &[include_str!("../migrations/sqlite/1_outbox.sql")];

/// The statements that make what Postgres needs, one after the other, for whoever has a tool of his own for migrations.
#[cfg(feature = "postgres")]
pub const POSTGRES_MIGRATIONS: &[&str] = &[include_str!("../migrations/postgres/1_outbox.sql")];

pub(crate) fn migrator<DB: Database>() -> Migrator {
    let texts: &[&'static str] = match DB::DIALECT {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => SQLITE_MIGRATIONS,
        #[cfg(feature = "postgres")]
        Dialect::Postgres => POSTGRES_MIGRATIONS,
        #[allow(unreachable_patterns, reason = "a dialect without its feature")]
        _ => &[],
    };
    let migration = |(position, text): (usize, &&'static str)| {
        let version = i64::try_from(position + 1).expect("there are few");
        let text = (*text).into_sql_str();
        Migration::new(version, "messaging outbox".into(), MigrationType::Simple, text, false)
    };
    let mut migrator = Migrator::with_migrations(texts.iter().enumerate().map(migration).collect());
    migrator.dangerous_set_table_name(NOTED_IN);
    // A newer version of this crate may have been here.
    migrator.set_ignore_missing(true);
    migrator
}

/// Makes the outbox's table, or brings it up to date. Several processes may do so at once.
///
/// # Errors
/// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
pub async fn migrate<DB: Database>(pool: &Pool<DB>) -> Result<()> {
    let mut attempt = 0;
    loop {
        match DB::migrate(pool).await {
            Ok(()) => return Ok(()),
            // SQLite has no lock for it: another process may have been faster.
            Err(_) if DB::DIALECT == Dialect::Sqlite && attempt < 10 => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(storage(format!("make the outbox's table: {error}"))),
        }
    }
}
