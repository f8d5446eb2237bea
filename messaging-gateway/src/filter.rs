//! Filters: what a client asks for, what the server imposes, and whether an event passes both. Pure values.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::descriptor::Operator;

/// The most values that one `in` may have.
const MOST_VALUES: usize = 256;
/// The longest text that a filter compares with, in bytes.
const LONGEST_TEXT: usize = 256;

/// A value that filters compare. Numbers are equal if they are written alike or are the same integer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Number(Box<str>),
    Text(Box<str>),
}

impl Scalar {
    /// `None` for arrays and objects, which are never equal to anything.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::String(text) => Some(Self::Text(text.as_str().into())),
            Value::Number(number) => {
                // 7 and 7.0 are one number; up to 2^53 both are exact.
                let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
                #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
                let text = whole.map_or_else(|| number.to_string(), |whole| (whole as i64).to_string());
                Some(Self::Number(text.into()))
            }
            Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// One condition: a field is one of some values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Term {
    /// Its name in the JSON; dots lead into objects.
    pub(crate) path: Arc<str>,
    /// Sorted, none twice.
    values: Vec<Scalar>,
}

impl Term {
    pub(crate) fn new(path: Arc<str>, mut values: Vec<Scalar>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self { path, values }
    }
}

/// Conditions that an event has to meet, all of them. Those that mean the same are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Filter(Vec<Term>);

impl Filter {
    pub(crate) fn new(mut terms: Vec<Term>) -> Self {
        terms.sort_unstable();
        terms.dedup();
        Self(terms)
    }

    /// Both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// The fields that it looks at.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().map(|term| &term.path)
    }

    pub(crate) fn passes(&self, fields: &Fields) -> bool {
        self.0
            .iter()
            .all(|term| fields.get(&term.path).is_some_and(|value| term.values.binary_search(value).is_ok()))
    }
}

/// What a subscription declares of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filterable {
    pub(crate) path: Arc<str>,
    pub(crate) operators: Vec<Operator>,
}

/// Why a client's filters are refused; the client is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadFilter(String);

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a client's filters: an object of fields, each a value or `{"in": […]}`.
pub(crate) fn read(filters: &Value, declared: &[Filterable]) -> Result<Filter, BadFilter> {
    let Value::Object(filters) = filters else {
        return Err(BadFilter("filters are an object of fields".to_owned()));
    };
    let terms = filters.iter().map(|(field, condition)| {
        // A field's name may be the client's own text: it is cut off before it comes back.
        let shown = || field.chars().take(64).collect::<String>();
        let Some(declared) = declared.iter().find(|declared| *declared.path == **field) else {
            return Err(BadFilter(format!("there is no filter for {:?}", shown())));
        };
        let (operator, values) = match condition {
            Value::Object(condition) => match condition.iter().next() {
                Some((name, Value::Array(values))) if name == "in" && condition.len() == 1 => {
                    (Operator::In, values.as_slice())
                }
                Some((name, value)) if name == "eq" && condition.len() == 1 => {
                    (Operator::Eq, std::slice::from_ref(value))
                }
                _ => {
                    return Err(BadFilter(format!(
                        "{:?} is compared by a value or by {{\"in\": […]}}",
                        shown()
                    )));
                }
            },
            value => (Operator::Eq, std::slice::from_ref(value)),
        };
        if !declared.operators.contains(&operator) {
            return Err(BadFilter(format!("{:?} cannot be compared like that", shown())));
        }
        if values.len() > MOST_VALUES {
            return Err(BadFilter(format!("{:?} has more than {MOST_VALUES} values", shown())));
        }
        let too_long = |value: &Value| value.as_str().is_some_and(|text| text.len() > LONGEST_TEXT);
        let values: Option<Vec<_>> =
            values.iter().map(|value| Scalar::of(value).filter(|_| !too_long(value))).collect();
        let values = values.ok_or_else(|| {
            BadFilter(format!("{:?} is compared with short texts, numbers and booleans", shown()))
        })?;
        Ok(Term::new(Arc::clone(&declared.path), values))
    });
    terms.collect::<Result<_, _>>().map(Filter::new)
}

/// The fields of one event that some filter looks at.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(Arc<str>, Scalar)>);

impl Fields {
    fn get(&self, path: &Arc<str>) -> Option<&Scalar> {
        // Paths of one topic are shared, so that the address nearly always tells.
        let found = self.0.iter().find(|(other, _)| Arc::ptr_eq(other, path) || other == path);
        found.map(|(_, value)| value)
    }

    /// Reads the fields at `paths` out of a JSON text. What is not there, or is no scalar, has no value.
    pub(crate) fn read(json: &[u8], paths: &[Arc<str>]) -> Self {
        if paths.is_empty() {
            return Self::default();
        }
        let mut reader = serde_json::Deserializer::from_slice(json);
        reader.deserialize_any(Reading(paths)).unwrap_or_default()
    }
}

struct Reading<'a>(&'a [Arc<str>]);

/// Only an object has fields.
impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let under = |path: &str| {
                path.strip_prefix(&*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if !self.0.iter().any(|path| under(path)) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: Value = map.next_value()?;
            for path in self.0 {
                if !under(path) {
                    continue;
                }
                // As in most readers of JSON, the last of two equal names counts.
                fields.0.retain(|(other, _)| other != path);
                let rest = path.strip_prefix(&*name).and_then(|rest| rest.strip_prefix('.'));
                let found = rest.map_or(Some(&value), |rest| find(&value, rest));
                if let Some(scalar) = found.and_then(Scalar::of) {
                    fields.0.push((Arc::clone(path), scalar));
                }
            }
        }
        Ok(fields)
    }
}

fn find<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn declared() -> Vec<Filterable> {
        let field = |path: &str, operators: &[Operator]| Filterable {
            path: path.into(),
            operators: operators.to_vec(),
        };
        vec![
            field("camera_id", &[Operator::Eq, Operator::In]),
            field("kind", &[Operator::Eq]),
            field("metadata.zone", &[Operator::Eq]),
        ]
    }

    fn passes(filters: &Value, event: &str) -> bool {
        let filter = read(filters, &declared()).unwrap();
        let paths: Vec<_> = filter.paths().cloned().collect();
        filter.passes(&Fields::read(event.as_bytes(), &paths))
    }

    #[test]
    fn all_conditions_have_to_be_met() {
        let event = r#"{"camera_id": 7, "kind": "person", "metadata": {"zone": "gate", "x": [1]}, "big": 9007199254740993}"#;
        for (filters, expected) in [
            (json!({}), true),
            (json!({"camera_id": 7}), true),
            (json!({"camera_id": 7.0}), true),
            (json!({"camera_id": "7"}), false),
            (json!({"camera_id": 8}), false),
            (json!({"camera_id": {"eq": 7}}), true),
            (json!({"camera_id": {"in": [8, 7]}}), true),
            (json!({"camera_id": {"in": []}}), false),
            (json!({"camera_id": 7, "kind": "person"}), true),
            (json!({"camera_id": 7, "kind": "car"}), false),
            (json!({"metadata.zone": "gate"}), true),
            (json!({"metadata.zone": "yard"}), false),
        ] {
            assert_eq!(passes(&filters, event), expected, "{filters}");
        }
    }

    #[test]
    fn what_has_no_such_field_passes_no_filter() {
        for event in
            [r#"{}"#, r#"[]"#, "7", r#"{"camera_id": [7]}"#, r#"{"camera_id": {"x": 7}}"#, "nonsense", "{"]
        {
            assert!(!passes(&json!({"camera_id": 7}), event), "{event}");
        }
        assert!(!passes(&json!({"metadata.zone": "gate"}), r#"{"metadata": "gate"}"#));
        assert!(passes(&json!({"camera_id": null}), r#"{"camera_id": null}"#));
    }

    #[test]
    fn what_is_not_declared_is_refused() {
        for filters in [
            json!([]),
            json!({"secret": 1}),
            json!({"kind": {"in": ["a"]}}),
            json!({"camera_id": {"gt": 1}}),
            json!({"camera_id": {"in": 7}}),
            json!({"camera_id": {"in": [7], "eq": 7}}),
            json!({"camera_id": [7]}),
            json!({"camera_id": {"in": [{"a": 1}]}}),
            json!({"kind": "x".repeat(257)}),
            json!({"camera_id": {"in": (0..257).collect::<Vec<_>>()}}),
        ] {
            assert!(read(&filters, &declared()).is_err(), "{filters}");
        }
    }

    #[test]
    fn filters_that_mean_the_same_are_equal() {
        let read = |filters: Value| read(&filters, &declared()).unwrap();
        assert_eq!(
            read(json!({"camera_id": {"in": [2, 1, 2]}})),
            read(json!({"camera_id": {"in": [1, 2.0]}}))
        );
        assert_eq!(read(json!({"camera_id": 1})), read(json!({"camera_id": {"in": [1]}})));
        assert_ne!(read(json!({"camera_id": 1})), read(json!({"camera_id": 2})));
        let imposed = Filter::new(vec![Term::new("tenant".into(), vec![Scalar::Text("a".into())])]);
        let both = read(json!({"camera_id": 7})).and(&imposed);
        let paths: Vec<_> = both.paths().cloned().collect();
        let fields = |json: &str| Fields::read(json.as_bytes(), &paths);
        assert!(both.passes(&fields(r#"{"camera_id":7,"tenant":"a"}"#)));
        assert!(!both.passes(&fields(r#"{"camera_id":7,"tenant":"b"}"#)));
        assert!(!both.passes(&fields(r#"{"camera_id":7}"#)));
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        assert!(passes(&json!({"camera_id": 7}), r#"{"camera_id":8,"camera_id":7}"#));
        assert!(!passes(&json!({"camera_id": 7}), r#"{"camera_id":7,"camera_id":8}"#));
        assert!(!passes(&json!({"camera_id": 7}), r#"{"camera_id":7,"camera_id":[8]}"#));
    }
}
