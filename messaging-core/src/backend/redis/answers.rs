//! Our errors for what Redis and the `redis` crate say, in words that say what to do.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use redis::{ErrorKind as RedisErrorKind, RedisError, ServerErrorKind};

use crate::error::{Error, ErrorKind};

/// Our error for one of the `redis` crate, in words that say what to do. A command or a transaction that was refused as
/// a whole is "not sent".
pub(super) fn describe(error: RedisError, endpoint: &str) -> Error {
    let (kind, text) = match error.kind() {
        RedisErrorKind::Server(ServerErrorKind::BusyLoading) => {
            let text = format!("redis at {endpoint} is still loading its data");
            return Error::new(ErrorKind::Connection, text).before_sending().with_source(error);
        }
        RedisErrorKind::AuthenticationFailed => (
            ErrorKind::Refused,
            format!("redis at {endpoint} refused the credentials; check the user and the password: {error}"),
        ),
        RedisErrorKind::Server(_) | RedisErrorKind::Extension => {
            let aborted = error.kind() == RedisErrorKind::Server(ServerErrorKind::ExecAbort);
            let (code, detail) = first_refusal(&error);
            if is_missing(&code, &detail) {
                let text = format!("redis at {endpoint} has no such stream or group: {code} {detail}");
                return Error::new(ErrorKind::NotFound, text).with_source(error);
            }
            // Where the slot is, or whether the cluster works: soon it is elsewhere, or does.
            let kind = if is_about_slots(&code) { ErrorKind::Connection } else { ErrorKind::Refused };
            let refused = refused(kind, endpoint, &code, &detail);
            // What a transaction that was carried out says of its commands has no detail of its own.
            let as_a_whole = aborted || error.detail().is_some();
            let refused = if as_a_whole { refused.before_sending() } else { refused };
            return refused.with_source(error);
        }
        RedisErrorKind::Io if error.is_timeout() => {
            (ErrorKind::Timeout, format!("redis at {endpoint} did not answer in time"))
        }
        RedisErrorKind::Io if error.is_connection_refusal() => (
            ErrorKind::Connection,
            format!("cannot connect to redis at {endpoint}: {error}; is it running there?"),
        ),
        RedisErrorKind::Io => {
            (ErrorKind::Connection, format!("the connection to redis at {endpoint} failed: {error}"))
        }
        RedisErrorKind::InvalidClientConfig => {
            (ErrorKind::Configuration, format!("cannot use redis at {endpoint}: {error}"))
        }
        _ => (ErrorKind::Refused, format!("redis at {endpoint} answered unexpectedly: {error}")),
    };
    Error::new(kind, text).with_source(error)
}

/// Whether a stream or a group is not there, or went while somebody waited for it.
fn is_missing(code: &str, detail: &str) -> bool {
    matches!(code, "NOGROUP" | "UNBLOCKED") || detail.contains("no such key")
}

/// Whether a refusal is about where a key or a channel is, or about the state of the cluster, and not about what was
/// asked for: nothing was carried out.
pub(super) fn is_about_slots(code: &str) -> bool {
    matches!(code, "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN")
}

/// The code and the text of an error reply; of a transaction or a batch, those of its first command that was refused.
pub(super) fn first_refusal(error: &RedisError) -> (String, String) {
    let of_a_command = error.clone().into_server_errors().and_then(|errors| {
        let (_, first) = errors.first()?;
        Some((first.code().to_owned(), first.details().unwrap_or_default().to_owned()))
    });
    of_a_command.unwrap_or_else(|| {
        (error.code().unwrap_or("ERR").to_owned(), error.detail().unwrap_or_default().to_owned())
    })
}

/// [`describe`] for an error reply that we have received ourselves.
pub(super) fn describe_reply(reply: &str, endpoint: &str) -> Error {
    match redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()) {
        Ok(redis::Value::ServerError(error)) => describe(error.into(), endpoint),
        _ => refusal(endpoint, reply),
    }
}

/// Our error for an error reply on one of our own connections; the command was not carried out.
pub(super) fn refusal(endpoint: &str, reply: &str) -> Error {
    let (code, detail) = reply.split_once(' ').unwrap_or((reply, ""));
    let error = match code {
        "LOADING" => {
            Error::new(ErrorKind::Connection, format!("redis at {endpoint} is still loading its data"))
        }
        _ => refused(ErrorKind::Refused, endpoint, code, detail),
    };
    error.before_sending()
}

/// An error reply in words that say what to do.
fn refused(kind: ErrorKind, endpoint: &str, code: &str, detail: &str) -> Error {
    let advice = match code {
        "NOPERM" => "; its ACL does not allow this user to do that",
        "NOAUTH" => "; it wants a password: set REDIS_PASSWORD, or put it into the URL",
        "WRONGPASS" => "; check the user and the password",
        "READONLY" => "; it is a read-only replica: connect to the primary",
        "OOM" => "; its `maxmemory` is used up and its policy evicts nothing",
        "MISCONF" => "; it cannot write its data to disk and accepts no writes",
        _ => "",
    };
    let error = Error::new(kind, format!("redis at {endpoint} refused: {code} {detail}{advice}"));
    if code == "NOPERM" { error.forbidden() } else { error }
}

/// An error once more, for another of the callers that it concerns.
pub(super) fn copy(error: &Arc<Error>) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    let copy = if error.is_not_sent() { copy.before_sending() } else { copy };
    let copy = if error.is_forbidden() { copy.forbidden() } else { copy };
    match error.source() {
        Some(_) => copy.with_source(SharedSource(Arc::clone(error))),
        None => copy,
    }
}

/// The source of an error that several callers get.
#[derive(Debug)]
struct SharedSource(Arc<Error>);

impl SharedSource {
    fn shared(&self) -> &(dyn StdError + 'static) {
        self.0.source().expect("it is made only of errors with a source")
    }
}

impl fmt::Display for SharedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.shared(), f)
    }
}

impl StdError for SharedSource {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.shared().source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cluster_says_of_itself_passes() {
        for (reply, kind) in [
            ("CLUSTERDOWN Hash slot not served", ErrorKind::Connection),
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Connection),
            ("TRYAGAIN Multiple keys request during rehashing of slot", ErrorKind::Connection),
            ("NOPERM this user has no permissions", ErrorKind::Refused),
        ] {
            let error = describe_reply(reply, "here");
            assert_eq!((error.kind(), error.is_not_sent()), (kind, true), "{error}");
            assert_eq!(error.is_forbidden(), reply.starts_with("NOPERM"));
            assert_eq!(error.is_retryable(), kind == ErrorKind::Connection);
        }
    }
}
