//! One connection of a client, as everybody but its own task sees it: a queue, a few times, and what it is subscribed to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use slab::Slab;
use tokio::time::Instant;

use crate::auth::Place;
use crate::code::{DisconnectCode, UnsubscribeCode};
use crate::entity::Entity;
use crate::filter::Filter;
use crate::hub::Topic;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::native::Say;
use crate::outbox::{End, Outbox};
use crate::presence::Seen;

/// How long after the end of its identity a connection may still refresh it.
const REFRESH_GRACE: Duration = Duration::from_secs(5);

/// How a connection is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    /// Server-Sent Events: nobody answers pings.
    Events,
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
    /// When something arrived last, in milliseconds after it began.
    heard: AtomicU64,
    /// When it was pinged, if it has not answered; 0 if it has.
    pinged: AtomicU64,
    /// How much later than the others it is pinged, in milliseconds: they do not all come at once.
    offset: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    identity: Option<Arc<Identity>>,
    subscriptions: HashMap<Arc<str>, Subscribed>,
    /// Its place among those that are counted.
    place: Option<Place>,
}

/// A channel that a connection is subscribed to.
#[derive(Clone, Debug)]
pub(crate) struct Subscribed {
    pub(crate) topic: Arc<Topic>,
    pub(crate) entity: Arc<Entity>,
    pub(crate) params: Vec<(String, String)>,
    /// What the server imposes.
    pub(crate) imposed: Filter,
    /// It is seen in the channel, and sees who comes and goes.
    pub(crate) _seen: Option<Arc<Seen>>,
}

impl Connection {
    pub(crate) fn new(number: u64, transport: Transport, limits: &Limits) -> Self {
        let spread = u64::try_from(limits.ping.as_millis() / 4).unwrap_or(0);
        Self {
            transport,
            number,
            client: uuid::Uuid::new_v4().to_string().into(),
            outbox: Outbox::new(limits.queue.get()),
            began: Instant::now(),
            heard: AtomicU64::new(0),
            pinged: AtomicU64::new(0),
            offset: fastrand::u64(0..=spread),
            state: Mutex::default(),
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
        self.lock().subscriptions.insert(channel, subscribed);
    }

    /// Takes note of what the server imposes now on a subscription.
    pub(crate) fn impose(&self, channel: &str, imposed: Filter) {
        if let Some(subscribed) = self.lock().subscriptions.get_mut(channel) {
            subscribed.imposed = imposed;
        }
    }

    /// Ends a subscription; `false` if there is none.
    pub(crate) fn unsubscribe(self: &Arc<Self>, channel: &str) -> bool {
        let subscribed = self.lock().subscriptions.remove(channel);
        match subscribed {
            Some(Subscribed { topic, .. }) => {
                topic.leave(self);
                true
            }
            None => false,
        }
    }

    /// Ends a subscription, and tells the client so; `false` if there is none.
    pub(crate) fn unsubscribe_because(self: &Arc<Self>, channel: &str, code: UnsubscribeCode) -> bool {
        let there = self.unsubscribe(channel);
        if there {
            self.outbox.push(Say::unsubscribed(channel, code).frame());
        }
        there
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

    /// Something has arrived.
    pub(crate) fn note_heard(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
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
        if pinged > 0 {
            return if now >= pinged + millis(limits.pong) { end(DisconnectCode::NoPong) } else { None };
        }
        let due =
            self.heard.load(Ordering::Relaxed) + (millis(limits.ping) - self.offset.min(millis(limits.ping)));
        if now >= due {
            self.pinged.store(now.max(1), Ordering::Relaxed);
            self.outbox.push(Say::Ping.frame());
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

/// How long an identity still holds.
pub(crate) fn left(identity: &Identity) -> Option<u64> {
    let at = identity.expires_at?;
    Some(millis(at.duration_since(SystemTime::now()).unwrap_or_default()))
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
