//! Loads in progress in this process, so that callers for one key share one of them, and the waiting for those of other
//! processes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Cache, LEASE};
use crate::backend::{CacheKey, Looked, Token};

/// A load in progress. Callers who may share it wait for [`landed`](Self::landed).
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) token: Token,
    key: CacheKey,
    pub(super) began: Instant,
    landing: Mutex<Option<Landing>>,
    landed: CancellationToken,
    /// The key has been invalidated since: without leases, later callers wait for its end and do not share it.
    outdated: AtomicBool,
}

/// What a load came to.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// A value, as JSON.
    Value(Bytes),
    /// The function found nothing (`None`).
    Nothing,
    /// The function failed, with an error that can be shared.
    Error(Arc<dyn Any + Send + Sync>),
    /// The function failed, or was cancelled: the next caller tries it.
    Failed,
}

impl Flight {
    fn new(key: &CacheKey) -> Arc<Self> {
        let (token, key, began) = (Token::random(), key.clone(), Instant::now());
        let (landing, landed) = (Mutex::new(None), CancellationToken::new());
        Arc::new(Self { token, key, began, landing, landed, outdated: AtomicBool::new(false) })
    }

    /// Tells the followers. Only the first landing counts.
    pub(super) fn land(&self, landing: Landing) {
        lock(&self.landing).get_or_insert(landing);
        self.landed.cancel();
    }

    fn outdate(&self) {
        self.outdated.store(true, Ordering::Release);
    }

    /// Waits for the load's end.
    ///
    /// Cancellation: no effect on the load.
    pub(super) async fn landed(&self) -> Landing {
        self.landed.cancelled().await;
        lock(&self.landing).clone().unwrap_or(Landing::Failed)
    }
}

/// A load with a lease that others can join, until this is dropped; whatever happens to whoever holds it.
#[derive(Debug)]
pub(super) struct Joinable {
    cache: Arc<Cache>,
    pub(super) flight: Arc<Flight>,
}

impl Joinable {
    pub(super) fn new(cache: &Arc<Cache>, key: &CacheKey) -> Self {
        Self { cache: Arc::clone(cache), flight: cache.flights.prepare(key) }
    }
}

impl Drop for Joinable {
    fn drop(&mut self) {
        self.cache.flights.remove(&self.flight);
        self.flight.land(Landing::Failed);
    }
}

/// What a caller does without leases.
pub(super) enum Turn {
    /// He loads.
    Lead(Arc<Flight>),
    /// He may share this load.
    Join(Arc<Flight>),
    /// He has to wait for the end of this load, and ask again.
    Wait(Arc<Flight>),
}

/// What those see who wait for another process: nothing yet; then what was found, if the cache answered.
pub(super) type Sight = Option<Option<Looked>>;

/// All loads in progress: those with a lease by its token, those without (the backend does not answer) by their key.
#[derive(Debug, Default)]
pub(super) struct Flights {
    leased: Mutex<HashMap<Token, Arc<Flight>>>,
    unleased: Mutex<HashMap<CacheKey, Arc<Flight>>>,
    /// Of those with a lease, by their key: the one whose function has been called last.
    running: Mutex<HashMap<CacheKey, Arc<Flight>>>,
    /// Attempts to get a lease whose fate is unknown, for as long as the lease could live.
    orphans: Mutex<HashMap<String, Vec<(Instant, Token)>>>,
    /// Who polls for the end of another process's load.
    polls: Mutex<HashMap<Token, watch::Receiver<Sight>>>,
}

impl Flights {
    /// A flight for one attempt to get a lease; known before the attempt, so that nobody who sees its token misses it.
    pub(super) fn prepare(&self, key: &CacheKey) -> Arc<Flight> {
        let flight = Flight::new(key);
        lock(&self.leased).insert(flight.token.clone(), Arc::clone(&flight));
        flight
    }

    /// The load of this key with the token that was seen in its lease.
    pub(super) fn with_token(&self, key: &CacheKey, token: &Token) -> Option<Arc<Flight>> {
        lock(&self.leased).get(token).filter(|flight| flight.key == *key).cloned()
    }

    /// The token of any load of this key.
    #[cfg(test)]
    pub(super) fn any(&self, key: &CacheKey) -> Option<Token> {
        lock(&self.leased).values().find(|flight| flight.key == *key).map(|flight| flight.token.clone())
    }

    /// Nobody can join this load any more.
    pub(super) fn remove(&self, flight: &Flight) {
        self.touch_down(flight);
        lock(&self.leased).remove(&flight.token);
    }

    /// The function has returned or never will: who does without leases has to call it again.
    pub(super) fn touch_down(&self, flight: &Flight) {
        let mut running = lock(&self.running);
        if running.get(&flight.key).is_some_and(|other| other.token == flight.token) {
            running.remove(&flight.key);
        }
    }

    /// Tells those who have joined what a load with a lease has come to. Others may join until it is
    /// [removed](Self::remove).
    pub(super) fn land(&self, flight: &Flight, landing: Landing) {
        self.touch_down(flight);
        flight.land(landing);
    }

    /// The fate of this attempt is unknown: a later one may replace what it leaves behind.
    pub(super) fn orphan(&self, flight: &Flight) {
        let mut orphans = lock(&self.orphans);
        let now = Instant::now();
        orphans.retain(|_, tokens| {
            tokens.retain(|(at, _)| now - *at < LEASE);
            !tokens.is_empty()
        });
        orphans.entry(flight.key.value.clone()).or_default().push((now, flight.token.clone()));
    }

    /// The attempts of this key whose fate is unknown.
    pub(super) fn orphans(&self, key: &CacheKey) -> Vec<Token> {
        let orphans = lock(&self.orphans);
        if orphans.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let tokens = orphans.get(&key.value).into_iter().flatten();
        tokens.filter(|(at, _)| now - *at < LEASE).map(|(_, token)| token.clone()).collect()
    }

    /// Without leases: the caller's turn to load this key, or the load that runs, which may have begun with a lease.
    pub(super) fn turn(&self, key: &CacheKey) -> Turn {
        let mut flights = lock(&self.unleased);
        // Looked at under this lock: whoever takes off looks at these flights after he is there.
        let flight = flights.get(key).cloned().or_else(|| lock(&self.running).get(key).cloned());
        match flight {
            None => {
                let flight = Flight::new(key);
                flights.insert(key.clone(), Arc::clone(&flight));
                Turn::Lead(flight)
            }
            Some(flight) if flight.outdated.load(Ordering::Acquire) => Turn::Wait(flight),
            Some(flight) => Turn::Join(flight),
        }
    }

    /// A load with a lease begins. Returns the one of this key without a lease that runs, to be waited for.
    pub(super) fn take_off(&self, flight: &Arc<Flight>) -> Option<Arc<Flight>> {
        lock(&self.running).insert(flight.key.clone(), Arc::clone(flight));
        lock(&self.unleased).get(&flight.key).cloned()
    }

    /// Without leases: nobody can join this load any more.
    pub(super) fn remove_unleased(&self, key: &CacheKey, flight: &Arc<Flight>) {
        let mut flights = lock(&self.unleased);
        if flights.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            flights.remove(key);
        }
    }

    /// Without leases: what was invalidated in this process must not be shared by later callers. (With leases the
    /// invalidation removes the lease, and nobody sees its token any more.)
    pub(super) fn invalidate(&self, keys: &[CacheKey]) {
        for flights in [&self.running, &self.unleased] {
            let flights = lock(flights);
            keys.iter().filter_map(|key| flights.get(key)).for_each(|flight| flight.outdate());
        }
    }

    /// As [`invalidate`](Self::invalidate), of all keys.
    pub(super) fn invalidate_all(&self) {
        for flights in [&self.running, &self.unleased] {
            lock(flights).values().for_each(|flight| flight.outdate());
        }
    }

    /// The poll for the end of the load with this token; `Err` is a new one, for the caller to see to.
    pub(super) fn poll(&self, token: &Token) -> Result<watch::Receiver<Sight>, watch::Sender<Sight>> {
        let mut polls = lock(&self.polls);
        if let Some(poll) = polls.get(token)
            && poll.has_changed().is_ok()
        {
            return Ok(poll.clone());
        }
        let (sender, receiver) = watch::channel(None);
        polls.insert(token.clone(), receiver);
        Err(sender)
    }

    pub(super) fn end_poll(&self, token: &Token) {
        lock(&self.polls).remove(token);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CacheKey {
        CacheKey::new("msg", "user:1".to_owned())
    }

    #[test]
    fn what_was_invalidated_is_waited_for_and_not_shared() {
        let flights = Flights::default();
        let Turn::Lead(unleased) = flights.turn(&key()) else { panic!("nobody loads") };
        assert!(matches!(flights.turn(&key()), Turn::Join(flight) if Arc::ptr_eq(&flight, &unleased)));
        for invalidate in [|flights: &Flights| flights.invalidate(&[key()]), Flights::invalidate_all] {
            invalidate(&flights);
            assert!(matches!(flights.turn(&key()), Turn::Wait(flight) if Arc::ptr_eq(&flight, &unleased)));
        }
        let leased = flights.prepare(&key());
        let waited_for = flights.take_off(&leased);
        assert!(waited_for.is_some_and(|flight| Arc::ptr_eq(&flight, &unleased)), "one load at a time");
        flights.remove_unleased(&key(), &unleased);
        assert!(matches!(flights.turn(&key()), Turn::Join(flight) if Arc::ptr_eq(&flight, &leased)));
        flights.invalidate(&[key()]);
        assert!(matches!(flights.turn(&key()), Turn::Wait(flight) if Arc::ptr_eq(&flight, &leased)));
        flights.touch_down(&leased);
        assert!(matches!(flights.turn(&key()), Turn::Lead(_)));
    }
}
