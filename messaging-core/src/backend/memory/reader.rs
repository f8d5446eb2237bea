//! Reads that wait until something is appended.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::faults::Faults;
use super::{Bus, Memory, lock};
use crate::activity::{Activity, ActivityGuard};
use crate::backend::closed;
use crate::backend::streams::{Batch, Member};
use crate::error::Result;
use crate::retry::deadline;
use crate::stream::{EntryId, RawEntry, StreamName};

/// Those who may be waiting.
#[derive(Debug, Default)]
pub(super) struct Readers(Vec<Weak<Watch>>);

/// What one reader looks at.
#[derive(Debug, Default)]
struct Watch {
    state: Mutex<Watched>,
    appended: Notify,
}

#[derive(Debug, Default)]
struct Watched {
    /// The streams of the last read.
    streams: Vec<StreamName>,
    /// No group knows what the reader has still to read, so that it counts for itself; this is whose work it is.
    alone: Option<Activity>,
    /// There may be something that the reader has not read, or not put into other hands yet.
    unfinished: Option<ActivityGuard>,
}

impl Readers {
    fn open(&mut self) -> Arc<Watch> {
        let watch = Arc::default();
        self.0.retain(|watch| watch.strong_count() > 0);
        self.0.push(Arc::downgrade(&watch));
        watch
    }

    /// Wakes everybody: something else than an entry has come up.
    pub(super) fn wake(&self) {
        self.0.iter().filter_map(Weak::upgrade).for_each(|watch| watch.appended.notify_one());
    }

    /// Wakes who waits for a stream.
    pub(super) fn appended(&self, stream: &StreamName) {
        for watch in self.0.iter().filter_map(Weak::upgrade) {
            let mut watched = lock(&watch.state);
            if watched.streams.contains(stream) {
                watched.begin();
                watch.appended.notify_one();
            }
        }
    }
}

impl Watched {
    fn look_at<'a>(&mut self, streams: impl Iterator<Item = &'a StreamName> + Clone) {
        if !self.streams.iter().eq(streams.clone()) {
            self.streams = streams.cloned().collect();
        }
    }

    fn begin(&mut self) {
        if let (Some(activity), None) = (&self.alone, &self.unfinished) {
            self.unfinished = Some(activity.guard());
        }
    }
}

/// What corresponds to a connection for reads that wait.
#[derive(Debug)]
pub(crate) struct StreamReader {
    bus: Arc<Bus>,
    activity: Activity,
    watch: Arc<Watch>,
    /// How many reads there were: each begins with another stream, so that none is left out for long.
    reads: usize,
    faults: Arc<Faults>,
    /// How often connections had been cut when it was made.
    cuts: u64,
}

impl Memory {
    pub(crate) fn stream_reader(&self) -> StreamReader {
        let watch = lock(&self.bus.0).store.readers.open();
        StreamReader {
            bus: Arc::clone(&self.bus),
            activity: self.activity.clone(),
            watch,
            reads: 0,
            faults: Arc::clone(&self.faults),
            cuts: self.faults.cuts.load(Ordering::SeqCst),
        }
    }
}

impl StreamReader {
    /// Cancellation: nothing is lost.
    pub(crate) async fn read_group(
        &mut self,
        member: &Member,
        streams: &[StreamName],
        most: usize,
        wait: Duration,
    ) -> Result<Batch> {
        self.wait(wait, |reader| reader.take_new(member, streams, most)).await
    }

    /// What it returns counts as unfinished until the next read.
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn read_after(
        &mut self,
        streams: &[(StreamName, EntryId)],
        most: usize,
        wait: Duration,
    ) -> Result<Batch> {
        self.wait(wait, |reader| Ok(reader.look_after(streams, most))).await
    }

    pub(crate) fn last_of(&self, streams: &[(StreamName, EntryId)]) -> Result<Vec<Option<EntryId>>> {
        self.check()?;
        let mut bus = lock(&self.bus.0);
        Ok(streams.iter().map(|(stream, _)| Some(bus.store.tail(stream).id)).collect())
    }

    /// Whether the connection still is one.
    fn check(&self) -> Result<()> {
        self.faults.check()?;
        if self.faults.cuts.load(Ordering::SeqCst) == self.cuts { Ok(()) } else { Err(closed()) }
    }

    async fn wait(&mut self, wait: Duration, look: impl Fn(&Self) -> Result<Batch>) -> Result<Batch> {
        // As a socket does: a flood must not keep the thread from other tasks.
        tokio::task::coop::consume_budget().await;
        self.reads = self.reads.wrapping_add(1);
        let until = deadline(wait);
        loop {
            self.check()?;
            let batch = look(self)?;
            if !batch.is_empty() || timeout_at(until, self.watch.appended.notified()).await.is_err() {
                return Ok(batch);
            }
        }
    }

    fn take_new(&self, member: &Member, streams: &[StreamName], most: usize) -> Result<Batch> {
        let mut bus = lock(&self.bus.0);
        let store = &mut bus.store;
        // If one of them is missing, nothing is handed out of the others.
        for stream in streams {
            store.group(stream, &member.group)?.0.unfinished.attach(&self.activity);
        }
        lock(&self.watch.state).look_at(streams.iter());
        Ok(self.fill(streams.len(), most, |position, room| {
            let group = store.group(&streams[position], &member.group);
            group.map(|(group, log)| group.read(log, &member.consumer, room)).unwrap_or_default()
        }))
    }

    fn look_after(&self, streams: &[(StreamName, EntryId)], most: usize) -> Batch {
        let mut bus = lock(&self.bus.0);
        let batch = self.fill(streams.len(), most, |position, room| {
            let (name, after) = &streams[position];
            let stream = bus.store.stream(name);
            stream.map(|stream| stream.log().after(*after).take(room).collect()).unwrap_or_default()
        });
        let mut watched = lock(&self.watch.state);
        watched.look_at(streams.iter().map(|(name, _)| name));
        watched.alone = Some(self.activity.clone());
        if batch.is_empty() {
            watched.unfinished = None;
        } else {
            watched.begin();
        }
        batch
    }

    /// Reads of one stream after the other until there are `most` entries.
    fn fill(
        &self,
        streams: usize,
        most: usize,
        mut read: impl FnMut(usize, usize) -> Vec<RawEntry>,
    ) -> Batch {
        let (mut batch, mut room) = (Batch::new(), most);
        for offset in 0..streams {
            let position = self.reads.wrapping_add(offset) % streams;
            let entries = read(position, room);
            room -= entries.len();
            if !entries.is_empty() {
                batch.push((position, entries));
            }
        }
        batch
    }
}
