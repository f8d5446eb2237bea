//! What a queue's consumer holds for its handler: which entries wait, which are being handled, what has become of them,
//! and until when they are certainly ours. Knows nothing of the backend.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::stream::{Entry, EntryId, EventId};

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
    /// Nothing more is begun.
    closed: bool,
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

/// What has become of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) place: Place,
    pub(crate) event: EventId,
    /// Which attempt it was, counted from 1.
    pub(crate) attempt: u32,
    pub(crate) fate: Fate,
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
    /// Takes an entry into the books; `false` if it is there already.
    pub(crate) fn hold(&self, place: Place) -> bool {
        let mut state = self.lock();
        match state.held.entry(place) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Held::Waiting);
                true
            }
        }
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

    /// Gives up what waits of a stream and is not among `ours` any more: others have it.
    pub(crate) fn retain(&self, stream: usize, ours: &[EntryId]) {
        let mut state = self.lock();
        state.held.retain(|(of, id), held| {
            *of != stream || *held != Held::Waiting || ours.binary_search(id).is_ok()
        });
        drop(state);
        self.renewed.notify_waiters();
        self.emptied.notify_waiters();
    }

    /// Asks whether an entry may be begun now, and notes that it is. Waits while its lease has run out: others may be
    /// handling it. `false` if it is not ours any more, or nothing is begun any more.
    ///
    /// Cancellation: it is not begun.
    pub(crate) async fn begin(&self, place: Place) -> bool {
        loop {
            let renewed = self.renewed.notified();
            tokio::pin!(renewed);
            {
                let mut state = self.lock();
                if state.closed {
                    return false;
                }
                let leased = state.leases.get(place.0).copied().flatten();
                match state.held.get_mut(&place) {
                    Some(held) if leased.is_some_and(|until| Instant::now() < until) => {
                        *held = Held::Begun;
                        return true;
                    }
                    Some(_) => renewed.as_mut().enable(),
                    None => return false,
                };
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

    /// Strikes entries out whose outcome has been written.
    pub(crate) fn written(&self, places: impl IntoIterator<Item = Place>) {
        let mut state = self.lock();
        for place in places {
            if state.held.get(&place) == Some(&Held::Ended) {
                state.held.remove(&place);
            }
        }
        let empty = state.held.is_empty();
        drop(state);
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Lets nothing more be begun, and hands back what waits; returns how many entries that were.
    pub(crate) fn close(&self) -> usize {
        let mut state = self.lock();
        state.closed = true;
        let handed_back = state.hand_back(|_| true);
        drop(state);
        self.outcomes.notify_one();
        self.renewed.notify_waiters();
        handed_back
    }

    /// Hands back what waits of one stream.
    pub(crate) fn hand_back(&self, stream: usize) {
        self.lock().hand_back(|of| of == stream);
        self.outcomes.notify_one();
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

impl State {
    fn hand_back(&mut self, of: impl Fn(usize) -> bool) -> usize {
        let waiting: Vec<_> =
            self.held.iter().filter(|(place, held)| **held == Held::Waiting && of(place.0)).collect();
        let outcomes: Vec<_> = waiting
            .into_iter()
            .map(|(place, _)| Outcome {
                place: *place,
                event: EventId::default(),
                attempt: 0,
                fate: Fate::HandBack,
            })
            .collect();
        for outcome in &outcomes {
            self.held.insert(outcome.place, Held::Ended);
        }
        let count = outcomes.len();
        self.outcomes.extend(outcomes);
        count
    }
}

/// An entry in a worker's hands. Dropped without an outcome, as when the call is cut off, it is handed back.
pub(super) struct Begun<'l> {
    ledger: &'l Ledger,
    place: Place,
    event: EventId,
    ended: bool,
}

impl<'l> Begun<'l> {
    /// Begins an entry; `None` if it is not ours any more.
    pub(super) async fn begin(ledger: &'l Ledger, entry: &Entry) -> Option<Self> {
        let place = (entry.stream, entry.id);
        let begun = ledger.begin(place).await;
        begun.then(|| Self { ledger, place, event: entry.event.clone(), ended: false })
    }

    /// The call failed, and the next comes from here after a delay.
    pub(super) fn note(&self, attempt: u32, delay: Duration) {
        let (place, event) = (self.place, self.event.clone());
        self.ledger.end(Outcome { place, event, attempt, fate: Fate::Note(delay) });
    }

    pub(super) fn end(mut self, attempt: u32, fate: Fate) {
        self.ended = true;
        let (place, event) = (self.place, std::mem::take(&mut self.event));
        self.ledger.end(Outcome { place, event, attempt, fate });
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let (place, event) = (self.place, std::mem::take(&mut self.event));
            self.ledger.end(Outcome { place, event, attempt: 0, fate: Fate::HandBack });
        }
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
        assert!(ledger.hold(FIRST) && !ledger.hold(FIRST));
        tokio::time::advance(Duration::from_secs(6)).await;
        {
            let mut beginning = std::pin::pin!(ledger.begin(FIRST));
            assert!(beginning.as_mut().now_or_never().is_none());
            ledger.renew(0, Instant::now() + Duration::from_secs(5));
            assert!(beginning.await);
        }
        ledger.hold(SECOND);
        ledger.retain(0, &[]);
        assert!(!ledger.begin(SECOND).await, "somebody else has it");
        assert_eq!(ledger.held_of(0), 1, "what was begun is still ours to settle");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_written_stays_in_the_books() {
        let ledger = leased();
        ledger.hold(FIRST);
        ledger.begin(FIRST).await;
        ledger.end(outcome(FIRST, Fate::Done));
        let outcomes = ledger.outcomes().await;
        ledger.not_written(outcomes);
        assert!(!ledger.hold(FIRST) && ledger.emptied().now_or_never().is_none());
        let outcomes = ledger.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        ledger.written(outcomes.iter().map(|outcome| outcome.place));
        ledger.emptied().now_or_never().unwrap();
        assert!(ledger.outcomes().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn closing_hands_back_what_waits_and_lets_what_was_begun_end() {
        let ledger = leased();
        ledger.hold(FIRST);
        ledger.hold(SECOND);
        ledger.begin(FIRST).await;
        assert_eq!(ledger.close(), 1);
        assert!(!ledger.begin(SECOND).await);
        ledger.end(outcome(FIRST, Fate::Done));
        let fates: Vec<_> = ledger.outcomes().await.into_iter().map(|outcome| outcome.place).collect();
        assert_eq!(fates, [SECOND, FIRST]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_cut_off_hands_its_entry_back() {
        let ledger = leased();
        ledger.hold(FIRST);
        assert!(ledger.begin(FIRST).await);
        drop(Begun { ledger: &ledger, place: FIRST, event: EventId::default(), ended: false });
        let outcomes = ledger.outcomes().await;
        assert!(matches!(&outcomes[..], [Outcome { place: FIRST, fate: Fate::HandBack, .. }]));
    }
}
