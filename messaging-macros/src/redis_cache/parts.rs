//! The pieces that all forms of a cached function are made of.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, Meta, Pat, PatType, Path, ReturnType, Signature, Type};

use super::keep;
use super::options::{Config, Placeholder, Trigger, TriggerOn};
use crate::assertion::assertion;
use crate::constants::{DurationTokens, option};
use crate::descriptor::{Runtime, location};
use crate::function::{Argument, Function};
use crate::place::Place;
use crate::types::{Elided, with_lifetimes};

/// A function and what its attribute says.
pub(super) struct Parts<'p> {
    pub(super) function: &'p Function,
    pub(super) config: &'p Config,
}

/// How the function is called.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    /// If the cache has no value.
    Cached,
    /// Always.
    Refresh,
}

impl Parts<'_> {
    /// `&'static Function`, with its descriptor registered, as a block.
    pub(super) fn family(&self) -> TokenStream {
        let Config { runtime, identity, key, ttl, jitter, cache_none, stale, wait, triggers, .. } =
            self.config;
        let id = identity.or_name(&self.function.name());
        let ttl = DurationTokens(*ttl);
        let cache_none = option(cache_none.as_ref().map(|(_, duration)| DurationTokens(*duration)));
        let stale = option(stale.as_ref().map(|(_, duration)| DurationTokens(*duration)));
        let wait = option(wait.map(DurationTokens));
        let local = option(self.config.local.as_ref().map(|local| local.tokens(runtime)));
        let location = location(runtime, Span::call_site());
        let checks = triggers.iter().map(|trigger| self.check(trigger));
        let triggers = triggers.iter().map(|trigger| self.trigger(trigger));
        quote!({
            static DESCRIPTOR: #runtime::FunctionDescriptor = #runtime::FunctionDescriptor {
                id: #id,
                key: #key,
                ttl: #ttl,
                jitter: #jitter,
                cache_none: #cache_none,
                stale: #stale,
                wait: #wait,
                local: #local,
                invalidate_on: &[#(#triggers),*],
                location: #location,
            };
            static FUNCTION: #runtime::Function = #runtime::Function::new(&DESCRIPTOR);
            #runtime::inventory::submit! {
                #runtime::Descriptor::Function(&DESCRIPTOR)
            }
            #(#checks)*
            &FUNCTION
        })
    }

    fn trigger(&self, Trigger { on, select }: &Trigger) -> TokenStream {
        let runtime = &self.config.runtime;
        let on = match on {
            TriggerOn::Channel(text) => quote!(Channel(#text)),
            TriggerOn::Model(path, operations) => {
                quote!(Model(<#path as #runtime::Model>::DESCRIPTOR, &[#(#runtime::Op::#operations),*]))
            }
        };
        let select = select.iter().map(|(placeholder, path)| quote!((#placeholder, #path)));
        quote!(#runtime::Trigger { on: #runtime::TriggerOn::#on, select: &[#(#select),*] })
    }

    /// Assertions that the model publishes these events and that they carry what the key needs.
    fn check(&self, Trigger { on, select }: &Trigger) -> TokenStream {
        let TriggerOn::Model(path, operations) = on else { return TokenStream::new() };
        let runtime = &self.config.runtime;
        let model = path_text(path);
        let span = path.span();
        let descriptor = quote_spanned!(span=> <#path as #runtime::Model>::DESCRIPTOR);
        let listed = operations.iter().map(|operation| operation.name()).collect::<Vec<_>>().join(", ");
        let published = operations.iter().map(|operation| {
            let name = operation.name();
            let message = format!(
                "`{model}` does not publish `{name}`; add `{name} = \"…\"` to `publish` \
                in its `#[event_config]`, or remove it here"
            );
            assertion(span, &quote_spanned!(span=> #descriptor.publishes(#runtime::Op::#operation)), &message)
        });
        let carried = self.config.placeholders.iter().map(|Placeholder { text, .. }| {
            let selected = select.iter().find(|(placeholder, _)| placeholder == text);
            let (field, advice) = match selected {
                Some((_, field)) => (field, "select another field".to_owned()),
                None => (text, format!("select another field: `{{ on = {model}({listed}), {text} = … }}`")),
            };
            let message = format!(
                "the events of `{model}` do not carry the field `{field}`, which the key needs for \
                    `{{{text}}}`; add it to its `payload_fields`, or {advice}"
            );
            assertion(span, &quote_spanned!(span=> #descriptor.carries(&[#field])), &message)
        });
        quote!(#(#published)* #(#carried)*)
    }

    /// How `callee`, the function with the user's body, is called.
    pub(super) fn load(&self, mode: Mode, callee: &TokenStream) -> TokenStream {
        let Config { runtime, stale, .. } = self.config;
        match (mode, stale) {
            (Mode::Cached, Some((name, _))) => keep::again(self.function, runtime, Place::of(name), callee),
            _ => {
                let receiver = self.function.receiver().map(|receiver| Ident::from(receiver.self_token));
                let arguments = self.function.arguments().into_iter().map(|argument| argument.ident);
                let arguments = receiver.into_iter().chain(arguments);
                quote!(#runtime::Once(#callee(#(#arguments),*)))
            }
        }
    }

    /// `key(…)` and the call around the load. `family` and `load` are expressions.
    pub(super) fn through_cache(&self, mode: Mode, family: &TokenStream, load: &TokenStream) -> TokenStream {
        let Config { runtime, cache_none, .. } = self.config;
        let call = match (mode, &self.config.local) {
            (Mode::Cached, None) => quote!(cached),
            (Mode::Cached, Some(_)) => quote!(cached_locally),
            (Mode::Refresh, _) => quote!(refresh),
        };
        let returned = self.function.returned();
        let [function, key, probe, shape, layer] = ["function", "key", "probe", "shape", "layer"].map(local);
        let values = self.key_values();
        let option = cache_none.as_ref().map(|(name, _)| {
            let argument = Place::of(name).put(quote!(&#shape));
            quote!(#runtime::assert_option_shape(#argument);)
        });
        // A result that cannot be stored is reported at the declared type.
        let place = match &self.function.sig.output {
            ReturnType::Type(_, ty) => Place::start_of(ty),
            ReturnType::Default => Place::start_of(&self.function.sig.ident),
        };
        let passed = place.put(shape.to_token_stream());
        let checked = place.put(quote!(#runtime::shape::checked::<#returned, _>(#passed)));
        let kept = self.config.local.as_ref().map(|_| {
            let local = place.put(quote!(#runtime::Local));
            let kept = place.put(quote!(#runtime::kept::<#returned, _, _>(&#shape, #local)));
            quote!(let #layer = #kept;)
        });
        let layer = match &kept {
            Some(_) => layer.to_token_stream(),
            None => quote!(#runtime::Remote),
        };
        let call = place.put(quote!(#runtime::#call(#function, #key, #passed, #layer, #load).await));
        quote! {
            let #function = #family;
            let #key = #runtime::key(#function, &[#(#values),*]);
            let #probe = #runtime::shape::ShapeProbe::<#returned>::new();
            let #shape = {
                use #runtime::shape::*;
                (&&&&#probe).shape()
            };
            #option
            let #shape = #checked;
            #kept
            #call
        }
    }

    /// One value for each placeholder of the key.
    fn key_values(&self) -> Vec<TokenStream> {
        let runtime = &self.config.runtime;
        let value = |Placeholder { root, path, place, .. }: &Placeholder| {
            scalar(runtime, &quote!(#root #(.#path)*), *place)
        };
        self.config.placeholders.iter().map(value).collect()
    }

    /// Without companions everything stands in the function itself.
    pub(super) fn in_place(&self) -> TokenStream {
        let Function { attrs, vis, sig, body } = self.function;
        let returned = self.function.returned();
        let pinned = local("returned");
        // The first `return` tells the compiler the block's type, so that `?` and `return` know theirs.
        let runtime = &self.config.runtime;
        let load = quote!(#runtime::Once(async move {
            if let ::core::option::Option::Some(#pinned) = ::core::option::Option::None::<#returned> {
                return #pinned;
            }
            #body
        }));
        let call = self.through_cache(Mode::Cached, &self.family(), &load);
        quote! {
            #(#attrs)*
            #vis #sig {
                #call
            }
        }
    }

    /// The signature with plain names for arguments, so that they can be handed on.
    pub(super) fn plain_signature(&self) -> Signature {
        let mut sig = self.function.sig.clone();
        for (argument, plain) in typed_mut(&mut sig).zip(self.function.arguments()) {
            let ident = plain.ident;
            *argument.pat = Pat::Verbatim(quote!(#ident));
        }
        if let Some(FnArg::Receiver(receiver)) = sig.inputs.first_mut() {
            receiver.mutability = None;
        }
        sig
    }

    /// The signature for the user's body: an argument that only the key uses is not unused.
    pub(super) fn load_signature(&self, name: Ident) -> Signature {
        let mut sig = Signature { ident: name, ..self.function.sig.clone() };
        let of_key =
            |argument: &Argument| self.config.placeholders.iter().any(|it| it.root == argument.ident);
        for (argument, plain) in typed_mut(&mut sig).zip(self.function.arguments()) {
            if of_key(&plain) {
                argument.attrs.push(syn::parse_quote!(#[allow(unused_variables)]));
            }
        }
        sig
    }

    /// Attributes for the function with the user's body: those about lints. The wrapper keeps all of them, but what it
    /// expects of a lint it only allows, because either of the two may meet it.
    pub(super) fn attributes(&self) -> (Vec<Attribute>, Vec<Attribute>) {
        let mut outer = self.function.attrs.clone();
        for attr in &mut outer {
            if attr.path().is_ident("expect")
                && let Meta::List(list) = &mut attr.meta
            {
                list.path = syn::parse_quote!(allow);
            }
        }
        let is_lint = |attr: &&Attribute| {
            ["allow", "warn", "deny", "forbid"].iter().any(|level| attr.path().is_ident(level))
        };
        let inner = outer.iter().filter(is_lint).cloned().collect();
        (outer, inner)
    }

    /// What companions take for each placeholder: a name, its type as an argument, and the type in a tuple of keys
    /// with the lifetime `'k`.
    pub(super) fn key_parameters(&self) -> Vec<KeyParameter> {
        let runtime = &self.config.runtime;
        let mut parameters: Vec<KeyParameter> = Vec::new();
        for Placeholder { text, root, path, ty, place } in &self.config.placeholders {
            let mut name = if path.is_empty() {
                root.clone()
            } else {
                format_ident!("{}", text.replace('.', "_"), span = root.span())
            };
            if parameters.iter().any(|earlier| earlier.name == name) {
                name = format_ident!("{name}_{}", parameters.len() + 1);
            }
            let parameter = match ty.as_ref().filter(|_| path.is_empty()) {
                Some(ty) => {
                    let argument = with_lifetimes(ty, "'_", Elided::Kept);
                    KeyParameter {
                        name,
                        argument: quote!(#argument),
                        tuple: with_lifetimes(ty, "'k", Elided::Named),
                        place: *place,
                    }
                }
                None => KeyParameter {
                    name,
                    argument: quote!(impl #runtime::serde::Serialize + ::core::marker::Sync),
                    tuple: syn::parse_quote!(::std::string::String),
                    place: *place,
                },
            };
            parameters.push(parameter);
        }
        parameters
    }
}

/// An argument of a companion.
pub(super) struct KeyParameter {
    pub(super) name: Ident,
    pub(super) argument: TokenStream,
    pub(super) tuple: Type,
    pub(super) place: Place,
}

fn typed_mut(sig: &mut Signature) -> impl Iterator<Item = &mut PatType> {
    sig.inputs.iter_mut().filter_map(|input| match input {
        FnArg::Typed(argument) => Some(argument),
        FnArg::Receiver(_) => None,
    })
}

/// One value of a key; what cannot be one is reported at `place`.
pub(super) fn scalar(runtime: &Runtime, value: &TokenStream, place: Place) -> TokenStream {
    let value = place.put(quote!(&#value));
    quote!(#value as &(dyn #runtime::Scalar + ::core::marker::Sync))
}

/// A local variable that no name of the user's can meet.
pub(super) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

fn path_text(path: &Path) -> String {
    quote!(#path).to_string().replace(' ', "")
}
