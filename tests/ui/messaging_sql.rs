//! What generated code names of `messaging_sql`, without a database: the tests of the macro need nothing else.

use std::any::TypeId;
use std::marker::PhantomData;

pub trait Database: 'static {}

#[diagnostic::on_unimplemented(message = "`{Self}` is no column's type")]
pub trait ColumnValue<Db: Database>: Default + 'static {}

#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [Column],
    pub key: &'static str,
    pub version: Option<&'static str>,
}

#[derive(Debug, PartialEq)]
pub struct Column {
    pub field: &'static str,
    pub name: &'static str,
    pub generated: bool,
    pub json: bool,
}

pub trait SqlModel<Db: Database>: Sized {
    type Key: ColumnValue<Db>;
    const TABLE: &'static Table;
    fn key(&self) -> &Self::Key;
    fn bind(&self, field: &str, binder: &mut __private::Binder<'_, Db>) -> __private::Bound;
    fn accepts(field: &str, given: &__private::TypeInfo<Db>) -> bool;
    fn read(row: &__private::Reader<'_, Db>, given: Option<&Self>) -> __private::Read<Self>;
}

pub struct Postgres;
pub struct Sqlite;

impl Database for Postgres {}
impl Database for Sqlite {}
impl ColumnValue<Postgres> for u64 {}
impl ColumnValue<Sqlite> for u64 {}
impl ColumnValue<Postgres> for String {}
impl ColumnValue<Sqlite> for String {}
impl ColumnValue<Postgres> for Vec<u64> {}

pub mod __private {
    use super::*;

    /// What was bound, in words.
    pub struct Binder<'b, Db>(pub &'b mut Vec<String>, pub PhantomData<Db>);
    pub type Bound = Result<(), String>;
    pub struct TypeInfo<Db>(pub TypeId, pub PhantomData<Db>);
    /// Reads defaults, and notes from where.
    pub struct Reader<'r, Db>(pub &'r std::cell::RefCell<Vec<String>>, pub PhantomData<Db>);
    pub type Read<T> = Result<T, String>;

    #[diagnostic::on_unimplemented(message = "`{Self}` cannot be stored as JSON")]
    pub trait JsonValue: Default {}

    impl<Db: Database> Binder<'_, Db> {
        pub fn value<T: ColumnValue<Db>>(&mut self, _: &T) -> Bound {
            self.0.push("value".to_owned());
            Ok(())
        }

        pub fn json<T: JsonValue>(&mut self, _: &T) -> Bound {
            self.0.push("json".to_owned());
            Ok(())
        }

        pub fn unknown(&self, field: &str) -> Bound {
            Err(field.to_owned())
        }
    }

    impl<Db: Database> Reader<'_, Db> {
        pub fn value<T: ColumnValue<Db>>(&self, field: &str) -> Read<T> {
            self.0.borrow_mut().push(format!("value {field}"));
            Ok(T::default())
        }

        pub fn json<T: JsonValue>(&self, field: &str) -> Read<T> {
            self.0.borrow_mut().push(format!("json {field}"));
            Ok(T::default())
        }
    }

    pub fn accepts<Db: Database, T: ColumnValue<Db>>(given: &TypeInfo<Db>) -> bool {
        given.0 == TypeId::of::<T>()
    }

    pub fn skipped<T: Default + Clone>(given: Option<&T>) -> T {
        given.cloned().unwrap_or_default()
    }
}
