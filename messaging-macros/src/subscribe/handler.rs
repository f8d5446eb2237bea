//! The generated `Handler` of one function or method: how its arguments are taken, and its descriptor.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Path, Type};

use super::options::{Channels, Resync, Subscription};
use crate::assertion::assertion;
use crate::constants::{DurationTokens, option};
use crate::descriptor::{Runtime, location};
use crate::function::Argument;
use crate::mistakes::Mistakes;
use crate::names::{closest, listed};
use crate::place::Place;
use crate::types::{Elided, with_lifetimes};

/// One argument of the user's function.
pub(crate) enum Parameter {
    /// The text at a placeholder.
    Text { placeholder: String },
    /// A placeholder's text, parsed.
    Segment { placeholder: String, ty: Type },
    /// The payload, or something else taken from the delivery.
    Taken { ty: Type },
}

/// Sorts the arguments and checks that each placeholder has one.
pub(crate) fn parameters(
    arguments: &[Argument],
    subscription: &Subscription,
    mistakes: &mut Mistakes,
) -> Vec<Parameter> {
    let placeholders = subscription.placeholders();
    if let Channels::Texts { texts, .. } = &subscription.channels {
        let names = || arguments.iter().filter_map(|argument| argument.name.as_deref());
        for placeholder in placeholders.iter().filter(|placeholder| !placeholder.starts_with('_')) {
            if names().any(|name| name == placeholder) {
                continue;
            }
            let free = names().filter(|name| !placeholders.iter().any(|placeholder| placeholder == name));
            let advice = match closest(placeholder, free) {
                Some(meant) => format!("did you mean the argument `{meant}` by it?"),
                None => format!(
                    "add `{placeholder}: …`, or write `{{_{placeholder}}}` if it does not need the value"
                ),
            };
            let all = match listed(names()) {
                none if none.is_empty() => String::new(),
                all => format!(" among {all}"),
            };
            let message = format!("the handler has no argument for `{{{placeholder}}}`{all}; {advice}");
            mistakes.add(&texts[0], message);
        }
    }
    arguments.iter().filter_map(|argument| parameter(argument, subscription, mistakes)).collect()
}

fn parameter(argument: &Argument, subscription: &Subscription, mistakes: &mut Mistakes) -> Option<Parameter> {
    let ty = with_lifetimes(&argument.ty, "'_", Elided::Kept);
    let placeholder =
        argument.name.as_ref().filter(|name| subscription.placeholders().contains(name)).cloned();
    let Type::Reference(reference) = ungrouped(&ty) else {
        return Some(match placeholder {
            Some(placeholder) => Parameter::Segment { placeholder, ty },
            None => Parameter::Taken { ty },
        });
    };
    let is_str = reference.mutability.is_none()
        && matches!(ungrouped(&reference.elem), Type::Path(path) if path.qself.is_none() && path.path.is_ident("str"));
    let shown = argument.name.as_deref().unwrap_or("_");
    match placeholder {
        Some(placeholder) if is_str => return Some(Parameter::Text { placeholder }),
        Some(_) => mistakes.add(
            &argument.ty,
            "a placeholder is taken as `&str`, or as any type that implements `FromStr`, without `&`",
        ),
        None if is_str && matches!(subscription.channels, Channels::Typed(_)) => mistakes.add(
            &argument.ty,
            "what the channel says is taken as `ChannelOf<…>` of the `#[channel]` type, all of it at once",
        ),
        None if is_str => mistakes.add(
            &argument.ty,
            format_args!(
                "`{shown}` is no placeholder of the channel, so it would be the payload, and a `&str` \
                    cannot hold JSON's escapes; take `String`, or `Cow<'_, str>` in a struct with \
                    `#[serde(borrow)]`, or put `{{{shown}}}` into the channel"
            ),
        ),
        None => {
            let elem = &reference.elem;
            let elem = quote!(#elem).to_string().replace(' ', "");
            mistakes.add(&argument.ty, format_args!("a handler owns its arguments; write `{shown}: {elem}`"));
        }
    }
    None
}

fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungrouped(&group.elem),
        Type::Paren(paren) => ungrouped(&paren.elem),
        other => other,
    }
}

/// What calls the user's function.
pub(crate) struct Call<'c> {
    pub(crate) runtime: &'c Runtime,
    pub(crate) parameters: &'c [Parameter],
    pub(crate) name: &'c Ident,
    pub(crate) returned: Type,
    /// The type of `&self`.
    pub(crate) service: Option<&'c Type>,
}

impl Call<'_> {
    /// `Handler::call`.
    pub(crate) fn method(&self) -> TokenStream {
        let Self { runtime, name, .. } = self;
        let delivery = Ident::new("delivery", Span::mixed_site());
        let body = self.body(&delivery);
        // A future that is not `Send` is reported at the function's name.
        let place = Place::of(name);
        let future = place.put(quote! {
            impl ::core::future::Future<Output = ::core::result::Result<(), #runtime::Rejection>>
            + ::core::marker::Send
            + 'd
        });
        let block = place.put(quote!(async move { #body }));
        quote! {
            fn call<'d>(&'d self, #delivery: &'d #runtime::Delivery) -> #future {
                #block
            }
        }
    }

    fn body(&self, delivery: &Ident) -> TokenStream {
        let Self { runtime, parameters, name, returned, service } = self;
        let values = parameters.iter().map(|parameter| match parameter {
            Parameter::Text { placeholder } => quote!(#runtime::segment_str(#delivery, #placeholder)?),
            Parameter::Segment { placeholder, ty } => {
                quote!(#runtime::segment::<#ty>(#delivery, #placeholder)?)
            }
            Parameter::Taken { ty } => {
                quote!(<#ty as #runtime::FromDelivery<'_>>::from_delivery(#delivery)?)
            }
        });
        match service {
            None => quote!(#runtime::outcome::<#returned>(#name(#(#values),*).await)),
            Some(service) => {
                let instance = Ident::new("service", Span::mixed_site());
                quote! {
                    let #instance = #runtime::service::<#service>(#delivery)?;
                    #runtime::outcome::<#returned>(<#service>::#name(&#instance, #(#values),*).await)
                }
            }
        }
    }

    /// `|needs| …`: what state the arguments need.
    pub(crate) fn needs(&self) -> TokenStream {
        let Self { runtime, parameters, service, .. } = self;
        let needs = Ident::new("needs", Span::mixed_site());
        let taken = taken(parameters);
        let mut calls = Vec::new();
        calls.extend(service.map(|service| quote!(#runtime::needs_service::<#service>(#needs);)));
        calls.extend(taken.map(|ty| quote!(<#ty as #runtime::FromDelivery<'_>>::needs(#needs);)));
        if calls.is_empty() { quote!(|_| {}) } else { quote!(|#needs| { #(#calls)* }) }
    }

    /// Refuses a second payload, at its type. Needs types without parameters.
    pub(crate) fn one_payload(&self) -> TokenStream {
        let runtime = self.runtime;
        let types: Vec<&Type> = taken(self.parameters).collect();
        let is_payload = |ty: &&Type| quote!(<#ty as #runtime::FromDelivery<'_>>::IS_PAYLOAD);
        let mut checks = TokenStream::new();
        for (position, ty) in types.iter().enumerate().skip(1) {
            let this = is_payload(ty);
            let earlier = types[..position].iter().map(is_payload);
            let message = "a handler takes at most one payload, and an argument before this one is the \
                payload already; make one struct of both, or take shared state as `State<…>`";
            let condition = quote_spanned!(ty.span()=> !#this || !(#(#earlier)||*));
            checks.extend(assertion(ty.span(), &condition, message));
        }
        checks
    }
}

fn taken(parameters: &[Parameter]) -> impl Iterator<Item = &Type> {
    parameters.iter().filter_map(|parameter| match parameter {
        Parameter::Taken { ty } => Some(ty),
        Parameter::Text { .. } | Parameter::Segment { .. } => None,
    })
}

/// The `HandlerDescriptor`, as a constant of the type that implements `Handler`.
pub(crate) fn descriptor(
    subscription: &Subscription,
    name: &str,
    needs: &TokenStream,
    resync_path: impl FnOnce(&Path) -> TokenStream,
) -> TokenStream {
    let Subscription { runtime, place, channels, identity, delivery, resync, .. } = subscription;
    let id = identity.or_name(name);
    let channels = match channels {
        Channels::Texts { texts, .. } => quote!(&[#(#texts),*]),
        Channels::Typed(path) => quote!(&[<#path as #runtime::TypedChannel>::TEMPLATE]),
    };
    let (settings, calls) = (subscription.settings.tokens(runtime), delivery.calls(runtime));
    let (group, dead_letter) = (option(delivery.group.as_ref()), option(delivery.dead_letter.as_ref()));
    let resync = option(resync.as_ref().map(|Resync { path, every }| {
        let path = resync_path(path);
        let reference = Place::of(&path).put(quote!(&#path));
        let every = option(every.map(DurationTokens));
        let (needs, context) =
            (Ident::new("needs", Span::mixed_site()), Ident::new("context", Span::mixed_site()));
        quote! {
            #runtime::ResyncDescriptor {
                every: #every,
                needs: |#needs| #runtime::resync_needs(#needs, #reference),
                call: |#context| #runtime::resync_call(#context, #path),
            }
        }
    }));
    let location = location(runtime, *place);
    quote! {
        #runtime::HandlerDescriptor {
            id: #id,
            channels: #channels,
            options: #settings #calls,
            group: #group,
            dead_letter: #dead_letter,
            resync: #resync,
            needs: #needs,
            start: #runtime::start::<Self>,
            location: #location,
        }
    }
}
