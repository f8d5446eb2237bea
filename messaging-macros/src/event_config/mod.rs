//! `#[event_config]`: the implementation of `Model` for a struct, and its descriptor.

mod column;
mod durable;
mod model;
mod options;
mod payload;
mod sql;
mod table;
mod views;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::ItemStruct;
use syn::ext::IdentExt;

use crate::constants::{DurationTokens, option};
use crate::descriptor::{Runtime, location};
use crate::function::cfgs;
use crate::mistakes::Mistakes;
use crate::place::Place;
use model::{Field, Model};
use options::{Config, Envelope, Payload};
use payload::Methods;

pub(crate) fn expand(
    arguments: TokenStream,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> Option<TokenStream> {
    let model = Model::read(item, mistakes);
    let config = Config::read(arguments, model.as_ref(), mistakes);
    let (model, config) = (model.as_ref()?, config?);

    let Config { runtime, .. } = &config;
    let Model { item, .. } = model;
    let name = &item.ident;
    let cfgs = cfgs(&item.attrs);
    let descriptor = descriptor(model, &config);
    let Methods { views, payload, cached } = Methods::new(model, &config);
    let field = field(&config);
    let sql = config.table.as_ref().map(|table| sql::implementation(model, table));
    Some(quote! {
        #item

        #(#cfgs)*
        const _: () = {
            #views

            #[automatically_derived]
            impl #runtime::Model for #name {
                const DESCRIPTOR: &'static #runtime::ModelDescriptor = &#descriptor;

                #payload

                #field

                #cached
            }

            #sql

            #runtime::inventory::submit! {
                #runtime::Descriptor::Model(<#name as #runtime::Model>::DESCRIPTOR)
            }
        };
    })
}

/// The struct, and what others need of it.
pub(crate) fn bare(arguments: &TokenStream, item: TokenStream) -> TokenStream {
    let Ok(mut item) = syn::parse2::<ItemStruct>(item.clone()) else { return item };
    column::strip(&mut item);
    if !item.generics.params.is_empty() {
        return item.into_token_stream();
    }
    let runtime = Runtime::of_refused(arguments);
    let name = &item.ident;
    quote! {
        #item

        #[automatically_derived]
        impl #runtime::Model for #name {
            const DESCRIPTOR: &'static #runtime::ModelDescriptor = ::core::unreachable!();

            fn payload(
                &self,
                _: #runtime::Op,
                _: ::core::option::Option<&Self>,
            ) -> #runtime::Result<#runtime::Bytes> {
                ::core::unreachable!()
            }

            fn field(
                &self,
                _: &str,
            ) -> #runtime::Result<::core::option::Option<::std::string::String>> {
                ::core::unreachable!()
            }

            fn cached(&self) -> #runtime::Result<#runtime::Bytes> {
                ::core::unreachable!()
            }
        }
    }
}

fn local(name: &str) -> proc_macro2::Ident {
    proc_macro2::Ident::new(name, Span::mixed_site())
}

/// `&self.field`, at the field's type, which is where a missing `Serialize` is reported.
fn scalar(field: &Field) -> TokenStream {
    let ident = &field.ident;
    Place::of(&field.ty).put(quote!(&self.#ident))
}

/// `Model::field`.
fn field(config: &Config<'_>) -> TokenStream {
    let Config { runtime, placeholders, .. } = config;
    let wanted = local("field");
    let arms = placeholders.iter().map(|field| {
        let Field { name, cfgs, .. } = field;
        let value = scalar(field);
        quote!(#(#cfgs)* #name => #runtime::scalar(#value),)
    });
    let body = if placeholders.is_empty() {
        quote!(#runtime::unknown_field(#wanted))
    } else {
        quote!(match #wanted { #(#arms)* _ => #runtime::unknown_field(#wanted) })
    };
    quote! {
        fn field(
            &self,
            #wanted: &str,
        ) -> #runtime::Result<::core::option::Option<::std::string::String>> {
            #body
        }
    }
}

fn descriptor(model: &Model, config: &Config<'_>) -> TokenStream {
    let Config { runtime, identity, publish, payload, previous, cache, durable, sharded, table, .. } = config;
    let name = model.item.ident.unraw().to_string();
    let id = identity.or_name(&name);
    let publish = publish.iter().map(|(operation, texts)| quote!((#runtime::Op::#operation, &[#(#texts),*])));
    let entry = |field: &Field, path: String| {
        let Field { name, cfgs, .. } = field;
        quote!(#(#cfgs)* #runtime::PayloadField { field: #name, path: #path })
    };
    let at = |prefix: &str, fields: &[&Field]| -> Vec<TokenStream> {
        let written = fields.iter().filter(|field| !field.skipped && !field.flattened);
        written.map(|field| entry(field, format!("{prefix}{}", field.wire))).collect()
    };
    let (fields, envelope) = match payload {
        // The wire names of another type are not known here.
        Payload::Whole if model.container.is_opaque() => (Vec::new(), None),
        Payload::Whole => (at("", &model.fields.iter().collect::<Vec<_>>()), None),
        Payload::Fields(fields) => (at("", fields), None),
        Payload::Envelope(Envelope { resource, id, tenant, metadata }) => {
            let mut fields = at("metadata.", metadata);
            fields.push(entry(id, "resource_id".to_owned()));
            fields.extend(tenant.map(|tenant| entry(tenant, "tenant_id".to_owned())));
            (fields, Some(resource))
        }
    };
    let previous = previous.as_ref().map(|fields| at("previous.", fields)).unwrap_or_default();
    let envelope = option(envelope);
    let key = option(table.as_ref().map(|table| &table.key.name));
    let cache = option(cache.as_ref().map(|options::Cache { key, ttl, .. }| {
        let ttl = DurationTokens(*ttl);
        quote!(#runtime::ModelCache { key: #key, ttl: #ttl })
    }));
    let carrier = format_ident!("{}", if *sharded { "Sharded" } else { "Broadcast" });
    let durable = option(durable.as_ref().map(|durable| durable.tokens(runtime)));
    let location = location(runtime, Span::call_site());
    quote! {
        #runtime::ModelDescriptor {
            id: #id,
            name: #name,
            publish: &[#(#publish),*],
            payload: &[#(#fields),*],
            previous: &[#(#previous),*],
            key: #key,
            envelope: #envelope,
            cache: #cache,
            durable: #durable,
            carrier: #runtime::Carrier::#carrier,
            schema: || {
                use #runtime::schema::*;
                (&#runtime::schema::SchemaProbe::<Self>::new()).schema()
            },
            location: #location,
        }
    }
}
