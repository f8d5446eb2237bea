//! What stands after the `=` of an option, by its form only: text and numbers, names and paths, lists, maps.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Lit, Path, Result, Token, token};

use crate::mistakes::Mistakes;

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct Value {
    pub(crate) kind: ValueKind,
    tokens: TokenStream,
}

#[derive(Clone)]
pub(crate) enum ValueKind {
    Literal(Lit),
    /// `name` or `path::to::it`.
    Path(Path),
    /// `path.to.value`, with at least one dot.
    Dotted(Vec<Ident>),
    /// `Camera(update, delete)`.
    Call(Path, Vec<Value>),
    List(Vec<Value>),
    /// The entries are read later, by whoever knows which there may be.
    Map(TokenStream),
}

impl ToTokens for Value {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.tokens.to_tokens(tokens);
    }
}

impl Value {
    /// Reads one value; `None` if there was a mistake.
    pub(crate) fn read(tokens: TokenStream, mistakes: &mut Mistakes) -> Option<Self> {
        let raw = mistakes.keep(read_raw.parse2(tokens.clone()))?;
        let kind = match raw {
            Raw::Done(kind) => kind,
            Raw::List(group) => ValueKind::List(Self::read_all(group.stream(), mistakes)?),
            Raw::Call(path, group) => ValueKind::Call(path, Self::read_all(group.stream(), mistakes)?),
        };
        Some(Self { kind, tokens })
    }

    fn read_all(tokens: TokenStream, mistakes: &mut Mistakes) -> Option<Vec<Self>> {
        let values: Vec<_> =
            split(tokens, mistakes).into_iter().map(|segment| Self::read(segment, mistakes)).collect();
        values.into_iter().collect()
    }

    pub(crate) fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::new_spanned(self, message)
    }

    /// A single name.
    pub(crate) fn ident(&self) -> Option<&Ident> {
        match &self.kind {
            ValueKind::Path(path) => path.get_ident(),
            _ => None,
        }
    }

    pub(crate) fn path(&self) -> Result<Path> {
        match &self.kind {
            ValueKind::Path(path) => Ok(path.clone()),
            _ => Err(self.error("expected a path, such as `module::name`")),
        }
    }
}

/// Cuts tokens at their commas, but not at those between `<` and `>`.
pub(crate) fn split(tokens: TokenStream, mistakes: &mut Mistakes) -> Vec<TokenStream> {
    let mut segments = Vec::new();
    let mut segment = Vec::new();
    let mut depth = 0_usize;
    for token in tokens {
        if let TokenTree::Punct(punct) = &token {
            match punct.as_char() {
                ',' if depth == 0 => {
                    if segment.is_empty() {
                        mistakes.add(punct, "there is nothing before this comma; remove it");
                    } else {
                        segments.push(std::mem::take(&mut segment).into_iter().collect());
                    }
                    continue;
                }
                '<' => depth += 1,
                '>' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        segment.push(token);
    }
    if !segment.is_empty() {
        segments.push(segment.into_iter().collect());
    }
    segments
}

enum Raw {
    Done(ValueKind),
    List(Group),
    Call(Path, Group),
}

fn read_raw(input: ParseStream<'_>) -> Result<Raw> {
    let raw = if input.peek(Lit) {
        Raw::Done(ValueKind::Literal(input.parse()?))
    } else if input.peek(token::Bracket) {
        Raw::List(input.parse()?)
    } else if input.peek(token::Brace) {
        Raw::Done(ValueKind::Map(input.parse::<Group>()?.stream()))
    } else if input.peek(Ident::peek_any) || input.peek(Token![::]) {
        read_path(input)?
    } else {
        let rest: TokenStream = input.parse()?;
        let message = "expected a value: text in quotes, a number, a name, a list in `[]` or a map in `{}`";
        return Err(Error::new_spanned(rest, message));
    };
    if !input.is_empty() {
        let rest: TokenStream = input.parse()?;
        return Err(Error::new_spanned(rest, "expected a comma before this"));
    }
    Ok(raw)
}

fn read_path(input: ParseStream<'_>) -> Result<Raw> {
    // A path's own parser refuses keywords such as `type`, which are good names of fields and placeholders.
    if !input.peek2(Token![::]) && !input.peek(Token![::]) && !input.peek2(Token![<]) {
        let first = Ident::parse_any(input)?;
        if input.peek(Token![.]) {
            let mut names = vec![first];
            while input.peek(Token![.]) {
                input.parse::<Token![.]>()?;
                names.push(Ident::parse_any(input)?);
            }
            return Ok(Raw::Done(ValueKind::Dotted(names)));
        }
        return read_call(Path::from(first), input);
    }
    read_call(input.parse()?, input)
}

fn read_call(path: Path, input: ParseStream<'_>) -> Result<Raw> {
    if input.peek(token::Paren) {
        return Ok(Raw::Call(path, input.parse()?));
    }
    Ok(Raw::Done(ValueKind::Path(path)))
}
