//! A queue: shows that we live, takes over what is abandoned or due, and reads what is new whenever there is room.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use super::table::Known;
use super::{Consumer, StreamCounts, lock, news};
use crate::backend::StreamWatch;
use crate::backend::streams::{Reader, Tend, Tended};
use crate::dispatch::Ledger;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{RawEntry, StreamName};

/// How long one read waits for something new.
const READ_WAITS: Duration = Duration::from_secs(2);
/// How many entries are read or taken at once at most.
const AT_ONCE: usize = 1_000;

/// Which streams one connection reads.
#[derive(Clone, Copy, Debug)]
enum Part {
    All,
    /// The one with this number: on a cluster, a read is of one slot.
    One(usize),
}

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

    /// Shows that we live, for ever.
    async fn tend_all(&self, ledger: &Ledger) {
        let beat = self.core.config.reclaim / 3;
        let mut look_at = Instant::now();
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let (mut next, mut wants_room) = (begun + beat, false);
            let Tending { next_due, more, error } = self.tend_once(ledger, &mut look_at).await;
            wants_room |= more;
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
                    next = next.min(Instant::now() + self.failed(&error, failures));
                    failures += 1;
                }
            }
            self.pause(next.min(look_at), wants_room).await;
        }
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
                    *look_at = Instant::now() + self.next_look();
                }
                Err(error) => all.add(Err(error)),
            }
        }
        let streams = self.table.all();
        if self.is_exclusive() {
            match self.templates(&streams).await {
                Ok(templates) => {
                    for (streams, share) in templates {
                        self.tend_share(ledger, streams, share, &mut all).await;
                    }
                }
                Err(error) => all.add(Err(error)),
            }
        } else {
            let tended = join_all(streams.iter().map(|stream| self.tend_stream(ledger, stream))).await;
            tended.into_iter().for_each(|tended| all.add(tended));
        }
        drop(news);
        all
    }

    async fn ensure_group(&self, stream: &Known) -> Result<()> {
        let from = self.group_begins(stream);
        self.core.backend.ensure_group(&stream.name, &self.member.group, from).await
    }

    async fn tend_stream(&self, ledger: &Ledger, stream: &Arc<Known>) -> Result<Tending> {
        let backend = &self.core.backend;
        let taking = !self.stop_reading.is_cancelled() && !stream.leaving.load(Ordering::Relaxed);
        let take = if taking { self.running.mailbox.room_now().min(AT_ONCE) } else { 0 };
        let recover = stream.take_recover();
        let _recovery = recover.then(|| ledger.recovery());
        let tend = Tend { lease: self.core.config.reclaim, take, exclusive: self.is_exclusive(), recover };
        let mut asked = Instant::now();
        let tended = match backend.tend(&stream.name, &self.member, tend).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.heal(stream).await?;
                asked = Instant::now();
                backend.tend(&stream.name, &self.member, tend).await
            }
            tended => tended,
        };
        // An answer that was lost may have brought something.
        let Tended { ours, lapsed, taken, next_due, lost, more } =
            tended.inspect_err(|_| stream.recover(tend.exclusive))?;
        if !ours {
            self.lose(ledger, stream);
            return Ok(Tending::default());
        }
        if lapsed && ledger.held_of(stream.number) > 0 {
            let ours = backend.holdings(&stream.name, &self.member).await?;
            ledger.retain(stream.number, &ours);
            // What was read since that list was made is ours too.
            stream.recover(tend.exclusive);
            self.tend_by(Instant::now());
        }
        ledger.renew(stream.number, asked + tend.lease);
        if lost > 0 {
            StreamCounts::add(&self.counts.lost, lost);
            tracing::warn!(
                handler = %self.running.id, stream = %stream.name, lost,
                "entries were removed by the channel's retention before they were handled"
            );
        }
        let over = taken.iter().filter(|taken| taken.takeovers > 0).count();
        if over > 0 {
            StreamCounts::add(&self.counts.taken_over, over);
            tracing::info!(handler = %self.running.id, stream = %stream.name, entries = over, "took over from consumers that are gone");
        }
        let newly_owned = !stream.owned.swap(true, Ordering::Relaxed);
        if newly_owned && tend.exclusive {
            *lock(&stream.bell) = backend.tail(&stream.name).await?.id;
        }
        self.accept_taken(stream.number, taken).await.inspect_err(|_| stream.recover(tend.exclusive))?;
        // What was pending goes before what is new.
        let may_read = !tend.exclusive || (taking && !more && !stream.leaving.load(Ordering::Relaxed));
        if may_read && stream.open(tend.exclusive) {
            self.table.changed.notify_waiters();
        }
        // Who takes nothing need not hear when something is due: room, or the end of the stop, comes first.
        let next_due = next_due.filter(|_| take > 0);
        Ok(Tending { next_due, more: more && taking, error: None })
    }

    /// An exclusive stream is not ours: what waits is not either.
    fn lose(&self, ledger: &Ledger, stream: &Arc<Known>) {
        if stream.owned.swap(false, Ordering::Relaxed) {
            ledger.revoke(stream.number);
        }
        stream.leaving.store(false, Ordering::Relaxed);
        if stream.close() {
            self.table.changed.notify_waiters();
        }
    }

    /// Makes a group anew that has gone, and registers nothing: that is its publisher's.
    async fn heal(&self, stream: &Known) -> Result<()> {
        tracing::warn!(
            handler = %self.running.id, stream = %stream.name, group = self.member.group,
            "the stream or its group is gone; making it anew"
        );
        self.ensure_group(stream).await
    }

    /// Exclusive streams by their template, each with how many of them are a fair share of ours.
    async fn templates(&self, streams: &[Arc<Known>]) -> Result<Vec<(Vec<Arc<Known>>, usize)>> {
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
    async fn tend_share(&self, ledger: &Ledger, streams: Vec<Arc<Known>>, share: usize, all: &mut Tending) {
        let (ours, others): (Vec<_>, Vec<_>) =
            streams.into_iter().partition(|stream| stream.owned.load(Ordering::Relaxed));
        let mut owned = 0;
        for stream in ours {
            let surplus = owned >= share && !self.stop_reading.is_cancelled();
            if surplus {
                match self.give_up(ledger, &stream).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => all.add(Err(error)),
                }
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
        if !stream.leaving.swap(true, Ordering::Relaxed) {
            stream.close();
            self.table.changed.notify_waiters();
        }
        ledger.hand_back(stream.number);
        if ledger.held_of(stream.number) > 0 {
            return Ok(false);
        }
        // An answer to a reader may still be on its way: its entries are not ours any more.
        ledger.revoke(stream.number);
        self.core.backend.leave(&stream.name, &self.member).await?;
        stream.owned.store(false, Ordering::Relaxed);
        stream.leaving.store(false, Ordering::Relaxed);
        Ok(true)
    }

    /// Reads what is new, for ever: on one connection, or on one for each stream.
    async fn read_all(&self) {
        if self.core.backend.readable_together() {
            return self.read_part(Part::All).await;
        }
        let mut parts = FuturesUnordered::new();
        let mut begun = 0;
        loop {
            let changed = self.table.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let streams = self.table.all().len();
            parts.extend((begun..streams).map(|number| self.read_part(Part::One(number))));
            begun = streams;
            tokio::select! {
                () = changed => {}
                Some(()) = parts.next() => {}
            }
        }
    }

    fn readable(&self, part: Part) -> Vec<Arc<Known>> {
        let mut streams = self.table.readable();
        if let Part::One(number) = part {
            streams.retain(|stream| stream.number == number);
        }
        streams
    }

    /// Reads some streams until the mailbox is closed.
    async fn read_part(&self, part: Part) {
        let mut failures = 0;
        loop {
            let changed = self.table.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let streams = self.readable(part);
            if streams.is_empty() {
                changed.await;
                continue;
            }
            let others = async {
                loop {
                    changed.as_mut().await;
                    changed.set(self.table.changed.notified());
                    changed.as_mut().enable();
                    let now = self.readable(part);
                    if !now.iter().map(|stream| stream.number).eq(streams.iter().map(|stream| stream.number))
                    {
                        return;
                    }
                }
            };
            let read = tokio::select! {
                read = self.read_on(&streams, part, &mut failures) => read,
                () = others => Ok(Read::Interrupted),
            };
            match read {
                Ok(Read::Ended) => return,
                Ok(Read::Interrupted) => {}
                Err(error) => {
                    sleep(self.failed(&error, failures)).await;
                    failures += 1;
                }
            }
            // What the backend gave us and did not arrive is ours all the same.
            for stream in streams {
                stream.recover(self.is_exclusive());
            }
            self.tend_by(Instant::now());
        }
    }

    /// Reads on one connection until it fails, or the mailbox is closed.
    async fn read_on(&self, streams: &[Arc<Known>], part: Part, failures: &mut u32) -> Result<Read> {
        let names: Vec<_> = streams.iter().map(|stream| stream.name.clone()).collect();
        let mut reader = self.core.backend.stream_reader(&names[0]).await?;
        loop {
            let Some(most) = self.most(part, streams.len()).await else { return Ok(Read::Ended) };
            if self.is_exclusive() {
                self.read_exclusive(&mut reader, streams, most).await?;
            } else {
                let batch = reader.read_group(&self.member, &names, most, READ_WAITS).await?;
                let count: usize = batch.iter().map(|(_, entries)| entries.len()).sum();
                if count >= most {
                    self.pace.filled(self.running.mailbox.waiting().0);
                }
                for (position, entries) in batch {
                    self.read(&streams[position], entries).await?;
                }
            }
            *failures = 0;
            self.succeeded();
        }
    }

    async fn read(&self, stream: &Known, entries: Vec<RawEntry>) -> Result<()> {
        stream.note_read(Self::last_of(&entries));
        self.table.note_sizes(&entries);
        self.accept(stream.number, entries).await
    }

    /// How many entries there is room for, once there is room for many.
    async fn most(&self, part: Part, streams: usize) -> Option<usize> {
        self.running.mailbox.room().await?;
        self.running.mailbox.set_target(self.pace.half_handled());
        let (messages, bytes) = self.running.mailbox.room().await?;
        let usual = self.table.usual_size().max(1);
        let reads = match part {
            Part::All if !self.is_exclusive() => 1,
            Part::All => streams,
            Part::One(_) => self.table.readable().len().max(1),
        };
        Some((messages.min(bytes / usual) / reads).clamp(1, AT_ONCE))
    }

    /// Reads only while the streams are ours, which the backend checks in the same step; in between it waits without
    /// taking anything.
    async fn read_exclusive(&self, reader: &mut Reader, streams: &[Arc<Known>], most: usize) -> Result<()> {
        let mut any = false;
        for stream in streams {
            let entries = self.core.backend.read_exclusive(&stream.name, &self.member, most).await?;
            any |= !entries.is_empty();
            if entries.len() >= most {
                self.pace.filled(self.running.mailbox.waiting().0);
            }
            self.read(stream, entries).await?;
        }
        if any {
            return Ok(());
        }
        let after: Vec<_> = streams
            .iter()
            .map(|stream| (stream.name.clone(), stream.last_read().max(*lock(&stream.bell))))
            .collect();
        for (position, entries) in reader.read_after(&after, 1, READ_WAITS).await? {
            *lock(&streams[position].bell) = Self::last_of(&entries);
        }
        Ok(())
    }
}

/// How reading ended.
enum Read {
    /// There will be no more room.
    Ended,
    /// There are other streams to read.
    Interrupted,
}

/// What tending came to.
#[derive(Default)]
struct Tending {
    next_due: Option<Duration>,
    more: bool,
    /// The first thing that went wrong.
    error: Option<Error>,
}

impl Tending {
    fn add(&mut self, other: Result<Self>) {
        match other {
            Ok(other) => {
                self.more |= other.more;
                self.next_due = [self.next_due, other.next_due].into_iter().flatten().min();
            }
            Err(error) => _ = self.error.get_or_insert(error),
        }
    }
}
