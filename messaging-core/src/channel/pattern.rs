//! Templates with placeholders, and what a subscription listens to: parsing, filling, matching. Pure values; no I/O.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::glob::{glob_matches, globs_may_meet};
use super::{Channel, check_literal, invalid, is_glob};
use crate::error::Result;

/// A parsed channel template with at least one placeholder.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Template {
    source: Cow<'static, str>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Literal(String),
    Placeholder(String),
    Rest(String),
}

/// The places of a template's placeholders within a channel that matched it, in the template's order.
pub(crate) type Captures = Vec<Range<usize>>;

impl Template {
    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The names of the placeholders, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Placeholder(name) | Part::Rest(name) => Some(name.as_str()),
        })
    }

    /// The channel with these values at the placeholders.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`](crate::ErrorKind::InvalidChannel) if a value is missing, or would change which channel
    /// the name means: one that is empty, or has a separator, a glob character, whitespace or a brace.
    ///
    /// ```
    /// use messaging_core::Pattern;
    ///
    /// let Pattern::Template(chat) = Pattern::parse("chat:{room}")? else { unreachable!() };
    /// assert_eq!(chat.fill(|_| Some("7".to_owned()))?.as_str(), "chat:7");
    /// assert!(chat.fill(|_| Some("7:8".to_owned())).is_err());
    /// assert_eq!(chat.values("chat:7"), Some(vec![("room", "7")]));
    /// # Ok::<_, messaging_core::Error>(())
    /// ```
    pub fn fill(&self, mut value: impl FnMut(&str) -> Option<String>) -> Result<Channel> {
        let mut missing = None;
        let filled = fill(&self.source, |name| {
            let value = value(name);
            if value.is_none() {
                missing = Some(name.to_owned());
            }
            Ok(value)
        })?;
        filled.ok_or_else(|| {
            let name = missing.unwrap_or_default();
            invalid(&self.source, format_args!("there is no value for {{{name}}}"))
        })
    }

    /// The values at the placeholders of a channel, by their names; `None` if it is not a channel of this template.
    #[must_use]
    pub fn values<'s>(&'s self, channel: &'s str) -> Option<Vec<(&'s str, &'s str)>> {
        let mut captures = Captures::new();
        let matches = self.captures(channel, &mut captures);
        matches.then(|| self.names().zip(captures.into_iter().map(|place| &channel[place])).collect())
    }

    /// Whether `channel` matches; if so, `captures` holds the places of the values. Leftmost, shortest.
    pub(crate) fn captures(&self, channel: &str, captures: &mut Captures) -> bool {
        captures.clear();
        capture(&self.parts, channel, 0, captures)
    }

    /// The Redis pattern that covers every channel of this template (and more: it may cross separators).
    pub(crate) fn to_glob(&self) -> String {
        let mut glob = String::with_capacity(self.source.len());
        self.write_with("*", &mut glob);
        glob
    }

    /// Appends the template with this in place of each placeholder.
    pub(crate) fn write_with(&self, placeholder: &str, into: &mut String) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => into.push_str(text),
                Part::Placeholder(_) | Part::Rest(_) => into.push_str(placeholder),
            }
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.source, f)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

fn capture(parts: &[Part], channel: &str, at: usize, captures: &mut Captures) -> bool {
    let Some((first, rest)) = parts.split_first() else { return at == channel.len() };
    match first {
        Part::Literal(text) => {
            channel[at..].starts_with(text.as_str()) && capture(rest, channel, at + text.len(), captures)
        }
        Part::Rest(_) => {
            captures.push(at..channel.len());
            at < channel.len()
        }
        Part::Placeholder(_) => {
            let depth = captures.len();
            for (offset, character) in channel[at..].char_indices() {
                if is_separator(character) {
                    return false;
                }
                let end = at + offset + character.len_utf8();
                captures.push(at..end);
                if capture(rest, channel, end, captures) {
                    return true;
                }
                captures.truncate(depth);
            }
            false
        }
    }
}

/// What a subscription listens to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// One channel.
    Exact(Channel),
    /// All channels of a template, with typed values at the placeholders.
    Template(Template),
    /// All channels that a Redis glob matches.
    Glob(String),
}

impl Pattern {
    /// Reads text as a channel, a template or a glob.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`](crate::ErrorKind::InvalidChannel) with the place and the reason.
    ///
    /// ```
    /// use messaging_core::Pattern;
    ///
    /// assert!(matches!(Pattern::parse("camera.created").unwrap(), Pattern::Exact(_)));
    /// assert!(matches!(Pattern::parse("chat:{room}").unwrap(), Pattern::Template(_)));
    /// assert!(matches!(Pattern::parse("events.*").unwrap(), Pattern::Glob(_)));
    /// assert!(Pattern::parse("chat:{room}*").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        check_literal(text, text)?;
        let parts = split(text)?;
        let has_placeholder = parts.iter().any(|part| !matches!(part, Part::Literal(_)));
        let literal_glob =
            parts.iter().any(|part| matches!(part, Part::Literal(literal) if literal.contains(is_glob)));
        match (has_placeholder, literal_glob) {
            (true, true) => Err(invalid(text, "a glob and placeholders cannot stand in one pattern")),
            (false, true) => Ok(Self::Glob(text.to_owned())),
            (false, false) => Ok(Self::Exact(Channel(text.into()))),
            (true, false) => Ok(Self::Template(Template { source: Cow::Owned(text.to_owned()), parts })),
        }
    }

    /// The text that [`parse`](Self::parse) reads as this pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(channel) => channel,
            Self::Template(template) => template.as_str(),
            Self::Glob(glob) => glob,
        }
    }

    /// Whether a message on `channel` belongs to this pattern.
    #[must_use]
    pub fn matches(&self, channel: &str) -> bool {
        self.captures(channel, &mut Captures::new())
    }

    pub(crate) fn captures(&self, channel: &str, captures: &mut Captures) -> bool {
        captures.clear();
        match self {
            Self::Exact(exact) => exact == channel,
            Self::Template(template) => template.captures(channel, captures),
            Self::Glob(glob) => glob_matches(glob.as_bytes(), channel.as_bytes()),
        }
    }

    /// The names of the placeholders, in order; empty for exact channels and globs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let template = match self {
            Self::Template(template) => Some(template),
            Self::Exact(_) | Self::Glob(_) => None,
        };
        template.into_iter().flat_map(Template::names)
    }

    /// How Redis is asked for it: SUBSCRIBE with a name, or PSUBSCRIBE with a pattern.
    pub(crate) fn wire(&self) -> Wire {
        match self {
            Self::Exact(channel) => Wire { kind: Kind::Channel, name: channel.as_str().to_owned() },
            Self::Template(template) => Wire { kind: Kind::Glob, name: template.to_glob() },
            Self::Glob(glob) => Wire { kind: Kind::Glob, name: glob.clone() },
        }
    }

    /// Whether some channel could match both. Exact for two exact channels; otherwise it may say yes too often, never
    /// no wrongly.
    pub(crate) fn may_overlap(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), b) => b.matches(a),
            (a, Self::Exact(b)) => a.matches(b),
            (a, b) => globs_may_meet(a.wire().name.as_bytes(), b.wire().name.as_bytes()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE argument.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Wire {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// How Redis is asked for a subscription: by SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE. The channels of the last are a namespace
/// of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Channel,
    Glob,
    Sharded,
}

/// Fills a template whose values are given by name. `None` for a value means that the channel does not apply.
///
/// The template's text is taken as valid: the macros have checked it.
pub(crate) fn fill(
    template: &str,
    mut value: impl FnMut(&str) -> Result<Option<String>>,
) -> Result<Option<Channel>> {
    let parts = split(template)?;
    let mut name = String::with_capacity(template.len() + 32);
    let mut places = Captures::new();
    for part in &parts {
        match part {
            Part::Literal(text) => name.push_str(text),
            Part::Placeholder(placeholder) | Part::Rest(placeholder) => {
                let Some(text) = value(placeholder)? else { return Ok(None) };
                check_value(template, placeholder, &text, matches!(part, Part::Rest(_)))?;
                places.push(name.len()..name.len() + text.len());
                name.push_str(&text);
            }
        }
    }
    // Two placeholders in one segment (`{a}-{b}`) can be filled so that they read back differently.
    if places.len() > 1 {
        let mut read = Captures::new();
        if !capture(&parts, &name, 0, &mut read) || read != places {
            return Err(invalid(
                template,
                format_args!("filled in it is {name:?}, which reads back differently"),
            ));
        }
    }
    Ok(Some(Channel(name.into())))
}

/// Refuses a value that would change which channel a name means.
fn check_value(template: &str, placeholder: &str, value: &str, rest: bool) -> Result<()> {
    let refuse = |reason: &dyn fmt::Display| {
        Err(invalid(template, format_args!("the value of {{{placeholder}}} {reason}")))
    };
    if value.is_empty() {
        return refuse(&"is empty");
    }
    match value.chars().find(|c| {
        (is_separator(*c) && !rest)
            || is_glob(*c)
            || c.is_whitespace()
            || c.is_control()
            || matches!(c, '{' | '}')
    }) {
        Some(character) => refuse(&format_args!("has the character {character:?}, which no value may have")),
        None => Ok(()),
    }
}

fn split(text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let literal_end = rest.find(['{', '}']).unwrap_or(rest.len());
        let (literal, after) = rest.split_at(literal_end);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let Some(after_open) = after.strip_prefix('{') else {
            if after.starts_with('}') {
                return Err(invalid(text, "there is a `}` without its `{`"));
            }
            break;
        };
        let Some(end) = after_open.find('}') else {
            return Err(invalid(text, "there is a `{` without its `}`"));
        };
        let inside = &after_open[..end];
        rest = &after_open[end + 1..];
        let name = inside.strip_suffix('*').unwrap_or(inside);
        if !is_name(name) {
            return Err(invalid(
                text,
                format_args!("{{{inside}}} is not a placeholder; write a name like {{id}}"),
            ));
        }
        if !matches!(parts.last(), None | Some(Part::Literal(_))) {
            return Err(invalid(text, "two placeholders touch each other; put literal text between them"));
        }
        if parts.iter().any(|part| matches!(part, Part::Placeholder(n) | Part::Rest(n) if n == name)) {
            return Err(invalid(text, format_args!("{{{name}}} stands there twice")));
        }
        if inside.len() == name.len() {
            parts.push(Part::Placeholder(name.to_owned()));
        } else if rest.is_empty() {
            parts.push(Part::Rest(name.to_owned()));
        } else {
            return Err(invalid(
                text,
                format_args!("{{{inside}}} takes the remainder, so it must stand at the end"),
            ));
        }
    }
    Ok(parts)
}

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && characters.all(|c| c == '_' || c.is_alphanumeric())
}

fn is_separator(character: char) -> bool {
    matches!(character, '.' | ':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn captured(template: &str, channel: &str) -> Option<Vec<String>> {
        let mut captures = Captures::new();
        Pattern::parse(template)
            .unwrap()
            .captures(channel, &mut captures)
            .then(|| captures.into_iter().map(|range| channel[range].to_owned()).collect())
    }

    #[test]
    fn placeholders_stay_within_a_segment() {
        let some = |values: &[&str]| Some(values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        for (template, channel, expected) in [
            ("camera.{id}", "camera.7", some(&["7"])),
            ("camera.{id}", "camera.", None),
            ("camera.{id}", "camera.7.moved", None),
            ("camera.{id}", "camera.7:moved", None),
            ("a:{x}:b:{y}", "a:1:b:2", some(&["1", "2"])),
            ("a:{x}:b:{y}", "a:1:c:2", None),
            ("{x}-{y}", "a-b-c", some(&["a", "b-c"])),
            ("v{x}x", "vaxx", some(&["ax"])),
            ("log:{rest*}", "log:a.b:c", some(&["a.b:c"])),
            ("log:{rest*}", "log:", None),
            ("raum:{name}", "raum:küche", some(&["küche"])),
            ("plain", "plain", some(&[])),
            ("plain", "plain.x", None),
        ] {
            assert_eq!(captured(template, channel), expected, "{template} on {channel}");
        }
    }

    #[test]
    fn filling_refuses_what_would_mean_another_channel() {
        let fill_with = |value: &str| {
            fill("tenant:{id}:update", |_| Ok(Some(value.to_owned())))
                .map(|channel| channel.unwrap().as_str().to_owned())
        };
        assert_eq!(fill_with("7").unwrap(), "tenant:7:update");
        for bad in ["", "a:b", "a.b", "*", "a?", "[a]", "a\\", "a b", "a\n", "\u{0}", "{x}", "\u{2003}"] {
            let error = fill_with(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidChannel, "{bad:?}");
            assert!(error.is_not_sent());
        }
        assert!(fill("x:{id}", |_| Ok(None)).unwrap().is_none());
        let rest = fill("log:{rest*}", |_| Ok(Some("a.b:c".to_owned()))).unwrap().unwrap();
        assert_eq!(rest, "log:a.b:c");
    }

    #[test]
    fn an_ambiguous_filling_is_refused() {
        let two =
            |a: &str, b: &str| fill("{a}-{b}", |name| Ok(Some(if name == "a" { a } else { b }.to_owned())));
        assert_eq!(two("x", "y-z").unwrap().unwrap(), "x-y-z");
        assert!(two("x-y", "z").unwrap_err().to_string().contains("reads back differently"));
    }

    /// The attributes read templates with a parser of their own, which is tested against the same table.
    #[test]
    fn the_attributes_and_the_runtime_read_templates_alike() {
        let table = include_str!("../../../tests/data/templates.txt");
        let mut rows = 0;
        for row in table.lines().filter(|row| !row.is_empty() && !row.starts_with('#')) {
            let mut cells = row.splitn(2, '|').map(str::trim);
            let (Some(kind), Some(rest)) = (cells.next(), cells.next()) else { panic!("{row}") };
            let (text, expected) = rest.rsplit_once('|').unwrap();
            let (text, expected) = (serde_json::from_str::<String>(text.trim()).unwrap(), expected.trim());
            let read = match Pattern::parse(&text) {
                Err(error) => ("invalid", error.to_string()),
                Ok(pattern) => {
                    let names = pattern.names().collect::<Vec<_>>().join(" ");
                    let kind = match pattern {
                        Pattern::Exact(_) => "exact",
                        Pattern::Template(_) => "template",
                        Pattern::Glob(_) => "glob",
                    };
                    (kind, if names.is_empty() { "-".to_owned() } else { names })
                }
            };
            assert_eq!(read.0, kind, "{row}");
            assert!(
                if kind == "invalid" { read.1.contains(expected) } else { read.1 == expected },
                "{row}: {read:?}"
            );
            rows += 1;
        }
        assert!(rows > 20, "{rows} rows");
    }

    #[test]
    fn text_that_is_no_pattern_says_why() {
        for (text, reason) in [
            ("", "empty"),
            ("a b", "' '"),
            ("a{", "without its `}`"),
            ("a}", "without its `{`"),
            ("{}", "write a name"),
            ("{1a}", "write a name"),
            ("{a}{b}", "touch"),
            ("{a}.{a}", "twice"),
            ("{a*}.b", "at the end"),
            ("{a}.*", "glob and placeholders"),
        ] {
            let error = Pattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn overlap_is_never_denied_wrongly() {
        let overlap = |a: &str, b: &str| Pattern::parse(a).unwrap().may_overlap(&Pattern::parse(b).unwrap());
        assert!(overlap("a.{x}", "a.b"));
        assert!(!overlap("a.{x}", "b.b"));
        assert!(overlap("a.{x}", "*.b"));
        assert!(!overlap("a.{x}.end", "a.*.start"));
        assert!(overlap("{x}.end", "start.{y}"));
    }
}
