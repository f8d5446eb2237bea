//! The in-process backend: a bus with Redis's rules, a key space with expiry, and streams, under one lock. No server, no
//! tasks.

mod clock;
mod faults;
mod group;
mod log;
mod news;
mod presence;
mod reader;
mod schedule;
mod store;
mod stream;
mod streams;
mod unfinished;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use faults::Faults;
pub(crate) use news::StreamWatch;
use presence::Presences;
pub(crate) use reader::StreamReader;
use store::Store;

use super::presence::Places;
use super::{
    Attempt, CacheKey, Catalog, Generation, Joined, Joining, Lease, Looked, Names, Notice, Outgoing,
    Published, Push, Registration, Reply, Request, Token, closed,
};
use crate::activity::Activity;
use crate::channel::{Kind, Wire, glob_matches};
use crate::config::Config;
use crate::dispatch::Carrier;
use crate::error::Result;
use crate::retry::deadline;

/// As Redis's `client-output-buffer-limit pubsub`: who lets more than this wait is cut off.
const INBOX_LIMIT: usize = 32 << 20;
/// After how many writes expired entries are swept out.
const SWEEP_EVERY: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Memory {
    bus: Arc<Bus>,
    channel_prefix: String,
    namespace: String,
    names: Box<Names>,
    places: Places,
    max_payload: usize,
    activity: Activity,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Bus(Mutex<BusState>);

#[derive(Debug, Default)]
struct BusState {
    inboxes: Vec<Weak<Inbox>>,
    entries: HashMap<String, Entry>,
    writes: usize,
    store: Store,
    /// Of the cached functions, by namespace and name.
    definitions: BTreeMap<String, String>,
    generation: i64,
    /// The sessions that hear the events of each family.
    listeners: HashMap<String, Vec<Weak<()>>>,
    presences: Presences,
}

#[derive(Debug)]
struct Entry {
    value: Bytes,
    expires: Instant,
}

/// What waits for one subscription connection.
#[derive(Debug)]
struct Inbox {
    state: Mutex<InboxState>,
    arrived: Notify,
    activity: Activity,
    max_payload: usize,
}

#[derive(Debug, Default)]
struct InboxState {
    channels: HashSet<Bytes>,
    globs: Vec<Bytes>,
    /// A namespace of their own, as in Redis.
    sharded: HashSet<Bytes>,
    pushes: VecDeque<Push>,
    bytes: usize,
    closed: bool,
}

/// The buses that have a name, for as long as somebody uses them.
static NAMED: Mutex<Option<HashMap<String, Weak<Bus>>>> = Mutex::new(None);

impl Memory {
    pub(crate) fn open(name: Option<&str>, config: &Config, activity: Activity) -> Self {
        let bus = match name {
            None => Arc::default(),
            Some(name) => {
                let mut named = lock(&NAMED);
                let named = named.get_or_insert_default();
                named.retain(|_, bus| bus.strong_count() > 0);
                named.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
                    let bus = Arc::default();
                    named.insert(name.to_owned(), Arc::downgrade(&bus));
                    bus
                })
            }
        };
        Self {
            bus,
            channel_prefix: config.channel_prefix.clone(),
            namespace: config.namespace.clone(),
            names: Box::new(Names::new(&config.namespace, &config.channel_prefix)),
            places: Places::new(&config.namespace, &config.channel_prefix),
            max_payload: config.max_payload,
            activity,
            faults: Arc::default(),
        }
    }

    pub(crate) fn connect(&self) -> Connection {
        let inbox = Arc::new(Inbox {
            state: Mutex::default(),
            arrived: Notify::new(),
            activity: self.activity.clone(),
            max_payload: self.max_payload,
        });
        let mut bus = lock(&self.bus.0);
        bus.inboxes.retain(|inbox| inbox.strong_count() > 0);
        bus.inboxes.push(Arc::downgrade(&inbox));
        Connection(inbox)
    }

    pub(crate) fn publish(&self, messages: &[Outgoing], forget: &[CacheKey]) -> Published {
        let mut bus = lock(&self.bus.0);
        bus.forget(forget);
        let inboxes = bus.inboxes();
        let mut receivers = 0;
        for message in messages {
            let channel = Bytes::from(format!("{}{}", self.channel_prefix, message.channel));
            if let Some(append) = &message.durable {
                bus.store.append(append, &channel, &message.payload, None);
                for group in self.faults.twice(&message.channel) {
                    bus.store.append(append, &channel, &message.payload, Some(&group));
                }
            }
            self.faults.note(&message.channel, &message.payload);
            if let Some(mark) = message.mark.as_ref().filter(|_| message.carrier == Carrier::Broadcast) {
                let own = Bytes::from(self.names.own.clone());
                inboxes.iter().for_each(|inbox| _ = inbox.offer(Carrier::Broadcast, &own, mark));
            }
            let offered =
                inboxes.iter().map(|inbox| inbox.offer(message.carrier, &channel, &message.payload));
            receivers += offered.sum::<u64>();
        }
        let generation = Generation::Number(bus.generation);
        Published { receivers, forgotten: Ok(()), generation }
    }

    pub(crate) fn announce(&self, notice: &Notice) {
        lock(&self.bus.0).announce(notice);
    }

    pub(crate) fn register_families(&self, registrations: &[Registration]) -> i64 {
        let mut bus = lock(&self.bus.0);
        for Registration { name, definition, .. } in registrations {
            let name = format!("{}:{name}", self.namespace);
            if bus.definitions.insert(name, definition.clone()).is_none() {
                bus.generation += 1;
            }
        }
        bus.generation
    }

    pub(crate) fn catalog(&self) -> Catalog {
        let bus = lock(&self.bus.0);
        let prefix = format!("{}:", self.namespace);
        let ours = bus.definitions.iter().filter(|(name, _)| name.starts_with(&prefix));
        let definitions = ours.map(|(_, definition)| definition.clone()).collect();
        Catalog { generation: bus.generation, definitions }
    }

    /// A family that nobody hears is flushed, under the lock that also holds publishers off: whoever joins after that has
    /// missed nothing.
    pub(crate) fn join_cover(&self, families: &[Joining<'_>], session: &Arc<()>) -> Vec<Joined> {
        let mut bus = lock(&self.bus.0);
        for family in families {
            let name = format!("{}:{}", self.namespace, family.name);
            let listeners = bus.listeners.entry(name).or_default();
            listeners.retain(|listener| listener.strong_count() > 0);
            let was_heard = !listeners.is_empty();
            listeners.push(Arc::downgrade(session));
            if !was_heard {
                bus.forget_matching(&self.namespace, &family.glob, family.keep);
            }
        }
        families.iter().map(|_| Joined::Covered).collect()
    }

    pub(crate) fn look(&self, key: &CacheKey) -> Looked {
        let mut bus = lock(&self.bus.0);
        let value = bus.get(&key.value);
        let left = bus.entries.get(&key.value).map(|entry| entry.expires - Instant::now());
        Looked { value, holder: bus.holder(key), left }
    }

    pub(crate) fn set(&self, key: &CacheKey, value: &Bytes, ttl: Duration, notice: &Notice) {
        let mut bus = lock(&self.bus.0);
        bus.put(&key.value, value.clone(), ttl);
        bus.entries.remove(&key.lease);
        bus.announce(notice);
    }

    pub(crate) fn lease(
        &self,
        key: &CacheKey,
        attempt: &Attempt<'_>,
        seen: Option<&Bytes>,
        ttl: Duration,
    ) -> Lease {
        let mut bus = lock(&self.bus.0);
        match bus.get(&key.value) {
            Some(value) if Some(&value) != seen => return Lease::Value(value),
            _ => {}
        }
        if let Some(holder) = bus.holder(key)
            && !attempt.earlier.contains(&holder)
        {
            return Lease::Held(holder);
        }
        bus.put(&key.lease, Bytes::copy_from_slice(attempt.token.0.as_bytes()), ttl);
        Lease::Granted(None)
    }

    pub(crate) fn store(
        &self,
        key: &CacheKey,
        token: &Token,
        seen: Option<&Bytes>,
        value: &Bytes,
        ttl: Duration,
    ) -> bool {
        let mut bus = lock(&self.bus.0);
        if !bus.holds(key, token) || bus.get(&key.value).as_ref() != seen {
            return false;
        }
        bus.put(&key.value, value.clone(), ttl);
        bus.entries.remove(&key.lease);
        true
    }

    pub(crate) fn renew(&self, key: &CacheKey, token: &Token, ttl: Duration) {
        let mut bus = lock(&self.bus.0);
        if bus.holds(key, token) {
            bus.put(&key.lease, Bytes::copy_from_slice(token.0.as_bytes()), ttl);
        }
    }

    pub(crate) fn release(&self, key: &CacheKey, token: &Token) {
        let mut bus = lock(&self.bus.0);
        if bus.holds(key, token) {
            bus.entries.remove(&key.lease);
        }
    }

    pub(crate) fn take(&self, key: &CacheKey, notice: &Notice) -> Option<Bytes> {
        let mut bus = lock(&self.bus.0);
        let value = bus.get(&key.value);
        bus.forget(std::slice::from_ref(key));
        bus.announce(notice);
        value
    }

    pub(crate) fn forget(&self, keys: &[CacheKey], notice: Option<&Notice>) {
        let mut bus = lock(&self.bus.0);
        bus.forget(keys);
        if let Some(notice) = notice {
            bus.announce(notice);
        }
    }

    pub(crate) fn forget_matching(&self, glob: &str, keep: &(dyn Fn(&str) -> bool + Sync)) -> u64 {
        lock(&self.bus.0).forget_matching(&self.namespace, glob, keep)
    }

    pub(crate) fn keys_matching(&self, glob: &str) -> BTreeSet<String> {
        let (bus, now) = (lock(&self.bus.0), Instant::now());
        let live = bus.entries.iter().filter(|(_, entry)| entry.expires > now).map(|(key, _)| key);
        live.filter(|key| glob_matches(glob.as_bytes(), key.as_bytes())).cloned().collect()
    }

    pub(crate) fn info(&self) -> String {
        let inboxes = self.inboxes();
        let (mut channels, mut globs) = (BTreeSet::new(), BTreeSet::new());
        for inbox in &inboxes {
            let state = lock(&inbox.state);
            channels.extend(state.channels.iter().cloned());
            globs.extend(state.globs.iter().cloned());
        }
        format!(
            "# Server\r\nredis_version:memory\r\n# Clients\r\nconnected_clients:{}\r\n# Stats\r\npubsub_channels:{}\r\npubsub_patterns:{}\r\n",
            inboxes.len(),
            channels.len(),
            globs.len(),
        )
    }

    pub(crate) fn pubsub_channels(&self, glob: &str) -> Vec<String> {
        let mut channels: Vec<_> = self
            .inboxes()
            .iter()
            .flat_map(|inbox| lock(&inbox.state).channels.iter().cloned().collect::<Vec<_>>())
            .filter(|channel| glob_matches(glob.as_bytes(), channel))
            .map(|channel| String::from_utf8_lossy(&channel).into_owned())
            .collect();
        channels.sort_unstable();
        channels.dedup();
        channels
    }

    pub(crate) fn pubsub_numsub(&self, channels: &[String]) -> Vec<u64> {
        let inboxes = self.inboxes();
        let subscribers = |channel: &String| {
            inboxes.iter().filter(|inbox| lock(&inbox.state).channels.contains(channel.as_bytes())).count()
                as u64
        };
        channels.iter().map(subscribers).collect()
    }

    fn inboxes(&self) -> Vec<Arc<Inbox>> {
        lock(&self.bus.0).inboxes()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        lock(&self.bus.0).store.detach(&self.activity);
    }
}

impl BusState {
    fn inboxes(&self) -> Vec<Arc<Inbox>> {
        self.inboxes.iter().filter_map(Weak::upgrade).collect()
    }

    fn get(&mut self, key: &str) -> Option<Bytes> {
        match self.entries.get(key) {
            Some(entry) if entry.expires > Instant::now() => Some(entry.value.clone()),
            Some(_) => {
                self.entries.remove(key);
                None
            }
            None => None,
        }
    }

    fn put(&mut self, key: &str, value: Bytes, ttl: Duration) {
        let now = Instant::now();
        self.writes += 1;
        if self.writes.is_multiple_of(SWEEP_EVERY) {
            self.entries.retain(|_, entry| entry.expires > now);
        }
        self.entries.insert(key.to_owned(), Entry { value, expires: deadline(ttl) });
    }

    fn holder(&mut self, key: &CacheKey) -> Option<Token> {
        self.get(&key.lease).map(|token| Token(String::from_utf8_lossy(&token).into_owned()))
    }

    fn holds(&mut self, key: &CacheKey, token: &Token) -> bool {
        self.holder(key).as_ref() == Some(token)
    }

    fn forget(&mut self, keys: &[CacheKey]) {
        for key in keys {
            self.entries.remove(&key.value);
            self.entries.remove(&key.lease);
        }
    }
}

impl BusState {
    fn announce(&mut self, Notice { channel, payload }: &Notice) {
        let channel = Bytes::copy_from_slice(channel.as_bytes());
        for inbox in self.inboxes() {
            inbox.offer(Carrier::Broadcast, &channel, payload);
        }
    }

    fn forget_matching(&mut self, namespace: &str, glob: &str, keep: &(dyn Fn(&str) -> bool + Sync)) -> u64 {
        let wanted = |key: &str| glob_matches(glob.as_bytes(), key.as_bytes()) && keep(key);
        let now = Instant::now();
        // One lock holds everyone off, so that values and leases can be removed in one pass.
        let mut removed = 0;
        self.entries.retain(|key, entry| {
            if wanted(key) {
                removed += u64::from(entry.expires > now);
                return false;
            }
            !super::lease_is_of(namespace, key, &wanted)
        });
        removed
    }
}

impl Inbox {
    /// Offers a message; returns how often it was taken, once for the channel and once for each glob, as Redis counts.
    fn offer(&self, carrier: Carrier, channel: &Bytes, payload: &Bytes) -> u64 {
        let mut state = lock(&self.state);
        if state.closed {
            return 0;
        }
        let ways: Vec<_> = match carrier {
            Carrier::Sharded => {
                state.sharded.get(channel).map(|name| (Kind::Sharded, name)).into_iter().collect()
            }
            Carrier::Broadcast => {
                let exact = state.channels.get(channel).map(|name| (Kind::Channel, name));
                let globs = state.globs.iter().filter(|glob| glob_matches(glob, channel));
                exact.into_iter().chain(globs.map(|glob| (Kind::Glob, glob))).collect()
            }
        };
        let ways: Vec<_> = ways.into_iter().map(|(kind, name)| (kind, name.clone())).collect();
        for (kind, name) in &ways {
            state.bytes += payload.len();
            state.pushes.push_back(if payload.len() > self.max_payload {
                Push::Oversized { channel: channel.clone(), size: payload.len() }
            } else {
                let (channel, payload) = (channel.clone(), payload.clone());
                Push::Message { kind: *kind, name: name.clone(), channel, payload }
            });
        }
        self.activity.begin(ways.len());
        if state.bytes > INBOX_LIMIT {
            state.closed = true;
            self.drop_pushes(&mut state);
        }
        drop(state);
        if !ways.is_empty() {
            self.arrived.notify_one();
        }
        ways.len() as u64
    }

    fn drop_pushes(&self, state: &mut InboxState) {
        let messages = state.pushes.drain(..).filter(|push| !matches!(push, Push::Reply(_))).count();
        self.activity.finish(messages);
    }
}

/// One subscription connection to the bus.
#[derive(Debug)]
pub(crate) struct Connection(Arc<Inbox>);

impl Connection {
    pub(crate) async fn receive(&mut self, pushes: &mut Vec<Push>) -> Result<()> {
        // As a socket does: a flood must not keep the thread from other tasks.
        tokio::task::coop::consume_budget().await;
        loop {
            {
                let mut state = lock(&self.0.state);
                if state.closed {
                    return Err(closed());
                }
                if !state.pushes.is_empty() {
                    state.bytes = 0;
                    pushes.extend(state.pushes.drain(..));
                    return Ok(());
                }
            }
            self.0.arrived.notified().await;
        }
    }

    pub(crate) fn send(&mut self, requests: &[Request]) -> Result<()> {
        let mut state = lock(&self.0.state);
        if state.closed {
            return Err(closed());
        }
        for request in requests {
            let reply = match request {
                Request::Subscribe(Wire { kind, name }) => {
                    let name = Bytes::copy_from_slice(name.as_bytes());
                    match kind {
                        Kind::Channel => _ = state.channels.insert(name),
                        Kind::Sharded => _ = state.sharded.insert(name),
                        Kind::Glob if !state.globs.contains(&name) => state.globs.push(name),
                        Kind::Glob => {}
                    }
                    Reply::Done
                }
                Request::Unsubscribe(Wire { kind, name }) => {
                    match kind {
                        Kind::Channel => _ = state.channels.remove(name.as_bytes()),
                        Kind::Sharded => _ = state.sharded.remove(name.as_bytes()),
                        Kind::Glob => state.globs.retain(|glob| *glob != name.as_bytes()),
                    }
                    Reply::Done
                }
                Request::Ping => Reply::Pong,
            };
            state.pushes.push_back(Push::Reply(reply));
        }
        drop(state);
        self.0.arrived.notify_one();
        Ok(())
    }

    pub(crate) fn delivered(&self, messages: usize) {
        self.0.activity.finish(messages);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.closed = true;
        self.0.drop_pushes(&mut state);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
