//! What the attributes' generated code uses. Not for users: it may change with every version.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

pub use bytes::Bytes;
pub use {inventory, serde};

pub use crate::cache::source::{Again, Layer, Load, Local, Once, Remote, kept};
pub use crate::cache_manager::{CachedFunction, Function, Scalar};
pub use crate::channel::{Channel, Pattern, ToChannel, ToPattern, TypedChannel};
pub use crate::dispatch::{
    BoxFuture, Buffer, Carrier, Context, Delivery, DeliveryMode, FromDelivery, Handler, HandlerOptions,
    HandlerResult, Needs, OrderedBy, Overflow, Queue, Rejection, ResyncFn, Segment, StartAt,
};
pub use crate::error::{Error, Result};
pub use crate::event::{ChangeEvent, Model, Op};
pub use crate::registry::{
    ChannelDescriptor, Descriptor, FunctionDescriptor, HandlerDescriptor, LocalOptions, Location, ModelCache,
    ModelDescriptor, ModelDurability, PayloadField, ResyncDescriptor, Subscribers, Trigger, TriggerOn,
};
pub use crate::retry::Retry;
pub use crate::stream::{Durability, Retention};

use crate::cache::shape::OptionShape;
use crate::cache::{Ask, is_bypassed};
use crate::channel::Captures;
use crate::core::Current;
use crate::dispatch::{HandlerReturn, outcome as to_outcome, worker};
use crate::error::ErrorKind;
pub use crate::error::chain;
use crate::event::{ChangeKind, Timestamp};
use crate::json;

/// The return type's shape, by autoref specialisation.
pub mod shape {
    pub use crate::cache::shape::{
        Shape, ShapeProbe, ViaFallible, ViaFallibleOptional, ViaOptional, ViaPlain, ViaShared,
        ViaSharedOptional, checked,
    };
}

/// The model's JSON Schema, by autoref specialisation: `None` where there is none.
pub mod schema {
    use std::marker::PhantomData;

    /// Asks whether `M` has a schema.
    #[derive(Debug)]
    pub struct SchemaProbe<M>(PhantomData<fn() -> M>);

    impl<M> SchemaProbe<M> {
        /// Asks.
        #[allow(clippy::new_without_default)]
        #[must_use]
        pub const fn new() -> Self {
            Self(PhantomData)
        }
    }

    /// It has.
    #[cfg(feature = "schema")]
    pub trait HasSchema {
        /// The schema.
        fn schema(&self) -> Option<serde_json::Value>;
    }

    #[cfg(feature = "schema")]
    impl<M: schemars::JsonSchema> HasSchema for SchemaProbe<M> {
        fn schema(&self) -> Option<serde_json::Value> {
            Some(schemars::schema_for!(M).to_value())
        }
    }

    /// It has not.
    pub trait NoSchema {
        /// No schema.
        fn schema(&self) -> Option<serde_json::Value> {
            None
        }
    }

    impl<M> NoSchema for &SchemaProbe<M> {}
}

// Handlers.

/// Starts a worker of a handler.
pub fn start<H: Handler + Default>(queue: Queue) -> BoxFuture<'static, ()> {
    Box::pin(worker(H::default(), queue))
}

/// The user's return value.
///
/// # Errors
/// The handler's own.
pub fn outcome<R: HandlerReturn>(returned: R) -> Result<(), Rejection> {
    to_outcome(returned)
}

/// The value at a placeholder.
///
/// # Errors
/// A mismatch if it does not parse.
pub fn segment<T: Segment>(delivery: &Delivery, name: &str) -> Result<T, Rejection> {
    T::from_segment(segment_str(delivery, name)?).ok_or_else(Rejection::mismatch)
}

/// The text at a placeholder.
///
/// # Errors
/// A mismatch if there is none, which cannot be.
pub fn segment_str<'d>(delivery: &'d Delivery, name: &str) -> Result<&'d str, Rejection> {
    delivery.segment(name).ok_or_else(Rejection::mismatch)
}

/// The instance whose method handles.
///
/// # Errors
/// If it was not given, which start refuses.
pub fn service<S: Subscribers>(delivery: &Delivery) -> Result<Arc<S>, Rejection> {
    let missing =
        || Rejection::failed(format!("no service of type {} was given", std::any::type_name::<S>()));
    delivery.context().state().ok_or_else(missing)
}

/// The instance is state that must be given.
pub fn needs_service<S: Subscribers>(needs: &mut Needs) {
    needs.state::<S>();
}

/// What a resync function needs.
pub fn resync_needs<Args, F: ResyncFn<Args>>(needs: &mut Needs, _function: &F) {
    F::needs(needs);
}

/// Calls a resync function.
pub fn resync_call<Args, F: ResyncFn<Args>>(
    context: Context,
    function: F,
) -> BoxFuture<'static, HandlerResult> {
    function.call(context)
}

// Models and channels.

/// A value as JSON.
///
/// # Errors
/// If it cannot be written.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes> {
    json::encode(value)
}

/// A field's scalar text.
///
/// # Errors
/// If it is no scalar.
pub fn scalar<T: Serialize + ?Sized>(value: &T) -> Result<Option<String>> {
    json::scalar_text(value)
}

/// The answer for a field that no template names, which cannot be.
///
/// # Errors
/// Always.
pub fn unknown_field(field: &str) -> Result<Option<String>> {
    Err(Error::new(ErrorKind::InvalidKey, format!("there is no field `{field}`")))
}

/// The [`ChangeEvent`] envelope of a model's event.
///
/// # Errors
/// If a part cannot be written.
pub fn envelope<T: Serialize, P: Serialize>(
    op: Op,
    resource: &'static str,
    id: &dyn Scalar,
    tenant: Option<&dyn Scalar>,
    metadata: &T,
    previous: Option<&P>,
) -> Result<Bytes> {
    #[derive(Serialize)]
    #[serde(crate = "serde")]
    struct Envelope<'a, T, P> {
        event_type: ChangeKind,
        resource_type: &'static str,
        resource_id: String,
        tenant_id: Option<String>,
        timestamp: Timestamp,
        metadata: &'a T,
        #[serde(skip_serializing_if = "Option::is_none")]
        previous: Option<&'a P>,
    }

    let resource_id =
        id.scalar()?.ok_or_else(|| Error::new(ErrorKind::Encode, "the envelope's id is null"))?;
    let tenant_id = tenant.map(|tenant| tenant.scalar()).transpose()?.flatten();
    json::encode(&Envelope {
        event_type: op.into(),
        resource_type: resource,
        resource_id,
        tenant_id,
        timestamp: Timestamp::now(),
        metadata,
        previous,
    })
}

/// Fills a typed channel's template.
///
/// # Errors
/// If a value is not valid.
pub fn fill_channel(template: &'static str, values: &[(&str, String)]) -> Result<Channel> {
    let value =
        |name: &str| Ok(values.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone()));
    let filled = crate::channel::fill(template, value)?;
    filled
        .ok_or_else(|| Error::new(ErrorKind::InvalidChannel, format!("a value for {template:?} is missing")))
}

/// The texts at a typed channel's placeholders.
///
/// # Errors
/// If the channel does not match.
pub fn read_channel<'c>(template: &'static str, channel: &'c str) -> Result<Vec<&'c str>> {
    let mut captures = Captures::new();
    if Pattern::parse(template)?.captures(channel, &mut captures) {
        return Ok(captures.into_iter().map(|range| &channel[range]).collect());
    }
    Err(Error::new(ErrorKind::InvalidChannel, format!("{channel:?} does not match {template:?}")))
}

/// The value at a typed channel's placeholder.
///
/// # Errors
/// If it does not parse.
pub fn parse_segment<T: Segment>(template: &'static str, name: &str, text: &str) -> Result<T> {
    T::from_segment(text).ok_or_else(|| {
        let wanted = json::short_type_name::<T>();
        Error::new(
            ErrorKind::InvalidChannel,
            format!("{text:?} at {{{name}}} of {template:?} is not a {wanted}"),
        )
    })
}

// Cached functions.

/// The key of one call.
#[derive(Debug)]
pub struct Key(Result<String>);

/// The key for these arguments, in the placeholders' order.
#[must_use]
pub fn key(function: &'static Function, arguments: &[&(dyn Scalar + Sync)]) -> Key {
    Key(function.key(arguments))
}

/// The key as text.
///
/// # Errors
/// If an argument is no scalar.
pub fn key_text(_function: &'static Function, key: Key) -> Result<String> {
    key.0
}

/// Removes a value.
///
/// # Errors
/// What the backend says.
pub async fn invalidate(_function: &'static Function, key: Key) -> Result<()> {
    crate::cache_manager::invalidate(key.0?).await
}

/// Compiles only where there is an `Option` that `cache_none` can mean.
pub fn assert_option_shape<S: OptionShape>(_shape: &S) {}

/// Removes all values of a function, in all processes; returns how many there were.
///
/// # Errors
/// What the backend says.
pub async fn invalidate_all(function: &'static Function) -> Result<u64> {
    crate::cache_manager::invalidate_all(function.descriptor).await
}

/// A load that outlives the call, with arguments of its own.
#[derive(Debug)]
pub struct Outliving;

/// Whether it can have a copy of what was passed by reference. Asked of [`Outliving`] and not of the argument, because the
/// compiler would advise another `&` then.
#[diagnostic::on_unimplemented(
    message = "`stale` cannot keep a copy of `{T}` for a load that outlives the call",
    label = "what is passed by reference must be `Clone + Send + Sync + 'static`",
    note = "to share it instead, pass an `Arc` of it or a reference to one, such as `self: &Arc<Self>`"
)]
pub trait Copies<T: ?Sized> {
    /// Makes the copy.
    fn copy(argument: &T) -> Copied<T>;
}

#[diagnostic::do_not_recommend]
impl<T: ToOwned<Owned: Send + Sync + 'static> + Sync + ?Sized> Copies<T> for Outliving {
    fn copy(argument: &T) -> Copied<T> {
        Copied(Box::new(argument.to_owned()))
    }
}

/// The owned form of something. Without its type in this one, what cannot be copied is reported once and not again
/// wherever the copy is used.
pub struct Copied<T: ?Sized>(Box<dyn Borrow<T> + Send + Sync>);

impl<T: ?Sized> Deref for Copied<T> {
    type Target = T;

    fn deref(&self) -> &T {
        (*self.0).borrow()
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for Copied<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Copies an argument.
pub fn copied<T: ?Sized>(argument: &T) -> Copied<T>
where
    Outliving: Copies<T>,
{
    Outliving::copy(argument)
}

/// An argument that can go along with a load that outlives the call.
#[diagnostic::on_unimplemented(
    message = "`stale` cannot keep `{Self}` for a load that outlives the call",
    label = "what is passed by value must be `Send + 'static`"
)]
pub trait Lasting {}

#[diagnostic::do_not_recommend]
impl<T: Send + 'static> Lasting for T {}

/// Moves an argument.
pub fn moved<T: Lasting>(argument: T) -> T {
    argument
}

/// Answers a call from the cache, or by `load`.
pub async fn cached<R, S: shape::Shape<R>, Y: Layer<S::Value>, L: Load<Output = R>>(
    function: &'static Function,
    key: Key,
    shape: S,
    layer: Y,
    load: L,
) -> R {
    call(function, key, shape, false, layer, load).await
}

/// As [`cached`], where values are kept in this process too.
pub async fn cached_locally<R, S: shape::Shape<R>, Y: Layer<S::Value>, L: Load<Output = R>>(
    function: &'static Function,
    key: Key,
    shape: S,
    layer: Y,
    load: L,
) -> R {
    if let Ok(text) = &key.0
        && !is_bypassed()
    {
        let hit = Current::peek(|core| {
            let family = core.cache.families.get_at(function.descriptor, &function.place)?;
            core.cache.local_hit::<R, S, Y>(family, text)
        });
        if let Some(returned) = hit {
            key.0.map(crate::cache_manager::spare).ok();
            // Who only ever hits must not keep the thread from those who listen.
            tokio::task::coop::consume_budget().await;
            return returned;
        }
    }
    // Boxed, because a hit should not carry the size of everything that a miss may need.
    Box::pin(call(function, key, shape, false, layer, load)).await
}

/// Calls the function and replaces the cached value.
pub async fn refresh<R, S: shape::Shape<R>, Y: Layer<S::Value>, L: Load<Output = R>>(
    function: &'static Function,
    key: Key,
    shape: S,
    layer: Y,
    load: L,
) -> R {
    call(function, key, shape, true, layer, load).await
}

async fn call<R, S: shape::Shape<R>, Y: Layer<S::Value>, L: Load<Output = R>>(
    function: &'static Function,
    key: Key,
    _shape: S,
    replace: bool,
    _layer: Y,
    load: L,
) -> R {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let id = function.descriptor.id;
    let Some(current) = Current::get() else {
        if !WARNED.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                function = id,
                "cached functions run uncached: there is no current messaging; call init_redis or Messaging::start first, or run inside messaging.scope(…)"
            );
        }
        return load.now().await;
    };
    let cache = &current.core.cache;
    // Only a function that was linked after the registry was read, by a dynamic library, is none of these.
    let Some(family) = cache.families.get_at(function.descriptor, &function.place) else {
        return load.now().await;
    };
    let key = match &key.0 {
        Ok(key) if replace || !is_bypassed() => key,
        unusable => {
            if let Err(error) = unusable {
                tracing::debug!(function = id, error = %chain(error), "called without the cache");
            }
            family.rules.tally.uncached.up();
            family.rules.tally.loads.up();
            return load.now().await;
        }
    };
    let ask = Ask { family, key, ttl: function.descriptor.ttl, replace, current: Some(&current) };
    cache.call::<R, S, Y, L>(ask, load).await
}

/// An error of a crate beside this one.
#[must_use]
pub fn error(kind: ErrorKind, text: String) -> Error {
    Error::new(kind, text)
}

/// The same, with its source.
#[must_use]
pub fn error_of(
    kind: ErrorKind,
    text: String,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::new(kind, text).with_source(source)
}
