//! Errors as RFC 9457 wants them: what the client did, in words, and nothing of how it is done here.

use std::error::Error as StdError;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use messaging_core::{Error, ErrorKind};
use serde::Serialize;

/// An error answer: `application/problem+json`, after RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    /// A problem with what the client is told of it.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(model: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {model} with this id"))
    }

    /// What a client may know of an error of a repository; the rest is for the log.
    pub(super) fn of(error: &Error) -> Self {
        let kind = kind(error);
        let (status, detail) = match kind {
            ErrorKind::Conflict => (
                StatusCode::CONFLICT,
                "there is one already, or somebody else has changed it since it was read; read it, and decide again",
            ),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "it is not there"),
            ErrorKind::Closed => (StatusCode::SERVICE_UNAVAILABLE, "the service is shutting down; try again"),
            ErrorKind::Storage => (StatusCode::INTERNAL_SERVER_ERROR, "the storage failed"),
            // The change itself succeeded: `PublishFailure::Return`.
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "it was done, but others could not be told of it"),
        };
        Self::new(status, detail)
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// The kind of an error; that of what a storage failed with, if it is one of ours and says more.
fn kind(error: &Error) -> ErrorKind {
    if error.kind() != ErrorKind::Storage {
        return error.kind();
    }
    let mut next = error.source();
    while let Some(source) = next {
        match source.downcast_ref::<Error>().map(Error::kind) {
            Some(kind @ (ErrorKind::Conflict | ErrorKind::NotFound)) => return kind,
            _ => next = source.source(),
        }
    }
    ErrorKind::Storage
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'a str,
            status: u16,
            detail: &'a str,
        }

        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let body = serde_json::to_vec(&body).expect("it is made of texts and a number");
        (self.status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
