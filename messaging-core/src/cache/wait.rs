//! Waiting for the load of another process, which can only be looked at.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Cache;
use super::flight::Sight;
use crate::backend::{CacheKey, Looked, Token};

/// The pauses between two looks.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_millis(100);

/// What came of waiting.
pub(super) enum Waited {
    /// The load is over, and this is there now.
    Over(Looked),
    /// It could not be seen any more.
    Unseen,
    /// It has not ended in time.
    TooLong,
}

impl Cache {
    /// Waits until the load of another process has ended, until then at most. One looks for all who wait.
    ///
    /// Cancellation: no effect on the others.
    pub(super) async fn wait_for(self: &Arc<Self>, key: &CacheKey, holder: &Token, until: Instant) -> Waited {
        if Instant::now() >= until {
            return Waited::TooLong;
        }
        let mut sight = match self.flights.poll(holder) {
            Ok(sight) => sight,
            Err(sender) => {
                let sight = sender.subscribe();
                let (cache, stop) = (Arc::clone(self), self.stop.clone());
                let (key, holder) = (key.clone(), holder.clone());
                let polling = async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = cache.poll(&key, &holder, &sender) => {}
                    }
                    cache.flights.end_poll(&holder);
                };
                #[cfg(test)]
                let polling = super::interleavings::for_this_actor(polling);
                self.background.spawn(polling);
                sight
            }
        };
        match timeout_at(until, sight.wait_for(Option::is_some)).await {
            Ok(Ok(seen)) => seen.clone().flatten().map_or(Waited::Unseen, Waited::Over),
            // Shutting down.
            Ok(Err(_)) => Waited::Unseen,
            Err(_) => Waited::TooLong,
        }
    }

    /// Looks until the lease is not this one's any more, or nobody waits.
    async fn poll(&self, key: &CacheKey, holder: &Token, sight: &watch::Sender<Sight>) {
        let mut pause = FIRST_LOOK;
        // One receiver is kept for those who come.
        while sight.receiver_count() > 1 {
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause = (pause * 2).min(LAST_LOOK);
            let looked = self.backend.look(key, true).await.ok();
            if looked.as_ref().is_none_or(|looked| looked.holder.as_ref() != Some(holder)) {
                sight.send_replace(Some(looked));
                return;
            }
        }
    }
}
