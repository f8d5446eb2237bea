//! Exclusive streams: each is handled by one consumer of its group at a time, and the consumers share them evenly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Consumer;
use super::queue::Tending;
use super::table::Known;
use crate::dispatch::Ledger;
use crate::error::Result;
use crate::stream::StreamName;

impl Consumer {
    /// Exclusive streams by their template, each with how many of them are a fair share of ours.
    pub(super) async fn templates(&self, streams: &[Arc<Known>]) -> Result<Vec<(Vec<Arc<Known>>, usize)>> {
        let mut templates: BTreeMap<StreamName, Vec<Arc<Known>>> = BTreeMap::new();
        for stream in streams {
            templates.entry(stream.name.whole()).or_default().push(Arc::clone(stream));
        }
        let mut shares = Vec::with_capacity(templates.len());
        for (whole, mut partitions) in templates {
            let lease = self.core.config.reclaim;
            let members = match partitions.len() {
                1 => 1,
                _ => self.core.backend.join(&whole, &self.member, lease).await?.max(1),
            };
            // Not all begin with the same one.
            let first = self.core.number % partitions.len();
            partitions.rotate_left(first);
            let share = partitions.len().div_ceil(usize::try_from(members).unwrap_or(usize::MAX));
            shares.push((partitions, share));
        }
        Ok(shares)
    }

    /// Keeps a share of exclusive streams: what is missing is taken where it is free, what is too much is given up once
    /// what is being handled of it has ended.
    pub(super) async fn tend_share(
        &self,
        ledger: &Ledger,
        streams: Vec<Arc<Known>>,
        share: usize,
        all: &mut Tending,
    ) {
        let (ours, others): (Vec<_>, Vec<_>) =
            streams.into_iter().partition(|stream| stream.owned.load(Ordering::Relaxed));
        let mut owned = 0;
        for stream in ours {
            if owned >= share && !self.stop_reading.is_cancelled() {
                match self.give_up(ledger, &stream).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => all.add(Err(error)),
                }
            } else if stream.leaving.swap(false, Ordering::Relaxed) {
                // Whoever it was for has gone meanwhile. What has been handed back, or is being so, goes before what is new.
                stream.recover(true);
            }
            all.add(self.tend_stream(ledger, &stream).await);
            owned += usize::from(stream.owned.load(Ordering::Relaxed));
        }
        for stream in others {
            if owned >= share || self.stop_reading.is_cancelled() {
                break;
            }
            all.add(self.tend_stream(ledger, &stream).await);
            owned += usize::from(stream.owned.load(Ordering::Relaxed));
        }
    }

    /// Gives an exclusive stream up when nothing of it is being handled any more. `true` when it has.
    async fn give_up(&self, ledger: &Ledger, stream: &Arc<Known>) -> Result<bool> {
        if !stream.leaving.swap(true, Ordering::Relaxed) && stream.close() {
            self.table.note_change();
        }
        ledger.hand_back(stream.number);
        if ledger.held_of(stream.number) > 0 {
            return Ok(false);
        }
        // The answer of a read may still be on its way: its entries are not ours any more.
        ledger.lapse(stream.number);
        self.core.backend.leave(&stream.name, &self.member).await?;
        stream.owned.store(false, Ordering::Relaxed);
        stream.leaving.store(false, Ordering::Relaxed);
        Ok(true)
    }

    /// An exclusive stream is not ours: what waits is not either.
    pub(super) fn lose(&self, ledger: &Ledger, stream: &Known) {
        if stream.owned.swap(false, Ordering::Relaxed) {
            ledger.lapse(stream.number);
            ledger.retain(stream.number, &ledger.waiting_of(stream.number), &[]);
        }
        stream.leaving.store(false, Ordering::Relaxed);
        if stream.close() {
            self.table.note_change();
        }
    }
}
