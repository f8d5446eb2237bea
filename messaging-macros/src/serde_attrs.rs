//! What serde's attributes say about how a struct is written: names, what is left out, what is written elsewhere.
//! Knows the serializing side only.

use proc_macro2::{Ident, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{Attribute, LitStr, Meta, Token};

use crate::mistakes::Mistakes;
use crate::structure::is_conditional;

/// `#[serde(…)]` on the struct.
#[derive(Default)]
pub(crate) struct Container {
    rename_all: Option<Case>,
    /// Attributes that a struct with the same wire form needs too: `rename_all`, `rename`, `tag`.
    pub(crate) kept: Vec<Meta>,
    pub(crate) has_rename: bool,
    /// `into`, `from`, `try_from`, `transparent`, `remote`: the wire form is not that of the fields.
    pub(crate) foreign: Vec<Meta>,
}

/// `#[serde(…)]` on a field.
pub(crate) struct Field {
    /// The name on the wire.
    pub(crate) wire: String,
    pub(crate) skipped: bool,
    pub(crate) flattened: bool,
    /// Attributes that matter for writing.
    pub(crate) kept: Vec<Meta>,
}

impl Container {
    pub(crate) fn of(attrs: &[Attribute], mistakes: &mut Mistakes) -> Self {
        let mut container = Self::default();
        for meta in metas(attrs, mistakes) {
            let Some(name) = meta.path().get_ident().map(Ident::to_string) else { continue };
            match &*name {
                "rename_all" => {
                    container.rename_all = serialized(&meta).and_then(|case| Case::of(&case.value()));
                    container.kept.push(meta);
                }
                "rename" => {
                    container.has_rename = serialized(&meta).is_some();
                    container.kept.push(meta);
                }
                "tag" => container.kept.push(meta),
                "into" | "from" | "try_from" | "transparent" | "remote" => container.foreign.push(meta),
                _ => {}
            }
        }
        container
    }

    /// Whether serde does not write the fields under their names.
    pub(crate) fn is_opaque(&self) -> bool {
        self.foreign.iter().any(|meta| ["into", "transparent"].iter().any(|name| meta.path().is_ident(name)))
    }
}

impl Field {
    pub(crate) fn of(
        ident: &Ident,
        attrs: &[Attribute],
        container: &Container,
        mistakes: &mut Mistakes,
    ) -> Self {
        let name = ident.unraw().to_string();
        let mut field = Self {
            wire: container.rename_all.map_or_else(|| name.clone(), |case| case.apply(&name)),
            skipped: false,
            flattened: false,
            kept: Vec::new(),
        };
        for meta in metas(attrs, mistakes) {
            let Some(name) = meta.path().get_ident().map(Ident::to_string) else { continue };
            match &*name {
                "rename" => {
                    if let Some(name) = serialized(&meta) {
                        field.wire = name.value();
                    }
                }
                "skip" | "skip_serializing" => field.skipped = true,
                "flatten" => field.flattened = true,
                "skip_serializing_if" | "serialize_with" | "with" => {}
                _ => continue,
            }
            field.kept.push(meta);
        }
        field
    }
}

/// Everything in all `#[serde(…)]`. What serde itself refuses is left to serde.
fn metas(attrs: &[Attribute], mistakes: &mut Mistakes) -> Vec<Meta> {
    let mut metas = Vec::new();
    for attr in attrs {
        if attr.path().is_ident("serde") {
            let parsed = attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            metas.extend(parsed.into_iter().flatten());
        } else if is_conditional(attr, "serde") {
            let message = "the event's fields depend on serde's attributes, and whether this one holds \
                cannot be seen here; write `#[serde(…)]` without `cfg_attr`";
            mistakes.add(attr, message);
        }
    }
    metas
}

/// The text of `name = "…"` or of `name(serialize = "…")`.
fn serialized(meta: &Meta) -> Option<LitStr> {
    let text = |meta: &Meta| match meta {
        Meta::NameValue(pair) => syn::parse2::<LitStr>(pair.value.to_token_stream()).ok(),
        Meta::Path(_) | Meta::List(_) => None,
    };
    match meta {
        Meta::List(list) => list
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .ok()?
            .iter()
            .find(|meta| meta.path().is_ident("serialize"))
            .and_then(text),
        other => text(other),
    }
}

/// `#[serde(a, b)]`, or nothing.
pub(crate) fn attribute(metas: &[Meta]) -> TokenStream {
    if metas.is_empty() { TokenStream::new() } else { quote::quote!(#[serde(#(#metas),*)]) }
}

/// The rules of `rename_all`, for fields.
#[derive(Clone, Copy)]
enum Case {
    /// Also `lowercase`: fields are lower case already.
    Snake,
    Upper,
    Pascal,
    Camel,
    Kebab,
    ScreamingKebab,
}

impl Case {
    fn of(rule: &str) -> Option<Self> {
        Some(match rule {
            "lowercase" | "snake_case" => Self::Snake,
            "UPPERCASE" | "SCREAMING_SNAKE_CASE" => Self::Upper,
            "PascalCase" => Self::Pascal,
            "camelCase" => Self::Camel,
            "kebab-case" => Self::Kebab,
            "SCREAMING-KEBAB-CASE" => Self::ScreamingKebab,
            _ => return None,
        })
    }

    fn apply(self, field: &str) -> String {
        match self {
            Self::Snake => field.to_owned(),
            Self::Upper => field.to_ascii_uppercase(),
            Self::Kebab => field.replace('_', "-"),
            Self::ScreamingKebab => field.to_ascii_uppercase().replace('_', "-"),
            Self::Pascal => pascal(field),
            Self::Camel => {
                let pascal = pascal(field);
                pascal[..1].to_ascii_lowercase() + &pascal[1..]
            }
        }
    }
}

/// As serde does it: an underscore makes the next character upper case and goes.
fn pascal(field: &str) -> String {
    let mut upper = true;
    let mut pascal = String::with_capacity(field.len());
    for character in field.chars() {
        match character {
            '_' => upper = true,
            character if std::mem::take(&mut upper) => pascal.push(character.to_ascii_uppercase()),
            character => pascal.push(character),
        }
    }
    pascal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_serdes_rules() {
        for (rule, expected) in [
            ("lowercase", "mac_address"),
            ("UPPERCASE", "MAC_ADDRESS"),
            ("PascalCase", "MacAddress"),
            ("camelCase", "macAddress"),
            ("snake_case", "mac_address"),
            ("SCREAMING_SNAKE_CASE", "MAC_ADDRESS"),
            ("kebab-case", "mac-address"),
            ("SCREAMING-KEBAB-CASE", "MAC-ADDRESS"),
        ] {
            assert_eq!(Case::of(rule).unwrap().apply("mac_address"), expected, "{rule}");
        }
    }

    #[test]
    fn the_serializing_name_counts() {
        let item: syn::ItemStruct = syn::parse_quote! {
            #[serde(rename_all = "camelCase")]
            struct S {
                plain_one: u8,
                #[serde(rename = "x")]
                renamed: u8,
                #[serde(rename(serialize = "y", deserialize = "z"), default)]
                split: u8,
                #[serde(rename(deserialize = "z"))]
                reading_only: u8,
                r#type: u8,
                #[serde(skip_serializing)]
                left_out: u8,
            }
        };
        let mut mistakes = Mistakes::default();
        let container = Container::of(&item.attrs, &mut mistakes);
        let wires: Vec<_> = item
            .fields
            .iter()
            .map(|field| Field::of(field.ident.as_ref().unwrap(), &field.attrs, &container, &mut mistakes))
            .map(|field| if field.skipped { "-".to_owned() } else { field.wire })
            .collect();
        assert_eq!(wires, ["plainOne", "x", "y", "readingOnly", "type", "-"]);
    }
}
