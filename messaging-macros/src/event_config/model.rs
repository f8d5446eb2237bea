//! The struct: its fields with their wire names.

use proc_macro2::{Ident, TokenStream};
use syn::ext::IdentExt;
use syn::{Attribute, Fields, ItemStruct, Type};

use super::column;
use crate::function::cfgs;
use crate::mistakes::Mistakes;
use crate::names::advice;
use crate::types::without_self;
use crate::value::{Value, ValueKind};
use crate::{serde_attrs, structure};

/// The struct that `#[event_config]` stands on.
pub(super) struct Model {
    pub(super) item: ItemStruct,
    pub(super) container: serde_attrs::Container,
    pub(super) fields: Vec<Field>,
}

pub(super) struct Field {
    pub(super) ident: Ident,
    pub(super) name: String,
    pub(super) ty: Type,
    pub(super) cfgs: Vec<Attribute>,
    pub(super) wire: String,
    pub(super) skipped: bool,
    pub(super) flattened: bool,
    /// `#[serde(…)]` as far as it matters for writing.
    pub(super) serde: Vec<syn::Meta>,
    /// `#[column(…)]`, which the struct no longer has.
    pub(super) column: Vec<Attribute>,
}

impl Model {
    pub(super) fn read(item: TokenStream, mistakes: &mut Mistakes) -> Option<Self> {
        let mut item =
            structure::read(item, "`#[event_config]` stands on a struct with named fields", mistakes)?;
        structure::refuse_generics(&item, "a model", mistakes);
        let Fields::Named(named) = &mut item.fields else {
            let what =
                if item.fields.is_empty() { &item.ident as &dyn quote::ToTokens } else { &item.fields };
            mistakes.add(what, "a model has named fields: `struct Camera { id: Uuid, … }`");
            return None;
        };
        let container = serde_attrs::Container::of(&item.attrs, mistakes);
        let name = &item.ident;
        let own_type: Type = syn::parse_quote!(#name);
        let mut fields = Vec::with_capacity(named.named.len());
        for field in &mut named.named {
            let column = column::take(&mut field.attrs);
            let ident = field.ident.clone().expect("a named field");
            let serde_attrs::Field { wire, skipped, flattened, kept } =
                serde_attrs::Field::of(&ident, &field.attrs, &container, mistakes);
            fields.push(Field {
                name: ident.unraw().to_string(),
                ident,
                ty: without_self(field.ty.clone(), &own_type),
                cfgs: cfgs(&field.attrs).into_iter().cloned().collect(),
                wire,
                skipped,
                flattened,
                serde: kept,
                column,
            });
        }
        Some(Self { item, container, fields })
    }

    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// What to write instead of a name that is no field.
    pub(super) fn suggestion(&self, wrong: &str) -> String {
        advice(wrong, "field", self.fields.iter().map(|field| field.name.as_str()))
    }

    /// A field, named in the attribute.
    pub(super) fn named(&self, value: &Value) -> syn::Result<&Field> {
        let Some(ident) = value.ident() else {
            return Err(value.error("expected the name of a field, without quotes"));
        };
        let name = ident.unraw().to_string();
        self.field(&name).ok_or_else(|| {
            value.error(format_args!("`{}` has no field `{name}`{}", self.item.ident, self.suggestion(&name)))
        })
    }

    /// A list of fields that are written to JSON; `option` is where they are named.
    pub(super) fn written(&self, option: &str, value: &Value, mistakes: &mut Mistakes) -> Vec<&Field> {
        let ValueKind::List(items) = &value.kind else {
            mistakes.add(value, "expected a list of fields, such as `[id, name]`");
            return Vec::new();
        };
        let mut fields: Vec<&Field> = Vec::with_capacity(items.len());
        for item in items {
            let Some(field) = mistakes.keep(self.named(item)) else { continue };
            if fields.iter().any(|earlier| earlier.name == field.name) {
                mistakes.add(item, format_args!("`{}` is in the list twice; remove one of them", field.name));
            } else if field.skipped {
                let message = format!(
                    "`{}` is skipped by serde, so it cannot be in `{option}`; remove it here, or its `#[serde(skip)]`",
                    field.name
                );
                mistakes.add(item, message);
            }
            fields.push(field);
        }
        fields
    }
}
