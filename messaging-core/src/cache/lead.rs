//! Leading a load: renewing its lease while the function runs, storing what it returned, and telling those who wait.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::time::timeout;
use tracing::Instrument as _;

use super::flight::{Flight, Joinable, Landing};
use super::load::Call;
use super::local::Epoch;
use super::rules::Rules;
use super::shape::{Shape, Split};
use super::source::{Kept, Layer, Load, Loaded};
use super::{Cache, LEASE};
use crate::backend::{Backend, CacheKey, Grant, Token};
use crate::core::Current;
use crate::dispatch::BoxFuture;
use crate::error::chain;
use crate::json;
use crate::registry::FunctionDescriptor;
use crate::trace;

pub(super) fn loaded<R, S: Shape<R>, Y: Layer<S::Value>>(returned: &R) -> Loaded {
    match S::split(returned) {
        Split::Failed => Loaded::Failed(S::share(returned)),
        Split::Nothing => Loaded::Nothing,
        Split::Value(value) => match json::encode(value) {
            // It would be read as the `None` that it is not.
            Ok(bytes) if &bytes[..] == b"null" && S::nothing().is_some() => Loaded::Failed(None),
            Ok(bytes) => Loaded::Value(bytes, Y::keep(value).map(Some)),
            Err(error) => Loaded::Unwritable(error),
        },
    }
}

/// Somebody who leads a load under a lease. Dropped before the end (the caller was cancelled, or the function failed),
/// it gives the lease up and then lets the next caller try.
pub(super) struct Lead {
    of: Arc<Leased>,
    /// Until the load is over.
    joinable: Option<Joinable>,
    done: bool,
}

/// What is loaded under a lease.
struct Leased {
    cache: Arc<Cache>,
    key: CacheKey,
    flight: Arc<Flight>,
    /// The value that is to be replaced.
    seen: Option<Bytes>,
    descriptor: &'static FunctionDescriptor,
    rules: Arc<Rules>,
    /// The key without the deployment's prefix.
    text: String,
    ttl: Duration,
    epoch: Option<Epoch>,
    replace: bool,
}

/// What is to be kept of a load.
struct Outcome {
    /// As it is stored, if it is.
    store: Option<Bytes>,
    kept: Option<Kept>,
    /// For how long the value is fresh.
    fresh: Duration,
    /// For how long it is served after that.
    stale: Duration,
}

impl Lead {
    pub(super) fn new(cache: &Arc<Cache>, call: &Call<'_>, seen: Option<Bytes>) -> Self {
        let joinable = Joinable::new(cache, &call.key);
        let of = Leased {
            cache: Arc::clone(cache),
            key: call.key.clone(),
            flight: Arc::clone(&joinable.flight),
            seen,
            descriptor: call.family.descriptor,
            rules: Arc::clone(&call.family.rules),
            text: call.text.to_owned(),
            ttl: call.ttl,
            epoch: call.epoch,
            replace: call.replace,
        };
        Self { of: Arc::new(of), joinable: Some(joinable), done: false }
    }

    pub(super) fn token(&self) -> &Token {
        &self.of.flight.token
    }

    /// The value that is to be replaced.
    pub(super) fn seen(&self) -> Option<&Bytes> {
        self.of.seen.as_ref()
    }

    /// The lease is somebody else's, and nobody can have seen our token.
    pub(super) fn not_granted(mut self) {
        self.done = true;
    }

    /// Whether the lease was granted is not known: a later attempt may replace it.
    pub(super) fn orphaned(self) {
        self.of.cache.flights.orphan(&self.of.flight);
    }

    /// Nobody is to try before the lease is over.
    fn keep_lease(mut self) {
        self.done = true;
    }

    pub(super) async fn load<R, L: Load<Output = R>>(
        mut self,
        by: Option<u64>,
        load: L,
        loaded: fn(&R) -> Loaded,
    ) -> R {
        let of = Arc::clone(&self.of);
        let other = of.cache.flights.take_off(&of.flight);
        let load = async {
            if let Some(other) = other {
                // From before Redis was back: one at a time.
                other.landed().await;
            }
            of.rules.tally.loads.up();
            load.now().instrument(trace::loading(of.descriptor.id)).await
        };
        let returned = match select(pin!(load), pin!(of.renew())).await {
            Either::Left((returned, _)) => returned,
            Either::Right((never, _)) => match never {},
        };
        if let Some(finish) = self.finished(by, loaded(&returned)) {
            // Storing is not on the caller's path, unless that is what was asked for; in memory it takes no time.
            match *of.cache.backend {
                Backend::Redis(_) => {
                    let storing = of.cache.work.spawn(finish);
                    if of.replace {
                        // It goes on if this caller does not wait for it.
                        let _ = storing.await;
                    }
                }
                Backend::Memory(_) => finish.await,
            }
        }
        returned
    }

    /// Loads for nobody in particular. A function that fails is not tried again before the lease is over: there is a
    /// value.
    pub(super) fn load_later(
        mut self,
        by: Option<u64>,
        current: Option<&Current>,
        load: BoxFuture<'static, Loaded>,
    ) {
        let load = match current {
            Some(current) => Box::pin(current.clone().scope(load)),
            None => load,
        };
        let of = Arc::clone(&self.of);
        let (tasks, stop) = (of.cache.background.clone(), of.cache.stop.clone());
        let other = of.cache.flights.take_off(&of.flight);
        tasks.spawn(async move {
            if let Some(other) = other {
                other.landed().await;
            }
            of.rules.tally.loads.up();
            let loaded = tokio::select! {
                () = stop.cancelled() => return,
                loaded = load.instrument(trace::loading(of.descriptor.id)) => loaded,
                never = of.renew() => match never {},
            };
            if matches!(loaded, Loaded::Failed(_)) {
                self.keep_lease();
            } else if let Some(finish) = self.finished(by, loaded) {
                finish.await;
            }
        });
    }

    /// Tells those who have joined, and returns what is left to do. `None`: the load has failed, and dropping this lets
    /// the next caller try.
    fn finished(
        &mut self,
        by: Option<u64>,
        loaded: Loaded,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let of = Arc::clone(&self.of);
        let descriptor = of.descriptor;
        let (landing, store, ttl, stale, kept) = match loaded {
            Loaded::Failed(None) => return None,
            Loaded::Failed(Some(error)) => (Landing::Error(error), None, None, None, None),
            Loaded::Nothing => {
                let store = descriptor.cache_none.map(|_| Bytes::from_static(b"null"));
                (Landing::Nothing, store, descriptor.cache_none, None, Some(None))
            }
            Loaded::Value(bytes, kept) => {
                (Landing::Value(bytes.clone()), Some(bytes), Some(of.ttl), descriptor.stale, kept)
            }
            Loaded::Unwritable(error) => {
                tracing::error!(function = descriptor.id, error = %chain(&error), "a result cannot be cached");
                return None;
            }
        };
        if store.is_none() {
            // Nothing will be kept: whoever has joined gets this result, whoever asks from now on loads again.
            of.cache.flights.remove(&of.flight);
        }
        of.cache.flights.land(&of.flight, landing);
        self.done = true;
        let fresh = ttl.unwrap_or_default().mul_f64(1.0 - descriptor.jitter * fastrand::f64());
        let outcome = Outcome { store, kept, fresh, stale: stale.unwrap_or_default() };
        let joinable = self.joinable.take();
        Some(async move { of.finish(by, outcome, joinable).await })
    }
}

impl Leased {
    /// Keeps the lease for as long as the load runs.
    async fn renew(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            if let Err(error) = self.cache.backend.renew(&self.key, &self.flight.token, LEASE).await {
                tracing::debug!(key = self.key.value, error = %chain(&error), "a lease could not be renewed");
            }
        }
    }

    /// Stores what was loaded, or gives the lease up if there is nothing to store; then nobody can join any more.
    async fn finish(&self, by: Option<u64>, outcome: Outcome, joinable: Option<Joinable>) {
        let Self { cache, key, rules, .. } = self;
        let Outcome { store, kept, fresh, stale } = outcome;
        let token = &self.flight.token;
        let finished = match &store {
            Some(value) if cache.may_store(self.descriptor) => {
                let grant = Grant { token: token.clone(), by };
                let ttl = fresh.saturating_add(stale);
                cache.backend.store(key, &grant, self.seen.as_ref(), value, ttl).await
            }
            Some(_) => cache.backend.release(key, token).await.map(|()| false),
            None => cache.backend.release(key, token).await.map(|()| true),
        };
        if finished.is_err() {
            // Nobody should wait until it expires.
            let _ = cache.backend.release(key, token).await;
        }
        drop(joinable);
        match (finished, &store) {
            (Ok(true), Some(value)) => {
                rules.tally.bytes_stored.by(value.len());
                if self.replace {
                    // There was another value, which may be kept here or elsewhere.
                    cache.forget_local(&key.value);
                    cache.announce(std::slice::from_ref(key)).await;
                    return;
                }
                let layer = cache.families.get(self.descriptor).and_then(|family| family.local.as_ref());
                if let (Some(kept), Some(epoch), Some(layer)) = (kept, self.epoch, layer) {
                    layer.insert(&self.text, kept, value.len(), Some(fresh), &cache.epochs, epoch);
                }
            }
            (Ok(true), None) => {}
            (Ok(false), _) => rules.tally.refused_stores.up(),
            (Err(error), _) => {
                tracing::debug!(key = key.value, error = %chain(&error), "a result could not be stored");
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (of, joinable) = (Arc::clone(&self.of), self.joinable.take());
        // Who does without leases may go on at once; who has joined, when the lease is free for him.
        of.cache.flights.touch_down(&of.flight);
        let tasks = of.cache.work.clone();
        let release = async move {
            let key = &of.key;
            match timeout(of.cache.config.cache_timeout, of.cache.backend.release(key, &of.flight.token))
                .await
            {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(key = key.value, error = %chain(&error), "a lease could not be released; it expires");
                }
                Err(_) => tracing::debug!(key = key.value, "a lease was not released in time; it expires"),
            }
            drop(joinable);
        };
        // Without a runtime there is nobody who could wait for the flight; the lease expires by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(tasks.spawn_on(release, &runtime));
        }
    }
}

/// As [`Lead`], while the backend does not answer.
pub(super) struct LeadUnleased<'c> {
    pub(super) cache: &'c Cache,
    pub(super) key: &'c CacheKey,
    pub(super) flight: Arc<Flight>,
}

impl LeadUnleased<'_> {
    /// Nobody joins a load that is over.
    pub(super) fn land(&self, landing: Landing) {
        self.cache.flights.remove_unleased(self.key, &self.flight);
        self.flight.land(landing);
    }
}

impl Drop for LeadUnleased<'_> {
    fn drop(&mut self) {
        self.land(Landing::Failed);
    }
}
