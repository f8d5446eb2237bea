//! A free function: its companions live in a type of the same name, which only the type namespace sees.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Signature;

use super::parts::{KeyParameter, Mode, Parts, local, scalar};
use crate::function::Function;

pub(super) fn expand(parts: &Parts<'_>) -> TokenStream {
    let Function { vis, sig, body, .. } = parts.function;
    let runtime = &parts.config.runtime;
    let companion = &sig.ident;
    let cfgs = parts.function.cfgs();
    let (attrs, load_attrs) = parts.attributes();

    let plain = parts.plain_signature();
    let load = parts.load(Mode::Cached, &quote!(#companion::__load));
    let cached = parts.through_cache(Mode::Cached, &quote!(#companion::__function()), &load);

    let family = parts.family();
    let load_sig = parts.load_signature(format_ident!("__load"));
    let refresh_sig = Signature { ident: format_ident!("refresh"), ..plain.clone() };
    let load = parts.load(Mode::Refresh, &quote!(Self::__load));
    let refresh = parts.through_cache(Mode::Refresh, &quote!(Self::__function()), &load);

    let parameters = parts.key_parameters();
    let taken = parameters.iter().map(|KeyParameter { name, argument, .. }| quote!(#name: #argument));
    let taken = quote!(#(#taken),*);
    let values =
        parameters.iter().map(|KeyParameter { name, place, .. }| scalar(runtime, &quote!(#name), *place));
    let values = quote!(&[#(#values),*]);
    let (function, key) = (local("function"), local("key"));
    let filled = quote! {
        let #function = Self::__function();
        let #key = #runtime::key(#function, #values);
    };
    let doc = format!(
        " The cache of [`{companion}`](fn@{companion}): what it holds can be refreshed and invalidated."
    );
    quote! {
        #(#attrs)*
        #vis #plain {
            #cached
        }

        #(#cfgs)*
        #[doc = #doc]
        #[derive(::core::fmt::Debug)]
        #[allow(non_camel_case_types, dead_code)]
        #vis enum #companion {}

        #(#cfgs)*
        #[allow(dead_code)]
        impl #companion {
            fn __function() -> &'static #runtime::Function #family

            #(#load_attrs)*
            #load_sig #body

            /// Calls the function and stores what it returns, whatever the cache holds.
            #vis #refresh_sig {
                #refresh
            }

            /// Removes the value for these arguments, also one that is being loaded.
            #vis async fn invalidate(#taken) -> #runtime::Result<()> {
                #filled
                #runtime::invalidate(#function, #key).await
            }

            /// Removes the values for all arguments, in all processes; returns how many there were.
            #vis async fn invalidate_all() -> #runtime::Result<::core::primitive::u64> {
                #runtime::invalidate_all(Self::__function()).await
            }

            /// The key of the value for these arguments.
            #vis fn key(#taken) -> #runtime::Result<::std::string::String> {
                #filled
                #runtime::key_text(#function, #key)
            }
        }
    }
}
