//! The statements of models: what they say, and what their rows are read as. Captures nothing and publishes nothing.

use std::collections::HashMap;

use messaging_core::{Result, Updated};

use crate::database::{Database, Dialect, rows};
use crate::error::{conflict, failed};
use crate::filter::{Filter, Listing, Set};
use crate::model::{Column, Reader, SqlModel, Table};
use crate::statement::Statement;

/// How many rows a statement is about at most.
const TOGETHER: usize = 500;

fn written(table: &Table) -> impl Iterator<Item = &'static Column> + Clone {
    table.columns.iter().filter(|column| !column.generated)
}

fn read<DB: Database, M: SqlModel<DB>>(rows: &[DB::Row], given: Option<&M>) -> Result<Vec<M>> {
    rows.iter().map(|row| Reader::read(row, given)).collect()
}

fn first<DB: Database, M: SqlModel<DB>>(rows: &[DB::Row], given: Option<&M>) -> Result<Option<M>> {
    rows.first().map(|row| Reader::read(row, given)).transpose()
}

/// The key as text, to find a row again.
fn key_of<DB: Database, M: SqlModel<DB>>(model: &M) -> Result<String> {
    Ok(model.field(M::TABLE.key)?.unwrap_or_default())
}

/// Whether an update has to know what was there before.
fn wants_previous<DB: Database, M: SqlModel<DB>>() -> bool {
    !M::DESCRIPTOR.previous.is_empty() || M::DESCRIPTOR.cache.is_some()
}

pub(crate) async fn insert<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    model: &M,
) -> Result<M> {
    let failed = |error| failed::<DB, M>("insert a", error);
    let statement = insertion(std::slice::from_ref(model))?;
    let rows = rows(connection, statement).await.map_err(failed)?;
    first(&rows, Some(model))?.ok_or_else(|| failed(sqlx::Error::RowNotFound))
}

/// Returns them in the order that they were given in.
pub(crate) async fn insert_many<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    models: &[M],
) -> Result<Vec<M>> {
    let table = M::TABLE;
    let mut stored = Vec::with_capacity(models.len());
    if table.key_column().generated {
        // Nothing tells which of the rows that come back is which.
        for model in models {
            stored.push(insert(connection, model).await?);
        }
        return Ok(stored);
    }
    let together = (DB::MOST_VALUES / written(table).count()).clamp(1, TOGETHER);
    for models in models.chunks(together) {
        let failed = |error| failed::<DB, M>("insert several", error);
        let rows = rows(connection, insertion(models)?).await.map_err(failed)?;
        // No database promises to return them in order.
        let mut by_key = HashMap::with_capacity(rows.len());
        for row in &rows {
            by_key.insert(key_of(&Reader::read::<M>(row, None)?)?, row);
        }
        for model in models {
            let row = *by_key.get(&key_of(model)?).ok_or_else(|| failed(sqlx::Error::RowNotFound))?;
            stored.push(Reader::read(row, Some(model))?);
        }
    }
    Ok(stored)
}

fn insertion<DB: Database, M: SqlModel<DB>>(models: &[M]) -> Result<Statement<DB>> {
    let table = M::TABLE;
    let mut statement = Statement::new("INSERT INTO ");
    statement.is_usual = models.len() == 1;
    statement.table(table);
    if written(table).next().is_none() {
        statement.push(" DEFAULT VALUES");
    } else {
        statement.push(" (").columns(written(table)).push(") VALUES ");
        for (position, model) in models.iter().enumerate() {
            for (column_position, column) in written(table).enumerate() {
                statement.push(match (position, column_position) {
                    (0, 0) => "(",
                    (_, 0) => "), (",
                    _ => ", ",
                });
                statement.field(model, column)?;
            }
        }
        statement.push(")");
    }
    statement.push(" RETURNING ").columns(table.columns);
    Ok(statement)
}

/// Returns the row as it is now and, if that matters, as it was; `None` if there is none.
pub(crate) async fn update<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    model: &M,
) -> Result<Option<Updated<M>>> {
    let table = M::TABLE;
    let mut before = None;
    if wants_previous::<DB, M>() {
        before = get(connection, model.key(), Lock::ForUpdate).await?;
        if before.is_none() {
            return Ok(None);
        }
    }
    let mut statement = Statement::new("UPDATE ");
    statement.table(table).push(" SET ");
    let is_set = |column: &&Column| column.field != table.key && Some(column.field) != table.version;
    let mut is_first = true;
    for column in written(table).filter(is_set) {
        statement.push(if is_first { "" } else { ", " }).name(column.name).push(" = ");
        statement.field(model, column)?;
        is_first = false;
    }
    if is_first && table.version.is_none() {
        let key = table.key_column().name;
        statement.name(key).push(" = ").name(key);
    }
    count_up::<DB>(table, !is_first, &mut statement);
    this_row(model, &mut statement)?;
    statement.push(" RETURNING ").columns(table.columns);
    let rows = rows(connection, statement).await.map_err(|error| failed::<DB, M>("update a", error))?;
    match first(&rows, Some(model))? {
        Some(after) => Ok(Some(Updated { before, after })),
        None => missing_or_changed(connection, model, "update").await,
    }
}

fn count_up<DB: Database>(table: &Table, follows: bool, statement: &mut Statement<DB>) {
    if let Some(version) = table.version_column() {
        statement.push(if follows { ", " } else { "" });
        statement.name(version.name).push(" = ").name(version.name).push(" + 1");
    }
}

/// The row of this model, in the version that it is of.
fn this_row<DB: Database, M: SqlModel<DB>>(model: &M, statement: &mut Statement<DB>) -> Result<()> {
    let key = M::TABLE.key_column();
    statement.push(" WHERE ").name(key.name).push(" = ");
    statement.field(model, key)?;
    if let Some(version) = M::TABLE.version_column() {
        statement.push(" AND ").name(version.name).push(" = ");
        statement.field(model, version)?;
    }
    Ok(())
}

/// No row was of this key and version.
async fn missing_or_changed<T, DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    model: &M,
    attempted: &str,
) -> Result<Option<T>> {
    if M::TABLE.version.is_none() {
        return Ok(None);
    }
    match get::<DB, M>(connection, model.key(), Lock::None).await? {
        None => Ok(None),
        Some(_) => Err(conflict::<DB, M>(attempted, &key_of(model)?)),
    }
}

/// Returns the row as it was; `None` if there was none.
pub(crate) async fn delete<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    model: &M,
) -> Result<Option<M>> {
    let mut statement = Statement::new("DELETE FROM ");
    statement.table(M::TABLE);
    this_row(model, &mut statement)?;
    statement.push(" RETURNING ").columns(M::TABLE.columns);
    let rows = rows(connection, statement).await.map_err(|error| failed::<DB, M>("delete a", error))?;
    match first(&rows, Some(model))? {
        Some(deleted) => Ok(Some(deleted)),
        None => missing_or_changed(connection, model, "delete").await,
    }
}

/// As [`delete`], in whatever version it is.
pub(crate) async fn delete_key<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    key: &M::Key,
) -> Result<Option<M>> {
    let mut statement = Statement::new("DELETE FROM ");
    statement.table(M::TABLE);
    of_key::<DB, M>(key, &mut statement)?;
    statement.push(" RETURNING ").columns(M::TABLE.columns);
    let rows = rows(connection, statement).await.map_err(|error| failed::<DB, M>("delete a", error))?;
    first(&rows, None)
}

/// Whether nobody else may change a row until the transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    None,
    ForUpdate,
}

impl Lock {
    /// SQLite has one writer.
    fn write<DB: Database>(self, statement: &mut Statement<DB>) {
        if self == Self::ForUpdate && DB::DIALECT == Dialect::Postgres {
            statement.push(" FOR UPDATE");
        }
    }
}

fn of_key<DB: Database, M: SqlModel<DB>>(key: &M::Key, statement: &mut Statement<DB>) -> Result<()> {
    statement.push(" WHERE ").name(M::TABLE.key_column().name).push(" = ");
    let bound = statement.bind(|binder| binder.value(key));
    bound.map_err(|source| failed::<DB, M>("find a", sqlx::Error::Encode(source)))
}

pub(crate) async fn get<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    key: &M::Key,
    lock: Lock,
) -> Result<Option<M>> {
    let mut statement = Statement::new("SELECT ");
    statement.columns(M::TABLE.columns).push(" FROM ").table(M::TABLE);
    of_key::<DB, M>(key, &mut statement)?;
    lock.write(&mut statement);
    let rows = rows(connection, statement).await.map_err(|error| failed::<DB, M>("get a", error))?;
    first(&rows, None)
}

pub(crate) async fn list<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    listing: Listing<DB>,
    lock: Lock,
) -> Result<Vec<M>> {
    let mut statement = Statement::new("SELECT ");
    statement.columns(M::TABLE.columns).push(" FROM ").table(M::TABLE);
    listing.write::<M>(&mut statement)?;
    lock.write(&mut statement);
    let rows = rows(connection, statement).await.map_err(|error| failed::<DB, M>("list", error))?;
    read(&rows, None)
}

/// Changes all rows that match, and returns them.
pub(crate) async fn update_where<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    filter: Filter<DB>,
    set: Set<DB>,
) -> Result<Vec<Updated<M>>> {
    let failed = |error| failed::<DB, M>("update", error);
    let table = M::TABLE;
    let mut statement = Statement::new("UPDATE ");
    statement.table(table);
    set.write::<M>(&mut statement)?;
    count_up::<DB>(table, true, &mut statement);
    if !wants_previous::<DB, M>() {
        filter.write::<M>(&mut statement)?;
        statement.push(" RETURNING ").columns(table.columns);
        let rows = rows(connection, statement).await.map_err(failed)?;
        let after = read(&rows, None)?;
        return Ok(after.into_iter().map(|after| Updated { before: None, after }).collect());
    }
    // Those that match now, and no others that come to match before they are changed.
    let before: Vec<M> = list(connection, filter.into(), Lock::ForUpdate).await?;
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let room = DB::MOST_VALUES - 1_000;
    if before.len() > room {
        let text = format!(
            "{} rows match, and an update with `previous` or `cache` takes {room} at once; change them in parts",
            before.len()
        );
        return Err(failed(sqlx::Error::Protocol(text)));
    }
    statement.is_usual = false;
    statement.push(" WHERE ").name(table.key_column().name).push(" IN (");
    for (position, model) in before.iter().enumerate() {
        statement.push(if position == 0 { "" } else { ", " });
        statement.field(model, table.key_column())?;
    }
    statement.push(") RETURNING ").columns(table.columns);
    let rows = rows(connection, statement).await.map_err(failed)?;
    let mut after = HashMap::with_capacity(rows.len());
    for row in &rows {
        let model: M = Reader::read(row, None)?;
        after.insert(key_of(&model)?, model);
    }
    let mut updated = Vec::with_capacity(before.len());
    for before in before {
        if let Some(after) = after.remove(&key_of(&before)?) {
            updated.push(Updated { before: Some(before), after });
        }
    }
    Ok(updated)
}

/// Deletes all rows that match, and returns them.
pub(crate) async fn delete_where<DB: Database, M: SqlModel<DB>>(
    connection: &mut DB::Connection,
    filter: Filter<DB>,
) -> Result<Vec<M>> {
    let mut statement = Statement::new("DELETE FROM ");
    statement.table(M::TABLE);
    filter.write::<M>(&mut statement)?;
    statement.push(" RETURNING ").columns(M::TABLE.columns);
    let rows = rows(connection, statement).await.map_err(|error| failed::<DB, M>("delete", error))?;
    read(&rows, None)
}
