//! Errors of the database in words that name the model, the table and what to do.

use messaging_core::{Error, ErrorKind};

use crate::database::Database;
use crate::model::SqlModel;

pub(crate) fn storage(text: String) -> Error {
    messaging_core::__private::error(ErrorKind::Storage, text)
}

/// What the database says of a statement on a model.
pub(crate) fn failed<DB: Database, M: SqlModel<DB>>(attempted: &str, source: sqlx::Error) -> Error {
    let (model, table) = (M::DESCRIPTOR.name, M::TABLE.name);
    of_database::<DB>(&format!("{attempted} `{model}` in the table `{table}`"), source)
}

/// What the database says of something else.
pub(crate) fn of_database<DB: Database>(attempted: &str, source: sqlx::Error) -> Error {
    let kind = match &source {
        sqlx::Error::PoolTimedOut => ErrorKind::Timeout,
        // There is one already.
        sqlx::Error::Database(error) if error.is_unique_violation() => ErrorKind::Conflict,
        _ => ErrorKind::Storage,
    };
    let advice = advice::<DB>(&source);
    let text = format!("{attempted}: {}{advice}", reason(&source));
    messaging_core::__private::error_of(kind, text, source)
}

/// Without what sqlx puts before it.
fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        error => error.to_string(),
    }
}

fn advice<DB: Database>(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::PoolTimedOut => {
            "; every connection of the pool was in use: give it more, or hold units of work for a shorter time"
        }
        error if DB::is_busy(error) => {
            "; another process holds the database's one writer for longer than `busy_timeout`"
        }
        sqlx::Error::Database(error) if error.message().contains("messaging_outbox") => {
            "; has `messaging_sql::migrate(&pool)` been called?"
        }
        _ => "",
    }
}

/// Somebody else has changed the row.
pub(crate) fn conflict<DB: Database, M: SqlModel<DB>>(attempted: &str, key: &str) -> Error {
    let (model, version) = (M::DESCRIPTOR.name, M::TABLE.version.unwrap_or_default());
    let text = format!(
        "{attempted} the `{model}` {key:?}: it is not at this `{version}` any more; read it again, and decide again"
    );
    messaging_core::__private::error(ErrorKind::Conflict, text)
}
