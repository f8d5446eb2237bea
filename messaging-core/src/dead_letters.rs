//! What a group has given up: to be looked at, replayed or removed.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::channel::Channel;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::history::PastMessage;
use crate::queues;
use crate::stream::{Entry, EntryId, EventId, RawEntry, StreamName, field};
use bytes::Bytes;
use bytestring::ByteString;

/// How many dead letters are read at once.
const AT_ONCE: usize = 1_000;

/// The dead letters of a group, in all streams. Made by
/// [`Messaging::dead_letters`](crate::Messaging::dead_letters).
///
/// They are kept for 14 days, up to 100,000 in each stream.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// # let messaging = messaging_core::Messaging::builder().url("memory://").build().await?;
/// let dead = messaging.dead_letters("billing");
/// for letter in dead.list().await? {
///     println!("{} after {} attempts: {}", letter.channel(), letter.attempts(), letter.error());
/// }
/// let replayed = dead.replay_all().await?;
/// # assert_eq!(replayed, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DeadLetters {
    core: Arc<Core>,
    group: String,
}

/// A message that a group has given up.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    id: DeadLetterId,
    message: PastMessage,
    handler: String,
    error: String,
    attempts: u32,
    failed_at: SystemTime,
}

/// Which dead letter it is: the stream and the place in its dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeadLetterId {
    stream: StreamName,
    id: EntryId,
}

impl std::fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.stream, self.id)
    }
}

impl DeadLetters {
    pub(crate) fn new(core: &Arc<Core>, group: &str) -> Self {
        Self { core: Arc::clone(core), group: group.to_owned() }
    }

    /// All of them, the oldest of each stream first.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn list(&self) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        for stream in queues::streams(&self.core).await? {
            self.pages(&stream, async |page| {
                letters.extend(page.into_iter().filter_map(|raw| self.read(&stream, raw)));
                Ok(())
            })
            .await?;
        }
        Ok(letters)
    }

    /// Some of them, the oldest of each stream first: at most `most`, from what comes after `after` in that order on. So
    /// that all of them can be gone through without having all at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// # let messaging = messaging_core::Messaging::builder().url("memory://").build().await?;
    /// let dead = messaging.dead_letters("billing");
    /// let mut page = dead.page(None, 100).await?;
    /// while let Some(last) = page.last() {
    ///     println!("up to {}", last.id());
    ///     page = dead.page(Some(last.id()), 100).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the backend says.
    pub async fn page(&self, after: Option<&DeadLetterId>, most: usize) -> Result<Vec<DeadLetter>> {
        let mut streams = queues::streams(&self.core).await?;
        streams.sort_unstable();
        let mut letters = Vec::new();
        for stream in streams {
            let mut from = match after {
                Some(after) if stream == after.stream => after.id,
                Some(after) if stream < after.stream => continue,
                _ => EntryId::MIN,
            };
            while letters.len() < most {
                let page = self.core.backend.dead(&stream, &self.group, from, most - letters.len()).await?;
                let Some(last) = page.last() else { break };
                from = last.id;
                letters.extend(page.into_iter().filter_map(|raw| self.read(&stream, raw)));
            }
        }
        Ok(letters)
    }

    /// How many there are.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn count(&self) -> Result<u64> {
        let mut count = 0;
        for stream in queues::streams(&self.core).await? {
            count += self.core.backend.dead_count(&stream, &self.group).await?;
        }
        Ok(count)
    }

    /// Gives one to its group again, with all its attempts before it; other groups do not get it. It is no dead letter
    /// any more.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is not there: it was replayed or purged meanwhile, or is too old.
    ///
    /// # Cancellation
    /// It may have been replayed.
    pub async fn replay(&self, id: &DeadLetterId) -> Result<()> {
        if self.core.backend.replay(&id.stream, &self.group, id.id).await? {
            return Ok(());
        }
        let text = format!("the group `{}` has no dead letter {id}", self.group);
        Err(Error::new(ErrorKind::NotFound, text))
    }

    /// Replays all of them; returns how many. Those that die meanwhile stay.
    ///
    /// # Errors
    /// What the backend says; some may have been replayed.
    pub async fn replay_all(&self) -> Result<u64> {
        let mut replayed = 0;
        for stream in queues::streams(&self.core).await? {
            let until = EntryId { millis: self.core.backend.now().await?, sequence: u64::MAX };
            self.pages(&stream, async |page| {
                for raw in page.into_iter().filter(|raw| raw.id <= until) {
                    replayed += u64::from(self.core.backend.replay(&stream, &self.group, raw.id).await?);
                }
                Ok(())
            })
            .await?;
        }
        Ok(replayed)
    }

    /// Removes one for good; `false` if it is not there.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn purge(&self, id: &DeadLetterId) -> Result<bool> {
        Ok(self.core.backend.purge(&id.stream, &self.group, &[id.id]).await? > 0)
    }

    /// Removes all of them for good; returns how many.
    ///
    /// # Errors
    /// What the backend says; some may have been removed.
    pub async fn purge_all(&self) -> Result<u64> {
        let mut purged = 0;
        for stream in queues::streams(&self.core).await? {
            self.pages(&stream, async |page| {
                let ids: Vec<_> = page.iter().map(|raw| raw.id).collect();
                purged += self.core.backend.purge(&stream, &self.group, &ids).await?;
                Ok(())
            })
            .await?;
        }
        Ok(purged)
    }

    async fn pages(
        &self,
        stream: &StreamName,
        mut each: impl AsyncFnMut(Vec<RawEntry>) -> Result<()>,
    ) -> Result<()> {
        let mut after = EntryId::MIN;
        loop {
            let page = self.core.backend.dead(stream, &self.group, after, AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            each(page).await?;
        }
    }

    fn read(&self, stream: &StreamName, raw: RawEntry) -> Option<DeadLetter> {
        let id = raw.id;
        let mut said = HashMap::new();
        let fields = raw.fields.into_iter().filter(|(name, value)| {
            let name = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(field::DEAD));
            let Some(name) = name else { return true };
            said.insert(name.to_owned(), String::from_utf8_lossy(value).into_owned());
            false
        });
        let fields = fields.collect();
        let (mut entry, channel, payload) =
            Entry::read(RawEntry { id, fields }, 0).or_else(|| unreadable(id))?;
        if let Some(original) = said.get("entry").and_then(|id| id.parse().ok()) {
            // What had no id of its own was known by its place.
            if *entry.event == id.to_string() {
                entry.event = EventId(ByteString::from(EntryId::to_string(&original)));
            }
            entry.id = original;
        }
        let channel = Channel::from_wire(channel)?;
        let channel = channel.without_prefix(&self.core.config.channel_prefix).unwrap_or(channel);
        let failed_at = said.get("at").and_then(|millis| millis.parse().ok()).unwrap_or(id.millis);
        Some(DeadLetter {
            id: DeadLetterId { stream: stream.clone(), id },
            message: PastMessage::new(channel, payload, entry),
            handler: said.remove("handler").unwrap_or_default(),
            error: said.remove("error").unwrap_or_default(),
            attempts: said.get("attempts").and_then(|attempts| attempts.parse().ok()).unwrap_or_default(),
            failed_at: SystemTime::UNIX_EPOCH + Duration::from_millis(failed_at),
        })
    }
}

/// Stands for an entry that no publisher of ours made: it can still be seen, and purged.
fn unreadable(id: EntryId) -> Option<(Entry, Bytes, Bytes)> {
    let field = |name: &'static str, value: &'static str| (Bytes::from(name), Bytes::from(value));
    let fields = vec![field(field::CHANNEL, "(unknown)"), field(field::DATA, "")];
    Entry::read(RawEntry { id, fields }, 0)
}

impl DeadLetter {
    /// Which one it is, for [`replay`](DeadLetters::replay) and [`purge`](DeadLetters::purge).
    #[must_use]
    pub fn id(&self) -> &DeadLetterId {
        &self.id
    }

    /// The id of the handler that gave it up.
    #[must_use]
    pub fn handler(&self) -> &str {
        &self.handler
    }

    /// Why: the last error's text, at most 2,000 characters.
    #[must_use]
    pub fn error(&self) -> &str {
        &self.error
    }

    /// How often the handler was called with it.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When it was given up, by that process's clock.
    #[must_use]
    pub fn failed_at(&self) -> SystemTime {
        self.failed_at
    }
}

/// The message itself: its [`position`](PastMessage::position) is that in its stream.
impl Deref for DeadLetter {
    type Target = PastMessage;

    fn deref(&self) -> &PastMessage {
        &self.message
    }
}
