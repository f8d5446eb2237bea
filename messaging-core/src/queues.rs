//! How the queues of a deployment are: what waits in each group, and whether anybody handles it.

use serde::Serialize;

use crate::core::Core;
use crate::error::Result;
use crate::stream::StreamName;

/// A group on one stream, as [`Messaging::queues`](crate::Messaging::queues) tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueState {
    /// The stream: a template with `<>` in place of its placeholders, and `#` and a number if it has partitions.
    pub stream: String,
    /// The group.
    pub group: String,
    /// Messages in the hands of a process.
    pub pending: u64,
    /// Messages that wait for another attempt.
    pub delayed: u64,
    /// Messages that nobody has read yet. Where Redis cannot tell (before 7.0, and after removing some), 1 stands for
    /// any number.
    pub unread: u64,
    /// Processes that live and handle the group's messages.
    pub alive: u64,
}

/// All groups of all streams of this deployment.
pub(crate) async fn queues(core: &Core) -> Result<Vec<QueueState>> {
    let mut queues = Vec::new();
    for stream in streams(core).await? {
        for state in core.backend.groups(&stream).await? {
            let (group, stream) = (state.group, stream.to_string());
            let (pending, delayed, unread, alive) = (state.pending, state.delayed, state.unread, state.alive);
            queues.push(QueueState { stream, group, pending, delayed, unread, alive });
        }
    }
    queues.sort_by(|a, b| (&a.stream, &a.group).cmp(&(&b.stream, &b.group)));
    Ok(queues)
}

/// The streams of this deployment: other channel prefixes may share the namespace.
pub(crate) async fn streams(core: &Core) -> Result<Vec<StreamName>> {
    let prefix = core.config.channel_prefix.as_str();
    let streams = core.backend.streams().await?.into_iter().map(|stream| stream.name);
    Ok(streams.filter(|stream| stream.template().starts_with(prefix)).collect())
}

/// Says which groups have messages and nobody who handles them. They are never removed: their handlers may come back.
pub(crate) async fn report_abandoned(core: &Core) {
    let Ok(queues) = queues(core).await else { return };
    for queue in queues {
        let waiting = queue.pending + queue.delayed + queue.unread;
        if queue.alive == 0 && waiting > 0 {
            tracing::warn!(
                stream = queue.stream,
                group = queue.group,
                waiting,
                "nobody handles the messages of this group; if its handler is gone for good, remove the group (XGROUP DESTROY)"
            );
        }
    }
}
