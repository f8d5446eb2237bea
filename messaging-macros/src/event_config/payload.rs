//! `Model::payload` and `Model::cached`: what leaves the process.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use super::model::{Field, Model};
use super::options::{Config, Envelope, Payload};
use super::views::{LikeModel, View, update};
use super::{local, scalar};
use crate::constants::option;
use crate::place::Place;

/// The two methods, and the private structs that they write.
pub(super) struct Methods {
    pub(super) views: TokenStream,
    pub(super) payload: TokenStream,
    pub(super) cached: TokenStream,
}

/// A value that serde can write, and its type.
struct Written {
    value: TokenStream,
    /// A reference to it.
    reference: TokenStream,
    ty: TokenStream,
}

impl Methods {
    pub(super) fn new(model: &Model, config: &Config<'_>) -> Self {
        let Config { runtime, payload, previous, cache, .. } = config;
        let mut views = TokenStream::new();
        let mut view = |name: &str, fields: &[&Field], like_model| {
            let view = View::new(name, fields, model, runtime, like_model);
            views.extend(view.definition.to_token_stream());
            view
        };
        let previous = previous.as_ref().map(|fields| view("Previous", fields, LikeModel::No));
        let name = &model.item.ident;
        let whole = Written {
            value: quote!(self),
            // A model that cannot be written is reported at its name.
            reference: Place::of(name).put(quote!(self)),
            ty: quote!(&'a #name),
        };
        let (payload, entry) = match payload {
            Payload::Whole => (whole.payload(previous.as_ref(), config), whole),
            Payload::Fields(fields) => {
                let written = Written::view(&view("Payload", fields, LikeModel::Yes));
                (written.payload(previous.as_ref(), config), written)
            }
            Payload::Envelope(envelope) => {
                let metadata = view("Metadata", &envelope.metadata, LikeModel::No);
                (enveloped(envelope, &metadata, previous.as_ref(), config), whole)
            }
        };
        let cached = match cache {
            // Never called, and the payload asks nothing of the model that is not asked already.
            None => {
                quote!(#runtime::Model::payload(self, #runtime::Op::Create, ::core::option::Option::None))
            }
            Some(cache) => {
                let fields = cache.fields.as_ref();
                let fields = fields.map(|fields| Written::view(&view("Entry", fields, LikeModel::Yes)));
                let Written { reference, .. } = fields.unwrap_or(entry);
                quote!(#runtime::encode(#reference))
            }
        };
        let cached = quote! {
            fn cached(&self) -> #runtime::Result<#runtime::Bytes> {
                #cached
            }
        };
        Self { views, payload, cached }
    }
}

impl Written {
    fn view(View { name, .. }: &View) -> Self {
        Self { value: quote!(#name(self)), reference: quote!(&#name(self)), ty: quote!(#name<'a>) }
    }

    /// `Model::payload` that writes this, with the old values behind it.
    fn payload(&self, previous: Option<&View>, config: &Config<'_>) -> TokenStream {
        let Config { runtime, .. } = config;
        let Self { value, reference, ty } = self;
        let Some(previous) = previous else {
            return method(config, &quote!(_), &quote!(_), &quote!(#runtime::encode(#reference)));
        };
        let definition = update(ty, previous, runtime);
        let (name, old) = (&previous.name, local("previous"));
        let body = quote! {
            #definition

            #runtime::encode(&__Update { model: #value, previous: #old.map(#name) })
        };
        method(config, &quote!(_), &quote!(#old), &body)
    }
}

fn enveloped(
    envelope: &Envelope<'_>,
    metadata: &View,
    previous: Option<&View>,
    config: &Config<'_>,
) -> TokenStream {
    let Config { runtime, .. } = config;
    let Envelope { resource, id, tenant, .. } = envelope;
    let (op, old) = (local("op"), local("previous"));
    let id = scalar(id);
    let tenant = option(tenant.map(scalar));
    let metadata = &metadata.name;
    let (argument, previous) = match previous {
        Some(View { name, .. }) => (quote!(#old), quote!(#old.map(#name).as_ref())),
        None => (quote!(_), quote!(::core::option::Option::None::<&()>)),
    };
    let body = quote!(#runtime::envelope(#op, #resource, #id, #tenant, &#metadata(self), #previous));
    method(config, &quote!(#op), &argument, &body)
}

fn method(config: &Config<'_>, op: &TokenStream, previous: &TokenStream, body: &TokenStream) -> TokenStream {
    let Config { runtime, .. } = config;
    quote! {
        fn payload(
            &self,
            #op: #runtime::Op,
            #previous: ::core::option::Option<&Self>,
        ) -> #runtime::Result<#runtime::Bytes> {
            #body
        }
    }
}
