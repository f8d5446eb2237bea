//! What one connection reads: one read after the other, connecting anew after a failure. What is refused does not keep the
//! rest from being read.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backend::streams::{Batch, Reader};
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{EntryId, RawEntry, StreamName};

/// How long one read waits for something new. With the command timeout it bounds for how long a connection that is only
/// half there is not noticed.
const READ_WAITS: Duration = Duration::from_secs(2);
/// The least that a read can wait: for Redis, no limit is written as zero.
const NOT_AT_ALL: Duration = Duration::from_millis(1);
/// After a failure other than a lost connection, which the configuration's `reconnect` is for.
const REFUSED_AGAIN: Duration = Duration::from_secs(2);
/// How many entries are read at once at most, of all streams together.
const AT_ONCE: usize = 1_000;
/// How many of each stream, however many there are.
const OF_EACH: usize = 16;
/// How many bytes one read should bring at most, by what entries weighed lately.
const BYTES_AT_ONCE: usize = 8 << 20;
/// What an entry is taken to weigh before one was read.
const USUAL_SIZE: usize = 8 << 10;

#[derive(Debug)]
pub(super) struct Lane {
    /// `None` before the first read, and after one that failed.
    reader: Option<Reader>,
    failures: u32,
    /// How long to wait before the next read.
    pause: Duration,
    /// Streams that are refused: something else is in their place, or an ACL forbids them.
    refused: HashSet<StreamName>,
    /// When those are tried again.
    again: Instant,
    /// What an entry weighed lately, in bytes, on average.
    usual_size: usize,
}

/// What a read came to. Streams are named by their positions.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) batch: Batch,
    /// Streams that end before what has been read of them, and where.
    pub(super) back: Vec<(usize, EntryId)>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            reader: None,
            failures: 0,
            pause: Duration::ZERO,
            refused: HashSet::new(),
            again: Instant::now(),
            usual_size: USUAL_SIZE,
        }
    }

    /// Some of the streams cannot be read.
    pub(super) fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Reads what comes after these entries, and waits for it for a while. `lanes` is how many connections read.
    pub(super) async fn read(
        &mut self,
        core: &Core,
        streams: &[(StreamName, EntryId)],
        lanes: usize,
    ) -> Result<News> {
        if !self.pause.is_zero() {
            sleep(self.pause).await;
        }
        let read = self.read_once(core, streams, lanes).await;
        match &read {
            Ok(news) => {
                (self.failures, self.pause) = (0, Duration::ZERO);
                self.note_sizes(&news.batch);
            }
            Err(error) => {
                self.pause = match error.kind() {
                    // The others can be read at once.
                    ErrorKind::Refused if self.is_refused() && self.refused.len() < streams.len() => {
                        Duration::ZERO
                    }
                    ErrorKind::Refused => REFUSED_AGAIN,
                    _ => core.config.reconnect.delay(self.failures),
                };
                self.failures += 1;
            }
        }
        read
    }

    async fn read_once(
        &mut self,
        core: &Core,
        streams: &[(StreamName, EntryId)],
        lanes: usize,
    ) -> Result<News> {
        let (mut streams, mut back) = (streams.to_vec(), Vec::new());
        self.refused.retain(|refused| streams.iter().any(|(stream, _)| stream == refused));
        // The first read does not wait, so that one knows soon that reading works again.
        let (mut reader, wait) = match self.reader.take() {
            Some(reader) => (reader, READ_WAITS),
            None => {
                let mut reader = core.backend.stream_reader(&streams[0].0).await?;
                back = go_back(&mut reader, &mut streams).await?;
                (reader, NOT_AT_ALL)
            }
        };
        if self.is_refused() && self.again <= Instant::now() {
            let suspects: Vec<_> = self.refused.drain().collect();
            self.find_refused(&mut reader, &suspects).await?;
        }
        if self.refused.len() == streams.len() {
            // Then the read itself says why.
            self.refused.clear();
        }
        let readable =
            streams.into_iter().enumerate().filter(|(_, (stream, _))| !self.refused.contains(stream));
        let (positions, readable): (Vec<_>, Vec<_>) = readable.unzip();
        // COUNT is of each stream.
        let share = readable.len().max(lanes);
        let most = (AT_ONCE.min(BYTES_AT_ONCE / self.usual_size) / share).max(OF_EACH);
        match reader.read_after(&readable, most, wait).await {
            Ok(batch) => {
                self.reader = Some(reader);
                // Whoever follows may keep some of them for long.
                let alone = |entries: Vec<RawEntry>| entries.into_iter().map(RawEntry::alone).collect();
                let batch =
                    batch.into_iter().map(|(position, entries)| (positions[position], alone(entries)));
                Ok(News { batch: batch.collect(), back })
            }
            Err(error) if error.kind() == ErrorKind::Refused => {
                let suspects: Vec<_> = readable.into_iter().map(|(stream, _)| stream).collect();
                Err(self.find_refused(&mut reader, &suspects).await?.unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Finds out which of these streams are refused, and returns why the first of them is. One of them refuses a read of
    /// all.
    async fn find_refused(&mut self, reader: &mut Reader, suspects: &[StreamName]) -> Result<Option<Error>> {
        let mut why = None;
        for stream in suspects {
            match reader.read_after(&[(stream.clone(), EntryId::MAX)], 1, NOT_AT_ALL).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Refused => {
                    self.refused.insert(stream.clone());
                    why.get_or_insert(error.context(format_args!("follow {stream}")));
                }
                Err(error) => return Err(error),
            }
        }
        self.again = Instant::now() + REFUSED_AGAIN;
        Ok(why)
    }

    fn note_sizes(&mut self, batch: &Batch) {
        let size = |entry: &RawEntry| entry.fields.iter().map(|(_, value)| value.len()).sum::<usize>();
        let entries = || batch.iter().flat_map(|(_, entries)| entries);
        let Some(count) = NonZeroUsize::new(entries().count()) else { return };
        let average = entries().map(size).sum::<usize>() / count;
        self.usual_size = ((self.usual_size * 3 + average) / 4).max(1);
    }
}

/// Goes back to the last entry of each stream that ends before what has been read of it; returns which, and where to. Of
/// what came after it nobody knows any more, and what is appended from now on may have smaller ids, by the clock of
/// another server.
async fn go_back(
    reader: &mut Reader,
    streams: &mut [(StreamName, EntryId)],
) -> Result<Vec<(usize, EntryId)>> {
    let last = reader.last_of(streams).await?;
    let mut back = Vec::new();
    for (position, ((_, after), last)) in streams.iter_mut().zip(last).enumerate() {
        if let Some(last) = last.filter(|last| last < after) {
            *after = last;
            back.push((position, last));
        }
    }
    Ok(back)
}
