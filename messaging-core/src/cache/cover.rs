//! Coverage: knowing that no event was missed, also while nobody of this process listened. Counters in Redis tell which
//! sessions together have heard everything; what they have not is flushed. Never clocks: they lag and jump.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::listener::Ear;
use super::rules::Rules;
use super::{Cache, Family};
use crate::backend::{Backend, Cover, Joined, Joining, Proof, Redis, Registration, Token};
use crate::error::{ErrorKind, Result, chain};

/// How much longer than its values a function is known that nobody renews.
const KNOWN_LONGER: Duration = Duration::from_secs(60 * 60);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(20 * 60);
/// How long one flusher keeps the others waiting, unless it renews that.
const FLUSH_LEASE: Duration = Duration::from_secs(10);

/// Keeps the families of a cache covered, for as long as there is the cache.
pub(super) async fn keep_covered(cache: Weak<Cache>, ear: Arc<Ear>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = keep(&cache, &ear, &stop) => {}
    }
}

async fn keep(cache: &Weak<Cache>, ear: &Arc<Ear>, stop: &CancellationToken) {
    let mut failures = 0;
    let mut told = false;
    loop {
        let epoch = ear.epoch();
        let kept = match ear.confirmed().await {
            Ok(()) => {
                let Some(strong) = cache.upgrade() else { return };
                let kept = Session { ear, epoch, stop }.keep(strong, cache).await;
                failures = if kept.is_ok() { 0 } else { failures + 1 };
                kept
            }
            Err(error) => {
                failures += 1;
                Err(error)
            }
        };
        let Err(error) = kept else { continue };
        if error.kind() == ErrorKind::Refused && !std::mem::replace(&mut told, true) {
            tracing::error!(
                error = %chain(&error),
                "cached functions with invalidate_on are called uncached, because what they have missed cannot be known"
            );
        } else {
            tracing::debug!(error = %chain(&error), "coverage is interrupted");
        }
        let Some(delay) = cache.upgrade().map(|cache| cache.config.reconnect.delay(failures)) else { return };
        tokio::time::sleep(delay).await;
    }
}

/// The time in which nothing was missed.
struct Session<'e> {
    ear: &'e Arc<Ear>,
    epoch: u64,
    stop: &'e CancellationToken,
}

/// When a family that was joined is covered.
struct Mark {
    server: String,
    mark: u64,
    at: Instant,
    /// A flush is under way, or has been begun in vain at that time.
    flushing: bool,
}

impl Session<'_> {
    /// Returns after a gap.
    async fn keep(&self, cache: Arc<Cache>, weak: &Weak<Cache>) -> Result<()> {
        let hold = Arc::new(());
        // The session before this one has missed something.
        *self.ear.hold.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&hold);
        // Everything is subscribed, and what is kept here may be from before what was missed.
        cache.clear_local();
        self.ear.settle(self.epoch);
        let mut renewed = Instant::now();
        self.register(&cache).await?;
        let mut marks = self.join(&cache, &hold).await?;
        let Backend::Redis(redis) = &*cache.backend else {
            drop(cache);
            return self.sit_out(weak).await;
        };
        self.look_at_policy(&cache, redis).await;
        let primaries = redis.known_primaries();
        let tick = self.ear.lag() / 4;
        let mut next = Instant::now();
        loop {
            if self.ear.epoch() != self.epoch {
                return Ok(());
            }
            next = (next + tick).max(Instant::now());
            if let Some(lost) = self.prove(&cache, redis, &mut marks).await? {
                // The counters are gone, and with them the values and the registry; whoever is covered stays so.
                tracing::debug!(family = lost, "the counters of coverage were lost");
                self.register(&cache).await?;
                marks = self.join(&cache, &hold).await?;
            }
            if let (Some(before), Some(now)) = (&primaries, redis.known_primaries())
                && !before.is_subset(&now)
            {
                // The one in its place may not have kept every removal.
                self.ear.fail();
                return Ok(());
            }
            if renewed.elapsed() > RENEW {
                self.register(&cache).await?;
                self.look_at_policy(&cache, redis).await;
                renewed = Instant::now();
            }
            if self.ear.gap_since(self.epoch, next).await {
                return Ok(());
            }
        }
    }

    /// In memory nothing is missed while nothing is lost.
    async fn sit_out(&self, cache: &Weak<Cache>) -> Result<()> {
        while !self.ear.gap_since(self.epoch, Instant::now() + self.ear.lag() / 4).await {
            if cache.strong_count() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// A server that evicts what it likes evicts leases and counters, too.
    async fn look_at_policy(&self, cache: &Cache, redis: &Redis) {
        // An ACL may forbid the question.
        let Ok(Some(policy)) = redis.maxmemory_policy().await else { return };
        let warning = policy.starts_with("allkeys-").then(|| {
            format!(
                "redis has `maxmemory-policy {policy}`, which also evicts the keys that tell what was invalidated; `volatile-ttl` or `volatile-lru` evict only values"
            )
        });
        let mut told = cache.warning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(warning) = warning.as_ref().filter(|_| told.is_none()) {
            tracing::warn!("{warning}");
        }
        *told = warning;
    }

    async fn register(&self, cache: &Cache) -> Result<()> {
        let registration = |family: &Family| Registration {
            name: family.rules.name.clone(),
            definition: family.rules.definition.to_json(),
            keep: family.rules.definition.keep().saturating_add(KNOWN_LONGER),
        };
        let registrations: Vec<_> = cache.families.with_events().map(registration).collect();
        if !registrations.is_empty() {
            let generation = cache.backend.register_families(&registrations).await?;
            self.ear.generation.store(generation, Ordering::Release);
            // So that already the first event that we publish is marked as ours.
            let known = cache.catalog.snapshot();
            if known.generation != Some(generation) {
                cache.renew_catalog(&known).await?;
            }
        }
        Ok(())
    }

    async fn join(&self, cache: &Arc<Cache>, hold: &Arc<()>) -> Result<HashMap<String, Mark>> {
        let families: Vec<_> = cache.families.with_events().collect();
        if families.is_empty() {
            return Ok(HashMap::new());
        }
        let keeps: Vec<_> = families
            .iter()
            .map(|family| {
                let rules = Arc::clone(&family.rules);
                move |key: &str| rules.could_be(key)
            })
            .collect();
        let joining: Vec<_> = families
            .iter()
            .zip(&keeps)
            .map(|(family, keep)| Joining { name: &family.rules.name, glob: family.rules.glob(), keep })
            .collect();
        let joined = cache.backend.join_cover(&joining, hold).await?;
        let (mut marks, mut uncovered) = (HashMap::new(), Vec::new());
        for (family, joined) in families.iter().zip(joined) {
            match joined {
                Joined::Covered => self.cover(family),
                // Covered already: only the counters were lost.
                Joined::Marked { server, mark, .. } if family.is_covered(self.epoch) => {
                    let mark = Mark { server, mark, at: Instant::now(), flushing: false };
                    marks.insert(family.rules.name.clone(), mark);
                }
                Joined::Marked { server, mark, alone } => {
                    let mark = Mark { server, mark, at: Instant::now(), flushing: alone };
                    marks.insert(family.rules.name.clone(), mark);
                    if alone {
                        uncovered.push(Arc::clone(&family.rules));
                    }
                }
            }
        }
        self.flush_later(cache, uncovered);
        Ok(marks)
    }

    fn cover(&self, family: &Family) {
        if family.cover(self.epoch) {
            tracing::debug!(function = family.descriptor.id, "covered: nothing was missed");
            self.ear.tell_news();
        }
    }

    /// Reads the counters, hears itself, and then says what it knows. Returns a family whose counters are gone.
    async fn prove(
        &self,
        cache: &Arc<Cache>,
        redis: &Redis,
        marks: &mut HashMap<String, Mark>,
    ) -> Result<Option<String>> {
        let families: Vec<_> = cache.families.with_events().collect();
        let names: Vec<_> = families.iter().map(|family| family.rules.name.as_str()).collect();
        // What was heard and is not carried out yet proves nothing.
        let is_covered = |family: &&Family| family.is_covered(self.epoch) && !family.is_flushing();
        let were_covered: Vec<_> = families.iter().map(is_covered).collect();
        let number = self.ear.tell();
        let (at, covers) = redis.read_cover(&names, &self.ear.id, number).await?;
        if marks.values().any(|mark| mark.server != at) {
            // Another server, which may not have kept everything, though our connections may lead to both.
            self.ear.fail();
            return Ok(None);
        }
        let until = Instant::now() + self.ear.lag();
        if !self.ear.has_heard(number, until).await || self.ear.epoch() != self.epoch {
            return Ok(None);
        }
        let is_flushing = |family: &&Family| family.is_flushing();
        if families.iter().any(is_flushing) {
            return Ok(None);
        }
        let (mut proofs, mut uncovered) = (Vec::new(), Vec::new());
        for ((family, was_covered), Cover { server, joined, proven }) in
            families.iter().zip(were_covered).zip(&covers)
        {
            let name = family.rules.name.as_str();
            let Some(mark) = marks.get_mut(name) else { continue };
            // Whoever is subscribed to another server than the counters are on does not hear itself.
            let Some(server) = server.as_deref().filter(|server| *server == mark.server) else {
                return Ok(Some(name.to_owned()));
            };
            if was_covered {
                if proven < joined {
                    proofs.push(Proof { family: name, server, joined: *joined });
                }
            } else if *proven >= mark.mark {
                self.cover(family);
            } else if !mark.flushing && mark.at.elapsed() >= self.ear.lag() / 2 {
                mark.flushing = true;
                uncovered.push(Arc::clone(&family.rules));
            }
        }
        self.flush_later(cache, uncovered);
        if !proofs.is_empty() {
            redis.prove_cover(&proofs).await?;
        }
        Ok(None)
    }

    /// Flushes families that nobody has covered. One process does it; the others wait for its word.
    fn flush_later(&self, cache: &Arc<Cache>, uncovered: Vec<Arc<Rules>>) {
        if uncovered.is_empty() {
            return;
        }
        let (ear, epoch, stop) = (Arc::clone(self.ear), self.epoch, self.stop.clone());
        let (tasks, cache) = (cache.background.clone(), Arc::downgrade(cache));
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = flush(&cache, &ear, epoch, uncovered) => {}
            }
        });
    }
}

/// Flushes until it has succeeded, somebody else has, or something was missed again.
async fn flush(cache: &Weak<Cache>, ear: &Ear, epoch: u64, mut uncovered: Vec<Arc<Rules>>) {
    let token = Token::random();
    let mut attempt = 0;
    loop {
        let Some(cache) = cache.upgrade() else { return };
        let family = |rules: &Arc<Rules>| {
            let mut families = cache.families.iter();
            families.find(|family| Arc::ptr_eq(&family.rules, rules))
        };
        uncovered.retain(|rules| family(rules).is_some_and(|family| !family.is_covered(epoch)));
        if ear.epoch() != epoch || uncovered.is_empty() {
            return;
        }
        match flush_alone(&cache, &uncovered, &token).await {
            // Of the others somebody else tells when it is done; if he does not, we look again.
            Ok(flushed) => {
                let news = flushed.iter().filter_map(family).filter(|family| family.cover(epoch)).count();
                if news > 0 {
                    ear.tell_news();
                }
            }
            Err(error) => {
                if attempt == 0 {
                    tracing::warn!(error = %chain(&error), "cached functions could not be flushed; trying again");
                }
                attempt += 1;
            }
        }
        let delay = cache.config.reconnect.delay(attempt).max(ear.lag() / 2);
        drop(cache);
        if ear.gap_since(epoch, Instant::now() + delay).await {
            return;
        }
    }
}

/// Flushes those that nobody else is flushing, and returns them.
async fn flush_alone(cache: &Cache, uncovered: &[Arc<Rules>], token: &Token) -> Result<Vec<Arc<Rules>>> {
    let Backend::Redis(redis) = &*cache.backend else {
        return Ok(Vec::new());
    };
    let mut ours = Vec::new();
    for rules in uncovered {
        if redis.begin_flush(&rules.name, token, FLUSH_LEASE).await? {
            ours.push(Arc::clone(rules));
        }
    }
    let locks: Vec<_> = ours.iter().map(|rules| cache.names.flush(&rules.name)).collect();
    let renewing = async {
        loop {
            tokio::time::sleep(FLUSH_LEASE / 3).await;
            for lock in &locks {
                // If it is lost two flush at once, which does no harm.
                let _ = redis.renew(lock, token, FLUSH_LEASE).await;
            }
        }
    };
    let flushed = tokio::select! {
        flushed = cache.flush_together(&ours) => flushed,
        () = renewing => unreachable!("it renews for ever"),
    };
    for lock in &locks {
        let _ = redis.release(lock, token).await;
    }
    flushed.map(|_| ours)
}
