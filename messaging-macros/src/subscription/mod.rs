//! `#[subscription]`: the implementation of the gateway's `Subscription` for a struct, and its registration.

mod access;
mod field;
mod filters;
mod options;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::ItemStruct;
use syn::ext::IdentExt;

use crate::constants::option;
use crate::descriptor::{Runtime, location};
use crate::function::cfgs;
use crate::mistakes::Mistakes;
use crate::structure;
use filters::Filter;
use options::Config;

pub(crate) fn expand(
    arguments: TokenStream,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> Option<TokenStream> {
    let item = structure::read(item, "`#[subscription]` stands on a struct", mistakes);
    let config = Config::read(arguments, item.as_ref().map(|item| &item.ident), mistakes);
    let item = item?;
    structure::refuse_generics(&item, "a subscription", mistakes);
    let config = config?;

    let runtime = &config.runtime;
    let root = runtime.root();
    let name = &item.ident;
    let cfgs = cfgs(&item.attrs);
    let implementation = implementation(&config, name);
    Some(quote! {
        #item

        #(#cfgs)*
        const _: () = {
            #implementation

            #runtime::inventory::submit! {
                #root::SubscriptionDescriptor { ..*<#name as #root::Subscription>::DESCRIPTOR }
            }
        };
    })
}

/// The struct, and what others need of it.
pub(crate) fn bare(arguments: &TokenStream, item: TokenStream) -> TokenStream {
    let Ok(item) = syn::parse2::<ItemStruct>(item.clone()) else { return item };
    if !item.generics.params.is_empty() {
        return item.into_token_stream();
    }
    let config = Config::refused(Runtime::given_to_refused(arguments).unwrap_or_else(Runtime::gateway));
    let implementation = implementation(&config, &item.ident);
    let cfgs = cfgs(&item.attrs);
    quote!(#item #(#cfgs)* #implementation)
}

/// `Subscription` for the struct `ident`.
fn implementation(config: &Config, ident: &Ident) -> TokenStream {
    let Config { runtime, identity, entity, channels, filters, tenant, access, send, presence, slow } =
        config;
    let root = runtime.root();
    let name = ident.unraw().to_string();
    let id = identity.or_name(&name);
    let entity = entity.as_ref().map_or_else(|| name.to_token_stream(), ToTokens::to_token_stream);
    let filters = filters.iter().map(|Filter { field, operators }| {
        let operators = operators.iter().map(|operator| {
            let operator = format_ident!("{operator}");
            quote!(#root::Operator::#operator)
        });
        quote!(#root::FilterField { field: #field, operators: &[#(#operators),*] })
    });
    let tenant = option(tenant.as_ref());
    let access = access.tokens(runtime);
    let slow = format_ident!("{slow}");
    let location = location(runtime, Span::call_site());
    quote! {
        #[automatically_derived]
        impl #root::Subscription for #ident {
            const DESCRIPTOR: &'static #root::SubscriptionDescriptor = &#root::SubscriptionDescriptor {
                id: #id,
                entity: #entity,
                channels: &[#(#channels),*],
                filters: &[#(#filters),*],
                tenant: #tenant,
                access: #access,
                send: #send,
                presence: #presence,
                slow: #root::SlowPolicy::#slow,
                location: #location,
            };
        }
    }
}
