//! Aligned lines with the time since the start, and how many of them handlers have written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use messaging_core::BoxError;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Screen {
    start: Instant,
    heard: Arc<watch::Sender<usize>>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), heard: Arc::default() }
    }

    pub(crate) fn line(&self, who: &str, text: &str) {
        println!("{:>6} ms  {who:<12}  {text}", self.start.elapsed().as_millis());
    }

    /// A line of a handler.
    pub(crate) fn heard(&self, who: &str, text: &str) {
        self.line(who, text);
        self.heard.send_modify(|heard| *heard += 1);
    }

    /// Waits until handlers have written so many lines in all.
    pub(crate) async fn wait_for(&self, lines: usize) -> Result<(), BoxError> {
        let mut heard = self.heard.subscribe();
        match tokio::time::timeout(PATIENCE, heard.wait_for(|heard| *heard >= lines)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("no handler was called within {PATIENCE:?}; does another program publish on the same channels?").into()),
        }
    }
}
