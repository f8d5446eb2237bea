//! `#[column(…)]`: how a field of a model with a table is stored.

use quote::ToTokens;
use syn::{Attribute, ItemStruct, Meta};

use super::model::Field;
use crate::mistakes::Mistakes;
use crate::option_name::Name;
use crate::options::Options;
use crate::structure::is_conditional;
use crate::value::{Value, split};

/// What Postgres keeps of a name.
const LONGEST_NAME: usize = 63;

/// A field and what its `#[column]` says. The words are noted where they stand.
pub(super) struct Column<'m> {
    pub(super) field: &'m Field,
    pub(super) name: String,
    /// Where the name is given, if it is.
    name_value: Option<Value>,
    pub(super) skip: Option<Name>,
    pub(super) json: Option<Name>,
    pub(super) generated: Option<Name>,
}

/// Takes `#[column]` off a field: the compiler knows no such attribute.
pub(super) fn take(attrs: &mut Vec<Attribute>) -> Vec<Attribute> {
    attrs.extract_if(.., |attr| attr.path().is_ident("column") || is_conditional(attr, "column")).collect()
}

/// Takes it off all fields of a struct.
pub(super) fn strip(item: &mut ItemStruct) {
    for field in &mut item.fields {
        take(&mut field.attrs);
    }
}

impl<'m> Column<'m> {
    pub(super) fn read(field: &'m Field, mistakes: &mut Mistakes) -> Self {
        let options = options(&field.column, mistakes);
        let [skip, json, generated] = ["skip", "json", "generated"].map(|word| {
            options.flag(word, mistakes);
            options.name(word).cloned()
        });
        let name = options.optional("name", mistakes, Value::text);
        let column = Self {
            field,
            name: name.map_or_else(|| field.name.clone(), |name| name.value()),
            name_value: options.get("name").map(|entry| entry.value.clone()),
            skip,
            json,
            generated,
        };
        match &column.skip {
            Some(_) => refuse_beside_skip(&options, mistakes),
            None => column.check_stored(mistakes),
        }
        column
    }

    /// Where the name is given, or else the field.
    pub(super) fn place(&self) -> &dyn ToTokens {
        match &self.name_value {
            Some(value) => value,
            None => &self.field.ident,
        }
    }

    fn check_stored(&self, mistakes: &mut Mistakes) {
        let Self { field, name, .. } = self;
        let place = self.place();
        if name.is_empty() {
            mistakes.add(place, "the column has no name; write one, or leave `name` out");
        } else if name.contains('\0') {
            mistakes.add(place, "a column's name cannot hold NUL");
        } else if name.len() > LONGEST_NAME {
            let message = format!(
                "this name has {} bytes, and a column's at most {LONGEST_NAME}; write a shorter one: \
                    `#[column(name = \"…\")]`",
                name.len()
            );
            mistakes.add(place, message);
        }
        // The field's type is in the bounds of what is generated, since that is generic over the database, and bounds
        // take no `#[cfg]`.
        for cfg in &field.cfgs {
            let message = "which fields are stored cannot depend on `#[cfg]`; write `#[column(skip)]` on \
                this one, or put the `#[cfg]` on the whole struct";
            mistakes.add(cfg, message);
        }
    }
}

/// The entries of all `#[column]`s of a field.
fn options(attrs: &[Attribute], mistakes: &mut Mistakes) -> Options {
    let mut segments = Vec::new();
    for attr in attrs {
        match &attr.meta {
            Meta::List(list) if list.path.is_ident("cfg_attr") => {
                let message = "what is stored depends on `#[column]`, and whether this one holds cannot be \
                    seen here; write `#[column(…)]` without `cfg_attr`";
                mistakes.add(attr, message);
            }
            Meta::List(list) if !list.tokens.is_empty() => {
                segments.extend(split(list.tokens.clone(), mistakes));
            }
            _ => {
                let message = "this says nothing; write `#[column(…)]` with `name = \"…\"`, `skip`, `json` or \
                    `generated` in it";
                mistakes.add(attr, message);
            }
        }
    }
    let known = &["name", "skip", "json", "generated"];
    Options::with_bare_words(segments, known, &known[1..], mistakes)
}

fn refuse_beside_skip(options: &Options, mistakes: &mut Mistakes) {
    for word in ["name", "json", "generated"] {
        if let Some(name) = options.name(word) {
            let message = format!("a field with `skip` is not stored; remove `{word}`, or the `skip`");
            mistakes.add(name, message);
        }
    }
}
