//! Parts of a model as JSON: private structs that serde writes field by field, without a clone.
//!
//! They use serde's *remote* derive, so that `serialize_with` and `skip_serializing_if` see the model's own fields with
//! their own types.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;

use super::model::{Field, Model};
use crate::descriptor::Runtime;
use crate::place::Place;
use crate::serde_attrs;

/// A newtype over `&Model` that writes some of its fields.
pub(super) struct View {
    pub(super) name: Ident,
    pub(super) definition: TokenStream,
}

impl View {
    /// `like_model` carries the container's `tag` and `rename` over.
    pub(super) fn new(
        name: &str,
        fields: &[&Field],
        model: &Model,
        runtime: &Runtime,
        like_model: LikeModel,
    ) -> Self {
        let model_name = &model.item.ident;
        let container = &model.container;
        let shape = format_ident!("__{name}Fields");
        let name = format_ident!("__{name}");
        let serialize = format!("{shape}::serialize");
        let remote = model_name.to_string();
        let serde = runtime.serde();
        let kept = container
            .kept
            .iter()
            .filter(|meta| like_model == LikeModel::Yes || meta.path().is_ident("rename_all"));
        let is_tagged = container.kept.iter().any(|meta| meta.path().is_ident("tag"));
        let rename = (like_model == LikeModel::Yes && is_tagged && !container.has_rename).then(|| {
            let own_name = model_name.unraw().to_string();
            quote!(, rename = #own_name)
        });
        let fields = fields.iter().map(|Field { ident, ty, cfgs, serde, .. }| {
            let serde = serde_attrs::attribute(serde);
            quote!(#(#cfgs)* #serde #ident: #ty)
        });
        // A field that cannot be written is reported at the model's name, and at the field.
        let derive = Place::of(model_name).put(quote!(#runtime::serde::Serialize));
        let definition = quote! {
            #[derive(#derive)]
            #[serde(crate = #serde, remote = #remote #(, #kept)* #rename)]
            #[allow(dead_code)]
            struct #shape {
                #(#fields),*
            }

            #[derive(#runtime::serde::Serialize)]
            #[serde(crate = #serde)]
            struct #name<'a>(#[serde(serialize_with = #serialize)] &'a #model_name);
        };
        Self { name, definition }
    }
}

/// Whether a view stands for the model itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LikeModel {
    Yes,
    No,
}

/// `__Update { model, previous }`: the payload with `"previous": {…}` at its end.
pub(super) fn update(payload: &dyn ToTokens, previous: &View, runtime: &Runtime) -> TokenStream {
    let serde = runtime.serde();
    let previous = &previous.name;
    quote! {
        #[derive(#runtime::serde::Serialize)]
        #[serde(crate = #serde)]
        struct __Update<'a> {
            #[serde(flatten)]
            model: #payload,
            #[serde(skip_serializing_if = "::core::option::Option::is_none")]
            previous: ::core::option::Option<#previous<'a>>,
        }
    }
}
