//! `ordered_by`: what messages are kept in order by.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Error, Ident, Result};

use super::delivery::Mode;
use super::options::Channels;
use crate::descriptor::Runtime;
use crate::names::alternatives;
use crate::value::{Value, ValueKind};

pub(super) enum OrderedBy {
    Channel,
    Placeholder(String),
    /// The key that the publisher gives; only what is durable has one.
    Key,
}

impl OrderedBy {
    /// `channels` and `mode` are missing if they are wrong themselves; then it cannot be told.
    pub(super) fn read(
        value: &Value,
        channels: Option<&Channels>,
        mode: Option<Mode>,
    ) -> Result<Option<Self>> {
        let Some(ident) = value.ident() else { return Err(no_name(value)) };
        let name = ident.unraw().to_string();
        let (Some(channels), Some(mode)) = (channels, mode) else { return Ok(None) };
        let placeholders = channels.placeholders();
        let word = match &*name {
            "channel" => Some((Self::Channel, "the concrete channel")),
            "key" if mode != Mode::Broadcast => Some((Self::Key, "the publisher's key")),
            _ => None,
        };
        match (placeholders.contains(&name), word) {
            (true, None) => Ok(Some(Self::Placeholder(name))),
            (true, Some((_, meaning))) => Err(value.error(format_args!(
                "`{name}` could be the placeholder `{{{name}}}` or {meaning}; give the placeholder another name"
            ))),
            (false, Some((ordered_by, _))) => Ok(Some(ordered_by)),
            (false, None) => Err(value.error(wrong(&name, channels, mode))),
        }
    }

    pub(super) fn tokens(&self, runtime: &Runtime) -> TokenStream {
        match self {
            Self::Channel => quote!(#runtime::OrderedBy::Channel),
            Self::Placeholder(name) => quote!(#runtime::OrderedBy::Placeholder(#name)),
            Self::Key => quote!(#runtime::OrderedBy::Key),
        }
    }
}

fn no_name(value: &Value) -> Error {
    if let ValueKind::Literal(syn::Lit::Str(text)) = &value.kind
        && let Ok(name) = text.parse_with(Ident::parse_any)
    {
        return value.error(format_args!("write the name without quotes: `{name}`"));
    }
    value.error("expected the name of a placeholder, `channel`, or the `key` of a durable channel")
}

/// What to say of a name that means nothing here.
fn wrong(name: &str, channels: &Channels, mode: Mode) -> String {
    let key = (mode != Mode::Broadcast).then_some("key");
    let words = ["channel"].into_iter().chain(key);
    let all = |names: &[String]| {
        alternatives(names.iter().map(String::as_str).chain(words).map(|name| format!("`{name}`")))
    };
    if name == "key" {
        let all = all(channels.placeholders());
        return format!(
            "a broadcast has no key; write `delivery = \"queue\"` or `\"resumable\"`, or order by {all}"
        );
    }
    match channels {
        Channels::Typed(_) => format!(
            "with a `#[channel]` type, write `ordered_by = channel`: each channel then keeps its order{}",
            if key.is_some() { "; or `ordered_by = key`: each key does" } else { "" }
        ),
        Channels::Texts { placeholders, .. } if placeholders.is_empty() => {
            format!("there is no placeholder `{{{name}}}`; the channel has none, so write {}", all(&[]))
        }
        Channels::Texts { placeholders, .. } => {
            format!("there is no placeholder `{{{name}}}`; write {}", all(placeholders))
        }
    }
}
