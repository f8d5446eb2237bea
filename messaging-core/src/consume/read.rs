//! Reading what is new of a queue's streams, whenever there is room.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep};

use super::table::Known;
use super::{AT_ONCE, Consumer, lock};
use crate::error::Result;
use crate::stream::RawEntry;

/// How long one read waits for something new.
const READ_WAITS: Duration = Duration::from_secs(2);

/// Which streams one connection reads.
#[derive(Clone, Copy, Debug)]
enum Part {
    All,
    /// The one with this number: on a cluster, a read is of one slot.
    One(usize),
}

/// How reading ended.
enum Read {
    /// There will be no more room.
    Ended,
    /// There are other streams to read.
    Interrupted,
}

impl Consumer {
    /// Reads what is new, for ever: on one connection, or on one for each stream.
    pub(super) async fn read_all(&self) {
        if self.core.backend.readable_together() {
            return self.read_part(Part::All).await;
        }
        self.for_each_stream(|number| self.read_part(Part::One(number))).await
    }

    /// Does something for each stream, also for those that come up later; for ever.
    pub(super) async fn for_each_stream<F: Future<Output = ()>>(&self, work: impl Fn(usize) -> F) {
        let mut parts = FuturesUnordered::new();
        let mut begun = 0;
        loop {
            let changed = self.table.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let streams = self.table.all().len();
            parts.extend((begun..streams).map(&work));
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
            let read = if self.is_exclusive() {
                self.read_exclusive(&streams, part, &mut failures, changed).await
            } else {
                tokio::select! {
                    read = self.read_shared(&streams, part, &mut failures) => read,
                    () = self.others(&streams, part, changed) => Ok(Read::Interrupted),
                }
            };
            match read {
                Ok(Read::Ended) => return,
                // It was between two reads, so that nothing was on its way.
                Ok(Read::Interrupted) if self.is_exclusive() => continue,
                Ok(Read::Interrupted) => {}
                Err(error) => {
                    sleep(self.failed(&error, failures)).await;
                    failures += 1;
                }
            }
            // What the backend gave us and did not arrive is ours all the same.
            streams.iter().for_each(|stream| stream.recover(self.is_exclusive()));
            self.tend_by(Instant::now());
        }
    }

    /// Waits until other streams than these are to be read.
    async fn others<'c>(&'c self, streams: &[Arc<Known>], part: Part, mut changed: Pin<&mut Notified<'c>>) {
        loop {
            changed.as_mut().await;
            changed.set(self.table.changed.notified());
            changed.as_mut().enable();
            let numbers = |streams: &[Arc<Known>]| -> Vec<usize> {
                streams.iter().map(|stream| stream.number).collect()
            };
            if numbers(&self.readable(part)) != numbers(streams) {
                return;
            }
        }
    }

    /// Reads on one connection until it fails, or the mailbox is closed.
    async fn read_shared(&self, streams: &[Arc<Known>], part: Part, failures: &mut u32) -> Result<Read> {
        let names: Vec<_> = streams.iter().map(|stream| stream.name.clone()).collect();
        let mut reader = self.core.backend.stream_reader(&names[0]).await?;
        loop {
            let Some(most) = self.most(part, streams.len()).await else { return Ok(Read::Ended) };
            let batch = reader.read_group(&self.member, &names, most, READ_WAITS).await?;
            let count: usize = batch.iter().map(|(_, entries)| entries.len()).sum();
            if count >= most * names.len() {
                self.pace.filled(self.running.mailbox.waiting().0);
            }
            for (position, entries) in batch {
                self.read(&streams[position], entries).await?;
            }
            *failures = 0;
            self.succeeded();
        }
    }

    /// The same for streams that are ours alone, which the backend checks in the same step as it reads. In between it waits
    /// without taking anything: only there is it interrupted, so that nothing is lost on the way.
    async fn read_exclusive(
        &self,
        streams: &[Arc<Known>],
        part: Part,
        failures: &mut u32,
        mut changed: Pin<&mut Notified<'_>>,
    ) -> Result<Read> {
        let mut reader = self.core.backend.stream_reader(&streams[0].name).await?;
        loop {
            let most = tokio::select! {
                most = self.most(part, streams.len()) => most,
                () = &mut changed => return Ok(Read::Interrupted),
            };
            let Some(most) = most else { return Ok(Read::Ended) };
            let mut any = false;
            for stream in streams {
                let _turn = stream.turn.lock().await;
                if !stream.is_readable() {
                    continue;
                }
                let entries = self.core.backend.read_exclusive(&stream.name, &self.member, most).await?;
                any |= !entries.is_empty();
                if entries.len() >= most {
                    self.pace.filled(self.running.mailbox.waiting().0);
                }
                self.read(stream, entries).await?;
            }
            *failures = 0;
            self.succeeded();
            if any {
                continue;
            }
            let after: Vec<_> = streams
                .iter()
                .map(|stream| (stream.name.clone(), stream.last_read().max(*lock(&stream.bell))))
                .collect();
            let rung = tokio::select! {
                rung = reader.read_after(&after, 1, READ_WAITS) => rung?,
                () = &mut changed => return Ok(Read::Interrupted),
            };
            for (position, entries) in rung {
                *lock(&streams[position].bell) = Self::last_of(&entries);
            }
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
        // COUNT is of each stream.
        let reads = match part {
            Part::All => streams,
            Part::One(_) => self.table.readable().len().max(1),
        };
        Some((messages.min(bytes / usual) / reads).clamp(1, AT_ONCE))
    }
}
