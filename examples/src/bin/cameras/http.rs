//! JSON over HTTP, to services of one's own.

use std::fmt;
use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use messaging_core::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

/// What went wrong with which request.
#[derive(Debug)]
pub(crate) struct HttpError(String);

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HttpError {}

impl Http {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, HttpError> {
        let answer = self.ask(Method::GET, url, Bytes::new()).await;
        let parsed = answer.and_then(|(status, body)| match status {
            StatusCode::OK => Ok(serde_json::from_slice(&body)?),
            _ => Err(format!("it answered {status}").into()),
        });
        parsed.map_err(|error| HttpError(format!("GET {url}: {error}")))
    }

    /// Sends JSON and returns the status, which the caller may have expected, whatever it is.
    pub(crate) async fn send<T: Serialize>(
        &self,
        method: Method,
        url: &str,
        body: &T,
    ) -> Result<StatusCode, HttpError> {
        let failed = |error: BoxError| HttpError(format!("{method} {url}: {error}"));
        let body = serde_json::to_vec(body).map_err(|error| failed(error.into()))?;
        let (status, _) = self.ask(method.clone(), url, body.into()).await.map_err(failed)?;
        Ok(status)
    }

    async fn ask(&self, method: Method, url: &str, body: Bytes) -> Result<(StatusCode, Bytes), BoxError> {
        let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
        let request = request.body(Full::new(body))?;
        let asking = async {
            let answer = self.0.request(request).await?;
            let status = answer.status();
            Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, asking).await.map_err(|_| format!("no answer within {PATIENCE:?}"))?
    }
}
