//! `#[event_config]`: the implementation of `Model` for a struct, and its descriptor.

mod model;
mod options;
mod views;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ItemStruct;
use syn::ext::IdentExt;

use crate::descriptor::{Runtime, location};
use crate::function::cfgs;
use crate::literal::DurationTokens;
use crate::mistakes::Mistakes;
use crate::place::Place;
use model::{Field, Model};
use options::{Config, Envelope, Payload};
use views::{LikeModel, View};

pub(crate) fn expand(
    arguments: TokenStream,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> Option<TokenStream> {
    let model = Model::read(item, mistakes);
    let config = Config::read(arguments, model.as_ref(), mistakes);
    let (model, config) = (model?, config?);

    let Config { runtime, .. } = &config;
    let Model { item, .. } = &model;
    let name = &item.ident;
    let cfgs = cfgs(&item.attrs);
    let descriptor = descriptor(&model, &config);
    let (views, payload, cached) = writing(&model, &config);
    let (op, previous) = (local("op"), local("previous"));
    let field = field(&config);
    Some(quote! {
        #item

        #(#cfgs)*
        const _: () = {
            #views

            #[automatically_derived]
            impl #runtime::Model for #name {
                const DESCRIPTOR: &'static #runtime::ModelDescriptor = &#descriptor;

                fn payload(
                    &self,
                    #op: #runtime::Op,
                    #previous: ::core::option::Option<&Self>,
                ) -> #runtime::Result<#runtime::Bytes> {
                    #payload
                }

                #field

                fn cached(&self) -> #runtime::Result<#runtime::Bytes> {
                    #cached
                }
            }

            #runtime::inventory::submit! {
                #runtime::Descriptor::Model(<#name as #runtime::Model>::DESCRIPTOR)
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

/// The private structs, and the bodies of `payload` and `cached`.
fn writing(model: &Model, config: &Config) -> (TokenStream, TokenStream, TokenStream) {
    let Config { runtime, payload, previous, cache, .. } = config;
    let view = |name: &str, fields: &[Field], like_model| View::new(name, fields, model, runtime, like_model);
    let (op, old) = (local("op"), local("previous"));
    let mut views = TokenStream::new();

    let previous = previous.as_ref().map(|fields| view("Previous", fields, LikeModel::No));
    views.extend(previous.as_ref().map(|view| view.definition.to_token_stream()));
    let whole_model = Place::of(&model.item.ident).put(quote!(self));
    let (encoded, whole) = match payload {
        Payload::Envelope(envelope) => {
            let metadata = view("Metadata", &envelope.metadata, LikeModel::No);
            views.extend(metadata.definition.to_token_stream());
            (enveloped(envelope, &metadata, previous.as_ref(), config), whole_model)
        }
        Payload::Whole | Payload::Fields(_) => {
            let (flattened, owned, value) = match payload {
                Payload::Fields(fields) => {
                    let payload = view("Payload", fields, LikeModel::Yes);
                    views.extend(payload.definition.to_token_stream());
                    let name = payload.name;
                    (quote!(#name<'a>), quote!(#name(self)), quote!(&#name(self)))
                }
                _ => {
                    let name = &model.item.ident;
                    (quote!(&'a #name), quote!(self), whole_model)
                }
            };
            match &previous {
                None => (quote!(let _ = (#op, #old); #runtime::encode(#value)), value),
                Some(previous) => {
                    views.extend(views::update(&flattened, previous, runtime));
                    let previous = &previous.name;
                    let encoded = quote! {
                        let _ = #op;
                        #runtime::encode(&__Update { model: #owned, previous: #old.map(#previous) })
                    };
                    (encoded, value)
                }
            }
        }
    };
    // `cached` is not called without the option; the payload then saves a bound on the model.
    let cached = match cache {
        None => quote!(#runtime::Model::payload(self, #runtime::Op::Create, ::core::option::Option::None)),
        Some(cache) => match &cache.fields {
            None => quote!(#runtime::encode(#whole)),
            Some(fields) => {
                let entry = view("Entry", fields, LikeModel::Yes);
                views.extend(entry.definition.to_token_stream());
                let name = entry.name;
                quote!(#runtime::encode(&#name(self)))
            }
        },
    };
    (views, encoded, cached)
}

fn enveloped(envelope: &Envelope, metadata: &View, previous: Option<&View>, config: &Config) -> TokenStream {
    let Config { runtime, .. } = config;
    let Envelope { resource, id, tenant, .. } = envelope;
    let (op, old) = (local("op"), local("previous"));
    let id = scalar(id);
    let tenant = match tenant.as_ref().map(scalar) {
        Some(tenant) => quote!(::core::option::Option::Some(#tenant)),
        None => quote!(::core::option::Option::None),
    };
    let metadata = &metadata.name;
    let (unused, previous) = match previous {
        Some(View { name, .. }) => (None, quote!(#old.map(#name).as_ref())),
        None => (Some(quote!(let _ = #old;)), quote!(::core::option::Option::None::<&()>)),
    };
    quote! {
        #unused
        #runtime::envelope(#op, #resource, #id, #tenant, &#metadata(self), #previous)
    }
}

/// `&self.field`, at the field's type, which is where a missing `Serialize` is reported.
fn scalar(field: &Field) -> TokenStream {
    let ident = &field.ident;
    Place::of(&field.ty).put(quote!(&self.#ident))
}

/// `Model::field`.
fn field(config: &Config) -> TokenStream {
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

fn descriptor(model: &Model, config: &Config) -> TokenStream {
    let Config { runtime, identity, publish, payload, previous, cache, .. } = config;
    let name = model.item.ident.unraw().to_string();
    let id = identity.or_name(&name);
    let publish = publish.iter().map(|(operation, texts)| quote!((#runtime::Op::#operation, &[#(#texts),*])));
    let entry = |field: &Field, path: String| {
        let Field { name, cfgs, .. } = field;
        quote!(#(#cfgs)* #runtime::PayloadField { field: #name, path: #path })
    };
    let at = |prefix: &str, fields: &[Field]| -> Vec<TokenStream> {
        let written = fields.iter().filter(|field| !field.skipped && !field.flattened);
        written.map(|field| entry(field, format!("{prefix}{}", field.wire))).collect()
    };
    let (fields, envelope) = match payload {
        // The wire names of another type are not known here.
        Payload::Whole if model.container.is_opaque() => (Vec::new(), None),
        Payload::Whole => (at("", &model.fields), None),
        Payload::Fields(fields) => (at("", fields), None),
        Payload::Envelope(Envelope { resource, id, tenant, metadata }) => {
            let mut fields = at("metadata.", metadata);
            fields.push(entry(id, "resource_id".to_owned()));
            fields.extend(tenant.as_ref().map(|tenant| entry(tenant, "tenant_id".to_owned())));
            (fields, Some(resource))
        }
    };
    let previous = previous.as_ref().map(|fields| at("previous.", fields)).unwrap_or_default();
    let envelope = option(envelope.map(|resource| quote!(#resource)));
    let cache = option(cache.as_ref().map(|options::Cache { key, ttl, .. }| {
        let ttl = DurationTokens(*ttl);
        quote!(#runtime::ModelCache { key: #key, ttl: #ttl })
    }));
    let location = location(runtime, Span::call_site());
    quote! {
        #runtime::ModelDescriptor {
            id: #id,
            name: #name,
            publish: &[#(#publish),*],
            payload: &[#(#fields),*],
            previous: &[#(#previous),*],
            envelope: #envelope,
            cache: #cache,
            schema: || {
                use #runtime::schema::*;
                (&#runtime::schema::SchemaProbe::<Self>::new()).schema()
            },
            location: #location,
        }
    }
}

fn option(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}
