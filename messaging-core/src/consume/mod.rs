//! Reading streams for handlers: finds the streams, keeps what is read ours, writes what has become of it. One
//! [`Consumer`] for each handler whose delivery is not a broadcast. Calls no handler.

mod accept;
mod pace;
mod queue;
mod read;
mod resume;
mod settle;
mod share;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::activity::ActivityGuard;
use crate::backend::StreamWatch;
use crate::backend::streams::Member;
use crate::channel::Wire;
use crate::core::Core;
use crate::dispatch::{Counts, DeliveryMode, Ledger, OrderedBy, RunningHandler};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::meter::{self, Count};
use crate::retry::Backoff;

use accept::Recent;
use pace::Pace;
use table::Table;

/// How often streams that have come up since are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same, while there is none at all.
const LOOK_EAGERLY: Duration = Duration::from_secs(1);
/// How many entries are read or taken at once at most.
const AT_ONCE: usize = 1_000;
/// After a failure other than a lost connection, which the configuration's `reconnect` is for.
const REFUSED_AGAIN: Duration = Duration::from_secs(2);
/// What is left of a stop's deadline for writing what was handled, at least.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What reads streams for one handler.
pub(crate) struct Consumer {
    core: Arc<Core>,
    running: Arc<RunningHandler>,
    member: Member,
    /// The channel that is told of dead letters, as on the wire.
    dead_letter: Option<String>,
    /// What the handler listens to, as on the wire.
    wires: Vec<Wire>,
    table: Table,
    /// Tells of streams that come up, where the backend does.
    watch: Option<StreamWatch>,
    /// There are streams that no reader has begun to read.
    to_read: Mutex<Option<ActivityGuard>>,
    recent: Recent,
    pace: Pace,
    /// How far a resumable handler has read.
    cursors: Mutex<resume::Cursors>,
    status: Mutex<Status>,
    confirmed: watch::Sender<Option<Result<(), Failure>>>,
    /// Ends the reading; what was read is still settled.
    stop_reading: CancellationToken,
    /// Everything is settled: the last thing is to leave the groups, when nothing shows any more that we live.
    finishing: CancellationToken,
    left: CancellationToken,
    /// Ends everything.
    end: CancellationToken,
    /// Wakes who tends, and says when at the latest.
    tend_at: Mutex<Option<Instant>>,
    tend: Notify,
    counts: StreamCounts,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// How reading goes, as health shows it.
#[derive(Clone, Debug, Default)]
struct Status {
    /// Nothing has failed since the last success.
    sound: bool,
    alive: Option<Instant>,
    last_error: Option<String>,
}

/// An error that is told more than once.
#[derive(Clone, Debug)]
struct Failure {
    kind: ErrorKind,
    text: String,
}

/// What happened to the entries of one handler, beside what its workers count.
#[derive(Debug)]
struct StreamCounts {
    dead_lettered: Count,
    taken_over: Count,
    lost: Count,
}

impl Consumer {
    /// Starts to read for a handler, whose workers may start later.
    pub(crate) fn start(
        core: &Arc<Core>,
        running: &Arc<RunningHandler>,
        group: &str,
        dead_letter: Option<&str>,
    ) -> Arc<Self> {
        let prefix = &core.config.channel_prefix;
        let wires = running.patterns.iter().map(|pattern| {
            let wire = pattern.wire();
            Wire { name: format!("{prefix}{}", wire.name), ..wire }
        });
        let consumer = Arc::new(Self {
            member: Member { group: group.to_owned(), consumer: core.next_consumer() },
            dead_letter: dead_letter.map(|channel| format!("{prefix}{channel}")),
            wires: wires.collect(),
            table: Table::default(),
            watch: core.backend.watch_streams(),
            to_read: Mutex::default(),
            recent: Recent::default(),
            pace: Pace::new(&running.options),
            cursors: Mutex::default(),
            status: Mutex::default(),
            confirmed: watch::Sender::new(None),
            stop_reading: core.stop.child_token(),
            finishing: CancellationToken::new(),
            left: CancellationToken::new(),
            end: core.stop.child_token(),
            tend_at: Mutex::default(),
            tend: Notify::new(),
            counts: StreamCounts::of(&running.label),
            task: Mutex::default(),
            core: Arc::clone(core),
            running: Arc::clone(running),
        });
        let task = {
            let consumer = Arc::clone(&consumer);
            core.background.spawn(async move {
                tokio::select! {
                    () = consumer.end.cancelled() => {}
                    () = consumer.run() => {}
                }
                consumer.set_sound(false);
            })
        };
        *lock(&consumer.task) = Some(task);
        consumer
    }

    async fn run(&self) {
        match &self.running.ledger {
            Some(ledger) => self.run_queue(ledger).await,
            None => self.run_resumable().await,
        }
    }

    /// Waits until everything that is there is being read.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] and [`ErrorKind::Registration`], if that is what keeps it from being so; it goes on being
    /// tried.
    pub(crate) async fn confirmed(&self) -> Result<()> {
        let mut confirmed = self.confirmed.subscribe();
        let outcome = tokio::select! {
            outcome = confirmed.wait_for(Option::is_some) => outcome.map(|outcome| outcome.clone()),
            () = self.end.cancelled() => return Err(Error::new(ErrorKind::Closed, "messaging has been shut down")),
        };
        match outcome {
            Ok(Some(Err(failure))) => Err(Error::new(failure.kind, failure.text)),
            _ => Ok(()),
        }
    }

    /// Stops reading, and hands back what no worker has begun.
    pub(crate) fn stop_reading(&self) {
        self.stop_reading.cancel();
        if let Some(ledger) = &self.running.ledger {
            ledger.close();
        }
        self.tend_by(Instant::now());
    }

    /// Writes what has become of the entries, leaves the groups, and ends; for as long as `deadline` allows. Returns how
    /// many entries were not written: they will be delivered again.
    pub(crate) async fn finish(&self, deadline: Instant) -> usize {
        let until = deadline.max(Instant::now() + LAST_WORDS);
        let mut unsettled = 0;
        self.drop_claims();
        if let Some(ledger) = &self.running.ledger {
            if timeout_at(until, ledger.emptied()).await.is_err() {
                unsettled = self.table.all().iter().map(|stream| ledger.held_of(stream.number)).sum();
            }
            // Leaving is a courtesy: it spares the others the wait for our lease to run out.
            self.finishing.cancel();
            let left = async {
                tokio::select! {
                    () = self.left.cancelled() => {}
                    () = self.end.cancelled() => {}
                }
            };
            let _ = timeout_at(until, left).await;
        }
        self.end.cancel();
        let task = lock(&self.task).take();
        if let Some(task) = task {
            let _ = task.await;
        }
        unsettled
    }

    /// Ends at once. What was read is delivered again.
    pub(crate) fn abandon(&self) {
        self.drop_claims();
        self.stop_reading.cancel();
        self.end.cancel();
    }

    pub(crate) fn group(&self) -> Option<&str> {
        self.is_queue().then_some(&self.member.group)
    }

    pub(crate) fn is_queue(&self) -> bool {
        self.running.options.delivery == DeliveryMode::Queue
    }

    pub(crate) fn is_sound(&self) -> bool {
        lock(&self.status).sound
    }

    /// How long ago the backend was known to be alive.
    pub(crate) fn last_alive(&self) -> Option<Duration> {
        lock(&self.status).alive.map(|alive| alive.elapsed())
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        lock(&self.status).last_error.clone()
    }

    /// The streams that are read.
    pub(crate) fn streams(&self) -> Vec<String> {
        self.table.all().iter().map(|stream| stream.name.to_string()).collect()
    }

    pub(crate) fn add_counts(&self, counts: &mut Counts) {
        counts.dead_lettered = self.counts.dead_lettered.read();
        counts.taken_over = self.counts.taken_over.read();
        counts.removed = self.counts.lost.read();
    }

    fn ledger(&self) -> &Ledger {
        self.running.ledger.as_deref().expect("only queues have entries to account for")
    }

    /// Each stream is read by one consumer of the group at a time, in order.
    fn is_exclusive(&self) -> bool {
        self.running.options.ordered_by == Some(OrderedBy::Key)
    }

    fn succeeded(&self) {
        let mut status = lock(&self.status);
        status.alive = Some(Instant::now());
        if self.table.any_refused() {
            return;
        }
        if !std::mem::replace(&mut status.sound, true) && status.last_error.is_some() {
            tracing::info!(handler = %self.running.id, "streams are read again");
        }
    }

    fn set_sound(&self, sound: bool) {
        lock(&self.status).sound = sound;
    }

    /// Notes a failure, and returns how long to wait before the next attempt, of which `failures` have failed.
    fn failed(&self, error: &Error, failures: u32) -> Duration {
        let was_sound = {
            let mut status = lock(&self.status);
            status.last_error = Some(chain(error));
            std::mem::replace(&mut status.sound, false)
        };
        if was_sound || failures == 0 {
            tracing::warn!(handler = %self.running.id, error = %chain(error), "cannot read streams; trying again");
        }
        let hopeless = matches!(error.kind(), ErrorKind::Refused | ErrorKind::Registration);
        if hopeless {
            let failure = Failure { kind: error.kind(), text: error.to_string() };
            self.confirmed.send_if_modified(|confirmed| {
                let news = !matches!(confirmed, Some(Ok(())));
                if news {
                    *confirmed = Some(Err(failure));
                }
                news
            });
        }
        let Backoff { initial, max } = self.core.config.reconnect;
        let backoff = if hopeless {
            Backoff { initial: REFUSED_AGAIN, max: REFUSED_AGAIN }
        } else {
            Backoff { initial, max }
        };
        backoff.delay(failures)
    }

    fn confirm(&self) {
        self.confirmed.send_if_modified(|confirmed| {
            let news = !matches!(confirmed, Some(Ok(())));
            *confirmed = Some(Ok(()));
            news
        });
    }

    /// When to look for streams again.
    fn next_look(&self) -> Duration {
        if self.table.is_empty() { LOOK_EAGERLY } else { LOOK_EVERY }
    }

    /// Wakes who tends at this time at the latest.
    fn tend_by(&self, at: Instant) {
        let mut tend_at = lock(&self.tend_at);
        if tend_at.is_none_or(|earlier| at < earlier) {
            *tend_at = Some(at);
            self.tend.notify_one();
        }
    }
}

impl StreamCounts {
    fn of(handler: &str) -> Self {
        let count = |name| Count::of(name, &[("handler", handler)]);
        Self {
            dead_lettered: count(meter::DEAD_LETTERS),
            taken_over: count(meter::TAKEN_OVER),
            lost: count(meter::REMOVED),
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("member", &self.member).finish_non_exhaustive()
    }
}

/// Waits until there may be other streams, where the backend says so by itself.
async fn news(watch: Option<&StreamWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
