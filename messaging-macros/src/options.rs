//! The grammar that all attributes share: `name = value`, separated by commas. Knows where everything stands; knows
//! nothing of what any option means.

use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Result, Token};

use crate::mistakes::Mistakes;
use crate::names::{advice, closest};
use crate::value::{Value, ValueKind, split};

/// The options of an attribute or the entries of a map.
pub(crate) struct Options {
    entries: Vec<Entry>,
    /// Names whose value could not be read.
    broken: Vec<String>,
    /// Names that were probably meant by unknown ones.
    meant: Vec<String>,
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
        let mut options = Self { entries: Vec::new(), broken: Vec::new(), meant: Vec::new(), place };
        for segment in segments {
            let Some((name, rest)) = mistakes.keep(read_name.parse2(segment)) else { continue };
            if let Some(unknown) = known.refuse(&name) {
                options.meant.extend(known.meant(&name).map(str::to_owned));
                mistakes.note(unknown);
                continue;
            }
            if options.get(&name.text).is_some() || options.broken.contains(&name.text) {
                mistakes.add(&name, format_args!("`{}` is given twice; remove one of them", name.text));
                continue;
            }
            let value =
                mistakes.keep(read_equals(&name, rest)).and_then(|value| Value::read(value, mistakes));
            match value {
                Some(value) => options.entries.push(Entry { name, value }),
                None => options.broken.push(name.text),
            }
        }
        options
    }

    /// Whether it was given, even if with a mistake: then it is not missing as well.
    pub(crate) fn has(&self, name: &str) -> bool {
        let is = |given: &String| given == name;
        self.get(name).is_some() || self.broken.iter().any(is) || self.meant.iter().any(is)
    }

    /// The option of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name.text == name)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.broken.is_empty() && self.meant.is_empty()
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
                return Err(Error::new(
                    punct.span(),
                    format_args!("`{text}` has no value; write it after the `=`"),
                ));
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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Shows the options that were read, and then the mistakes.
    fn check(text: &str, expected: Expect) {
        let mut mistakes = Mistakes::default();
        let segments = split(text.parse().unwrap(), &mut mistakes);
        let options = Options::of_attribute(segments, &["key", "ttl", "on", "in"], &mut mistakes);
        options.required("key", "`key = …`", &mut mistakes, Value::text);
        let entries = options.entries().iter().map(|Entry { name, value }| {
            format!("{} = {}\n", name.text, value.to_token_stream().to_string().replace(' ', ""))
        });
        let errors = mistakes.into_error().into_iter().flatten().map(|error| format!("error: {error}\n"));
        expected.assert_eq(&entries.chain(errors).collect::<String>());
    }

    #[test]
    fn names_and_values() {
        check(
            r#"key = "a", ttl = 30, on = [Camera(update, delete), a::<B, C>, { x.y = z.type }], in = ::a::b,"#,
            expect![[r#"
                key = "a"
                ttl = 30
                on = [Camera(update,delete),a::<B,C>,{x.y=z.type}]
                in = ::a::b
            "#]],
        );
    }

    #[test]
    fn a_missing_option_is_reported_unless_it_was_tried() {
        check(
            "",
            expect![[r#"
            error: `key` is missing; add `key = …`
        "#]],
        );
        check(
            "kye = 1",
            expect![[r#"
            error: unknown option `kye`; did you mean `key`? the options are `key`, `ttl`, `on` and `in`
        "#]],
        );
        check(
            "key",
            expect![[r#"
            error: `key` has no value; write `key = …`
        "#]],
        );
        check(
            "key = 1",
            expect![[r#"
            key = 1
            error: expected text in quotes
        "#]],
        );
    }

    #[test]
    fn all_mistakes_are_reported() {
        check(
            r#"key = "a", , ttl = , 5, on: 1, in(x), key = "b", other = 2, ttl = 3 4"#,
            expect![[r#"
                key = "a"
                error: there is nothing before this comma; remove it
                error: `ttl` has no value; write it after the `=`
                error: expected `name = value`
                error: expected `=`, as in `on = …`
                error: options are written with `=`: `in = …`
                error: `key` is given twice; remove one of them
                error: unknown option `other`; the options are `key`, `ttl`, `on` and `in`
                error: `ttl` is given twice; remove one of them
            "#]],
        );
    }

    #[test]
    fn values_that_are_none() {
        check(
            r#"key = "a", ttl = -, on = 3 4, in = [1, +, 2 3, a b]"#,
            expect![[r#"
            key = "a"
            error: expected a value: text in quotes, a number, a name, a list in `[]` or a map in `{}`
            error: expected a comma before this
            error: expected a value: text in quotes, a number, a name, a list in `[]` or a map in `{}`
            error: expected a comma before this
            error: expected a comma before this
        "#]],
        );
    }

    #[test]
    fn a_misspelt_option_beside_the_right_one_is_only_unknown() {
        check(
            r#"kye = 1, key = "a""#,
            expect![[r#"
            key = "a"
            error: unknown option `kye`; did you mean `key`? the options are `key`, `ttl`, `on` and `in`
        "#]],
        );
    }
}
