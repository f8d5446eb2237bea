//! Payloads as JSON: encoding, decoding from the received bytes, scalar text, and looking a value up by its path.
//! Pure values; no I/O.

mod scalar;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|source| {
        Error::new(
            ErrorKind::Encode,
            format!("cannot write {} as JSON: {source}", std::any::type_name::<T>()),
        )
        .with_source(source)
    })
}

/// Decodes, borrowing from the bytes where the type does. One UTF-8 check for the whole payload is cheaper than one
/// for every string in it.
pub(crate) fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T> {
    if payload.is_empty() {
        return Err(Error::new(ErrorKind::Decode, "the payload is empty; JSON was expected"));
    }
    let text = std::str::from_utf8(payload).map_err(|source| {
        Error::new(ErrorKind::Decode, format!("the payload is not UTF-8 text: {source}")).with_source(source)
    })?;
    serde_json::from_str(text).map_err(|source| {
        Error::new(ErrorKind::Decode, format!("not a {}: {source}", short_type_name::<T>()))
            .with_source(source)
    })
}

/// `Camera` for `service::models::Camera`; generic arguments keep their paths.
pub(crate) fn short_type_name<T: ?Sized>() -> &'static str {
    let name = std::any::type_name::<T>();
    let generics = name.find('<').unwrap_or(name.len());
    name[..generics].rfind("::").map_or(name, |at| &name[at + 2..])
}

/// At most 120 characters of a payload, made printable, for logs.
pub(crate) fn excerpt(payload: &[u8]) -> String {
    printable::<120>(payload)
}

/// At most 2,000 characters of an error, made printable, to be kept.
pub(crate) fn shortened(text: &str) -> String {
    printable::<2_000>(text.as_bytes())
}

fn printable<const LONGEST: usize>(payload: &[u8]) -> String {
    // No character has more than four bytes.
    let head = String::from_utf8_lossy(&payload[..payload.len().min(4 * LONGEST)]);
    let mut text = String::new();
    for character in head.chars().take(LONGEST) {
        match character.is_control() {
            true => text.extend(character.escape_default()),
            false => text.push(character),
        }
    }
    if payload.len() > 4 * LONGEST || head.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

/// A value's *scalar text*: the contents of a string, an integer, or `true`/`false`, exactly as serde writes it; `None`
/// for null. Channels and cache keys are filled with it, whether the value comes from an argument, a field or a payload.
pub(crate) fn scalar_text<T: Serialize + ?Sized>(value: &T) -> Result<Option<String>> {
    let mut text = String::new();
    Ok(write_scalar(value, &mut text)?.then_some(text))
}

/// Appends a value's [`scalar_text`]; `false` and nothing for null.
pub(crate) fn write_scalar<T: Serialize + ?Sized>(value: &T, text: &mut String) -> Result<bool> {
    let before = text.len();
    if let Ok(written) = scalar::write(value, text) {
        return Ok(written);
    }
    // What only serde_json knows, and what is wrong.
    text.truncate(before);
    let other = scalar_of_json(value)?;
    other.iter().for_each(|other| text.push_str(other));
    Ok(other.is_some())
}

fn scalar_of_json<T: Serialize + ?Sized>(value: &T) -> Result<Option<String>> {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => Ok(Some(text)),
        Ok(Value::Bool(value)) => Ok(Some(value.to_string())),
        Ok(Value::Null) => Ok(None),
        Ok(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
        Ok(other) => Err(no_scalar::<T>(&kind_of(&other))),
        Err(source) => Err(no_scalar::<T>(&source).with_source(source)),
    }
}

fn no_scalar<T: ?Sized>(found: &dyn fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidKey,
        format!(
            "a {} cannot fill a placeholder: only strings, integers and booleans can, this is {found}",
            short_type_name::<T>()
        ),
    )
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a floating-point number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What stands at a path of a JSON text, seen as something that may fill a placeholder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The path leads nowhere, or to something that is no scalar: nothing can be derived.
    Nothing,
    /// `null`: there is deliberately no value.
    Null,
    /// A scalar, or the scalars of an array.
    Scalars(Vec<String>),
}

/// Looks `path` (`resource_id`, `metadata.slug`) up in a JSON text. Numbers are taken as they are written, so a `u64`
/// above 2^53 stays exact.
pub(crate) fn find(json: &str, path: &str) -> Found {
    let Ok(mut current) = serde_json::from_str::<&RawValue>(json) else { return Found::Nothing };
    for name in path.split('.') {
        match member(current, name) {
            Some(next) => current = next,
            None => return Found::Nothing,
        }
    }
    let text = current.get();
    if text == "null" {
        return Found::Null;
    }
    if text.starts_with('[') {
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text) else { return Found::Nothing };
        return items
            .into_iter()
            .map(|item| scalar_at(item.get()))
            .collect::<Option<Vec<_>>>()
            .map_or(Found::Nothing, Found::Scalars);
    }
    scalar_at(text).map_or(Found::Nothing, |text| Found::Scalars(vec![text]))
}

fn scalar_at(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b't' | b'f' => Some(json.to_owned()),
        b'-' | b'0'..=b'9' if !json.contains(['.', 'e', 'E']) => Some(json.to_owned()),
        _ => None,
    }
}

/// The member `name` of a JSON object; the last one, if it stands there twice, as serde_json does.
fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    struct Find<'n>(&'n str);

    impl<'de> Visitor<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(Name(key)) = map.next_key()? {
                if key == self.0 {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(object.get());
    deserializer.deserialize_map(Find(name)).ok().flatten()
}

/// An object's key, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl<'de> Visitor<'de> for Key {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars(values: &[&str]) -> Found {
        Found::Scalars(values.iter().map(|v| (*v).to_owned()).collect())
    }

    #[test]
    fn finds_values_exactly_as_written() {
        let json = r#"{"id":9007199254740993,"big":340282366920938463463374607431768211455,"tags":["a",1,true],
            "meta":{"slug":"caf\u00e9","none":null,"deep":{}},"price":1.5,"k\u0065y":"escaped","id2":1,"id2":2}"#;
        for (path, expected) in [
            ("id", scalars(&["9007199254740993"])),
            ("big", scalars(&["340282366920938463463374607431768211455"])),
            ("tags", scalars(&["a", "1", "true"])),
            ("meta.slug", scalars(&["café"])),
            ("meta.none", Found::Null),
            ("meta.deep", Found::Nothing),
            ("meta.slug.x", Found::Nothing),
            ("price", Found::Nothing),
            ("key", scalars(&["escaped"])),
            ("id2", scalars(&["2"])),
            ("absent", Found::Nothing),
        ] {
            assert_eq!(find(json, path), expected, "{path}");
        }
        assert_eq!(find("not json", "id"), Found::Nothing);
        assert_eq!(find("[1]", "id"), Found::Nothing);
    }

    #[test]
    fn scalar_text_is_serdes() {
        #[derive(serde::Serialize)]
        enum Colour {
            #[serde(rename = "dark-red")]
            DarkRed,
        }
        assert_eq!(scalar_text("x").unwrap().as_deref(), Some("x"));
        assert_eq!(scalar_text(&u64::MAX).unwrap().as_deref(), Some("18446744073709551615"));
        assert_eq!(scalar_text(&Some(-3)).unwrap().as_deref(), Some("-3"));
        assert_eq!(scalar_text(&None::<u8>).unwrap(), None);
        assert_eq!(scalar_text(&true).unwrap().as_deref(), Some("true"));
        assert_eq!(scalar_text(&Colour::DarkRed).unwrap().as_deref(), Some("dark-red"));
        #[derive(serde::Serialize)]
        struct Wrapped<T>(T);
        let uuid = uuid::Uuid::from_u128(7);
        assert_eq!(scalar_text(&Wrapped(uuid)).unwrap().as_deref(), Some(uuid.to_string().as_str()));
        assert_eq!(scalar_text(&'é').unwrap().as_deref(), Some("é"));
        assert_eq!(scalar_text(&()).unwrap(), None);
        assert_eq!(scalar_text(&u128::from(u64::MAX)).unwrap().as_deref(), Some("18446744073709551615"));
        let raw = RawValue::from_string("7".to_owned()).unwrap();
        assert_eq!(scalar_text(&raw).unwrap().as_deref(), Some("7"));
        for error in [scalar_text(&1.5).unwrap_err(), scalar_text(&[1, 2]).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidKey);
        }
    }

    #[test]
    fn undecodable_payloads_say_what_is_wrong() {
        for (payload, reason) in [
            (&b""[..], "empty"),
            (&b"\xff\xfe"[..], "UTF-8"),
            (&b"{"[..], "not a u32: "),
            (&b"\"x\""[..], "invalid type: string"),
        ] {
            let error = decode::<u32>(payload).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn excerpts_are_bounded_and_printable() {
        assert_eq!(excerpt(br#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(excerpt(&[b'x'; 10_000]), format!("{}…", "x".repeat(120)));
        assert_eq!(excerpt(b"\x1b[31m\n"), r"\u{1b}[31m\n");
        assert_eq!(excerpt(b"\xff"), "\u{fffd}");
    }
}
