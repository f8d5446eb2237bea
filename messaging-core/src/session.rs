//! The supervised subscription: knows what is wanted, keeps it equal to what the backend has confirmed, reconnects for
//! ever, announces gaps, and hands messages over to mailboxes in batches. Knows nothing of handlers.

mod routes;

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::presence::Places;
use crate::backend::{Backend, Chunk, Connection, Names, Place, Push, Reply, Request};
use crate::burst::Burst;
use crate::channel::{Kind, Pattern, Wire};
use crate::config::Config;
use crate::dispatch::{Carrier, Mailbox};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::meter;

use routes::{Book, RouteState, Routes};

/// How long after a refusal (by an ACL) a subscription is asked for again.
const REFUSED_AGAIN: Duration = Duration::from_secs(2);
/// A handler that holds the reader up for so long at a time is slow.
const SLOW: Duration = Duration::from_millis(100);
/// For how long after a wait for a slow handler a lost connection is put down to that: what had been sent before Redis
/// cut us off is still read.
const SLOW_UNTIL: Duration = Duration::from_secs(1);
/// What is read at once and is smaller than a quarter of a read chunk (64 KiB) is copied out of it.
const WORTH_KEEPING: usize = 16 << 10;

/// A handle on a supervised subscription. The session ends when its token is cancelled or all handles are gone.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    control: mpsc::UnboundedSender<Control>,
    status: Arc<Mutex<Status>>,
    book: Arc<Mutex<Book>>,
    generation: Arc<AtomicU64>,
    skipped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Control {
    Add { mailbox: Arc<Mailbox>, wires: Vec<Wire> },
    Confirm { mailbox: Arc<Mailbox>, confirmed: oneshot::Sender<Result<()>> },
    Remove { mailbox: Arc<Mailbox>, done: oneshot::Sender<()> },
}

/// What [`Health`](crate::Health) tells of a session.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SessionHealth {
    /// What it is for.
    pub name: String,
    /// Whether anything is subscribed through it.
    pub in_use: bool,
    /// Whether its connection is up.
    pub connected: bool,
    /// How often it has reconnected, each time with a gap.
    pub reconnects: u64,
    /// How often the connection was closed while a slow handler held the reader up. Redis does that when what waits for
    /// us is more than its `client-output-buffer-limit pubsub`.
    pub cut_off: u64,
    /// How long ago, in milliseconds, the last byte arrived, which proves that the connection was alive.
    pub last_alive_ms: Option<u64>,
    /// Channels and patterns that Redis has confirmed.
    pub confirmed: usize,
    /// Channels and patterns that are wanted and not confirmed, with the reason if there is one.
    pub unconfirmed: Vec<Unconfirmed>,
    /// Messages that were skipped because their payload was over the limit.
    pub oversized: u64,
    /// Messages that were skipped because their channel is not UTF-8 text.
    pub unreadable: u64,
    /// Why the connection was lost, or could not be made, the last time.
    pub last_error: Option<String>,
}

/// A channel or pattern that is not subscribed, though it should be.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Unconfirmed {
    /// The channel or pattern, as it is on the wire.
    pub channel: String,
    /// What Redis said; nothing while it has not answered.
    pub reason: Option<String>,
}

#[derive(Debug, Default)]
struct Status {
    health: SessionHealth,
    alive: Option<Instant>,
}

impl Session {
    /// Starts the session's task, which measurements call `label`. It connects when something is wanted.
    pub(crate) fn start(
        name: &str,
        label: &str,
        backend: Arc<Backend>,
        config: &Config,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        for name in [meter::RECONNECTS, meter::CUT_OFF, meter::SKIPPED] {
            meter::count(name, &[("session", label)], 0);
        }
        let (control, inbox) = mpsc::unbounded_channel();
        let status = Arc::new(Mutex::new(Status {
            health: SessionHealth { name: name.to_owned(), ..SessionHealth::default() },
            alive: None,
        }));
        let book = Arc::<Mutex<Book>>::default();
        let (generation, skipped) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let supervisor = Supervisor {
            label: label.to_owned(),
            backend,
            config: config.clone(),
            inbox,
            stop,
            routes: Routes::new(Arc::clone(&book)),
            asked: VecDeque::new(),
            requests: 0,
            status: Arc::clone(&status),
            serving: false,
            generation: Arc::clone(&generation),
            skipped: Arc::clone(&skipped),
            oversized: Burst::default(),
            internal: [
                Names::new(&config.namespace, &config.channel_prefix).channels,
                Places::new(&config.namespace, &config.channel_prefix).internal_on_the_wire(),
            ],
        };
        tasks.spawn(supervisor.run());
        Self { control, status, book, generation, skipped }
    }

    /// Delivers to `mailbox` what arrives for the patterns, from when the backend confirms them.
    /// Of a sharded channel the pattern is exact.
    pub(crate) fn want(&self, mailbox: &Arc<Mailbox>, patterns: &[Pattern], carrier: Carrier, prefix: &str) {
        let wires = patterns.iter().map(|pattern| prefixed(pattern.wire(), carrier, prefix)).collect();
        // A session that has ended tells those who ask for the confirmation.
        let _ = self.control.send(Control::Add { mailbox: Arc::clone(mailbox), wires });
    }

    /// Waits until everything that `mailbox` wants is confirmed.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if something is refused (by an ACL); it goes on being asked for.
    ///
    /// Cancellation: it stays wanted.
    pub(crate) async fn confirmed(&self, mailbox: &Arc<Mailbox>) -> Result<()> {
        let (confirmed, answer) = oneshot::channel();
        self.control
            .send(Control::Confirm { mailbox: Arc::clone(mailbox), confirmed })
            .map_err(|_| shut_down())?;
        answer.await.unwrap_or_else(|_| Err(shut_down()))
    }

    /// Delivers nothing more to `mailbox`; returns when that is so and the backend has confirmed it.
    pub(crate) async fn remove(&self, mailbox: &Arc<Mailbox>) {
        let (done, answer) = oneshot::channel();
        if self.control.send(Control::Remove { mailbox: Arc::clone(mailbox), done }).is_ok() {
            let _ = answer.await;
        }
    }

    /// As [`remove`](Self::remove), without waiting.
    pub(crate) fn remove_later(&self, mailbox: &Arc<Mailbox>) {
        let (done, _) = oneshot::channel();
        let _ = self.control.send(Control::Remove { mailbox: Arc::clone(mailbox), done });
    }

    /// How often something of what was subscribed has been lost: it goes up when that is noticed, before anything is
    /// subscribed again.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// How many messages were skipped because they were too large.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::SeqCst)
    }

    pub(crate) fn health(&self) -> SessionHealth {
        let status = lock(&self.status);
        let mut health = status.health.clone();
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        health.confirmed = book.confirmed;
        let unconfirmed = book.unconfirmed.iter();
        health.unconfirmed = unconfirmed
            .map(|(wire, reason)| Unconfirmed { channel: wire.name.clone(), reason: reason.clone() })
            .collect();
        health.in_use = health.confirmed + health.unconfirmed.len() > 0;
        health.last_alive_ms =
            status.alive.map(|alive| u64::try_from(alive.elapsed().as_millis()).unwrap_or(u64::MAX));
        health
    }
}

fn prefixed(Wire { kind, name }: Wire, carrier: Carrier, prefix: &str) -> Wire {
    let kind = match carrier {
        Carrier::Broadcast => kind,
        Carrier::Sharded => Kind::Sharded,
    };
    Wire { kind, name: format!("{prefix}{name}") }
}

/// A part of what was read: a copy, if there is so little that it must not keep the whole chunk alive.
fn kept(few: bool, chunk: &Bytes, place: Range<usize>) -> Bytes {
    if few { Bytes::copy_from_slice(&chunk[place]) } else { chunk.slice(place) }
}

fn shut_down() -> Error {
    Error::new(ErrorKind::Closed, "messaging has been shut down")
}

/// A request without an answer yet.
struct Asked {
    /// Counted from 0 on each connection.
    number: u64,
    request: Request,
    at: Instant,
    /// The identity of the route that it was for.
    id: u64,
    /// Who waits for the answer.
    done: Option<oneshot::Sender<()>>,
}

/// What a control message makes us ask, and who waits until the last of it is answered.
type Asking = (Vec<Request>, Option<oneshot::Sender<()>>);

struct Supervisor {
    /// What measurements call it.
    label: String,
    backend: Arc<Backend>,
    config: Config,
    inbox: mpsc::UnboundedReceiver<Control>,
    stop: CancellationToken,
    routes: Routes,
    /// What was asked on the connection and has no answer yet.
    asked: VecDeque<Asked>,
    /// How many requests there have been on the connection.
    requests: u64,
    status: Arc<Mutex<Status>>,
    /// There is a connection on which everything was asked for: losing it is a gap.
    serving: bool,
    /// How often something of what was subscribed has been lost.
    generation: Arc<AtomicU64>,
    /// How many messages were skipped because they were too large.
    skipped: Arc<AtomicU64>,
    oversized: Burst,
    /// What the names of our own channels begin with.
    internal: [String; 2],
}

/// What a session waits for while it has a connection.
enum Event {
    Received(Result<()>),
    Control(Option<Control>),
    Rang,
}

/// Why a connection is left.
enum Ended {
    Lost(Error),
    Unused,
    Stopped,
}

impl Supervisor {
    async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.supervise() => {}
        }
        lock(&self.status).health.connected = false;
    }

    async fn supervise(&mut self) {
        let mut failures = 0;
        loop {
            while self.routes.is_empty() {
                let Some(control) = self.inbox.recv().await else { return };
                self.apply(control);
            }
            let ended = match self.connect().await {
                Ok(mut connection) => self.serve(&mut connection, &mut failures).await,
                Err(error) => Ended::Lost(error),
            };
            match ended {
                Ended::Stopped => return,
                Ended::Unused => {
                    self.serving = false;
                    self.set_connected(false);
                    failures = 0;
                }
                Ended::Lost(error) => {
                    self.lost(&error, failures);
                    let again = Instant::now() + self.config.reconnect.delay(failures);
                    failures = failures.saturating_add(1);
                    if !self.pause_until(again).await {
                        return;
                    }
                }
            }
        }
    }

    /// Connects, taking up what is wanted meanwhile.
    async fn connect(&mut self) -> Result<Connection> {
        let backend = Arc::clone(&self.backend);
        let connecting = backend.connect();
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                connected = &mut connecting => return connected,
                control = self.inbox.recv() => match control {
                    Some(control) => _ = self.apply(control),
                    None => return Err(shut_down()),
                },
            }
        }
    }

    /// Waits, taking up what is wanted meanwhile. `false` if nobody can want anything any more.
    async fn pause_until(&mut self, until: Instant) -> bool {
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                control = self.inbox.recv() => match control {
                    Some(control) => _ = self.apply(control),
                    None => return false,
                },
            }
        }
    }

    fn apply(&mut self, control: Control) -> Asking {
        match control {
            Control::Add { mailbox, wires } => (self.routes.add(mailbox, wires), None),
            Control::Confirm { mailbox, confirmed } => {
                self.routes.confirm(&mailbox, confirmed);
                (Vec::new(), None)
            }
            // Where nothing has to be asked, or there is no connection to ask on, dropping `done` says that it is done.
            Control::Remove { mailbox, done } => (self.routes.remove(&mailbox), Some(done)),
        }
    }

    /// Serves one connection until it is lost or nothing is wanted any more.
    async fn serve(&mut self, connection: &mut Connection, failures: &mut u32) -> Ended {
        let mut pushes = Vec::new();
        let mut clock = Clock::new(self.config.ping_after, self.config.ping_timeout);
        self.asked.clear();
        self.requests = 0;
        let all = self.routes.all();
        if let Err(error) = self.ask(connection, (all, None)).await {
            return Ended::Lost(error);
        }
        self.set_connected(true);
        self.serving = true;
        loop {
            // In no order: under a flood there is always something to receive.
            let event = tokio::select! {
                received = connection.receive(&mut pushes) => Event::Received(received),
                control = self.inbox.recv() => Event::Control(control),
                () = sleep_until(clock.next()) => Event::Rang,
            };
            let asking = match event {
                Event::Control(Some(control)) => self.apply(control),
                Event::Control(None) => return Ended::Stopped,
                Event::Received(received) => {
                    match self.received(received, connection, &mut pushes, &mut clock, failures).await {
                        Ok(again) => (again, None),
                        Err(error) => return Ended::Lost(self.cut_off_by(error, clock.held_up)),
                    }
                }
                Event::Rang => match clock.rang() {
                    Ring::Ping => (vec![Request::Ping], None),
                    Ring::AskAgain => (self.routes.refused(), None),
                    Ring::Dead => {
                        // After this process has stood still, what arrived meanwhile still shows life.
                        let Some(received) = connection.receive(&mut pushes).now_or_never() else {
                            return Ended::Lost(self.silent());
                        };
                        match self.received(received, connection, &mut pushes, &mut clock, failures).await {
                            Ok(again) => (again, None),
                            Err(error) => return Ended::Lost(self.cut_off_by(error, clock.held_up)),
                        }
                    }
                },
            };
            if let Err(error) = self.ask(connection, asking).await {
                return Ended::Lost(self.cut_off_by(error, clock.held_up));
            }
            if self.routes.is_empty() && self.asked.is_empty() {
                return Ended::Unused;
            }
        }
    }

    /// Returns what has to be asked for again.
    async fn received(
        &mut self,
        received: Result<()>,
        connection: &mut Connection,
        pushes: &mut Vec<Push>,
        clock: &mut Clock,
        failures: &mut u32,
    ) -> Result<Vec<Request>> {
        received?;
        clock.alive();
        *failures = 0;
        lock(&self.status).alive = Some(clock.last);
        let mut again = Vec::new();
        clock.was_held_up(self.take(connection, pushes, &mut again).await?);
        clock.retry_refused(self.routes.has_refused());
        Ok(again)
    }

    fn silent(&self) -> Error {
        let silence = self.config.ping_after + self.config.ping_timeout;
        let text = format!("the subscription connection did not answer a ping; silent for {silence:?}");
        Error::new(ErrorKind::Connection, text)
    }

    /// Names the probable cause of a lost connection, if we were slow.
    fn cut_off_by(&self, error: Error, held_up: Option<Instant>) -> Error {
        if held_up.is_none_or(|held_up| held_up.elapsed() > SLOW_UNTIL) {
            return error;
        }
        lock(&self.status).health.cut_off += 1;
        meter::count(meter::CUT_OFF, &[("session", &self.label)], 1);
        error.context(
            "a slow handler held the reader up, and redis may have cut it off (client-output-buffer-limit pubsub)",
        )
    }

    async fn ask(&mut self, connection: &mut Connection, (requests, mut done): Asking) -> Result<()> {
        if requests.is_empty() {
            return Ok(());
        }
        connection.send(&requests).await?;
        let (last, at) = (requests.len() - 1, Instant::now());
        for (number, request) in requests.into_iter().enumerate() {
            let id = match &request {
                Request::Subscribe(wire) | Request::Unsubscribe(wire) => self.routes.id(wire),
                Request::Ping => 0,
            };
            let done = if number == last { done.take() } else { None };
            self.asked.push_back(Asked { number: self.requests, request, at, id, done });
            self.requests += 1;
        }
        Ok(())
    }

    /// Takes what was received apart; `again` gets what has to be asked for again. Returns for how long it had to wait for
    /// room.
    async fn take(
        &mut self,
        connection: &mut Connection,
        pushes: &mut Vec<Push>,
        again: &mut Vec<Request>,
    ) -> Result<Duration> {
        let at = std::time::Instant::now();
        let (mut messages, mut oversized, mut unreadable) = (0, 0, 0);
        // A few small messages must not keep the whole chunk alive that they were read into, for as long as they wait.
        let few = pushes.iter().map(Push::size).sum::<usize>() < WORTH_KEEPING;
        for push in pushes.drain(..) {
            match push {
                Push::Messages(Chunk { bytes, places }) => {
                    messages += places.len();
                    for Place { kind, pattern, channel, payload } in places {
                        let name = if kind == Kind::Glob { pattern } else { channel.clone() };
                        let payload = kept(few, &bytes, payload);
                        let channel = || kept(few, &bytes, channel);
                        unreadable += u64::from(!self.distribute((kind, &bytes[name]), channel, payload, at));
                    }
                }
                Push::Message { kind, name, channel, payload } => {
                    messages += 1;
                    unreadable += u64::from(!self.distribute((kind, &name), || channel, payload, at));
                }
                Push::Oversized { channel, size } => {
                    messages += 1;
                    oversized += 1;
                    self.skipped.fetch_add(1, Ordering::SeqCst);
                    let channel = String::from_utf8_lossy(&channel).into_owned();
                    let limit = self.config.max_payload;
                    if let Some(suppressed) = self.oversized.note(at) {
                        tracing::warn!(
                            channel,
                            size,
                            limit,
                            suppressed,
                            "skipped a message over the size limit"
                        );
                    }
                }
                Push::Reply(reply) => {
                    if let Some(asked) = self.asked.pop_front() {
                        self.answered(asked, reply);
                    }
                }
                Push::Answer { number, reply } => {
                    if let Ok(place) = self.asked.binary_search_by_key(&number, |asked| asked.number)
                        && let Some(asked) = self.asked.remove(place)
                    {
                        self.answered(asked, reply);
                    }
                }
                Push::Lost { wires, reason } => self.lost_some(&wires, &reason, again),
            }
        }
        let (mut is_open, mut usable) = (true, Ok(()));
        let waited = {
            let mut delivering = pin!(self.routes.deliver());
            loop {
                tokio::select! {
                    biased;
                    waited = &mut delivering => break waited,
                    // Who waits does not read, and an end would stand behind what was not read. But to a ping a server
                    // that has closed the connection answers with a reset.
                    () = sleep(self.config.ping_after), if is_open => {
                        if !connection.is_closed() && self.asked.is_empty() {
                            usable = connection.send(&[Request::Ping]).await;
                            let (number, request, at) = (self.requests, Request::Ping, Instant::now());
                            self.asked.push_back(Asked { number, request, at, id: 0, done: None });
                            self.requests += 1;
                        }
                        is_open = usable.is_ok() && !connection.is_closed();
                        lock(&self.status).health.connected = is_open;
                    }
                }
            }
        };
        connection.delivered(messages);
        if oversized + unreadable > 0 {
            meter::count(meter::SKIPPED, &[("session", &self.label)], oversized + unreadable);
            let mut status = lock(&self.status);
            status.health.oversized += oversized;
            status.health.unreadable += unreadable;
        }
        usable.map(|()| waited)
    }

    /// Gives a message to those who want it. `false` if its channel cannot be read.
    fn distribute(
        &mut self,
        (kind, name): (Kind, &[u8]),
        channel: impl FnOnce() -> Bytes,
        payload: Bytes,
        at: std::time::Instant,
    ) -> bool {
        let prefix = &self.config.channel_prefix;
        if kind != Kind::Glob {
            return self.routes.distribute(prefix, (kind, name), channel, payload, at);
        }
        let channel = channel();
        // Of our own channels, only who asks for them by name gets to hear.
        self.internal.iter().any(|own| channel.starts_with(own.as_bytes()))
            || self.routes.distribute(prefix, (kind, name), || channel, payload, at)
    }

    fn answered(&mut self, Asked { request, at, id, done, .. }: Asked, reply: Reply) {
        match (&request, reply) {
            (Request::Subscribe(wire), Reply::Error(reason)) => {
                if self.routes.note(wire, id, RouteState::Refused(reason.clone()), self.generation()) {
                    tracing::warn!(
                        channel = wire.name,
                        reason,
                        "cannot subscribe; asking again until it is allowed"
                    );
                }
            }
            (Request::Subscribe(wire), _) => {
                self.routes.note(wire, id, RouteState::Confirmed, self.generation());
            }
            (Request::Unsubscribe(wire), Reply::Error(reason)) => {
                tracing::warn!(channel = wire.name, reason, "cannot unsubscribe");
            }
            (Request::Ping, _) => meter::round_trip("subscription", at.elapsed()),
            (Request::Unsubscribe(_), _) => {}
        }
        done.map(|done| done.send(()));
    }

    /// A part of the subscriptions is gone, and the connection goes on.
    fn lost_some(&mut self, wires: &[Wire], reason: &str, again: &mut Vec<Request>) {
        let lost: Vec<_> = wires.iter().filter(|wire| self.routes.lost_one(wire)).collect();
        let Some(first) = lost.first() else { return };
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        meter::count(meter::RECONNECTS, &[("session", &self.label)], 1);
        let name = {
            let mut status = lock(&self.status);
            status.health.reconnects = generation;
            status.health.last_error = Some(reason.to_owned());
            status.health.name.clone()
        };
        let (channel, lost_channels) = (first.name.as_str(), lost.len());
        tracing::warn!(session = name, channel, lost_channels, reason, "subscriptions lost; asking again");
        again.extend(lost.into_iter().map(|wire| Request::Subscribe(wire.clone())));
    }

    fn lost(&mut self, error: &Error, failures: u32) {
        self.set_connected(false);
        if std::mem::take(&mut self.serving) {
            let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
            meter::count(meter::RECONNECTS, &[("session", &self.label)], 1);
            self.routes.lost();
            lock(&self.status).health.reconnects = generation;
        }
        // One line for an outage, not one for each attempt.
        if failures == 0 {
            let name = lock(&self.status).health.name.clone();
            tracing::warn!(session = name, error = %chain(error), "subscription lost; reconnecting");
        }
        lock(&self.status).health.last_error = Some(chain(error));
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    fn set_connected(&self, connected: bool) {
        lock(&self.status).health.connected = connected;
    }
}

/// When to ping, when to give up, when to ask again for what was refused.
struct Clock {
    ping_after: Duration,
    ping_timeout: Duration,
    last: Instant,
    pinged: bool,
    again: Option<Instant>,
    /// When a slow handler held the reader up the last time.
    held_up: Option<Instant>,
}

enum Ring {
    Ping,
    Dead,
    AskAgain,
}

impl Clock {
    fn new(ping_after: Duration, ping_timeout: Duration) -> Self {
        Self { ping_after, ping_timeout, last: Instant::now(), pinged: false, again: None, held_up: None }
    }

    fn alive(&mut self) {
        self.last = Instant::now();
        self.pinged = false;
    }

    /// While we waited for a handler we did not listen: the silence was ours.
    fn was_held_up(&mut self, waited: Duration) {
        if waited > Duration::ZERO {
            self.alive();
        }
        if waited >= SLOW {
            self.held_up = Some(self.last);
        }
    }

    fn retry_refused(&mut self, refused: bool) {
        self.again = refused.then(|| self.again.unwrap_or_else(|| Instant::now() + REFUSED_AGAIN));
    }

    fn liveness(&self) -> Instant {
        self.last + self.ping_after + if self.pinged { self.ping_timeout } else { Duration::ZERO }
    }

    fn next(&self) -> Instant {
        self.again.map_or(self.liveness(), |again| again.min(self.liveness()))
    }

    fn rang(&mut self) -> Ring {
        let now = Instant::now();
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            Ring::AskAgain
        } else if self.pinged {
            Ring::Dead
        } else {
            self.pinged = true;
            Ring::Ping
        }
    }
}

fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
