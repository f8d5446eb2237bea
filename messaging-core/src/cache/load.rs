//! One call of a cached function: a hit, a load that it leads, or somebody else's load.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::flight::{Flight, Joinable, Landing, Sight};
use super::local::Epoch;
use super::rules::Rules;
use super::shape::{Shape, Split};
use super::source::{Kept, Layer, Load, Loaded};
use super::{Cache, Family, LEASE, listener};
use crate::backend::{Attempt, Backend, CacheKey, Grant, Lease, Looked, Token};
use crate::core::Current;
use crate::dispatch::BoxFuture;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::json;
use crate::registry::FunctionDescriptor;
use crate::retry::deadline;

/// The pauses between two looks for another process's load.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_millis(100);

/// What is asked for.
pub(crate) struct Ask<'a> {
    pub(crate) family: &'a Family,
    /// Without the deployment's prefix.
    pub(crate) key: &'a str,
    pub(crate) ttl: Duration,
    /// A stored value is not taken but replaced, and has been when the call returns.
    pub(crate) replace: bool,
    /// For loads that outlive the caller.
    pub(crate) current: Option<&'a Current>,
}

/// What a call knows beside what it asks for.
struct Call<'a> {
    family: &'a Family,
    text: &'a str,
    key: CacheKey,
    ttl: Duration,
    replace: bool,
    current: Option<&'a Current>,
    /// From before the first look, where values are kept in the process.
    epoch: Option<Epoch>,
}

/// What can be made of a stored value.
enum Use<R> {
    Fresh(R),
    /// It is past its time: to be served while another one is loaded.
    Stale(R),
    /// It is to be replaced, or there is none.
    Nothing,
}

impl Cache {
    /// Answers a call from Redis, or by `load`, which runs at most once.
    ///
    /// Cancellation: a load that this caller leads is dropped with it; the next caller takes over.
    pub(crate) async fn call<R, S: Shape<R>, Y: Layer<S::Value>, L: Load<Output = R>>(
        self: &Arc<Self>,
        ask: Ask<'_>,
        load: L,
    ) -> R {
        let Ask { family, key: text, ttl, replace, current } = ask;
        let epoch = Y::IS_LOCAL.then(|| self.epochs.read(text));
        let call = Call { family, text, key: self.key(text), ttl, replace, current, epoch };
        if let Err(error) = self.gate(family).await {
            return Box::pin(self.without_cache::<R, S, L>(&call, &error, None, load)).await;
        }
        let with_ttl = Y::IS_LOCAL || family.descriptor.stale.is_some();
        let looked = self.asked(self.backend.look(&call.key, with_ttl).await);
        if let Ok(looked) = &looked
            && !replace
            && let Use::Fresh(returned) = self.used::<R, S, Y>(&call, looked)
        {
            family.rules.tally.hits.up();
            return returned;
        }
        // Boxed, because a hit should not carry the size of everything that a miss may need.
        Box::pin(self.miss::<R, S, Y, L>(call, looked, load)).await
    }

    /// The answer to a call from this process.
    pub(crate) fn local_hit<R, S: Shape<R>, Y: Layer<S::Value>>(
        &self,
        family: &Family,
        text: &str,
    ) -> Option<R> {
        let (layer, ear) = (family.local.as_ref()?, self.ear()?);
        let now = Instant::now();
        let kept = layer.get(text, now)?;
        if !ear.serves_local(family, now) || self.journal.is_pending() {
            return None;
        }
        let returned = match kept {
            None => S::nothing(),
            Some(value) => Y::copy(&*value).map(S::value),
        };
        if returned.is_some() {
            family.rules.tally.local_hits.up();
        }
        returned
    }

    /// Whether the cache can be used at the moment.
    async fn gate(self: &Arc<Self>, family: &Family) -> Result<()> {
        let unusable = |reason: &str| Error::new(ErrorKind::Connection, reason.to_owned());
        if self.journal.is_pending() {
            return Err(unusable("what was invalidated while redis was away has not been removed yet"));
        }
        // Values that are kept in the process need to hear of what others invalidate.
        let listener = if family.has_events() || family.local.is_some() { self.listener() } else { None };
        if family.has_events()
            && let Some(listener) = listener
        {
            let ear = &listener.0;
            // Nothing is served or stored before its events are heard: they could not make it out of date.
            if !ear.serves(family, Instant::now()) {
                let until = deadline(self.config.cache_timeout);
                if self.breaker.is_open() || !ear.wait_to_serve(family, until).await {
                    return Err(listener::not_heard());
                }
            }
        }
        if self.breaker.lets_through() {
            Ok(())
        } else {
            Err(unusable("redis does not answer at the moment"))
        }
    }

    /// Tells the breaker what came of asking Redis.
    fn asked<T>(&self, answer: Result<T>) -> Result<T> {
        match &answer {
            Ok(_) => self.breaker.succeeded(),
            Err(_) => self.breaker.failed(),
        }
        answer
    }

    async fn miss<R, S: Shape<R>, Y: Layer<S::Value>, L: Load<Output = R>>(
        self: &Arc<Self>,
        call: Call<'_>,
        mut looked: Result<Looked>,
        load: L,
    ) -> R {
        let tally = &call.family.rules.tally;
        let began = Instant::now();
        let until = began + call.family.descriptor.wait.unwrap_or(LEASE);
        let (mut missed, mut waited) = (false, false);
        loop {
            let found = match looked {
                Ok(found) => found,
                Err(error) => return self.without_cache::<R, S, L>(&call, &error, None, load).await,
            };
            let mut stale = None;
            if !call.replace {
                match self.used::<R, S, Y>(&call, &found) {
                    Use::Fresh(returned) => {
                        if waited { &tally.waits } else { &tally.hits }.up();
                        return returned;
                    }
                    Use::Stale(returned) => stale = Some(returned),
                    Use::Nothing => {}
                }
            }
            let Looked { value: seen, holder, .. } = found;
            #[cfg(test)]
            let holder = holder.or_else(|| super::interleavings::mutants::joined(&self.flights, &call.key));
            let holder = match holder.filter(|_| !call.replace) {
                Some(holder) => holder,
                None => {
                    let lead = Lead::new(self, &call, seen);
                    // Who replaces does so at once: whoever is loading began before.
                    let earlier = self.earlier(&call).await;
                    let attempt = Attempt { token: &lead.flight.token, earlier: &earlier };
                    let leased = self.backend.lease(&call.key, &attempt, lead.seen.as_ref(), LEASE).await;
                    match self.asked(leased) {
                        Ok(Lease::Granted(by)) => match stale {
                            None => {
                                if !missed {
                                    tally.misses.up();
                                }
                                return lead.load(by, load, loaded::<R, S, Y>).await;
                            }
                            Some(stale) => {
                                tally.stale.up();
                                // Without copies of the arguments the next caller may try.
                                if let Ok(later) = load.later(loaded::<R, S, Y>) {
                                    lead.load_later(by, call.current, later);
                                }
                                return stale;
                            }
                        },
                        Ok(Lease::Value(bytes)) => {
                            lead.not_granted();
                            looked = Ok(Looked { value: Some(bytes), holder: None, left: None });
                            continue;
                        }
                        Ok(Lease::Held(token)) => {
                            lead.not_granted();
                            if call.replace {
                                // Somebody else came in between.
                                looked = self.asked(self.backend.look(&call.key, false).await);
                                continue;
                            }
                            token
                        }
                        Err(error) => {
                            self.flights.orphan(&lead.flight);
                            drop(lead);
                            if let Some(stale) = stale {
                                tally.stale.up();
                                return stale;
                            }
                            return self.without_cache::<R, S, L>(&call, &error, None, load).await;
                        }
                    }
                }
            };
            if let Some(stale) = stale {
                tally.stale.up();
                return stale;
            }
            if !std::mem::replace(&mut missed, true) {
                tally.misses.up();
            }
            looked = match self.flights.with_token(&call.key, &holder) {
                Some(flight) => {
                    if let Some(returned) = self.landed::<R, S>(&call, &flight).await {
                        tally.joins.up();
                        return returned;
                    }
                    self.look_again::<S, R, Y>(&call).await
                }
                None => match self.wait_for(&call.key, &holder, until).await {
                    Some(Some(found)) => {
                        waited = true;
                        Ok(found)
                    }
                    Some(None) => self.look_again::<S, R, Y>(&call).await,
                    None => {
                        // One extra load for all who have waited so long, and only one that began after they called.
                        let error =
                            Error::new(ErrorKind::Timeout, "another process is still loading the value");
                        return self.without_cache::<R, S, L>(&call, &error, Some(began), load).await;
                    }
                },
            };
        }
    }

    async fn look_again<S: Shape<R>, R, Y: Layer<S::Value>>(&self, call: &Call<'_>) -> Result<Looked> {
        let with_ttl = Y::IS_LOCAL || call.family.descriptor.stale.is_some();
        self.asked(self.backend.look(&call.key, with_ttl).await)
    }

    /// The attempts that this one may replace: ours whose fate is unknown and, if it is to replace whatever there is, that
    /// of whoever is loading.
    async fn earlier(&self, call: &Call<'_>) -> Vec<Token> {
        let mut earlier = self.flights.orphans(&call.key);
        if call.replace
            && let Ok(Looked { holder: Some(holder), .. }) = self.backend.look(&call.key, false).await
        {
            earlier.push(holder);
        }
        earlier
    }

    /// What a load of this process came to; `None` if the next caller has to try.
    async fn landed<R, S: Shape<R>>(&self, call: &Call<'_>, flight: &Flight) -> Option<R> {
        match flight.landed().await {
            Landing::Value(bytes) => decode::<R, S>(call, &bytes).map(S::value),
            Landing::Nothing => S::nothing(),
            Landing::Error(error) => S::failed(&*error),
            Landing::Failed => None,
        }
    }

    /// Waits until the load of another process has ended, or this long: `None`. One looks for all who wait.
    async fn wait_for(
        self: &Arc<Self>,
        key: &CacheKey,
        holder: &Token,
        until: Instant,
    ) -> Option<Option<Looked>> {
        if Instant::now() >= until {
            return None;
        }
        let mut sight = match self.flights.poll(holder) {
            Ok(sight) => sight,
            Err(sender) => {
                let sight = sender.subscribe();
                let (cache, stop) = (Arc::clone(self), self.stop.clone());
                let (key, holder) = (key.clone(), holder.clone());
                let polling = async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = cache.poll(&key, &holder, &sender) => {}
                    }
                    cache.flights.end_poll(&holder);
                };
                #[cfg(test)]
                let polling = super::interleavings::for_this_actor(polling);
                self.background.spawn(polling);
                sight
            }
        };
        match timeout_at(until, sight.wait_for(Option::is_some)).await {
            Ok(Ok(seen)) => Some(seen.clone().flatten()),
            // Shutting down.
            Ok(Err(_)) => Some(None),
            Err(_) => None,
        }
    }

    /// Looks until the lease is not this one's any more, or nobody waits.
    async fn poll(&self, key: &CacheKey, holder: &Token, sight: &watch::Sender<Sight>) {
        let mut pause = FIRST_LOOK;
        // One receiver is kept for those who come.
        while sight.receiver_count() > 1 {
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause = (pause * 2).min(LAST_LOOK);
            let looked = self.backend.look(key, true).await.ok();
            if looked.as_ref().is_none_or(|looked| looked.holder.as_ref() != Some(holder)) {
                sight.send_replace(Some(looked));
                return;
            }
        }
    }

    /// What a stored value is good for.
    fn used<R, S: Shape<R>, Y: Layer<S::Value>>(&self, call: &Call<'_>, looked: &Looked) -> Use<R> {
        let Some(bytes) = &looked.value else { return Use::Nothing };
        let Call { family, text, epoch, .. } = call;
        let is_nothing = &bytes[..] == b"null" && S::nothing().is_some();
        let value = if is_nothing {
            None
        } else {
            match decode::<R, S>(call, bytes) {
                Some(value) => Some(value),
                None => return Use::Nothing,
            }
        };
        family.rules.tally.bytes_read.by(bytes.len());
        let stale = family.descriptor.stale.filter(|_| !is_nothing);
        // A value of somebody else may have no end.
        let fresh_for = looked.left.map(|left| left.checked_sub(stale.unwrap_or_default()));
        let is_stale = stale.is_some() && fresh_for == Some(None);
        if let (Some(epoch), Some(layer), false) = (epoch, &family.local, is_stale) {
            let kept: Option<Kept> = match &value {
                None => Some(None),
                Some(value) => Y::keep(value).map(Some),
            };
            if let Some(kept) = kept {
                layer.insert(text, kept, bytes.len(), fresh_for.flatten(), &self.epochs, *epoch);
            }
        }
        let returned = match value {
            Some(value) => Some(S::value(value)),
            None => S::nothing(),
        };
        match returned {
            Some(returned) if is_stale => Use::Stale(returned),
            Some(returned) => Use::Fresh(returned),
            None => Use::Nothing,
        }
    }

    /// The cache cannot be used: the function is called, one call at a time for each key in this process. Loads that
    /// began before `not_before` are waited for and not shared.
    async fn without_cache<R, S: Shape<R>, L: Load<Output = R>>(
        self: &Arc<Self>,
        call: &Call<'_>,
        error: &Error,
        not_before: Option<Instant>,
        load: L,
    ) -> R {
        let Call { family, key, .. } = call;
        let tally = &family.rules.tally;
        tracing::debug!(function = family.descriptor.id, error = %chain(error), "called without the cache");
        loop {
            let flight = match self.flights.join_or_lead(key) {
                Err(flight) => {
                    let lead = LeadUnleased { cache: self, key, flight };
                    tally.uncached.up();
                    tally.loads.up();
                    let returned = load.now().await;
                    let landing = match S::split(&returned) {
                        Split::Value(value) => json::encode(value).map_or(Landing::Failed, Landing::Value),
                        Split::Nothing => Landing::Nothing,
                        Split::Failed => S::share(&returned).map_or(Landing::Failed, Landing::Error),
                    };
                    lead.land(landing);
                    return returned;
                }
                Ok(flight) => flight,
            };
            // Whatever it comes to, others have their turn.
            tokio::task::yield_now().await;
            if call.replace || not_before.is_some_and(|not_before| flight.began < not_before) {
                flight.landed().await;
            } else if let Some(returned) = self.landed::<R, S>(call, &flight).await {
                tally.joins.up();
                return returned;
            }
        }
    }
}

/// A stored value; `None` (and counted) if it has another shape, as after a deployment.
fn decode<R, S: Shape<R>>(call: &Call<'_>, bytes: &Bytes) -> Option<S::Value> {
    match json::decode(bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            call.family.rules.tally.undecodable.up();
            tracing::debug!(key = call.key.value, error = %chain(&error), "a stored value is replaced");
            None
        }
    }
}

fn loaded<R, S: Shape<R>, Y: Layer<S::Value>>(returned: &R) -> Loaded {
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
struct Lead {
    cache: Arc<Cache>,
    key: CacheKey,
    flight: Arc<Flight>,
    /// Until the load is over.
    joinable: Option<Joinable>,
    seen: Option<Bytes>,
    descriptor: &'static FunctionDescriptor,
    rules: Arc<Rules>,
    text: String,
    ttl: Duration,
    epoch: Option<Epoch>,
    replace: bool,
    done: bool,
}

impl Lead {
    fn new(cache: &Arc<Cache>, call: &Call<'_>, seen: Option<Bytes>) -> Self {
        let joinable = Joinable::new(cache, &call.key);
        Self {
            cache: Arc::clone(cache),
            key: call.key.clone(),
            flight: Arc::clone(&joinable.flight),
            joinable: Some(joinable),
            seen,
            descriptor: call.family.descriptor,
            rules: Arc::clone(&call.family.rules),
            text: call.text.to_owned(),
            ttl: call.ttl,
            epoch: call.epoch,
            replace: call.replace,
            done: false,
        }
    }

    /// The lease is somebody else's, and nobody can have seen our token.
    fn not_granted(mut self) {
        self.done = true;
    }

    /// Nobody is to try before the lease is over.
    fn keep_lease(mut self) {
        self.done = true;
    }

    async fn load<R, L: Load<Output = R>>(mut self, by: Option<u64>, load: L, loaded: fn(&R) -> Loaded) -> R {
        let cache = Arc::clone(&self.cache);
        let other = cache.flights.take_off(&self.flight);
        let load = async {
            if let Some(other) = other {
                // From before Redis was back: one at a time.
                other.landed().await;
            }
            self.rules.tally.loads.up();
            load.now().await
        };
        let returned = match select(pin!(load), pin!(self.renew())).await {
            Either::Left((returned, _)) => returned,
            Either::Right((never, _)) => match never {},
        };
        if let Some(finish) = self.finished(by, loaded(&returned)) {
            // Storing is not on the caller's path, unless that is what was asked for; in memory it takes no time.
            match *cache.backend {
                Backend::Redis(_) => {
                    let storing = cache.work.spawn(finish);
                    if self.replace {
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
    fn load_later(mut self, by: Option<u64>, current: Option<&Current>, load: BoxFuture<'static, Loaded>) {
        let load = match current {
            Some(current) => Box::pin(current.clone().scope(load)),
            None => load,
        };
        let (tasks, stop) = (self.cache.background.clone(), self.cache.stop.clone());
        let other = self.cache.flights.take_off(&self.flight);
        tasks.spawn(async move {
            if let Some(other) = other {
                other.landed().await;
            }
            self.rules.tally.loads.up();
            let loaded = tokio::select! {
                () = stop.cancelled() => return,
                loaded = load => loaded,
                never = self.renew() => match never {},
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
        let descriptor = self.descriptor;
        let (landing, store, ttl, kept) = match loaded {
            Loaded::Failed(None) => return None,
            Loaded::Failed(Some(error)) => (Landing::Error(error), None, None, None),
            Loaded::Nothing => {
                let store = descriptor.cache_none.map(|_| Bytes::from_static(b"null"));
                (Landing::Nothing, store, descriptor.cache_none, Some(None))
            }
            Loaded::Value(bytes, kept) => (Landing::Value(bytes.clone()), Some(bytes), Some(self.ttl), kept),
            Loaded::Unwritable(error) => {
                tracing::error!(function = descriptor.id, error = %chain(&error), "a result cannot be cached");
                return None;
            }
        };
        if store.is_none() {
            // Nothing will be kept: whoever has joined gets this result, whoever asks from now on loads again.
            self.cache.flights.remove(&self.flight);
        }
        self.cache.flights.land(&self.flight, landing);
        self.done = true;
        let fresh = ttl.unwrap_or_default().mul_f64(1.0 - descriptor.jitter * fastrand::f64());
        Some(finish(Finish {
            cache: Arc::clone(&self.cache),
            key: self.key.clone(),
            grant: Grant { token: self.flight.token.clone(), by },
            joinable: self.joinable.take(),
            seen: self.seen.take(),
            rules: Arc::clone(&self.rules),
            descriptor,
            text: std::mem::take(&mut self.text),
            epoch: self.epoch,
            store,
            kept,
            fresh,
            replace: self.replace,
        }))
    }

    /// Keeps the lease for as long as the load runs.
    async fn renew(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            if let Err(error) = self.cache.backend.renew(&self.key, &self.flight.token, LEASE).await {
                tracing::debug!(key = self.key.value, error = %chain(&error), "a lease could not be renewed");
            }
        }
    }
}

/// What is left to do after a load.
struct Finish {
    cache: Arc<Cache>,
    key: CacheKey,
    grant: Grant,
    /// Others can join until it is stored.
    joinable: Option<Joinable>,
    seen: Option<Bytes>,
    rules: Arc<Rules>,
    descriptor: &'static FunctionDescriptor,
    text: String,
    epoch: Option<Epoch>,
    store: Option<Bytes>,
    kept: Option<Kept>,
    /// For how long the value is fresh.
    fresh: Duration,
    replace: bool,
}

/// Stores what was loaded, or gives the lease up if there is nothing to store; then nobody can join any more.
async fn finish(it: Finish) {
    let Finish {
        cache,
        key,
        grant,
        joinable,
        seen,
        rules,
        descriptor,
        text,
        epoch,
        store,
        kept,
        fresh,
        replace,
    } = it;
    let finished = match &store {
        Some(value) if cache.may_store(descriptor) => {
            let is_nothing = &value[..] == b"null" && descriptor.cache_none.is_some();
            let stale = descriptor.stale.filter(|_| !is_nothing).unwrap_or_default();
            cache.backend.store(&key, &grant, seen.as_ref(), value, fresh.saturating_add(stale)).await
        }
        Some(_) => cache.backend.release(&key, &grant.token).await.map(|()| false),
        None => cache.backend.release(&key, &grant.token).await.map(|()| true),
    };
    if finished.is_err() {
        // Nobody should wait until it expires.
        let _ = cache.backend.release(&key, &grant.token).await;
    }
    drop(joinable);
    match (finished, &store) {
        (Ok(true), Some(value)) => {
            rules.tally.bytes_stored.by(value.len());
            if replace {
                // There was another value, which may be kept here or elsewhere.
                cache.forget_local(&key.value);
                cache.announce(std::slice::from_ref(&key)).await;
                return;
            }
            let layer = cache.families.get(descriptor).and_then(|family| family.local.as_ref());
            if let (Some(kept), Some(epoch), Some(layer)) = (kept, epoch, layer) {
                layer.insert(&text, kept, value.len(), Some(fresh), &cache.epochs, epoch);
            }
        }
        (Ok(true), None) => {}
        (Ok(false), _) => rules.tally.refused_stores.up(),
        (Err(error), _) => {
            tracing::debug!(key = key.value, error = %chain(&error), "a result could not be stored");
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // Who does without leases may go on at once; who has joined, when the lease is free for him.
        self.cache.flights.land_unleased(&self.flight);
        let (cache, key) = (Arc::clone(&self.cache), self.key.clone());
        let (flight, joinable) = (Arc::clone(&self.flight), self.joinable.take());
        let release = async move {
            let limit = cache.config.cache_timeout;
            match timeout(limit, cache.backend.release(&key, &flight.token)).await {
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
            drop(self.cache.work.spawn_on(release, &runtime));
        }
    }
}

/// As [`Lead`], while the backend does not answer.
struct LeadUnleased<'c> {
    cache: &'c Cache,
    key: &'c CacheKey,
    flight: Arc<Flight>,
}

impl LeadUnleased<'_> {
    /// Nobody joins a load that is over.
    fn land(&self, landing: Landing) {
        self.cache.flights.remove_unleased(self.key, &self.flight);
        self.flight.land(landing);
    }
}

impl Drop for LeadUnleased<'_> {
    fn drop(&mut self) {
        self.land(Landing::Failed);
    }
}
