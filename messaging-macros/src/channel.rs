//! `#[channel]`: a struct that stands for the channels of one template.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{Field, Fields, ItemStruct, LitStr};

use crate::descriptor::{Identity, Runtime, location};
use crate::function::cfgs;
use crate::mistakes::Mistakes;
use crate::names::{closest, listed};
use crate::options::Options;
use crate::place::Place;
use crate::structure;
use crate::template::Pattern;
use crate::value::{Value, split};

pub(crate) fn expand(
    arguments: TokenStream,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> Option<TokenStream> {
    let mut segments = split(arguments, mistakes);
    let template = read_template(&mut segments, mistakes);
    let options = Options::of_attribute(segments, &["id", "crate"], mistakes);
    let identity = Identity::of(&options, mistakes);
    let runtime = Runtime::of(&options, mistakes);
    let item = structure::read(item, "`#[channel]` stands on a struct with named fields", mistakes)?;
    structure::refuse_generics(&item, "a channel type", mistakes);
    let (template, pattern) = template?;
    let fields = fields(&item, &template, &pattern, mistakes)?;

    let name = &item.ident;
    let id = identity.or_name(&name.unraw().to_string());
    let location = location(&runtime, Span::call_site());
    let cfgs = cfgs(&item.attrs);
    let values = fields.iter().map(|(field, placeholder)| {
        let ident = &field.ident;
        let value = Place::of(&field.ty).put(quote!(&self.#ident));
        quote!((#placeholder, ::std::string::ToString::to_string(#value)))
    });
    let segments = quote::format_ident!("segments", span = Span::mixed_site());
    let read = fields.iter().enumerate().map(|(position, (field, placeholder))| {
        let Field { ident, ty, .. } = field;
        quote!(#ident: #runtime::parse_segment::<#ty>(#template, #placeholder, #segments[#position])?)
    });
    let from_channel = if fields.is_empty() {
        quote! {
            #runtime::read_channel(#template, channel)?;
            ::core::result::Result::Ok(Self {})
        }
    } else {
        quote! {
            let #segments = #runtime::read_channel(#template, channel)?;
            ::core::result::Result::Ok(Self { #(#read),* })
        }
    };
    Some(quote! {
        #item

        #(#cfgs)*
        const _: () = {
            #[automatically_derived]
            impl #runtime::ToChannel for #name {
                fn to_channel(&self) -> #runtime::Result<#runtime::Channel> {
                    #runtime::fill_channel(#template, &[#(#values),*])
                }

                fn template(&self) -> ::core::option::Option<&'static str> {
                    ::core::option::Option::Some(#template)
                }
            }

            #[automatically_derived]
            impl #runtime::TypedChannel for #name {
                const TEMPLATE: &'static str = #template;

                fn from_channel(channel: &str) -> #runtime::Result<Self> {
                    #from_channel
                }
            }

            #[automatically_derived]
            impl #runtime::ToPattern for #name {
                fn to_pattern(&self) -> #runtime::Result<#runtime::Pattern> {
                    #runtime::ToChannel::to_channel(self).map(#runtime::Pattern::Exact)
                }
            }

            #runtime::inventory::submit! {
                #runtime::Descriptor::Channel(&#runtime::ChannelDescriptor {
                    id: #id,
                    template: #template,
                    location: #location,
                })
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
        impl #runtime::ToChannel for #name {
            fn to_channel(&self) -> #runtime::Result<#runtime::Channel> {
                ::core::unreachable!()
            }
        }

        #[automatically_derived]
        impl #runtime::TypedChannel for #name {
            const TEMPLATE: &'static str = "";

            fn from_channel(_: &str) -> #runtime::Result<Self> {
                ::core::unreachable!()
            }
        }

        #[automatically_derived]
        impl #runtime::ToPattern for #name {
            fn to_pattern(&self) -> #runtime::Result<#runtime::Pattern> {
                ::core::unreachable!()
            }
        }
    }
}

/// Takes the template off the front.
fn read_template(segments: &mut Vec<TokenStream>, mistakes: &mut Mistakes) -> Option<(LitStr, Pattern)> {
    const EXAMPLE: &str = "`#[channel(\"auditlog:{user_id}\")]`";
    if segments.is_empty() {
        let message = format!("a channel type needs its template, as in {EXAMPLE}");
        mistakes.add_at(Span::call_site(), message);
        return None;
    }
    let value = Value::read(segments.remove(0), mistakes)?;
    let template = value
        .text()
        .map_err(|_| value.error(format_args!("expected the template in quotes, as in {EXAMPLE}")))
        .and_then(|text| Pattern::of_publisher(&text).map(|pattern| (text, pattern)));
    mistakes.keep(template)
}

/// The fields in the order of their placeholders.
fn fields<'i>(
    item: &'i ItemStruct,
    template: &LitStr,
    pattern: &Pattern,
    mistakes: &mut Mistakes,
) -> Option<Vec<(&'i Field, String)>> {
    let fields: Vec<(&Field, String)> = match &item.fields {
        Fields::Named(fields) => fields
            .named
            .iter()
            .map(|field| (field, field.ident.as_ref().expect("named").unraw().to_string()))
            .collect(),
        Fields::Unit => Vec::new(),
        Fields::Unnamed(fields) => {
            mistakes.add(fields, "a channel type has named fields, one for each placeholder");
            return None;
        }
    };
    let names = || fields.iter().map(|(_, name)| name.as_str());
    for (field, name) in &fields {
        if !pattern.names.contains(name) {
            let unfilled =
                pattern.names.iter().map(String::as_str).filter(|name| !names().any(|field| field == *name));
            let advice = match closest(name, unfilled) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "a channel type holds what its channel says, and nothing else".to_owned(),
            };
            let message = format!("{:?} has no placeholder `{{{name}}}`; {advice}", template.value());
            mistakes.add(&field.ident, message);
        }
    }
    let mut sorted = Vec::new();
    for placeholder in &pattern.names {
        match fields.iter().find(|(_, name)| name == placeholder) {
            Some(field) => sorted.push(field.clone()),
            None => {
                let all = match listed(names()) {
                    none if none.is_empty() => "the struct has no fields".to_owned(),
                    all => format!("the fields are {all}"),
                };
                mistakes
                    .add(template, format_args!("`{{{placeholder}}}` needs a field `{placeholder}`; {all}"));
            }
        }
    }
    Some(sorted)
}
