//! Where an error about generated code shows: at the user's own tokens.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// From the first to the last of some tokens.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    first: Span,
    last: Span,
}

impl Place {
    pub(crate) fn of(tokens: impl ToTokens) -> Self {
        let mut spans = tokens.into_token_stream().into_iter().map(|token| token.span());
        let first = spans.next().unwrap_or_else(Span::call_site);
        Self { first, last: spans.last().unwrap_or(first) }
    }

    /// Only the first token: errors at one place with one text are shown once.
    pub(crate) fn start_of(tokens: impl ToTokens) -> Self {
        let Self { first, .. } = Self::of(tokens);
        Self { first, last: first }
    }

    /// Where it begins.
    pub(crate) fn span(self) -> Span {
        self.first
    }

    /// Gives the tokens (not those in groups) this place; the names among them keep meaning what they mean.
    pub(crate) fn put(self, tokens: TokenStream) -> TokenStream {
        let count = tokens.clone().into_iter().count();
        let at = |position| if position + 1 == count { self.last } else { self.first };
        tokens
            .into_iter()
            .enumerate()
            .map(|(position, mut token)| {
                token.set_span(token.span().located_at(at(position)));
                token
            })
            .collect()
    }
}
