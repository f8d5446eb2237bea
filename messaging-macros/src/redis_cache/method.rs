//! A method: its companions are associated functions beside it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Signature;
use syn::ext::IdentExt;

use super::parts::{Mode, Parts};
use crate::function::Function;

pub(super) fn expand(parts: &Parts<'_>) -> TokenStream {
    let Function { vis, sig, body, .. } = parts.function;
    let runtime = &parts.config.runtime;
    let cfgs = parts.function.cfgs();
    let (attrs, load_attrs) = parts.attributes();
    let name = sig.ident.unraw();

    let function_name = format_ident!("__{name}_function");
    let load_name = format_ident!("__{name}_load");
    let family = quote!(Self::#function_name());
    let load = |mode| parts.load(mode, &quote!(Self::#load_name));
    let plain = parts.plain_signature();
    let cached = parts.through_cache(Mode::Cached, &family, &load(Mode::Cached));
    let refresh = parts.through_cache(Mode::Refresh, &family, &load(Mode::Refresh));
    let load_sig = parts.load_signature(load_name);
    let refresh_sig = Signature { ident: format_ident!("{name}_refresh"), ..plain.clone() };

    let cache_name = format_ident!("{name}_cache");
    let keys = parts.key_parameters();
    let keys = keys.iter().map(|key| &key.tuple);
    let definition = parts.family();
    let cache_doc = format!(" The cache of `{name}`: what it holds can be invalidated.");
    let refresh_doc = format!(" Calls `{name}` and stores what it returns, whatever the cache holds.");
    quote! {
        #(#attrs)*
        #vis #plain {
            #cached
        }

        #(#cfgs)*
        #[doc(hidden)]
        fn #function_name() -> &'static #runtime::Function #definition

        #(#cfgs)*
        #(#load_attrs)*
        #[doc(hidden)]
        #load_sig #body

        #(#cfgs)*
        #[doc = #refresh_doc]
        #[allow(dead_code)]
        #vis #refresh_sig {
            #refresh
        }

        #(#cfgs)*
        #[doc = #cache_doc]
        #[allow(dead_code)]
        #vis fn #cache_name<'k>() -> #runtime::CachedFunction<(#(#keys,)*)> {
            #runtime::CachedFunction::new(#family)
        }
    }
}
