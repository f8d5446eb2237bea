//! How far something is that takes long, on a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::output::count;

/// What is over sooner needs no bar.
const SOON: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    all: u64,
    next: Option<Instant>,
    was_shown: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, all: u64) -> Self {
        let next = std::io::stderr().is_terminal().then(|| Instant::now() + SOON);
        Self { what, all, next, was_shown: false }
    }

    pub(crate) fn show(&mut self, done: u64) {
        if self.next.is_none_or(|next| Instant::now() < next) {
            return;
        }
        self.next = Some(Instant::now() + EVERY);
        self.was_shown = true;
        let filled = (done * WIDTH).checked_div(self.all).unwrap_or_default().min(WIDTH) as usize;
        let (full, empty) = ("█".repeat(filled), "░".repeat(WIDTH as usize - filled));
        let line = format!("\r{full}{empty} {} {} of {}", self.what, count(done), count(self.all));
        let mut error = anstream::stderr();
        let _ = write!(error, "{line}").and_then(|()| error.flush());
    }

    /// Leaves the line as it was.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.was_shown) {
            let mut error = anstream::stderr();
            let _ = write!(error, "\r\u{1b}[K").and_then(|()| error.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
