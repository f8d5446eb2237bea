//! Hears the events of `invalidate_on`, what other processes announce, and itself, on a connection that no handler can hold
//! up. It knows whether everything has been heard; what follows from that for stored values is in `cover`.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::marks::Marks;
use super::{Cache, Family};
use crate::backend::{Backend, CacheKey, Names, Notice, Token};
use crate::channel::Pattern;
use crate::config::Config;
use crate::dispatch::{Buffer, Carrier, Entry, Mailbox, Overflow};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::message::Received;
use crate::meter;
use crate::retry::deadline;
use crate::session::{Session, SessionHealth};

/// How many times it is remembered when something was told that has not been heard.
const MOST_WAITS: usize = 256;
/// How many events are worked off together.
const TOGETHER: usize = 256;

/// One process's ear.
#[derive(Clone, Debug)]
pub(crate) struct Listener(pub(super) Arc<Ear>);

#[derive(Debug)]
pub(super) struct Ear {
    session: Session,
    mailbox: Arc<Mailbox>,
    names: Names,
    /// A name of its own.
    pub(super) id: String,
    /// Held for as long as nothing is missed; in memory it is what counts.
    pub(super) hold: Mutex<Arc<()>>,
    /// Something that was heard could not be carried out so often.
    failures: AtomicU64,
    /// The epoch whose gap has been dealt with.
    settled: AtomicU64,
    /// The number that we have told ourselves last, and the one that was heard last.
    told: AtomicU64,
    heard: AtomicU64,
    /// Since when, in milliseconds from `began`, nothing can have been missed: when that number was told.
    alive: AtomicU64,
    began: Instant,
    waits: Mutex<Vec<(u64, Instant)>>,
    news: Notify,
    /// The generation of the registry that has our functions.
    pub(super) generation: AtomicI64,
    /// Somebody has waited in vain to be served.
    gave_up: AtomicBool,
    lag: Duration,
    is_memory: bool,
    /// Catching up before a handler is called: how many have asked, and up to which of them it is done.
    asked: AtomicU64,
    caught_up: tokio::sync::Mutex<u64>,
}

/// What is announced to the local layers of other processes.
#[derive(Serialize, Deserialize)]
struct Gone<'a> {
    /// Who has announced it.
    #[serde(borrow)]
    from: std::borrow::Cow<'a, str>,
    /// As they are on the backend; without it everything.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<std::borrow::Cow<'a, str>>>,
}

impl Listener {
    pub(super) fn start(
        cache: &Arc<Cache>,
        patterns: &[Pattern],
        config: &Config,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let session =
            Session::start("cache", "cache", Arc::clone(&cache.backend), config, tasks, stop.clone());
        // What is not read in time stays with Redis, which cuts us off at last: that is a gap like any other.
        let mailbox = Arc::new(Mailbox::for_subscription(Buffer::DEFAULT, Overflow::Block));
        let ear = Arc::new(Ear {
            mailbox: Arc::clone(&mailbox),
            names: cache.names.clone(),
            id: cache.id.clone(),
            hold: Mutex::default(),
            failures: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            told: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            alive: AtomicU64::new(0),
            began: Instant::now(),
            waits: Mutex::default(),
            news: Notify::new(),
            generation: AtomicI64::new(i64::MAX),
            gave_up: AtomicBool::new(false),
            lag: config.cache_lag,
            is_memory: matches!(*cache.backend, Backend::Memory(_)),
            asked: AtomicU64::new(0),
            caught_up: tokio::sync::Mutex::new(0),
            session,
        });
        let all = [patterns, &cache.own_channels].concat();
        // It is wanted from now on, whether or not anybody waits for the confirmation.
        ear.session.want(&mailbox, &all, Carrier::Broadcast, &config.channel_prefix);
        tasks.spawn(listen(Arc::downgrade(cache), Arc::clone(&ear), patterns.to_vec(), stop.clone()));
        tasks.spawn(super::cover::keep_covered(Arc::downgrade(cache), Arc::clone(&ear), stop.clone()));
        Self(ear)
    }

    /// Waits until everything is subscribed, and then for a while until values may be served.
    pub(crate) async fn ready(&self, cache: &Cache) -> Result<()> {
        self.0.confirmed().await?;
        let until = deadline(self.0.lag * 2);
        for family in cache.families.with_events() {
            self.0.wait_to_serve(family, until).await;
        }
        Ok(())
    }

    pub(crate) fn health(&self) -> SessionHealth {
        self.0.session.health()
    }

    /// Waits until what was published before now has been heard and carried out; `false` if that takes too long.
    ///
    /// Cancellation: nothing is lost.
    pub(super) async fn catch_up(&self, cache: &Cache, limit: Duration) -> bool {
        let ear = &self.0;
        if !ear.is_alive(Instant::now()) {
            return false;
        }
        let mine = ear.asked.fetch_add(1, Ordering::SeqCst);
        let mut done = ear.caught_up.lock().await;
        if mine < *done {
            return true;
        }
        let up_to = ear.asked.load(Ordering::SeqCst);
        let until = deadline(limit);
        let number = ear.tell();
        let payload = Bytes::from(number.to_string());
        let notice = Notice { channel: ear.names.here(&ear.id), payload };
        let told = timeout_at(until, cache.backend.announce(&notice)).await;
        let heard = matches!(told, Ok(Ok(()))) && ear.has_heard(number, until).await;
        if heard {
            *done = up_to;
        }
        heard
    }
}

impl Ear {
    /// Goes up whenever something may have been missed.
    pub(super) fn epoch(&self) -> u64 {
        self.session.generation() + self.session.skipped() + self.failures.load(Ordering::Acquire)
    }

    /// The longest time by which a value may be older than what somebody else has published.
    pub(super) fn lag(&self) -> Duration {
        self.lag
    }

    pub(super) async fn confirmed(&self) -> Result<()> {
        self.session.confirmed(&self.mailbox).await
    }

    /// Nothing is kept in the process from before this epoch.
    pub(super) fn settle(&self, epoch: u64) {
        self.settled.fetch_max(epoch, Ordering::AcqRel);
        self.tell_news();
    }

    /// What is told ourselves next.
    pub(super) fn tell(&self) -> u64 {
        let mut waits = self.waits();
        let number = self.told.fetch_add(1, Ordering::SeqCst) + 1;
        if waits.len() >= MOST_WAITS {
            // Nothing is heard at the moment.
            waits.remove(0);
        }
        waits.push((number, Instant::now()));
        number
    }

    fn hear(&self, number: u64) {
        let mut waits = self.waits();
        let at = waits.iter().filter(|(told, _)| *told <= number).map(|(_, at)| *at).max();
        waits.retain(|(told, _)| *told > number);
        if let Some(at) = at {
            if !self.is_memory {
                meter::round_trip("delivery", at.elapsed());
            }
            let since = at.saturating_duration_since(self.began).as_millis() as u64;
            // Never nothing, which means "not at all".
            self.alive.fetch_max(since.max(1), Ordering::AcqRel);
        }
        drop(waits);
        self.heard.fetch_max(number, Ordering::SeqCst);
        self.tell_news();
    }

    /// Waits until this number has been heard; `false` if it was not by then.
    pub(super) async fn has_heard(&self, number: u64, until: Instant) -> bool {
        self.when(until, || self.heard.load(Ordering::SeqCst) >= number).await
    }

    async fn when(&self, until: Instant, is_so: impl Fn() -> bool) -> bool {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if is_so() {
                return true;
            }
            if timeout_at(until, news).await.is_err() {
                return is_so();
            }
        }
    }

    /// Waits for a gap, or this long.
    pub(super) async fn gap_since(&self, epoch: u64, until: Instant) -> bool {
        self.when(until, || self.epoch() != epoch).await
    }

    pub(super) fn tell_news(&self) {
        self.gave_up.store(false, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Whether what arrives is heard at the moment.
    fn is_alive(&self, now: Instant) -> bool {
        if self.is_memory {
            return true;
        }
        let alive = self.alive.load(Ordering::Acquire);
        alive > 0 && now <= self.began + Duration::from_millis(alive) + self.lag
    }

    /// Whether values of a family may be served and stored.
    pub(super) fn serves(&self, family: &Family, now: Instant) -> bool {
        family.is_covered(self.epoch()) && self.is_alive(now) && !family.is_flushing()
    }

    /// Whether values that are kept in this process may be served.
    pub(super) fn serves_local(&self, family: &Family, now: Instant) -> bool {
        let epoch = self.epoch();
        // Until it has been settled, the values from before the gap are still there.
        let settled = self.settled.load(Ordering::Acquire) == epoch;
        settled
            && self.is_alive(now)
            && (!family.has_events() || family.is_covered(epoch) && !family.is_flushing())
    }

    /// Waits until values of a family may be served; `false` if they may not by then. Where one has waited in vain, others
    /// do not wait until there is news.
    pub(super) async fn wait_to_serve(&self, family: &Family, until: Instant) -> bool {
        if self.gave_up.load(Ordering::Acquire) {
            return self.serves(family, Instant::now());
        }
        let serves = self.when(until, || self.serves(family, Instant::now())).await;
        if !serves {
            self.gave_up.store(true, Ordering::Release);
        }
        serves
    }

    fn waits(&self) -> MutexGuard<'_, Vec<(u64, Instant)>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may not have been carried out.
    pub(super) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
        self.tell_news();
    }
}

/// What to announce: these keys, as they are on the backend, or everything.
pub(super) fn gone(names: &Names, from: &str, keys: Option<&[CacheKey]>) -> Notice {
    let keys = keys.map(|keys| keys.iter().map(|key| key.value.as_str().into()).collect());
    let payload = serde_json::to_vec(&Gone { from: from.into(), keys }).expect("texts can be written");
    Notice { channel: names.gone.clone(), payload: payload.into() }
}

/// The channels on which the cache speaks with itself: of marks, of announcements, and of this process.
pub(super) fn own_channels(names: &Names, id: &str, prefix: &str) -> Result<[Pattern; 3]> {
    // These names have the prefix already.
    let exact = |name: &str| Pattern::parse(&name[prefix.len()..]);
    Ok([exact(&names.own)?, exact(&names.gone)?, exact(&names.here(id))?])
}

async fn listen(cache: Weak<Cache>, ear: Arc<Ear>, patterns: Vec<Pattern>, stop: CancellationToken) {
    let mut marks = Marks::default();
    loop {
        let entry = tokio::select! {
            () = stop.cancelled() => return,
            entry = ear.mailbox.pop(0) => entry,
        };
        let (Some(mut entry), Some(cache)) = (entry, cache.upgrade()) else { return };
        let mut heard = Heard::default();
        for taken in 1..=TOGETHER {
            match entry {
                Entry::Message(event) => heard.take(&cache, &ear, &patterns, &mut marks, &event),
                Entry::Gap(_) => {
                    marks.clear();
                    ear.tell_news();
                }
            }
            if taken == TOGETHER {
                break;
            }
            let Some(next) = ear.mailbox.pop(0).now_or_never().flatten() else { break };
            entry = next;
        }
        heard.carry_out(&cache, &ear).await;
    }
}

/// What follows from the messages that are worked off together.
#[derive(Default)]
struct Heard {
    forget: Vec<CacheKey>,
    number: Option<u64>,
}

impl Heard {
    /// After the patterns of events come [`own_channels`].
    fn take(
        &mut self,
        cache: &Arc<Cache>,
        ear: &Ear,
        patterns: &[Pattern],
        marks: &mut Marks,
        event: &Received,
    ) {
        let Received { channel, payload, pattern, .. } = event;
        let came_by = usize::from(*pattern);
        match came_by.checked_sub(patterns.len()) {
            Some(0) => marks.note(payload),
            Some(1) => cache.heard_gone(payload),
            Some(_) => self.number = self.number.max(number(payload)),
            // Redis delivers once for each pattern that matches; the first of them counts.
            None if patterns[..came_by].iter().any(|earlier| earlier.matches(channel)) => {}
            None => {
                let registered = ear.generation.load(Ordering::Acquire);
                let known = marks.take(channel, payload);
                let is_own = known.is_some_and(|known| known >= registered);
                cache.heard(channel, payload, is_own, &mut self.forget);
            }
        }
    }

    async fn carry_out(self, cache: &Arc<Cache>, ear: &Ear) {
        if !self.forget.is_empty() {
            if let Err(error) = cache.backend.forget(&self.forget, None).await {
                tracing::error!(
                    keys = self.forget.len(),
                    error = %chain(&error),
                    "what events have made out of date could not be removed; their functions are not served until it is"
                );
                ear.fail();
            }
            // A call may have found the old value in Redis just before, and kept it here.
            self.forget.iter().for_each(|key| cache.forget_local(&key.value));
        }
        // Only now: it tells that everything before it has been carried out.
        if let Some(number) = self.number {
            ear.hear(number);
        }
    }
}

fn number(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload).ok()?.parse().ok()
}

impl Cache {
    /// Another process has invalidated something by hand.
    fn heard_gone(&self, payload: &[u8]) {
        let Ok(Gone { from, keys }) = serde_json::from_slice(payload) else { return };
        if from == self.id {
            return;
        }
        match keys {
            None => self.clear_local(),
            Some(keys) => keys.iter().for_each(|key| self.forget_local(key)),
        }
    }
}

/// That values cannot be served for now.
pub(super) fn not_heard() -> Error {
    Error::new(ErrorKind::Connection, "the events of invalidate_on are not heard at the moment")
}

/// A name of its own for a process.
pub(super) fn id() -> String {
    Token::random().0.chars().take(16).collect()
}
