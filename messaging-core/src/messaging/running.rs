//! Handlers that run, and shutting them down in order.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::{Messaging, Phase, lock};
use crate::core::Current;
use crate::handlers::Left;

/// Handlers that run. Dropping it does not stop them; they stop with [`shutdown`](Self::shutdown), or when every clone
/// of the [`Messaging`] is gone as well.
#[must_use = "keep it, to shut down in order"]
#[derive(Debug)]
pub struct Running(pub(super) Messaging);

impl Running {
    /// The handle.
    #[must_use]
    pub fn messaging(&self) -> &Messaging {
        &self.0
    }

    /// Waits for SIGINT or SIGTERM, then [`shutdown`](Self::shutdown) within `MESSAGING_DRAIN_TIMEOUT`: the second half of
    /// [`Messaging::run`], for programs that have something to do after the start. Until it is awaited, a signal ends the
    /// process at once.
    ///
    /// # Cancellation
    /// Handlers run on, as after dropping it.
    pub async fn until_terminated(self) -> ShutdownReport {
        self.end_on(terminated()).await
    }

    pub(super) async fn end_on(self, signal: impl Future<Output = &'static str>) -> ShutdownReport {
        let signal = signal.await;
        let deadline = self.0.core().config.drain_timeout;
        tracing::info!(signal, ?deadline, "shutting down");
        let report = self.shutdown(deadline).await;
        if !report.is_complete() {
            tracing::warn!(%report, "shut down before everything was handled");
        }
        report
    }

    /// Stops reading, lets handlers work off what waits and finish what they are at until `deadline` has passed, then
    /// drops what is left and closes everything.
    ///
    /// # Cancellation
    /// Whatever was not stopped yet goes on.
    pub async fn shutdown(self, deadline: Duration) -> ShutdownReport {
        let runtime = &self.0.0;
        let core = &runtime.core;
        *lock(&runtime.phase) = Phase::ShutDown;
        core.draining.cancel();
        let until = crate::retry::deadline(deadline);
        let tasks = std::mem::take(&mut *lock(&runtime.tasks));
        let stopped =
            join_all(tasks.iter().map(async |task| (task.running.id.to_string(), task.stop(until).await)))
                .await;
        core.work.close();
        let work_left = match tokio::time::timeout_at(until, core.work.wait()).await {
            Ok(()) => 0,
            Err(_) => core.work.len(),
        };
        core.end();
        core.background.close();
        // These end at once; the bound is for a backend that does not let go of a connection.
        let _ = tokio::time::timeout(Duration::from_secs(1), core.background.wait()).await;
        Current::uninstall(core);
        let unfinished = stopped
            .into_iter()
            .filter(|(_, left)| *left != Left::default())
            .map(|(handler, left)| Unfinished {
                handler,
                waiting: left.waiting,
                cut_off: left.cut_off,
                unsettled: left.unsettled,
            })
            .collect();
        ShutdownReport { unfinished, work_left }
    }
}

/// What shutting down left undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Handlers with messages that were not handled.
    pub unfinished: Vec<Unfinished>,
    /// Operations, such as a repository's publish, that were not finished.
    pub work_left: usize,
}

/// A handler that did not finish before the deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unfinished {
    /// The handler's id.
    pub handler: String,
    /// Messages that waited and were dropped.
    pub waiting: usize,
    /// Calls that were cut off.
    pub cut_off: usize,
    /// Messages of a queue that could not be acknowledged or handed back in time; they will be delivered again.
    pub unsettled: usize,
}

impl ShutdownReport {
    /// Whether everything was finished.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unfinished.is_empty() && self.work_left == 0
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_complete() {
            return f.write_str("everything was finished");
        }
        let mut separator = "";
        for Unfinished { handler, waiting, cut_off, unsettled } in &self.unfinished {
            write!(f, "{separator}`{handler}`: {waiting} messages not handled, {cut_off} calls cut off")?;
            if *unsettled > 0 {
                write!(f, ", {unsettled} to be delivered again")?;
            }
            separator = "; ";
        }
        if self.work_left > 0 {
            write!(f, "{separator}{} operations not finished", self.work_left)?;
        }
        Ok(())
    }
}

/// Takes SIGINT and SIGTERM over at once (Ctrl-C where there are no signals); the future waits for one and is its name.
pub(super) fn terminated() -> impl Future<Output = &'static str> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::interrupt())
            .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)))
    };
    async move {
        #[cfg(unix)]
        if let Ok((mut interrupt, mut terminate)) = signals {
            return tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
        }
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(error) => {
                tracing::error!(%error, "no signals can be received; running until the process is killed");
                std::future::pending().await
            }
        }
    }
}
