//! How a field of the payload is written: by its name, or as text with dots that lead into objects.

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Error, Lit, Result};

use crate::option_name::Name;
use crate::value::{Value, ValueKind};

/// The value of an option.
pub(super) fn of_value(value: &Value) -> Result<String> {
    match &value.kind {
        ValueKind::Literal(Lit::Str(text)) => checked(text.value(), value),
        ValueKind::Dotted(names) => {
            let names: Vec<_> = names.iter().map(|name| name.unraw().to_string()).collect();
            Err(unquoted(&names.join("."), value))
        }
        _ => match value.ident() {
            Some(name) => Ok(name.unraw().to_string()),
            None => Err(value.error(
                "expected a field of the payload: its name, or text with dots such as \"metadata.zone\"",
            )),
        },
    }
}

/// The name of an entry.
pub(super) fn of_name(name: &Name) -> Result<String> {
    if name.is_quoted {
        checked(name.text.clone(), name)
    } else if name.text.contains('.') {
        Err(unquoted(&name.text, name))
    } else {
        Ok(name.text.clone())
    }
}

fn unquoted(path: &str, place: impl ToTokens) -> Error {
    Error::new_spanned(place, format_args!("put quotes around it: {path:?}"))
}

/// JSON allows any key; what no key of a payload is meant to be is refused.
fn checked(text: String, place: impl ToTokens) -> Result<String> {
    let is_key = |key: &str| !key.is_empty() && key.trim() == key && !key.contains(char::is_control);
    if text.split('.').all(is_key) {
        return Ok(text);
    }
    let message = format!(
        "{text:?} is no field of a payload; write its name, with dots between the names of objects and what \
            is in them, such as \"metadata.zone\""
    );
    Err(Error::new_spanned(place, message))
}
