//! The grammar that all attributes share: `name = value`, separated by commas. Knows where everything stands; knows
//! nothing of what any option means.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{Error, Result};

use crate::mistakes::Mistakes;
use crate::names::{advice, closest};
use crate::option_name::Name;
use crate::value::{Value, ValueKind, split};

/// The options of an attribute or the entries of a map.
pub(crate) struct Options {
    entries: Vec<Entry>,
    /// Options that stand there without a value, as they may.
    bare: Vec<Name>,
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

impl Options {
    /// Reads the options of an attribute. `known` are their names; others are mistakes.
    pub(crate) fn of_attribute(segments: Vec<TokenStream>, known: &[&str], mistakes: &mut Mistakes) -> Self {
        Self::with_bare_words(segments, known, &[], mistakes)
    }

    /// The same where some of the known names, `bare`, may stand without a value.
    pub(crate) fn with_bare_words(
        segments: Vec<TokenStream>,
        known: &[&str],
        bare: &[&str],
        mistakes: &mut Mistakes,
    ) -> Self {
        let known = Known { noun: "option", names: Some(known), bare, take: Name::take };
        Self::read(segments, TokenStream::new(), &known, mistakes)
    }

    /// Reads the entries of a map value; `example` shows what one may hold.
    pub(crate) fn of_map(
        value: &Value,
        known: &[&str],
        example: &str,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let known = Known { noun: "entry", names: Some(known), bare: &[], take: Name::take };
        Self::in_braces(value, &known, example, mistakes)
    }

    /// Reads the entries of a map value, whatever their names are.
    pub(crate) fn of_free_map(value: &Value, example: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let known = Known { noun: "entry", names: None, bare: &[], take: Name::take };
        Self::in_braces(value, &known, example, mistakes)
    }

    /// The same where names may stand in quotes.
    pub(crate) fn of_quotable_map(value: &Value, example: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let known = Known { noun: "entry", names: None, bare: &[], take: Name::take_quotable };
        Self::in_braces(value, &known, example, mistakes)
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
        let mut options =
            Self { entries: Vec::new(), bare: Vec::new(), broken: Vec::new(), meant: Vec::new(), place };
        for segment in segments {
            let Some((name, rest)) = mistakes.keep((known.take)(segment)) else { continue };
            if let Some(unknown) = known.refuse(&name) {
                options.meant.extend(known.meant(&name).map(str::to_owned));
                mistakes.note(unknown);
                continue;
            }
            if options.is_given(&name.text) {
                mistakes.add(&name, format_args!("`{}` is given twice; remove one of them", name.text));
                continue;
            }
            if rest.is_empty() && known.bare.contains(&&*name.text) {
                options.bare.push(name);
                continue;
            }
            let value = mistakes.keep(name.take_equals(rest)).and_then(|value| Value::read(value, mistakes));
            match value {
                Some(value) => options.entries.push(Entry { name, value }),
                None => options.broken.push(name.text),
            }
        }
        options
    }

    /// Whether it was given, even if with a mistake: then it is not missing as well.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.is_given(name) || self.meant.iter().any(|meant| meant == name)
    }

    fn is_given(&self, name: &str) -> bool {
        let is = |given: &String| given == name;
        self.name(name).is_some() || self.broken.iter().any(is)
    }

    /// Whether an option stands there as a bare word.
    pub(crate) fn is_bare(&self, name: &str) -> bool {
        self.bare.iter().any(|bare| bare.text == name)
    }

    /// Whether an option is there that is a bare word and nothing else.
    pub(crate) fn flag(&self, name: &str, mistakes: &mut Mistakes) -> bool {
        if let Some(Entry { value, .. }) = self.get(name) {
            mistakes.add(value, format_args!("`{name}` takes no value; write `{name}` alone"));
        }
        self.is_bare(name)
    }

    /// Where the name of an option stands, with a value or alone.
    pub(crate) fn name(&self, name: &str) -> Option<&Name> {
        let entries = self.entries.iter().map(|entry| &entry.name);
        entries.chain(&self.bare).find(|given| given.text == name)
    }

    /// The option of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name.text == name)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.bare.is_empty() && self.broken.is_empty() && self.meant.is_empty()
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
    /// Those of them that may stand without a value.
    bare: &'k [&'k str],
    /// Takes a name off the front of an option.
    take: fn(TokenStream) -> Result<(Name, TokenStream)>,
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
    fn bare_words() {
        check(
            r#"key = "a", ttl"#,
            expect![[r#"
                key = "a"
                error: `ttl` has no value; write `ttl = …`
            "#]],
        );
        let mut mistakes = Mistakes::default();
        let segments = split("on, in = 5, on".parse().unwrap(), &mut mistakes);
        let options = Options::with_bare_words(segments, &["on", "in"], &["on", "in"], &mut mistakes);
        assert!(options.has("on") && options.is_bare("on") && options.flag("on", &mut mistakes));
        assert!(options.has("in") && !options.is_bare("in") && !options.flag("in", &mut mistakes));
        let errors = mistakes.into_error().into_iter().flatten().map(|error| format!("{error}\n"));
        expect![[r#"
            `on` is given twice; remove one of them
            `in` takes no value; write `in` alone
        "#]]
        .assert_eq(&errors.collect::<String>());
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
