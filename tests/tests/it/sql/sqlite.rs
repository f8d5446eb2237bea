//! The suite on SQLite.

use std::sync::atomic::{AtomicU32, Ordering};

use messaging_sql::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use messaging_sql::sqlx::{Pool, Sqlite};

pub type Db = Sqlite;

pub const TABLES: &str = "
    CREATE TABLE cameras (id TEXT PRIMARY KEY, mac TEXT NOT NULL UNIQUE, complex INTEGER, is_on BOOLEAN NOT NULL,
        weight REAL NOT NULL, settings TEXT, revision INTEGER NOT NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, state TEXT NOT NULL);
";

/// A new database in a file.
pub async fn pool() -> Pool<Db> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("messaging-{}-{}.db", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let file = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&file);
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

#[path = "suite.rs"]
mod suite;
