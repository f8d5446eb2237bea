//! A queue: shows that we live, and takes over what is abandoned or due. Reading what is new is in `read`, sharing exclusive
//! streams in `share`.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::table::{Again, Known};
use super::{AT_ONCE, Consumer, lock, news};
use crate::backend::StreamWatch;
use crate::backend::streams::{Tend, Tended};
use crate::dispatch::Ledger;
use crate::error::{Error, ErrorKind, Result, chain};

impl Consumer {
    pub(super) async fn run_queue(&self, ledger: &Ledger) {
        self.running.mailbox.set_target(self.pace.target());
        let reading = async {
            tokio::select! {
                () = self.stop_reading.cancelled() => {}
                () = self.read_all() => {}
            }
        };
        tokio::join!(self.settle(ledger), self.tend_all(ledger), reading);
    }

    /// Shows that we live, and leaves when everything is settled.
    async fn tend_all(&self, ledger: &Ledger) {
        let beat = self.core.config.reclaim / 3;
        let mut look_at = Instant::now();
        let mut failures = 0;
        while !self.finishing.is_cancelled() {
            let begun = Instant::now();
            let Tending { next_due, more, error } = self.tend_once(ledger, &mut look_at).await;
            self.table.tell();
            let mut next = begun + beat;
            if let Some(due) = next_due {
                next = next.min(begun + due);
            }
            match error {
                None => {
                    failures = 0;
                    self.succeeded();
                    self.confirm();
                }
                Some(error) => {
                    let again = Instant::now() + self.failed(&error, failures);
                    // What is wrong with one stream alone does not keep the leases of the others from being renewed.
                    next = if error.is_retryable() { again } else { again.min(next) };
                    failures += 1;
                }
            }
            self.pause(next.min(look_at), more).await;
        }
        if let Err(error) = self.leave().await {
            tracing::debug!(handler = %self.running.id, error = %chain(&error), "did not leave its groups; its lease runs out");
        }
        self.left.cancel();
    }

    /// Waits until then, or until something is due, or until there is room for what is left to take.
    async fn pause(&self, mut next: Instant, wants_room: bool) {
        let stopping = self.stop_reading.is_cancelled();
        let room = async {
            match wants_room && !stopping && self.running.mailbox.room().await.is_some() {
                true => {}
                false => pending().await,
            }
        };
        tokio::pin!(room);
        loop {
            if let Some(at) = lock(&self.tend_at).take() {
                next = next.min(at);
            }
            tokio::select! {
                () = sleep_until(next) => return,
                () = self.tend.notified() => {}
                () = news(self.watch.as_ref()), if !stopping => return,
                () = &mut room => return,
                () = self.finishing.cancelled() => return,
            }
        }
    }

    /// Tends all streams; what is wrong with one does not keep the others from it.
    async fn tend_once(&self, ledger: &Ledger, look_at: &mut Instant) -> Tending {
        let mut all = Tending::default();
        let news = self.watch.as_ref().and_then(StreamWatch::take);
        if (news.is_some() || Instant::now() >= *look_at) && !self.stop_reading.is_cancelled() {
            match self.look().await {
                Ok(new) => {
                    let made = join_all(new.iter().map(|stream| self.ensure_group(stream))).await;
                    made.into_iter().for_each(|made| all.add(made.map(|()| Tending::default())));
                }
                Err(error) => all.add(Err(error)),
            }
            // What failed is told, and tried again with the rest.
            *look_at = Instant::now() + self.next_look();
        }
        let streams = self.table.all();
        if self.is_exclusive() {
            for (streams, share) in self.templates(&streams, &mut all).await {
                self.tend_share(ledger, streams, share, &mut all).await;
            }
        } else {
            let tended = join_all(streams.iter().map(async |stream| {
                let tended = self.tend_stream(ledger, stream).await?;
                if self.stop_reading.is_cancelled() {
                    self.hand_back_unread(ledger, stream).await?;
                }
                Ok(tended)
            }));
            tended.await.into_iter().for_each(|tended| all.add(tended));
        }
        drop(news);
        all
    }

    async fn ensure_group(&self, stream: &Known) -> Result<()> {
        let from = self.group_begins(stream);
        self.core.backend.ensure_group(&stream.name, &self.member.group, from).await
    }

    pub(super) async fn tend_stream(&self, ledger: &Ledger, stream: &Arc<Known>) -> Result<Tending> {
        let exclusive = self.is_exclusive();
        let _turn = if exclusive { Some(stream.turn.lock().await) } else { None };
        // What we had of an exclusive stream before may still be called ours.
        let is_back = exclusive && !stream.owned.load(Ordering::Relaxed);
        let again = if is_back { Again::All } else { stream.take_again() };
        if again == Again::All && exclusive {
            // All that is ours is told in order, and what waits here would go before it.
            ledger.begin_anew(stream.number);
        }
        let recover = again != Again::Nothing;
        let _asking = recover.then(|| ledger.asking(stream.number));
        let tended = self.tend_known(ledger, stream, recover).await;
        let refused = tended.as_ref().is_err_and(|error| error.kind() == ErrorKind::Refused);
        stream.refused.store(refused, Ordering::Relaxed);
        if tended.is_err() {
            // An answer that was lost may have brought something.
            stream.recover(exclusive);
            // And a read that includes what is refused is refused as a whole.
            if (exclusive || refused) && stream.close() {
                self.table.note_change();
            }
        }
        tended
    }

    /// The read that was under way when reading was stopped may have brought us something all the same, and nobody else
    /// gets it while we live.
    async fn hand_back_unread(&self, ledger: &Ledger, stream: &Known) -> Result<()> {
        let _asking = ledger.asking(stream.number);
        let ours = self.core.backend.holdings(&stream.name, &self.member).await?;
        ledger.hand_back_unread(stream.number, ours);
        Ok(())
    }

    async fn tend_known(&self, ledger: &Ledger, stream: &Arc<Known>, recover: bool) -> Result<Tending> {
        let backend = &self.core.backend;
        let taking = !self.stop_reading.is_cancelled() && !stream.leaving.load(Ordering::Relaxed);
        let take = if taking { self.running.mailbox.room_now().min(AT_ONCE) } else { 0 };
        let tend = Tend { lease: self.core.config.reclaim, take, exclusive: self.is_exclusive(), recover };
        let mut asked = Instant::now();
        let tended = match backend.tend(&stream.name, &self.member, tend).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!(
                    handler = %self.running.id, stream = %stream.name, group = self.member.group,
                    "the stream or its group is gone; making it anew"
                );
                self.ensure_group(stream).await?;
                asked = Instant::now();
                backend.tend(&stream.name, &self.member, tend).await
            }
            tended => tended,
        };
        let Tended { ours, lapsed, taken, next_due, lost, more, waits, read } = tended?;
        stream.note_read(read);
        if !ours {
            self.lose(ledger, stream);
            return Ok(Tending::default());
        }
        if lapsed && tend.exclusive && !recover {
            // Others may have had some of it, and what they left goes before what waits here.
            stream.recover(true);
            self.table.note_change();
            ledger.begin_anew(stream.number);
            self.tend_by(Instant::now());
            return Ok(Tending::default());
        }
        // An answer that was lost may have been the one that said so.
        let known = if lapsed || recover { ledger.waiting_of(stream.number) } else { Vec::new() };
        if !known.is_empty() {
            let ours = backend.holdings(&stream.name, &self.member).await?;
            ledger.retain(stream.number, &known, &ours);
        }
        ledger.renew(stream.number, asked + tend.lease);
        self.tell_of(stream, lost, taken.iter().filter(|taken| taken.takeovers > 0).count());
        let newly_owned = !stream.owned.swap(true, Ordering::Relaxed);
        if newly_owned && tend.exclusive {
            *lock(&stream.bell) = backend.tail(&stream.name).await?.id;
        }
        self.accept_taken(stream.number, taken).await?;
        if recover && more {
            // Of an exclusive stream that is ours too: what comes later must not come first.
            stream.note_rest();
        }
        // What was pending goes before what is new.
        let ready = !tend.exclusive || (!more && (stream.is_readable() || taking));
        if !ready && stream.close() {
            self.table.note_change();
        }
        if ready && !stream.leaving.load(Ordering::Relaxed) && stream.open(tend.exclusive) {
            self.table.note_change();
        }
        // Who takes nothing need not hear when something is due: room, or the end of the stop, comes first.
        let next_due = next_due.filter(|_| take > 0);
        Ok(Tending { next_due, more: more && !waits && taking, error: None })
    }

    fn tell_of(&self, stream: &Known, lost: usize, taken_over: usize) {
        if lost > 0 {
            self.counts.lost.by(lost);
            tracing::warn!(
                handler = %self.running.id, stream = %stream.name, lost,
                "entries were removed by the channel's retention before they were handled"
            );
        }
        if taken_over > 0 {
            self.counts.taken_over.by(taken_over);
            tracing::info!(
                handler = %self.running.id, stream = %stream.name, entries = taken_over,
                "took over from consumers that are gone"
            );
        }
    }
}

/// What tending came to.
#[derive(Default)]
pub(super) struct Tending {
    next_due: Option<Duration>,
    more: bool,
    /// The first thing that went wrong.
    error: Option<Error>,
}

impl Tending {
    pub(super) fn add(&mut self, other: Result<Self>) {
        match other {
            Ok(other) => {
                self.more |= other.more;
                self.next_due = [self.next_due, other.next_due].into_iter().flatten().min();
            }
            Err(error) => _ = self.error.get_or_insert(error),
        }
    }
}
