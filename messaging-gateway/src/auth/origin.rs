//! From which web pages a browser may connect, and what it is told of that. A client that is no browser can say what it
//! likes: this protects users of browsers, and proves nothing about anybody.

use std::fmt;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use messaging_core::{ErrorKind, Result};

/// The origins that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    /// The one whose host and port the request was sent to. Behind a proxy that means that it has to hand on `Host`.
    SameHost,
    /// These.
    Listed(Vec<Origin>),
    /// All, also `null`.
    Any,
}

/// Scheme, host and port, as a browser writes them: in lower case, and without the scheme's own port.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a verdict that nobody reads refuses nothing"]
pub(crate) enum Verdict {
    /// It has no origin: it comes from a page of this very origin, or from no browser.
    NoOrigin,
    /// Its origin may connect.
    Allowed,
    /// Its origin may not.
    Refused,
}

impl Default for Origins {
    fn default() -> Self {
        Self::same_host()
    }
}

impl Origins {
    /// The origin that the request was sent to.
    pub(crate) fn same_host() -> Self {
        Self::SameHost
    }

    /// These and no others, or all if one of them is `*`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if one is no origin, or there is none.
    pub(crate) fn allow(origins: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let (mut listed, mut is_any) = (Vec::new(), false);
        for text in origins {
            match text.as_ref() {
                "*" => is_any = true,
                text => listed.push(Origin::configured(text)?),
            }
        }
        match (is_any, listed.is_empty()) {
            (true, _) => Ok(Self::Any),
            (false, false) => Ok(Self::Listed(listed)),
            (false, true) => {
                Err(wrong("allow origins: there is none; leave it out to allow the same host only"))
            }
        }
    }

    /// Whether all may connect: then a cookie must not prove anything.
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// Whether this request may go on.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Verdict {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => return Verdict::NoOrigin,
            (Some(_), _) if self.is_any() => return Verdict::Allowed,
            (Some(origin), None) => origin.to_str().ok().and_then(|text| Origin::parse(text).ok()),
            (Some(_), Some(_)) => None,
        };
        let is_allowed = origin.is_some_and(|origin| match self {
            Self::Any => true,
            Self::Listed(listed) => listed.contains(&origin),
            Self::SameHost => is_host(headers, &origin),
        });
        if is_allowed { Verdict::Allowed } else { Verdict::Refused }
    }

    /// What the answer to this request says, so that a page of another origin may read it, and caches keep the answers of
    /// different origins apart. Cookies are for origins that are known: never for all.
    pub(crate) fn answer(&self, headers: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        if self.is_any() {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return answer;
        }
        answer.insert(VARY, HeaderValue::from_static("origin"));
        if self.check(headers) == Verdict::Allowed
            && let Some(origin) = headers.get(ORIGIN)
        {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        answer
    }

    /// What the answer to `OPTIONS` says: the same, and which methods and headers there are.
    pub(crate) fn preflight(&self, headers: &HeaderMap) -> HeaderMap {
        const OFFERED: [(HeaderName, &str); 3] = [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, last-event-id"),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        let mut answer = self.answer(headers);
        if answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            answer.extend(OFFERED.map(|(name, value)| (name, HeaderValue::from_static(value))));
        }
        answer
    }
}

impl Verdict {
    pub(crate) fn is_allowed(self) -> bool {
        self != Self::Refused
    }
}

impl Origin {
    fn configured(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|why| {
            wrong(format!(
                "allow the origin {text:?}: {why}; it is written as in \"https://app.example:8443\""
            ))
        })
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "null" {
            return Err("`null` stands for pages of which nothing is known");
        }
        let (scheme, authority) = text.split_once("://").ok_or("it has no scheme")?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return Err("its scheme is not one");
        }
        let (host, port) = host_and_port(authority)?;
        let scheme = scheme.to_ascii_lowercase();
        let port = port.filter(|port| Some(*port) != own_port(&scheme));
        Ok(Self { scheme, host, port })
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// The host in lower case, and the port if there is one.
fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or("its address is not closed")? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    if !is_host {
        return Err("its host is not one: no path, no wildcard, and other letters than ASCII as `xn--`");
    }
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse().map_err(|_| "its port is not a number up to 65535")?)
        }
        _ => return Err("its port is not a number up to 65535"),
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// Whether a request was sent to the host and port of this origin. `Host` says nothing of the scheme, and behind a proxy
/// that ends TLS nobody knows it: a port that is left out is that of the origin's scheme.
fn is_host(headers: &HeaderMap, origin: &Origin) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(Ok((host, port))) = host.to_str().ok().map(host_and_port) else { return false };
    let own = own_port(&origin.scheme);
    host == origin.host && port.or(own) == origin.port.or(own)
}

fn wrong(text: impl Into<String>) -> messaging_core::Error {
    messaging_core::__private::error(ErrorKind::Configuration, text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(origin: Option<&str>, host: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ORIGIN, origin), (HOST, host)] {
            if let Some(value) = value {
                headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
        }
        headers
    }

    #[track_caller]
    fn check(origins: &Origins, origin: &str, host: &str, expected: Verdict) {
        assert_eq!(origins.check(&headers(Some(origin), Some(host))), expected, "{origin} to {host}");
    }

    #[test]
    fn the_same_host_is_host_and_port() {
        use Verdict::{Allowed, NoOrigin, Refused};
        let origins = Origins::default();
        check(&origins, "https://app.example", "app.example", Allowed);
        check(&origins, "https://app.example", "app.example:443", Allowed);
        check(&origins, "https://app.example:443", "APP.example", Allowed);
        check(&origins, "HTTP://App.Example", "app.example:80", Allowed);
        check(&origins, "http://localhost:3000", "localhost:3000", Allowed);
        check(&origins, "http://[::1]:3000", "[::1]:3000", Allowed);
        check(&origins, "https://app.example", "app.example:80", Refused);
        check(&origins, "http://localhost:3000", "localhost", Refused);
        check(&origins, "https://app.example.evil.example", "app.example", Refused);
        check(&origins, "https://evil.example", "app.example", Refused);
        check(&origins, "null", "app.example", Refused);
        check(&origins, "null", "null", Refused);
        check(&origins, "", "", Refused);
        check(&origins, "https://app.example/", "app.example", Refused);
        check(&origins, "https://me@app.example", "app.example", Refused);
        check(&origins, "https://app.example", "app.example, app.example", Refused);
        assert_eq!(origins.check(&headers(None, Some("app.example"))), NoOrigin);
        assert_eq!(origins.check(&headers(Some("https://app.example"), None)), Refused);
        let mut twice = headers(Some("https://app.example"), Some("app.example"));
        twice.append(ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert_eq!(origins.check(&twice), Refused);
        for (first, second) in [("app.example", "evil.example"), ("evil.example", "app.example")] {
            let mut twice = headers(Some("https://app.example"), Some(first));
            twice.append(HOST, HeaderValue::from_static(second));
            assert_eq!(origins.check(&twice), Refused);
        }
    }

    #[test]
    fn a_list_is_exact() {
        use Verdict::{Allowed, NoOrigin, Refused};
        let origins =
            Origins::allow(["https://App.example:443", "http://localhost:3000", "capacitor://localhost"]);
        let origins = origins.unwrap();
        assert!(!origins.is_any());
        check(&origins, "https://app.example", "gateway.example", Allowed);
        check(&origins, "https://app.example:443", "gateway.example", Allowed);
        check(&origins, "capacitor://localhost", "gateway.example", Allowed);
        check(&origins, "http://app.example", "gateway.example", Refused);
        check(&origins, "https://app.example:444", "gateway.example", Refused);
        check(&origins, "https://sub.app.example", "gateway.example", Refused);
        check(&origins, "https://gateway.example", "gateway.example", Refused);
        check(&origins, "null", "gateway.example", Refused);
        assert_eq!(origins.check(&headers(None, None)), NoOrigin);

        let any = Origins::allow(["https://app.example", "*"]).unwrap();
        assert!(any.is_any());
        check(&any, "https://evil.example", "gateway.example", Allowed);
        check(&any, "null", "gateway.example", Allowed);
    }

    #[test]
    fn what_is_no_origin_cannot_be_configured() {
        for (text, why) in [
            ("app.example", "no scheme"),
            ("https://app.example/", "no path"),
            ("https://*.app.example", "no wildcard"),
            ("https://büro.example", "xn--"),
            ("https://", "host"),
            ("https://app.example:99999", "65535"),
            ("https://app.example:", "65535"),
            ("https://app.example:+80", "65535"),
            ("https://[::1", "closed"),
            ("https://[x]", "host"),
            ("1s://x", "scheme"),
            ("null", "nothing is known"),
        ] {
            let error = Origins::allow([text]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(why) && error.to_string().contains(text), "{text}: {error}");
        }
        let none: [&str; 0] = [];
        assert!(Origins::allow(none).unwrap_err().to_string().contains("there is none"));
    }

    #[test]
    fn cookies_are_for_known_origins() {
        let text = |answer: &HeaderMap| {
            let mut lines: Vec<_> =
                answer.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            lines.sort();
            lines.join("; ")
        };
        let listed = Origins::allow(["https://app.example"]).unwrap();
        let of = |origin| headers(origin, Some("gateway.example"));
        assert_eq!(
            text(&listed.answer(&of(Some("https://app.example")))),
            "access-control-allow-credentials: true; access-control-allow-origin: https://app.example; vary: origin"
        );
        assert_eq!(text(&listed.answer(&of(Some("https://evil.example")))), "vary: origin");
        assert_eq!(text(&listed.preflight(&of(Some("https://evil.example")))), "vary: origin");
        assert_eq!(text(&listed.answer(&of(None))), "vary: origin");
        assert_eq!(listed.preflight(&of(Some("https://app.example"))).len(), 6);
        let any = Origins::allow(["*"]).unwrap();
        assert_eq!(text(&any.answer(&of(Some("https://evil.example")))), "access-control-allow-origin: *");
        assert!(!any.preflight(&of(None)).contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_the_same_host(
            origin in prop::collection::vec(any::<u8>(), 0..40),
            host in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut headers = HeaderMap::new();
            for (name, prefix, value) in [(ORIGIN, &b"http://"[..], &origin), (HOST, b"", &host)] {
                if let Ok(value) = HeaderValue::from_bytes(&[prefix, value].concat()) {
                    headers.append(name, value);
                }
            }
            if Origins::same_host().check(&headers) == Verdict::Allowed {
                prop_assert!(host.len().abs_diff(origin.len()) <= 3, "but for `:80` they are the same");
            }
        }

        #[test]
        fn an_origin_is_the_same_host_as_its_own_and_no_other(
            host in "[a-z]{1,3}(\\.[a-z]{1,3})?", other in "[a-z]{1,3}(\\.[a-z]{1,3})?", port in 1_u16.., tls: bool,
        ) {
            let scheme = if tls { "https" } else { "http" };
            let origin = format!("{scheme}://{host}:{port}");
            let to = |host: &str| Origins::same_host().check(&headers(Some(&origin), Some(&format!("{host}:{port}"))));
            prop_assert_eq!(to(&host), Verdict::Allowed);
            prop_assert_eq!(to(&other) == Verdict::Allowed, host == other);
        }
    }
}
