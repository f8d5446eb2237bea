//! What stands before the value of an option: its name and the `=`.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Result, Token};

/// An option's name. In maps it may be a path of names: `user.id`.
#[derive(Clone)]
pub(crate) struct Name {
    pub(crate) text: String,
    tokens: TokenStream,
}

impl ToTokens for Name {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.tokens.to_tokens(tokens);
    }
}

impl Name {
    /// Takes the name off the front of an option.
    pub(crate) fn take(option: TokenStream) -> Result<(Self, TokenStream)> {
        read.parse2(option)
    }

    /// Takes the `=` off what follows a name.
    pub(crate) fn take_equals(&self, rest: TokenStream) -> Result<TokenStream> {
        let Self { text, .. } = self;
        let mut tokens = rest.into_iter();
        match tokens.next() {
            Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => {
                let value: TokenStream = tokens.collect();
                if value.is_empty() {
                    return Err(Error::new(
                        punct.span(),
                        format_args!("`{text}` has no value; write it after the `=`"),
                    ));
                }
                Ok(value)
            }
            None => Err(Error::new_spanned(self, format_args!("`{text}` has no value; write `{text} = …`"))),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
                Err(Error::new(group.span(), format_args!("options are written with `=`: `{text} = …`")))
            }
            Some(other) => Err(Error::new(other.span(), format_args!("expected `=`, as in `{text} = …`"))),
        }
    }
}

fn read(input: ParseStream<'_>) -> Result<(Name, TokenStream)> {
    if !input.peek(Ident::peek_any) {
        let rest: TokenStream = input.parse()?;
        return Err(Error::new_spanned(rest, "expected `name = value`"));
    }
    let mut tokens = TokenStream::new();
    let mut text = String::new();
    loop {
        let ident = Ident::parse_any(input)?;
        text.push_str(&ident.unraw().to_string());
        ident.to_tokens(&mut tokens);
        if !input.peek(Token![.]) {
            break;
        }
        input.parse::<Token![.]>()?.to_tokens(&mut tokens);
        text.push('.');
    }
    Ok((Name { text, tokens }, input.parse()?))
}
