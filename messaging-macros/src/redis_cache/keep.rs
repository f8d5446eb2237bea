//! `stale = …`: a call that can be made after the caller has gone, with arguments of its own. What was passed by
//! reference is copied and passed by reference again; what was passed by value goes along.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::visit::{self, Visit};
use syn::{
    Lifetime, ParenthesizedGenericArguments, Receiver, ReceiverKind, ReturnType, TraitBound, Type, TypeFnPtr,
    TypeReference,
};

use super::parts::local;
use crate::descriptor::Runtime;
use crate::function::Function;
use crate::mistakes::Mistakes;
use crate::place::Place;

/// Refuses what can be seen to be gone when the caller is.
pub(super) fn check(function: &Function, mistakes: &mut Mistakes) {
    if let Some(receiver) = function.receiver() {
        match &receiver.kind {
            ReceiverKind::Reference(_, _, Some(_)) => refuse_mut(receiver, "take `&self`", mistakes),
            ReceiverKind::Typed(_, ty) => check_argument(ty, mistakes),
            _ => {}
        }
    }
    for argument in function.arguments() {
        check_argument(&argument.ty, mistakes);
    }
    let reason = "`stale` loads again after the call has ended, so what the function returns";
    check_returned(function, reason, mistakes);
}

/// Refuses a result that borrows from the arguments; `reason` ends in what it calls the result.
pub(super) fn check_returned(function: &Function, reason: &str, mistakes: &mut Mistakes) {
    if let ReturnType::Type(_, ty) = &function.sig.output
        && let Some(borrow) = borrow(ty)
    {
        let message = format!("{reason} cannot borrow from the arguments; return an owned value");
        mistakes.add(borrow, message);
    }
}

fn check_argument(ty: &Type, mistakes: &mut Mistakes) {
    let inside = match bare(ty) {
        Type::Reference(TypeReference { mutability: Some(_), .. }) => {
            refuse_mut(ty, "take a value or a shared reference", mistakes);
            return;
        }
        reference @ Type::Reference(found) if !is_static(reference) => &found.elem,
        other => other,
    };
    if let Some(borrow) = borrow(inside) {
        let message = "`stale` loads again after the call has ended, when what is borrowed here is gone; take an \
            owned value, or a plain reference to one";
        mistakes.add(borrow, message);
    }
}

fn refuse_mut(at: impl ToTokens, instead: &str, mistakes: &mut Mistakes) {
    let message =
        format!("`stale` loads again after the call has ended, when this `&mut` is gone; {instead}");
    mistakes.add(at, message);
}

/// A call of `callee`, whose closure makes its copies when it is called. A load that cannot be kept is reported at `place`.
pub(super) fn again(
    function: &Function,
    runtime: &Runtime,
    place: Place,
    callee: &TokenStream,
) -> TokenStream {
    let receiver = function.receiver().map(Kept::receiver);
    let arguments = function.arguments();
    let arguments = arguments.iter().map(|argument| Kept::of(&argument.ident, &argument.ty));
    let kept: Vec<Kept> = receiver.into_iter().chain(arguments).collect();
    let bindings = kept.iter().map(|Kept { given, name, how, place }| {
        let given = place.put(given.to_token_stream());
        let keep = match how {
            How::Copied => quote!(#runtime::copied),
            How::Moved => quote!(#runtime::moved),
        };
        let value = place.put(quote!(#keep(#given)));
        quote!(let #name = #value;)
    });
    let passed = kept.iter().map(|Kept { name, how, .. }| match how {
        How::Copied => quote!(&*#name),
        How::Moved => quote!(#name),
    });
    let closure = place.put(quote! {
        move || {
            #(#bindings)*
            async move { #callee(#(#passed),*).await }
        }
    });
    place.put(quote!(#runtime::Again::new(#closure)))
}

/// An argument of such a call.
struct Kept {
    /// What the caller gave.
    given: Ident,
    /// The load's own.
    name: Ident,
    how: How,
    /// Where it is reported if it cannot be kept.
    place: Place,
}

enum How {
    /// From behind a reference.
    Copied,
    Moved,
}

impl Kept {
    fn of(name: &Ident, ty: &Type) -> Self {
        let (given, name) = (name.clone(), name.clone());
        match bare(ty) {
            reference @ Type::Reference(found) if !is_static(reference) => {
                Self { given, name, how: How::Copied, place: Place::start_of(&found.elem) }
            }
            _ => Self { given, name, how: How::Moved, place: Place::start_of(ty) },
        }
    }

    fn receiver(receiver: &Receiver) -> Self {
        let given = Ident::from(receiver.self_token);
        let place = Place::of(&given);
        let kept = match &receiver.kind {
            ReceiverKind::Typed(_, ty) => Self::of(&given, ty),
            ReceiverKind::Reference(_, lifetime, _)
                if lifetime.as_ref().is_none_or(|it| it.ident != "static") =>
            {
                Self { name: given.clone(), given, how: How::Copied, place }
            }
            _ => Self { name: given.clone(), given, how: How::Moved, place },
        };
        // Nothing can be bound to the name `self`.
        Self { name: local("service"), ..kept }
    }
}

/// The type without what a `macro_rules!` fragment or the user puts around it.
fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        Type::Paren(paren) => bare(&paren.elem),
        other => other,
    }
}

/// A `&'static` is no different from a value: it stays what it is.
fn is_static(reference: &Type) -> bool {
    matches!(reference, Type::Reference(TypeReference { lifetime: Some(lifetime), .. }) if lifetime.ident == "static")
}

/// The first reference or lifetime in a type that is not `'static`.
fn borrow(ty: &Type) -> Option<TokenStream> {
    struct Search(Option<TokenStream>);

    impl<'ast> Visit<'ast> for Search {
        fn visit_lifetime(&mut self, found: &'ast Lifetime) {
            if found.ident != "static" {
                self.0.get_or_insert_with(|| found.to_token_stream());
            }
        }

        fn visit_type_reference(&mut self, found: &'ast TypeReference) {
            if found.lifetime.is_none() {
                self.0.get_or_insert_with(|| found.to_token_stream());
            }
            visit::visit_type_reference(self, found);
        }

        // `fn(&str)`, `dyn Fn(&str)` and `dyn for<'x> Trait<'x>` have lifetimes of their own.
        fn visit_type_fn_ptr(&mut self, _: &'ast TypeFnPtr) {}

        fn visit_parenthesized_generic_arguments(&mut self, _: &'ast ParenthesizedGenericArguments) {}

        fn visit_trait_bound(&mut self, found: &'ast TraitBound) {
            if found.lifetimes.is_none() {
                visit::visit_trait_bound(self, found);
            }
        }
    }

    let mut search = Search(None);
    search.visit_type(ty);
    search.0
}
