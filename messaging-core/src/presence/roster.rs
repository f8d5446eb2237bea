//! Which nodes live, asked for together by all who watch: they want to know at about the same time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::backend::presence::NodeId;
use crate::error::Result;

/// A key may be there a moment longer than it had to live when that was asked.
const MARGIN: Duration = Duration::from_millis(10);
/// For how long what was found out is kept that nobody asks for.
const KEPT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<HashMap<NodeId, Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    asked: Instant,
    alive_until: Option<Instant>,
}

impl Roster {
    /// Until when each of these nodes counts as alive; `None` for the dead.
    ///
    /// Cancellation: nothing happens.
    pub(super) async fn ask(&self, backend: &Backend, nodes: &[NodeId]) -> Result<Vec<Option<Instant>>> {
        self.ask_unless(backend, nodes, |known| known.alive_until.is_some_and(|until| until > Instant::now()))
            .await
    }

    /// The same, if the server may have lost what it knew.
    pub(super) async fn ask_anew(&self, backend: &Backend, nodes: &[NodeId]) -> Result<Vec<Option<Instant>>> {
        self.ask_unless(backend, nodes, |_| false).await
    }

    async fn ask_unless(
        &self,
        backend: &Backend,
        nodes: &[NodeId],
        is_enough: impl Fn(&Known) -> bool,
    ) -> Result<Vec<Option<Instant>>> {
        let since = Instant::now();
        let mut known = self.0.lock().await;
        // Whoever was here before us may have asked for the same.
        let is_fresh = |known: &&Known| known.asked >= since || is_enough(known);
        let unknown: Vec<_> =
            nodes.iter().filter(|node| known.get(node).filter(is_fresh).is_none()).cloned().collect();
        if !unknown.is_empty() {
            let asked = Instant::now();
            let lives = backend.lives(&unknown).await?;
            let now = Instant::now();
            known.retain(|_, known| known.asked + KEPT > now);
            for (node, life) in unknown.into_iter().zip(lives) {
                let alive_until = life.map(|life| now + life.left + MARGIN);
                known.insert(node, Known { asked, alive_until });
            }
        }
        Ok(nodes.iter().map(|node| known.get(node).and_then(|known| known.alive_until)).collect())
    }
}
