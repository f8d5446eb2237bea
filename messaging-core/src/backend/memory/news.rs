//! Tells of streams that come up.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use super::{Memory, lock};
use crate::activity::{Activity, ActivityGuard};

/// Those who want to hear of streams.
#[derive(Debug, Default)]
pub(super) struct Watchers(Vec<Weak<News>>);

#[derive(Debug)]
struct News {
    activity: Activity,
    /// Streams have come up and nobody has looked yet, so that what is in them may still have to be read.
    unread: Mutex<Option<ActivityGuard>>,
    arrived: Notify,
}

impl Watchers {
    /// Streams have come up.
    pub(super) fn tell(&self) {
        for news in self.0.iter().filter_map(Weak::upgrade) {
            lock(&news.unread).get_or_insert_with(|| news.activity.guard());
            news.arrived.notify_one();
        }
    }
}

/// Hears of streams that come up.
#[derive(Debug)]
pub(crate) struct StreamWatch(Arc<News>);

impl Memory {
    pub(crate) fn watch_streams(&self) -> StreamWatch {
        let activity = self.activity.clone();
        let news = Arc::new(News { activity, unread: Mutex::default(), arrived: Notify::new() });
        let watchers = &mut lock(&self.bus.0).store.watchers.0;
        watchers.retain(|news| news.strong_count() > 0);
        watchers.push(Arc::downgrade(&news));
        StreamWatch(news)
    }
}

impl StreamWatch {
    /// Waits until streams have come up since the last [`take`](Self::take).
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn changed(&self) {
        while lock(&self.0.unread).is_none() {
            self.0.arrived.notified().await;
        }
    }

    /// What counts as unfinished until whoever takes it has looked at the streams that have come up; `None` if there are
    /// none.
    pub(crate) fn take(&self) -> Option<ActivityGuard> {
        lock(&self.0.unread).take()
    }
}
