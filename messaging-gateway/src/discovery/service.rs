//! Services that are asked for their schema, and what they declare.

use std::fmt;
use std::sync::Arc;

use axum::http::Uri;
use messaging_core::{Error, ErrorKind, Pattern, Result};

use crate::descriptor::{Operator, SlowPolicy};

/// A service whose entities a gateway may serve: its name, where its
/// [`internal_router`](crate::internal_router) is, and which channels are its own.
///
/// ```
/// use messaging_gateway::RemoteService;
///
/// let events = RemoteService::new("events", "http://events:8002", ["camera."]).unwrap();
/// assert_eq!(events.name(), "events");
/// assert!(RemoteService::new("events", "https://events:8002", ["camera."]).is_err());
/// ```
#[derive(Clone, Debug)]
pub struct RemoteService {
    name: Arc<str>,
    uri: Uri,
    prefixes: Vec<String>,
}

impl RemoteService {
    /// A service that calls itself `name`, and whose `/__schema` is below `url`. It may declare only channels that begin
    /// with one of the prefixes: end them with a separator (`camera.`), or `cameras.secret` is among them too.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the name is not made of letters, digits, `_`, `-` and `.`; if the URL is not
    /// `http://` or has credentials, a query or a fragment; or if there is no prefix, or one that is no beginning of
    /// a channel.
    pub fn new(name: &str, url: &str, prefixes: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        if !is_plain(name, 128) {
            return Err(refused(format!(
                "{name:?} is no name of a service; use letters, digits, `_`, `-` and `.`"
            )));
        }
        let uri =
            schema_uri(url).map_err(|reason| refused(format!("the URL of the service {name:?} {reason}")))?;
        let prefixes: Vec<String> = prefixes.into_iter().map(Into::into).collect();
        let is_beginning = |prefix: &String| {
            !prefix.is_empty()
                && prefix.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte))
        };
        if let Some(prefix) = prefixes.iter().find(|prefix| !is_beginning(prefix)) {
            return Err(refused(format!("{prefix:?} of the service {name:?} is no beginning of a channel")));
        }
        if prefixes.is_empty() {
            return Err(refused(format!(
                "the service {name:?} has no prefixes, and could declare nothing; give it those of its channels"
            )));
        }
        Ok(Self { name: name.into(), uri, prefixes })
    }

    /// What it calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its channels begin with.
    #[must_use]
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Where its schema is.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }
}

/// Errors do not quote the URL: it may hold what it must not.
fn schema_uri(url: &str) -> std::result::Result<Uri, &'static str> {
    if url.contains('#') {
        return Err("has a fragment; give the address alone");
    }
    let uri: Uri = url.parse().map_err(|_| "cannot be read; write it as http://host:port")?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err("is https; schemas are fetched by http, within the own network"),
        _ => return Err("does not begin with http://"),
    }
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("has credentials, which would not be used; leave them out");
    }
    if uri.query().is_some() {
        return Err("has a query; give the address alone");
    }
    let path = uri.path().trim_end_matches('/');
    format!("http://{authority}{path}/__schema")
        .parse()
        .map_err(|_| "cannot be read; write it as http://host:port")
}

fn refused(text: String) -> Error {
    messaging_core::__private::error(ErrorKind::Configuration, text)
}

/// An entity that another service declares, as far as it is believed. Who may subscribe is not among it: the gateway
/// that serves it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteEntity {
    /// The service that declares it.
    pub service: Arc<str>,
    /// What clients call it.
    pub entity: String,
    /// Its channels: exact ones and templates, never globs. All begin with a prefix of the service.
    pub channels: Vec<Pattern>,
    /// The fields of the payload that clients may filter by, sorted.
    pub filters: Vec<RemoteFilter>,
    /// The field of the payload that has to be the tenant of who subscribes.
    pub tenant: Option<String>,
    /// Clients may publish on it.
    pub send: bool,
    /// Clients may see who is there.
    pub presence: bool,
    /// What happens to a client that does not keep up.
    pub slow: SlowPolicy,
}

/// A field of the payload that clients may filter by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFilter {
    /// Its name in the JSON; dots lead into objects.
    pub field: String,
    /// How it may be compared.
    pub operators: Vec<Operator>,
}

/// Letters, digits, `_`, `-` and `.`.
pub(super) fn is_plain(name: &str, longest: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !name.is_empty() && name.len() <= longest && name.bytes().all(is_plain)
}

/// Text of somebody else in a message: escaped, and not longer than one wants to read.
pub(super) fn quoted(text: &str) -> impl fmt::Display {
    let shown: String = text.chars().take(64).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_below_the_address() {
        let uri = |url| RemoteService::new("a", url, ["a."]).unwrap().uri().to_string();
        assert_eq!(uri("http://events:8002"), "http://events:8002/__schema");
        assert_eq!(uri("http://[::1]:80/internal/"), "http://[::1]:80/internal/__schema");
    }

    #[test]
    fn what_cannot_be_right_is_refused_without_quoting_secrets() {
        let error = |name, url, prefixes: &[&str]| {
            RemoteService::new(name, url, prefixes.iter().copied()).unwrap_err().to_string()
        };
        for url in ["https://a", "ftp://a", "a", "", "http://", "http://a/?q=1", "http://a/#b"] {
            let text = error("a", url, &["a."]);
            assert!(text.starts_with("the URL of the service \"a\" "), "{url:?}: {text}");
        }
        let text = error("a", "http://user:hunter2@a", &["a."]);
        assert!(text.contains("credentials") && !text.contains("hunter2"), "{text}");
        assert!(error("a b", "http://a", &["a."]).contains("no name of a service"));
        assert!(error("a", "http://a", &[]).contains("no prefixes"));
        for prefix in ["", "a.*", "a.{b}", "a b"] {
            assert!(error("a", "http://a", &["ok.", prefix]).contains("no beginning"), "{prefix:?}");
        }
    }

    #[test]
    fn foreign_text_is_short_and_escaped() {
        assert_eq!(quoted("a\n\u{1b}[1m").to_string(), r#""a\n\u{1b}[1m""#);
        assert_eq!(quoted(&"x".repeat(100)).to_string(), format!("\"{}\"…", "x".repeat(64)));
    }
}
