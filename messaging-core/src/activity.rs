//! Counts what is still being worked on, and tells when nothing is. Knows nothing of messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A shared count of unfinished work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    unfinished: AtomicUsize,
    idle: Notify,
}

impl Activity {
    pub(crate) fn begin(&self, count: usize) {
        self.0.unfinished.fetch_add(count, Ordering::SeqCst);
    }

    pub(crate) fn finish(&self, count: usize) {
        if count > 0 && self.0.unfinished.fetch_sub(count, Ordering::SeqCst) == count {
            self.0.idle.notify_waiters();
        }
    }

    /// Begins one piece of work that is finished when the guard is dropped.
    pub(crate) fn guard(&self) -> ActivityGuard {
        self.begin(1);
        ActivityGuard(self.clone())
    }

    /// Whether it is the same count.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.0.unfinished.load(Ordering::SeqCst)
    }

    /// Waits until there is no unfinished work.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.0.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.unfinished() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One piece of unfinished work.
#[derive(Debug)]
pub(crate) struct ActivityGuard(Activity);

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.0.finish(1);
    }
}
