//! Fetching a schema: one GET, with a bound on everything. What came is not looked at here.

use std::num::NonZeroUsize;
use std::time::Duration;

use axum::http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use messaging_core::__private::chain;

/// A client that follows no redirects, unpacks nothing, and keeps no connection: it asks twice a minute.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    client: Client<HttpConnector, Empty<Bytes>>,
    timeout: Duration,
    most: usize,
}

impl Fetcher {
    pub(super) fn new(timeout: Duration, most: NonZeroUsize) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        Self { client: builder.pool_max_idle_per_host(0).build_http(), timeout, most: most.get() }
    }

    /// The body of a successful JSON answer, or why there is none.
    pub(super) async fn get(&self, uri: &Uri) -> Result<Bytes, String> {
        match tokio::time::timeout(self.timeout, self.get_unbounded(uri)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("it did not answer within {:?}", self.timeout)),
        }
    }

    async fn get_unbounded(&self, uri: &Uri) -> Result<Bytes, String> {
        let request = Request::get(uri.clone())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("messaging-gateway/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| format!("the request cannot be made: {error}"))?;
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| format!("it cannot be reached: {}", chain(&error)))?;
        let (head, body) = answer.into_parts();
        if head.status.is_redirection() {
            return Err(format!("it answered {}; redirects are not followed", head.status));
        }
        if head.status != StatusCode::OK {
            return Err(format!("it answered {}", head.status));
        }
        if !is_json(&head.headers) {
            return Err("it answered with something else than application/json in UTF-8".to_owned());
        }
        match Limited::new(body, self.most).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(format!("its schema is larger than {} bytes", self.most))
            }
            Err(error) => Err(format!("its answer broke off: {}", chain(&*error))),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(content_type)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let mut parts = content_type.split(';').map(str::trim);
    parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_everything_else() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=\"UTF-8\"", true),
            ("application/json; charset=latin1", false),
            ("text/html", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
            assert_eq!(is_json(&headers), expected, "{content_type:?}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
