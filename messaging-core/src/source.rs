//! Where a handler's messages come from: a supervised subscription, or streams.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::consume::Consumer;
use crate::core::Core;
use crate::dispatch::{DeliveryMode, Overflow, RunningHandler};
use crate::error::Result;
use crate::session::{Session, SessionHealth};

/// How long a stop waits for a reader that may be waiting for the handler itself.
const READER_WAITS: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) enum Source {
    Channels {
        session: Session,
        /// The session is the handler's own.
        own: bool,
        end: CancellationToken,
    },
    Streams(Arc<Consumer>),
}

impl Source {
    /// Begins to feed the handler's mailbox.
    pub(crate) fn open(
        core: &Arc<Core>,
        running: &Arc<RunningHandler>,
        shared: &Session,
        group: &str,
        dead_letter: Option<&str>,
    ) -> Self {
        if running.options.delivery != DeliveryMode::Broadcast {
            return Self::Streams(Consumer::start(core, running, group, dead_letter));
        }
        let end = core.stop.child_token();
        let own = running.options.overflow == Overflow::Block;
        let session = if own {
            let backend = Arc::clone(&core.backend);
            Session::start(&running.id, &running.label, backend, &core.config, &core.background, end.clone())
        } else {
            shared.clone()
        };
        let carrier = running.options.carrier;
        session.want(&running.mailbox, &running.patterns, carrier, &core.config.channel_prefix);
        Self::Channels { session, own, end }
    }

    /// Waits until everything is subscribed, or read.
    pub(crate) async fn confirmed(&self, running: &RunningHandler) -> Result<()> {
        match self {
            Self::Channels { session, .. } => session.confirmed(&running.mailbox).await,
            Self::Streams(consumer) => consumer.confirmed().await,
        }
    }

    /// Feeds the mailbox nothing more, and closes it. What a queue's workers have not begun is handed back.
    pub(crate) async fn close(&self, running: &RunningHandler, deadline: Instant) {
        match self {
            Self::Channels { session, .. } => {
                // First nothing more is read. A reader that waits for this very mailbox hears of it only when that is
                // closed.
                let soon = deadline.min(Instant::now() + READER_WAITS);
                let removed = timeout_at(soon, session.remove(&running.mailbox)).await;
                running.mailbox.close();
                if removed.is_err() {
                    let _ = timeout_at(deadline, session.remove(&running.mailbox)).await;
                }
            }
            Self::Streams(consumer) => {
                consumer.stop_reading();
                running.mailbox.close();
                if consumer.is_queue() {
                    running.mailbox.clear();
                }
            }
        }
    }

    /// Ends in order; returns how many handled entries could not be acknowledged.
    pub(crate) async fn finish(&self, deadline: Instant) -> usize {
        match self {
            Self::Channels { end, .. } => {
                end.cancel();
                0
            }
            Self::Streams(consumer) => consumer.finish(deadline).await,
        }
    }

    /// The handler has ended by itself.
    pub(crate) fn leave(&self, running: &RunningHandler) {
        match self {
            Self::Channels { session, .. } => session.remove_later(&running.mailbox),
            Self::Streams(consumer) => consumer.stop_reading(),
        }
        running.mailbox.close();
    }

    /// Ends at once.
    pub(crate) fn abandon(&self, running: &RunningHandler) {
        self.leave(running);
        match self {
            Self::Channels { end, .. } => end.cancel(),
            Self::Streams(consumer) => consumer.abandon(),
        }
    }

    /// The health of the handler's own session, if it has one.
    pub(crate) fn own_session(&self) -> Option<SessionHealth> {
        match self {
            Self::Channels { session, own: true, .. } => Some(session.health()),
            _ => None,
        }
    }

    pub(crate) fn consumer(&self) -> Option<&Consumer> {
        match self {
            Self::Channels { .. } => None,
            Self::Streams(consumer) => Some(consumer),
        }
    }
}
