//! Cached values by hand, and the handle of a cached function.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::CacheKey;
use crate::cache::shape::Fallible;
use crate::cache::source::{Once, Remote};
use crate::cache::{Ask, KeyTemplate, check_literal};
use crate::core::{Core, Current};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::json;
use crate::registry::FunctionDescriptor;

/// Cached values under a prefix: `CacheManager::new("camera").get("mac:AA:BB")` reads the key `camera:mac:AA:BB`.
///
/// Values are plain JSON under plain keys, so that programs in other languages read and write them too. With an empty
/// prefix it takes full keys.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::Messaging;
/// use std::time::Duration;
///
/// let messaging = Messaging::builder().url("memory://").build().await?;
/// let cache = messaging.cache("user");
/// cache.set("7", "Ada", Duration::from_secs(60)).await?;
/// assert_eq!(cache.get::<String>("7").await?.as_deref(), Some("Ada"));
/// assert_eq!(cache.invalidate_pattern("*").await?, 1);
/// assert_eq!(cache.get::<String>("7").await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CacheManager {
    prefix: String,
    core: Option<Arc<Core>>,
}

impl CacheManager {
    /// Values under `prefix`, of the [current](crate::Messaging::current) messaging at each call.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), core: None }
    }

    pub(crate) fn with_core(prefix: &str, core: Arc<Core>) -> Self {
        Self { prefix: prefix.to_owned(), core: Some(core) }
    }

    /// Writes a value that lives for exactly `ttl`. A load of this key that is running will not overwrite it.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`], [`ErrorKind::InvalidKey`], or what the backend says.
    ///
    /// # Cancellation
    /// What was sent is carried out.
    pub async fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T, ttl: Duration) -> Result<()> {
        if ttl.is_zero() {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                format!("set {key:?}: the ttl is zero; it must be longer"),
            ));
        }
        let core = self.core()?;
        let value = json::encode(value).map_err(|error| error.context(format_args!("set {key:?}")))?;
        let key = self.key(&core, key)?;
        let name = key.value.clone();
        core.cache.set(key, &value, ttl).await.map_err(|error| error.context(format_args!("set {name:?}")))
    }

    /// Reads a value; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if there is one of another shape; otherwise what the backend says.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let core = self.core()?;
        let key = self.key(&core, key)?;
        let get = |error: Error| error.context(format_args!("get {:?}", key.value));
        let value = core.cache.get(&key).await.map_err(get)?;
        value.map(|value| json::decode(&value)).transpose().map_err(get)
    }

    /// Reads a value and removes it in one step, so that of several callers, wherever they are, one gets it: for what
    /// works once, such as a ticket. `None` if there is none (any more). It defeats a load of it that is running, as
    /// [`invalidate`](Self::invalidate) does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// use messaging_core::Messaging;
    /// use std::time::Duration;
    ///
    /// let messaging = Messaging::builder().url("memory://").build().await?;
    /// let tickets = messaging.cache("ticket");
    /// tickets.set("f3a9", "ada", Duration::from_secs(30)).await?;
    /// assert_eq!(tickets.take::<String>("f3a9").await?.as_deref(), Some("ada"));
    /// assert_eq!(tickets.take::<String>("f3a9").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if there was one of another shape; it is removed. Otherwise what the backend says: unless
    /// [`Error::is_not_sent`], the value may be gone, and nobody gets it.
    ///
    /// # Cancellation
    /// What was sent is carried out, and then nobody gets the value.
    pub async fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let core = self.core()?;
        let key = self.key(&core, key)?;
        let name = key.value.clone();
        let take = |error: Error| error.context(format_args!("take {name:?}"));
        let value = core.cache.take(key).await.map_err(take)?;
        value.map(|value| json::decode(&value)).transpose().map_err(take)
    }

    /// Reads a value, or loads and keeps it. Concurrent callers share one load, also across processes.
    ///
    /// # Errors
    /// Those of `load`, with the error as the source, of the kind [`ErrorKind::Storage`]. A cache that does not answer
    /// is no error: `load` is called.
    ///
    /// # Cancellation
    /// A load that this caller leads is dropped; the next caller takes over.
    pub async fn get_or_load<T, E, F>(&self, key: &str, ttl: Duration, load: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<BoxError>,
        F: Future<Output = Result<T, E>>,
    {
        if ttl.is_zero() {
            let text = format!("get or load {key:?}: the ttl is zero; it must be longer");
            return Err(Error::new(ErrorKind::InvalidKey, text));
        }
        let core = self.core()?;
        let text = self.text(key)?;
        let family = &core.cache.families.by_hand;
        let ask = Ask { family, key: &text, ttl, replace: false, current: None };
        let loaded = core.cache.call::<Result<T, E>, Fallible<T, E>, Remote, Once<F>>(ask, Once(load)).await;
        loaded.map_err(|error| {
            let error = error.into();
            Error::new(ErrorKind::Storage, format!("load {text:?}: {error}")).with_source(error)
        })
    }

    /// Removes a value, and defeats a load of it that is running.
    ///
    /// # Errors
    /// What the backend says.
    ///
    /// # Cancellation
    /// What was sent is carried out.
    pub async fn invalidate(&self, key: &str) -> Result<()> {
        let core = self.core()?;
        let key = self.key(&core, key)?;
        let name = key.value.clone();
        let invalidate = |error: Error| error.context(format_args!("invalidate {name:?}"));
        core.cache.forget(vec![key]).await.map_err(invalidate)
    }

    /// Removes all values under the prefix whose key matches a glob, and returns how many there were. It scans the
    /// whole key space without blocking the server: not for a hot path.
    ///
    /// # Errors
    /// What the backend says; some values may be gone by then.
    ///
    /// # Cancellation
    /// The values that were reached are gone.
    pub async fn invalidate_pattern(&self, glob: &str) -> Result<u64> {
        let core = self.core()?;
        let full = self.glob(glob);
        core.cache
            .forget_matching(&full)
            .await
            .map_err(|error| error.context(format_args!("invalidate {full:?}")))
    }

    /// The keys under the prefix that match a glob, without the prefix, sorted. It scans the whole key space without
    /// blocking the server: for filling a replica and for a look at what is there, not for a hot path. A value that comes
    /// or goes meanwhile may be there or not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// use messaging_core::Messaging;
    /// use std::time::Duration;
    ///
    /// let messaging = Messaging::builder().url("memory://").build().await?;
    /// let users = messaging.cache("user");
    /// users.set("7:name", "Ada", Duration::from_secs(60)).await?;
    /// users.set("7:mail", "ada@example.org", Duration::from_secs(60)).await?;
    /// assert_eq!(users.keys("7:*").await?, ["7:mail", "7:name"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the backend says.
    pub async fn keys(&self, glob: &str) -> Result<Vec<String>> {
        let core = self.core()?;
        let full = self.glob(glob);
        let found = core.cache.keys_matching(&full).await;
        let found = found.map_err(|error| error.context(format_args!("keys {full:?}")))?;
        // All begin with the prefix and its colon: the glob does.
        let start = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        Ok(found.into_iter().filter_map(|key| key.get(start..).map(str::to_owned)).collect())
    }

    /// The glob with the prefix before it.
    fn glob(&self, glob: &str) -> String {
        let mut full = String::new();
        if !self.prefix.is_empty() {
            crate::channel::escape_glob(&self.prefix, &mut full);
            full.push(':');
        }
        full + glob
    }

    fn core(&self) -> Result<Arc<Core>> {
        match &self.core {
            Some(core) => Ok(Arc::clone(core)),
            None => Current::require().map(|current| current.core),
        }
    }

    fn key(&self, core: &Core, key: &str) -> Result<CacheKey> {
        Ok(core.cache.key(&self.text(key)?))
    }

    /// The key without the deployment's prefix.
    fn text(&self, key: &str) -> Result<String> {
        let full = if self.prefix.is_empty() { key.to_owned() } else { format!("{}:{key}", self.prefix) };
        check_literal(&full)?;
        Ok(full)
    }
}

thread_local! {
    /// The text of the last key that led to a value in the process: the next is written where it stood.
    static SPARE_KEY: Cell<String> = const { Cell::new(String::new()) };
}

/// A key has done its work.
pub(crate) fn spare(mut key: String) {
    const LONGEST: usize = 1 << 10;
    if key.capacity() <= LONGEST {
        key.clear();
        SPARE_KEY.set(key);
    }
}

/// The static half of a cached function, as `#[redis_cache]` emits it.
#[derive(Debug)]
pub struct Function {
    pub(crate) descriptor: &'static FunctionDescriptor,
    template: OnceLock<Result<KeyTemplate, String>>,
    /// Where it is among the functions of this process.
    pub(crate) place: AtomicUsize,
}

impl Function {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(descriptor: &'static FunctionDescriptor) -> Self {
        Self { descriptor, template: OnceLock::new(), place: AtomicUsize::new(0) }
    }

    /// The key for these arguments, in the placeholders' order.
    pub(crate) fn key(&self, arguments: &[&(dyn Scalar + Sync)]) -> Result<String> {
        let template = self
            .template
            .get_or_init(|| KeyTemplate::parse(self.descriptor.key).map_err(|error| error.to_string()));
        let template = template.as_ref().map_err(|text| Error::new(ErrorKind::InvalidKey, text.clone()))?;
        let mut key = SPARE_KEY.take();
        key.reserve(self.descriptor.key.len() + 16 * arguments.len());
        template.write(&mut key, |place, key| {
            let at = || {
                let name = template.names().nth(place).unwrap_or_default();
                format!("key {:?} of `{}`, placeholder {{{name}}}", self.descriptor.key, self.descriptor.id)
            };
            match arguments[place].write_scalar(key) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::new(ErrorKind::InvalidKey, format!("{}: there is no value", at()))),
                Err(error) => Err(error.context(at())),
            }
        })?;
        Ok(key)
    }
}

/// A value that may fill a placeholder; everything that is [`Serialize`] can be asked.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot fill a placeholder",
    label = "does not implement `serde::Serialize`",
    note = "a placeholder is filled with a string, an integer or a boolean, as serde writes it"
)]
pub trait Scalar {
    #[doc(hidden)]
    fn scalar(&self) -> Result<Option<String>>;
    #[doc(hidden)]
    fn write_scalar(&self, text: &mut String) -> Result<bool>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Scalar for T {
    fn scalar(&self) -> Result<Option<String>> {
        json::scalar_text(self)
    }

    fn write_scalar(&self, text: &mut String) -> Result<bool> {
        json::write_scalar(self, text)
    }
}

/// The handle of a cached method, which its `…_cache()` function returns; `K` are the types of the key's placeholders.
/// Free functions have the same as associated functions of a type of their name.
pub struct CachedFunction<K> {
    function: &'static Function,
    placeholders: PhantomData<fn(K)>,
}

impl<K> CachedFunction<K> {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(function: &'static Function) -> Self {
        Self { function, placeholders: PhantomData }
    }

    /// The function's id.
    #[must_use]
    pub fn id(&self) -> &'static str {
        self.function.descriptor.id
    }
}

impl<K> fmt::Debug for CachedFunction<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedFunction").field("id", &self.id()).finish()
    }
}

macro_rules! cached_function {
    ($($argument:ident: $type:ident),*) => {
        impl<$($type: Serialize + Sync),*> CachedFunction<($($type,)*)> {
            /// Removes the value for these placeholders, and defeats a load of it that is running.
            ///
            /// # Errors
            /// [`ErrorKind::NotStarted`] without a current messaging; [`ErrorKind::InvalidKey`]; otherwise what the
            /// backend says.
            #[allow(clippy::too_many_arguments)]
            pub async fn invalidate(&self, $($argument: $type),*) -> Result<()> {
                let key = self.function.key(&[$(&$argument as &(dyn Scalar + Sync)),*])?;
                invalidate(key).await
            }

            /// Removes the values for all placeholders and defeats the loads of them that are running; returns how many
            /// values there were. It scans the whole key space without blocking the server: not for a hot path.
            ///
            /// # Errors
            /// [`ErrorKind::NotStarted`] without a current messaging; otherwise what the backend says, and then some
            /// values may be gone.
            pub async fn invalidate_all(&self) -> Result<u64> {
                invalidate_all(self.function.descriptor).await
            }

            /// The key for these placeholders, without the deployment's prefix.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidKey`] if one of them is not a string, an integer or a boolean.
            #[allow(clippy::too_many_arguments)]
            pub fn key(&self, $($argument: $type),*) -> Result<String> {
                self.function.key(&[$(&$argument as &(dyn Scalar + Sync)),*])
            }
        }
    };
}

cached_function!();
cached_function!(a: A);
cached_function!(a: A, b: B);
cached_function!(a: A, b: B, c: C);
cached_function!(a: A, b: B, c: C, d: D);
cached_function!(a: A, b: B, c: C, d: D, e: E);
cached_function!(a: A, b: B, c: C, d: D, e: E, f: F);
cached_function!(a: A, b: B, c: C, d: D, e: E, f: F, g: G);
cached_function!(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H);

/// Removes the value of one key of a cached function.
pub(crate) async fn invalidate(key: String) -> Result<()> {
    let core = Current::require()?.core;
    let key = core.cache.key(&key);
    core.cache.forget(vec![key]).await
}

/// Removes all values of a cached function.
pub(crate) async fn invalidate_all(descriptor: &'static FunctionDescriptor) -> Result<u64> {
    let core = Current::require()?.core;
    core.cache.forget_all_of(descriptor).await
}
