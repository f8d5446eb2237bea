//! Publishes what stands in the outbox.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use messaging_core::__private::chain;
use messaging_core::{
    Backoff, Error, ErrorKind, EventId, Messaging, PendingEvent, Result, Service, ServiceHealth,
};
use serde::Serialize;
use sqlx::Pool;
use tokio::time::Instant;

use crate::crash;
use crate::database::{Database, News};
use crate::outbox::{Claimed, Outbox, OutboxStats};

/// How often the state of the outbox is looked at, and what is old removed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many bytes of events are published at once.
const BYTES_TOGETHER: usize = 4 * 1024 * 1024;
/// How often it is tried to listen to the database again.
const LISTEN_AGAIN: Duration = Duration::from_secs(10);

/// Publishes what units of work have written to the [outbox](crate::UnitOfWork::with_outbox): each event at least once,
/// those of one ordering in order. Any number of them share the work, in any number of processes.
///
/// It runs beside the handlers: `messaging.attach(OutboxRelay::new(&pool))?`.
///
/// # Delivery
/// A relay claims rows for the time of a lease, publishes them, and notes that. One that dies in between leaves them to
/// others when the lease is over, who publish them again, under the same id: handlers with `dedupe` handle them once.
///
/// A row that cannot be published (it is too large, or an ACL forbids the channel) is tried again, less and less often;
/// what comes after it in its ordering waits for it. `Health` shows such rows, and [`Outbox`] lets an operator retry or
/// discard them. That Redis is away is no fault of a row, and counts for none.
pub struct OutboxRelay<DB: Database> {
    outbox: Outbox<DB>,
    /// A name of its own.
    id: String,
    batch: usize,
    poll: Duration,
    lease: Duration,
    keep: Duration,
    backoff: Backoff,
    stuck_after: u32,
    status: Mutex<Status>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Status {
    /// Events that this relay has published.
    published: u64,
    /// Attempts that have failed.
    failed: u64,
    #[serde(flatten)]
    outbox: OutboxStats,
    /// Rows that were tried so often that somebody should look at them.
    stuck: u64,
    last_error: Option<String>,
    /// The database, or Redis, has answered the last time.
    #[serde(skip)]
    is_sound: bool,
}

impl<DB: Database> OutboxRelay<DB> {
    /// A relay for the outbox of a database.
    #[must_use]
    pub fn new(pool: &Pool<DB>) -> Self {
        Self {
            outbox: Outbox::new(pool),
            id: EventId::random().as_str().to_owned(),
            batch: 500,
            poll: Duration::from_millis(500),
            lease: Duration::from_secs(10),
            keep: Duration::from_secs(60 * 60),
            backoff: Backoff { initial: Duration::from_millis(500), max: Duration::from_secs(5 * 60) },
            stuck_after: 5,
            status: Mutex::new(Status { is_sound: true, ..Status::default() }),
        }
    }

    /// How many rows are claimed at once; 500.
    #[must_use]
    pub fn batch(mut self, rows: NonZeroUsize) -> Self {
        self.batch = rows.get();
        self
    }

    /// How often it looks for rows that it was not told of; 500 ms. It is told at once of those of its own process and, on
    /// Postgres, of all.
    #[must_use]
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.poll = interval.max(Duration::from_millis(1));
        self
    }

    /// How long the rows of a relay that died are kept from the others; 10 s. What a relay has not got to within half of it,
    /// it lets go.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// How long published rows are kept, for those who want to look at them; an hour. With zero they are removed when
    /// they are published.
    #[must_use]
    pub fn keep_published(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// When a row is tried again that could not be published: 500 ms to 5 minutes.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// After how many attempts a row is reported as stuck; 5.
    #[must_use]
    pub fn stuck_after(mut self, attempts: u32) -> Self {
        self.stuck_after = attempts.max(1);
        self
    }

    /// Works off what is there now: claims and publishes until nothing can be claimed. Returns how many events were
    /// published. For tests and for programs that run now and then; otherwise attach it.
    ///
    /// # Errors
    /// What the database says; or why nothing can be published, such as
    /// [`ErrorKind::Connection`](messaging_core::ErrorKind::Connection).
    ///
    /// # Cancellation
    /// What was claimed is published by another relay, or this one, when its lease is over.
    pub async fn work_off(&self, messaging: &Messaging) -> Result<u64> {
        let mut published = 0;
        loop {
            match self.once(messaging).await? {
                Worked::Nothing => return Ok(published),
                Worked::Published(events) => published += events,
                Worked::Stopped(events, error) => {
                    return if events > 0 { Ok(published + events) } else { Err(error) };
                }
            }
        }
    }

    /// Claims a batch and publishes it.
    async fn once(&self, messaging: &Messaging) -> Result<Worked> {
        let claimed_at = Instant::now();
        let mut claimed = self.outbox.claim(&self.id, self.lease, self.batch).await?;
        if claimed.is_empty() {
            return Ok(Worked::Nothing);
        }
        let mut published = 0;
        let mut held_up = HashSet::new();
        while !claimed.is_empty() {
            if claimed_at.elapsed() > self.lease / 2 {
                // Others may have them by the time they are published.
                self.release(&claimed).await?;
                break;
            }
            let rest = claimed.split_off(together(&claimed));
            let rows = std::mem::replace(&mut claimed, rest);
            match self.publish(messaging, rows, &mut held_up).await? {
                (count, None) => published += count,
                (count, Some(error)) => {
                    self.release(&claimed).await?;
                    return Ok(Worked::Stopped(published + count, error));
                }
            }
        }
        Ok(Worked::Published(published))
    }

    async fn release(&self, rows: &[Claimed]) -> Result<()> {
        self.outbox.release(&rows.iter().map(|row| row.seq).collect::<Vec<_>>()).await
    }

    /// Publishes rows and notes what came of it: those whose ordering is `held_up` are let go, and what fails holds its own
    /// up. Returns how many were published and, if nothing can be at the moment, why.
    async fn publish(
        &self,
        messaging: &Messaging,
        claimed: Vec<Claimed>,
        held_up: &mut HashSet<String>,
    ) -> Result<(u64, Option<Error>)> {
        let (mut rows, mut events) = (Vec::new(), Vec::new());
        let (mut published, mut released, mut stopped) = (Vec::new(), Vec::new(), None);
        for row in claimed {
            if held_up.contains(&row.ordering) {
                released.push(row.seq);
                continue;
            }
            match PendingEvent::from_json(&row.event) {
                Ok(event) => {
                    events.push(event.in_order_of(row.ordering.clone()));
                    rows.push(row);
                }
                Err(error) => {
                    self.failed(&row, &chain(&error)).await?;
                    held_up.insert(row.ordering);
                }
            }
        }
        crash::point();
        let outcomes = messaging.publish_pending(events).await;
        crash::point();
        for (row, outcome) in rows.into_iter().zip(outcomes) {
            let Err(error) = outcome else {
                published.push(row.seq);
                continue;
            };
            match error.kind() {
                ErrorKind::Held => released.push(row.seq),
                ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Closed => {
                    released.push(row.seq);
                    stopped.get_or_insert(error);
                }
                _ => {
                    self.failed(&row, &chain(&error)).await?;
                    held_up.insert(row.ordering);
                }
            }
        }
        self.outbox.published(&published, !self.keep.is_zero()).await?;
        self.outbox.release(&released).await?;
        let count = published.len() as u64;
        metrics::counter!("messaging.outbox.published").increment(count);
        self.status().published += count;
        Ok((count, stopped))
    }

    async fn failed(&self, row: &Claimed, error: &str) -> Result<()> {
        let attempts = u32::try_from(row.attempts).unwrap_or(u32::MAX);
        tracing::warn!(
            row = row.seq,
            ordering = row.ordering,
            attempts = attempts + 1,
            error,
            "an event of the outbox cannot be published; trying again"
        );
        metrics::counter!("messaging.outbox.failed").increment(1);
        self.status().failed += 1;
        self.outbox.failed(row.seq, error, self.backoff.delay(attempts)).await
    }

    async fn work(self: Arc<Self>, mut stop: BoxFuture<'static, ()>) {
        let mut failures = 0;
        let mut look_at = Instant::now();
        let mut listen_at = Instant::now();
        let mut news = News::Silent;
        loop {
            if news.is_silent() && Instant::now() >= listen_at {
                news = DB::news(self.outbox.pool()).await;
                listen_at = Instant::now() + LISTEN_AGAIN;
            }
            // No longer than it takes, so that it does not keep everything alive.
            let Ok(messaging) = Messaging::current() else { return };
            let worked = self.once(&messaging).await;
            let reconnect = messaging.config().reconnect;
            drop(messaging);
            if Instant::now() >= look_at {
                self.look().await;
                look_at = Instant::now() + LOOK_EVERY;
            }
            let pause = match worked {
                Ok(Worked::Published(_)) => Duration::ZERO,
                Ok(Worked::Nothing) => self.poll,
                Ok(Worked::Stopped(_, error)) | Err(error) => {
                    let pause = reconnect.delay(failures);
                    if failures == 0 {
                        tracing::warn!(error = %chain(&error), "the outbox is not worked off; trying again");
                    }
                    failures += 1;
                    self.note_trouble(&error);
                    if self.sleep(pause, &mut stop).await {
                        return;
                    }
                    continue;
                }
            };
            failures = 0;
            self.status().is_sound = true;
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
                () = self.outbox.written() => {}
                () = news.next() => {}
            }
        }
    }

    /// `true` if it is to stop.
    async fn sleep(&self, pause: Duration, stop: &mut BoxFuture<'static, ()>) -> bool {
        tokio::select! {
            () = stop => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// Looks at how the outbox is, and removes what is old.
    async fn look(&self) {
        let look = async {
            let stats = self.outbox.stats().await?;
            let stuck = if stats.failing == 0 {
                Vec::new()
            } else {
                self.outbox.failing(self.stuck_after, 1_000).await?
            };
            while self.outbox.clean(self.keep).await? == 1_000 {}
            Ok::<_, Error>((stats, stuck.len() as u64))
        };
        match look.await {
            Ok((stats, stuck)) => {
                metrics::gauge!("messaging.outbox.waiting").set(stats.waiting as f64);
                metrics::gauge!("messaging.outbox.stuck").set(stuck as f64);
                let mut status = self.status();
                status.outbox = stats;
                status.stuck = stuck;
            }
            Err(error) => tracing::debug!(error = %chain(&error), "the outbox cannot be looked at"),
        }
    }

    fn note_trouble(&self, error: &Error) {
        let mut status = self.status();
        status.is_sound = false;
        status.last_error = Some(chain(error));
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a batch.
enum Worked {
    /// There was none.
    Nothing,
    Published(u64),
    /// Nothing can be published at the moment, for this reason; so many were before.
    Stopped(u64, Error),
}

/// How many of these rows are published at once: no more than a lease is good for.
fn together(rows: &[Claimed]) -> usize {
    let mut bytes = 0;
    let fit = rows.iter().take_while(|row| {
        bytes += row.event.len();
        bytes <= BYTES_TOGETHER
    });
    fit.count().max(1)
}

impl<DB: Database> Service for OutboxRelay<DB> {
    fn name(&self) -> &str {
        "outbox relay"
    }

    fn run(self: Arc<Self>, stop: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        Box::pin(self.work(stop))
    }

    fn health(&self) -> ServiceHealth {
        let status = self.status().clone();
        let details = serde_json::to_value(&status).unwrap_or_default();
        let health =
            if status.is_sound { ServiceHealth::sound(details) } else { ServiceHealth::unsound(details) };
        match status.stuck {
            0 => health,
            stuck => health.warning(format!(
                "{stuck} events cannot be published and hold up those that come after them; see Outbox::failing"
            )),
        }
    }
}

impl<DB: Database> fmt::Debug for OutboxRelay<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxRelay").field("id", &self.id).finish_non_exhaustive()
    }
}
