//! `authorize` and `public`: who may subscribe, which each subscription has to say.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::Path;

use crate::descriptor::Runtime;
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::place::Place;

pub(super) enum Access {
    Public,
    /// An async function from the request to a decision.
    Authorize(Path),
}

impl Access {
    pub(super) fn read(options: &Options, mistakes: &mut Mistakes) -> Option<Self> {
        let is_public = options.flag("public", mistakes);
        match (options.has("authorize"), options.has("public")) {
            (false, false) => {
                let message = "it is not said who may subscribe, and nothing is public by default, so that \
                    nothing becomes so by mistake; add `authorize = path`, an async function that decides, \
                    or the word `public` for everybody who may connect";
                mistakes.add_at(Span::call_site(), message);
            }
            (true, true) => {
                let message =
                    "`public` lets everybody in and `authorize` decides who may; remove one of them";
                mistakes.add(options.name("public"), message);
            }
            _ => {}
        }
        let authorize = options.optional("authorize", mistakes, |value| {
            let path = value.path().map_err(|_| {
                value.error(
                    "expected the path of an async function, such as `authorize = can_see_cameras`, or the \
                        word `public` instead",
                )
            })?;
            if path.is_ident("public") {
                return Err(value.error("`public` stands alone; write `public` without `authorize =`"));
            }
            Ok(path)
        });
        match authorize {
            Some(path) => Some(Self::Authorize(path)),
            None => is_public.then_some(Self::Public),
        }
    }

    /// The constant `DeclaredAccess`.
    pub(super) fn tokens(&self, runtime: &Runtime) -> TokenStream {
        let root = runtime.root();
        match self {
            Self::Public => quote!(#root::DeclaredAccess::Public),
            Self::Authorize(path) => {
                // A function of another type is reported at its path, which is the place of the call, of its argument
                // and of what is made of it.
                let place = Place::of(path);
                let request = Ident::new("request", Span::mixed_site().located_at(place.span()));
                let arguments = place.put(quote!((#request)));
                let decide = place.put(quote!(#runtime::decide));
                let decided = place.put(quote!((#path #arguments)));
                quote!(#root::DeclaredAccess::Authorize(|#request| #decide #decided))
            }
        }
    }
}
