//! `filters`: the fields of the payload that clients may filter by, and how.

use syn::ext::IdentExt;
use syn::{Error, Result};

use super::field;
use crate::literal::combined;
use crate::mistakes::Mistakes;
use crate::names::advice;
use crate::options::Options;
use crate::value::{Value, ValueKind};

/// The words for operators, and the variants of `Operator`.
const OPERATORS: &[(&str, &str)] = &[("eq", "Eq"), ("in", "In")];

pub(super) struct Filter {
    pub(super) field: String,
    /// The variants of `Operator`.
    pub(super) operators: Vec<&'static str>,
}

/// `{ field = [operators] }`. A filter with a mistake in it is left out.
pub(super) fn read(value: &Value, mistakes: &mut Mistakes) -> Vec<Filter> {
    const EXAMPLE: &str = "{ camera_id = [eq, in] }";
    let Some(entries) = Options::of_quotable_map(value, EXAMPLE, mistakes) else { return Vec::new() };
    if entries.is_empty() {
        let message =
            "there is nothing to filter by; name a field, such as `camera_id = [eq]`, or leave `filters` out";
        mistakes.add(value, message);
    }
    let mut filters = Vec::new();
    for entry in entries.entries() {
        let field = mistakes.keep(field::of_name(&entry.name));
        let operators = mistakes.keep(read_operators(&entry.value));
        if let (Some(field), Some(operators)) = (field, operators) {
            filters.push(Filter { field, operators });
        }
    }
    filters
}

fn read_operators(value: &Value) -> Result<Vec<&'static str>> {
    let items = match &value.kind {
        ValueKind::List(items) if items.is_empty() => {
            return Err(value.error("this list is empty; name at least one operator: `eq` or `in`"));
        }
        ValueKind::List(items) => items,
        _ => return Err(value.error("expected a list of operators, such as `[eq, in]`")),
    };
    let operators = combined(items.iter().map(read_operator).collect())?;
    for (position, (operator, item)) in operators.iter().zip(items).enumerate() {
        if operators[..position].contains(operator) {
            return Err(item.error("this operator is in the list twice; remove one of them"));
        }
    }
    Ok(operators)
}

fn read_operator(item: &Value) -> Result<&'static str> {
    let expected = || item.error("expected an operator without quotes: `eq` or `in`");
    let name = item.ident().ok_or_else(expected)?.unraw().to_string();
    let variant = OPERATORS.iter().find(|(operator, _)| *operator == name).map(|(_, variant)| *variant);
    variant.ok_or_else(|| {
        let advice = advice(&name, "operator", OPERATORS.iter().map(|(operator, _)| *operator));
        Error::new_spanned(item, format_args!("unknown operator `{name}`{advice}"))
    })
}
