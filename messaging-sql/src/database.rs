//! The two databases, as far as they differ. The only place that runs statements.

use futures_util::future::BoxFuture;
use messaging_core::BoxError;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sqlx::{Pool, Transaction};

use crate::crash;
use crate::model::Bound;
use crate::statement::Statement;

/// A database that models can be kept in: [`sqlx::Sqlite`], or with the feature `postgres` [`sqlx::Postgres`].
pub trait Database: sqlx::Database<ArgumentBuffer: Default, Arguments: Clone> + sealed::Sealed {
    #[doc(hidden)]
    const DIALECT: Dialect;
    /// How many values a statement takes at most.
    #[doc(hidden)]
    const MOST_VALUES: usize;
    #[doc(hidden)]
    fn raw(row: &Self::Row, column: usize) -> sqlx::Result<Self::ValueRef<'_>>;
    #[doc(hidden)]
    fn bind_json(arguments: &mut Self::Arguments, json: Option<&RawValue>) -> Bound;
    #[doc(hidden)]
    fn read_json<T: DeserializeOwned>(value: Self::ValueRef<'_>) -> Result<T, BoxError>;
    #[doc(hidden)]
    fn bind_text(arguments: &mut Self::Arguments, value: &str);
    #[doc(hidden)]
    fn bind_integer(arguments: &mut Self::Arguments, value: i64);
    #[doc(hidden)]
    fn text(row: &Self::Row, column: usize) -> sqlx::Result<Option<String>>;
    #[doc(hidden)]
    fn integer(row: &Self::Row, column: usize) -> sqlx::Result<Option<i64>>;
    #[doc(hidden)]
    fn fetch(
        connection: &mut Self::Connection,
        statement: Statement<Self>,
    ) -> BoxFuture<'_, sqlx::Result<Vec<Self::Row>>>;
    /// What a pool's database is called, in this process.
    #[doc(hidden)]
    fn identity(pool: &Pool<Self>) -> String;
    /// Another connection writes.
    #[doc(hidden)]
    fn is_busy(error: &sqlx::Error) -> bool;
    #[doc(hidden)]
    fn migrate(pool: &Pool<Self>) -> BoxFuture<'_, Result<(), sqlx::migrate::MigrateError>>;
    /// Waits for the news that somebody has written to the outbox; for ever, where there is none.
    #[doc(hidden)]
    fn news(pool: &Pool<Self>) -> BoxFuture<'static, News>;
}

/// Hears that somebody has written to the outbox.
#[doc(hidden)]
#[derive(Debug)]
pub enum News {
    /// Nobody says so.
    Silent,
    /// By NOTIFY.
    #[cfg(feature = "postgres")]
    Listening(Box<sqlx::postgres::PgListener>),
}

impl News {
    /// The next of it. An error is no news, and the last.
    pub(crate) async fn next(&mut self) {
        match self {
            Self::Silent => std::future::pending().await,
            #[cfg(feature = "postgres")]
            Self::Listening(listener) => {
                if let Err(error) = listener.try_recv().await {
                    tracing::debug!(%error, "the outbox is not listened to any more; polling");
                    *self = Self::Silent;
                }
            }
        }
    }

    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Silent)
    }
}

/// How SQL is written.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite's.
    Sqlite,
    /// Postgres's.
    Postgres,
}

mod sealed {
    #[allow(unnameable_types, reason = "nobody else has a database")]
    pub trait Sealed {}
    #[cfg(feature = "sqlite")]
    impl Sealed for sqlx::Sqlite {}
    #[cfg(feature = "postgres")]
    impl Sealed for sqlx::Postgres {}
}

/// Runs a statement and returns its rows.
pub(crate) async fn rows<DB: Database>(
    connection: &mut DB::Connection,
    statement: Statement<DB>,
) -> sqlx::Result<Vec<DB::Row>> {
    crash::point();
    let rows = DB::fetch(connection, statement).await;
    crash::point();
    rows
}

/// Begins a transaction that may write.
pub(crate) fn begin_statement<DB: Database>() -> &'static str {
    match DB::DIALECT {
        // One that reads first could not write any more if somebody else has meanwhile.
        Dialect::Sqlite => "BEGIN IMMEDIATE",
        Dialect::Postgres => "BEGIN",
    }
}

pub(crate) async fn commit<DB: Database>(transaction: Transaction<'_, DB>) -> sqlx::Result<()> {
    crash::point();
    let committed = transaction.commit().await;
    crash::point();
    committed
}

/// What both databases have in common and sqlx says of each alone.
macro_rules! database {
    ($database:ty) => {
        fn raw(row: &Self::Row, column: usize) -> sqlx::Result<Self::ValueRef<'_>> {
            sqlx::Row::try_get_raw(row, column)
        }

        fn bind_json(arguments: &mut Self::Arguments, json: Option<&RawValue>) -> Bound {
            sqlx::Arguments::add(arguments, json.map(sqlx::types::Json))
        }

        fn read_json<T: DeserializeOwned>(value: Self::ValueRef<'_>) -> Result<T, BoxError> {
            <sqlx::types::Json<T> as sqlx::Decode<'_, $database>>::decode(value).map(|json| json.0)
        }

        fn bind_text(arguments: &mut Self::Arguments, value: &str) {
            sqlx::Arguments::add(arguments, value).expect("a text can be bound");
        }

        fn bind_integer(arguments: &mut Self::Arguments, value: i64) {
            sqlx::Arguments::add(arguments, value).expect("an integer can be bound");
        }

        fn text(row: &Self::Row, column: usize) -> sqlx::Result<Option<String>> {
            sqlx::Row::try_get(row, column)
        }

        fn integer(row: &Self::Row, column: usize) -> sqlx::Result<Option<i64>> {
            sqlx::Row::try_get(row, column)
        }

        fn fetch(
            connection: &mut Self::Connection,
            statement: Statement<Self>,
        ) -> BoxFuture<'_, sqlx::Result<Vec<Self::Row>>> {
            let Statement { text, arguments, is_usual, .. } = statement;
            // Names come from constants, and values are bound: see `Statement`.
            let query = sqlx::query_with::<$database, _>(sqlx::AssertSqlSafe(text), arguments);
            Box::pin(query.persistent(is_usual).fetch_all(connection))
        }

        fn migrate(pool: &Pool<Self>) -> BoxFuture<'_, Result<(), sqlx::migrate::MigrateError>> {
            Box::pin(async move { crate::migrations::migrator::<Self>().run(pool).await })
        }
    };
}

#[cfg(feature = "sqlite")]
impl Database for sqlx::Sqlite {
    const DIALECT: Dialect = Dialect::Sqlite;
    const MOST_VALUES: usize = 32_766;

    database!(sqlx::Sqlite);

    fn identity(pool: &Pool<Self>) -> String {
        let file = pool.connect_options();
        let file = file.get_filename();
        let absolute = std::path::absolute(file).ok();
        format!("sqlite:{}", absolute.as_deref().unwrap_or(file).display())
    }

    fn is_busy(error: &sqlx::Error) -> bool {
        // Extended result codes have the primary one in their last byte: SQLITE_BUSY, SQLITE_LOCKED.
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        matches!(code.map(|code| code & 0xff), Some(5 | 6))
    }

    fn news(_pool: &Pool<Self>) -> BoxFuture<'static, News> {
        Box::pin(std::future::ready(News::Silent))
    }
}

#[cfg(feature = "postgres")]
impl Database for sqlx::Postgres {
    const DIALECT: Dialect = Dialect::Postgres;
    const MOST_VALUES: usize = 65_535;

    database!(sqlx::Postgres);

    fn identity(pool: &Pool<Self>) -> String {
        let to = pool.connect_options();
        let socket = to.get_socket().map(|socket| socket.display().to_string());
        let host = socket.unwrap_or_else(|| to.get_host().to_owned());
        format!("postgres:{host}:{}/{}", to.get_port(), to.get_database().unwrap_or(to.get_username()))
    }

    fn is_busy(_error: &sqlx::Error) -> bool {
        false
    }

    fn news(pool: &Pool<Self>) -> BoxFuture<'static, News> {
        let pool = pool.clone();
        Box::pin(async move {
            let listening = async {
                let mut listener = sqlx::postgres::PgListener::connect_with(&pool).await?;
                listener.listen("messaging_outbox").await?;
                Ok::<_, sqlx::Error>(listener)
            };
            match listening.await {
                Ok(listener) => News::Listening(Box::new(listener)),
                Err(error) => {
                    tracing::debug!(%error, "the outbox cannot be listened to; polling");
                    News::Silent
                }
            }
        })
    }
}
