//! One call of a cached function: a hit, a load that it leads, or somebody else's load.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::time::Instant;

use super::flight::{Flight, Landing};
use super::shape::{Shape, Split};
use super::{Cache, Family, LEASE};
use crate::backend::{Backend, CacheKey, Lease, Token};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::json;

/// How long a caller waits for the load of another process before it calls the function itself.
const PATIENCE: Duration = LEASE;

/// What is stored under a key, and who is loading it.
type Looked = (Option<Bytes>, Option<Token>);

impl Cache {
    /// Answers a call from the cache, or by `load`, which runs at most once. With `replace` a stored value is not taken
    /// but replaced, and when this returns it has been.
    ///
    /// Cancellation: a load that this caller leads is dropped with it; the next caller takes over.
    pub(crate) async fn call<R, S: Shape<R>, F: Future<Output = R>>(
        self: &Arc<Self>,
        family: &Family,
        key: CacheKey,
        replace: bool,
        load: F,
    ) -> R {
        if !family.descriptor.invalidate_on.is_empty()
            && let Some(listener) = self.listener()
            && !listener.was_confirmed(self.config.cache_timeout).await
        {
            // Nothing is served or stored before its events are heard: they could not make it out of date.
            let error = Error::new(ErrorKind::Connection, "the events of invalidate_on are not heard yet");
            return Box::pin(self.without_cache::<R, S, F>(family, &key, &error, None, load)).await;
        }
        let looked = self.backend.look(&key).await;
        if let Ok((Some(bytes), _)) = &looked
            && !replace
            && let Some(returned) = decode::<R, S>(family, &key, bytes)
        {
            family.tally.hits.fetch_add(1, Ordering::Relaxed);
            return returned;
        }
        // Boxed, because a hit should not carry the size of everything that a miss may need.
        Box::pin(self.miss::<R, S, F>(family, key, replace, looked, load)).await
    }

    async fn miss<R, S: Shape<R>, F: Future<Output = R>>(
        self: &Arc<Self>,
        family: &Family,
        key: CacheKey,
        replace: bool,
        mut looked: Result<Looked>,
        load: F,
    ) -> R {
        family.tally.misses.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let mut waiting: Option<Waiting> = None;
        loop {
            let (seen, holder) = match looked {
                Ok(looked) => looked,
                Err(error) => return self.without_cache::<R, S, F>(family, &key, &error, None, load).await,
            };
            #[cfg(test)]
            let holder = holder.or_else(|| super::interleavings::mutants::joined(&self.flights, &key));
            let holder = match holder {
                Some(holder) => holder,
                None => {
                    let lead = Lead::new(self, &key, self.flights.prepare(&key), seen);
                    match self.backend.lease(&key, &lead.flight.token, lead.seen.as_ref(), LEASE).await {
                        Ok(Lease::Granted) => return lead.load::<R, S, F>(family, replace, load).await,
                        Ok(Lease::Value(bytes)) => {
                            lead.not_granted();
                            looked = Ok((Some(bytes), None));
                            if let Some(returned) = self.take::<R, S>(family, &key, replace, &looked) {
                                return returned;
                            }
                            continue;
                        }
                        Ok(Lease::Held(token)) => {
                            lead.not_granted();
                            token
                        }
                        Err(error) => {
                            drop(lead);
                            return self.without_cache::<R, S, F>(family, &key, &error, None, load).await;
                        }
                    }
                }
            };
            match self.flights.with_token(&key, &holder) {
                // A load that began before ours cannot replace for us what we were asked to replace.
                Some(flight) if !replace => match flight.landed().await {
                    Landing::Value(bytes) => {
                        if let Some(returned) = decode::<R, S>(family, &key, &bytes) {
                            family.tally.joins.fetch_add(1, Ordering::Relaxed);
                            return returned;
                        }
                        return self.uncached(family, load).await;
                    }
                    Landing::Nothing => {
                        family.tally.joins.fetch_add(1, Ordering::Relaxed);
                        match S::nothing() {
                            Some(returned) => return returned,
                            None => return self.uncached(family, load).await,
                        }
                    }
                    Landing::Failed => {}
                },
                _ => {
                    if !waiting.get_or_insert_default().a_while().await {
                        // One extra load for all who have waited so long, and only one that began after they called.
                        let error =
                            Error::new(ErrorKind::Timeout, "another process is still loading the value");
                        return self.without_cache::<R, S, F>(family, &key, &error, Some(began), load).await;
                    }
                }
            }
            looked = self.backend.look(&key).await;
            if let Some(returned) = self.take::<R, S>(family, &key, replace, &looked) {
                return returned;
            }
        }
    }

    /// The value that somebody else has loaded meanwhile, if it may be taken and can be decoded.
    fn take<R, S: Shape<R>>(
        &self,
        family: &Family,
        key: &CacheKey,
        replace: bool,
        looked: &Result<Looked>,
    ) -> Option<R> {
        let Ok((Some(bytes), _)) = looked else { return None };
        let taken = if replace { None } else { decode::<R, S>(family, key, bytes) };
        family.tally.joins.fetch_add(u64::from(taken.is_some()), Ordering::Relaxed);
        taken
    }

    /// The cache cannot be used: the function is called, one call at a time for each key in this process. Loads that
    /// began before `not_before` are waited for and not shared.
    async fn without_cache<R, S: Shape<R>, F: Future<Output = R>>(
        self: &Arc<Self>,
        family: &Family,
        key: &CacheKey,
        error: &Error,
        not_before: Option<Instant>,
        load: F,
    ) -> R {
        tracing::debug!(function = family.descriptor.id, error = %chain(error), "called without the cache");
        loop {
            let flight = match self.flights.join_or_lead(key) {
                Err(flight) => {
                    let lead = LeadUnleased { cache: self, key, flight };
                    family.tally.uncached.fetch_add(1, Ordering::Relaxed);
                    family.tally.loads.fetch_add(1, Ordering::Relaxed);
                    let returned = load.await;
                    match S::split(&returned) {
                        Split::Value(value) => {
                            if let Ok(bytes) = json::encode(value) {
                                lead.flight.land(Landing::Value(bytes));
                            }
                        }
                        Split::Nothing => lead.flight.land(Landing::Nothing),
                        Split::Failed => {}
                    }
                    return returned;
                }
                Ok(flight) => flight,
            };
            let returned = match flight.landed().await {
                _ if not_before.is_some_and(|not_before| flight.began < not_before) => continue,
                Landing::Value(bytes) => decode::<R, S>(family, key, &bytes),
                Landing::Nothing => S::nothing(),
                Landing::Failed => continue,
            };
            family.tally.joins.fetch_add(1, Ordering::Relaxed);
            match returned {
                Some(returned) => return returned,
                None => return self.uncached(family, load).await,
            }
        }
    }

    async fn uncached<R, F: Future<Output = R>>(&self, family: &Family, load: F) -> R {
        family.tally.uncached.fetch_add(1, Ordering::Relaxed);
        family.tally.loads.fetch_add(1, Ordering::Relaxed);
        load.await
    }
}

/// A stored value; `None` (and counted) if it has another shape, as after a deployment.
fn decode<R, S: Shape<R>>(family: &Family, key: &CacheKey, bytes: &Bytes) -> Option<R> {
    if &bytes[..] == b"null"
        && let Some(nothing) = S::nothing()
    {
        return Some(nothing);
    }
    match json::decode(bytes) {
        Ok(value) => Some(S::value(value)),
        Err(error) => {
            family.tally.undecodable.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(key = key.value, error = %chain(&error), "a stored value is replaced");
            None
        }
    }
}

/// Waits for another process's load by looking again, with a growing, jittered delay.
struct Waiting {
    until: Instant,
    delay: Duration,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { until: Instant::now() + PATIENCE, delay: Duration::from_millis(10) }
    }
}

impl Waiting {
    /// `false` when it has waited long enough.
    async fn a_while(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        tokio::time::sleep(self.delay.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        self.delay = (self.delay * 2).min(Duration::from_millis(100));
        true
    }
}

/// Somebody who leads a load under a lease. Dropped before the end (the caller was cancelled, or the function failed),
/// it gives the lease up and then lets the next caller try.
struct Lead<'c> {
    cache: &'c Arc<Cache>,
    key: &'c CacheKey,
    flight: Arc<Flight>,
    seen: Option<Bytes>,
    done: bool,
}

impl<'c> Lead<'c> {
    fn new(cache: &'c Arc<Cache>, key: &'c CacheKey, flight: Arc<Flight>, seen: Option<Bytes>) -> Self {
        Self { cache, key, flight, seen, done: false }
    }

    /// The lease is somebody else's, and nobody can have seen our token.
    fn not_granted(mut self) {
        self.done = true;
        self.cache.flights.remove(&self.flight);
    }

    async fn load<R, S: Shape<R>, F: Future<Output = R>>(
        mut self,
        family: &Family,
        replace: bool,
        load: F,
    ) -> R {
        family.tally.loads.fetch_add(1, Ordering::Relaxed);
        let returned = match select(pin!(load), pin!(self.renew())).await {
            Either::Left((returned, _)) => returned,
            Either::Right((never, _)) => match never {},
        };
        let descriptor = family.descriptor;
        let (landing, store, ttl) = match S::split(&returned) {
            Split::Failed => return returned,
            Split::Nothing => (
                Landing::Nothing,
                descriptor.cache_none.map(|_| Bytes::from_static(b"null")),
                descriptor.cache_none,
            ),
            Split::Value(value) => match json::encode(value) {
                Ok(bytes) => (Landing::Value(bytes.clone()), Some(bytes), Some(family.ttl)),
                Err(error) => {
                    tracing::error!(function = descriptor.id, error = %chain(&error), "a result cannot be cached");
                    return returned;
                }
            },
        };
        if store.is_none() {
            // Nothing will be kept: whoever has joined gets this result, whoever asks from now on loads again.
            self.cache.flights.remove(&self.flight);
        }
        self.flight.land(landing);
        self.done = true;
        let shortest = 1.0 - descriptor.jitter;
        let ttl = ttl.unwrap_or_default().mul_f64(shortest + descriptor.jitter * fastrand::f64());
        let finish = finish(
            Arc::clone(self.cache),
            descriptor,
            self.key.clone(),
            Arc::clone(&self.flight),
            self.seen.take(),
            store,
            ttl,
        );
        // Storing is not on the caller's path, unless that is what was asked for; in memory it takes no time.
        match *self.cache.backend {
            Backend::Redis(_) if !replace => drop(self.cache.work.spawn(finish)),
            Backend::Redis(_) | Backend::Memory(_) => finish.await,
        }
        returned
    }

    /// Keeps the lease for as long as the load runs.
    async fn renew(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            if let Err(error) = self.cache.backend.renew(self.key, &self.flight.token, LEASE).await {
                tracing::debug!(key = self.key.value, error = %chain(&error), "a lease could not be renewed");
            }
        }
    }
}

/// Stores what was loaded, or gives the lease up if there is nothing to store; then nobody can join any more.
async fn finish(
    cache: Arc<Cache>,
    descriptor: &'static crate::registry::FunctionDescriptor,
    key: CacheKey,
    flight: Arc<Flight>,
    seen: Option<Bytes>,
    store: Option<Bytes>,
    ttl: Duration,
) {
    let finished = match &store {
        Some(value) => cache.backend.store(&key, &flight.token, seen.as_ref(), value, ttl).await,
        None => cache.backend.release(&key, &flight.token).await.map(|()| true),
    };
    cache.flights.remove(&flight);
    match finished {
        Ok(true) => {}
        Ok(false) => {
            if let Some(family) = cache.families.get(descriptor) {
                family.tally.refused_stores.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(error) => {
            tracing::debug!(key = key.value, error = %chain(&error), "a result could not be stored")
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (cache, key, flight) = (Arc::clone(self.cache), self.key.clone(), Arc::clone(&self.flight));
        let release = async move {
            release(&cache, &key, &flight.token).await;
            cache.flights.remove(&flight);
            flight.land(Landing::Failed);
        };
        // Without a runtime there is nobody who could wait for the flight; the lease expires by itself.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(self.cache.work.spawn_on(release, &runtime)),
            Err(_) => self.flight.land(Landing::Failed),
        }
    }
}

async fn release(cache: &Cache, key: &CacheKey, token: &Token) {
    if let Err(error) = cache.backend.release(key, token).await {
        tracing::debug!(key = key.value, error = %chain(&error), "a lease could not be released; it expires");
    }
}

/// As [`Lead`], while the backend does not answer.
struct LeadUnleased<'c> {
    cache: &'c Cache,
    key: &'c CacheKey,
    flight: Arc<Flight>,
}

impl Drop for LeadUnleased<'_> {
    fn drop(&mut self) {
        self.cache.flights.remove_unleased(self.key, &self.flight);
        self.flight.land(Landing::Failed);
    }
}
