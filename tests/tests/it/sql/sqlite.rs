//! The suite on SQLite.

use std::path::PathBuf;

use messaging_sql::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use messaging_sql::sqlx::{Pool, Sqlite};

pub type Db = Sqlite;

pub const TABLES: &str = "
    CREATE TABLE cameras (id TEXT PRIMARY KEY, mac TEXT NOT NULL UNIQUE, complex INTEGER, is_on BOOLEAN NOT NULL,
        weight REAL NOT NULL, settings TEXT, revision INTEGER NOT NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, state TEXT NOT NULL);
";

/// A new database in a file.
pub struct Home {
    pub pool: Pool<Db>,
    file: PathBuf,
}

pub async fn home() -> Option<Home> {
    let name = format!("messaging-{}-{}.db", std::process::id(), messaging_tests::unique("it"));
    let file = std::env::temp_dir().join(name);
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    Some(Home { pool, file })
}

impl Drop for Home {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let mut file = self.file.clone().into_os_string();
            file.push(end);
            let _ = std::fs::remove_file(file);
        }
    }
}

#[path = "suite.rs"]
#[allow(clippy::duplicate_mod, reason = "the same suite, on each database")]
mod suite;
