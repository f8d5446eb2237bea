//! JSON for eyes and for other programs: on one line, and coloured. The text stays as it was written: order, numbers and
//! escapes.

use anstyle::{AnsiColor, Style};
use serde_json::value::RawValue;

use crate::output::{DIM, PLAIN, is_shown, paint};

const KEY: Style = AnsiColor::Blue.on_default();
const TEXT: Style = AnsiColor::Green.on_default();
const OTHER: Style = AnsiColor::Yellow.on_default();

/// Reads bytes as one JSON value, without white space around its parts. `None` if they are none.
pub(crate) fn read(bytes: &[u8]) -> Option<Box<RawValue>> {
    let raw: &RawValue = serde_json::from_slice(bytes).ok()?;
    let compact: String = tokens(raw.get()).map(|token| token.text).collect();
    RawValue::from_string(compact).ok()
}

/// JSON in colours; characters that would steer a terminal are written as escapes, which mean the same.
pub(crate) fn coloured(json: &RawValue) -> String {
    tokens(json.get())
        .map(|token| {
            let style = match token.kind {
                Kind::Key => KEY,
                Kind::Text => TEXT,
                Kind::Other => OTHER,
                Kind::Mark => DIM,
            };
            paint(style, &escaped(token.text))
        })
        .collect()
}

/// The same on several lines.
pub(crate) fn laid_out(json: &RawValue) -> String {
    let mut shown = String::new();
    let (mut depth, mut opened) = (0_usize, false);
    let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
    for token in tokens(json.get()) {
        match token.text {
            "}" | "]" => {
                depth -= 1;
                if !opened {
                    shown.push_str(&line(depth));
                }
            }
            _ if opened => shown.push_str(&line(depth)),
            _ => {}
        }
        let style = match token.kind {
            Kind::Key => KEY,
            Kind::Text => TEXT,
            Kind::Other => OTHER,
            Kind::Mark => PLAIN,
        };
        shown.push_str(&paint(style, &escaped(token.text)));
        opened = matches!(token.text, "{" | "[");
        match token.text {
            "{" | "[" => depth += 1,
            ":" => shown.push(' '),
            "," => shown.push_str(&line(depth)),
            _ => {}
        }
    }
    shown
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Key,
    Text,
    /// A number, `true`, `false`, `null`.
    Other,
    /// What stands between.
    Mark,
}

struct Token<'j> {
    kind: Kind,
    text: &'j str,
}

/// The parts of valid JSON.
fn tokens(json: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = json;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let first = rest.chars().next()?;
        let end = match first {
            '"' => text_end(rest),
            '{' | '}' | '[' | ']' | ',' | ':' => 1,
            _ => rest.find([',', '}', ']', ' ', '\t', '\n', '\r']).unwrap_or(rest.len()),
        };
        let (text, after) = rest.split_at(end);
        rest = after;
        let kind = match first {
            '"' if after.trim_start().starts_with(':') => Kind::Key,
            '"' => Kind::Text,
            '{' | '}' | '[' | ']' | ',' | ':' => Kind::Mark,
            _ => Kind::Other,
        };
        Some(Token { kind, text })
    })
}

/// Where a string ends, behind its second quote.
fn text_end(json: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in json.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    json.len()
}

/// JSON allows DEL and others as they are; a terminal does not.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_shown(character) {
            escaped.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_colours(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn json_stays_as_it_was_written() {
        let json = br#" { "b" : 18446744073709551616.0 , "a" : [ "x \" : {" , true , { } , [ ] ] , "\u00e9": null } "#;
        let read = read(json).unwrap();
        assert_eq!(read.get(), r#"{"b":18446744073709551616.0,"a":["x \" : {",true,{},[]],"\u00e9":null}"#);
        assert_eq!(without_colours(&coloured(&read)), read.get());
        assert!(super::read(b"{").is_none() && super::read(b"").is_none() && super::read(b"\xff").is_none());
    }

    #[test]
    fn json_is_laid_out() {
        let read = read(br#"{"a":[1,{"b":{}}],"c":[]}"#).unwrap();
        expect_test::expect![[r#"
            {
              "a": [
                1,
                {
                  "b": {}
                }
              ],
              "c": []
            }"#]]
        .assert_eq(&without_colours(&laid_out(&read)));
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let read = read("\"\u{7f}\u{9b}2J\u{202e}\"".as_bytes()).unwrap();
        assert_eq!(without_colours(&coloured(&read)), r#""\u007f\u009b2J\u202e""#);
    }
}
