//! The handlers of one process: which of them run, what each needs, and the tasks that run one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, ActivityGuard};
use crate::channel::{Channel, Pattern, glob_matches};
use crate::core::{Core, Current};
use crate::dispatch::{
    Alarm, BoxFuture, Carrier, Context, DeliveryMode, ErrorHandler, Gaps, HandlerOptions, Mailbox, Needs,
    Observer, OrderedBy, Overflow, Queue, Resync, RunningHandler, StartAt, States, Tally, resync,
};
use crate::error::{Error, ErrorKind, Result};
use crate::meter::HandlerMeters;
use crate::registry::{HandlerDescriptor, Location};
use crate::session::Session;
use crate::source::Source;

/// How often a handler that is refused looks whether it is subscribed by now, before its first resync.
const RESYNC_WAITS: Duration = Duration::from_millis(500);

/// Which of the registered handlers are started.
///
/// ```
/// use messaging_core::Handlers;
///
/// Handlers::all();
/// Handlers::none(); // this binary only publishes
/// Handlers::only(["billing::bill", "billing::refund"]);
/// Handlers::matching("billing::*"); // a glob over the ids
/// ```
#[derive(Clone, Debug)]
pub struct Handlers(Choice);

#[derive(Clone, Debug)]
enum Choice {
    All,
    None,
    Only(Vec<String>),
    Matching(String),
}

impl Handlers {
    /// Every handler that is linked into this binary.
    #[must_use]
    pub fn all() -> Self {
        Self(Choice::All)
    }

    /// No handler.
    #[must_use]
    pub fn none() -> Self {
        Self(Choice::None)
    }

    /// The handlers with these ids; one that does not exist is an error at start.
    #[must_use]
    pub fn only<I: IntoIterator<Item: Into<String>>>(ids: I) -> Self {
        Self(Choice::Only(ids.into_iter().map(Into::into).collect()))
    }

    /// The handlers whose id matches a glob; one that matches nothing is an error at start.
    #[must_use]
    pub fn matching(glob: impl Into<String>) -> Self {
        Self(Choice::Matching(glob.into()))
    }

    pub(crate) fn select(&self, all: &[Arc<HandlerSpec>]) -> Result<Vec<Arc<HandlerSpec>>> {
        let known = || all.iter().map(|handler| &*handler.id).collect::<Vec<_>>().join(", ");
        let chosen: Vec<_> = match &self.0 {
            Choice::All => all.to_vec(),
            Choice::None => Vec::new(),
            Choice::Only(ids) => {
                if let Some(unknown) = ids.iter().find(|id| !all.iter().any(|handler| *handler.id == **id)) {
                    let text = format!("there is no handler `{unknown}`; this binary has: {}", known());
                    return Err(Error::new(ErrorKind::Registration, text));
                }
                all.iter().filter(|handler| ids.iter().any(|id| **id == *handler.id)).cloned().collect()
            }
            Choice::Matching(glob) => {
                let matches =
                    |handler: &&Arc<HandlerSpec>| glob_matches(glob.as_bytes(), handler.id.as_bytes());
                let chosen: Vec<_> = all.iter().filter(matches).cloned().collect();
                if chosen.is_empty() {
                    let text = format!("no handler matches `{glob}`; this binary has: {}", known());
                    return Err(Error::new(ErrorKind::Registration, text));
                }
                chosen
            }
        };
        Ok(chosen)
    }
}

impl Default for Handlers {
    fn default() -> Self {
        Self::all()
    }
}

/// A handler that can be started, from an attribute or made at run time.
pub(crate) struct HandlerSpec {
    pub(crate) id: Arc<str>,
    /// What measurements call it: its id, unless that was made up and has a channel in it.
    pub(crate) label: Arc<str>,
    pub(crate) channels: Vec<String>,
    pub(crate) options: HandlerOptions,
    /// The group of a queue; the id without it.
    pub(crate) group: Option<String>,
    /// The channel that is told of a queue's dead letters.
    pub(crate) dead_letter: Option<String>,
    pub(crate) resync: Option<Resync>,
    pub(crate) needs: fn(&mut Needs),
    pub(crate) start: Arc<dyn Fn(Queue) -> BoxFuture<'static, ()> + Send + Sync>,
    pub(crate) location: Location,
}

impl From<&HandlerDescriptor> for HandlerSpec {
    fn from(descriptor: &HandlerDescriptor) -> Self {
        Self {
            id: descriptor.id.into(),
            label: descriptor.id.into(),
            channels: descriptor.channels.iter().map(|channel| (*channel).to_owned()).collect(),
            options: descriptor.options,
            group: descriptor.group.map(str::to_owned),
            dead_letter: descriptor.dead_letter.map(str::to_owned),
            resync: descriptor.resync.map(Resync::from),
            needs: descriptor.needs,
            start: Arc::new(descriptor.start),
            location: descriptor.location,
        }
    }
}

/// What all handlers of one process have in common.
pub(crate) struct Setup {
    pub(crate) core: Arc<Core>,
    pub(crate) current: Current,
    pub(crate) states: States,
    pub(crate) error_handler: Option<ErrorHandler>,
    pub(crate) observer: Option<Observer>,
    /// The connection that handlers share; those that may block it get one of their own.
    pub(crate) session: Session,
}

/// Says of all handlers at once what state they lack.
pub(crate) fn check_needs(handlers: &[Arc<HandlerSpec>], states: &States) -> Result<()> {
    let mut missing = Vec::new();
    for handler in handlers {
        let mut needs = Needs::default();
        (handler.needs)(&mut needs);
        if let (DeliveryMode::Broadcast, Some(argument)) = (handler.options.delivery, needs.needs_stream()) {
            let text = format!(
                "handler `{}` at {} takes `{argument}`, which messages of a broadcast do not have; give it `delivery = \"queue\"` or `\"resumable\"`",
                handler.id, handler.location
            );
            return Err(Error::new(ErrorKind::Registration, text));
        }
        if let Some(resync) = &handler.resync {
            (resync.needs)(&mut needs);
        }
        let mut types = needs.missing_in(states);
        types.sort_unstable();
        types.dedup();
        for name in types {
            missing.push(format!("`{name}` for handler `{}` at {}", handler.id, handler.location));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Registration,
        format!(
            "handlers need state that was not given: {}; give it with builder.state(…), builder.service(…) or messaging.provide(…) before start",
            missing.join("; ")
        ),
    ))
}

/// The tasks of one handler.
pub(crate) struct HandlerTask {
    pub(crate) running: Arc<RunningHandler>,
    pub(crate) source: Source,
    established: AtomicBool,
    /// Drops the calls in progress.
    abort: CancellationToken,
    /// Ends with the whole messaging.
    ended: CancellationToken,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// What a handler left undone when it was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) waiting: usize,
    pub(crate) cut_off: usize,
    pub(crate) unsettled: usize,
}

impl HandlerTask {
    /// Makes a handler ready and subscribes it; its messages are handled from the first one on.
    pub(crate) fn start(descriptor: &Arc<HandlerSpec>, setup: &Setup) -> Result<Arc<Self>> {
        let at = |error: Error| {
            error.context(format_args!("handler `{}` at {}", descriptor.id, descriptor.location))
        };
        let patterns: Arc<[Pattern]> = descriptor
            .channels
            .iter()
            .map(|channel| Pattern::parse(channel))
            .collect::<Result<_>>()
            .map_err(at)?;
        let options = descriptor.options;
        check_order(&patterns, options.ordered_by).map_err(at)?;
        check_delivery(descriptor).map_err(at)?;
        check_carrier(&patterns, options.carrier).map_err(at)?;
        let core = &setup.core;
        let stop = core.stop.child_token();
        let alarm = Arc::new(Alarm::new(core.activity.clone()));
        let gaps = if descriptor.resync.is_some() { Gaps::Signal(Arc::clone(&alarm)) } else { Gaps::Count };
        let activity = core.activity.clone();
        let mailbox =
            Arc::new(Mailbox::for_handler(&descriptor.label, &patterns, &options, activity.clone(), gaps));
        let id = Arc::clone(&descriptor.id);
        let makes_outdated =
            |pattern: &Pattern| core.cache.families.patterns().iter().any(|event| event.may_overlap(pattern));
        let cache = patterns.iter().any(makes_outdated).then(|| Arc::clone(&core.cache));
        let labels = || patterns.iter().map(|pattern| core.labels.of_pattern(pattern));
        let meters = HandlerMeters::new(&descriptor.label, labels());
        let subscribed: Vec<_> = labels().map(|label| core.subscribers.enter(label)).collect();
        let running = Arc::new(RunningHandler {
            cache,
            context: Context::new(Arc::clone(&id), setup.states.clone(), core.draining.clone()),
            id,
            patterns,
            options,
            mailbox,
            error_handler: setup.error_handler.clone(),
            observer: setup.observer.clone(),
            ledger: (options.delivery == DeliveryMode::Queue).then(Arc::default),
            gate: descriptor.resync.is_some().then(Arc::default),
            stop,
            failed: AtomicBool::new(false),
            since: std::time::Instant::now(),
            started: std::time::SystemTime::now(),
            tally: Tally::of(&descriptor.label),
            meters,
            label: Arc::clone(&descriptor.label),
        });
        let group = descriptor.group.as_deref().unwrap_or(&descriptor.id);
        let dead_letter = descriptor.dead_letter.as_deref();
        let source = Source::open(core, &running, &setup.session, group, dead_letter);
        let task = Arc::new(Self {
            running,
            source,
            established: AtomicBool::new(false),
            abort: CancellationToken::new(),
            ended: core.stop.child_token(),
            supervisor: Mutex::new(None),
        });
        // The first resync comes before the first message: its gate is closed before a worker can pass.
        let gate = task.running.gate.as_ref().map(|gate: &Arc<RwLock<()>>| {
            Arc::clone(gate).try_write_owned().expect("nobody else has the gate before the workers start")
        });
        let first_resync = core.activity.guard();
        let supervisor = {
            let (task, descriptor) = (Arc::clone(&task), Arc::clone(descriptor));
            setup.current.clone().scope(async move {
                task.supervise(&descriptor, gate, first_resync, &alarm, activity).await;
                alarm.end();
                drop(subscribed);
            })
        };
        *task.supervisor.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(supervisor));
        Ok(task)
    }

    /// Waits until the handler's subscription is confirmed.
    pub(crate) async fn confirmed(&self) -> Result<()> {
        let confirmed = self.source.confirmed(&self.running).await;
        if confirmed.is_ok() {
            self.established.store(true, Ordering::Relaxed);
        }
        confirmed.map_err(|error| error.context(format_args!("start handler `{}`", self.running.id)))
    }

    /// Runs the workers, and the resync if there is one, until the handler ends.
    async fn supervise(
        &self,
        descriptor: &Arc<HandlerSpec>,
        gate: Option<OwnedRwLockWriteGuard<()>>,
        first_resync: ActivityGuard,
        alarm: &Arc<Alarm>,
        activity: Activity,
    ) {
        let current = Current::get();
        let mut workers = JoinSet::new();
        let mailbox = &self.running.mailbox;
        for number in 0..self.running.options.workers.get() {
            let queue = Queue::new(Arc::clone(&self.running), number % mailbox.lanes());
            let worker = (descriptor.start)(queue);
            match current.clone() {
                Some(current) => workers.spawn(current.scope(worker)),
                None => workers.spawn(worker),
            };
        }
        let resync = async {
            match (descriptor.resync.clone(), gate) {
                (Some(resync), Some(gate)) => {
                    // Nothing can be missed between the resync and the first message only if the subscription comes first.
                    while let Err(error) = self.source.confirmed(&self.running).await {
                        if error.kind() == ErrorKind::Closed {
                            return;
                        }
                        tokio::time::sleep(RESYNC_WAITS).await;
                    }
                    let running = Arc::clone(&self.running);
                    resync::run(running, resync, Arc::clone(alarm), gate, first_resync, activity).await;
                }
                _ => drop(first_resync),
            }
            std::future::pending::<()>().await;
        };
        let all_workers = async {
            while let Some(ended) = workers.join_next().await {
                if ended.is_err_and(|error| error.is_panic()) {
                    // Nothing of the user's can cause it; whatever did must not go unseen.
                    tracing::error!(handler = %self.running.id, "a worker panicked; the handler is stopped");
                    self.running.failed.store(true, Ordering::Relaxed);
                    return;
                }
            }
        };
        tokio::select! {
            () = all_workers => {}
            () = resync => {}
            () = self.abort.cancelled() => {}
            // The whole messaging has ended, or was dropped.
            () = self.ended.cancelled() => {}
        }
        drop(workers);
        self.source.leave(&self.running);
        if self.running.failed.load(Ordering::Relaxed) {
            // Nobody will take what still waits for a handler that an error has stopped.
            mailbox.clear();
            // Others may go on with its messages.
            self.source.finish(Instant::now()).await;
        }
    }

    /// Ends the handler: no new messages, then whatever waits is handled until the deadline, then the calls in progress
    /// are dropped.
    pub(crate) async fn stop(&self, deadline: Instant) -> Left {
        let running = &self.running;
        self.source.close(running, deadline).await;
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut left = Left::default();
        if let Some(mut supervisor) = supervisor
            && tokio::time::timeout_at(deadline, &mut supervisor).await.is_err()
        {
            left.cut_off = running.in_flight();
            left.waiting = running.mailbox.clear();
            self.abort.cancel();
            let _ = supervisor.await;
        }
        let waiting = running.mailbox.clear();
        // A queue's are handed back.
        if running.ledger.is_none() {
            left.waiting += waiting;
        }
        left.unsettled = self.source.finish(deadline).await;
        running.stop.cancel();
        left
    }

    /// Ends the handler at once.
    pub(crate) fn abandon(&self) {
        self.source.abandon(&self.running);
        self.running.mailbox.clear();
        self.abort.cancel();
        self.running.stop.cancel();
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.running.failed.load(Ordering::Relaxed) || self.running.stop.is_cancelled()
    }
}

impl fmt::Debug for HandlerTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerTask").field("running", &self.running).finish_non_exhaustive()
    }
}

/// What does not go together. The attribute checks it too; run-time handlers have only this.
fn check_delivery(handler: &HandlerSpec) -> Result<()> {
    let HandlerOptions { delivery, overflow, ordered_by, start, dedupe, carrier, .. } = handler.options;
    let refuse = |reason: &str| Err(Error::new(ErrorKind::Registration, reason.to_owned()));
    let is_queue = delivery == DeliveryMode::Queue;
    if !is_queue && (handler.group.is_some() || handler.dead_letter.is_some()) {
        return refuse(
            "has a group or a dead-letter channel, which only a queue has; give it `delivery = \"queue\"`",
        );
    }
    if is_queue && handler.resync.is_some() {
        return refuse("has a `resync`, but a queue has no gaps");
    }
    if delivery == DeliveryMode::Broadcast {
        if start != StartAt::New || dedupe.is_some() || ordered_by == Some(OrderedBy::Key) {
            return refuse(
                "has `start`, `dedupe` or an order by key, which a broadcast cannot have; give it `delivery = \"queue\"` or `\"resumable\"`",
            );
        }
    } else if overflow != Overflow::Wait {
        return refuse(
            "has an `overflow`, but whoever reads a stream asks for room first: nothing overflows",
        );
    }
    if delivery != DeliveryMode::Broadcast && carrier == Carrier::Sharded {
        return refuse("is sharded, but streams are read in one way; remove that");
    }
    if dedupe.is_some_and(|window| window.is_zero()) {
        return refuse("has a `dedupe` of nothing; give it a time");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if let Some(group) = &handler.group
        && (group.is_empty() || !group.chars().all(plain))
    {
        return refuse(&format!("has the group {group:?}; a group's name has letters, digits and `-_.:`"));
    }
    if let Some(channel) = &handler.dead_letter {
        Channel::new(channel).map_err(|error| error.context("the dead-letter channel"))?;
    }
    Ok(())
}

/// Redis has no patterns of sharded channels.
fn check_carrier(patterns: &[Pattern], carrier: Carrier) -> Result<()> {
    let unfit = |pattern: &&Pattern| carrier == Carrier::Sharded && !matches!(pattern, Pattern::Exact(_));
    match patterns.iter().find(unfit) {
        None => Ok(()),
        Some(pattern) => Err(Error::new(
            ErrorKind::Registration,
            format!(
                "is sharded, and {:?} is not one channel: sharded channels have no patterns",
                pattern.as_str()
            ),
        )),
    }
}

/// A placeholder to order by has to be in every pattern. The attribute checks it too; run-time handlers have only this.
fn check_order(patterns: &[Pattern], ordered_by: Option<OrderedBy>) -> Result<()> {
    let Some(OrderedBy::Placeholder(name)) = ordered_by else { return Ok(()) };
    match patterns.iter().find(|pattern| !pattern.names().any(|placeholder| placeholder == name)) {
        None => Ok(()),
        Some(pattern) => Err(Error::new(
            ErrorKind::Registration,
            format!("is ordered by {{{name}}}, which {:?} does not have", pattern.as_str()),
        )),
    }
}
