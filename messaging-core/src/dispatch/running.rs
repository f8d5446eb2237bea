//! One handler that runs in this process: its settings, its counts, and the judgement over each call.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::begun::{Begun, NotBegun};
use super::delivery::{Context, Delivery};
use super::extract::{Rejection, RejectionKind};
use super::ledger::Ledger;
use super::mailbox::Mailbox;
use super::options::{HandlerOptions, OrderedBy};
use super::outcome::{ErrorContext, ErrorHandler, Failure, FailureCause, Verdict, decide};
use crate::burst::Burst;
use crate::cache::Cache;
use crate::channel::{Channel, Pattern};
use crate::error::{HandlerError, chain};
use crate::json;
use crate::message::Received;
use crate::meter::{self, Count, HandlerMeters};
use crate::retry::deadline_from;

/// What the handler's future came to: a result, a panic, or nothing in time.
pub(super) enum Called {
    Returned(Result<(), Rejection>),
    Panicked(Box<dyn Any + Send>),
    TimedOut,
}

/// What a call comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing more is to be done.
    Done,
    /// It is to be called again after this delay.
    Again(Duration),
    /// It failed for good, for this reason.
    Dead(String),
    /// The handler is stopped; somebody else may handle the message.
    Stopped,
}

/// Is told of every call, with the handler's id.
pub(crate) type Observer = Arc<dyn Fn(&str, Seen) + Send + Sync>;

/// One call of a handler, as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// The message's channel.
    pub channel: Channel,
    /// The message's payload.
    pub payload: Bytes,
    /// Which attempt it was, counted from 1.
    pub attempt: u32,
    /// What it came to: nothing, or the error's text.
    pub error: Option<String>,
}

pub(crate) struct RunningHandler {
    pub(crate) id: Arc<str>,
    pub(crate) patterns: Arc<[Pattern]>,
    pub(crate) options: HandlerOptions,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) context: Context,
    pub(crate) error_handler: Option<ErrorHandler>,
    pub(crate) observer: Option<Observer>,
    /// What is held of a queue, if it is one.
    pub(crate) ledger: Option<Arc<Ledger>>,
    /// Where some of its events make cached values out of date.
    pub(crate) cache: Option<Arc<Cache>>,
    /// Closed while a resync runs; handlers without one have no gate to pass.
    pub(crate) gate: Option<Arc<RwLock<()>>>,
    /// Ends the handler's tasks.
    pub(crate) stop: CancellationToken,
    /// The handler was stopped by an [`ErrorAction::Stop`](crate::ErrorAction::Stop).
    pub(crate) failed: AtomicBool,
    /// When it was started, by both clocks.
    pub(crate) since: Instant,
    pub(crate) started: SystemTime,
    pub(crate) tally: Tally,
    pub(crate) meters: HandlerMeters,
    /// What measurements call it.
    pub(crate) label: Arc<str>,
}

#[derive(Default)]
pub(crate) struct Tally {
    handled: Count,
    failed: Count,
    retried: Count,
    panicked: Count,
    timed_out: Count,
    undecodable: Count,
    mismatched: Count,
    pub(crate) duplicates: Count,
    pub(super) resyncs: Count,
    pub(super) resync_failures: Count,
    in_flight: AtomicUsize,
    /// In microseconds after the handler's `since`; 0 before the first.
    last_message: AtomicU64,
    /// In microseconds.
    lag: AtomicU64,
    logged: Mutex<Burst>,
}

impl Tally {
    /// Of a handler that measurements call `handler`.
    pub(crate) fn of(handler: &str) -> Self {
        let count = |name| Count::of(name, &[("handler", handler)]);
        let outcome = |outcome| Count::of(meter::OUTCOMES, &[("handler", handler), ("outcome", outcome)]);
        let resync = |outcome| Count::of(meter::RESYNCS, &[("handler", handler), ("outcome", outcome)]);
        Self {
            handled: outcome("handled"),
            failed: outcome("failed"),
            undecodable: outcome("undecodable"),
            mismatched: outcome("mismatched"),
            duplicates: outcome("duplicate"),
            retried: count(meter::RETRIES),
            panicked: count(meter::PANICS),
            timed_out: count(meter::TIMEOUTS),
            resyncs: resync("done"),
            resync_failures: resync("failed"),
            ..Self::default()
        }
    }
}

/// How often what happened, since the handler started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Messages that the handler succeeded with.
    pub handled: u64,
    /// Messages that were given up after an error, a panic or a timeout.
    pub failed: u64,
    /// Further attempts at messages.
    pub retried: u64,
    /// Calls that panicked.
    pub panicked: u64,
    /// Calls that took longer than the handler's `timeout`.
    pub timed_out: u64,
    /// Messages whose payload could not be decoded.
    pub undecodable: u64,
    /// Messages whose channel matched the Redis pattern but not the template, its types, or the handler's extractors.
    pub mismatched: u64,
    /// Messages that were dropped because the buffer was full.
    pub dropped: u64,
    /// Gaps that were announced to the handler.
    pub gaps: u64,
    /// Successful runs of the `resync` function.
    pub resyncs: u64,
    /// Failed runs of the `resync` function.
    pub resync_failures: u64,
    /// Messages of a queue that went to its dead letters.
    pub dead_lettered: u64,
    /// Messages of a queue that were taken over from processes that were gone.
    pub taken_over: u64,
    /// Messages of a stream that the channel's retention removed before they were handled.
    pub removed: u64,
    /// Messages of a stream that were passed over because their event had been handled (`dedupe`).
    pub duplicates: u64,
}

impl RunningHandler {
    pub(crate) fn counts(&self) -> Counts {
        let tally = &self.tally;
        let (_, dropped, gaps) = self.mailbox.counts();
        Counts {
            handled: tally.handled.read(),
            failed: tally.failed.read(),
            retried: tally.retried.read(),
            panicked: tally.panicked.read(),
            timed_out: tally.timed_out.read(),
            undecodable: tally.undecodable.read(),
            mismatched: tally.mismatched.read(),
            dropped,
            gaps,
            resyncs: tally.resyncs.read(),
            resync_failures: tally.resync_failures.read(),
            duplicates: tally.duplicates.read(),
            ..Counts::default()
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.tally.in_flight.load(Ordering::Relaxed)
    }

    /// When the last message was taken up.
    pub(crate) fn last_message(&self) -> Option<SystemTime> {
        let micros = self.tally.last_message.load(Ordering::Relaxed);
        if micros == 0 { None } else { self.started.checked_add(Duration::from_micros(micros)) }
    }

    /// How long the last message waited between its arrival in this process and its call.
    pub(crate) fn lag(&self) -> Duration {
        Duration::from_micros(self.tally.lag.load(Ordering::Relaxed))
    }

    /// Notes that a message is taken up now.
    pub(super) fn took_up(&self, message: &Received, now: Instant) {
        self.meters.took_up(message, now);
        let arrived = message.at;
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.tally.lag.store(micros(now.saturating_duration_since(arrived)), Ordering::Relaxed);
        let since = now.saturating_duration_since(self.since);
        self.tally.last_message.store(micros(since).max(1), Ordering::Relaxed);
    }

    /// How many of the workers have a message in their hands.
    pub(super) fn busy_workers(&self) -> &AtomicUsize {
        &self.tally.in_flight
    }

    /// Begins a queue's entry; others need no leave. An entry that was given a delay waits for it here.
    pub(super) async fn begin<'l>(
        &self,
        ledger: &'l Ledger,
        delivery: &Delivery,
    ) -> Result<Option<Begun<'l>>, NotBegun> {
        let Some(entry) = delivery.entry() else { return Ok(None) };
        let waits_until = deadline_from(delivery.received.at.into(), entry.wait);
        let begun = Begun::begin(ledger, entry, waits_until, self.options.dedupe).await;
        if begun.as_ref().is_err_and(|not| *not == NotBegun::Duplicate) {
            self.tally.duplicates.up();
        }
        begun.map(Some)
    }

    /// Whether a failed message keeps its worker until it is called again.
    pub(super) fn retries_in_place(&self) -> bool {
        self.ledger.is_none() || self.options.ordered_by == Some(OrderedBy::Key)
    }

    pub(super) fn mismatched(&self) {
        self.tally.mismatched.up();
    }

    /// A call has succeeded.
    pub(super) fn handled(&self, delivery: &Delivery) {
        self.tally.handled.up();
        self.observe(delivery, None);
    }

    /// Judges a call.
    pub(super) fn settle(&self, delivery: &Delivery, called: Called) -> Settled {
        let failure = match called {
            Called::Returned(Ok(())) => {
                self.handled(delivery);
                return Settled::Done;
            }
            Called::Returned(Err(Rejection(RejectionKind::Mismatch))) => {
                self.mismatched();
                return Settled::Done;
            }
            Called::Returned(Err(Rejection(RejectionKind::Decode(error)))) => {
                self.tally.undecodable.up();
                Failure { cause: FailureCause::Decode, error: HandlerError::from(error) }
            }
            Called::Returned(Err(Rejection(RejectionKind::Failed(error)))) => {
                Failure { cause: FailureCause::Error, error }
            }
            Called::Panicked(panic) => {
                self.tally.panicked.up();
                let text = format!("the handler panicked: {}", panic_text(&*panic));
                Failure { cause: FailureCause::Panic, error: HandlerError::from(text) }
            }
            Called::TimedOut => {
                self.tally.timed_out.up();
                let text =
                    format!("the handler did not finish within its timeout of {:?}", self.options.timeout);
                Failure { cause: FailureCause::Timeout, error: HandlerError::from(text) }
            }
        };
        self.observe(delivery, Some(&failure));
        self.judge(delivery, &failure)
    }

    /// The error handler, or an error's own text, panicked: the message is given up.
    pub(super) fn settling_panicked(&self, panic: &(dyn Any + Send)) -> Settled {
        self.tally.panicked.up();
        self.tally.failed.up();
        let panic = panic_text(panic);
        tracing::error!(handler = %self.id, panic, "deciding over a failure panicked; the message is given up");
        Settled::Dead(format!("deciding over a failure panicked: {panic}"))
    }

    fn observe(&self, delivery: &Delivery, failure: Option<&Failure>) {
        if let Some(observe) = &self.observer {
            let (channel, payload) = (delivery.channel().clone(), delivery.payload().clone());
            let error = failure.map(ToString::to_string);
            observe(&self.id, Seen { channel, payload, attempt: delivery.attempt(), error });
        }
    }

    fn judge(&self, delivery: &Delivery, failure: &Failure) -> Settled {
        let context = ErrorContext {
            handler: Arc::clone(&self.id),
            channel: delivery.channel().clone(),
            attempt: delivery.attempt(),
            attempts: self.options.retry.attempts.get(),
            cause: failure.cause,
        };
        let verdict = decide(failure, &context, &self.options.retry, self.error_handler.as_ref());
        match verdict {
            Verdict::RetryAfter(delay) => {
                self.tally.retried.up();
                tracing::debug!(
                    handler = %self.id, channel = %delivery.channel(), attempt = delivery.attempt(), ?delay,
                    error = %failure, "handler failed; trying again"
                );
                return Settled::Again(delay);
            }
            Verdict::GiveUp | Verdict::DeadLetter => {}
            Verdict::Stop => {
                self.failed.store(true, Ordering::Relaxed);
                self.mailbox.close();
                // Others may go on with what waits.
                if let Some(ledger) = &self.ledger {
                    ledger.close();
                }
                self.stop.cancel();
            }
        }
        if failure.cause != FailureCause::Decode {
            self.tally.failed.up();
        }
        self.log_given_up(delivery, failure, verdict);
        match verdict {
            Verdict::DeadLetter => Settled::Dead(failure.to_string()),
            Verdict::Stop => Settled::Stopped,
            Verdict::GiveUp | Verdict::RetryAfter(_) => Settled::Done,
        }
    }

    /// One line for a burst of failures, with how many the last burst had.
    fn log_given_up(&self, delivery: &Delivery, failure: &Failure, verdict: Verdict) {
        let logged = self.tally.logged.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now());
        let Some(suppressed) = logged else { return };
        let consequence = match verdict {
            Verdict::Stop => "the handler is stopped",
            Verdict::DeadLetter if self.ledger.is_some() => "the message goes to the dead letters",
            Verdict::GiveUp | Verdict::DeadLetter | Verdict::RetryAfter(_) => "the message is skipped",
        };
        let what = match failure.cause {
            FailureCause::Decode => "cannot decode a message",
            FailureCause::Error | FailureCause::Panic | FailureCause::Timeout => "handler failed",
        };
        tracing::error!(
            handler = %self.id, channel = %delivery.channel(), attempt = delivery.attempt(),
            payload = %json::excerpt(delivery.payload()), error = %failure, suppressed,
            "{what}; {consequence}"
        );
    }

    pub(super) fn log_resync_failure(&self, error: &HandlerError) {
        tracing::error!(handler = %self.id, error = %chain(&*error.error), "resync failed; it will be tried again");
    }
}

impl std::fmt::Debug for RunningHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningHandler").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
