//! The suite on Postgres.

use messaging_sql::sqlx::postgres::PgPoolOptions;
use messaging_sql::sqlx::{Pool, Postgres};
use messaging_tests::{Database, PostgresServer};

pub type Db = Postgres;

pub const TABLES: &str = "
    CREATE TABLE cameras (id TEXT PRIMARY KEY, mac TEXT NOT NULL UNIQUE, complex BIGINT, is_on BOOLEAN NOT NULL,
        weight DOUBLE PRECISION NOT NULL, settings JSONB, revision BIGINT NOT NULL);
    CREATE TABLE orders (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer TEXT NOT NULL, state TEXT NOT NULL);
";

/// A new database.
pub struct Home {
    pub pool: Pool<Db>,
    _database: Database,
}

/// `None` where there is no Postgres.
pub async fn home() -> Option<Home> {
    if !PostgresServer::available() {
        return None;
    }
    let database = PostgresServer::shared().database();
    let pool = PgPoolOptions::new().max_connections(4).connect(&database.url()).await.unwrap();
    Some(Home { pool, _database: database })
}

#[path = "suite.rs"]
#[allow(clippy::duplicate_mod, reason = "the same suite, on each database")]
mod suite;
