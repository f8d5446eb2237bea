//! What is told of tasks and to whom: the two publishing functions, and what browsers can subscribe to. The only thing that all
//! services share.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use messaging_core::{Messaging, Op, Result, Retention, event_config};
use messaging_gateway::subscription;
use serde::{Deserialize, Serialize};

/// What is to be done; each is a queue.
pub(crate) const REQUESTS: &str = "tasks.requested";
pub(crate) const COMMISSIONS: &str = "tasks.commissioned";
pub(crate) const PRODUCTIONS: &str = "tasks.produced";

/// How much of that is kept.
pub(crate) const KEPT: Retention = Retention {
    max_len: NonZeroU64::new(10_000).expect("not zero"),
    max_age: Duration::from_secs(24 * 60 * 60),
};

/// A task, as it goes from one queue to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) task_id: String,
    pub(crate) title: String,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", short(&self.task_id), self.title)
    }
}

/// Enough of a task's id to tell it from others.
pub(crate) fn short(task_id: &str) -> &str {
    task_id.get(..13).unwrap_or(task_id)
}

/// How far a task is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Update {
    pub(crate) status: Status,
    pub(crate) message: String,
    /// In percent.
    pub(crate) progress: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Pending,
    InProgress,
    Completed,
    Failed,
}

/// An update with the task that it is about, as it is published: to everybody, and to those who watch this task. Both are
/// durable, in the order of each task, so that who comes late or comes back is told of what was before.
#[event_config(
    publish = { update = ["task_updates", "task_updates:{task_id}"] },
    durable = { max_len = 10_000, max_age = "24h", key = task_id },
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TaskUpdate {
    pub(crate) task_id: String,
    #[serde(flatten)]
    pub(crate) update: Update,
}

/// What concerns everybody. A channel of its own: nobody has to sort.
#[event_config(
    publish = { create = "general_updates" },
    durable = { max_len = 1_000, max_age = "24h" },
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GeneralUpdate {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) message: String,
}

/// Tells how a task is getting on. It returns when Redis has it.
pub(crate) async fn publish_task_update(messaging: &Messaging, task_id: &str, update: Update) -> Result<()> {
    let update = TaskUpdate { task_id: task_id.to_owned(), update };
    messaging.emit(Op::Update, &update).await.map(drop)
}

/// Tells everybody something.
pub(crate) async fn publish_general_update(messaging: &Messaging, update: &GeneralUpdate) -> Result<()> {
    messaging.emit(Op::Create, update).await.map(drop)
}

/// Passes a task on. A task is in each queue once, however often a worker that died in between has passed it on.
pub(crate) async fn pass_on(messaging: &Messaging, channel: &str, task: &Task) -> Result<()> {
    messaging.publish(channel, task).id(&task.task_id).await.map(drop)
}

impl Update {
    pub(crate) fn new(status: Status, message: &str, progress: u8) -> Self {
        Self { status, message: message.to_owned(), progress }
    }
}

/// What browsers can subscribe to: all tasks, some of them by filters, or one by its channel.
#[subscription(
    channels = ["task_updates", "task_updates:{task_id}"],
    filters = { task_id = [eq, in], status = [eq, in] },
    public,
)]
pub(crate) struct TaskUpdates;

/// And what concerns everybody.
#[subscription(channels = "general_updates", public)]
pub(crate) struct GeneralUpdates;
