//! Who gets what arrives for each channel and pattern, and what the backend has said of it. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::backend::Request;
use crate::channel::{Channel, Kind, Wire};
use crate::dispatch::{Batch, GapCause, Mailbox};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Received;

/// What is subscribed and what is not, as health shows it.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) confirmed: usize,
    pub(super) unconfirmed: BTreeMap<Wire, Option<String>>,
}

/// Looked up for each message. The names are those that this process subscribes to, and the hash has a random seed.
type Names = HashMap<Bytes, Route, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub(super) struct Routes {
    channels: Names,
    globs: Names,
    sharded: Names,
    slots: Vec<Option<Slot>>,
    /// The slot of each mailbox, by its address, and the slots that are free.
    slot_of: HashMap<usize, usize>,
    free: Vec<usize>,
    touched: Vec<usize>,
    refused: usize,
    next_id: u64,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug)]
struct Route {
    /// Tells a route from an earlier one of the same name, whose answers may still be on their way.
    id: u64,
    wire: Wire,
    /// What its messages say as their channel, without the deployment's prefix, once there was one; not for patterns.
    channel: Option<Channel>,
    state: RouteState,
    /// The slots that get its messages, with the number of the pattern in the slot's own list.
    targets: Vec<(usize, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RouteState {
    /// To be asked for, or asked for and not answered.
    Wanted,
    Confirmed,
    Refused(String),
}

/// A mailbox, and what is on its way to it.
#[derive(Debug)]
struct Slot {
    mailbox: Arc<Mailbox>,
    wires: Vec<Wire>,
    batch: Batch,
    waiting: Vec<oneshot::Sender<Result<()>>>,
    /// Something of it was subscribed once, so that a loss is a gap.
    established: bool,
    /// Something was missed since; the gap is announced when everything is confirmed or refused again, and not all of it
    /// refused.
    gap_due: bool,
}

impl Routes {
    pub(super) fn new(book: Arc<Mutex<Book>>) -> Self {
        Self { book, ..Self::default() }
    }

    fn map(&mut self, kind: Kind) -> &mut Names {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Glob => &mut self.globs,
            Kind::Sharded => &mut self.sharded,
        }
    }

    fn route(&self, wire: &Wire) -> Option<&Route> {
        let routes = match wire.kind {
            Kind::Channel => &self.channels,
            Kind::Glob => &self.globs,
            Kind::Sharded => &self.sharded,
        };
        routes.get(wire.name.as_bytes())
    }

    fn routes(&self) -> impl Iterator<Item = &Route> {
        self.channels.values().chain(self.globs.values()).chain(self.sharded.values())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes().next().is_none()
    }

    /// What has to be asked for on a new connection.
    pub(super) fn all(&self) -> Vec<Request> {
        self.routes().map(|route| Request::Subscribe(route.wire.clone())).collect()
    }

    pub(super) fn has_refused(&self) -> bool {
        self.refused > 0
    }

    /// What has been refused, to be asked for again.
    pub(super) fn refused(&self) -> Vec<Request> {
        let refused = self.routes().filter(|route| matches!(route.state, RouteState::Refused(_)));
        refused.map(|route| Request::Subscribe(route.wire.clone())).collect()
    }

    /// The identity of the route that a request for `wire` is for.
    pub(super) fn id(&self, wire: &Wire) -> u64 {
        self.route(wire).map_or(0, |route| route.id)
    }

    /// Adds a mailbox; returns what has to be asked for.
    pub(super) fn add(&mut self, mailbox: Arc<Mailbox>, wires: Vec<Wire>) -> Vec<Request> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slot_of.insert(Arc::as_ptr(&mailbox).addr(), slot);
        let mut requests = Vec::new();
        for (number, wire) in wires.iter().enumerate() {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            let key = Bytes::copy_from_slice(wire.name.as_bytes());
            let id = self.next_id + 1;
            let route = self.map(wire.kind).entry(key).or_insert_with(|| {
                requests.push(Request::Subscribe(wire.clone()));
                Route {
                    id,
                    wire: wire.clone(),
                    channel: None,
                    state: RouteState::Wanted,
                    targets: Vec::new(),
                }
            });
            route.targets.push((slot, number));
            if route.id == id {
                self.next_id = id;
                self.book().unconfirmed.insert(wire.clone(), None);
            }
        }
        self.slots[slot] = Some(Slot {
            mailbox,
            wires,
            batch: Batch::default(),
            waiting: Vec::new(),
            established: false,
            gap_due: false,
        });
        self.answer(slot, None);
        requests
    }

    /// Tells `confirmed` when everything that the mailbox wants is answered.
    pub(super) fn confirm(&mut self, mailbox: &Arc<Mailbox>, confirmed: oneshot::Sender<Result<()>>) {
        // A mailbox that is not here has been removed; its sender is dropped, which says so.
        if let Some(&number) = self.slot_of.get(&Arc::as_ptr(mailbox).addr()) {
            if let Some(slot) = &mut self.slots[number] {
                slot.waiting.push(confirmed);
            }
            self.answer(number, None);
        }
    }

    /// Removes a mailbox; returns what need not be subscribed any more.
    pub(super) fn remove(&mut self, mailbox: &Arc<Mailbox>) -> Vec<Request> {
        let Some(number) = self.slot_of.remove(&Arc::as_ptr(mailbox).addr()) else { return Vec::new() };
        let Some(slot) = self.slots[number].take() else { return Vec::new() };
        self.free.push(number);
        let mut requests = Vec::new();
        for wire in slot.wires {
            let routes = self.map(wire.kind);
            let Some(route) = routes.get_mut(wire.name.as_bytes()) else { continue };
            route.targets.retain(|(target, _)| *target != number);
            if route.targets.is_empty()
                && let Some(route) = routes.remove(wire.name.as_bytes())
            {
                self.leave(&route.wire, &route.state);
                requests.push(Request::Unsubscribe(wire));
            }
        }
        requests
    }

    /// Notes what became of the subscription that was asked for as `id`; `false` if that is nothing new.
    pub(super) fn note(&mut self, wire: &Wire, id: u64, state: RouteState, generation: u64) -> bool {
        let Some(route) = self.map(wire.kind).get_mut(wire.name.as_bytes()).filter(|route| route.id == id)
        else {
            return false;
        };
        if route.state == state {
            return false;
        }
        let before = std::mem::replace(&mut route.state, state.clone());
        let targets: Vec<usize> = route.targets.iter().map(|(slot, _)| *slot).collect();
        self.leave(wire, &before);
        self.enter(wire, &state);
        // A channel that was refused for a while and is confirmed now has missed messages too.
        let late = matches!(before, RouteState::Refused(_)) && state == RouteState::Confirmed;
        for number in targets {
            if let Some(slot) = self.slots[number].as_mut().filter(|slot| late && slot.established) {
                slot.gap_due = true;
            }
            self.answer(number, Some(generation));
        }
        true
    }

    /// The connection is gone: nothing is confirmed, and everybody who was subscribed misses messages from now on.
    pub(super) fn lost(&mut self) {
        let mut book = lock(&self.book);
        let routes =
            self.channels.values_mut().chain(self.globs.values_mut()).chain(self.sharded.values_mut());
        for route in routes {
            route.state = RouteState::Wanted;
            book.unconfirmed.insert(route.wire.clone(), None);
        }
        book.confirmed = 0;
        self.refused = 0;
        for slot in self.slots.iter_mut().flatten() {
            slot.gap_due |= slot.established;
        }
    }

    /// One subscription is gone; `false` if that is nothing new, or nobody wants it.
    pub(super) fn lost_one(&mut self, wire: &Wire) -> bool {
        let Some(route) = self.map(wire.kind).get_mut(wire.name.as_bytes()) else { return false };
        if route.state != RouteState::Confirmed {
            return false;
        }
        route.state = RouteState::Wanted;
        let targets: Vec<usize> = route.targets.iter().map(|(slot, _)| *slot).collect();
        self.leave(wire, &RouteState::Confirmed);
        self.enter(wire, &RouteState::Wanted);
        for number in targets {
            if let Some(slot) = &mut self.slots[number] {
                slot.gap_due |= slot.established;
            }
        }
        true
    }

    /// Puts a message into the batches of those who want it. `name` is that of the subscription by which it came; `channel`
    /// makes a copy of the channel's name that may be kept. `false` if the channel cannot be read.
    pub(super) fn distribute(
        &mut self,
        prefix: &str,
        (kind, name): (Kind, &[u8]),
        channel: impl FnOnce() -> Bytes,
        payload: Bytes,
        at: std::time::Instant,
    ) -> bool {
        // Nobody: it was on its way while the last subscriber left.
        let routes = match kind {
            Kind::Channel => &mut self.channels,
            Kind::Glob => &mut self.globs,
            Kind::Sharded => &mut self.sharded,
        };
        let Some(route) = routes.get_mut(name) else { return true };
        let named = |channel| Channel::from_wire(channel).and_then(|channel| channel.without_prefix(prefix));
        let channel = match (kind, &route.channel) {
            (Kind::Glob, _) => named(channel()),
            (Kind::Channel | Kind::Sharded, Some(channel)) => Some(channel.clone()),
            (Kind::Channel | Kind::Sharded, None) => {
                // A copy, or it would keep the chunk alive that it came in.
                route.channel = named(Bytes::copy_from_slice(name));
                route.channel.clone()
            }
        };
        let Some(channel) = channel else { return false };
        let Some((last, others)) = route.targets.split_last() else { return true };
        let (slots, touched) = (&mut self.slots, &mut self.touched);
        let mut to = |(number, pattern): (usize, u16), channel, payload| {
            let Some(slot) = &mut slots[number] else { return };
            if slot.batch.is_empty() {
                touched.push(number);
            }
            slot.batch.push(Received { channel, payload, at, pattern, entry: None });
        };
        for target in others {
            to(*target, channel.clone(), payload.clone());
        }
        to(*last, channel, payload);
        true
    }

    /// Hands the batches over: first to everyone who has room, then to those whose policy makes us wait. Returns for how
    /// long it waited.
    pub(super) async fn deliver(&mut self) -> Duration {
        let slots = &mut self.slots;
        self.touched.retain(|number| match &mut slots[*number] {
            Some(slot) => !slot.mailbox.try_push(&mut slot.batch),
            None => false,
        });
        if self.touched.is_empty() {
            return Duration::ZERO;
        }
        self.touched.clear();
        let full = slots.iter_mut().flatten().filter(|slot| !slot.batch.is_empty());
        // All at the same time: two stuck handlers hold the others up no longer than one.
        let waits = join_all(full.map(|slot| slot.mailbox.push(&mut slot.batch))).await;
        waits.into_iter().max().unwrap_or_default()
    }

    /// Tells a slot that waits what has become of its subscription, if that is clear by now, and announces its gap.
    fn answer(&mut self, number: usize, generation: Option<u64>) {
        let Some(slot) = &self.slots[number] else { return };
        let (mut refusal, mut hears) = (None, false);
        for wire in &slot.wires {
            match self.route(wire).map(|route| &route.state) {
                Some(RouteState::Confirmed) | None => hears = true,
                Some(RouteState::Wanted) => return,
                Some(RouteState::Refused(reason)) => {
                    refusal.get_or_insert_with(|| format!("cannot subscribe to {:?}: {reason}", wire.name));
                }
            }
        }
        let Some(slot) = &mut self.slots[number] else { return };
        for waiting in slot.waiting.drain(..) {
            let _ = waiting.send(match &refusal {
                None => Ok(()),
                Some(reason) => Err(Error::new(ErrorKind::Refused, reason.clone()).before_sending()),
            });
        }
        slot.established |= hears;
        // As long as all of it is refused the gap goes on, and whoever caught up now would have to do so again.
        if let Some(generation) = generation.filter(|_| slot.gap_due && hears) {
            slot.gap_due = false;
            slot.mailbox.gap(GapCause::Reconnected(generation));
        }
    }

    fn enter(&mut self, wire: &Wire, state: &RouteState) {
        self.refused += usize::from(matches!(state, RouteState::Refused(_)));
        let mut book = self.book();
        match state {
            RouteState::Confirmed => book.confirmed += 1,
            RouteState::Wanted => _ = book.unconfirmed.insert(wire.clone(), None),
            RouteState::Refused(reason) => _ = book.unconfirmed.insert(wire.clone(), Some(reason.clone())),
        }
    }

    fn leave(&mut self, wire: &Wire, state: &RouteState) {
        self.refused -= usize::from(matches!(state, RouteState::Refused(_)));
        let mut book = self.book();
        match state {
            RouteState::Confirmed => book.confirmed -= 1,
            RouteState::Wanted | RouteState::Refused(_) => _ = book.unconfirmed.remove(wire),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{Buffer, Entry, Overflow};

    fn wire(name: &str) -> Wire {
        let kind = if name.contains('*') { Kind::Glob } else { Kind::Channel };
        Wire { kind, name: name.to_owned() }
    }

    fn mailbox() -> Arc<Mailbox> {
        Arc::new(Mailbox::for_subscription(Buffer::DEFAULT, Overflow::Wait))
    }

    /// What is known of a confirmation: nothing yet, or whether it came.
    fn answered(answer: &mut oneshot::Receiver<Result<()>>) -> Option<bool> {
        answer.try_recv().ok().map(|answer| answer.is_ok())
    }

    fn confirm(routes: &mut Routes, name: &str, generation: u64) -> bool {
        let id = routes.id(&wire(name));
        routes.note(&wire(name), id, RouteState::Confirmed, generation)
    }

    async fn gaps(mailbox: &Mailbox) -> Vec<GapCause> {
        mailbox.close();
        let mut gaps = Vec::new();
        while let Some(Entry::Gap(cause)) = mailbox.pop(0).await {
            gaps.push(cause);
        }
        gaps
    }

    #[test]
    fn a_slot_is_confirmed_when_all_of_its_channels_are() {
        let (mut routes, mailbox) = (Routes::default(), mailbox());
        assert_eq!(routes.add(Arc::clone(&mailbox), vec![wire("a"), wire("b*")]).len(), 2);
        let (confirmed, mut answer) = oneshot::channel();
        routes.confirm(&mailbox, confirmed);
        confirm(&mut routes, "a", 0);
        assert_eq!(answered(&mut answer), None);
        confirm(&mut routes, "b*", 0);
        assert_eq!(answered(&mut answer), Some(true));
        // What is there already is not asked for again, and given up only with its last user.
        let other = self::mailbox();
        assert!(routes.add(Arc::clone(&other), vec![wire("a")]).is_empty());
        assert_eq!(routes.remove(&mailbox), [Request::Unsubscribe(wire("b*"))]);
        assert_eq!(routes.remove(&other), [Request::Unsubscribe(wire("a"))]);
        assert!(routes.is_empty());
    }

    #[test]
    fn an_answer_to_an_earlier_subscription_of_the_name_confirms_nothing() {
        let (mut routes, first, second) = (Routes::default(), mailbox(), mailbox());
        routes.add(Arc::clone(&first), vec![wire("a")]);
        let old = routes.id(&wire("a"));
        routes.remove(&first);
        routes.add(Arc::clone(&second), vec![wire("a")]);
        let (confirmed, mut answer) = oneshot::channel();
        routes.confirm(&second, confirmed);
        assert!(!routes.note(&wire("a"), old, RouteState::Confirmed, 0));
        assert_eq!(answered(&mut answer), None);
        confirm(&mut routes, "a", 0);
        assert_eq!(answered(&mut answer), Some(true));
    }

    #[tokio::test]
    async fn a_gap_is_announced_once_when_everything_is_confirmed_again() {
        let (mut routes, mailbox) = (Routes::default(), mailbox());
        routes.add(Arc::clone(&mailbox), vec![wire("a"), wire("b")]);
        confirm(&mut routes, "a", 0);
        confirm(&mut routes, "b", 0);
        for generation in [1, 2] {
            routes.lost();
            confirm(&mut routes, "a", generation);
        }
        confirm(&mut routes, "b", 2);
        assert_eq!(gaps(&mailbox).await, [GapCause::Reconnected(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn several_stuck_consumers_hold_the_reader_up_no_longer_than_one() {
        let mut routes = Routes::default();
        let mailboxes = [mailbox(), mailbox(), mailbox()];
        for mailbox in &mailboxes {
            routes.add(Arc::clone(mailbox), vec![wire("a")]);
        }
        let begun = tokio::time::Instant::now();
        for _ in 0..2 * Buffer::DEFAULT.messages.get() {
            let payload = Bytes::from_static(b"1");
            let at = std::time::Instant::now();
            assert!(routes.distribute("", (Kind::Channel, b"a"), || unreachable!(), payload, at));
            routes.deliver().await;
        }
        let waited = begun.elapsed().as_millis();
        assert!((1_000..1_100).contains(&waited), "{waited} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_drops_holds_nobody_up() {
        let mut routes = Routes::default();
        let mailbox = Arc::new(Mailbox::for_subscription(Buffer::DEFAULT, Overflow::DropOldest));
        routes.add(Arc::clone(&mailbox), vec![wire("a")]);
        for _ in 0..2 * Buffer::DEFAULT.messages.get() {
            let payload = Bytes::from_static(b"1");
            let at = std::time::Instant::now();
            assert!(routes.distribute("", (Kind::Channel, b"a"), || unreachable!(), payload, at));
            assert_eq!(routes.deliver().await, Duration::ZERO);
        }
        assert_eq!(mailbox.counts().1, Buffer::DEFAULT.messages.get() as u64);
    }

    #[tokio::test]
    async fn a_refused_channel_holds_no_other_up_and_is_a_gap_when_it_comes_back() {
        let book = Arc::<Mutex<Book>>::default();
        let (mut routes, mailbox) = (Routes::new(Arc::clone(&book)), mailbox());
        routes.add(Arc::clone(&mailbox), vec![wire("a"), wire("b")]);
        confirm(&mut routes, "a", 0);
        let (confirmed, mut answer) = oneshot::channel();
        routes.confirm(&mailbox, confirmed);
        let id = routes.id(&wire("b"));
        let refused = RouteState::Refused("NOPERM".to_owned());
        assert!(routes.note(&wire("b"), id, refused.clone(), 0));
        assert!(!routes.note(&wire("b"), id, refused, 0), "the same refusal again is nothing new");
        assert_eq!(answered(&mut answer), Some(false));
        assert_eq!(routes.refused(), [Request::Subscribe(wire("b"))]);
        assert_eq!(lock(&book).unconfirmed[&wire("b")].as_deref(), Some("NOPERM"));
        confirm(&mut routes, "b", 0);
        assert!(!routes.has_refused());
        let known = |book: &Mutex<Book>| {
            let book = lock(book);
            (book.confirmed, book.unconfirmed.len())
        };
        assert_eq!(known(&book), (2, 0));
        assert_eq!(gaps(&mailbox).await, [GapCause::Reconnected(0)]);
    }

    #[tokio::test]
    async fn a_part_that_is_lost_is_one_gap_when_it_is_back() {
        let (mut routes, both, other) = (Routes::default(), mailbox(), mailbox());
        routes.add(Arc::clone(&both), vec![wire("a"), wire("b")]);
        routes.add(Arc::clone(&other), vec![wire("c")]);
        assert!(!routes.lost_one(&wire("a")), "it was not there yet");
        for name in ["a", "b", "c"] {
            confirm(&mut routes, name, 0);
        }
        assert!(routes.lost_one(&wire("a")) && routes.lost_one(&wire("b")));
        assert!(!routes.lost_one(&wire("b")), "nothing new");
        assert!(!routes.lost_one(&wire("x")), "nobody wants it");
        confirm(&mut routes, "a", 1);
        assert_eq!(both.counts().2, 0, "not before all of it is back");
        confirm(&mut routes, "b", 1);
        assert_eq!(gaps(&both).await, [GapCause::Reconnected(1)]);
        assert_eq!(gaps(&other).await, []);
    }

    #[tokio::test]
    async fn a_gap_is_not_announced_while_nothing_is_heard_yet() {
        let (mut routes, mailbox) = (Routes::default(), mailbox());
        routes.add(Arc::clone(&mailbox), vec![wire("a"), wire("b")]);
        confirm(&mut routes, "a", 0);
        confirm(&mut routes, "b", 0);
        routes.lost();
        for name in ["a", "b"] {
            let id = routes.id(&wire(name));
            routes.note(&wire(name), id, RouteState::Refused("NOPERM".to_owned()), 1);
        }
        let (_, _, announced) = mailbox.counts();
        assert_eq!(announced, 0, "what is published from now on would be missed after a resync");
        confirm(&mut routes, "a", 1);
        let (_, _, announced) = mailbox.counts();
        assert_eq!(announced, 1);
        assert_eq!(gaps(&mailbox).await, [GapCause::Reconnected(1)]);
    }
}
