//! What becomes of a call: the handler's return value, and the decision over a failed one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::HandlerResult;
use super::extract::Rejection;
use crate::channel::Channel;
use crate::error::{ErrorAction, HandlerError};
use crate::retry::Retry;

/// What a handler may return: `()` or `Result<(), E>`, where `E` is any error, `anyhow::Error`, `String`, `&str` or
/// [`HandlerError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a handler returns",
    label = "a handler returns `()` or `Result<(), E>`",
    note = "`E` can be any error type, `anyhow::Error`, `String`, `&str` or `HandlerError`"
)]
pub trait HandlerReturn {
    #[doc(hidden)]
    fn into_result(self) -> HandlerResult;
}

impl HandlerReturn for () {
    fn into_result(self) -> HandlerResult {
        Ok(())
    }
}

impl<E: Into<HandlerError>> HandlerReturn for Result<(), E> {
    fn into_result(self) -> HandlerResult {
        self.map_err(Into::into)
    }
}

/// What an [error handler](crate::Builder::error_handler) is told beside the error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ErrorContext {
    /// The handler's id.
    pub handler: Arc<str>,
    /// The message's channel.
    pub channel: Channel,
    /// Which attempt failed, counted from 1.
    pub attempt: u32,
    /// How many attempts the handler's policy allows.
    pub attempts: u32,
    /// What kind of failure it was.
    pub cause: FailureCause,
}

/// The kinds of failure of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureCause {
    /// The handler, or one of its arguments, returned an error.
    Error,
    /// The handler panicked.
    Panic,
    /// The handler took longer than its `timeout`.
    Timeout,
    /// The payload could not be decoded.
    Decode,
}

/// The user's say over failures.
pub(crate) type ErrorHandler = Arc<dyn Fn(&HandlerError, &ErrorContext) -> Option<ErrorAction> + Send + Sync>;

/// What to do after a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    RetryAfter(Duration),
    /// It needs no handling.
    GiveUp,
    /// It failed for good; what has a dead-letter stream goes there.
    DeadLetter,
    Stop,
}

/// A failed call.
pub(super) struct Failure {
    pub(super) cause: FailureCause,
    pub(super) error: HandlerError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::error::chain(&*self.error.error))
    }
}

/// Decides: what the error itself asks for goes before the error handler, which goes before the policy. A payload that
/// cannot be decoded is not tried again by policy, because it never becomes right.
pub(super) fn decide(
    failure: &Failure,
    context: &ErrorContext,
    retry: &Retry,
    error_handler: Option<&ErrorHandler>,
) -> Verdict {
    let by_policy = || match failure.cause {
        FailureCause::Decode => ErrorAction::DeadLetter,
        FailureCause::Error | FailureCause::Panic | FailureCause::Timeout => ErrorAction::Retry,
    };
    let action = failure
        .error
        .action
        .or_else(|| error_handler.and_then(|decide| decide(&failure.error, context)))
        .unwrap_or_else(by_policy);
    match action {
        ErrorAction::Retry => {
            retry.delay_after(context.attempt).map_or(Verdict::DeadLetter, Verdict::RetryAfter)
        }
        ErrorAction::Skip => Verdict::GiveUp,
        ErrorAction::DeadLetter => Verdict::DeadLetter,
        ErrorAction::Stop => Verdict::Stop,
    }
}

/// The user's return value as the generated handler passes it on.
pub(crate) fn outcome<R: HandlerReturn>(returned: R) -> Result<(), Rejection> {
    returned.into_result().map_err(Rejection::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(
        cause: FailureCause,
        error: HandlerError,
        attempt: u32,
        handler: Option<ErrorAction>,
    ) -> Verdict {
        let context = ErrorContext {
            handler: "h".into(),
            channel: Channel::new("c").unwrap(),
            attempt,
            attempts: 3,
            cause,
        };
        let error_handler: ErrorHandler = Arc::new(move |_, _| handler);
        decide(&Failure { cause, error }, &context, &Retry::DEFAULT, Some(&error_handler))
    }

    #[test]
    fn the_error_goes_before_the_handler_and_the_handler_before_the_policy() {
        use FailureCause::{Decode, Error};
        let first = Verdict::RetryAfter(Duration::from_millis(100));
        for (cause, error, attempt, handler, expected) in [
            (Error, HandlerError::from("x"), 1, None, first),
            (Error, HandlerError::from("x"), 3, None, Verdict::DeadLetter),
            (Error, HandlerError::from("x"), 1, Some(ErrorAction::Skip), Verdict::GiveUp),
            (Error, HandlerError::retry("x"), 1, Some(ErrorAction::Skip), first),
            (Error, HandlerError::retry("x"), 3, Some(ErrorAction::Skip), Verdict::DeadLetter),
            (Error, HandlerError::skip("x"), 1, Some(ErrorAction::Stop), Verdict::GiveUp),
            (Error, HandlerError::from("x"), 1, Some(ErrorAction::Stop), Verdict::Stop),
            (Decode, HandlerError::from("x"), 1, None, Verdict::DeadLetter),
            (Error, HandlerError::dead_letter("x"), 1, Some(ErrorAction::Skip), Verdict::DeadLetter),
            (Error, HandlerError::from("x"), 1, Some(ErrorAction::DeadLetter), Verdict::DeadLetter),
            (Decode, HandlerError::from("x"), 1, Some(ErrorAction::Retry), first),
        ] {
            let shown = format!("{cause:?} {error:?} {attempt} {handler:?}");
            assert_eq!(verdict(cause, error, attempt, handler), expected, "{shown}");
        }
    }
}
