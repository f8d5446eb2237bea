//! How a cached function is called and how its results are kept in the process: the two things about a call that its
//! attribute decides at compile time.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use crate::dispatch::BoxFuture;

/// How the function is called when there is no value.
pub trait Load<R>: Sized {
    #[doc(hidden)]
    type Now: Future<Output = R>;
    /// For this caller.
    #[doc(hidden)]
    fn now(self) -> Self::Now;
    /// For nobody in particular, so that it can outlive the caller; the load itself where that is not possible. Of what
    /// the function returns only what `made_of_it` makes of it is kept.
    #[doc(hidden)]
    fn later<T: 'static>(self, made_of_it: fn(&R) -> T) -> Result<BoxFuture<'static, T>, Self>;
}

/// A call with the caller's own arguments.
#[derive(Debug)]
pub struct Once<F>(pub F);

impl<R, F: Future<Output = R>> Load<R> for Once<F> {
    type Now = F;

    fn now(self) -> F {
        self.0
    }

    fn later<T: 'static>(self, _made_of_it: fn(&R) -> T) -> Result<BoxFuture<'static, T>, Self> {
        Err(self)
    }
}

/// A call with copies of the arguments, which are only made when it is needed.
#[derive(Debug)]
pub struct Again<C>(pub C);

async fn once<R, T, F: Future<Output = R>>(load: F, made_of_it: fn(&R) -> T) -> T {
    let returned = load.await;
    made_of_it(&returned)
}

impl<R: 'static, C, F> Load<R> for Again<C>
where
    C: FnOnce() -> F,
    F: Future<Output = R> + Send + 'static,
{
    type Now = F;

    fn now(self) -> F {
        self.0()
    }

    fn later<T: 'static>(self, made_of_it: fn(&R) -> T) -> Result<BoxFuture<'static, T>, Self> {
        Ok(Box::pin(once(self.0(), made_of_it)))
    }
}

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
