//! The suite on Postgres.

use messaging_sql::sqlx::postgres::PgPoolOptions;
use messaging_sql::sqlx::{Pool, Postgres};
use messaging_tests::{Database, PostgresServer};

pub type Db = Postgres;

pub const NAME: &str = "outbox::postgres::suite";

/// A new database.
pub struct Home(Database);

impl Home {
    /// `None` where there is no Postgres.
    pub fn new() -> Option<Self> {
        PostgresServer::available().then(|| Self(PostgresServer::shared().database()))
    }

    /// How others find it.
    pub fn address(&self) -> String {
        self.0.url()
    }
}

pub async fn pool(address: &str) -> Pool<Db> {
    PgPoolOptions::new().max_connections(4).connect(address).await.unwrap()
}

#[path = "suite.rs"]
#[allow(clippy::duplicate_mod, reason = "the same suite, on each database")]
mod suite;
