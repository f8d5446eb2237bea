//! Channel names, templates with placeholders, and globs: parsing, filling, matching. Pure values; no I/O.
//!
//! A channel template is literal text with placeholders: `camera.events.complex:{complex_id}`. Segments are separated
//! by `.` or `:`. A placeholder stands for one non-empty segment or a part of one and never crosses a separator;
//! `{rest*}` at the end takes everything that remains. Text with a glob character (`* ? [ ] \`) and without
//! placeholders is a glob and means what Redis means by it.

mod glob;
mod pattern;

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use bytestring::ByteString;

pub(crate) use glob::{escape_glob, glob_matches, globs_may_meet};
pub(crate) use pattern::{Captures, Kind, Wire, fill};
pub use pattern::{Pattern, Template};

use crate::error::{Error, ErrorKind, Result};

/// The name of one channel, as it is on the wire without the configured prefix. Cheap to clone.
///
/// As a handler's argument it is the channel that the message came on. It derefs to `str`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(ByteString);

impl Channel {
    /// Checks a concrete channel name: not empty, at most 64 KiB, no white space, control or glob characters, no braces.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`] with the character that is not allowed.
    pub fn new(name: &str) -> Result<Self> {
        const LONGEST: usize = 64 << 10;
        check_literal(name, name)?;
        if name.len() > LONGEST {
            return Err(invalid(name, format_args!("it has {} bytes; the most are {LONGEST}", name.len())));
        }
        if let Some(glob) = name.chars().find(|c| is_glob(*c)) {
            return Err(invalid(
                name,
                format_args!("{glob:?} would make it a pattern; publish to a concrete channel"),
            ));
        }
        if name.contains(['{', '}']) {
            return Err(invalid(name, "it still has a placeholder; fill it in, or use a `#[channel]` type"));
        }
        Ok(Self(name.into()))
    }

    /// A name that arrived from the wire: any UTF-8 text.
    pub(crate) fn from_wire(name: Bytes) -> Option<Self> {
        ByteString::try_from(name).ok().map(Self)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn without_prefix(&self, prefix: &str) -> Option<Self> {
        if prefix.is_empty() {
            return Some(self.clone());
        }
        self.0.strip_prefix(prefix).map(|rest| Self(self.0.slice_ref(rest)))
    }
}

impl Deref for Channel {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Channel {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Channel {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Channel {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What can be published to: a concrete channel name, or a value of a [`#[channel]`](macro@crate::channel) type.
pub trait ToChannel {
    /// The concrete channel.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`] if the name, or the value of a placeholder, is not valid.
    fn to_channel(&self) -> Result<Channel>;

    /// The template that the channel is one of, if that is known: durable messages on all its channels are in one stream.
    fn template(&self) -> Option<&'static str> {
        None
    }
}

impl ToChannel for str {
    fn to_channel(&self) -> Result<Channel> {
        Channel::new(self)
    }
}

impl ToChannel for String {
    fn to_channel(&self) -> Result<Channel> {
        Channel::new(self)
    }
}

impl ToChannel for Channel {
    fn to_channel(&self) -> Result<Channel> {
        Ok(self.clone())
    }
}

impl<T: ToChannel + ?Sized> ToChannel for &T {
    fn to_channel(&self) -> Result<Channel> {
        (**self).to_channel()
    }

    fn template(&self) -> Option<&'static str> {
        (**self).template()
    }
}

/// A type that stands for all channels of one template; implemented by [`#[channel]`](macro@crate::channel).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a channel type",
    label = "put `#[channel(\"…\")]` on the struct, or write the channel in quotes"
)]
pub trait TypedChannel: ToChannel + ToPattern + Sized {
    /// The template, as written in the attribute.
    const TEMPLATE: &'static str;

    /// Reads the values of the placeholders back from a concrete channel.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`] if the channel does not match the template or a value does not parse.
    fn from_channel(channel: &str) -> Result<Self>;
}

/// What can be subscribed to: a channel name, a template, a glob (all as text), a [`Pattern`], or a
/// [`#[channel]`](macro@crate::channel) value, which means that one channel.
pub trait ToPattern {
    /// The pattern.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`] if the text is neither a channel, a template nor a glob.
    fn to_pattern(&self) -> Result<Pattern>;
}

impl ToPattern for str {
    fn to_pattern(&self) -> Result<Pattern> {
        Pattern::parse(self)
    }
}

impl ToPattern for String {
    fn to_pattern(&self) -> Result<Pattern> {
        Pattern::parse(self)
    }
}

impl ToPattern for Pattern {
    fn to_pattern(&self) -> Result<Pattern> {
        Ok(self.clone())
    }
}

impl ToPattern for Channel {
    fn to_pattern(&self) -> Result<Pattern> {
        Ok(Pattern::Exact(self.clone()))
    }
}

impl<T: ToPattern + ?Sized> ToPattern for &T {
    fn to_pattern(&self) -> Result<Pattern> {
        (**self).to_pattern()
    }
}

fn check_literal(whole: &str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::new(ErrorKind::InvalidChannel, "the channel name is empty"));
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        Some(character) => {
            Err(invalid(whole, format_args!("{character:?} is not allowed in a channel name")))
        }
        None => Ok(()),
    }
}

fn is_glob(character: char) -> bool {
    matches!(character, '*' | '?' | '[' | ']' | '\\')
}

fn invalid(text: &str, reason: impl fmt::Display) -> Error {
    let shown: String = text.chars().take(120).collect();
    Error::new(ErrorKind::InvalidChannel, format!("{shown:?} is not a valid channel: {reason}"))
}
