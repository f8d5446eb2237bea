//! Following the streams of durable channels: where they end, what was before, and what comes, each entry once. It reads
//! without a group, leaves nothing behind, and knows nobody whom an entry is for.

mod lane;
mod position;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use lane::{Lane, News};
pub use position::{Position, StreamEnd, StreamEntry, StreamRef};

use crate::channel::Pattern;
use crate::core::Core;
use crate::dispatch::BoxFuture;
use crate::error::{Error, Result};
use crate::stream::{EntryId, RawEntry, StreamInfo, StreamName};

/// How often the epochs of what is followed are renewed.
const RENEW_EVERY: Duration = Duration::from_secs(60 * 60);

/// Reads streams of durable channels as they grow, all of them together. Made by
/// [`Messaging::follow`](crate::Messaging::follow).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::{Followed, Messaging};
///
/// let messaging = Messaging::builder().url("memory://").build().await?;
/// messaging.publish("orders.created", &1).durable().await?;
///
/// let mut follow = messaging.follow();
/// for stream in messaging.streams_of("orders.created").await? {
///     let end = messaging.stream_end(&stream).await?;
///     follow.handle().add(stream, end.position.id);
/// }
/// messaging.publish("orders.created", &2).durable().await?;
/// match follow.next().await {
///     Followed::Entries { entries, .. } => {
///         assert_eq!(entries[0].position.number, 2);
///         let message = entries[0].message.as_ref().expect("it was published on a channel");
///         assert_eq!(message.json::<u32>()?, 2);
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Delivery
/// The entries of one stream come in order, each once, from where the stream was added on, also across reconnections.
/// Only what the channel's retention removes before it is read is missing, and then the numbers show it. Where a server
/// comes back that knows less than was read, they begin anew. Nothing is read
/// before it is asked for: what comes meanwhile stays on the backend.
#[derive(Debug)]
#[must_use = "nothing is read before `next` is awaited"]
pub struct Follow {
    core: Arc<Core>,
    wanted: Arc<Wanted>,
    /// The version of `wanted` that the lanes are for.
    arranged: u64,
    lanes: HashMap<LaneKey, Running>,
    reading: FuturesUnordered<BoxFuture<'static, Option<Read>>>,
    /// What was read and is not told yet.
    ready: VecDeque<(Part, Vec<RawEntry>)>,
    /// The lanes that have failed and not succeeded since.
    failing: HashSet<LaneKey>,
    /// Why reading fails, until it is told.
    failure: Option<Error>,
    /// It was told that reading fails.
    is_lost: bool,
    /// When the epochs of what is read are renewed.
    renew: Instant,
}

/// What [`Follow`] has to tell.
#[derive(Debug)]
pub enum Followed {
    /// What has been appended to a stream, oldest first; at least one entry.
    Entries {
        /// The stream.
        stream: StreamRef,
        /// The entries.
        entries: Vec<StreamEntry>,
    },
    /// A stream, or all of them, cannot be read. It is tried again until it works; this is told once until then.
    Lost(Error),
    /// All streams are read again, from where they were read last.
    Restored,
    /// Messaging has been shut down: there will be nothing more.
    Closed,
}

/// Says what a [`Follow`] reads; at once, also while it waits. Copies of it are the same.
#[derive(Clone, Debug)]
pub struct FollowHandle(Arc<Wanted>);

/// What is to be read.
#[derive(Debug, Default)]
struct Wanted {
    streams: Mutex<Streams>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Streams {
    /// Grows with each change.
    version: u64,
    /// The version in which a stream was added last.
    added: u64,
    cursors: BTreeMap<StreamName, Cursor>,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// What has been read last.
    after: EntryId,
    /// The version in which the stream was added, which tells it from itself before it was removed.
    added: u64,
}

/// A stream, as it was added.
#[derive(Debug)]
struct Part {
    stream: StreamName,
    added: u64,
}

/// One lane for all streams, or on a cluster, where a read is of one slot, one for each.
type LaneKey = Option<StreamName>;

#[derive(Debug)]
struct Running {
    /// The version in which the last of its streams was added.
    added: u64,
    /// `None` while it reads.
    lane: Option<Lane>,
    stop: CancellationToken,
    /// Ends what it reads when it is not wanted any more.
    _ended: DropGuard,
}

/// What a read came to.
struct Read {
    key: LaneKey,
    added: u64,
    lane: Lane,
    parts: Vec<Part>,
    outcome: Result<News>,
}

impl Follow {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        Self {
            core: Arc::clone(core),
            wanted: Arc::default(),
            arranged: 0,
            lanes: HashMap::new(),
            reading: FuturesUnordered::new(),
            ready: VecDeque::new(),
            failing: HashSet::new(),
            failure: None,
            is_lost: false,
            renew: Instant::now(),
        }
    }

    /// What says which streams it reads.
    #[must_use]
    pub fn handle(&self) -> FollowHandle {
        FollowHandle(Arc::clone(&self.wanted))
    }

    /// Waits for what comes next.
    ///
    /// # Cancellation
    /// Nothing is lost: the next call goes on with what this one has begun.
    pub async fn next(&mut self) -> Followed {
        let (wanted, stop) = (Arc::clone(&self.wanted), self.core.stop.clone());
        loop {
            let changed = wanted.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if stop.is_cancelled() {
                self.lanes.clear();
                self.reading.clear();
                return Followed::Closed;
            }
            self.arrange();
            if let Some(told) = self.told() {
                return told;
            }
            self.start();
            self.renew_epochs();
            tokio::select! {
                () = stop.cancelled() => {}
                () = changed => {}
                Some(read) = self.reading.next() => if let Some(read) = read {
                    self.take_up(read);
                },
            }
        }
    }

    /// Makes the lanes those of what is wanted.
    fn arrange(&mut self) {
        let streams = self.wanted.lock();
        if streams.version == self.arranged {
            return;
        }
        self.arranged = streams.version;
        let together = self.core.backend.readable_together();
        let mut wanted: HashMap<LaneKey, u64> = HashMap::new();
        if !together {
            wanted.extend(streams.cursors.iter().map(|(name, cursor)| (Some(name.clone()), cursor.added)));
        } else if !streams.cursors.is_empty() {
            // A read that is of too many streams is no harm: what it brings of those that are not wanted is left out.
            wanted.insert(None, streams.added);
        }
        drop(streams);
        self.lanes.retain(|key, running| wanted.get(key) == Some(&running.added));
        self.failing.retain(|key| wanted.contains_key(key));
        for (key, added) in wanted {
            self.lanes.entry(key).or_insert_with(|| {
                let stop = CancellationToken::new();
                Running { added, lane: Some(Lane::new()), _ended: stop.clone().drop_guard(), stop }
            });
        }
    }

    fn told(&mut self) -> Option<Followed> {
        if let Some(error) = self.failure.take() {
            self.is_lost = true;
            return Some(Followed::Lost(error));
        }
        if self.is_lost && self.failing.is_empty() {
            self.is_lost = false;
            return Some(Followed::Restored);
        }
        while let Some((part, entries)) = self.ready.pop_front() {
            if self.wanted.lock().cursor(&part).is_some() {
                let prefix = &self.core.config.channel_prefix;
                let entries = entries.into_iter().map(|raw| StreamEntry::read(raw, prefix)).collect();
                return Some(Followed::Entries { stream: StreamRef(part.stream), entries });
            }
        }
        None
    }

    /// Lets all lanes read.
    fn start(&mut self) {
        let lanes = self.lanes.len();
        for (key, running) in &mut self.lanes {
            let Some(mut lane) = running.lane.take() else { continue };
            let (mut parts, mut after) = (Vec::new(), Vec::new());
            let mut include = |(name, cursor): (&StreamName, &Cursor)| {
                parts.push(Part { stream: name.clone(), added: cursor.added });
                after.push((name.clone(), cursor.after));
            };
            let streams = self.wanted.lock();
            match key {
                Some(name) => streams.cursors.get_key_value(name).into_iter().for_each(include),
                None => streams.cursors.iter().for_each(&mut include),
            }
            drop(streams);
            if parts.is_empty() {
                // It has been removed since, and the lane will be, too.
                continue;
            }
            let (core, stop) = (Arc::clone(&self.core), running.stop.clone());
            let (key, added) = (key.clone(), running.added);
            self.reading.push(Box::pin(async move {
                let outcome = tokio::select! {
                    () = stop.cancelled() => return None,
                    outcome = lane.read(&core, &after, lanes) => outcome,
                };
                Some(Read { key, added, lane, parts, outcome })
            }));
        }
    }

    /// Keeps the epochs of what is read, which would expire if nobody asked for them for long.
    fn renew_epochs(&mut self) {
        if self.renew > Instant::now() {
            return;
        }
        let streams: Vec<_> = self.wanted.lock().cursors.keys().cloned().collect();
        if streams.is_empty() {
            return;
        }
        self.renew = Instant::now() + RENEW_EVERY;
        let core = Arc::clone(&self.core);
        self.core.background.spawn(async move {
            let renewing = async {
                for stream in streams {
                    // Where it fails, there are weeks left to try it again.
                    let _ = core.backend.end(&stream, None).await;
                }
            };
            tokio::select! {
                () = core.stop.cancelled() => {}
                () = renewing => {}
            }
        });
    }

    fn take_up(&mut self, read: Read) {
        let Read { key, added, lane, parts, outcome } = read;
        let Some(running) = self.lanes.get_mut(&key).filter(|running| running.added == added) else { return };
        let is_refused = lane.is_refused();
        running.lane = Some(lane);
        match outcome {
            Ok(News { batch, back }) => {
                if !is_refused {
                    self.failing.remove(&key);
                }
                let mut streams = self.wanted.lock();
                for (position, id) in back {
                    if let Some(cursor) = streams.cursor(&parts[position]) {
                        cursor.after = id;
                    }
                }
                let mut parts: Vec<_> = parts.into_iter().map(Some).collect();
                for (position, entries) in batch {
                    let Some((part, last)) = parts[position].take().zip(entries.last()) else { continue };
                    let Some(cursor) = streams.cursor(&part) else { continue };
                    cursor.after = last.id;
                    self.ready.push_back((part, entries));
                }
            }
            Err(error) => {
                if self.failing.is_empty() && !self.is_lost {
                    self.failure = Some(error);
                }
                self.failing.insert(key);
            }
        }
    }
}

impl FollowHandle {
    /// Reads a stream too, from what comes after this entry on; one that is read already, from there.
    pub fn add(&self, stream: StreamRef, after: EntryId) {
        self.0.change(|streams| {
            streams.added = streams.version;
            streams.cursors.insert(stream.0, Cursor { after, added: streams.version });
            true
        });
    }

    /// Reads a stream no more: what was read of it and is not told yet, is not told.
    pub fn remove(&self, stream: &StreamRef) {
        self.0.change(|streams| streams.cursors.remove(&stream.0).is_some());
    }
}

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is wanted, and wakes who waits if `change` says so.
    fn change(&self, change: impl FnOnce(&mut Streams) -> bool) {
        let mut streams = self.lock();
        streams.version += 1;
        let any = change(&mut streams);
        drop(streams);
        if any {
            self.changed.notify_waiters();
        }
    }
}

impl Streams {
    /// How far a stream has been read, if it is still wanted as it was added.
    fn cursor(&mut self, part: &Part) -> Option<&mut Cursor> {
        self.cursors.get_mut(&part.stream).filter(|cursor| cursor.added == part.added)
    }
}

/// The streams that may carry a channel, template or glob; those of this process are registered on the way.
pub(crate) async fn streams_of(core: &Core, pattern: &Pattern) -> Result<Vec<StreamRef>> {
    let mut wire = pattern.wire();
    wire.name = format!("{}{}", core.config.channel_prefix, wire.name);
    let mut streams = core.backend.streams().await?;
    let mut ours = core.durables.all(&core.registry);
    ours.retain(|ours| !streams.iter().any(|known| known.name == ours.name));
    ours.retain(|stream: &StreamInfo| stream.name.may_carry(&wire));
    core.backend.register(&ours).await?;
    streams.retain(|stream| stream.name.may_carry(&wire));
    streams.extend(ours);
    let mut streams: Vec<_> = streams.into_iter().map(|stream| StreamRef(stream.name)).collect();
    streams.sort_unstable();
    streams.dedup();
    Ok(streams)
}

pub(crate) async fn stream_end(core: &Core, stream: &StreamRef, over: Option<&str>) -> Result<StreamEnd> {
    let (tail, epoch) = core
        .backend
        .end(&stream.0, over)
        .await
        .map_err(|error| error.context(format_args!("end of {stream}")))?;
    Ok(StreamEnd { position: Position { id: tail.id, number: tail.number }, epoch })
}

pub(crate) async fn stream_before(
    core: &Core,
    stream: &StreamRef,
    before: EntryId,
    most: usize,
) -> Result<Vec<StreamEntry>> {
    if before == EntryId::MIN || most == 0 {
        return Ok(Vec::new());
    }
    let entries = core.backend.range_back(&stream.0, before.previous(), most).await;
    let entries = entries.map_err(|error| error.context(format_args!("past of {stream}")))?;
    Ok(entries.into_iter().map(|raw| StreamEntry::read(raw, &core.config.channel_prefix)).collect())
}
