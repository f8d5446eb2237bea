//! Tasks that take a while, and say how far they are. Whoever is free takes one: a queue.

use std::time::Duration;

use messaging_core::{Messaging, subscribe};
use messaging_gateway::subscription;
use serde::{Deserialize, Serialize};

/// How tasks are getting on.
#[subscription(channels = "task_updates", public)]
pub(crate) struct TaskUpdates;

/// A task to be done.
#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    /// What it is called in updates.
    pub(crate) task_id: String,
    /// What is to be done.
    pub(crate) title: String,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Queued,
    InProgress,
    Completed,
    Failed,
}

#[derive(Serialize)]
struct Update<'a> {
    task_id: &'a str,
    title: &'a str,
    status: Status,
    message: &'a str,
    progress: u8,
}

impl Task {
    /// Puts the task into the queue.
    pub(crate) async fn start(self, messaging: &Messaging) -> messaging_core::Result<()> {
        self.tell(messaging, Status::Queued, "Waiting for a worker", 0).await?;
        messaging.publish("tasks.started", &self).await?;
        Ok(())
    }

    async fn tell(
        &self,
        messaging: &Messaging,
        status: Status,
        message: &str,
        progress: u8,
    ) -> messaging_core::Result<()> {
        let Self { task_id, title } = self;
        messaging.publish("task_updates", &Update { task_id, title, status, message, progress }).await?;
        Ok(())
    }
}

const STEPS: [(&str, u8); 5] = [
    ("Fetching the recordings", 10),
    ("Decoding", 35),
    ("Looking for people", 60),
    ("Looking for vehicles", 80),
    ("Writing the report", 95),
];

/// Does a task, in whichever process is free; should that one die, in another.
#[subscribe("tasks.started", delivery = "queue", group = "workers", workers = 3)]
async fn work(task: Task, messaging: Messaging) -> messaging_core::Result<()> {
    // One in six goes wrong, at some step.
    let fails_at = fastrand::usize(..STEPS.len() * 6);
    for (number, (message, progress)) in STEPS.into_iter().enumerate() {
        task.tell(&messaging, Status::InProgress, message, progress).await?;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(500..1_600))).await;
        if number == fails_at {
            return task.tell(&messaging, Status::Failed, "A recording is damaged", progress).await;
        }
    }
    task.tell(&messaging, Status::Completed, "The report is there", 100).await
}
