//! The suite on SQLite.

use messaging_sql::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use messaging_sql::sqlx::{Pool, Sqlite};

pub type Db = Sqlite;

pub const NAME: &str = "outbox::sqlite::suite";

/// Where a new database will be.
pub fn new_database() -> String {
    let name = format!("{}.db", messaging_tests::unique("messaging"));
    std::env::temp_dir().join(name).display().to_string()
}

pub async fn pool(database: &str) -> Pool<Db> {
    let options = SqliteConnectOptions::new().filename(database).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

#[path = "suite.rs"]
mod suite;
