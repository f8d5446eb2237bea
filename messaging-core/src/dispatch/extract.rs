//! A handler's arguments: the payload, and what is taken from the delivery or from the service's state.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::{Context, Delivery};
use crate::channel::{Channel, TypedChannel};
use crate::error::{Error, ErrorKind, HandlerError};
use crate::json;
use crate::stream::{EventId, Headers};

/// A type that a handler can take as an argument.
///
/// Everything that implements [`Deserialize`] is the *payload*: a handler has at most one such argument. It may borrow
/// from the received bytes, with `Cow<'_, str>` and `#[serde(borrow)]` (a `&str` cannot hold JSON escapes). The other
/// implementations take something from the delivery.
///
/// Types of your own may implement it, unless they implement `Deserialize`:
///
/// ```
/// use messaging_core::{Delivery, FromDelivery, Rejection};
///
/// struct Tenant(String);
///
/// impl<'d> FromDelivery<'d> for Tenant {
///     fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
///         match delivery.channel().strip_prefix("tenant:") {
///             Some(name) => Ok(Self(name.to_owned())),
///             None => Err(Rejection::mismatch()),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler's argument",
    label = "neither a payload (`Deserialize`) nor taken from the delivery (`FromDelivery`)",
    note = "a payload implements `serde::Deserialize`; shared state is taken as `State<{Self}>`; other arguments are `Channel`, `Segments`, `ChannelOf<…>`, `Context`, `Attempt`, `EventId`, `Headers`, `Raw`, `Messaging`",
    note = "a type of your own becomes an argument with `impl<'d> FromDelivery<'d> for {Self}`"
)]
pub trait FromDelivery<'d>: Sized {
    #[doc(hidden)]
    const IS_PAYLOAD: bool = false;

    /// Takes the value from the delivery.
    ///
    /// # Errors
    /// A [`Rejection`]: this message is not for the handler, cannot be decoded, or something else failed.
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection>;

    /// Says what state this argument needs, so that [`start`](crate::Messaging::start) can refuse to run without it.
    fn needs(needs: &mut Needs) {
        let _ = needs;
    }
}

/// A type that can be taken without a message: the arguments of a `resync` function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a `resync` function",
    label = "a `resync` function is called without a message",
    note = "its arguments can be `State<…>`, `Context` and `Messaging`"
)]
pub trait FromContext: Sized {
    /// Takes the value from the handler's context.
    ///
    /// # Errors
    /// Any error; it is treated as the resync function's own.
    fn from_context(context: &Context) -> Result<Self, HandlerError>;

    /// Says what state this argument needs.
    fn needs(needs: &mut Needs) {
        let _ = needs;
    }
}

/// Why an argument could not be taken from a delivery.
#[derive(Debug)]
pub struct Rejection(pub(crate) RejectionKind);

#[derive(Debug)]
pub(crate) enum RejectionKind {
    Mismatch,
    Decode(Error),
    Failed(HandlerError),
}

impl Rejection {
    /// This message is not meant for the handler: it is counted as mismatched and nothing else happens.
    #[must_use]
    pub fn mismatch() -> Self {
        Self(RejectionKind::Mismatch)
    }

    /// The handler fails with this error, as if it had returned it.
    pub fn failed(error: impl Into<HandlerError>) -> Self {
        Self(RejectionKind::Failed(error.into()))
    }
}

#[diagnostic::do_not_recommend]
impl<'d, T: Deserialize<'d>> FromDelivery<'d> for T {
    const IS_PAYLOAD: bool = true;

    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        json::decode(delivery.payload()).map_err(|error| Rejection(RejectionKind::Decode(error)))
    }
}

impl<'d> FromDelivery<'d> for Channel {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        Ok(delivery.channel().clone())
    }
}

/// The channel that the message came on, read back as a value of a [`#[channel]`](macro@crate::channel) type. A channel
/// that does not fit the type is not for this handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelOf<C>(pub C);

impl<C> Deref for ChannelOf<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<'d, C: TypedChannel> FromDelivery<'d> for ChannelOf<C> {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        C::from_channel(delivery.channel()).map(Self).map_err(|_| Rejection::mismatch())
    }
}

/// The values of the placeholders, by name: for handlers that are added at run time, whose arguments no macro sees.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Segments(Vec<(String, String)>);

impl Segments {
    /// The text at a placeholder; `None` if the template has no placeholder of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(placeholder, _)| placeholder == name).map(|(_, value)| value.as_str())
    }

    /// The value at a placeholder.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`] if there is no such placeholder or the text does not parse.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<T, Error> {
        let text = self.get(name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidChannel, format!("the channel has no placeholder {{{name}}}"))
        })?;
        text.parse().map_err(|_| {
            Error::new(
                ErrorKind::InvalidChannel,
                format!("{text:?} at {{{name}}} is not a {}", json::short_type_name::<T>()),
            )
        })
    }

    /// Names and texts, in the template's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Segments {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(values: I) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl<'d> FromDelivery<'d> for Segments {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        Ok(delivery.segments())
    }
}

/// The payload as it was received, without decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl Deref for Raw {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'d> FromDelivery<'d> for Raw {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        Ok(Self(delivery.payload().clone()))
    }
}

/// Which attempt at this message it is, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u32);

impl<'d> FromDelivery<'d> for Attempt {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        Ok(Self(delivery.attempt()))
    }
}

impl<'d> FromDelivery<'d> for EventId {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        delivery.event_id().map(EventId::to_keep).ok_or_else(|| Rejection::failed(of_a_broadcast("id")))
    }

    fn needs(needs: &mut Needs) {
        needs.stream("EventId");
    }
}

impl<'d> FromDelivery<'d> for Headers {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        delivery.headers().cloned().ok_or_else(|| Rejection::failed(of_a_broadcast("headers")))
    }

    fn needs(needs: &mut Needs) {
        needs.stream("Headers");
    }
}

/// Start has refused the handler before this can happen, unless an extractor does not say what it needs.
fn of_a_broadcast(what: &str) -> String {
    format!("a message of a broadcast has no {what}")
}

impl<'d> FromDelivery<'d> for Context {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        Ok(delivery.context().clone())
    }
}

impl FromContext for Context {
    fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(context.clone())
    }
}

/// Shared state, given with [`Builder::state`](crate::Builder::state), [`Builder::service`](crate::Builder::service) or
/// [`Messaging::provide`](crate::Messaging::provide). It derefs to `T`; a handler whose state was not given is refused
/// at start.
pub struct State<T: ?Sized>(Arc<T>);

impl<T> State<T> {
    /// State for a test that calls a handler as the function that it is.
    #[must_use]
    pub fn new(state: T) -> Self {
        Self(Arc::new(state))
    }
}

impl<T: ?Sized> From<Arc<T>> for State<T> {
    fn from(state: Arc<T>) -> Self {
        Self(state)
    }
}

impl<T: ?Sized> State<T> {
    /// The shared value itself, to keep beyond the call.
    #[must_use]
    pub fn into_arc(self) -> Arc<T> {
        self.0
    }
}

impl<T: ?Sized> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&&*self.0).finish()
    }
}

impl<'d, T: Send + Sync + 'static> FromDelivery<'d> for State<T> {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        Self::from_context(delivery.context()).map_err(Rejection::failed)
    }

    fn needs(needs: &mut Needs) {
        needs.state::<T>();
    }
}

impl<T: Send + Sync + 'static> FromContext for State<T> {
    fn from_context(context: &Context) -> Result<Self, HandlerError> {
        context.state::<T>().map(Self).ok_or_else(|| {
            HandlerError::skip(format!("no state of type {} was given", std::any::type_name::<T>()))
        })
    }

    fn needs(needs: &mut Needs) {
        needs.state::<T>();
    }
}

/// What a handler's arguments need before it can start.
#[derive(Debug, Default)]
pub struct Needs {
    states: Vec<(TypeId, &'static str)>,
    streams: Vec<&'static str>,
}

impl Needs {
    /// State of type `T`.
    pub fn state<T: Send + Sync + 'static>(&mut self) {
        self.states.push((TypeId::of::<T>(), std::any::type_name::<T>()));
    }

    /// A message that came by a stream, for an argument that is called `argument`: `delivery = "queue"` or
    /// `"resumable"`.
    pub fn stream(&mut self, argument: &'static str) {
        self.streams.push(argument);
    }

    /// The first argument that only messages of a stream have.
    pub(crate) fn needs_stream(&self) -> Option<&'static str> {
        self.streams.first().copied()
    }

    /// The names of the types that `states` lacks.
    pub(crate) fn missing_in(&self, states: &States) -> Vec<&'static str> {
        self.states.iter().filter(|(id, _)| !states.0.contains_key(id)).map(|(_, name)| *name).collect()
    }
}

/// The state of a service, one value a type.
#[derive(Clone, Default)]
pub(crate) struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    /// Adds a value; `false` if there was one of its type already, which then stays.
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: Arc<T>) -> bool {
        match self.0.entry(TypeId::of::<T>()) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(value);
                true
            }
        }
    }

    /// Adds a value, in place of one of its type.
    pub(crate) fn replace<T: Send + Sync + 'static>(&mut self, value: Arc<T>) {
        self.0.insert(TypeId::of::<T>(), value);
    }

    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(self.0.get(&TypeId::of::<T>())?).downcast().ok()
    }
}

/// The value of a placeholder as a handler's argument: anything that implements [`FromStr`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a channel",
    label = "does not implement `std::str::FromStr`",
    note = "a placeholder's value has a type that implements `FromStr`; a handler can also take it as `&str`"
)]
pub trait Segment: Sized {
    #[doc(hidden)]
    fn from_segment(text: &str) -> Option<Self>;
}

#[diagnostic::do_not_recommend]
impl<T: FromStr> Segment for T {
    fn from_segment(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}
