//! The way every attribute goes: parse, check, expand. After a mistake the user's item is still there, so that the only
//! errors are the ones about the attribute.

use proc_macro2::TokenStream;

use crate::mistakes::Mistakes;

/// Expands an attribute. `bare` says what stands there instead if it is refused: the item, and at most what other code
/// needs of it, so that no error follows from the first.
pub(crate) fn run(
    arguments: TokenStream,
    item: TokenStream,
    expand: fn(TokenStream, TokenStream, &mut Mistakes) -> Option<TokenStream>,
    bare: fn(&TokenStream, TokenStream) -> TokenStream,
) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let expanded = expand(arguments.clone(), item.clone(), &mut mistakes);
    match mistakes.into_error() {
        None => expanded.expect("what is not expanded has a mistake"),
        Some(error) => {
            let mut output = bare(&arguments, item);
            output.extend(error.to_compile_error());
            output
        }
    }
}

/// Only the item.
pub(crate) fn item(_: &TokenStream, item: TokenStream) -> TokenStream {
    item
}
