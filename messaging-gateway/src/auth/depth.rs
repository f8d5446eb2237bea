//! How deep JSON is nested, found out before it is parsed.

use std::num::NonZeroUsize;

/// Whether JSON is nested no deeper than this; `[]` is nested once. Of text that is no JSON it says something, and the
/// parser will refuse it no deeper than that.
pub(crate) fn is_within_depth(json: &str, limit: NonZeroUsize) -> bool {
    let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        if is_string {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => is_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => is_string = true,
            b'[' | b'{' if depth == limit.get() => return false,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn is_within(json: &str, limit: usize) -> bool {
        is_within_depth(json, NonZeroUsize::new(limit).unwrap())
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert!(is_within("7", 1));
        assert!(is_within("[]", 1));
        assert!(!is_within("[[]]", 1));
        assert!(is_within("[[],{},[]]", 2), "what is closed does not count any more");
        assert!(is_within(r#"["[[[[", "\"[[", "\\"]"#, 1));
        assert!(!is_within(r#"["\\",[]]"#, 1), "an escaped backslash does not escape the quote");
        assert!(!is_within(&"[".repeat(1 << 20), 32));
        assert!(is_within("]]]]}[", 1), "and text that is no JSON does no harm");
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = r#"[\[\]{}"\\a/é]{0,6}"#;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 48, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((text, inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_parser(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let (text, depth) = (text.unwrap(), depth(&value));
            for limit in 1..10 {
                prop_assert_eq!(is_within(&text, limit), depth <= limit, "{} at {}", text, limit);
            }
        }

        #[test]
        fn what_it_passes_parses_no_deeper(text in r#"[\[\]{}"\\:,1 ]{0,40}"#, limit in 1_usize..6) {
            if is_within(&text, limit) && let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert!(depth(&value) <= limit);
            }
        }
    }
}
