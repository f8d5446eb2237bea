//! What a queue's consumer holds for its handler: which entries wait, which are being handled, what has become of them,
//! and until when they are certainly ours. Knows nothing of the backend.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::retry::deadline;
use crate::stream::{EntryId, EventId};

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// Wakes who settles.
    outcomes: Notify,
    /// Wakes workers that wait for a lease.
    renewed: Notify,
    /// Wakes who waits until nothing is held.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<Place, Held>,
    outcomes: Vec<Outcome>,
    /// Until when what we hold of each stream is certainly ours.
    leases: Vec<Option<Instant>>,
    /// What was struck out since the backend was asked what is ours of a stream.
    struck_out: HashMap<usize, HashSet<EntryId>>,
    /// What the backend has given us again since it was asked which of those that wait are ours.
    given_again: HashMap<usize, HashSet<EntryId>>,
    /// How often each stream was begun anew with.
    epochs: HashMap<usize, u64>,
    events: Events,
    /// Nothing more is begun.
    closed: bool,
}

/// The events that are being handled here, and those that were handled lately: what was read before the backend had
/// heard of it would come as a surprise otherwise. Only for handlers with `dedupe`.
#[derive(Debug, Default)]
struct Events {
    running: HashSet<EventId>,
    handled: HashMap<EventId, Instant>,
    /// In the order of their end.
    order: VecDeque<EventId>,
}

/// How many handled events are remembered here.
const MOST_HANDLED: usize = 10_000;

/// Whether an entry may be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Granted,
    /// It is not ours any more, or nothing is begun any more.
    NotOurs,
    /// Its event has been handled as another entry.
    Handled,
    /// Its event is being handled as another entry.
    Running,
}

/// An entry of one of the consumer's streams.
pub(crate) type Place = (usize, EntryId);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Waiting,
    Begun,
    /// Its outcome has not been written yet.
    Ended,
}

/// What came of taking an entry into the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It is new.
    New,
    /// It waits or is being handled already.
    Known,
    /// Its stream is not ours any more, or nothing is begun any more.
    NotOurs,
    /// Its outcome was being written when the backend gave it to us: only the backend knows which came first.
    Unclear,
}

/// What has become of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) place: Place,
    pub(crate) event: EventId,
    /// Which attempt it was, counted from 1.
    pub(crate) attempt: u32,
    pub(crate) fate: Fate,
}

impl Outcome {
    fn handed_back(place: Place) -> Self {
        Self { place, event: EventId::default(), attempt: 0, fate: Fate::HandBack }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// There is nothing more to do.
    Done,
    /// It failed; the next attempt is due after this delay, in whatever process.
    Retry(Duration),
    /// The same, but the worker keeps it.
    Note(Duration),
    /// It is given up, for this reason.
    Dead(String),
    /// It was not handled.
    HandBack,
}

impl Ledger {
    /// Takes an entry into the books.
    pub(crate) fn hold(&self, place: Place) -> Hold {
        let mut state = self.lock();
        let leased = state.leases.get(place.0).is_some_and(Option::is_some);
        if state.closed || !leased {
            return Hold::NotOurs;
        }
        if state.struck_out.get(&place.0).is_some_and(|struck_out| struck_out.contains(&place.1)) {
            return Hold::Unclear;
        }
        let State { held, given_again, .. } = &mut *state;
        match held.entry(place) {
            Entry::Occupied(held) if *held.get() == Held::Ended => Hold::Unclear,
            Entry::Occupied(_) => {
                if let Some(given_again) = given_again.get_mut(&place.0) {
                    given_again.insert(place.1);
                }
                Hold::Known
            }
            Entry::Vacant(entry) => {
                entry.insert(Held::Waiting);
                Hold::New
            }
        }
    }

    /// The backend is being asked for all that is ours of a stream: its answer may name what is settled meanwhile. The
    /// guard is dropped when the answer has been dealt with.
    pub(crate) fn asking(&self, stream: usize) -> Asking<'_> {
        self.lock().struck_out.insert(stream, HashSet::new());
        Asking { ledger: self, stream }
    }

    /// Notes until when what is held of a stream is ours.
    pub(crate) fn renew(&self, stream: usize, until: Instant) {
        let mut state = self.lock();
        if state.leases.len() <= stream {
            state.leases.resize(stream + 1, None);
        }
        state.leases[stream] = Some(until);
        drop(state);
        self.renewed.notify_waiters();
    }

    /// What is held of a stream may be somebody else's from now on.
    pub(crate) fn lapse(&self, stream: usize) {
        if let Some(lease) = self.lock().leases.get_mut(stream) {
            *lease = None;
        }
        self.renewed.notify_waiters();
    }

    /// Gives up what of `known` still waits and is not among `ours` any more: others have it. `known` is what
    /// [`waiting_of`](Self::waiting_of) said before the backend was asked; what it has given us again meanwhile is ours.
    pub(crate) fn retain(&self, stream: usize, known: &[EntryId], ours: &[EntryId]) {
        let mut state = self.lock();
        let given_again = state.given_again.remove(&stream).unwrap_or_default();
        let is_others = |id: &&EntryId| ours.binary_search(id).is_err() && !given_again.contains(id);
        for id in known.iter().filter(is_others) {
            if state.held.get(&(stream, *id)) == Some(&Held::Waiting) {
                state.held.remove(&(stream, *id));
            }
        }
        drop(state);
        self.renewed.notify_waiters();
        self.emptied.notify_waiters();
    }

    /// Asks whether an entry may be begun now, and notes that it is. Waits while its lease has run out: others may be
    /// handling it. With its `event`, also asks whether that was, or is being, handled.
    ///
    /// Cancellation: it is not begun.
    pub(super) async fn begin(&self, place: Place, epoch: u64, event: Option<(&EventId, Duration)>) -> Leave {
        loop {
            let renewed = self.renewed.notified();
            tokio::pin!(renewed);
            {
                let mut state = self.lock();
                let State { closed, leases, held, events, epochs, .. } = &mut *state;
                if *closed || epoch != epochs.get(&place.0).copied().unwrap_or_default() {
                    return Leave::NotOurs;
                }
                let leased = leases.get(place.0).copied().flatten();
                match held.get_mut(&place) {
                    Some(held @ Held::Waiting) if leased.is_some_and(|until| Instant::now() < until) => {
                        *held = Held::Begun;
                        return event.map_or(Leave::Granted, |(event, window)| events.begin(event, window));
                    }
                    Some(Held::Waiting) => renewed.as_mut().enable(),
                    // It was given up, or came twice.
                    _ => return Leave::NotOurs,
                };
            }
            renewed.await;
        }
    }

    /// Asks whether an entry that was begun may be called again after this delay: not if its stream is not ours any more,
    /// or nothing is begun any more, which ends the delay. Waits while its lease has run out.
    ///
    /// Cancellation: nothing happens.
    pub(super) async fn again(&self, place: Place, delay: Duration) -> bool {
        let due = deadline(delay);
        loop {
            let renewed = self.renewed.notified();
            tokio::pin!(renewed);
            renewed.as_mut().enable();
            let leased = {
                let state = self.lock();
                match state.leases.get(place.0).copied().flatten() {
                    Some(until) if !state.closed => until,
                    _ => return false,
                }
            };
            let now = Instant::now();
            if now >= due && now < leased {
                return true;
            }
            tokio::select! {
                () = renewed => {}
                () = sleep_until(due), if now < due => {}
            }
        }
    }

    /// Waits until nothing is begun any more.
    pub(super) async fn closed(&self) {
        loop {
            let renewed = self.renewed.notified();
            tokio::pin!(renewed);
            renewed.as_mut().enable();
            if self.lock().closed {
                return;
            }
            renewed.await;
        }
    }

    /// Notes what has become of an entry that was begun.
    pub(crate) fn end(&self, outcome: Outcome) {
        let mut state = self.lock();
        // What the worker keeps stays begun.
        if !matches!(outcome.fate, Fate::Note(_)) {
            state.held.insert(outcome.place, Held::Ended);
            state.events.end(&outcome.event, matches!(outcome.fate, Fate::Done));
        }
        state.outcomes.push(outcome);
        if state.outcomes.len() == 1 {
            self.outcomes.notify_one();
        }
    }

    /// Waits for outcomes and takes them. Who has written them says so with [`written`](Self::written).
    ///
    /// Cancellation: nothing is taken.
    pub(crate) async fn outcomes(&self) -> Vec<Outcome> {
        loop {
            let outcomes = std::mem::take(&mut self.lock().outcomes);
            if !outcomes.is_empty() {
                return outcomes;
            }
            self.outcomes.notified().await;
        }
    }

    /// Puts outcomes back that could not be written.
    pub(crate) fn not_written(&self, mut outcomes: Vec<Outcome>) {
        let mut state = self.lock();
        outcomes.append(&mut state.outcomes);
        state.outcomes = outcomes;
        self.outcomes.notify_one();
    }

    /// Strikes entries out that wait, as if they had not been read.
    pub(crate) fn forget(&self, places: impl IntoIterator<Item = Place>) {
        let mut state = self.lock();
        for place in places {
            if state.held.get(&place) == Some(&Held::Waiting) {
                state.held.remove(&place);
            }
        }
    }

    /// Strikes entries out whose outcome has been written.
    pub(crate) fn written(&self, places: impl IntoIterator<Item = Place>) {
        let mut state = self.lock();
        for place in places {
            if state.held.get(&place) == Some(&Held::Ended) {
                state.held.remove(&place);
                if let Some(struck_out) = state.struck_out.get_mut(&place.0) {
                    struck_out.insert(place.1);
                }
            }
        }
        let empty = state.held.is_empty();
        drop(state);
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Lets nothing more be begun, and hands back what waits.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.hand_back(|_| true);
        drop(state);
        self.outcomes.notify_one();
        self.renewed.notify_waiters();
    }

    /// Hands back what waits of one stream.
    pub(crate) fn hand_back(&self, stream: usize) {
        self.lock().hand_back(|of| of == stream);
        self.outcomes.notify_one();
    }

    /// Hands back what is `ours` of a stream and was never taken into the books.
    pub(crate) fn hand_back_unread(&self, stream: usize, ours: impl IntoIterator<Item = EntryId>) {
        let mut state = self.lock();
        let State { held, outcomes, struck_out, .. } = &mut *state;
        let struck_out = struck_out.get(&stream);
        for id in ours.into_iter().filter(|id| !struck_out.is_some_and(|struck_out| struck_out.contains(id)))
        {
            if let Entry::Vacant(entry) = held.entry((stream, id)) {
                entry.insert(Held::Ended);
                outcomes.push(Outcome::handed_back((stream, id)));
            }
        }
        drop(state);
        self.outcomes.notify_one();
    }

    /// Strikes out all that waits of a stream: it will come again, in order, and what waits for a worker is void.
    pub(crate) fn begin_anew(&self, stream: usize) {
        let mut state = self.lock();
        state.held.retain(|(of, _), held| *of != stream || *held != Held::Waiting);
        *state.epochs.entry(stream).or_default() += 1;
        drop(state);
        self.renewed.notify_waiters();
        self.emptied.notify_waiters();
    }

    /// How often a stream was begun anew with.
    pub(crate) fn epoch(&self, stream: usize) -> u64 {
        self.lock().epochs.get(&stream).copied().unwrap_or_default()
    }

    /// What waits of a stream, before the backend is asked which of it is ours.
    pub(crate) fn waiting_of(&self, stream: usize) -> Vec<EntryId> {
        let mut state = self.lock();
        state.given_again.insert(stream, HashSet::new());
        let waiting = state.held.iter().filter(|((of, _), held)| *of == stream && **held == Held::Waiting);
        waiting.map(|((_, id), _)| *id).collect()
    }

    /// How many entries of a stream are held, whatever their state.
    pub(crate) fn held_of(&self, stream: usize) -> usize {
        self.lock().held.keys().filter(|(of, _)| *of == stream).count()
    }

    /// The oldest entry of a stream that is held.
    pub(crate) fn oldest_of(&self, stream: usize) -> Option<EntryId> {
        self.lock().held.keys().filter(|(of, _)| *of == stream).map(|(_, id)| *id).min()
    }

    /// Waits until every outcome has been written and nothing is held any more.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.lock().held.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    fn begin(&mut self, event: &EventId, window: Duration) -> Leave {
        if self.handled.get(event).is_some_and(|at| at.elapsed() < window) {
            Leave::Handled
        } else if self.running.insert(event.clone()) {
            Leave::Granted
        } else {
            Leave::Running
        }
    }

    fn end(&mut self, event: &EventId, handled: bool) {
        if !self.running.remove(event) || !handled {
            return;
        }
        let event = event.to_keep();
        if self.handled.insert(event.clone(), Instant::now()).is_none() {
            self.order.push_back(event);
            if self.order.len() > MOST_HANDLED
                && let Some(oldest) = self.order.pop_front()
            {
                self.handled.remove(&oldest);
            }
        }
    }
}

impl State {
    fn hand_back(&mut self, of: impl Fn(usize) -> bool) {
        for (place, held) in &mut self.held {
            if *held == Held::Waiting && of(place.0) {
                *held = Held::Ended;
                self.outcomes.push(Outcome::handed_back(*place));
            }
        }
    }
}

/// Somebody asks the backend what is ours.
pub(crate) struct Asking<'l> {
    ledger: &'l Ledger,
    stream: usize,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.ledger.lock().struck_out.remove(&self.stream);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const FIRST: Place = (0, EntryId { millis: 1, sequence: 0 });
    const SECOND: Place = (0, EntryId { millis: 2, sequence: 0 });

    fn outcome(place: Place, fate: Fate) -> Outcome {
        Outcome { place, event: EventId::default(), attempt: 1, fate }
    }

    fn leased() -> Ledger {
        let ledger = Ledger::default();
        ledger.renew(0, Instant::now() + Duration::from_secs(5));
        ledger
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_begun_without_a_lease() {
        let ledger = leased();
        assert_eq!((ledger.hold(FIRST), ledger.hold(FIRST)), (Hold::New, Hold::Known));
        tokio::time::advance(Duration::from_secs(6)).await;
        {
            let mut beginning = std::pin::pin!(ledger.begin(FIRST, 0, None));
            assert!(beginning.as_mut().now_or_never().is_none());
            ledger.renew(0, Instant::now() + Duration::from_secs(5));
            assert_eq!(beginning.await, Leave::Granted);
        }
        ledger.hold(SECOND);
        ledger.retain(0, &[SECOND.1], &[]);
        assert_eq!(ledger.begin(SECOND, 0, None).await, Leave::NotOurs, "somebody else has it");
        assert_eq!(ledger.held_of(0), 1, "what was begun is still ours to settle");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_to_us_again_while_the_backend_is_asked_stays_ours() {
        let ledger = leased();
        assert_eq!((ledger.hold(FIRST), ledger.hold(SECOND)), (Hold::New, Hold::New));
        let mut known = ledger.waiting_of(0);
        known.sort_unstable();
        assert_eq!(known, [FIRST.1, SECOND.1]);
        // A server that has lost what it gave us says that nothing is ours, and then gives us one of them once more.
        assert_eq!(ledger.hold(SECOND), Hold::Known);
        ledger.retain(0, &known, &[]);
        assert_eq!(ledger.begin(FIRST, 0, None).await, Leave::NotOurs);
        assert_eq!(ledger.begin(SECOND, 0, None).await, Leave::Granted, "nobody else would ever get it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_written_stays_in_the_books() {
        let ledger = leased();
        ledger.hold(FIRST);
        ledger.begin(FIRST, 0, None).await;
        ledger.end(outcome(FIRST, Fate::Done));
        let outcomes = ledger.outcomes().await;
        ledger.not_written(outcomes);
        assert_eq!(ledger.hold(FIRST), Hold::Unclear);
        assert!(ledger.emptied().now_or_never().is_none());
        let outcomes = ledger.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        ledger.written(outcomes.iter().map(|outcome| outcome.place));
        ledger.emptied().now_or_never().unwrap();
        assert!(ledger.outcomes().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_settled_while_the_backend_says_what_is_ours_is_not_begun_again() {
        let ledger = leased();
        ledger.hold(FIRST);
        assert_eq!(ledger.begin(FIRST, 0, None).await, Leave::Granted);
        let asking = ledger.asking(0);
        ledger.end(outcome(FIRST, Fate::Done));
        ledger.written([FIRST]);
        assert_eq!((ledger.hold(FIRST), ledger.hold(SECOND)), (Hold::Unclear, Hold::New));
        drop(asking);
        assert_eq!(ledger.hold(FIRST), Hold::New, "the backend says so again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_handled_once_at_a_time_and_not_again() {
        let ledger = leased();
        let event = EventId::random();
        let third = (0, EntryId { millis: 3, sequence: 0 });
        for place in [FIRST, SECOND, third] {
            ledger.hold(place);
        }
        assert_eq!(ledger.begin(FIRST, 0, Some((&event, Duration::from_secs(9)))).await, Leave::Granted);
        assert_eq!(ledger.begin(SECOND, 0, Some((&event, Duration::from_secs(9)))).await, Leave::Running);
        ledger.end(outcome(SECOND, Fate::Retry(Duration::ZERO)));
        ledger.end(Outcome { event: event.clone(), ..outcome(FIRST, Fate::Done) });
        assert_eq!(ledger.begin(third, 0, Some((&event, Duration::from_secs(9)))).await, Leave::Handled);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_stream_that_is_begun_anew_with_only_what_came_since_counts() {
        let ledger = leased();
        ledger.hold(FIRST);
        ledger.begin_anew(0);
        assert_eq!((ledger.hold(FIRST), ledger.epoch(0)), (Hold::New, 1));
        assert_eq!(ledger.begin(FIRST, 0, None).await, Leave::NotOurs, "the older of two copies");
        assert_eq!(ledger.begin(FIRST, 1, None).await, Leave::Granted);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_hands_back_what_waits_and_lets_what_was_begun_end() {
        let ledger = leased();
        ledger.hold(FIRST);
        ledger.hold(SECOND);
        ledger.begin(FIRST, 0, None).await;
        ledger.close();
        assert_eq!(ledger.begin(SECOND, 0, None).await, Leave::NotOurs);
        ledger.end(outcome(FIRST, Fate::Done));
        let fates: Vec<_> = ledger.outcomes().await.into_iter().map(|outcome| outcome.place).collect();
        assert_eq!(fates, [SECOND, FIRST]);
    }
}
