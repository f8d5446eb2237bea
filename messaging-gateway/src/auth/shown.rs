//! What a request shows to prove who it speaks for, and where it shows it.

use std::fmt;
use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use crate::identity::Credentials;

/// The subprotocol that is answered to whoever offers it. One that carries a token is never answered: it would be in
/// the logs of every proxy.
pub(crate) const SUBPROTOCOL: &str = "messaging";

/// What a request shows. The first of these counts: a token among the subprotocols, a bearer token, a ticket; the headers
/// are there in any case, for whoever looks at cookies.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) credentials: Credentials,
    /// To be redeemed; only if there is no token.
    pub(crate) ticket: Option<String>,
    /// What the answer says, so that a browser takes it.
    pub(crate) subprotocol: Option<&'static str>,
}

impl Shown {
    /// What this request shows. What cannot be read is not there.
    pub(crate) fn by(headers: &HeaderMap, uri: &Uri, address: Option<IpAddr>) -> Self {
        let offered = || {
            let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
            lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
        };
        let among_subprotocols =
            || offered().find_map(|offer| offer.strip_prefix("token.")).filter(|token| !token.is_empty());
        let token = among_subprotocols().or_else(|| bearer(headers)).map(str::to_owned);
        let ticket = if token.is_none() { ticket(uri.query().unwrap_or_default()) } else { None };
        let credentials = Credentials { token, headers: headers.clone(), data: None, address };
        let subprotocol = offered().any(|offer| offer == SUBPROTOCOL).then_some(SUBPROTOCOL);
        Self { credentials, ticket, subprotocol }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown")
            .field("credentials", &self.credentials)
            .field("subprotocol", &self.subprotocol)
            .finish_non_exhaustive()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn ticket(query: &str) -> Option<String> {
    let ticket = query.split('&').find_map(|pair| pair.strip_prefix("ticket="))?;
    let ticket = percent_decode_str(ticket).decode_utf8().ok()?;
    (!ticket.is_empty()).then(|| ticket.into_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn shown(headers: &[(HeaderName, &str)], uri: &str) -> Shown {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Shown::by(&map, &uri.parse().unwrap(), Some([127, 0, 0, 1].into()))
    }

    #[track_caller]
    fn check(
        headers: &[(HeaderName, &str)],
        uri: &str,
        expected: (Option<&str>, Option<&str>, Option<&str>),
    ) {
        let shown = shown(headers, uri);
        let token = shown.credentials.token.as_deref();
        assert_eq!((token, shown.ticket.as_deref(), shown.subprotocol), expected);
        assert_eq!(shown.credentials.headers.len(), headers.len(), "the headers are there in any case");
    }

    #[test]
    fn the_first_thing_shown_counts() {
        let protocol = |value| (SEC_WEBSOCKET_PROTOCOL, value);
        let bearer = |value| (AUTHORIZATION, value);
        check(&[], "/", (None, None, None));
        check(&[protocol("messaging, token.a.b-c_d")], "/", (Some("a.b-c_d"), None, Some("messaging")));
        check(&[protocol("token.x"), protocol("messaging")], "/", (Some("x"), None, Some("messaging")));
        check(&[protocol("token.x")], "/", (Some("x"), None, None));
        check(&[protocol("messaging,token.")], "/", (None, None, Some("messaging")));
        check(&[protocol("Messaging, graphql-ws")], "/", (None, None, None));
        check(&[bearer("bEARER  y ")], "/", (Some("y"), None, None));
        check(&[bearer("Basic eTp6")], "/?ticket=t", (None, Some("t"), None));
        check(&[bearer("Bearer")], "/", (None, None, None));
        check(&[bearer("Bearer y"), protocol("token.x")], "/?ticket=t", (Some("x"), None, None));
        check(&[bearer("Bearer y")], "/?ticket=t", (Some("y"), None, None));
        check(&[], "/events?channel=a&ticket=%61b", (None, Some("ab"), None));
        check(&[], "/?ticket=&x", (None, None, None));
        check(&[], "/?my_ticket=t&ticket", (None, None, None));
        check(&[], "/?ticket=%ff", (None, None, None));
        check(&[bearer("Bearer \u{e9}")], "/", (None, None, None));
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let shown = shown(&[(AUTHORIZATION, "Bearer hush")], "/");
        let other = Shown { ticket: Some("hush".to_owned()), ..shown.clone() };
        assert!(shown.credentials.token.is_some());
        assert!(!format!("{shown:?} {other:?} {:?}", shown.credentials).contains("hush"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(
            protocol in prop::collection::vec(any::<u8>(), 0..64),
            bearer in prop::collection::vec(any::<u8>(), 0..64),
            query in "[ -~]{0,40}",
        ) {
            let mut headers = HeaderMap::new();
            for (name, prefix, value) in
                [(SEC_WEBSOCKET_PROTOCOL, &b"messaging,token."[..], protocol), (AUTHORIZATION, b"Bearer ", bearer)]
            {
                if let Ok(value) = HeaderValue::from_bytes(&[prefix, &value].concat()) {
                    headers.append(name, value);
                }
            }
            let uri = format!("/?ticket={query}").parse().unwrap_or_default();
            let shown = Shown::by(&headers, &uri, None);
            prop_assert!(shown.ticket.is_none() || shown.credentials.token.is_none());
            prop_assert!(shown.credentials.token.is_none_or(|token| token.is_ascii() && !token.contains(',')
                || headers.contains_key(AUTHORIZATION)));
        }
    }
}
