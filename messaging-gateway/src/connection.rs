//! One connection of a client, as everybody but its own task sees it: a queue, a few times, and what it is subscribed to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use slab::Slab;
use tokio::time::Instant;

use crate::auth::Place;
use crate::code::DisconnectCode;
use crate::entity::Entity;
use crate::filter::Filter;
use crate::hub::Topic;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::native::Say;
use crate::outbox::{End, Outbox};
use crate::presence::Seen;
use crate::protocol::Protocol;

/// How long after the end of its identity a connection may still refresh it.
const REFRESH_GRACE: Duration = Duration::from_secs(5);

/// How a connection is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket(Protocol),
    /// Server-Sent Events: nobody answers pings.
    Events,
}

impl Transport {
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::WebSocket(protocol) => protocol,
            Self::Events => Protocol::Native,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    transport: Transport,
    /// Its place among the connections of this gateway, and no other's.
    pub(crate) number: u64,
    /// What clients call it: a random id.
    pub(crate) client: Box<str>,
    pub(crate) outbox: Outbox,
    began: Instant,
    /// When it is to be pinged, in milliseconds after it began.
    due: AtomicU64,
    /// When it was pinged, if it has not answered; 0 if it has.
    pinged: AtomicU64,
    /// How often it is pinged, in milliseconds: not all at the same time.
    interval: u64,
    is_busy: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    identity: Option<Arc<Identity>>,
    subscriptions: HashMap<Arc<str>, Subscribed>,
    /// Its place among those that are counted.
    place: Option<Place>,
    /// When the first of its subscriptions ends that have an end.
    next_end: Option<SystemTime>,
}

/// A channel that a connection is subscribed to.
#[derive(Clone, Debug)]
pub(crate) struct Subscribed {
    pub(crate) topic: Arc<Topic>,
    pub(crate) entity: Arc<Entity>,
    pub(crate) params: Vec<(String, String)>,
    /// What the server imposes.
    pub(crate) imposed: Filter,
    /// A token allows it: nobody is asked.
    pub(crate) is_granted: bool,
    /// When its token ends, unless that is renewed.
    pub(crate) expires_at: Option<SystemTime>,
    /// It is seen in the channel, and sees who comes and goes.
    pub(crate) _seen: Option<Arc<Seen>>,
}

/// What a connection makes of the end of a subscription.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It has it no more, if it had it.
    Ended(Option<Subscribed>),
    GoesOn,
}

impl Connection {
    pub(crate) fn new(number: u64, transport: Transport, limits: &Limits) -> Self {
        let ping = millis(limits.ping);
        let interval = ping - fastrand::u64(0..=ping / 4);
        Self {
            transport,
            number,
            client: uuid::Uuid::new_v4().to_string().into(),
            outbox: Outbox::new(limits.queue.get()),
            began: Instant::now(),
            due: AtomicU64::new(interval),
            pinged: AtomicU64::new(0),
            interval,
            is_busy: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.transport.protocol()
    }

    /// Puts an answer into its queue, or what the server says by itself.
    pub(crate) fn say(&self, say: &Say<'_>) {
        if let Some(frame) = self.protocol().frame(say) {
            self.outbox.push(frame);
        }
    }

    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.lock().identity.clone()
    }

    pub(crate) fn identify(&self, identity: Arc<Identity>) {
        self.lock().identity = Some(identity);
    }

    /// Keeps a place among those that are counted, or counts it for a user.
    pub(crate) fn with_place<T>(&self, change: impl FnOnce(&mut Option<Place>) -> T) -> T {
        change(&mut self.lock().place)
    }

    pub(crate) fn subscription(&self, channel: &str) -> Option<Subscribed> {
        self.lock().subscriptions.get(channel).cloned()
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.lock().subscriptions.len()
    }

    /// What it is subscribed to.
    pub(crate) fn channels(&self) -> Vec<Arc<str>> {
        self.lock().subscriptions.keys().cloned().collect()
    }

    pub(crate) fn subscribe(&self, subscribed: Subscribed) {
        let channel = Arc::clone(subscribed.topic.channel());
        let mut state = self.lock();
        state.note_end(subscribed.expires_at);
        state.subscriptions.insert(channel, subscribed);
    }

    /// Takes note of when a subscription ends now; `false` if there is none.
    pub(crate) fn renew(&self, channel: &str, expires_at: Option<SystemTime>) -> bool {
        let mut state = self.lock();
        let Some(subscribed) = state.subscriptions.get_mut(channel) else { return false };
        subscribed.expires_at = expires_at;
        state.note_end(expires_at);
        true
    }

    /// The subscriptions that have ended, as far as one is told: who renews them late has a moment for it.
    pub(crate) fn expired(&self) -> Vec<Arc<str>> {
        let mut state = self.lock();
        if !state.next_end.is_some_and(is_over) {
            return Vec::new();
        }
        let ends = |subscribed: &Subscribed| subscribed.expires_at;
        state.next_end = state.subscriptions.values().filter_map(ends).filter(|at| !is_over(*at)).min();
        let over = |(_, subscribed): &(&Arc<str>, &Subscribed)| subscribed.expires_at.is_some_and(is_over);
        state.subscriptions.iter().filter(over).map(|(channel, _)| Arc::clone(channel)).collect()
    }

    /// Takes note of what the server imposes now on a subscription.
    pub(crate) fn impose(&self, channel: &str, imposed: Filter) {
        if let Some(subscribed) = self.lock().subscriptions.get_mut(channel) {
            subscribed.imposed = imposed;
        }
    }

    /// Takes a subscription out whose token has ended and was not renewed.
    pub(crate) fn forget_expired(&self, channel: &str) -> Taken {
        let mut state = self.lock();
        let is_over = |subscribed: &Subscribed| subscribed.expires_at.is_some_and(is_over);
        match state.subscriptions.get(channel).is_some_and(is_over) {
            true => Taken::Ended(state.subscriptions.remove(channel)),
            false => Taken::GoesOn,
        }
    }

    /// Takes a subscription out that its topic does not tell any more, if it is there.
    pub(crate) fn forget(&self, channel: &str) -> Option<Subscribed> {
        self.lock().subscriptions.remove(channel)
    }

    /// Ends a subscription; `false` if there is none.
    pub(crate) fn unsubscribe(self: &Arc<Self>, channel: &str) -> bool {
        let subscribed = self.forget(channel);
        match subscribed {
            Some(Subscribed { topic, .. }) => {
                topic.leave(self);
                true
            }
            None => false,
        }
    }

    /// Ends everything: nothing is put into its queue any more. Returns how many subscriptions there were.
    pub(crate) fn leave(self: &Arc<Self>) -> usize {
        self.outbox.end(End::Gone);
        self.lock().place = None;
        let subscriptions = std::mem::take(&mut self.lock().subscriptions);
        let count = subscriptions.len();
        for Subscribed { topic, .. } in subscriptions.into_values() {
            topic.leave(self);
        }
        count
    }

    /// Takes note of a command that begins or has ended: nothing is read meanwhile, not even the answer to a ping.
    pub(crate) fn note_busy(&self, is_busy: bool) {
        self.is_busy.store(is_busy, Ordering::Relaxed);
        self.pinged.store(0, Ordering::Relaxed);
    }

    /// Something has arrived.
    pub(crate) fn note_heard(&self) {
        // Clients of Centrifugo wait for pings, whatever they say themselves.
        if self.protocol() != Protocol::Centrifugo {
            self.due.store(self.now() + self.interval, Ordering::Relaxed);
        }
        self.pinged.store(0, Ordering::Relaxed);
    }

    /// What waited is being written: where nobody answers pings, that shows that somebody is there.
    pub(crate) fn note_written(&self) {
        if self.transport == Transport::Events {
            self.note_heard();
        }
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// Until when it may ask for something as this identity: clients of Centrifugo renew a token when it has ended.
    pub(crate) fn speaks_until(&self, identity: &Identity) -> Option<SystemTime> {
        let grace = match self.protocol() {
            Protocol::Native => Duration::ZERO,
            Protocol::Centrifugo => REFRESH_GRACE,
        };
        identity.expires_at.map(|at| at + grace)
    }

    /// Does what time demands: pings, and ends what is stale, silent or expired. Returns why it was ended.
    pub(crate) fn look_after(&self, limits: &Limits) -> Option<DisconnectCode> {
        // It may take a moment to go.
        if self.outbox.has_ended().is_some() {
            return None;
        }
        let now = self.now();
        let end = |code| {
            self.outbox.end(End::Close(code));
            Some(code)
        };
        let Some(identity) = self.identity() else {
            return if now >= millis(limits.unauthenticated) { end(DisconnectCode::Stale) } else { None };
        };
        if identity.expires_at.is_some_and(|at| at + REFRESH_GRACE <= SystemTime::now()) {
            return end(DisconnectCode::Expired);
        }
        let pinged = self.pinged.load(Ordering::Relaxed);
        if pinged > 0 && !self.is_busy.load(Ordering::Relaxed) {
            return if now >= pinged + millis(limits.pong) { end(DisconnectCode::NoPong) } else { None };
        }
        if now >= self.due.load(Ordering::Relaxed) {
            self.pinged.store(now.max(1), Ordering::Relaxed);
            self.due.store(now + self.interval, Ordering::Relaxed);
            self.say(&Say::Ping);
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whether something that ends then is over, also for who renews it late.
fn is_over(at: SystemTime) -> bool {
    at + REFRESH_GRACE <= SystemTime::now()
}

impl State {
    fn note_end(&mut self, at: Option<SystemTime>) {
        self.next_end = self.next_end.into_iter().chain(at).min();
    }
}

/// How long it is until then, in milliseconds.
pub(crate) fn left(expires_at: Option<SystemTime>) -> Option<u64> {
    Some(millis(expires_at?.duration_since(SystemTime::now()).unwrap_or_default()))
}

/// All connections of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    all: Mutex<Slab<Arc<Connection>>>,
    numbers: AtomicU64,
}

/// A connection that is among all; dropping this ends it.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) connection: Arc<Connection>,
    among: Arc<Connections>,
    place: usize,
}

impl Connections {
    pub(crate) fn open(self: &Arc<Self>, transport: Transport, limits: &Limits) -> Open {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(number, transport, limits));
        let place = self.lock().insert(Arc::clone(&connection));
        Open { connection, among: Arc::clone(self), place }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().iter().map(|(_, connection)| Arc::clone(connection)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Connection>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.among.lock().remove(self.place);
    }
}
