//! Which rows, in which order, how many of them.

use std::fmt;

use messaging_core::{BoxError, Error, Result};
use sqlx::encode::IsNull;
use sqlx::{Encode, Type};

use crate::database::Database;
use crate::error::storage;
use crate::model::{Binder, Bound, Column, ColumnValue, SqlModel};
use crate::statement::Statement;

type Bind<DB> = Box<dyn FnOnce(&mut Binder<'_, DB>) -> Bound + Send + Sync>;

/// A value for a column, with its type.
struct Value<DB: Database> {
    field: &'static str,
    given: DB::TypeInfo,
    /// `None`: NULL.
    bind: Result<Option<Bind<DB>>, BoxError>,
}

impl<DB: Database> Value<DB> {
    fn new<T: ColumnValue<DB> + Send + Sync + 'static>(field: &'static str, value: T) -> Self {
        let given = value.produces().unwrap_or_else(|| <T as Type<DB>>::type_info());
        let mut scratch = DB::ArgumentBuffer::default();
        let encoded = Encode::<DB>::encode_by_ref(&value, &mut scratch);
        let bind = encoded.map(|null| match null {
            IsNull::Yes => None,
            IsNull::No => Some(Box::new(move |binder: &mut Binder<'_, DB>| binder.value(&value)) as Bind<DB>),
        });
        Self { field, given, bind }
    }

    /// The column, if the value can be one of its.
    fn column<M: SqlModel<DB>>(&self, for_what: &str) -> Result<&'static Column> {
        let column = column::<DB, M>(self.field, for_what)?;
        if !column.json && M::accepts(self.field, &self.given) {
            return Ok(column);
        }
        let (model, field, given) = (M::DESCRIPTOR.name, self.field, &self.given);
        let reason = match column.json {
            true => "which is stored as JSON and cannot be compared or set alone".to_owned(),
            false => format!("whose type does not take {given}; give it a value of the field's own type"),
        };
        Err(storage(format!("{for_what} `{model}` by its field `{field}`, {reason}")))
    }
}

fn column<DB: Database, M: SqlModel<DB>>(field: &str, for_what: &str) -> Result<&'static Column> {
    M::TABLE.column(field).ok_or_else(|| {
        let fields: Vec<_> = M::TABLE.columns.iter().map(|column| column.field).collect();
        let (model, fields) = (M::DESCRIPTOR.name, fields.join("`, `"));
        storage(format!("{for_what} `{model}`: it stores no field `{field}`; there are `{fields}`"))
    })
}

/// Which rows: those whose fields have these values, all of them.
///
/// Fields go by their Rust names, which are looked up in the model's table; values are bound. Neither can be anything but a
/// name and a value, wherever they come from.
pub struct Filter<DB: Database>(Vec<Value<DB>>);

impl<DB: Database> Default for Filter<DB> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<DB: Database> Filter<DB> {
    /// All rows.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Rows whose field has this value; `None` is those where it is NULL.
    #[must_use]
    pub fn eq<T: ColumnValue<DB> + Send + Sync + 'static>(mut self, field: &'static str, value: T) -> Self {
        self.0.push(Value::new(field, value));
        self
    }

    /// By this field, smallest first.
    pub fn ascending(self, field: &'static str) -> Listing<DB> {
        Listing::from(self).ascending(field)
    }

    /// By this field, largest first.
    pub fn descending(self, field: &'static str) -> Listing<DB> {
        Listing::from(self).descending(field)
    }

    /// So many rows at most.
    pub fn limit(self, most: u32) -> Listing<DB> {
        Listing::from(self).limit(most)
    }

    /// Without so many rows at the beginning.
    pub fn offset(self, skipped: u32) -> Listing<DB> {
        Listing::from(self).offset(skipped)
    }

    pub(crate) fn write<M: SqlModel<DB>>(self, to: &mut Statement<DB>) -> Result<()> {
        for (position, value) in self.0.into_iter().enumerate() {
            let column = value.column::<M>("filter")?;
            to.push(if position == 0 { " WHERE " } else { " AND " }).name(column.name);
            let written = match value.bind {
                Ok(None) => {
                    to.push(" IS NULL");
                    Ok(())
                }
                Ok(Some(bind)) => to.push(" = ").bind(bind),
                Err(source) => Err(source),
            };
            written.map_err(|source| unwritable::<DB, M>(column, &source))?;
        }
        Ok(())
    }
}

fn unwritable<DB: Database, M: SqlModel<DB>>(column: &Column, source: &BoxError) -> Error {
    let (model, field) = (M::DESCRIPTOR.name, column.field);
    storage(format!("a value for the field `{field}` of `{model}` cannot be written: {source}"))
}

impl<DB: Database> fmt::Debug for Filter<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|value| value.field)).finish()
    }
}

/// Which rows, in which order, and how many of them: a [`Filter`] with more words.
///
/// Rows that the order leaves open come by their key.
#[derive(Debug)]
pub struct Listing<DB: Database> {
    filter: Filter<DB>,
    order: Vec<(&'static str, &'static str)>,
    limit: Option<u32>,
    offset: u32,
}

impl<DB: Database> From<Filter<DB>> for Listing<DB> {
    fn from(filter: Filter<DB>) -> Self {
        Self { filter, order: Vec::new(), limit: None, offset: 0 }
    }
}

impl<DB: Database> Listing<DB> {
    /// By this field, smallest first.
    #[must_use]
    pub fn ascending(mut self, field: &'static str) -> Self {
        self.order.push((field, ""));
        self
    }

    /// By this field, largest first.
    #[must_use]
    pub fn descending(mut self, field: &'static str) -> Self {
        self.order.push((field, " DESC"));
        self
    }

    /// So many rows at most.
    #[must_use]
    pub fn limit(mut self, most: u32) -> Self {
        self.limit = Some(most);
        self
    }

    /// Without so many rows at the beginning.
    #[must_use]
    pub fn offset(mut self, skipped: u32) -> Self {
        self.offset = skipped;
        self
    }

    pub(crate) fn write<M: SqlModel<DB>>(self, to: &mut Statement<DB>) -> Result<()> {
        let Self { filter, mut order, limit, offset } = self;
        filter.write::<M>(to)?;
        if order.iter().all(|(field, _)| *field != M::TABLE.key) {
            order.push((M::TABLE.key, ""));
        }
        for (position, (field, direction)) in order.into_iter().enumerate() {
            let column = column::<DB, M>(field, "order")?;
            to.push(if position == 0 { " ORDER BY " } else { ", " }).name(column.name).push(direction);
        }
        // SQLite has no OFFSET alone.
        let limit = limit.map(i64::from).or((offset > 0).then_some(i64::MAX));
        if let Some(limit) = limit {
            to.push(" LIMIT ").integer(limit);
        }
        if offset > 0 {
            to.push(" OFFSET ").integer(i64::from(offset));
        }
        Ok(())
    }
}

/// New values for fields, the same for every row.
pub struct Set<DB: Database>(Vec<Value<DB>>);

impl<DB: Database> Set<DB> {
    /// Sets this field.
    #[must_use]
    pub fn to<T: ColumnValue<DB> + Send + Sync + 'static>(field: &'static str, value: T) -> Self {
        Self(vec![Value::new(field, value)])
    }

    /// Sets this field too.
    #[must_use]
    pub fn and<T: ColumnValue<DB> + Send + Sync + 'static>(mut self, field: &'static str, value: T) -> Self {
        self.0.push(Value::new(field, value));
        self
    }

    pub(crate) fn write<M: SqlModel<DB>>(self, to: &mut Statement<DB>) -> Result<()> {
        for (position, value) in self.0.into_iter().enumerate() {
            let column = value.column::<M>("set")?;
            if column.generated || [Some(M::TABLE.key), M::TABLE.version].contains(&Some(column.field)) {
                let (model, field) = (M::DESCRIPTOR.name, column.field);
                let text = format!("set `{model}`: its field `{field}` is its key, its version or generated");
                return Err(storage(text));
            }
            to.push(if position == 0 { " SET " } else { ", " }).name(column.name).push(" = ");
            let written = match value.bind {
                Ok(None) => {
                    to.push("NULL");
                    Ok(())
                }
                Ok(Some(bind)) => to.bind(bind),
                Err(source) => Err(source),
            };
            written.map_err(|source| unwritable::<DB, M>(column, &source))?;
        }
        Ok(())
    }
}

impl<DB: Database> fmt::Debug for Set<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|value| value.field)).finish()
    }
}
