//! The one error type of the crate, and the error type of handlers. Knows nothing of Redis or of JSON.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Any error, boxed, as sources are kept.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the words of [`ErrorKind`], with what was attempted and what to try.
///
/// ```
/// use messaging_core::{Config, ErrorKind};
///
/// let error = Config::new("http://localhost").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Configuration);
/// assert!(error.to_string().contains("redis://"));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    not_sent: bool,
    forbidden: bool,
    source: Option<BoxError>,
}

/// The kinds of [`Error`]. A program matches on these, never on messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, an environment variable or a setting is wrong, or names something that is not compiled in.
    Configuration,
    /// A channel name, template, pattern or the value of a placeholder is not valid.
    InvalidChannel,
    /// A cache key cannot be built, or would be ambiguous.
    InvalidKey,
    /// The payload is larger than the configured limit. Nothing was sent.
    PayloadTooLarge,
    /// A value could not be written as JSON.
    Encode,
    /// Bytes could not be read as the wanted type.
    Decode,
    /// There is no connection to Redis, or it broke.
    Connection,
    /// Redis did not answer in time.
    Timeout,
    /// Redis answered with an error (no permission, read-only, out of memory, …).
    Refused,
    /// Handlers cannot be started: a duplicate id, missing state, contradictory options.
    Registration,
    /// There is no current [`Messaging`](crate::Messaging): none was initialised in this process or scope.
    NotStarted,
    /// The [`Messaging`](crate::Messaging) or the subscription has been shut down.
    Closed,
    /// Messages may have been missed: the connection was lost and is back, or a full buffer dropped some.
    Gap,
    /// The storage behind a [`Repository`](crate::Repository) failed; its error is the source.
    Storage,
    /// What was asked for does not exist: a stream, a group, a dead letter.
    NotFound,
    /// Somebody else has changed it since it was read, or has made one with the same key before.
    Conflict,
    /// An event that has to come before could not be published. Nothing was sent.
    Held,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let not_sent = matches!(
            kind,
            ErrorKind::Configuration
                | ErrorKind::InvalidChannel
                | ErrorKind::InvalidKey
                | ErrorKind::PayloadTooLarge
                | ErrorKind::Encode
                | ErrorKind::Registration
                | ErrorKind::NotStarted
        );
        Self(Box::new(Inner { kind, message: message.into(), not_sent, forbidden: false, source: None }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Marks an error whose command never left this process, or was refused as a whole.
    pub(crate) fn before_sending(mut self) -> Self {
        self.0.not_sent = true;
        self
    }

    /// Marks an error that an ACL is the reason of. Any other refusal may be of a moment: of a server that is not the
    /// master any more, or whose disk is full.
    pub(crate) fn forbidden(mut self) -> Self {
        self.0.forbidden = true;
        self
    }

    pub(crate) fn is_forbidden(&self) -> bool {
        self.0.forbidden
    }

    /// Marks an error of one step when an earlier one was carried out.
    pub(crate) fn maybe_sent(mut self) -> Self {
        self.0.not_sent = false;
        self
    }

    /// Of a script: one that is refused in the middle has done a part. What was not sent at all is not in doubt.
    pub(crate) fn of_a_script(self) -> Self {
        if self.kind() == ErrorKind::Refused { self.maybe_sent() } else { self }
    }

    /// Puts what was attempted in front of the message.
    pub(crate) fn context(mut self, attempted: impl fmt::Display) -> Self {
        self.0.message = format!("{attempted}: {}", self.0.message).into();
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed later without a change: lost connections, timeouts, gaps.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Gap | ErrorKind::Held)
    }

    /// Whether it is certain that nothing reached Redis or was carried out there. When this is `false` the fate of
    /// what was sent is unknown: it may or may not have happened.
    #[must_use]
    pub fn is_not_sent(&self) -> bool {
        self.0.not_sent
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// What a handler failed with: any error, and optionally what is to be done about it.
///
/// Every error, `anyhow::Error`, `String` and `&str` turns into it with `?` or `.into()`; the handler's retry policy
/// or the [error handler](crate::Builder::error_handler) then decides. [`retry`](Self::retry),
/// [`skip`](Self::skip) and [`dead_letter`](Self::dead_letter) decide here, over both. It is deliberately not an [`std::error::Error`] itself: otherwise
/// that conversion could not exist.
///
/// ```
/// use messaging_core::HandlerError;
///
/// fn check(amount: i64) -> Result<(), HandlerError> {
///     if amount < 0 {
///         return Err(HandlerError::skip("a negative amount never becomes right"));
///     }
///     let _parsed: i64 = "12".parse()?;
///     Ok(())
/// }
/// # check(1).unwrap();
/// ```
pub struct HandlerError {
    pub(crate) action: Option<ErrorAction>,
    pub(crate) error: BoxError,
}

/// What to do with a message whose handler failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorAction {
    /// Call the handler again after its policy's delay, until its attempts are used up; then skip, or with
    /// `delivery = "queue"` put the message into the dead-letter stream.
    Retry,
    /// Give this message up and go on with the next.
    Skip,
    /// With `delivery = "queue"`: put the message into the dead-letter stream, whatever attempts are left, and go on
    /// with the next. Other messages have no dead-letter stream and are skipped.
    DeadLetter,
    /// Stop this handler for good; [`Health`](crate::Health) shows it as stopped and is not ready any more.
    Stop,
}

impl HandlerError {
    /// Fails and asks for another attempt, whatever an error handler would say. The attempts of the handler's policy
    /// still bound it.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self { action: Some(ErrorAction::Retry), error: error.into() }
    }

    /// Fails for good: this message is not tried again.
    pub fn skip(error: impl Into<BoxError>) -> Self {
        Self { action: Some(ErrorAction::Skip), error: error.into() }
    }

    /// Fails for good: the message goes to the dead-letter stream at once, where it can be looked at and replayed. A
    /// message without one (`delivery` other than `"queue"`) is skipped.
    pub fn dead_letter(error: impl Into<BoxError>) -> Self {
        Self { action: Some(ErrorAction::DeadLetter), error: error.into() }
    }

    /// The error itself.
    #[must_use]
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self { action: None, error: error.into() }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("action", &self.action).field("error", &self.error).finish()
    }
}

/// An error with all its sources on one line, as logs want it.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}
