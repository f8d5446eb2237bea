//! What happens without arguments, from top to bottom. It ends by itself.

use std::net::SocketAddr;
use std::time::Duration;

use messaging_core::{BoxError, Messaging, State};
use serde_json::{Value, json};

use crate::frontend::{Events, post};
use crate::screen::Screen;
use crate::updates::{TaskUpdate, short};

/// How long to wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(messaging: &Messaging, api: SocketAddr, screen: &Screen) -> Result<(), BoxError> {
    match tokio::time::timeout(PATIENCE, show(messaging, api, screen)).await {
        Ok(shown) => shown,
        Err(_) => Err(format!(
            "an update was to be seen, and has not been within {PATIENCE:?}; see what `RUST_LOG=info` says"
        )
        .into()),
    }
}

async fn show(messaging: &Messaging, api: SocketAddr, screen: &Screen) -> Result<(), BoxError> {
    println!("\nA service listens to all tasks, and a browser to them and to what concerns everybody.");
    let callback = messaging.subscriber().id("on_task_update").on("task_updates", on_task_update).await?;
    let mut browser = Events::listen(api, "entity=TaskUpdates&entity=GeneralUpdates", 2).await?;

    println!("\nThe browser asks for a task. Three services work on it, and none of them knows the browser.");
    let task = post(api, "/tasks", &json!({ "title": "a poster of the sea" })).await?;
    while see(&mut browser, screen, "browser").await?["status"] != "completed" {}

    println!("\nMaintenance is scheduled: everybody is told.");
    post(
        api,
        "/announcements",
        &json!({ "type": "system_notification", "message": "System maintenance scheduled" }),
    )
    .await?;
    see(&mut browser, screen, "browser").await?;

    println!("\nA second browser comes late, for this one task. What was before was kept.");
    let query = format!("channel=task_updates:{}&last=10", task["task_id"].as_str().unwrap_or_default());
    let mut late = Events::listen(api, &query, 0).await?;
    let subscribed = late.next("subscribed").await?;
    for event in subscribed["events"].as_array().into_iter().flatten() {
        line(screen, "second browser", &event["data"]);
    }

    println!("\nA task that cannot be done fails, and stays where an operator finds it.");
    post(api, "/tasks", &json!({ "title": "" })).await?;
    while see(&mut browser, screen, "browser").await?["status"] != "failed" {}
    let letters = messaging.dead_letters("pipeline-worker");
    let letter = loop {
        if let Some(letter) = letters.list().await?.pop() {
            break letter;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    screen.line("operator", "dead letter", letter.error());
    letters.purge(letter.id()).await?;
    callback.stop().await;
    Ok(())
}

/// A callback as any service can have one: a function.
async fn on_task_update(message: TaskUpdate, screen: State<Screen>) {
    let TaskUpdate { task_id, update } = message;
    screen.line(
        "callback",
        "task update",
        &format!("{} {:?}, {} %", short(&task_id), update.status, update.progress),
    );
}

async fn see(browser: &mut Events, screen: &Screen, who: &str) -> Result<Value, BoxError> {
    let event = browser.next("event").await?["data"].take();
    line(screen, who, &event);
    Ok(event)
}

fn line(screen: &Screen, who: &str, event: &Value) {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    match event["task_id"].as_str() {
        Some(task) => screen.line(
            who,
            &text("status"),
            &format!("{} {}, {} %", short(task), text("message"), event["progress"]),
        ),
        None => screen.line(who, &text("type"), &text("message")),
    }
}
