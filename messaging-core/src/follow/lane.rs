//! What one connection reads: one read after the other, connecting anew after a failure.

use std::time::Duration;

use tokio::time::sleep;

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
    /// What an entry weighed lately, in bytes, on average.
    usual_size: usize,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self { reader: None, failures: 0, pause: Duration::ZERO, usual_size: USUAL_SIZE }
    }

    /// Reads what comes after these entries, and waits for it for a while. `lanes` is how many connections read.
    pub(super) async fn read(
        &mut self,
        core: &Core,
        streams: &[(StreamName, EntryId)],
        lanes: usize,
    ) -> Result<Batch> {
        let read = self.read_once(core, streams, lanes).await;
        match &read {
            Ok(batch) => {
                (self.failures, self.pause) = (0, Duration::ZERO);
                self.note_sizes(batch);
            }
            Err(error) => {
                self.reader = None;
                self.pause = self.pause_after(core, error);
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
    ) -> Result<Batch> {
        if !self.pause.is_zero() {
            sleep(self.pause).await;
        }
        // The first read does not wait, so that one knows soon that reading works again.
        let (reader, wait) = match &mut self.reader {
            Some(reader) => (reader, READ_WAITS),
            none => (none.insert(core.backend.stream_reader(&streams[0].0).await?), NOT_AT_ALL),
        };
        // COUNT is of each stream.
        let share = streams.len().max(lanes);
        let most = AT_ONCE.min(BYTES_AT_ONCE / self.usual_size) / share;
        reader.read_after(streams, most.max(OF_EACH), wait).await
    }

    fn note_sizes(&mut self, batch: &Batch) {
        let size = |entry: &RawEntry| entry.fields.iter().map(|(_, value)| value.len()).sum::<usize>();
        let entries = batch.iter().flat_map(|(_, entries)| entries);
        let (count, sum) = entries.fold((0, 0), |(count, sum), entry| (count + 1, sum + size(entry)));
        if count > 0 {
            self.usual_size = ((self.usual_size * 3 + sum / count) / 4).max(1);
        }
    }

    fn pause_after(&self, core: &Core, error: &Error) -> Duration {
        match error.kind() {
            ErrorKind::Refused => REFUSED_AGAIN,
            _ => core.config.reconnect.delay(self.failures),
        }
    }
}
