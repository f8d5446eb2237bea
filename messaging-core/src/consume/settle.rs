//! Writes what has become of a queue's entries, until it is written.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::Consumer;
use crate::backend::streams::{Notice, Settlement};
use crate::dispatch::{Fate, Ledger, Outcome};
use crate::error::{Error, Result};
use crate::json;
use crate::stream::DeadRecord;

/// What the dead-letter channel is told.
#[derive(Serialize)]
struct DeadLetterNotice<'a> {
    event: &'a str,
    stream: String,
    entry: String,
    group: &'a str,
    handler: &'a str,
    attempts: u32,
    error: &'a str,
}

impl Consumer {
    /// Writes outcomes for ever, in as few commands as there are moments to write.
    pub(super) async fn settle(&self, ledger: &Ledger) {
        let mut failures = 0;
        loop {
            let outcomes = ledger.outcomes().await;
            match self.write(ledger, outcomes).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    let again = self.failed(&error, failures);
                    failures += 1;
                    tokio::time::sleep(again).await;
                }
            }
        }
    }

    async fn write(&self, ledger: &Ledger, outcomes: Vec<Outcome>) -> Result<()> {
        let mut by_stream: BTreeMap<usize, Vec<Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            by_stream.entry(outcome.place.0).or_default().push(outcome);
        }
        let streams = self.table.all();
        let mut result: Result<()> = Ok(());
        for (stream, outcomes) in by_stream {
            // Without a connection the others fail too, unless they are on other servers; what is wrong with one stream
            // concerns no other.
            if self.core.backend.readable_together() && result.as_ref().is_err_and(Error::is_retryable) {
                ledger.not_written(outcomes);
                continue;
            }
            let name = &streams[stream].name;
            let settlements: Vec<_> = outcomes.iter().map(|outcome| self.settlement(outcome)).collect();
            match self.core.backend.settle(name, &self.member, &settlements).await {
                Ok(()) => {
                    self.note_written(&settlements);
                    // What a worker keeps has not ended; what has ended meanwhile has not been written.
                    let ended = outcomes.into_iter().filter(|outcome| !matches!(outcome.fate, Fate::Note(_)));
                    ledger.written(ended.map(|outcome| outcome.place));
                }
                Err(error) => {
                    ledger.not_written(outcomes);
                    result = Err(error);
                }
            }
        }
        result
    }

    fn settlement(&self, outcome: &Outcome) -> Settlement {
        let Outcome { place: (stream, id), event, attempt, fate } = outcome;
        let (id, next) = (*id, attempt.saturating_add(1));
        match fate {
            Fate::Done => {
                let window = self.running.options.dedupe.filter(|_| !event.is_empty());
                let remember = window.map(|window| (event.clone(), window));
                // With `dedupe` an entry may have been put back without an attempt.
                let retried = *attempt > 1 || self.running.options.dedupe.is_some();
                Settlement::Done { id, remember, retried }
            }
            Fate::Retry(delay) => Settlement::Retry { id, next, delay: *delay },
            Fate::Note(delay) => Settlement::Note { id, next, delay: *delay },
            Fate::HandBack => Settlement::HandBack { id },
            Fate::Dead(error) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let record = DeadRecord {
                    handler: self.running.id.to_string(),
                    error: json::shortened(error),
                    attempts: *attempt,
                    failed_at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
                };
                let notice = self.dead_letter.as_ref().map(|channel| Notice {
                    channel: channel.clone(),
                    payload: self.notice(*stream, outcome, &record),
                });
                Settlement::Dead { id, record, notice }
            }
        }
    }

    fn notice(&self, stream: usize, outcome: &Outcome, record: &DeadRecord) -> Bytes {
        let notice = DeadLetterNotice {
            event: &outcome.event,
            stream: self.table.all()[stream].name.to_string(),
            entry: outcome.place.1.to_string(),
            group: &self.member.group,
            handler: &record.handler,
            attempts: record.attempts,
            error: &record.error,
        };
        json::encode(&notice).unwrap_or_default()
    }

    fn note_written(&self, settlements: &[Settlement]) {
        let dead =
            settlements.iter().filter(|settlement| matches!(settlement, Settlement::Dead { .. })).count();
        if dead > 0 {
            self.counts.dead_lettered.by(dead);
        }
        let delays = settlements.iter().filter_map(|settlement| match settlement {
            Settlement::Retry { delay, .. } => Some(*delay),
            // Somebody may want it at once, if only ourselves.
            Settlement::HandBack { .. } => Some(Duration::ZERO),
            Settlement::Done { .. } | Settlement::Note { .. } | Settlement::Dead { .. } => None,
        });
        if let Some(soonest) = delays.min() {
            self.tend_by(Instant::now() + soonest);
        }
    }

    /// Gives back what the backend thinks that we have, and leaves all groups.
    pub(super) async fn leave(&self) -> Result<()> {
        for stream in self.table.all() {
            if self.is_exclusive() && !stream.owned.load(Ordering::Relaxed) {
                continue;
            }
            // An answer that was lost may have brought us something.
            let ids = self.core.backend.holdings(&stream.name, &self.member).await.unwrap_or_default();
            let back: Vec<_> = ids.into_iter().map(|id| Settlement::HandBack { id }).collect();
            if !back.is_empty() {
                self.core.backend.settle(&stream.name, &self.member, &back).await?;
            }
            self.core.backend.leave(&stream.name, &self.member).await?;
            if stream.name.partition().is_some() {
                self.core.backend.withdraw(&stream.name, &self.member).await?;
            }
        }
        Ok(())
    }
}
