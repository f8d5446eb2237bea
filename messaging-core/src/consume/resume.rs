//! A resumable handler: every process reads the whole stream from where it stopped, and counts what it missed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::accept::Judged;
use super::table::Known;
use super::{AT_ONCE, Consumer, lock, news};
use crate::activity::ActivityGuard;
use crate::backend::StreamWatch;
use crate::backend::streams::{Batch, Tail};
use crate::dispatch::{GapCause, StartAt};
use crate::error::Result;
use crate::message::Received;
use crate::stream::{EntryId, RawEntry};

/// How long one read waits for something new.
const READ_WAITS: Duration = Duration::from_secs(2);
/// The least that a read can wait: for Redis, no limit is written as zero.
const NOT_AT_ALL: Duration = Duration::from_millis(1);

/// Up to where each stream has been read, by its number; without a last number as long as that is not known.
pub(super) type Cursors = HashMap<usize, Cursor>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    id: EntryId,
    number: Option<u64>,
}

impl Consumer {
    pub(super) async fn run_resumable(&self) {
        let reading = async {
            if self.core.backend.readable_together() {
                return self.resume(None).await;
            }
            self.for_each_stream(|number| self.resume(Some(number))).await
        };
        tokio::select! {
            () = self.stop_reading.cancelled() => {}
            () = reading => {}
            () = self.look_out() => {}
        }
    }

    /// Looks for streams, for ever.
    async fn look_out(&self) {
        let mut failures = 0;
        loop {
            let changed = self.watch.as_ref().and_then(StreamWatch::take);
            let next = match self.find_streams().await {
                Ok(()) => {
                    failures = 0;
                    self.next_look()
                }
                Err(error) => {
                    failures += 1;
                    self.failed(&error, failures - 1)
                }
            };
            drop(changed);
            tokio::select! {
                () = sleep_until(Instant::now() + next) => {}
                () = news(self.watch.as_ref()) => {}
            }
        }
    }

    async fn find_streams(&self) -> Result<()> {
        let new = self.look().await?;
        for stream in &new {
            let cursor = if Self::is_later(stream) {
                Cursor { id: self.later_begins(), number: None }
            } else if self.running.options.start == StartAt::Beginning {
                Cursor { id: EntryId::MIN, number: None }
            } else {
                let Tail { id, number } = self.core.backend.tail(&stream.name).await?;
                Cursor { id, number: Some(number) }
            };
            lock(&self.cursors).insert(stream.number, cursor);
        }
        if !new.is_empty() {
            *lock(&self.to_read) = Some(self.core.activity.guard());
            new.iter().for_each(|stream| _ = stream.open(false));
            self.table.changed.notify_waiters();
        }
        self.succeeded();
        self.confirm();
        Ok(())
    }

    /// Reads all streams, or one, until the mailbox is closed.
    async fn resume(&self, only: Option<usize>) {
        let mut failures = 0;
        loop {
            let changed = self.table.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let to_read = lock(&self.to_read).take();
            let mut streams = self.table.readable();
            streams.retain(|stream| only.is_none_or(|only| stream.number == only));
            if streams.is_empty() {
                changed.await;
                continue;
            }
            let read = tokio::select! {
                read = self.resume_on(&streams, to_read, &mut failures) => read,
                () = changed => continue,
            };
            match read {
                Ok(()) => return,
                Err(error) => {
                    sleep(self.failed(&error, failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Reads on one connection until it fails, or the mailbox is closed.
    ///
    /// The first read does not wait: from then on the reader itself counts what it has still to read.
    async fn resume_on(
        &self,
        streams: &[Arc<Known>],
        mut to_read: Option<ActivityGuard>,
        failures: &mut u32,
    ) -> Result<()> {
        let mut reader = self.core.backend.stream_reader(&streams[0].name).await?;
        loop {
            let Some((messages, bytes)) = self.running.mailbox.room().await else { return Ok(()) };
            let usual = self.table.usual_size().max(1);
            let readers = if self.core.backend.readable_together() { 1 } else { self.table.readable().len() };
            // COUNT is of each stream.
            let share = streams.len().max(readers);
            let most = (messages.min(bytes / usual) / share).clamp(1, AT_ONCE);
            let after: Vec<_> = {
                let cursors = lock(&self.cursors);
                let cursor = |stream: &Known| cursors.get(&stream.number).map_or(EntryId::MIN, |at| at.id);
                streams.iter().map(|stream| (stream.name.clone(), cursor(stream))).collect()
            };
            let wait = if to_read.is_some() { NOT_AT_ALL } else { READ_WAITS };
            let batch = reader.read_after(&after, most, wait).await?;
            to_read = None;
            *failures = 0;
            self.succeeded();
            self.take_up(streams, batch);
        }
    }

    /// Hands over what was read, in the order of its appending.
    fn take_up(&self, streams: &[Arc<Known>], batch: Batch) {
        let mut all: Vec<(EntryId, usize, RawEntry)> = Vec::new();
        for (position, entries) in batch {
            self.table.note_sizes(&entries);
            all.extend(entries.into_iter().map(|entry| (entry.id, streams[position].number, entry)));
        }
        all.sort_by_key(|(id, stream, _)| (*id, *stream));
        let at = std::time::Instant::now();
        let mut messages = VecDeque::with_capacity(all.len());
        for (_, stream, entry) in all {
            self.take_up_one(stream, entry, at, &mut messages);
        }
        self.running.mailbox.push_asked_for(&mut messages);
    }

    fn take_up_one(
        &self,
        stream: usize,
        entry: RawEntry,
        at: std::time::Instant,
        messages: &mut VecDeque<Received>,
    ) {
        let (id, judged) = (entry.id, self.judge(entry, stream, at));
        let number = match &judged {
            Judged::Message(received) => received.entry.as_ref().map_or(0, |entry| entry.number),
            Judged::NotOurs(number) => *number,
            Judged::Unreadable => 0,
        };
        self.advance(stream, id, number);
        let Judged::Message(received) = judged else { return };
        if let (Some(window), Some(entry)) = (self.running.options.dedupe, &received.entry)
            && self.recent.note(&entry.event, window)
        {
            self.running.tally.duplicates.up();
            return;
        }
        messages.push_back(received);
    }

    /// Notes that a stream has been read up to here, and announces what is missing before it. Numbers that go back are
    /// those of a stream that was made anew: what the old one still had is missing.
    fn advance(&self, stream: usize, id: EntryId, number: u64) {
        let mut cursors = lock(&self.cursors);
        let Some(cursor) = cursors.get_mut(&stream) else { return };
        cursor.id = id;
        // Foreign publishers give no numbers.
        if number == 0 {
            return;
        }
        let expected = cursor.number.map(|last| last + 1);
        cursor.number = Some(number);
        drop(cursors);
        match expected {
            Some(expected) if number > expected => {
                self.counts.lost.add(number - expected);
                self.announce(stream, Some(number - expected));
            }
            Some(expected) if number < expected => self.announce(stream, None),
            _ => {}
        }
    }

    fn announce(&self, stream: usize, missing: Option<u64>) {
        let stream = self.table.all()[stream].name.to_string();
        match missing {
            Some(missing) => tracing::warn!(
                handler = %self.running.id, stream, missing,
                "messages were removed by the channel's retention before they were read"
            ),
            None => {
                tracing::warn!(handler = %self.running.id, stream, "the stream was made anew; messages may be missing")
            }
        }
        self.running.mailbox.gap(GapCause::Removed(missing));
    }
}
