//! The task that looks after what a node has joined, for as long as there is something: shows that the node lives, and makes
//! sure that what should be there is, and nothing else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Join, Node, Pulse};
use crate::backend::presence::NodeId;
use crate::channel::Channel;
use crate::error::{Result, chain};

/// Each channel is looked at once in so many beats.
const AUDIT_EVERY: u64 = 10;
/// How many commands are on their way at once.
const AT_ONCE: usize = 128;
/// Ending waits so long for the members to be removed; those who are left count as gone all the same.
const LEAVING: Duration = Duration::from_millis(800);

impl Node {
    /// Starts it, unless it runs. It belongs to the runtime of whoever joined first; when that has ended, to the next.
    pub(super) fn keep(self: &Arc<Self>) {
        let mut state = self.state();
        let runs = state.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished());
        // Without a runtime nobody shows that the node lives, and it counts as gone before long.
        if !runs && Handle::try_current().is_ok() {
            state.keeper = Some(self.core.background.spawn(Arc::clone(self).keep_until_stopped()));
        }
    }

    async fn keep_until_stopped(self: Arc<Self>) {
        tokio::select! {
            () = self.core.stop.cancelled() => self.leave_all().await,
            () = self.keep_on() => {}
        }
    }

    async fn keep_on(self: &Arc<Self>) {
        let mut round: Option<AbortOnDropHandle<()>> = None;
        let (mut next, mut beats) = (Instant::now() + self.interval(), 0);
        loop {
            let due = tokio::select! {
                () = self.news.notified() => false,
                () = sleep_until(next) => true,
            };
            if due {
                if self.ends() {
                    return;
                }
                let began = Instant::now();
                let beaten = self.beat(&mut *self.pulse.lock().await).await;
                next = began + if beaten.is_ok() { self.interval() } else { self.interval() / 4 };
                beats += 1;
                if beaten.is_err() {
                    continue;
                }
            }
            self.remove_left();
            let busy = round.as_ref().is_some_and(|round| !round.is_finished());
            if !busy && (due || self.alarmed.load(Ordering::Acquire)) {
                let looking = Arc::clone(self).look_after(beats);
                round = Some(AbortOnDropHandle::new(self.core.background.spawn(looking)));
            }
        }
    }

    /// Whether nothing is joined or in doubt any more. Then whoever joins next starts another task.
    fn ends(&self) -> bool {
        let mut state = self.state();
        let ends = state.joins.is_empty() && state.doubts.is_empty();
        if ends {
            state.keeper = None;
        }
        ends
    }

    /// Shows that this node lives.
    pub(super) async fn beat(&self, pulse: &mut Pulse) -> Result<()> {
        pulse.number += 1;
        let began = Instant::now();
        let beat = self.core.backend.beat(&self.id, pulse.number, self.ttl(), self.interval()).await;
        let beat = match beat {
            Ok(beat) => beat,
            Err(error) => {
                if !std::mem::replace(&mut pulse.failing, true) {
                    tracing::warn!(error = %chain(&error), "cannot show who is present; trying again");
                }
                return Err(error);
            }
        };
        pulse.failing = false;
        pulse.alive_until = Some(began + self.ttl());
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        // Otherwise the node may have counted as dead for a while, or the server has lost what it had. An answer that was lost
        // may have said so.
        let continued = beat.before.is_some() && beat.before == pulse.confirmed;
        // Another connection may lead to a server that has taken over and lacks the last writes.
        let same_connection = pulse.connection.replace(beat.connection) == Some(beat.connection);
        pulse.confirmed = Some(pulse.number);
        if !continued {
            self.write_all_again();
        }
        if !(continued && same_connection) {
            self.alarmed.store(true, Ordering::Release);
            self.news.notify_one();
        }
        Ok(())
    }

    /// With versions of their own: whoever has seen the old ones, and the node dead, removes only those.
    fn write_all_again(&self) {
        for join in self.joins() {
            let mut wish = join.wish();
            if wish.record.is_some() && wish.touched {
                wish.version = self.next_version();
            }
        }
    }

    fn joins(&self) -> Vec<Arc<Join>> {
        self.state().joins.values().cloned().collect()
    }

    fn remove_left(self: &Arc<Self>) {
        let leaving = std::mem::take(&mut self.state().leaving);
        if !leaving.is_empty() {
            let node = Arc::clone(self);
            self.core.work.spawn(async move { node.settle_all(leaving).await });
        }
    }

    async fn settle_all(&self, joins: Vec<Arc<Join>>) {
        let settling = stream::iter(joins).for_each_concurrent(AT_ONCE, async |join| {
            // It is tried again after the next beat.
            if let Err(error) = self.settle(&join).await {
                let channel = &join.channel;
                tracing::debug!(%channel, error = %chain(&error), "a member could not be written or removed");
            }
        });
        settling.await;
    }

    /// Writes what is not as it should be, and finds out of a part of the rest whether it is.
    async fn look_after(self: Arc<Self>, beats: u64) {
        let all = self.alarmed.swap(false, Ordering::AcqRel);
        let (mut unsettled, mut channels) = (Vec::new(), HashMap::<Channel, Vec<Arc<Join>>>::new());
        for join in self.joins() {
            let is_settled = {
                let wish = join.wish();
                wish.written == wish.version
            };
            if is_settled {
                channels.entry(join.channel.clone()).or_default().push(join);
            } else {
                unsettled.push(join);
            }
        }
        self.settle_all(unsettled).await;
        let doubted: Vec<_> = self.state().doubts.keys().cloned().collect();
        let mut due: Vec<(Channel, Vec<Arc<Join>>, bool)> = Vec::new();
        for channel in doubted {
            let joins = channels.remove(&channel).unwrap_or_default();
            due.push((channel, joins, true));
        }
        let turn = |channel: &Channel| {
            let mut hasher = DefaultHasher::new();
            channel.hash(&mut hasher);
            hasher.finish() % AUDIT_EVERY == beats % AUDIT_EVERY
        };
        let in_turn = channels.into_iter().filter(|(channel, _)| all || turn(channel));
        due.extend(in_turn.map(|(channel, joins)| (channel, joins, false)));
        let failed = AtomicBool::new(false);
        let audits = stream::iter(due).for_each_concurrent(AT_ONCE, async |(channel, joins, doubted)| {
            if let Err(error) = self.audit(&channel, joins, doubted.then_some(&self.id)).await {
                failed.store(true, Ordering::Relaxed);
                tracing::debug!(%channel, error = %chain(&error), "members could not be looked at");
            }
        });
        audits.await;
        if all && failed.load(Ordering::Relaxed) {
            // With the next beat.
            self.alarmed.store(true, Ordering::Release);
        }
    }

    /// Writes again what is not there as it should be, and removes what should not be there.
    pub(super) async fn audit(
        &self,
        channel: &Channel,
        joins: Vec<Arc<Join>>,
        doubted: Option<&NodeId>,
    ) -> Result<()> {
        let mut expected = Vec::with_capacity(joins.len());
        for join in &joins {
            let wish = join.wish();
            if let Some(record) = &wish.record {
                expected.push((join.key.clone(), record.encode(wish.version)));
            }
        }
        let audited = self.core.backend.audit_members(channel, &expected, doubted).await?;
        let mut unsettled = Vec::new();
        {
            let mut state = self.state();
            for key in audited.wrong {
                if let Some(join) = state.joins.get(&(channel.clone(), Arc::clone(&key.id))) {
                    let mut wish = join.wish();
                    if wish.record.is_some() && wish.written == wish.version {
                        wish.version = self.next_version();
                    }
                    drop(wish);
                    unsettled.push(Arc::clone(join));
                }
            }
            for key in audited.there {
                if let Entry::Vacant(vacant) = state.joins.entry((channel.clone(), Arc::clone(&key.id))) {
                    let join = Arc::new(Join::new(channel, key));
                    join.wish().version = self.next_version();
                    join.wish().touched = true;
                    unsettled.push(Arc::clone(vacant.insert(join)));
                }
            }
            if doubted.is_some()
                && let Some(left) = state.doubts.get_mut(channel)
            {
                *left -= 1;
                if *left == 0 {
                    state.doubts.remove(channel);
                }
            }
        }
        self.settle_all(unsettled).await;
        Ok(())
    }

    /// Leaves everything, at once.
    async fn leave_all(&self) {
        let joins = {
            let mut state = self.state();
            state.closed = true;
            state.joins.values().cloned().collect::<Vec<_>>()
        };
        if joins.is_empty() {
            return;
        }
        for join in &joins {
            let mut wish = join.wish();
            if wish.record.take().is_some() {
                wish.version = self.next_version();
            }
        }
        let leaving = async {
            if let Err(error) = self.core.backend.end_node(&self.id).await {
                tracing::debug!(error = %chain(&error), "members are left to expire");
                return;
            }
            self.settle_all(joins).await;
        };
        if timeout(LEAVING, leaving).await.is_err() {
            tracing::debug!("not all members could be removed in time; they count as gone");
        }
    }
}
