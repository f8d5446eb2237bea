//! Commission workers: as many as there are share the tasks. If one dies, another one has its task within seconds.

use std::time::Duration;

use messaging_core::{Messaging, Result, State, subscribe};

use crate::screen::Screen;
use crate::updates::{PRODUCTIONS, Status, Task, Update, pass_on, publish_task_update};

#[subscribe(
    "tasks.commissioned",
    delivery = "queue",
    group = "commission-worker",
    start = "beginning",
    dedupe = "24h"
)]
async fn process(task: Task, messaging: Messaging, screen: State<Screen>) -> Result<()> {
    screen.line("commission-worker", "processes", &task.to_string());
    let update = Update::new(Status::InProgress, "Processing commission...", 50);
    publish_task_update(&messaging, &task.task_id, update).await?;
    // Which takes a while.
    tokio::time::sleep(Duration::from_millis(100)).await;
    pass_on(&messaging, PRODUCTIONS, &task).await
}
