#![doc = include_str!("lib.md")]
#![forbid(unsafe_code)]

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("messaging-sql is of no use without a database: turn on its feature `sqlite` or `postgres`");

mod crash;
mod database;
mod error;
mod filter;
mod migrations;
mod model;
mod outbox;
mod published;
mod relay;
mod rows;
mod shared;
mod statement;
mod storage;
mod unit_of_work;

pub use sqlx;

pub use crate::database::Database;
pub use crate::filter::{Filter, Listing, Set};
#[cfg(feature = "postgres")]
pub use crate::migrations::POSTGRES_MIGRATIONS;
#[cfg(feature = "sqlite")]
pub use crate::migrations::SQLITE_MIGRATIONS;
pub use crate::migrations::migrate;
pub use crate::model::{Column, ColumnValue, SqlModel, Table};
pub use crate::outbox::{Outbox, OutboxRow, OutboxStats};
pub use crate::relay::OutboxRelay;
pub use crate::storage::SqlStorage;
pub use crate::unit_of_work::UnitOfWork;

/// What the code of `#[event_config(table = …)]` uses. Not for users: it may change with every version.
#[doc(hidden)]
pub mod __private {
    pub use crate::model::{Binder, Bound, JsonValue, Reader, accepts, skipped};

    /// The type of a value as a database sees it.
    pub type TypeInfo<DB> = <DB as sqlx::Database>::TypeInfo;
    /// What came of reading a row.
    pub type Read<M> = messaging_core::Result<M>;
}
