//! How a cached function is called and how its results are kept in the process: the two things about a call that its
//! attribute decides at compile time.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::shape::Shape;
use crate::dispatch::BoxFuture;
use crate::error::Error;

/// How the function is called when there is no value.
///
/// Neither it nor its implementations compare lifetimes, as `Load<R>` or a bound `F: 'static` would: when the compiler asks
/// whether the future of a caller is `Send`, it has forgotten them (rust-lang/rust#100013), and would refuse whoever
/// returns a `Cow<'static, str>` or takes a `&'static str`.
pub trait Load: Sized {
    #[doc(hidden)]
    type Output;
    #[doc(hidden)]
    type Now: Future<Output = Self::Output>;
    /// For this caller.
    #[doc(hidden)]
    fn now(self) -> Self::Now;
    /// For nobody in particular, so that it can outlive the caller; the load itself where that is not possible. Of what
    /// the function returns only what `made_of_it` makes of it is kept.
    #[doc(hidden)]
    fn later(self, made_of_it: fn(&Self::Output) -> Loaded) -> Result<BoxFuture<'static, Loaded>, Self>;
}

/// A call with the caller's own arguments.
#[derive(Debug)]
pub struct Once<F>(pub F);

impl<F: Future> Load for Once<F> {
    type Output = F::Output;
    type Now = F;

    fn now(self) -> F {
        self.0
    }

    fn later(self, _made_of_it: fn(&F::Output) -> Loaded) -> Result<BoxFuture<'static, Loaded>, Self> {
        Err(self)
    }
}

type Output<C> = <<C as Call>::Future as Future>::Output;
type Later<C> = fn(C, fn(&Output<C>) -> Loaded) -> BoxFuture<'static, Loaded>;

/// A call with copies of the arguments, which are only made when it is needed.
pub struct Again<C: Call> {
    call: C,
    /// Made where the lifetimes are known.
    later: Later<C>,
}

async fn made_of<F: Future>(load: F, made_of_it: fn(&F::Output) -> Loaded) -> Loaded {
    let returned = load.await;
    made_of_it(&returned)
}

impl<C: Call> Again<C> {
    /// A call of a closure.
    pub fn new(call: C) -> Self
    where
        C::Future: Send + 'static,
    {
        Self { call, later: |call, made_of_it| Box::pin(made_of(call.call(), made_of_it)) }
    }
}

impl<C: Call> fmt::Debug for Again<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Again").finish_non_exhaustive()
    }
}

impl<C: Call> Load for Again<C> {
    type Output = <C::Future as Future>::Output;
    type Now = C::Future;

    fn now(self) -> C::Future {
        self.call.call()
    }

    fn later(self, made_of_it: fn(&Self::Output) -> Loaded) -> Result<BoxFuture<'static, Loaded>, Self> {
        Ok((self.later)(self.call, made_of_it))
    }
}

/// A closure that returns a future: what `FnOnce` says about one, with a name for the future.
pub trait Call {
    #[doc(hidden)]
    type Future: Future;
    #[doc(hidden)]
    fn call(self) -> Self::Future;
}

impl<C: FnOnce() -> F, F: Future> Call for C {
    type Future = F;

    fn call(self) -> F {
        self()
    }
}

/// What a load has come to, without its types.
#[derive(Debug)]
pub enum Loaded {
    /// A value as JSON and, if it is kept in this process, as it is.
    Value(Bytes, Option<Kept>),
    /// `None`.
    Nothing,
    /// With an error that can be shared, if there is one.
    Failed(Option<Arc<dyn Any + Send + Sync>>),
    /// What it returned cannot be written.
    Unwritable(Error),
}

/// A value of a type that its function knows; `None` where the function has returned `None`.
pub(crate) type Kept = Option<Arc<dyn Any + Send + Sync>>;

/// Whether results are kept in this process too.
#[diagnostic::on_unimplemented(
    message = "`local` cannot keep what this function returns in the process",
    label = "the value must be `Clone + Send + Sync + 'static`",
    note = "each call is answered with a clone; leave `local` out, or return something that can be cloned, such as an `Arc`"
)]
pub trait Layer<V> {
    /// The value as it is kept; `None` if it is not.
    #[doc(hidden)]
    fn keep(value: &V) -> Option<Arc<dyn Any + Send + Sync>>;
    /// A copy of a kept value.
    #[doc(hidden)]
    fn copy(kept: &(dyn Any + Send + Sync)) -> Option<V>;
    #[doc(hidden)]
    const IS_LOCAL: bool;
}

/// Checks once that a layer can keep the values: the result is a layer of them whatever `Y` is, so that a value that cannot
/// be kept is not reported again wherever the layer is used.
pub fn kept<R, S: Shape<R>, Y: Layer<S::Value>>(_shape: &S, layer: Y) -> impl Layer<S::Value> + use<R, S, Y> {
    layer
}

/// Only in Redis.
#[derive(Clone, Copy, Debug)]
pub struct Remote;

impl<V> Layer<V> for Remote {
    const IS_LOCAL: bool = false;

    fn keep(_value: &V) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    fn copy(_kept: &(dyn Any + Send + Sync)) -> Option<V> {
        None
    }
}

/// Also in this process, as clones.
#[derive(Clone, Copy, Debug)]
pub struct Local;

#[diagnostic::do_not_recommend]
impl<V: Clone + Send + Sync + 'static> Layer<V> for Local {
    const IS_LOCAL: bool = true;

    fn keep(value: &V) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::new(value.clone()))
    }

    fn copy(kept: &(dyn Any + Send + Sync)) -> Option<V> {
        kept.downcast_ref().cloned()
    }
}
