//! Types rewritten: other lifetimes, other meanings of `Self`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::visit_mut::{self, VisitMut};
use syn::{Lifetime, Path, TraitBound, Type, TypeFnPtr, TypePath, TypeReference};

/// The type with its named lifetimes (but not `'static`) and, where `elided` is true of them, the elided ones of
/// references replaced by `lifetime`.
pub(crate) fn with_lifetimes(ty: &Type, lifetime: &str, elided: Elided) -> Type {
    struct Replace<'l>(&'l str, Elided);

    impl VisitMut for Replace<'_> {
        fn visit_lifetime_mut(&mut self, found: &mut Lifetime) {
            if found.ident != "static" {
                *found = Lifetime::new(self.0, found.span());
            }
        }

        fn visit_type_reference_mut(&mut self, found: &mut TypeReference) {
            if found.lifetime.is_none() && self.1 == Elided::Named {
                found.lifetime = Some(Lifetime::new(self.0, found.and_token.span));
            }
            visit_mut::visit_type_reference_mut(self, found);
        }

        // `for<'x> fn(&'x str)` and `dyn for<'x> Fn(&'x str)` have lifetimes of their own.
        fn visit_type_fn_ptr_mut(&mut self, _: &mut TypeFnPtr) {}

        fn visit_trait_bound_mut(&mut self, found: &mut TraitBound) {
            if found.lifetimes.is_none() {
                visit_mut::visit_trait_bound_mut(self, found);
            }
        }
    }

    let mut replaced = ty.clone();
    Replace(lifetime, elided).visit_type_mut(&mut replaced);
    replaced
}

/// What becomes of references without a lifetime.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elided {
    /// They stay as they are.
    Kept,
    /// They get the lifetime's name.
    Named,
}

/// The type as it reads elsewhere: `Self` replaced by what it stands for.
pub(crate) fn without_self(mut ty: Type, service: &Type) -> Type {
    struct Replace<'s>(&'s Type);

    impl VisitMut for Replace<'_> {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            if let Type::Path(TypePath { qself: None, path, .. }) = ty
                && path.segments.first().is_some_and(|first| first.ident == "Self")
            {
                *ty = if path.segments.len() == 1 {
                    self.0.clone()
                } else {
                    Type::Verbatim(below(path, self.0))
                };
            }
            visit_mut::visit_type_mut(self, ty);
        }
    }

    Replace(service).visit_type_mut(&mut ty);
    ty
}

/// `<Service>::rest` for `Self::rest`.
pub(crate) fn below(path: &Path, service: &Type) -> TokenStream {
    let rest = path.segments.iter().skip(1);
    quote!(<#service> #(::#rest)*)
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn shown(ty: &Type) -> String {
        quote!(#ty).to_string().replace(' ', "")
    }

    #[test]
    fn lifetimes() {
        let rewritten = |ty: Type, elided| shown(&with_lifetimes(&ty, "'k", elided));
        assert_eq!(rewritten(parse_quote!(&'a Event<'b, 'static>), Elided::Kept), "&'kEvent<'k,'static>");
        assert_eq!(rewritten(parse_quote!(Option<&str>), Elided::Kept), "Option<&str>");
        assert_eq!(rewritten(parse_quote!(Option<&str>), Elided::Named), "Option<&'kstr>");
        assert_eq!(rewritten(parse_quote!(Event<'_>), Elided::Named), "Event<'k>");
        let function: Type = parse_quote!((for<'x> fn(&'x str), Box<dyn for<'x> Fn(&'x str) + 'a>));
        assert_eq!(rewritten(function, Elided::Kept), "(for<'x>fn(&'xstr),Box<dynfor<'x>Fn(&'xstr)+'k>)");
    }

    #[test]
    fn the_meaning_of_self() {
        let rewritten = |ty: Type| shown(&without_self(ty, &parse_quote!(Service<T>)));
        assert_eq!(rewritten(parse_quote!(Self)), "Service<T>");
        assert_eq!(
            rewritten(parse_quote!(Result<Option<Self>, Self::Error>)),
            "Result<Option<Service<T>>,<Service<T>>::Error>"
        );
        assert_eq!(rewritten(parse_quote!(<Self as Trait>::Type)), "<Service<T>asTrait>::Type");
        assert_eq!(rewritten(parse_quote!(other::Self_)), "other::Self_");
    }
}
