//! Constant data as generated code writes it.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};

/// A duration as generated code writes it.
pub(crate) struct DurationTokens(pub(crate) Duration);

impl ToTokens for DurationTokens {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        tokens.extend(if millis == 0 {
            quote!(::core::time::Duration::from_secs(#seconds))
        } else {
            let millis = seconds * 1_000 + u64::from(millis);
            quote!(::core::time::Duration::from_millis(#millis))
        });
    }
}

/// A number above zero, which the compiler checks: `ty` is its type, such as `NonZeroU32`.
pub(crate) fn non_zero(ty: &str, number: impl ToTokens) -> TokenStream {
    let ty = format_ident!("{ty}");
    quote!(::core::num::#ty::new(#number).unwrap())
}

/// `Some(value)` or `None`.
pub(crate) fn option(value: Option<impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

/// `Type { name: value, ..Type::DEFAULT }` with the values that there are.
pub(crate) fn updated(ty: &TokenStream, fields: &[(&str, Option<TokenStream>)]) -> TokenStream {
    let given = fields.iter().filter_map(|(name, value)| {
        let name = format_ident!("{name}");
        value.as_ref().map(|value| quote!(#name: #value,))
    });
    let rest = fields.iter().any(|(_, value)| value.is_none()).then(|| quote!(..#ty::DEFAULT));
    quote!(#ty { #(#given)* #rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_durations_say_seconds_where_they_can() {
        let shown = |duration| DurationTokens(duration).to_token_stream().to_string().replace(' ', "");
        assert_eq!(shown(Duration::from_secs(90)), "::core::time::Duration::from_secs(90u64)");
        assert_eq!(shown(Duration::from_millis(1_500)), "::core::time::Duration::from_millis(1500u64)");
    }
}
