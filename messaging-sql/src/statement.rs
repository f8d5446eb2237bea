//! The text of statements with their values. Nothing from outside is ever part of the text: names come from a model's
//! table, which is constant, and values are bound.

use messaging_core::{BoxError, Result};

use crate::database::{Database, Dialect};
use crate::error::storage;
use crate::model::{Binder, Bound, Column, SqlModel, Table};

/// A statement that is being written.
pub struct Statement<DB: Database> {
    pub(crate) text: String,
    pub(crate) arguments: DB::Arguments,
    /// The text comes again: it is worth being prepared.
    pub(crate) is_usual: bool,
    count: usize,
}

impl<DB: Database> std::fmt::Debug for Statement<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statement").field("text", &self.text).finish_non_exhaustive()
    }
}

impl<DB: Database> Clone for Statement<DB> {
    fn clone(&self) -> Self {
        let (text, arguments) = (self.text.clone(), self.arguments.clone());
        Self { text, arguments, is_usual: self.is_usual, count: self.count }
    }
}

impl<DB: Database> Statement<DB> {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), arguments: DB::Arguments::default(), is_usual: true, count: 0 }
    }

    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Quoted, so that no name is a keyword or two words.
    pub(crate) fn name(&mut self, name: &str) -> &mut Self {
        // SQLite takes a name in double quotes that it does not know for a text.
        let quote = match DB::DIALECT {
            Dialect::Sqlite => '`',
            Dialect::Postgres => '"',
        };
        self.text.push(quote);
        for character in name.chars() {
            if character == quote {
                self.text.push(quote);
            }
            self.text.push(character);
        }
        self.text.push(quote);
        self
    }

    /// The table's name, which may have a schema's in front.
    pub(crate) fn table(&mut self, table: &Table) -> &mut Self {
        for (position, part) in table.name.split('.').enumerate() {
            if position > 0 {
                self.push(".");
            }
            self.name(part);
        }
        self
    }

    /// The names of columns, with commas between them.
    pub(crate) fn columns<'c>(&mut self, columns: impl IntoIterator<Item = &'c Column>) -> &mut Self {
        for (position, column) in columns.into_iter().enumerate() {
            if position > 0 {
                self.push(", ");
            }
            self.name(column.name);
        }
        self
    }

    /// A placeholder with its value.
    pub(crate) fn bind(&mut self, bind: impl FnOnce(&mut Binder<'_, DB>) -> Bound) -> Result<(), BoxError> {
        bind(&mut Binder(&mut self.arguments))?;
        self.bound();
        Ok(())
    }

    /// The value of a model's column.
    pub(crate) fn field<M: SqlModel<DB>>(&mut self, model: &M, column: &Column) -> Result<()> {
        let bound = self.bind(|binder| model.bind(column.field, binder));
        bound.map_err(|source| {
            storage(format!(
                "the field `{}` of a `{}` cannot be written to the column `{}`: {source}",
                column.field,
                M::DESCRIPTOR.name,
                column.name
            ))
        })
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        DB::bind_text(&mut self.arguments, value);
        self.bound()
    }

    pub(crate) fn integer(&mut self, value: i64) -> &mut Self {
        DB::bind_integer(&mut self.arguments, value);
        self.bound()
    }

    /// The placeholder of the value that was bound last.
    fn bound(&mut self) -> &mut Self {
        self.count += 1;
        match DB::DIALECT {
            // Numbered ones have names, which SQLite looks for from the beginning each time.
            Dialect::Sqlite => self.push("?"),
            Dialect::Postgres => {
                let number = self.count.to_string();
                self.push("$").push(&number)
            }
        }
    }
}
