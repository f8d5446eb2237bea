//! Reading the past of a durable channel.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Deserialize;

use crate::channel::{Captures, Channel, Pattern};
use crate::core::Core;
use crate::dispatch::BoxFuture;
use crate::error::{Error, Result};
use crate::json;
use crate::stream::{Entry, EntryId, EventId, Headers, RawEntry, StreamName};

/// How many entries are read at once.
const AT_ONCE: usize = 1_000;
/// How many messages are returned without a limit.
const USUAL_LIMIT: usize = 1_000;

/// The past of a durable channel, oldest first: `.await` reads it. Made by
/// [`Messaging::history`](crate::Messaging::history).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::Messaging;
///
/// let messaging = Messaging::builder().url("memory://").build().await?;
/// for number in 1..=3 {
///     messaging.publish("orders.created", &number).durable().await?;
/// }
/// let past = messaging.history("orders.created").limit(2).await?;
/// let last = past.last().expect("there are two").position();
/// let rest = messaging.history("orders.created").since(last).await?;
/// assert_eq!(rest[0].json::<u32>()?, 3);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::InvalidChannel`](crate::ErrorKind::InvalidChannel); otherwise what the backend says. A channel that was never durable has an empty past.
#[must_use = "nothing is read before it is awaited"]
pub struct History {
    core: Arc<Core>,
    pattern: Result<Pattern>,
    since: EntryId,
    limit: usize,
}

/// A message of the past.
#[derive(Clone, Debug)]
pub struct PastMessage {
    channel: Channel,
    payload: Bytes,
    entry: Entry,
}

impl History {
    pub(crate) fn new(core: &Arc<Core>, pattern: Result<Pattern>) -> Self {
        Self { core: Arc::clone(core), pattern, since: EntryId::MIN, limit: USUAL_LIMIT }
    }

    /// Only what came after this position, as [`PastMessage::position`] gives it.
    pub fn since(mut self, position: EntryId) -> Self {
        self.since = position;
        self
    }

    /// At most so many messages, the oldest; 1,000 without this.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    async fn read(&self, pattern: &Pattern) -> Result<Vec<PastMessage>> {
        let prefix = &self.core.config.channel_prefix;
        let mut wire = pattern.wire();
        wire.name = format!("{prefix}{}", wire.name);
        let mut streams = self.core.backend.streams().await?;
        streams.retain(|stream| stream.name.may_carry(&wire));
        let mut past = Vec::new();
        for stream in streams {
            self.read_stream(&stream.name, pattern, &mut past).await?;
        }
        past.sort_by_key(|message| message.entry.id);
        past.truncate(self.limit);
        Ok(past)
    }

    async fn read_stream(
        &self,
        stream: &StreamName,
        pattern: &Pattern,
        past: &mut Vec<PastMessage>,
    ) -> Result<()> {
        let (mut after, mut found) = (self.since, 0);
        while found < self.limit {
            let page = self.core.backend.range(stream, after.next(), EntryId::MAX, AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for raw in page {
                if let Some(message) = self.read_one(raw, pattern) {
                    past.push(message);
                    found += 1;
                }
            }
        }
        Ok(())
    }

    fn read_one(&self, raw: RawEntry, pattern: &Pattern) -> Option<PastMessage> {
        let (entry, channel, payload) = Entry::read(raw, 0)?;
        let channel = Channel::from_wire(channel)?.without_prefix(&self.core.config.channel_prefix)?;
        // What was replayed for a group is not news.
        let wanted = entry.only.is_none() && pattern.captures(&channel, &mut Captures::new());
        wanted.then(|| PastMessage::new(channel, payload, entry))
    }
}

impl IntoFuture for History {
    type Output = Result<Vec<PastMessage>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match &self.pattern {
                Err(error) => Err(Error::new(error.kind(), error.to_string())),
                Ok(pattern) => self.read(pattern).await,
            }
        })
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("pattern", &self.pattern)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

impl PastMessage {
    pub(crate) fn new(channel: Channel, payload: Bytes, entry: Entry) -> Self {
        Self { channel, payload, entry }
    }

    /// Where it is: what comes later has a greater one.
    #[must_use]
    pub fn position(&self) -> EntryId {
        self.entry.id
    }

    /// What identifies the event.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        &self.entry.event
    }

    /// The channel that it was published on.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.entry.headers
    }

    /// Its number in its stream, counted from 1: where one is missing, a message has been removed. 0 if whoever appended
    /// it gave it none.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.entry.number
    }

    /// When it was published, by its publisher's clock.
    #[must_use]
    pub fn published_at(&self) -> SystemTime {
        self.entry.published()
    }

    /// Reads the payload as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if it is not JSON of that shape.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        json::decode(&self.payload)
            .map_err(|error| error.context(format_args!("past message on {:?}", self.channel)))
    }
}
