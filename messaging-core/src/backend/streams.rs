//! What can be done with streams, in the words that both backends understand.

use std::time::Duration;

use bytes::Bytes;

use super::{Backend, memory, redis};
use crate::error::Result;
use crate::stream::{DeadRecord, Durability, EntryId, EventId, RawEntry, StreamInfo, StreamName};

/// An entry that outlived more consumers is more likely their end than their victim.
pub(crate) const MOST_TAKEOVERS: u32 = 10;

/// What makes a message on its way out durable.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    /// The stream of its channel's template.
    pub(crate) stream: StreamName,
    pub(crate) durability: Durability,
    pub(crate) event: EventId,
    /// What kind of event it is.
    pub(crate) kind: Option<String>,
    /// What keeps messages in order, and chooses the partition.
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Append {
    /// The stream that it goes to: a partition, if there are several. Without a key the channel is the key.
    pub(crate) fn target(&self, channel: &str) -> StreamName {
        match self.durability.partitions {
            None => self.stream.clone(),
            Some(partitions) => self.stream.for_key(self.key.as_deref().unwrap_or(channel), partitions),
        }
    }
}

/// A group of one stream, and the consumer in it that is us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) consumer: String,
}

/// Where a group that does not exist yet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// With the oldest entry.
    Beginning,
    /// With what is appended from now on.
    Now,
    /// With what was appended at this time of the backend's clock, in milliseconds since 1970, or later.
    Time(u64),
    /// With what comes after this entry; with the oldest if the stream has been made anew since.
    After(EntryId),
}

/// What a consumer asks for when it shows that it lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tend {
    /// For how long the consumer counts as alive from now on.
    pub(crate) lease: Duration,
    /// How many entries it can take over at most.
    pub(crate) take: usize,
    /// The stream is for one consumer of the group at a time; nothing is taken while it belongs to another.
    pub(crate) exclusive: bool,
    /// What is the consumer's own is told again, because an answer may have been lost.
    pub(crate) recover: bool,
}

/// What tending came to.
#[derive(Debug, Default)]
pub(crate) struct Tended {
    /// The stream is ours; always, where it is not exclusive.
    pub(crate) ours: bool,
    /// Our own lease had run out: others may have taken over what we had.
    pub(crate) lapsed: bool,
    /// Entries that are ours now: abandoned ones, and those whose delay has passed.
    pub(crate) taken: Vec<Taken>,
    /// When the next delay passes.
    pub(crate) next_due: Option<Duration>,
    /// How many entries had been trimmed away before they were handled; they are settled.
    pub(crate) lost: usize,
    /// There is more to take than was asked for.
    pub(crate) more: bool,
    /// What is left is suspected to be the end of consumers, and waits until the one such entry in hand is settled.
    pub(crate) waits: bool,
    /// Up to where the group has read.
    pub(crate) read: EntryId,
}

/// An entry that was taken over.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) entry: RawEntry,
    /// Which attempt at it is the next, counted from 1.
    pub(crate) attempt: u32,
    /// How often it was taken over from a consumer that was gone, since an attempt at it ended.
    pub(crate) takeovers: u32,
    /// How long the next attempt has to wait, where the delay is kept by whoever has the entry.
    pub(crate) wait: Duration,
}

/// What becomes of an entry.
#[derive(Clone, Debug)]
pub(crate) enum Settlement {
    /// It has been handled, or needs no handling.
    Done {
        id: EntryId,
        /// Its event is remembered for so long, so that a second entry with it is passed over.
        remember: Option<(EventId, Duration)>,
        /// There may be a note of earlier attempts.
        retried: bool,
    },
    /// Attempt number `next` at it is due after this delay, wherever.
    Retry { id: EntryId, next: u32, delay: Duration },
    /// The same, but it stays with its consumer: an exclusive stream keeps its order.
    Note { id: EntryId, next: u32, delay: Duration },
    /// It goes to the dead-letter stream.
    Dead { id: EntryId, record: DeadRecord, notice: Option<Notice> },
    /// It has not been handled; anybody may take it now.
    HandBack { id: EntryId },
}

impl Settlement {
    pub(crate) fn id(&self) -> EntryId {
        match self {
            Self::Done { id, .. }
            | Self::Retry { id, .. }
            | Self::Note { id, .. }
            | Self::Dead { id, .. }
            | Self::HandBack { id } => *id,
        }
    }
}

/// What is published when an entry has gone to its dead-letter stream.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// The channel, as on the wire.
    pub(crate) channel: String,
    pub(crate) payload: Bytes,
}

/// How a group of a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupState {
    pub(crate) group: String,
    /// Entries in the hands of consumers.
    pub(crate) pending: u64,
    /// Entries that wait for another attempt.
    pub(crate) delayed: u64,
    /// Entries that nobody has read yet; an estimate where Redis cannot tell (before 7.0, or after trimming).
    pub(crate) unread: u64,
    /// Consumers that live.
    pub(crate) alive: u64,
}

/// The end of a stream: the last entry, and the last number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) id: EntryId,
    pub(crate) number: u64,
}

/// What is read of several streams: which of them, and the entries in order.
pub(crate) type Batch = Vec<(usize, Vec<RawEntry>)>;

/// A connection for reads that wait.
#[derive(Debug)]
pub(crate) enum Reader {
    Memory(memory::StreamReader),
    Redis(Box<redis::StreamReader>),
}

impl Reader {
    /// Reads what the group has not read yet, and waits up to `wait` for it. What is read is ours until it is settled. A
    /// position in `streams` is what [`Batch`] names.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind) if a group or stream is not there. After any other error the reader is of no use.
    ///
    /// Cancellation: something may have been read, and the reader is of no use any more.
    pub(crate) async fn read_group(
        &mut self,
        member: &Member,
        streams: &[StreamName],
        most: usize,
        wait: Duration,
    ) -> Result<Batch> {
        match self {
            Self::Memory(reader) => reader.read_group(member, streams, most, wait).await,
            Self::Redis(reader) => reader.read_group(member, streams, most, wait).await,
        }
    }

    /// Reads what comes after these entries, without a group, and waits up to `wait` for it.
    pub(crate) async fn read_after(
        &mut self,
        streams: &[(StreamName, EntryId)],
        most: usize,
        wait: Duration,
    ) -> Result<Batch> {
        match self {
            Self::Memory(reader) => reader.read_after(streams, most, wait).await,
            Self::Redis(reader) => reader.read_after(streams, most, wait).await,
        }
    }

    /// The last entries of streams, as whoever is read from knows them; `None` where that is refused.
    pub(crate) async fn last_of(
        &mut self,
        streams: &[(StreamName, EntryId)],
    ) -> Result<Vec<Option<EntryId>>> {
        match self {
            Self::Memory(reader) => reader.last_of(streams),
            Self::Redis(reader) => reader.last_of(streams).await,
        }
    }
}

impl Backend {
    /// Opens a connection for reads of these streams, which [`readable_together`](Self::readable_together) says of.
    pub(crate) async fn stream_reader(&self, first: &StreamName) -> Result<Reader> {
        match self {
            Self::Memory(memory) => Ok(Reader::Memory(memory.up()?.stream_reader())),
            Self::Redis(redis) => redis.stream_reader(first).await.map(Box::new).map(Reader::Redis),
        }
    }

    /// Whether one read can be of several streams.
    pub(crate) fn readable_together(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Redis(redis) => redis.readable_together(),
        }
    }

    /// Its clock: milliseconds since 1970.
    pub(crate) async fn now(&self) -> Result<u64> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.now()),
            Self::Redis(redis) => redis.now().await,
        }
    }

    /// All streams that have been registered.
    pub(crate) async fn streams(&self) -> Result<Vec<StreamInfo>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.streams()),
            Self::Redis(redis) => redis.streams().await,
        }
    }

    /// Registers streams, so that subscribers find them.
    pub(crate) async fn register(&self, streams: &[StreamInfo]) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.register(streams);
                Ok(())
            }
            Self::Redis(redis) => redis.register(streams).await,
        }
    }

    /// Shows that a consumer of a group listens to a channel or glob, be there streams or not. Returns since when one has,
    /// by the backend's clock, if none is silent for longer than `kept`.
    pub(crate) async fn listens_since(
        &self,
        group: &str,
        wire: &str,
        now: u64,
        kept: Duration,
    ) -> Result<u64> {
        match self {
            // Whoever listens hears at once of a stream that comes up, and makes its group.
            Self::Memory(memory) => memory.up().map(|_| now),
            Self::Redis(redis) => redis.listens_since(group, wire, now, kept).await,
        }
    }

    /// Makes a group, and the stream if need be; one that exists stays as it is.
    pub(crate) async fn ensure_group(&self, stream: &StreamName, group: &str, from: From) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.ensure_group(stream, group, from);
                Ok(())
            }
            Self::Redis(redis) => redis.ensure_group(stream, group, from).await,
        }
    }

    /// Shows that a consumer lives, removes dead ones that have nothing, and takes over what is abandoned or due.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind) if the group or the stream is not there.
    pub(crate) async fn tend(&self, stream: &StreamName, member: &Member, tend: Tend) -> Result<Tended> {
        match self {
            Self::Memory(memory) => memory.up()?.tend(stream, member, tend),
            Self::Redis(redis) => redis.tend(stream, member, tend).await,
        }
    }

    /// Reads what the group has not read yet of an exclusive stream that is ours; nothing if it is not. Does not wait.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind) if the group or the stream is not there.
    pub(crate) async fn read_exclusive(
        &self,
        stream: &StreamName,
        member: &Member,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        match self {
            Self::Memory(memory) => memory.up()?.read_exclusive(stream, member, most),
            Self::Redis(redis) => redis.read_exclusive(stream, member, most).await,
        }
    }

    /// Tells of streams that come up; `None` where one has to look.
    pub(crate) fn watch_streams(&self) -> Option<super::StreamWatch> {
        match self {
            Self::Memory(memory) => Some(memory.watch_streams()),
            Self::Redis(_) => None,
        }
    }

    /// Shows that a consumer shares the partitions of a template; returns how many do.
    pub(crate) async fn join(&self, stream: &StreamName, member: &Member, lease: Duration) -> Result<u64> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.join(stream, member, lease)),
            Self::Redis(redis) => redis.join(stream, member, lease).await,
        }
    }

    /// The entries of a stream that a consumer has, in order.
    pub(crate) async fn holdings(&self, stream: &StreamName, member: &Member) -> Result<Vec<EntryId>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.holdings(stream, member)),
            Self::Redis(redis) => redis.holdings(stream, member).await,
        }
    }

    /// Settles entries. What is not ours any more is only ever marked as done.
    pub(crate) async fn settle(
        &self,
        stream: &StreamName,
        member: &Member,
        settlements: &[Settlement],
    ) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.settle(stream, member, settlements);
                Ok(())
            }
            Self::Redis(redis) => redis.settle(stream, member, settlements).await,
        }
    }

    /// Which of these events the group has handled and remembers.
    pub(crate) async fn seen(
        &self,
        stream: &StreamName,
        group: &str,
        events: &[EventId],
    ) -> Result<Vec<bool>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.seen(stream, group, events)),
            Self::Redis(redis) => redis.seen(stream, group, events).await,
        }
    }

    /// Gives an exclusive stream up, and takes a consumer out of its group if it has nothing any more.
    pub(crate) async fn leave(&self, stream: &StreamName, member: &Member) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.leave(stream, member);
                Ok(())
            }
            Self::Redis(redis) => redis.leave(stream, member).await,
        }
    }

    /// Undoes [`join`](Self::join).
    pub(crate) async fn withdraw(&self, stream: &StreamName, member: &Member) -> Result<()> {
        match self {
            Self::Memory(memory) => {
                memory.up()?.withdraw(stream, member);
                Ok(())
            }
            Self::Redis(redis) => redis.withdraw(stream, member).await,
        }
    }

    /// The groups of a stream; none if there is no stream.
    pub(crate) async fn groups(&self, stream: &StreamName) -> Result<Vec<GroupState>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.groups(stream)),
            Self::Redis(redis) => redis.groups(stream).await,
        }
    }

    /// Where a stream ends.
    pub(crate) async fn tail(&self, stream: &StreamName) -> Result<Tail> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.tail(stream)),
            Self::Redis(redis) => redis.tail(stream).await,
        }
    }

    /// Where a stream ends, and the text that stands for this counting of its numbers.
    pub(crate) async fn end(&self, stream: &StreamName, over: Option<&str>) -> Result<(Tail, String)> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.end(stream, over)),
            Self::Redis(redis) => redis.end(stream, over).await,
        }
    }

    /// Entries up to this one, itself included, youngest first.
    pub(crate) async fn range_back(
        &self,
        stream: &StreamName,
        last: EntryId,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.range_back(stream, last, most)),
            Self::Redis(redis) => redis.range_back(stream, last, most).await,
        }
    }

    /// Entries between two ids, both included, oldest first.
    pub(crate) async fn range(
        &self,
        stream: &StreamName,
        first: EntryId,
        last: EntryId,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.range(stream, first, last, most)),
            Self::Redis(redis) => redis.range(stream, first, last, most).await,
        }
    }

    /// Entries of a group's dead-letter stream after `after`, oldest first.
    pub(crate) async fn dead(
        &self,
        stream: &StreamName,
        group: &str,
        after: EntryId,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.dead(stream, group, after, most)),
            Self::Redis(redis) => redis.dead(stream, group, after, most).await,
        }
    }

    /// Appends a dead letter to its stream again, for its group alone, and removes it from the dead letters; `false` if
    /// it is not there.
    pub(crate) async fn replay(&self, stream: &StreamName, group: &str, id: EntryId) -> Result<bool> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.replay(stream, group, id)),
            Self::Redis(redis) => redis.replay(stream, group, id).await,
        }
    }

    /// Removes dead letters; returns how many were there.
    pub(crate) async fn purge(&self, stream: &StreamName, group: &str, ids: &[EntryId]) -> Result<u64> {
        match self {
            Self::Memory(memory) => Ok(memory.up()?.purge(stream, group, ids)),
            Self::Redis(redis) => redis.purge(stream, group, ids).await,
        }
    }
}
