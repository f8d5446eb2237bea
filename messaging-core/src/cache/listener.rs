//! Hears the events of `invalidate_on`, on a connection that no handler can hold up: that is what serves publishers that
//! are not ours.

use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Cache;
use crate::channel::Pattern;
use crate::config::Config;
use crate::dispatch::{Buffer, Entry, Mailbox, Overflow};
use crate::error::Result;
use crate::session::{Session, SessionHealth};

#[derive(Debug)]
pub(crate) struct Listener {
    session: Session,
    mailbox: Arc<Mailbox>,
    patterns: Vec<Pattern>,
    prefix: String,
}

impl Listener {
    pub(super) fn start(
        cache: &Arc<Cache>,
        patterns: Vec<Pattern>,
        config: &Config,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let session = Session::start("cache", Arc::clone(&cache.backend), config, tasks, stop.clone());
        let mailbox = Arc::new(Mailbox::for_subscription(Buffer::DEFAULT, Overflow::Wait));
        tasks.spawn(listen(Arc::downgrade(cache), Arc::clone(&mailbox), stop));
        let prefix = config.channel_prefix.clone();
        let listener = Self { session, mailbox, patterns, prefix };
        // It is wanted from now on, whether or not anybody waits for the confirmation.
        listener.session.want(&listener.mailbox, &listener.patterns, &listener.prefix);
        listener
    }

    /// Waits until everything is subscribed.
    pub(crate) async fn confirmed(&self) -> Result<()> {
        self.session.confirmed(&self.mailbox).await
    }

    pub(crate) fn health(&self) -> SessionHealth {
        self.session.health()
    }
}

async fn listen(cache: Weak<Cache>, mailbox: Arc<Mailbox>, stop: CancellationToken) {
    loop {
        let entry = tokio::select! {
            () = stop.cancelled() => return,
            entry = mailbox.pop(0) => entry,
        };
        let Some(cache) = cache.upgrade() else { return };
        match entry {
            Some(Entry::Message(event)) => cache.heard(&event.channel, &event.payload).await,
            Some(Entry::Gap(_)) => cache.missed(),
            None => return,
        }
    }
}
