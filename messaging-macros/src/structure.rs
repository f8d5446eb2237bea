//! A struct as an attribute sees it.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::{Attribute, ItemStruct, Meta, Token};

use crate::mistakes::Mistakes;

/// Reads the struct that an attribute stands on; `expected` says so where it is something else.
pub(crate) fn read(item: TokenStream, expected: &str, mistakes: &mut Mistakes) -> Option<ItemStruct> {
    match syn::parse2(item.clone()) {
        Ok(item) => Some(item),
        Err(error) if has_word(item.clone(), "struct") => {
            mistakes.note(error);
            None
        }
        Err(_) => {
            let kind = ["enum", "union", "fn", "impl", "trait", "type", "mod"]
                .into_iter()
                .find_map(|kind| word(item.clone(), kind).map(|span| (kind, span)));
            let place = kind.map_or_else(Span::call_site, |(_, span)| span);
            mistakes.add_at(place, expected);
            None
        }
    }
}

/// Refuses parameters of any kind.
pub(crate) fn refuse_generics(item: &ItemStruct, what: &str, mistakes: &mut Mistakes) {
    if !item.generics.params.is_empty() {
        let message = format!("{what} cannot have parameters: it is registered once, as it stands");
        mistakes.add(&item.generics.params, message);
    }
}

/// `#[cfg_attr(condition, name(…))]`.
pub(crate) fn is_conditional(attr: &Attribute, name: &str) -> bool {
    attr.path().is_ident("cfg_attr")
        && attr
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .is_ok_and(|metas| metas.iter().skip(1).any(|meta| meta.path().is_ident(name)))
}

fn has_word(item: TokenStream, wanted: &str) -> bool {
    word(item, wanted).is_some()
}

fn word(item: TokenStream, wanted: &str) -> Option<Span> {
    item.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == wanted => Some(ident.span()),
        _ => None,
    })
}
