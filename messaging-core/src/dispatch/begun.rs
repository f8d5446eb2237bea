//! An entry in a worker's hands: from the leave to begin it to what becomes of it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::ledger::{Fate, Leave, Ledger, Outcome, Place};
use crate::stream::{self, EventId};

/// How long an entry waits whose event is being handled as another entry.
const WHILE_RUNNING: Duration = Duration::from_secs(1);

/// Why an entry is not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotBegun {
    /// Others have it, or it comes again later.
    NotOurs,
    /// Its event has been handled.
    Duplicate,
}

/// An entry in a worker's hands. Dropped without an outcome, as when the call is cut off, it is handed back.
pub(super) struct Begun<'l> {
    ledger: &'l Ledger,
    place: Place,
    event: EventId,
    ended: bool,
}

impl<'l> Begun<'l> {
    /// Begins an entry. Without one, it is not ours any more, or its event was, or is being, handled (`dedupe`).
    pub(super) async fn begin(
        ledger: &'l Ledger,
        entry: &stream::Entry,
        waits_until: Instant,
        dedupe: Option<Duration>,
    ) -> Result<Self, NotBegun> {
        let place = (entry.stream, entry.id);
        if !entry.wait.is_zero() {
            tokio::select! {
                () = sleep_until(waits_until) => {}
                () = ledger.closed() => return Err(NotBegun::NotOurs),
            }
        }
        let leave = ledger.begin(place, entry.epoch, dedupe.map(|window| (&entry.event, window))).await;
        // Without its event: that is the other entry's.
        let end = |attempt, fate| ledger.end(Outcome { place, event: EventId::default(), attempt, fate });
        match leave {
            Leave::Granted => Ok(Self { ledger, place, event: entry.event.clone(), ended: false }),
            Leave::NotOurs => Err(NotBegun::NotOurs),
            Leave::Handled => {
                end(entry.attempt, Fate::Done);
                Err(NotBegun::Duplicate)
            }
            Leave::Running => {
                // It comes again with the same number.
                end(entry.attempt - 1, Fate::Retry(WHILE_RUNNING));
                Err(NotBegun::NotOurs)
            }
        }
    }

    /// Waits for the next call of an entry that is kept; `false` if it is not for us any more.
    pub(super) async fn again(&self, delay: Duration) -> bool {
        self.ledger.again(self.place, delay).await
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
    use super::*;
    use crate::stream::EntryId;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_cut_off_hands_its_entry_back() {
        const FIRST: Place = (0, EntryId { millis: 1, sequence: 0 });
        let ledger = Ledger::default();
        ledger.renew(0, Instant::now() + Duration::from_secs(5));
        ledger.hold(FIRST);
        assert_eq!(ledger.begin(FIRST, 0, None).await, Leave::Granted);
        drop(Begun { ledger: &ledger, place: FIRST, event: EventId::default(), ended: false });
        let outcomes = ledger.outcomes().await;
        assert!(matches!(&outcomes[..], [Outcome { place: FIRST, fate: Fate::HandBack, .. }]));
    }
}
