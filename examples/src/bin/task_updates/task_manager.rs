//! The task manager: takes requests up, and says so.

use messaging_core::{Messaging, Result, State, subscribe};

use crate::screen::Screen;
use crate::updates::{COMMISSIONS, Status, Task, Update, pass_on, publish_task_update};

#[subscribe(
    "tasks.requested",
    delivery = "queue",
    group = "task-manager",
    start = "beginning",
    dedupe = "24h"
)]
async fn take_up(task: Task, messaging: Messaging, screen: State<Screen>) -> Result<()> {
    screen.line("task-manager", "takes up", &task.to_string());
    let update = Update::new(Status::Pending, "Waiting for a worker", 0);
    publish_task_update(&messaging, &task.task_id, update).await?;
    pass_on(&messaging, COMMISSIONS, &task).await
}
