//! Pipeline workers: produce what was commissioned. What can never be produced becomes a dead letter, which an operator finds.

use std::time::Duration;

use messaging_core::{HandlerError, Messaging, State, subscribe};

use crate::screen::Screen;
use crate::updates::{Status, Task, Update, publish_task_update};

#[subscribe(
    "tasks.produced",
    delivery = "queue",
    group = "pipeline-worker",
    start = "beginning",
    dedupe = "24h"
)]
async fn produce(task: Task, messaging: Messaging, screen: State<Screen>) -> Result<(), HandlerError> {
    screen.line("pipeline-worker", "produces", &task.to_string());
    let tell = async |status, message, progress| {
        publish_task_update(&messaging, &task.task_id, Update::new(status, message, progress)).await
    };
    tell(Status::InProgress, "Producing", 75).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    if task.title.is_empty() {
        tell(Status::Failed, "There is nothing to produce", 75).await?;
        return Err(HandlerError::dead_letter("a task without a title cannot be produced"));
    }
    tell(Status::Completed, "It is done", 100).await?;
    Ok(())
}
