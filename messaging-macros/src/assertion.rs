//! Checks that only the compiler can make, because they depend on types: constants that fail the build with a message.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

/// `const _: () = assert!(condition, "message");`, reported at `place`.
pub(crate) fn assertion(place: Span, condition: &TokenStream, message: &str) -> TokenStream {
    // The message is a format string.
    let message = message.replace('{', "{{").replace('}', "}}");
    quote_spanned!(place=> const _: () = ::core::assert!(#condition, #message);)
}
