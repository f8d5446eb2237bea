//! Exclusive streams: each is handled by one consumer of its group at a time, and the consumers share them evenly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Consumer;
use super::queue::Tending;
use super::table::Known;
use crate::dispatch::Ledger;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::StreamName;

impl Consumer {
    /// Exclusive streams by their template, each with how many of them are a fair share of ours.
    pub(super) async fn templates(
        &self,
        streams: &[Arc<Known>],
        all: &mut Tending,
    ) -> Vec<(Vec<Arc<Known>>, usize)> {
        let mut templates: BTreeMap<StreamName, Vec<Arc<Known>>> = BTreeMap::new();
        for stream in streams {
            templates.entry(stream.name.whole()).or_default().push(Arc::clone(stream));
        }
        let mut shares = Vec::with_capacity(templates.len());
        for (whole, mut partitions) in templates {
            let members = match partitions.len() {
                1 => Ok(1),
                _ => self.members(&whole).await,
            };
            // Not all begin with the same one.
            let first = self.core.number % partitions.len();
            partitions.rotate_left(first);
            let share = match members {
                Ok(members) => partitions.len().div_ceil(members),
                // As long as nobody knows who else there is, we keep what we have.
                Err(error) => {
                    all.add(Err(error));
                    owned(&partitions)
                }
            };
            shares.push((partitions, share));
        }
        shares
    }

    /// How many share the partitions. It takes no longer than the leases can spare: the server that knows may be away,
    /// and those of the partitions not.
    async fn members(&self, whole: &StreamName) -> Result<usize> {
        let lease = self.core.config.reclaim;
        let joining = self.core.backend.join(whole, &self.member, lease);
        let members = timeout(lease / 6, joining).await.unwrap_or_else(|_| {
            let text = format!("nobody said in time who shares the partitions of {whole}");
            Err(Error::new(ErrorKind::Timeout, text))
        })?;
        Ok(usize::try_from(members).unwrap_or(usize::MAX).max(1))
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
        let (ours, mut others): (Vec<_>, Vec<_>) =
            streams.into_iter().partition(|stream| stream.owned.load(Ordering::Relaxed));
        let stopping = self.stop_reading.is_cancelled();
        // All at once: one whose server is away must not cost us the others' leases.
        let tending = ours.iter().enumerate().map(async |(position, stream)| {
            if position >= share && !stopping {
                return self.give_up_or_tend(ledger, stream).await;
            }
            if stream.leaving.swap(false, Ordering::Relaxed) {
                // Whoever it was for has gone meanwhile. What has been handed back, or is being so, goes before what is
                // new.
                stream.recover(true);
            }
            self.tend_stream(ledger, stream).await
        });
        join_all(tending).await.into_iter().for_each(|tended| all.add(tended));
        let mut missing = share.saturating_sub(owned(&ours));
        while missing > 0 && !others.is_empty() && !self.stop_reading.is_cancelled() {
            let asked: Vec<_> = others.drain(..missing.min(others.len())).collect();
            let tended = join_all(asked.iter().map(|stream| self.tend_stream(ledger, stream))).await;
            tended.into_iter().for_each(|tended| all.add(tended));
            missing -= owned(&asked);
        }
    }

    async fn give_up_or_tend(&self, ledger: &Ledger, stream: &Arc<Known>) -> Result<Tending> {
        let given_up = self.give_up(ledger, stream).await;
        if given_up.as_ref().is_ok_and(|given_up| *given_up) {
            return Ok(Tending::default());
        }
        let tended = self.tend_stream(ledger, stream).await;
        given_up.and(tended)
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

/// How many of these are ours.
fn owned(streams: &[Arc<Known>]) -> usize {
    streams.iter().filter(|stream| stream.owned.load(Ordering::Relaxed)).count()
}
