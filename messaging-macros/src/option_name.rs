//! What stands before the value of an option: its name and the `=`.

use std::fmt;

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, LitStr, Result, Token};

/// An option's name. In maps it may be a path of names: `user.id`; and where they say so, text in quotes.
#[derive(Clone)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) is_quoted: bool,
    tokens: TokenStream,
}

/// As it is written.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, is_quoted, .. } = self;
        if *is_quoted { write!(f, "{text:?}") } else { f.write_str(text) }
    }
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

    /// The same where the name may stand in quotes.
    pub(crate) fn take_quotable(option: TokenStream) -> Result<(Self, TokenStream)> {
        (|input: ParseStream<'_>| if input.peek(LitStr) { read_quoted(input) } else { read(input) })
            .parse2(option)
    }

    /// Takes the `=` off what follows a name.
    pub(crate) fn take_equals(&self, rest: TokenStream) -> Result<TokenStream> {
        let mut tokens = rest.into_iter();
        match tokens.next() {
            Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => {
                let value: TokenStream = tokens.collect();
                if value.is_empty() {
                    return Err(Error::new(
                        punct.span(),
                        format_args!("`{self}` has no value; write it after the `=`"),
                    ));
                }
                Ok(value)
            }
            None => Err(Error::new_spanned(self, format_args!("`{self}` has no value; write `{self} = …`"))),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
                Err(Error::new(group.span(), format_args!("options are written with `=`: `{self} = …`")))
            }
            Some(other) => Err(Error::new(other.span(), format_args!("expected `=`, as in `{self} = …`"))),
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
    Ok((Name { text, is_quoted: false, tokens }, input.parse()?))
}

fn read_quoted(input: ParseStream<'_>) -> Result<(Name, TokenStream)> {
    let literal: LitStr = input.parse()?;
    let name = Name { text: literal.value(), is_quoted: true, tokens: literal.into_token_stream() };
    Ok((name, input.parse()?))
}
