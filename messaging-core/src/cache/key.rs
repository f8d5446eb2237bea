//! Cache keys: templates, filled so that two lists of values never give one key. Pure values; no I/O.

use crate::channel::escape_glob;
use crate::error::{Error, ErrorKind, Result};

/// A parsed key template: literal text and placeholders, which never touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// A name, or a path into an argument, and the literal character that follows.
    Placeholder(String, Option<char>),
}

impl KeyTemplate {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: &str| {
            Error::new(ErrorKind::InvalidKey, format!("{text:?} is not a valid cache key: {reason}"))
        };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let open = rest.find(['{', '}']).unwrap_or(rest.len());
            if open > 0 {
                parts.push(Part::Literal(rest[..open].to_owned()));
            }
            let Some(inside) = rest[open..].strip_prefix('{') else {
                if open < rest.len() {
                    return Err(wrong("there is a `}` without its `{`"));
                }
                break;
            };
            let Some(end) = inside.find('}') else { return Err(wrong("there is a `{` without its `}`")) };
            if inside[..end].is_empty() || inside[..end].contains(['{', ' ']) {
                return Err(wrong("a placeholder is a name like {id}, or a path like {user.id}"));
            }
            if matches!(parts.last(), Some(Part::Placeholder(..))) {
                return Err(wrong("two placeholders touch each other; put literal text between them"));
            }
            rest = &inside[end + 1..];
            parts.push(Part::Placeholder(inside[..end].to_owned(), rest.chars().next()));
        }
        Ok(Self { parts })
    }

    /// The placeholders, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Placeholder(name, _) => Some(name.as_str()),
        })
    }

    /// The key for these values, given in the placeholders' order.
    pub(crate) fn fill<'v>(&self, mut values: impl Iterator<Item = &'v str>) -> String {
        let mut key = String::new();
        let filled = self.write(&mut key, |_, key| {
            key.push_str(values.next().unwrap_or_default());
            Ok(())
        });
        debug_assert!(filled.is_ok(), "texts can be written");
        key
    }

    /// Appends the key for values that `write` appends, for the placeholders by their place.
    pub(crate) fn write(
        &self,
        key: &mut String,
        mut write: impl FnMut(usize, &mut String) -> Result<()>,
    ) -> Result<()> {
        let mut place = 0;
        for part in &self.parts {
            match part {
                Part::Literal(text) => key.push_str(text),
                Part::Placeholder(_, stop) => {
                    let begin = key.len();
                    write(place, key)?;
                    place += 1;
                    // Byte by byte, since each call of a cached function comes by here.
                    let may_be_stop = stop.map_or(b'%', first_byte);
                    let ambiguous =
                        |byte: u8| (byte == b'%') | (byte == b'{') | (byte == b'}') | (byte == may_be_stop);
                    // To the end, without looking each time whether that is needed: most have none.
                    if key.as_bytes()[begin..].iter().fold(false, |any, byte| any | ambiguous(*byte)) {
                        let value = key.split_off(begin);
                        encode(&value, *stop, key);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether `key` can be one of the template's: the inverse of [`fill`](Self::fill), as far as a text alone can tell.
    /// A last placeholder takes everything, so that `user:{id}` also covers `user:7:session`.
    pub(crate) fn could_be(&self, key: &str) -> bool {
        let mut rest = key;
        for part in &self.parts {
            let (value, after) = match part {
                Part::Literal(text) => match rest.strip_prefix(text.as_str()) {
                    Some(after) => ("", after),
                    None => return false,
                },
                Part::Placeholder(_, None) => (rest, ""),
                // The character that follows is encoded within a value, so the value ends where it first stands.
                Part::Placeholder(_, Some(stop)) => match rest.find(*stop) {
                    Some(end) => rest.split_at(end),
                    None => return false,
                },
            };
            if value.contains(['{', '}']) {
                return false;
            }
            rest = after;
        }
        rest.is_empty()
    }

    /// Whether the template begins with text of its own, which tells its keys from those of others.
    pub(crate) fn has_literal_head(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Literal(_)))
    }

    /// The glob that matches all keys of the template.
    pub(crate) fn glob(&self) -> String {
        let mut glob = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => escape_glob(text, &mut glob),
                Part::Placeholder(..) => glob.push('*'),
            }
        }
        glob
    }
}

fn first_byte(character: char) -> u8 {
    character.encode_utf8(&mut [0; 4]).as_bytes()[0]
}

fn is_ambiguous(character: char, stop: Option<char>) -> bool {
    matches!(character, '%' | '{' | '}') || Some(character) == stop
}

/// Percent-encodes what would make the end of a value ambiguous: `%`, braces, and the literal character that follows.
fn encode(value: &str, stop: Option<char>, key: &mut String) {
    for character in value.chars() {
        if is_ambiguous(character, stop) {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                key.push_str(&format!("%{byte:02X}"));
            }
        } else {
            key.push(character);
        }
    }
}

/// Checks a key that a user wrote out: braces are kept for Redis Cluster's hash tags.
pub(crate) fn check_literal(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::new(ErrorKind::InvalidKey, "the cache key is empty"));
    }
    let tag = key.find('{').and_then(|open| Some((open, open + key[open..].find('}')?)));
    let braces = key.matches(['{', '}']).count();
    match tag {
        Some((open, end)) if braces == 2 && end > open + 1 => Ok(()),
        None if braces == 0 => Ok(()),
        _ => Err(Error::new(
            ErrorKind::InvalidKey,
            format!(
                "{key:?} is not a valid cache key: braces can only enclose one hash tag, as in {{user:1}}:name"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, values: &[&str]) -> String {
        KeyTemplate::parse(template).unwrap().fill(values.iter().copied())
    }

    #[test]
    fn readable_at_the_end_and_never_ambiguous() {
        assert_eq!(filled("camera:mac:{mac}", &["AA:BB:CC"]), "camera:mac:AA:BB:CC");
        assert_eq!(filled("{a}:{b}", &["x:y", "z"]), "x%3Ay:z");
        assert_eq!(filled("{a}:{b}", &["x", "y:z"]), "x:y:z");
        assert_eq!(filled("u:{id}", &["50%{x}"]), "u:50%25%7Bx%7D");
        assert_eq!(filled("{a}é{b}", &["é", "é"]), "%C3%A9éé");
        assert_eq!(filled("users:active", &[]), "users:active");
        assert_eq!(filled("{a}:x", &[""]), ":x");
    }

    #[test]
    fn a_key_is_known_by_its_text() {
        let template = KeyTemplate::parse("camera:{site}:mac:{mac}").unwrap();
        for (key, expected) in [
            ("camera:7:mac:AA:BB", true),
            ("camera:a%3Ab:mac:", true),
            ("camera:7:8:mac:AA", false),
            ("camera:7:mac", false),
            ("camera:7:mac:{x}", false),
            ("session:abc", false),
        ] {
            assert_eq!(template.could_be(key), expected, "{key}");
        }
        assert!(KeyTemplate::parse("users:active").unwrap().could_be("users:active"));
        assert!(!KeyTemplate::parse("users:active").unwrap().could_be("users:active:1"));
    }

    #[test]
    fn globs_escape_the_literal_text() {
        assert_eq!(KeyTemplate::parse("a*b:{x}:c").unwrap().glob(), "a\\*b:*:c");
    }

    #[test]
    fn wrong_templates_say_why() {
        for (text, reason) in
            [("", "empty"), ("a{b}{c}", "touch"), ("a{", "without"), ("a}", "without"), ("{}", "placeholder")]
        {
            let error = KeyTemplate::parse(text).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert_eq!(error.kind(), ErrorKind::InvalidKey);
        }
        for (key, good) in
            [("a", true), ("{a}:b", true), ("{a}{b}", false), ("{}", false), ("a}", false), ("", false)]
        {
            assert_eq!(check_literal(key).is_ok(), good, "{key}");
        }
    }

    proptest::proptest! {
        #[test]
        fn different_values_give_different_keys(a in "[a:%{}|]{0,4}", b in "[a:%{}|]{0,4}", c in "[a:%{}|]{0,4}", d in "[a:%{}|]{0,4}") {
            let same = filled("k:{a}:{b}", &[&a, &b]) == filled("k:{a}:{b}", &[&c, &d]);
            proptest::prop_assert_eq!(same, a == c && b == d);
            let template = KeyTemplate::parse("k:{a}:{b}").unwrap();
            let could_be = template.could_be(&filled("k:{a}:{b}", &[&a, &b]));
            proptest::prop_assert!(could_be);
        }
    }
}
