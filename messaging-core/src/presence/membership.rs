//! The handle on one join.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::millis_now;
use super::node::{Join, Node};
use super::record::Record;
use crate::channel::Channel;
use crate::error::Result;
use crate::publish::to_the_end;

/// That somebody is present; made by [`Presence::join`](crate::Presence::join). Dropping it leaves, in the background. It does
/// not keep the [`Messaging`](crate::Messaging) alive, without which nobody is present.
#[must_use = "dropping it leaves"]
pub struct Membership {
    node: Arc<Node>,
    join: Arc<Join>,
    owner: u64,
    user: String,
}

impl Membership {
    pub(super) async fn join(node: &Arc<Node>, channel: &Channel, id: &str, record: Record) -> Result<Self> {
        let user = record.user.clone();
        let (join, owner) = node.enter(channel, id, record)?;
        // From here on a drop, of this future too, undoes it.
        let membership = Self { node: Arc::clone(node), join, owner, user };
        membership.settle().await?;
        Ok(membership)
    }

    /// The id of the join.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.join.key.id
    }

    /// Who has joined.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.join.channel
    }

    /// Changes what the user says of himself.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode), [`ErrorKind::PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge);
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when messaging has been shut down. After what the backend says, the
    /// change is tried again with each sign of life.
    ///
    /// # Cancellation
    /// The change is made.
    pub async fn update<T: Serialize + ?Sized>(&self, meta: &T) -> Result<()> {
        let attempted = || format!("update the presence on {:?}", self.join.channel);
        let record = Record::new(&self.user, meta, millis_now());
        record
            .and_then(|record| self.node.change(&self.join, self.owner, record))
            .map_err(|error| error.context(attempted()))?;
        self.settle().await.map_err(|error| error.maybe_sent().context(attempted()))
    }

    /// Leaves, and returns when that has been done.
    ///
    /// # Errors
    /// What the backend says; then it is tried again with each sign of life.
    ///
    /// # Cancellation
    /// It is left.
    pub async fn leave(self) -> Result<()> {
        if !self.node.abandon(&self.join, self.owner) {
            return Ok(());
        }
        let attempted =
            |error: crate::Error| error.maybe_sent().context(format_args!("leave {:?}", self.join.channel));
        self.settle().await.map_err(attempted)
    }

    /// Makes the join what it should be, also for a caller who is dropped.
    async fn settle(&self) -> Result<()> {
        let (node, join) = (Arc::clone(&self.node), Arc::clone(&self.join));
        to_the_end(&self.node.core, async move {
            node.alive().await?;
            node.settle(&join).await
        })
        .await
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.node.leave_later(&self.join, self.owner);
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("channel", &self.join.channel)
            .field("id", &self.id())
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
