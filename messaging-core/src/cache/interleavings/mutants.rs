//! Rules of the protocol broken on purpose, one at a time, to see that the schedules notice. Each is put together from
//! whole commands: within a step nobody else acts, so that several of them are as good as one script.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::stepper::{Stepper, current, second_gate, ungated};
use crate::backend::{Attempt, Backend, CacheKey, Grant, Lease, Looked, Notice, Outgoing, Published, Token};
use crate::cache::flight::Flights;
use crate::dispatch::BoxFuture;
use crate::error::{Error, ErrorKind, Result};

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// A token stands for a process, not for one attempt to get a lease.
    TokenOfTheProcess,
    /// LEASE is sent again with the same token, and the first of the two arrives late.
    RetryWithTheSameToken,
    /// STORE does not ask whose lease it is.
    StoreWithoutLease,
    /// STORE does not ask whether the value is still the one that was seen.
    StoreWithoutSeen,
    /// An exact invalidation removes the value only.
    LeaseLeftBehind,
    /// RENEW does not ask whose lease it is, nor whether there is one.
    BlindRenew,
    /// RELEASE does not ask whose lease it is.
    BlindRelease,
    /// A flush removes the values only.
    FlushOfValues,
    /// A flush looks for values and leases in one pass.
    FlushInOnePass,
    /// A caller joins whatever load of the key runs in its process.
    JoinUnseen,
    /// Writing a value and removing the lease are two commands.
    SetInTwoCommands,
}

type Mutated<'a, T> = Option<BoxFuture<'a, Result<T>>>;

fn is(mutant: Mutant) -> Option<Arc<Stepper>> {
    current().filter(|stepper| stepper.mutant == Some(mutant))
}

/// An announcement that nobody listens to.
pub(super) fn nothing() -> Notice {
    Notice { channel: "nobody".to_owned(), payload: Bytes::new() }
}

/// The key of the value alone: its lease is a key that is never there.
pub(super) fn without_lease(key: &CacheKey) -> CacheKey {
    CacheKey { value: key.value.clone(), lease: format!("nobody:{{{}}}", key.value) }
}

/// The key of the lease alone, as if it were a value.
fn lease_alone(key: &CacheKey) -> CacheKey {
    without_lease(&CacheKey { value: key.lease.clone(), lease: String::new() })
}

pub(crate) fn token() -> Option<Token> {
    if let Some(stepper) = is(Mutant::RetryWithTheSameToken)
        && stepper.actor() == 0
    {
        return stepper.token();
    }
    // Both loaders of the schedules with this mutant are in one process.
    is(Mutant::TokenOfTheProcess).map(|_| Token("the-process".to_owned()))
}

pub(in crate::cache) fn joined(flights: &Flights, key: &CacheKey) -> Option<Token> {
    is(Mutant::JoinUnseen).and_then(|_| flights.any(key))
}

/// Whether a flush has one pass, and whether that finds leases too.
pub(crate) fn one_pass() -> Option<bool> {
    let in_one_pass = is(Mutant::FlushInOnePass).map(|_| true);
    in_one_pass.or_else(|| is(Mutant::FlushOfValues).map(|_| false))
}

/// In memory a flush holds the lock from beginning to end; there is no second pass to leave out.
pub(crate) fn flush(backend: &Backend) -> Mutated<'_, u64> {
    let key = is(Mutant::FlushOfValues)?.key.clone();
    Some(Box::pin(async move {
        ungated(backend.forget(&[without_lease(&key)], None)).await?;
        Ok(1)
    }))
}

/// No mutant, but an attempt that arrives so late that it has been given up.
pub(crate) fn lease<'a>(
    _backend: &'a Backend,
    _key: &'a CacheKey,
    attempt: &'a Attempt<'_>,
    _seen: Option<&'a Bytes>,
    _ttl: Duration,
) -> Mutated<'a, Lease> {
    if current()?.lease_arrives(attempt.token) {
        return None;
    }
    Some(Box::pin(async { Err(Error::new(ErrorKind::Timeout, "the attempt is on its way for ever")) }))
}

pub(crate) fn store<'a>(
    backend: &'a Backend,
    key: &'a CacheKey,
    grant: &'a Grant,
    seen: Option<&'a Bytes>,
    value: &'a Bytes,
    ttl: Duration,
) -> Mutated<'a, bool> {
    let without_lease_check = is(Mutant::StoreWithoutLease).is_some();
    if !without_lease_check && is(Mutant::StoreWithoutSeen).is_none() {
        return None;
    }
    Some(Box::pin(ungated(async move {
        let Looked { value: stored, holder, .. } = backend.look(key, false).await?;
        let allowed =
            if without_lease_check { stored.as_ref() == seen } else { holder.as_ref() == Some(&grant.token) };
        if allowed {
            backend.set(key, value, ttl, &nothing()).await?;
        }
        Ok(allowed)
    })))
}

pub(crate) fn renew<'a>(
    backend: &'a Backend,
    key: &'a CacheKey,
    token: &'a Token,
    ttl: Duration,
) -> Mutated<'a, ()> {
    is(Mutant::BlindRenew)?;
    Some(Box::pin(async move {
        let token = Bytes::copy_from_slice(token.0.as_bytes());
        ungated(backend.set(&lease_alone(key), &token, ttl, &nothing())).await
    }))
}

pub(crate) fn release<'a>(backend: &'a Backend, key: &'a CacheKey, _token: &'a Token) -> Mutated<'a, ()> {
    is(Mutant::BlindRelease)?;
    Some(Box::pin(async move { ungated(backend.forget(&[lease_alone(key)], None)).await }))
}

pub(crate) fn set<'a>(
    backend: &'a Backend,
    key: &'a CacheKey,
    value: &'a Bytes,
    ttl: Duration,
    notice: &'a Notice,
) -> Mutated<'a, ()> {
    is(Mutant::SetInTwoCommands)?;
    Some(Box::pin(async move {
        ungated(backend.set(&without_lease(key), value, ttl, notice)).await?;
        let _step = second_gate("unlink lease").await;
        ungated(backend.forget(&[lease_alone(key)], None)).await
    }))
}

pub(crate) fn forget<'a>(
    backend: &'a Backend,
    keys: &'a [CacheKey],
    notice: Option<&'a Notice>,
) -> Mutated<'a, ()> {
    is(Mutant::LeaseLeftBehind)?;
    Some(Box::pin(async move {
        let keys: Vec<_> = keys.iter().map(without_lease).collect();
        ungated(backend.forget(&keys, notice)).await
    }))
}

pub(crate) fn publish<'a>(
    backend: &'a Backend,
    messages: &'a [Outgoing],
    forget: &'a [CacheKey],
) -> Mutated<'a, Published> {
    is(Mutant::LeaseLeftBehind)?;
    Some(Box::pin(async move {
        let forget: Vec<_> = forget.iter().map(without_lease).collect();
        ungated(backend.publish(messages, &forget)).await
    }))
}
