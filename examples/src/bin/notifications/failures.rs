//! What becomes of calls that fail, for all handlers in one place.

use std::io;

use messaging_core::{ErrorAction, ErrorContext, ErrorKind, FailureCause, HandlerError};

use crate::screen::Screen;

/// What cannot be read is skipped, because it never will be; what a connection was lost over is tried again, as often as the
/// handler's `retry` says. Anything else is left to that, too.
pub(crate) fn decide(error: &HandlerError, context: &ErrorContext, screen: &Screen) -> Option<ErrorAction> {
    let ErrorContext { channel, attempt, attempts, cause, .. } = context;
    if *cause == FailureCause::Decode {
        screen.heard("skipped", &format!("{channel}: failed to deserialize message"));
        return Some(ErrorAction::Skip);
    }
    let of_ours = error.error().downcast_ref::<messaging_core::Error>();
    let is_connection =
        of_ours.is_some_and(|error| error.kind() == ErrorKind::Connection) || error.error().is::<io::Error>();
    is_connection.then(|| {
        screen
            .heard("retry", &format!("{channel}: connection lost, attempt {attempt} of {attempts}: {error}"));
        ErrorAction::Retry
    })
}
