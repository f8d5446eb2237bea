//! What a cached function returns, recognised by type and not by spelling: a plain value, an `Option`, a `Result`, or
//! a `Result` of an `Option`. Only values are kept; errors never, `None` where the attribute says so.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a return value holds.
#[derive(Debug)]
pub enum Split<'r, T> {
    /// Something to keep.
    Value(&'r T),
    /// `None`, or `Ok(None)`.
    Nothing,
    /// `Err`.
    Failed,
}

/// How a return type `R` is taken apart and put together.
#[diagnostic::on_unimplemented(
    message = "what this function returns cannot be cached",
    label = "the value must be `Serialize + DeserializeOwned`",
    note = "for `Result<T, E>` only `T` is cached, for `Option<T>` only `Some`; `E` needs nothing"
)]
pub trait Shape<R> {
    #[doc(hidden)]
    type Value: Serialize + DeserializeOwned;
    #[doc(hidden)]
    fn split(returned: &R) -> Split<'_, Self::Value>;
    #[doc(hidden)]
    fn value(value: Self::Value) -> R;
    /// The return value for "nothing", where the type has one.
    #[doc(hidden)]
    fn nothing() -> Option<R>;
    /// The error of a failed call, for others who wait for it, where it can be copied.
    #[doc(hidden)]
    fn share(_returned: &R) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }
    /// The return value for a shared error.
    #[doc(hidden)]
    fn failed(_error: &(dyn Any + Send + Sync)) -> Option<R> {
        None
    }
}

/// Checks once that a return type can be cached: the result is a `Shape<R>` whatever `S` is, so that a type that cannot
/// is not reported again wherever the shape is used.
pub fn checked<R, S: Shape<R>>(shape: S) -> impl Shape<R, Value = S::Value> {
    shape
}

/// A [`Shape`] with an `Option` in it, so that `cache_none` means something.
#[diagnostic::on_unimplemented(
    message = "`cache_none` needs a function that can return `None`",
    label = "this function returns no `Option<T>` and no `Result<Option<T>, E>`"
)]
pub trait OptionShape {}

macro_rules! shapes {
    ($($(#[$doc:meta])* $shape:ident<$($parameter:ident),+>)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $shape<$($parameter),+>(PhantomData<fn($($parameter),+)>);

            impl<$($parameter),+> Clone for $shape<$($parameter),+> {
                fn clone(&self) -> Self {
                    *self
                }
            }

            impl<$($parameter),+> Copy for $shape<$($parameter),+> {}
        )+
    };
}

shapes! {
    /// `T`
    Plain<T>
    /// `Option<T>`
    Optional<T>
    /// `Result<T, E>`
    Fallible<T, E>
    /// `Result<Option<T>, E>`
    FallibleOptional<T, E>
    /// One of the two with an `E` that can be copied.
    Shared<S, E>
}

impl<T> OptionShape for Optional<T> {}
impl<T, E> OptionShape for FallibleOptional<T, E> {}
impl<S: OptionShape, E> OptionShape for Shared<S, E> {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Shape<T> for Plain<T> {
    type Value = T;

    fn split(returned: &T) -> Split<'_, T> {
        Split::Value(returned)
    }

    fn value(value: T) -> T {
        value
    }

    fn nothing() -> Option<T> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Shape<Option<T>> for Optional<T> {
    type Value = T;

    fn split(returned: &Option<T>) -> Split<'_, T> {
        returned.as_ref().map_or(Split::Nothing, Split::Value)
    }

    fn value(value: T) -> Option<T> {
        Some(value)
    }

    fn nothing() -> Option<Option<T>> {
        Some(None)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned, E> Shape<Result<T, E>> for Fallible<T, E> {
    type Value = T;

    fn split(returned: &Result<T, E>) -> Split<'_, T> {
        returned.as_ref().map_or(Split::Failed, Split::Value)
    }

    fn value(value: T) -> Result<T, E> {
        Ok(value)
    }

    fn nothing() -> Option<Result<T, E>> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned, E> Shape<Result<Option<T>, E>> for FallibleOptional<T, E> {
    type Value = T;

    fn split(returned: &Result<Option<T>, E>) -> Split<'_, T> {
        match returned {
            Ok(Some(value)) => Split::Value(value),
            Ok(None) => Split::Nothing,
            Err(_) => Split::Failed,
        }
    }

    fn value(value: T) -> Result<Option<T>, E> {
        Ok(Some(value))
    }

    fn nothing() -> Option<Result<Option<T>, E>> {
        Some(Ok(None))
    }
}

#[diagnostic::do_not_recommend]
impl<T, V, E, S> Shape<Result<T, E>> for Shared<S, E>
where
    S: Shape<Result<T, E>, Value = V>,
    V: Serialize + DeserializeOwned,
    E: Clone + Send + Sync + 'static,
{
    type Value = V;

    fn split(returned: &Result<T, E>) -> Split<'_, V> {
        S::split(returned)
    }

    fn value(value: V) -> Result<T, E> {
        S::value(value)
    }

    fn nothing() -> Option<Result<T, E>> {
        S::nothing()
    }

    fn share(returned: &Result<T, E>) -> Option<Arc<dyn Any + Send + Sync>> {
        let error = returned.as_ref().err()?;
        Some(Arc::new(error.clone()))
    }

    fn failed(error: &(dyn Any + Send + Sync)) -> Option<Result<T, E>> {
        error.downcast_ref::<E>().cloned().map(Err)
    }
}

/// Finds the shape of `R`: `(&&&&ShapeProbe::<R>::new()).shape()` takes the most specific of the traits below
/// ("autoref specialisation", David Tolnay, 2019).
#[derive(Debug)]
pub struct ShapeProbe<R>(PhantomData<fn() -> R>);

impl<R> ShapeProbe<R> {
    /// Asks for the shape of `R`.
    #[allow(clippy::new_without_default)]
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// Level 1.
pub trait ViaSharedOptional<T, E> {
    #[doc(hidden)]
    fn shape(&self) -> Shared<FallibleOptional<T, E>, E>;
}

impl<T, E: Clone + Send + Sync + 'static> ViaSharedOptional<T, E> for &&&ShapeProbe<Result<Option<T>, E>> {
    fn shape(&self) -> Shared<FallibleOptional<T, E>, E> {
        Shared(PhantomData)
    }
}

/// Level 2.
pub trait ViaFallibleOptional<T, E> {
    #[doc(hidden)]
    fn shape(&self) -> FallibleOptional<T, E>;
}

impl<T, E> ViaFallibleOptional<T, E> for &&ShapeProbe<Result<Option<T>, E>> {
    fn shape(&self) -> FallibleOptional<T, E> {
        FallibleOptional(PhantomData)
    }
}

/// Level 2.
pub trait ViaShared<T, E> {
    #[doc(hidden)]
    fn shape(&self) -> Shared<Fallible<T, E>, E>;
}

impl<T, E: Clone + Send + Sync + 'static> ViaShared<T, E> for &&ShapeProbe<Result<T, E>> {
    fn shape(&self) -> Shared<Fallible<T, E>, E> {
        Shared(PhantomData)
    }
}

/// Level 3.
pub trait ViaFallible<T, E> {
    #[doc(hidden)]
    fn shape(&self) -> Fallible<T, E>;
}

impl<T, E> ViaFallible<T, E> for &ShapeProbe<Result<T, E>> {
    fn shape(&self) -> Fallible<T, E> {
        Fallible(PhantomData)
    }
}

/// Level 3.
pub trait ViaOptional<T> {
    #[doc(hidden)]
    fn shape(&self) -> Optional<T>;
}

impl<T> ViaOptional<T> for &ShapeProbe<Option<T>> {
    fn shape(&self) -> Optional<T> {
        Optional(PhantomData)
    }
}

/// Level 4.
pub trait ViaPlain<T> {
    #[doc(hidden)]
    fn shape(&self) -> Plain<T>;
}

impl<T> ViaPlain<T> for ShapeProbe<T> {
    fn shape(&self) -> Plain<T> {
        Plain(PhantomData)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Alias<T> = Result<Option<T>, std::fmt::Error>;

    fn full_name_of<S>(_: S) -> &'static str {
        std::any::type_name::<S>()
    }

    fn name_of<S>(shape: S) -> &'static str {
        let name = full_name_of(shape);
        let end = name.find('<').unwrap_or(name.len());
        name[..end].rsplit("::").next().unwrap_or(name)
    }

    #[test]
    #[allow(clippy::needless_borrow, reason = "as the attribute writes it, whatever the type")]
    fn the_type_counts_not_its_spelling() {
        struct Own;
        assert_eq!(name_of((&&&&ShapeProbe::<Result<Option<u8>, Own>>::new()).shape()), "FallibleOptional");
        assert_eq!(name_of((&&&&ShapeProbe::<Result<u8, Own>>::new()).shape()), "Fallible");
        assert!(
            full_name_of((&&&&ShapeProbe::<Alias<u8>>::new()).shape())
                .contains("Shared<messaging_core::cache::shape::FallibleOptional<")
        );
        assert!(
            full_name_of((&&&&ShapeProbe::<std::fmt::Result>::new()).shape())
                .contains("Shared<messaging_core::cache::shape::Fallible<")
        );
        assert_eq!(name_of((&&&&ShapeProbe::<Option<u8>>::new()).shape()), "Optional");
        assert_eq!(name_of((&&&&ShapeProbe::<Vec<Option<u8>>>::new()).shape()), "Plain");
    }
}
