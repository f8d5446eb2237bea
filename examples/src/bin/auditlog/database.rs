//! The SQLite file: the caller's own, or one that is gone when the program is.

use std::path::PathBuf;

use messaging_core::BoxError;
use messaging_sql::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use messaging_sql::sqlx::{self, SqlitePool};
use uuid::Uuid;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS tasks (
        id TEXT PRIMARY KEY, user_id TEXT NOT NULL, title TEXT NOT NULL, is_completed BOOLEAN NOT NULL
    );
    CREATE TABLE IF NOT EXISTS audit_logs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, activity_type TEXT NOT NULL,
        occurred_at TEXT NOT NULL, entity_id TEXT NOT NULL, entity_type TEXT NOT NULL, meta TEXT
    );
    CREATE INDEX IF NOT EXISTS audit_logs_of_users ON audit_logs (user_id, occurred_at, seq);
";

pub(crate) struct Database {
    pub(crate) pool: SqlitePool,
    /// Removed in the end, with what SQLite puts beside its file.
    temporary: Option<PathBuf>,
}

impl Database {
    /// Opens this file, or a temporary one, and makes the tables that are not there.
    pub(crate) async fn open(file: Option<PathBuf>) -> Result<Self, BoxError> {
        let directory = std::env::temp_dir().join(format!("auditlog-{}", Uuid::new_v4()));
        let (file, temporary) = match file {
            Some(file) => (file, None),
            None => {
                std::fs::create_dir(&directory)?;
                (directory.join("audit.db"), Some(directory))
            }
        };
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let pool = SqlitePool::connect_lazy_with(options.journal_mode(SqliteJournalMode::Wal));
        // From here on dropping removes the directory.
        let database = Self { pool, temporary };
        let made = sqlx::raw_sql(TABLES).execute(&database.pool).await;
        made.map_err(|error| format!("cannot use the database {}: {error}", file.display()))?;
        messaging_sql::migrate(&database.pool).await?;
        Ok(database)
    }

    pub(crate) async fn close(self) {
        self.pool.close().await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(directory) = &self.temporary {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
