//! What `#[event_config(table = …)]` says of a model: its table, and how its fields become columns and back. No I/O.

use messaging_core::{Error, Model, Result};
use sqlx::{Decode, Encode, Type, ValueRef as _};

use crate::database::Database;
use crate::error::storage;

/// A model with a table: implemented by `#[event_config(table = "cameras", key = id)]`, never by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no table in {DB}",
    label = "give its `#[event_config]` a `table` and a `key`",
    note = "if it has one, one of its fields cannot be a column of {DB}: see the other notes"
)]
pub trait SqlModel<DB: Database>: Model + Sized {
    /// What identifies a row.
    type Key: ColumnValue<DB> + Send + Sync + 'static;

    /// Its table.
    const TABLE: &'static Table;

    /// What identifies its row.
    fn key(&self) -> &Self::Key;

    #[doc(hidden)]
    fn bind(&self, field: &str, binder: &mut Binder<'_, DB>) -> Bound;

    #[doc(hidden)]
    fn accepts(field: &str, given: &DB::TypeInfo) -> bool;

    #[doc(hidden)]
    fn read(row: &Reader<'_, DB>, given: Option<&Self>) -> Result<Self>;
}

/// A model's table.
#[derive(Debug)]
pub struct Table {
    /// As the attribute says it: `cameras` or `public.cameras`.
    pub name: &'static str,
    /// In the order of the fields.
    pub columns: &'static [Column],
    /// The Rust field that identifies a row.
    pub key: &'static str,
    /// The Rust field that counts changes.
    pub version: Option<&'static str>,
}

/// One column of a [`Table`].
#[derive(Debug)]
pub struct Column {
    /// The Rust field.
    pub field: &'static str,
    /// The column's name.
    pub name: &'static str,
    /// The database fills it; it is never written.
    pub generated: bool,
    /// It is stored as JSON.
    pub json: bool,
}

impl Table {
    /// The column of a Rust field.
    pub(crate) fn column(&self, field: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.field == field)
    }

    pub(crate) fn key_column(&self) -> &'static Column {
        self.column(self.key).expect("the macro has checked that the key is a field")
    }

    pub(crate) fn version_column(&self) -> Option<&'static Column> {
        self.version.and_then(|version| self.column(version))
    }
}

/// A type that a column can have: one that sqlx can write and read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a column of {DB}",
    label = "sqlx does not know how to store it there",
    note = "turn on sqlx's feature for it (`uuid`, `chrono`, `time`, `rust_decimal`, …), store it as JSON with `#[column(json)]`, or leave it out with `#[column(skip)]`"
)]
pub trait ColumnValue<DB: sqlx::Database>:
    for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB> + Type<DB>
{
}

impl<DB, T> ColumnValue<DB> for T
where
    DB: sqlx::Database,
    T: for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB> + Type<DB>,
{
}

/// What came of giving a statement a value.
pub type Bound = std::result::Result<(), messaging_core::BoxError>;

/// Gives values to a statement.
#[derive(Debug)]
pub struct Binder<'a, DB: Database>(pub(crate) &'a mut DB::Arguments);

impl<DB: Database> Binder<'_, DB> {
    /// A value as it is.
    pub fn value<T: ColumnValue<DB>>(&mut self, value: &T) -> Bound {
        sqlx::Arguments::add(self.0, value)
    }

    /// A value as JSON; what would be `null` there is NULL.
    pub fn json<T: serde::Serialize>(&mut self, value: &T) -> Bound {
        let json = serde_json::value::to_raw_value(value)?;
        DB::bind_json(self.0, Some(&*json).filter(|json| json.get() != "null"))
    }

    /// There is no such column.
    pub fn unknown(&self, field: &str) -> Bound {
        Err(format!("`{field}` is no column").into())
    }
}

/// A row that is being read.
pub struct Reader<'r, DB: Database> {
    row: &'r DB::Row,
    table: &'static Table,
    model: &'static str,
}

impl<DB: Database> std::fmt::Debug for Reader<'_, DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("model", &self.model).finish_non_exhaustive()
    }
}

impl<'r, DB: Database> Reader<'r, DB> {
    /// Reads a model from a row that begins with all columns of its table.
    pub(crate) fn read<M: SqlModel<DB>>(row: &'r DB::Row, given: Option<&M>) -> Result<M> {
        M::read(&Self { row, table: M::TABLE, model: M::DESCRIPTOR.name }, given)
    }

    /// The value of a field.
    pub fn value<T: ColumnValue<DB>>(&self, field: &str) -> Result<T> {
        let (column, value) = self.raw(field)?;
        let found = value.type_info();
        if !value.is_null() && !T::compatible(&found) {
            let wanted = T::type_info();
            return Err(self.mistake(column, &format!("it holds {found}, and the field wants {wanted}")));
        }
        T::decode(value).map_err(|source| self.mistake(column, &source))
    }

    /// The value of a field that is stored as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<T> {
        let (column, value) = self.raw(field)?;
        let read = if value.is_null() {
            serde_json::from_str("null").map_err(|_| "it is NULL".into())
        } else {
            DB::read_json(value)
        };
        read.map_err(|source| self.mistake(column, &source))
    }

    fn raw(&self, field: &str) -> Result<(&'static Column, DB::ValueRef<'r>)> {
        let mut columns = self.table.columns.iter().enumerate();
        let (position, column) = columns
            .find(|(_, column)| column.field == field)
            .expect("the macro asks for columns of the table");
        let value = DB::raw(self.row, position).map_err(|source| self.mistake(column, &source))?;
        Ok((column, value))
    }

    fn mistake(&self, column: &Column, reason: &dyn std::fmt::Display) -> Error {
        let Column { field, name, .. } = column;
        let (model, table) = (self.model, self.table.name);
        storage(format!("the column `{name}` of `{table}` is no `{field}` of a `{model}`: {reason}"))
    }
}

/// Whether a column of a type takes values of another.
pub fn accepts<DB: Database, T: ColumnValue<DB>>(given: &DB::TypeInfo) -> bool {
    T::compatible(given)
}

/// A field that is not stored.
pub fn skipped<T: Default + Clone>(given: Option<&T>) -> T {
    given.cloned().unwrap_or_default()
}

/// A type that can be stored as JSON.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored as JSON",
    label = "it has to be `Serialize + DeserializeOwned`"
)]
pub trait JsonValue: serde::Serialize + serde::de::DeserializeOwned {}

impl<T: serde::Serialize + serde::de::DeserializeOwned> JsonValue for T {}
