//! Watching a channel's members: what is told of them, what was missed while nothing was heard, and nodes that die without a
//! word.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::PresenceEntry;
use super::changes::PresenceChange;
use super::node::Node;
use super::record::{Seen, read_notice};
use crate::backend::Token;
use crate::backend::presence::{JoinKey, NodeId, Places};
use crate::channel::{Channel, Pattern};
use crate::dispatch::{Buffer, Carrier, Entry, Mailbox, Overflow};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::message::Received;
use crate::retry::deadline;
use crate::session::Session;

/// A change that has not been yielded.
struct Pending {
    told: PresenceChange,
    /// What the join was.
    before: Option<PresenceEntry>,
}

pub(super) struct Watcher {
    node: Arc<Node>,
    session: Session,
    mailbox: Arc<Mailbox>,
    channel: Channel,
    /// What it is called where it hears itself.
    name: String,
    /// Of the last number that it was told.
    number: u64,
    view: BTreeMap<JoinKey, Seen>,
    /// Those that were there before a gap and were not after it: they have left, or their node is about to write them again.
    unconfirmed: HashSet<JoinKey>,
    /// When the nodes of those in view are to be asked for.
    due: HashMap<NodeId, Instant>,
    pending: VecDeque<Pending>,
    /// Something may have been missed: what is there has to be read.
    stale: bool,
    failures: u32,
    /// How many messages the session had skipped when that was looked at last.
    skipped: u64,
}

/// What a watcher waits for.
enum Event {
    Heard(Option<Entry>),
    Due,
    Stopped,
}

impl Watcher {
    fn new(node: Arc<Node>, session: Session, channel: &Channel) -> Result<Self> {
        let config = &node.core.config;
        let places = Places::new(&config.namespace, &config.channel_prefix);
        let name = Token::random().0;
        let exact = |name: &str| Channel::new(name).map(Pattern::Exact);
        let patterns = [exact(&places.notices(channel))?, exact(&places.here(&name))?];
        // Who does not keep up reads what is there instead; nobody has to wait for that.
        let mailbox = Arc::new(Mailbox::for_subscription(Buffer::DEFAULT, Overflow::DropOldest));
        session.want(&mailbox, &patterns, Carrier::Broadcast, &config.channel_prefix);
        Ok(Self {
            skipped: session.skipped(),
            node,
            session,
            mailbox,
            channel: channel.clone(),
            name,
            number: 0,
            view: BTreeMap::new(),
            unconfirmed: HashSet::new(),
            due: HashMap::new(),
            pending: VecDeque::new(),
            stale: true,
            failures: 0,
        })
    }

    /// Watches, and knows who is there.
    pub(super) async fn open(node: &Arc<Node>, session: &Session, channel: &Channel) -> Result<Self> {
        let limit = node.core.config.connect_timeout;
        let mut watcher = Self::new(Arc::clone(node), session.clone(), channel)?;
        match timeout(limit, watcher.read()).await {
            Ok(read) => read?,
            Err(_) => {
                let health = session.health();
                let reason = health.last_error.unwrap_or_else(|| "redis did not answer".to_owned());
                let text = format!("not confirmed within {limit:?}: {reason}");
                return Err(Error::new(ErrorKind::Timeout, text).before_sending());
            }
        }
        // Who is there already has not changed.
        watcher.pending.clear();
        Ok(watcher)
    }

    /// Who is there, as of the last change that was yielded.
    pub(super) fn entries(&self) -> BTreeMap<String, PresenceEntry> {
        let in_view = self.view.iter().map(|(key, seen)| (key.id.to_string(), seen.entry.clone()));
        let mut entries: BTreeMap<_, _> = in_view.collect();
        // Backwards, to how it was before what has not been yielded.
        for Pending { told, before } in self.pending.iter().rev() {
            match before {
                Some(before) => _ = entries.insert(told.id().to_owned(), before.clone()),
                None => _ = entries.remove(told.id()),
            }
        }
        entries
    }

    /// The next change.
    ///
    /// Cancellation: nothing is lost.
    pub(super) async fn next(&mut self) -> Option<Result<PresenceChange>> {
        loop {
            if let Some(Pending { told, .. }) = self.pending.pop_front() {
                return Some(Ok(told));
            }
            let stop = self.node.core.stop.clone();
            if self.stale {
                let read = tokio::select! {
                    read = self.read() => read,
                    () = stop.cancelled() => return None,
                };
                match read {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            let next = self.due.values().min().copied();
            let look = deadline(self.ttl());
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stopped,
                entry = self.mailbox.pop(0) => Event::Heard(entry),
                () = sleep_until(next.map_or(look, |next| next.min(look))) => Event::Due,
            };
            match event {
                Event::Stopped | Event::Heard(None) => return None,
                Event::Heard(Some(Entry::Gap(_))) => self.stale = true,
                Event::Heard(Some(Entry::Message(received))) => self.hear(&received),
                Event::Due => tokio::select! {
                    () = self.ask_for_nodes() => {}
                    () = stop.cancelled() => return None,
                },
            }
            self.stale |= self.skipped != self.session.skipped();
        }
    }

    fn ttl(&self) -> Duration {
        self.node.core.config.presence_ttl
    }

    /// Reads what is there, until that succeeds. What lies in the way of it and goes away by itself is waited for.
    ///
    /// Cancellation: it has to be read again.
    async fn read(&mut self) -> Result<()> {
        loop {
            match self.try_read().await {
                Ok(()) => {
                    self.failures = 0;
                    return Ok(());
                }
                Err(error) if error.is_retryable() => {
                    tracing::debug!(channel = %self.channel, error = %chain(&error), "cannot read who is present; trying again");
                    let pause = self.node.core.config.reconnect.delay(self.failures);
                    self.failures = self.failures.saturating_add(1);
                    sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_read(&mut self) -> Result<()> {
        let core = Arc::clone(&self.node.core);
        self.session.confirmed(&self.mailbox).await?;
        let skipped = self.session.skipped();
        self.number += 1;
        let all = core.backend.members_marked(&self.channel, &self.name, self.number).await?;
        self.hear_myself().await?;
        let mut nodes: Vec<_> = all.iter().map(|(key, _)| key.node.clone()).collect();
        nodes.extend(self.view.keys().map(|key| key.node.clone()));
        nodes.sort_unstable();
        nodes.dedup();
        let lives = self.node.roster.ask_anew(&core.backend, &nodes).await?;
        let lives: HashMap<_, _> = nodes.into_iter().zip(lives).collect();
        self.compare(all, &lives);
        (self.stale, self.skipped) = (false, skipped);
        Ok(())
    }

    /// Waits for the number: all that was told before it is in what was read.
    async fn hear_myself(&mut self) -> Result<()> {
        let until = deadline(self.node.core.config.command_timeout);
        loop {
            let text = match timeout_at(until, self.mailbox.pop(0)).await {
                Ok(Some(Entry::Message(received))) => match self.number_of(&received) {
                    Some(number) if number == self.number => return Ok(()),
                    _ => continue,
                },
                Ok(Some(Entry::Gap(_))) => "the connection was lost meanwhile",
                Ok(None) => return Err(Error::new(ErrorKind::Closed, "messaging has been shut down")),
                Err(_) => "what was told along with the answer was not heard",
            };
            return Err(Error::new(ErrorKind::Connection, text));
        }
    }

    /// What this watcher has told itself.
    fn number_of(&self, received: &Received) -> Option<u64> {
        if received.pattern == 0 {
            return None;
        }
        std::str::from_utf8(&received.payload).ok()?.parse().ok()
    }

    /// Takes over what was read; what is different from what was in view are changes.
    fn compare(&mut self, all: Vec<(JoinKey, Bytes)>, lives: &HashMap<NodeId, Option<Instant>>) {
        let now = Instant::now();
        let grace = now + self.ttl() / 2;
        let (mut there, mut dead) = (BTreeMap::new(), Vec::new());
        for (key, value) in all {
            let lives = lives.get(&key.node).copied().flatten().is_some();
            // One that was in view may have lost its key only, with what the server has lost.
            if !lives && !self.view.contains_key(&key) {
                dead.push((key, value));
            } else if let Some(seen) = Seen::read(value) {
                there.insert(key, seen);
            }
        }
        self.node.bury(&self.channel, dead);
        self.unconfirmed.clear();
        self.due.clear();
        let alive_until = |node: &NodeId| lives.get(node).copied().flatten();
        let missing: Vec<_> = self.view.keys().filter(|key| !there.contains_key(*key)).cloned().collect();
        for (key, seen) in there {
            self.due.insert(key.node.clone(), alive_until(&key.node).unwrap_or(grace));
            self.put(key, seen);
        }
        // Of what the server has lost, a node first writes that it lives.
        let soon = now + self.ttl() / 10;
        for key in missing {
            let again = if alive_until(&key.node).is_some() { soon } else { grace };
            let due = self.due.entry(key.node.clone()).or_insert(again);
            *due = again.min(*due);
            self.unconfirmed.insert(key);
        }
    }

    fn hear(&mut self, received: &Received) {
        if received.pattern != 0 {
            return;
        }
        match read_notice(&received.payload) {
            None => {}
            Some((key, None)) => _ = self.take_away(&key),
            Some((key, Some(seen))) => {
                // It has just been written: what is wrong with its node is known soon enough.
                self.due
                    .entry(key.node.clone())
                    .or_insert_with(|| Instant::now() + self.node.core.config.presence_ttl / 2);
                self.put(key, seen);
            }
        }
    }

    fn put(&mut self, key: JoinKey, seen: Seen) {
        self.unconfirmed.remove(&key);
        let (id, entry) = (key.id.to_string(), seen.entry.clone());
        let before = self.view.insert(key, seen).map(|before| before.entry);
        let told = match &before {
            None => PresenceChange::Joined { id, entry },
            Some(before) if *before != entry => PresenceChange::Updated { id, entry },
            Some(_) => return,
        };
        self.pending.push_back(Pending { told, before });
    }

    fn take_away(&mut self, key: &JoinKey) -> Option<Seen> {
        self.unconfirmed.remove(key);
        let seen = self.view.remove(key)?;
        let told = PresenceChange::Left { id: key.id.to_string(), entry: seen.entry.clone() };
        self.pending.push_back(Pending { told, before: Some(seen.entry.clone()) });
        Some(seen)
    }

    /// Finds out which of the nodes live whose time may have run out.
    async fn ask_for_nodes(&mut self) {
        let now = Instant::now();
        let in_view: HashSet<_> = self.view.keys().map(|key| &key.node).collect();
        self.due.retain(|node, _| in_view.contains(node));
        let nodes: Vec<_> =
            self.due.iter().filter(|(_, due)| **due <= now).map(|(node, _)| node.clone()).collect();
        if nodes.is_empty() {
            return;
        }
        let core = Arc::clone(&self.node.core);
        let lives = match self.node.roster.ask(&core.backend, &nodes).await {
            Ok(lives) => lives,
            Err(error) => {
                // Nobody is gone because the server is.
                tracing::debug!(error = %chain(&error), "cannot find out which processes live; trying again");
                let again = Instant::now() + self.ttl() / 10;
                nodes.into_iter().for_each(|node| _ = self.due.insert(node, again));
                return;
            }
        };
        for (node, alive_until) in nodes.into_iter().zip(lives) {
            let mut of_node = self.view.keys().filter(|key| key.node == node).cloned().collect::<Vec<_>>();
            match alive_until {
                Some(until) => {
                    self.due.insert(node, until);
                    of_node.retain(|key| self.unconfirmed.contains(key));
                }
                None => _ = self.due.remove(&node),
            }
            let mut dead = Vec::new();
            for key in of_node {
                if let Some(seen) = self.take_away(&key) {
                    dead.push((key, seen.value));
                }
            }
            self.node.bury(&self.channel, dead);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.mailbox.close();
        self.session.remove_later(&self.mailbox);
    }
}
