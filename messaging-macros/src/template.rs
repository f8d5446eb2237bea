//! The grammar of channels and of cache keys. Channels follow the same rules, with the same words, as
//! `messaging_core::Pattern::parse`; `tests/data/templates.txt` holds both to it.

use syn::LitStr;

/// A channel, template or glob that has been checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) kind: Kind,
    /// The placeholders, in order.
    pub(crate) names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Exact,
    Template,
    Glob,
}

impl Pattern {
    /// Reads the text of an attribute.
    pub(crate) fn of(literal: &LitStr) -> syn::Result<Self> {
        let text = literal.value();
        Self::parse(&text).map_err(|reason| {
            let message =
                if text.is_empty() { reason } else { format!("{text:?} is not a valid channel: {reason}") };
            syn::Error::new(literal.span(), message)
        })
    }

    /// Reads what can be published to: no glob.
    pub(crate) fn of_publisher(literal: &LitStr) -> syn::Result<Self> {
        let pattern = Self::of(literal)?;
        if pattern.kind == Kind::Glob {
            let message = format!(
                "{:?} is a glob; publish to a channel, or to a template such as \"a:{{id}}\"",
                literal.value()
            );
            return Err(syn::Error::new(literal.span(), message));
        }
        Ok(pattern)
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the channel name is empty".to_owned());
        }
        if let Some(character) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("{character:?} is not allowed in a channel name"));
        }
        let mut names: Vec<String> = Vec::new();
        let mut glob = false;
        each_part(text, |part| {
            match part {
                Part::Literal(literal) => glob |= literal.contains(['*', '?', '[', ']', '\\']),
                Part::Placeholder { inside, touching, is_last } => {
                    let name = inside.strip_suffix('*').unwrap_or(inside);
                    if !is_name(name) {
                        return Err(format!("{{{inside}}} is not a placeholder; write a name like {{id}}"));
                    }
                    if touching {
                        return Err(TOUCHING.to_owned());
                    }
                    if names.iter().any(|earlier| earlier == name) {
                        return Err(format!("{{{name}}} stands there twice"));
                    }
                    if inside.len() != name.len() && !is_last {
                        return Err(format!("{{{inside}}} takes the remainder, so it must stand at the end"));
                    }
                    names.push(name.to_owned());
                }
            }
            Ok(())
        })?;
        let kind = match (names.is_empty(), glob) {
            (false, true) => return Err("a glob and placeholders cannot stand in one pattern".to_owned()),
            (true, true) => Kind::Glob,
            (true, false) => Kind::Exact,
            (false, false) => Kind::Template,
        };
        Ok(Self { kind, names })
    }
}

/// A cache key that has been checked: its placeholders, each a name or a path of names, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) placeholders: Vec<String>,
}

impl Key {
    pub(crate) fn of(literal: &LitStr) -> syn::Result<Self> {
        let text = literal.value();
        Self::parse(&text).map_err(|reason| {
            let message =
                if text.is_empty() { reason } else { format!("{text:?} is not a valid key: {reason}") };
            syn::Error::new(literal.span(), message)
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the key is empty".to_owned());
        }
        if let Some(character) = text.chars().find(|c| c.is_control()) {
            return Err(format!("{character:?} is not allowed in a key"));
        }
        let mut placeholders: Vec<String> = Vec::new();
        each_part(text, |part| {
            if let Part::Placeholder { inside, touching, .. } = part {
                if !inside.split('.').all(is_name) {
                    return Err(format!(
                        "{{{inside}}} is not a placeholder; write a name like {{id}} or a path like \
                            {{user.id}}"
                    ));
                }
                if touching {
                    return Err(TOUCHING.to_owned());
                }
                if placeholders.iter().any(|earlier| earlier == inside) {
                    return Err(format!("{{{inside}}} stands there twice"));
                }
                placeholders.push(inside.to_owned());
            }
            Ok(())
        })?;
        Ok(Self { placeholders })
    }
}

enum Part<'t> {
    Literal(&'t str),
    /// `inside` the braces; `touching` the one before it.
    Placeholder {
        inside: &'t str,
        touching: bool,
        is_last: bool,
    },
}

const TOUCHING: &str = "two placeholders touch each other; put literal text between them";

/// Walks over literal text and placeholders.
fn each_part<'t>(text: &'t str, mut visit: impl FnMut(Part<'t>) -> Result<(), String>) -> Result<(), String> {
    let mut rest = text;
    let mut after_placeholder = false;
    while !rest.is_empty() {
        let (literal, after) = rest.split_at(rest.find(['{', '}']).unwrap_or(rest.len()));
        if !literal.is_empty() {
            after_placeholder = false;
            visit(Part::Literal(literal))?;
        }
        if after.is_empty() {
            break;
        }
        let Some(after_open) = after.strip_prefix('{') else {
            return Err("there is a `}` without its `{`".to_owned());
        };
        let Some((inside, after_close)) = after_open.split_once('}') else {
            return Err("there is a `{` without its `}`".to_owned());
        };
        let touching = std::mem::replace(&mut after_placeholder, true);
        visit(Part::Placeholder { inside, touching, is_last: after_close.is_empty() })?;
        rest = after_close;
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && characters.all(|c| c == '_' || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime's parser is tested with the same file.
    #[test]
    fn channels_follow_the_shared_table() {
        for line in include_str!("../../tests/data/templates.txt").lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let [kind, text, expected] =
                line.splitn(3, " | ").map(str::trim).collect::<Vec<_>>().try_into().expect(line);
            let text = syn::parse_str::<LitStr>(text).expect(line).value();
            let found = match Pattern::parse(&text) {
                Ok(pattern) => {
                    let kind = match pattern.kind {
                        Kind::Exact => "exact",
                        Kind::Template => "template",
                        Kind::Glob => "glob",
                    };
                    (kind, pattern.names.join(" "))
                }
                Err(reason) => ("invalid", reason),
            };
            let expected = if expected == "-" { "" } else { expected };
            assert_eq!(found, (kind, expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn keys() {
        for (text, expected) in [
            ("camera:mac:{mac_address}", Ok(vec!["mac_address"])),
            ("{a}:{user.id}", Ok(vec!["a", "user.id"])),
            ("all cameras", Ok(vec![])),
            ("glob*?", Ok(vec![])),
            ("", Err("the key is empty")),
            ("a\nb", Err("'\\n' is not allowed in a key")),
            ("{a}{b}", Err("two placeholders touch each other; put literal text between them")),
            ("{a}:{a}", Err("{a} stands there twice")),
            ("{a.}", Err("{a.} is not a placeholder; write a name like {id} or a path like {user.id}")),
            ("{rest*}", Err("{rest*} is not a placeholder; write a name like {id} or a path like {user.id}")),
            (
                "{user:{id}}",
                Err("{user:{id} is not a placeholder; write a name like {id} or a path like {user.id}"),
            ),
            ("a}", Err("there is a `}` without its `{`")),
        ] {
            let placeholders = Key::parse(text).map(|key| key.placeholders);
            let expected = expected
                .map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
                .map_err(str::to_owned);
            assert_eq!(placeholders, expected, "{text}");
        }
    }
}
