//! Aligned lines with the time since the start.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Screen {
    start: Instant,
    /// How often handlers were called.
    handled: Arc<watch::Sender<u32>>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), handled: Arc::new(watch::Sender::new(0)) }
    }

    pub(crate) fn line(&self, who: &str, what: &str, text: &str) {
        println!("{:>6} ms  {who:<14} {what:<14} {text}", self.start.elapsed().as_millis());
    }

    /// What a handler has done.
    pub(crate) fn handled(&self, who: &str, what: &str, text: &str) {
        self.line(who, what, text);
        self.handled.send_modify(|handled| *handled += 1);
    }

    /// Waits until handlers were called so often in all.
    pub(crate) async fn until_handled(&self, times: u32) {
        // The sender is here.
        let _ = self.handled.subscribe().wait_for(|handled| *handled >= times).await;
    }
}
