//! A function as an attribute sees it: the signature parsed, the body left alone. Checks what holds for every
//! attribute on functions.

use proc_macro2::{Group, Ident, Span, TokenStream};
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, FnArg, GenericParam, Pat, PatType, Receiver, ReceiverKind, ReturnType, Safety, Signature,
    Type, TypeImplTrait, Visibility, token,
};

use crate::mistakes::Mistakes;

/// A function item or a method.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    /// The body with its braces, as the user wrote it.
    pub(crate) body: Group,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let sig = input.parse()?;
        if !input.peek(token::Brace) {
            return Err(input.error("expected a function with a body"));
        }
        Ok(Self { attrs, vis, sig, body: input.parse()? })
    }
}

impl ToTokens for Function {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        for attr in &self.attrs {
            attr.to_tokens(tokens);
        }
        self.vis.to_tokens(tokens);
        self.sig.to_tokens(tokens);
        self.body.to_tokens(tokens);
    }
}

/// One argument beside `self`.
pub(crate) struct Argument {
    /// What generated code calls it: its name, or a made-up one where the user wrote a pattern.
    pub(crate) ident: Ident,
    /// Its name as placeholders write it; `None` for a pattern.
    pub(crate) name: Option<String>,
    pub(crate) ty: Type,
}

impl Function {
    /// Reads the item of `attribute`, such as `` `#[subscribe]` ``.
    pub(crate) fn read(item: TokenStream, attribute: &str, mistakes: &mut Mistakes) -> Option<Self> {
        match syn::parse2(item.clone()) {
            Ok(function) => Some(function),
            Err(error) if is_function(item.clone()) => {
                mistakes.note(error);
                None
            }
            Err(_) => {
                let place = item.into_iter().next().map_or_else(Span::call_site, |token| token.span());
                mistakes.add_at(place, format_args!("{attribute} stands on an `async fn`"));
                None
            }
        }
    }

    pub(crate) fn name(&self) -> String {
        self.sig.ident.unraw().to_string()
    }

    pub(crate) fn receiver(&self) -> Option<&Receiver> {
        self.sig.receiver()
    }

    pub(crate) fn arguments(&self) -> Vec<Argument> {
        self.typed().enumerate().map(|(position, argument)| argument_of(position, argument)).collect()
    }

    fn typed(&self) -> impl Iterator<Item = &PatType> {
        self.sig.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(argument) => Some(argument),
            FnArg::Receiver(_) => None,
        })
    }

    /// The declared return type.
    pub(crate) fn returned(&self) -> Type {
        match &self.sig.output {
            ReturnType::Default => syn::parse_quote!(()),
            ReturnType::Type(_, ty) => (**ty).clone(),
        }
    }

    /// The `#[cfg]` attributes, for what is generated beside the function.
    pub(crate) fn cfgs(&self) -> Vec<&Attribute> {
        cfgs(&self.attrs)
    }

    /// Refuses what no attribute on a function can work with; `attribute` is its name in messages.
    pub(crate) fn check(&self, attribute: &str, mistakes: &mut Mistakes) {
        let Signature { constness, asyncness, safety, abi, fn_token, generics, variadic, .. } = &self.sig;
        if asyncness.is_none() {
            mistakes.add(fn_token, format_args!("{attribute} needs an async function; write `async fn`"));
        }
        if let Safety::Unsafe(token) = safety {
            mistakes.add(token, format_args!("{attribute} calls the function, so it cannot be `unsafe`"));
        }
        if let Some(abi) = abi {
            mistakes.add(abi, format_args!("{attribute} needs an ordinary Rust function; remove this"));
        }
        if let Some(token) = constness {
            mistakes.add(token, format_args!("{attribute} needs an async function, which cannot be `const`"));
        }
        if let Some(variadic) = variadic {
            mistakes.add(variadic, format_args!("{attribute} needs a fixed number of arguments"));
        }
        for parameter in &generics.params {
            let (kind, place) = match parameter {
                GenericParam::Lifetime(_) => continue,
                GenericParam::Type(parameter) => ("type", parameter.to_token_stream()),
                GenericParam::Const(parameter) => ("const", parameter.to_token_stream()),
            };
            let message = format!("{attribute} cannot have {kind} parameters; name the type that you need");
            mistakes.add(place, message);
        }
        for argument in self.typed() {
            for cfg in cfgs(&argument.attrs) {
                mistakes.add(
                    cfg,
                    format_args!(
                        "{attribute} always takes the same arguments; put the `#[cfg]` on the whole function"
                    ),
                );
            }
            refuse_impl_trait(
                &argument.ty,
                &format!("{attribute} cannot take `impl Trait`; name the type"),
                mistakes,
            );
        }
        if let ReturnType::Type(_, ty) = &self.sig.output {
            refuse_impl_trait(
                ty,
                &format!("{attribute} cannot return `impl Trait`; name the type"),
                mistakes,
            );
        }
    }

    /// Whether it only makes sense inside an impl: it has a receiver or says `Self` somewhere.
    pub(crate) fn is_method(&self) -> bool {
        if self.receiver().is_some() {
            return true;
        }
        let mut search = SelfSearch(false);
        search.visit_signature(&self.sig);
        match syn::parse2::<syn::Block>(self.body.to_token_stream()) {
            Ok(body) => search.visit_block(&body),
            Err(_) => search.0 |= mentions_self(self.body.stream()),
        }
        search.0
    }
}

fn is_function(item: TokenStream) -> bool {
    item.into_iter().any(|token| matches!(token, proc_macro2::TokenTree::Ident(ident) if ident == "fn"))
}

fn argument_of(position: usize, argument: &PatType) -> Argument {
    match &*argument.pat {
        Pat::Ident(pattern) if pattern.subpat.is_none() && pattern.by_ref.is_none() => Argument {
            ident: pattern.ident.clone(),
            name: Some(pattern.ident.unraw().to_string()),
            ty: (*argument.ty).clone(),
        },
        other => Argument {
            ident: format_ident!("argument_{position}", span = Span::mixed_site().located_at(other.span())),
            name: None,
            ty: (*argument.ty).clone(),
        },
    }
}

/// Whether the receiver is `&self`.
pub(crate) fn is_shared_reference(receiver: &Receiver) -> bool {
    matches!(receiver.kind, ReceiverKind::Reference(_, _, None))
}

pub(crate) fn cfgs(attrs: &[Attribute]) -> Vec<&Attribute> {
    attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect()
}

fn refuse_impl_trait(ty: &Type, message: &str, mistakes: &mut Mistakes) {
    struct Search<'m>(&'m str, &'m mut Mistakes);

    impl<'ast> Visit<'ast> for Search<'_> {
        fn visit_type_impl_trait(&mut self, found: &'ast TypeImplTrait) {
            self.1.add(found, self.0);
        }
    }

    Search(message, mistakes).visit_type(ty);
}

/// Looks for `Self`, but not in items of the body's own, where it means something else.
struct SelfSearch(bool);

impl<'ast> Visit<'ast> for SelfSearch {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0 |= path.segments.first().is_some_and(|first| first.ident == "Self");
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        self.0 |= mentions_self(found.tokens.clone());
    }

    fn visit_item(&mut self, _: &'ast syn::Item) {}
}

fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        proc_macro2::TokenTree::Ident(ident) => ident == "Self",
        proc_macro2::TokenTree::Group(group) => mentions_self(group.stream()),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    #[test]
    fn methods_say_self() {
        for (function, expected) in [
            (
                quote!(
                    async fn f(&self) {}
                ),
                true,
            ),
            (
                quote!(
                    async fn f() -> Self {}
                ),
                true,
            ),
            (
                quote!(
                    async fn f(other: Vec<Self>) {}
                ),
                true,
            ),
            (
                quote!(
                    async fn f() {
                        Self::g()
                    }
                ),
                true,
            ),
            (
                quote!(
                    async fn f() {
                        Self { x: 1 }
                    }
                ),
                true,
            ),
            (
                quote!(
                    async fn f() {
                        format!("{}", [Self::X])
                    }
                ),
                true,
            ),
            (
                quote!(
                    async fn f() {}
                ),
                false,
            ),
            (
                quote!(
                    async fn f() {
                        struct S;
                        impl S {
                            fn new() -> Self {
                                Self
                            }
                        }
                    }
                ),
                false,
            ),
            (quote!(async fn f() { syntax of tomorrow(Self) }), true),
            (quote!(async fn f() { syntax of tomorrow(itself) }), false),
        ] {
            let read = Function::read(function.clone(), "", &mut Mistakes::default()).unwrap();
            assert_eq!(read.is_method(), expected, "{function}");
        }
    }
}
