//! The grammar that all attributes share: `name = value` separated by commas, lists in `[]`, maps in `{}`. Knows where
//! everything stands; knows nothing of what any option means.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Lit, Path, Result, Token, token};

use crate::mistakes::Mistakes;
use crate::names::{advice, closest};

/// The options of an attribute or the entries of a map.
pub(crate) struct Options {
    entries: Vec<Entry>,
    /// Names whose value could not be read: they are not missing.
    broken: Vec<String>,
    /// Where a missing option is reported.
    place: TokenStream,
}

/// `name = value`.
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) value: Value,
}

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

/// What stands after the `=`.
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

impl Options {
    /// Reads the options of an attribute. `known` are their names; others are mistakes.
    pub(crate) fn of_attribute(segments: Vec<TokenStream>, known: &[&str], mistakes: &mut Mistakes) -> Self {
        let known = Known { noun: "option", names: Some(known) };
        Self::read(segments, TokenStream::new(), &known, mistakes)
    }

    /// Reads the entries of a map value; `example` shows what one may hold.
    pub(crate) fn of_map(
        value: &Value,
        known: &[&str],
        example: &str,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        Self::in_braces(value, &Known { noun: "entry", names: Some(known) }, example, mistakes)
    }

    /// Reads the entries of a map value, whatever their names are.
    pub(crate) fn of_free_map(value: &Value, example: &str, mistakes: &mut Mistakes) -> Option<Self> {
        Self::in_braces(value, &Known { noun: "entry", names: None }, example, mistakes)
    }

    fn in_braces(value: &Value, known: &Known<'_>, example: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let ValueKind::Map(inside) = &value.kind else {
            mistakes.add(value, format_args!("expected a map in braces, such as `{example}`"));
            return None;
        };
        Some(Self::read(split(inside.clone(), mistakes), value.to_token_stream(), known, mistakes))
    }

    fn read(
        segments: Vec<TokenStream>,
        place: TokenStream,
        known: &Known<'_>,
        mistakes: &mut Mistakes,
    ) -> Self {
        let mut options = Self { entries: Vec::new(), broken: Vec::new(), place };
        for segment in segments {
            let Some((name, rest)) = mistakes.keep(read_name.parse2(segment)) else { continue };
            if let Some(unknown) = known.refuse(&name) {
                // What was meant is not missing as well.
                options.broken.extend(known.meant(&name).map(str::to_owned));
                mistakes.note(unknown);
                continue;
            }
            if options.has(&name.text) {
                mistakes.add(&name, format_args!("`{}` is given twice; remove one of them", name.text));
                continue;
            }
            let value = mistakes.keep(read_equals(&name, rest)).and_then(|value| Value::read(value, mistakes));
            match value {
                Some(value) => options.entries.push(Entry { name, value }),
                None => options.broken.push(name.text),
            }
        }
        options
    }

    /// Whether it was given, even if its value could not be read.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some() || self.broken.iter().any(|broken| broken == name)
    }

    /// The option of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name.text == name)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.broken.is_empty()
    }

    /// Reads an option if it is there.
    pub(crate) fn optional<T>(
        &self,
        name: &str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&Value) -> Result<T>,
    ) -> Option<T> {
        self.get(name).and_then(|entry| mistakes.keep(read(&entry.value)))
    }

    /// Reads an option that must be there; `example` says what to add.
    pub(crate) fn required<T>(
        &self,
        name: &str,
        example: &str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&Value) -> Result<T>,
    ) -> Option<T> {
        if !self.has(name) {
            let message = format!("`{name}` is missing; add {example}");
            if self.place.is_empty() {
                mistakes.add_at(Span::call_site(), message);
            } else {
                mistakes.add(&self.place, message);
            }
        }
        self.optional(name, mistakes, read)
    }
}

/// Which names there may be.
struct Known<'k> {
    noun: &'k str,
    names: Option<&'k [&'k str]>,
}

impl<'k> Known<'k> {
    /// The error for a name that is none of them.
    fn refuse(&self, name: &Name) -> Option<Error> {
        let names = self.names.filter(|names| !names.contains(&&*name.text))?;
        let plural = if self.noun == "entry" { "entrie" } else { self.noun };
        let advice = advice(&name.text, plural, names.iter().copied());
        Some(Error::new_spanned(name, format_args!("unknown {} `{}`{advice}", self.noun, name.text)))
    }

    fn meant(&self, name: &Name) -> Option<&'k str> {
        closest(&name.text, self.names?.iter().copied())
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

fn read_name(input: ParseStream<'_>) -> Result<(Name, TokenStream)> {
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

/// Takes the `=` off what follows a name.
fn read_equals(name: &Name, rest: TokenStream) -> Result<TokenStream> {
    let Name { text, .. } = name;
    let mut tokens = rest.into_iter();
    match tokens.next() {
        Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => {
            let value: TokenStream = tokens.collect();
            if value.is_empty() {
                return Err(Error::new(punct.span(), format_args!("`{text}` has no value; write it after the `=`")));
            }
            Ok(value)
        }
        None => Err(Error::new_spanned(name, format_args!("`{text}` has no value; write `{text} = …`"))),
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
            Err(Error::new(group.span(), format_args!("options are written with `=`: `{text} = …`")))
        }
        Some(other) => Err(Error::new(other.span(), format_args!("expected `=`, as in `{text} = …`"))),
    }
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
