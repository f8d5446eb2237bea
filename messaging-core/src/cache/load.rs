//! One call of a cached function: a hit, a load that it leads, or somebody else's load.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::flight::{Flight, Landing, Turn};
use super::lead::{Lead, LeadUnleased, loaded};
use super::local::Epoch;
use super::shape::{Shape, Split};
use super::source::{Kept, Layer, Load};
use super::wait::Waited;
use super::{Cache, Family, LEASE, listener};
use crate::backend::{Attempt, CacheKey, Lease, Looked, Token};
use crate::core::Current;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::json;
use crate::retry::deadline;
use crate::trace;

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
pub(super) struct Call<'a> {
    pub(super) family: &'a Family,
    pub(super) text: &'a str,
    pub(super) key: CacheKey,
    pub(super) ttl: Duration,
    pub(super) replace: bool,
    current: Option<&'a Current>,
    /// From before the first look, where values are kept in the process.
    pub(super) epoch: Option<Epoch>,
}

impl Call<'_> {
    /// Whether it matters for how long a value is kept.
    fn wants_ttl<Y: Layer<V>, V>(&self) -> bool {
        Y::IS_LOCAL || self.family.descriptor.stale.is_some()
    }
}

/// What can be made of a stored value.
enum Use<R> {
    Fresh(R),
    /// It is past its time: to be served while another one is loaded.
    Stale(R),
    /// It is to be replaced, or there is none.
    Nothing,
}

/// What a look has shown.
struct Found<R> {
    value: Use<R>,
    /// The value as it is stored.
    seen: Option<Bytes>,
    /// Who is loading.
    holder: Option<Token>,
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
        // Not through `look`: each future in a future is a level of types that the compiler has to get through in the
        // caller's program.
        let looked = self.asked(self.backend.look(&call.key, call.wants_ttl::<Y, S::Value>()).await);
        let found = match looked.map(|looked| self.found::<R, S, Y>(&call, looked)) {
            Ok(Found { value: Use::Fresh(returned), .. }) => {
                family.rules.tally.hits.up();
                return returned;
            }
            found => found,
        };
        // Boxed, because a hit should not carry the size of everything that a miss may need.
        Box::pin(self.miss::<R, S, Y, L>(call, found, load)).await
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

    /// Until somebody has a value: leads a load, or waits for whoever does.
    async fn miss<R, S: Shape<R>, Y: Layer<S::Value>, L: Load<Output = R>>(
        self: &Arc<Self>,
        call: Call<'_>,
        mut found: Result<Found<R>>,
        load: L,
    ) -> R {
        let tally = &call.family.rules.tally;
        let began = Instant::now();
        let until = began + call.family.descriptor.wait.unwrap_or(LEASE);
        let (mut missed, mut waited) = (false, false);
        loop {
            let Found { value, seen, holder } = match found {
                Ok(found) => found,
                Err(error) => return self.without_cache::<R, S, L>(&call, &error, None, load).await,
            };
            let stale = match value {
                Use::Fresh(returned) => {
                    if waited { &tally.waits } else { &tally.hits }.up();
                    return returned;
                }
                Use::Stale(returned) => Some(returned),
                Use::Nothing => None,
            };
            #[cfg(test)]
            let holder = holder.or_else(|| super::interleavings::mutants::joined(&self.flights, &call.key));
            let holder = match holder {
                // Who replaces does so at once: whoever is loading began before.
                Some(holder) if !call.replace => holder,
                replaced => {
                    let lead = Lead::new(self, &call, seen);
                    match self.lease(&call, &lead, replaced).await {
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
                            let looked = Looked { value: Some(bytes), holder: None, left: None };
                            found = Ok(self.found::<R, S, Y>(&call, looked));
                            continue;
                        }
                        Ok(Lease::Held(holder)) => {
                            lead.not_granted();
                            if call.replace {
                                // Somebody else came in between.
                                found = self.look::<R, S, Y>(&call).await;
                                continue;
                            }
                            holder
                        }
                        Err(error) => {
                            lead.orphaned();
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
            if let Some(flight) = self.flights.with_token(&call.key, &holder) {
                if let Some(returned) = self.landed::<R, S>(&call, &flight).await {
                    tally.joins.up();
                    return returned;
                }
                found = self.look::<R, S, Y>(&call).await;
                continue;
            }
            found = match self.wait_for(&call.key, &holder, until).await {
                Waited::Over(looked) => {
                    waited = true;
                    Ok(self.found::<R, S, Y>(&call, looked))
                }
                Waited::Unseen => self.look::<R, S, Y>(&call).await,
                Waited::TooLong => {
                    // One extra load for all who have waited so long, and only one that began after they called.
                    let error = Error::new(ErrorKind::Timeout, "another process is still loading the value");
                    return self.without_cache::<R, S, L>(&call, &error, Some(began), load).await;
                }
            };
        }
    }

    /// Attempts to become the one who loads. It may replace attempts of ours whose fate is unknown, and the one that it
    /// is to replace.
    async fn lease(&self, call: &Call<'_>, lead: &Lead, replaced: Option<Token>) -> Result<Lease> {
        let mut earlier = self.flights.orphans(&call.key);
        earlier.extend(replaced);
        let attempt = Attempt { token: lead.token(), earlier: &earlier };
        self.asked(self.backend.lease(&call.key, &attempt, lead.seen(), LEASE).await)
    }

    async fn look<R, S: Shape<R>, Y: Layer<S::Value>>(&self, call: &Call<'_>) -> Result<Found<R>> {
        let looked = self.asked(self.backend.look(&call.key, call.wants_ttl::<Y, S::Value>()).await)?;
        Ok(self.found::<R, S, Y>(call, looked))
    }

    fn found<R, S: Shape<R>, Y: Layer<S::Value>>(&self, call: &Call<'_>, looked: Looked) -> Found<R> {
        let value = if call.replace { Use::Nothing } else { self.used::<R, S, Y>(call, &looked) };
        Found { value, seen: looked.value, holder: looked.holder }
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
            let (flight, is_shared) = match self.flights.turn(key) {
                Turn::Lead(flight) => {
                    let lead = LeadUnleased { cache: self, key, flight };
                    tally.uncached.up();
                    tally.loads.up();
                    let returned = load.now().instrument(trace::loading(family.descriptor.id)).await;
                    let landing = match S::split(&returned) {
                        Split::Value(value) => json::encode(value).map_or(Landing::Failed, Landing::Value),
                        Split::Nothing => Landing::Nothing,
                        Split::Failed => S::share(&returned).map_or(Landing::Failed, Landing::Error),
                    };
                    lead.land(landing);
                    return returned;
                }
                Turn::Join(flight) => {
                    let began_before = not_before.is_some_and(|not_before| flight.began < not_before);
                    (flight, !call.replace && !began_before)
                }
                Turn::Wait(flight) => (flight, false),
            };
            // Whatever it comes to, others have their turn.
            tokio::task::yield_now().await;
            if !is_shared {
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
