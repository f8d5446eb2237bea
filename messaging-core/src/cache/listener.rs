//! Hears the events of `invalidate_on`, on a connection that no handler can hold up: that is what serves publishers that
//! are not ours.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Cache;
use crate::channel::Pattern;
use crate::config::Config;
use crate::dispatch::{Buffer, Carrier, Entry, Mailbox, Overflow};
use crate::error::Result;
use crate::session::{Session, SessionHealth};

#[derive(Debug)]
pub(crate) struct Listener {
    session: Session,
    mailbox: Arc<Mailbox>,
    confirmed: AtomicBool,
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
        // It is wanted from now on, whether or not anybody waits for the confirmation.
        session.want(&mailbox, &patterns, Carrier::Broadcast, &config.channel_prefix);
        tasks.spawn(listen(Arc::downgrade(cache), Arc::clone(&mailbox), patterns, stop));
        Self { session, mailbox, confirmed: AtomicBool::new(false) }
    }

    /// Waits until everything is subscribed.
    pub(crate) async fn confirmed(&self) -> Result<()> {
        self.session.confirmed(&self.mailbox).await?;
        self.confirmed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether everything has been subscribed once; waits for it at most so long. Later losses are gaps.
    pub(super) async fn was_confirmed(&self, limit: Duration) -> bool {
        self.confirmed.load(Ordering::Relaxed)
            || matches!(tokio::time::timeout(limit, Box::pin(self.confirmed())).await, Ok(Ok(())))
    }

    /// Whether everything is subscribed at this moment.
    pub(super) fn hears(&self) -> bool {
        self.session.is_sound()
    }

    pub(crate) fn health(&self) -> SessionHealth {
        self.session.health()
    }
}

async fn listen(cache: Weak<Cache>, mailbox: Arc<Mailbox>, patterns: Vec<Pattern>, stop: CancellationToken) {
    loop {
        let entry = tokio::select! {
            () = stop.cancelled() => return,
            entry = mailbox.pop(0) => entry,
        };
        let Some(cache) = cache.upgrade() else { return };
        match entry {
            Some(Entry::Message(event)) => {
                // Redis delivers once for each pattern that matches; the first of them counts.
                let earlier = &patterns[..usize::from(event.pattern)];
                if !earlier.iter().any(|pattern| pattern.matches(&event.channel)) {
                    cache.heard(&event.channel, &event.payload).await;
                }
            }
            Some(Entry::Gap(_)) => cache.missed(),
            None => return,
        }
    }
}
