//! `table`, `key` and `version`: where a model is stored, checked against its `#[column]`s.

use syn::LitStr;

use super::column::Column;
use super::model::{Field, Model};
use crate::mistakes::Mistakes;
use crate::option_name::Name;
use crate::options::Options;
use crate::value::Value;

pub(super) struct Table<'m> {
    pub(super) name: LitStr,
    pub(super) key: &'m Field,
    pub(super) version: Option<&'m Field>,
    /// All fields, also those that are skipped.
    pub(super) columns: Vec<Column<'m>>,
}

impl<'m> Table<'m> {
    pub(super) fn read(options: &Options, model: &'m Model, mistakes: &mut Mistakes) -> Option<Self> {
        if !options.has("table") {
            refuse_without_table(options, model, mistakes);
            return None;
        }
        if let (Some(table), false) = (options.name("table"), options.has("key")) {
            mistakes.add(table, "`table` needs `key = …`, the field that says which row it is");
        }
        let name = options.optional("table", mistakes, read_name);
        let key = options.optional("key", mistakes, |value| model.named(value));
        let version = options.optional("version", mistakes, |value| {
            let version = model.named(value)?;
            if key.is_some_and(|key| key.name == version.name) {
                let message =
                    format!("`{}` is the key, which stays; count changes in another field", version.name);
                return Err(value.error(message));
            }
            Ok(version)
        });
        let columns: Vec<Column<'_>> =
            model.fields.iter().map(|field| Column::read(field, mistakes)).collect();
        refuse_equal_names(&columns, mistakes);
        for column in &columns {
            let Column { field, skip, json, generated, .. } = column;
            let is = |role: Option<&Field>| role.is_some_and(|role| role.name == field.name);
            if is(key) {
                refuse_words(field, "the key, which is stored as it is", &[skip, json], mistakes);
            } else if is(version) {
                let role = "the version, which is stored and written as it is";
                refuse_words(field, role, &[skip, json, generated], mistakes);
            }
        }
        Some(Self { name: name?, key: key?, version, columns })
    }
}

fn refuse_without_table(options: &Options, model: &Model, mistakes: &mut Mistakes) {
    for (option, meaning) in
        [("key", "says which row of a table it is"), ("version", "counts the changes of a row")]
    {
        if let Some(name) = options.name(option) {
            mistakes.add(name, format_args!("`{option}` {meaning}; it needs `table = \"…\"`"));
        }
    }
    for attr in model.fields.iter().flat_map(|field| &field.column) {
        let message = "`#[column]` says how a field is stored; it needs `table = \"…\"` in `#[event_config]`";
        mistakes.add(attr, message);
    }
}

fn refuse_words(field: &Field, role: &str, words: &[&Option<Name>], mistakes: &mut Mistakes) {
    for word in words.iter().copied().flatten() {
        mistakes.add(word, format_args!("`{}` is {role}; remove `{}`", field.name, word.text));
    }
}

fn refuse_equal_names(columns: &[Column<'_>], mistakes: &mut Mistakes) {
    let stored: Vec<&Column<'_>> = columns.iter().filter(|column| column.skip.is_none()).collect();
    for (position, column) in stored.iter().enumerate() {
        if let Some(earlier) = stored[..position].iter().find(|earlier| earlier.name == column.name) {
            let message = format!(
                "the column of `{}` is called {:?} already; give one of them another name: \
                    `#[column(name = \"…\")]`",
                earlier.field.name, column.name
            );
            mistakes.add(column.place(), message);
        }
    }
}

/// `"cameras"` or `"schema.cameras"`.
fn read_name(value: &Value) -> syn::Result<LitStr> {
    let text = value.text().map_err(|_| value.error("expected a table in quotes, such as \"cameras\""))?;
    let name = text.value();
    if name.split('.').count() > 2 || !name.split('.').all(is_plain) {
        return Err(value.error(format_args!(
            "{name:?} is no table; write \"cameras\", or with a schema \"public.cameras\": names of letters \
                from A to Z, digits and `_`, without a digit in front"
        )));
    }
    Ok(text)
}

/// `[A-Za-z_][A-Za-z0-9_]*`.
fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}
