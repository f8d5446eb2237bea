//! The handle that is told what changes among a channel's members.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;

use super::PresenceEntry;
use super::watcher::Watcher;
use crate::channel::Channel;
use crate::dispatch::BoxFuture;
use crate::error::Result;
use crate::messaging::Messaging;

/// Something about a join that has changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PresenceChange {
    /// It is there now.
    Joined {
        /// The join's id.
        id: String,
        /// Who has joined.
        entry: PresenceEntry,
    },
    /// It says something else of itself.
    Updated {
        /// The join's id.
        id: String,
        /// What it is now.
        entry: PresenceEntry,
    },
    /// It is there no more.
    Left {
        /// The join's id.
        id: String,
        /// What it was.
        entry: PresenceEntry,
    },
}

impl PresenceChange {
    /// The id of the join.
    #[must_use]
    pub fn id(&self) -> &str {
        let (Self::Joined { id, .. } | Self::Updated { id, .. } | Self::Left { id, .. }) = self;
        id
    }

    /// What the join is, or was.
    #[must_use]
    pub fn entry(&self) -> &PresenceEntry {
        let (Self::Joined { entry, .. } | Self::Updated { entry, .. } | Self::Left { entry, .. }) = self;
        entry
    }
}

/// What changes among those who are present on a channel, in order; made by [`Presence::changes`](crate::Presence::changes).
///
/// It is also a [`Stream`] of results. Nothing is missed: after a lost connection it reads who is there, and yields the
/// differences. Members of a process that died have left at the latest when its time has run out (`MESSAGING_PRESENCE_TTL`,
/// 10 s). Where the server has lost what it knew, or a process has stood still, members may be told to have left and to have
/// joined again.
pub struct PresenceChanges {
    /// As long as somebody watches, messaging must not end by itself.
    _alive: Arc<dyn Any + Send + Sync>,
    watcher: Arc<tokio::sync::Mutex<Watcher>>,
    channel: Channel,
    /// The wait of the [`Stream`] that is in progress.
    next: Option<Mutex<BoxFuture<'static, Option<Result<PresenceChange>>>>>,
}

impl PresenceChanges {
    pub(super) async fn open(messaging: &Messaging, channel: &Channel) -> Result<Self> {
        let watcher = Watcher::open(messaging.node(), messaging.session(), channel).await?;
        Ok(Self {
            _alive: messaging.alive(),
            watcher: Arc::new(tokio::sync::Mutex::new(watcher)),
            channel: channel.clone(),
            next: None,
        })
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The next change; `None` when messaging has been shut down.
    ///
    /// # Errors
    /// What the backend says where the differences could not be read, for other reasons than a lost connection (by an ACL); it
    /// is tried again with the next call.
    ///
    /// # Cancellation
    /// No change is lost.
    pub async fn next(&mut self) -> Option<Result<PresenceChange>> {
        // What a stream's wait has learned stays with the watcher.
        self.next = None;
        self.watcher.lock().await.next().await
    }

    /// Who is there, by the id of the join: as of the last change that was yielded.
    #[must_use]
    pub fn entries(&mut self) -> BTreeMap<String, PresenceEntry> {
        self.next = None;
        let watcher = Arc::get_mut(&mut self.watcher).expect("only the wait of a stream shares it");
        watcher.get_mut().entries()
    }
}

impl Stream for PresenceChanges {
    type Item = Result<PresenceChange>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let next = this.next.get_or_insert_with(|| {
            let watcher = Arc::clone(&this.watcher);
            Mutex::new(Box::pin(async move { watcher.lock_owned().await.next().await }))
        });
        let next = next.get_mut().unwrap_or_else(PoisonError::into_inner);
        let item = std::task::ready!(next.as_mut().poll(context));
        this.next = None;
        Poll::Ready(item)
    }
}

impl fmt::Debug for PresenceChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceChanges").field("channel", &self.channel).finish_non_exhaustive()
    }
}
