//! What happens, from top to bottom. It ends by itself.

use std::net::SocketAddr;
use std::time::Duration;

use messaging_core::{BoxError, Channel, Error, Messaging, State, Timestamp, subscribe};
use messaging_sql::Outbox;
use messaging_sql::sqlx::Sqlite;
use serde_json::json;
use tokio::sync::watch;

use crate::audit_log::{Heard, TASK_COMPLETED};
use crate::browser::Browser;
use crate::commands::{Commands, Task};
use crate::device::{Device, subject};
use crate::screen::Screen;
use crate::site;

const ADA: &str = "123e4567-e89b-12d3-a456-426614174000";
const GRACE: &str = "7d9f0c52-3c1e-4b8a-9f57-0e6a2b4c8d10";

/// How long to wait for what has to come, and for what must not.
const PATIENCE: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(100);
/// Between looking and looking again.
const BRIEFLY: Duration = Duration::from_millis(5);

/// How many tasks have been completed, by anybody.
pub(crate) type Completed = watch::Sender<u32>;

/// Hears what all users do, and keeps to one type of activity.
#[subscribe("auditlog:*")]
async fn count_completed(channel: Channel, heard: Heard, completed: State<Completed>, screen: State<Screen>) {
    match heard {
        Heard::Entry(entry) if entry.activity_type == TASK_COMPLETED => {
            screen.line("everybody", TASK_COMPLETED, &format!("on {channel}: {}", subject(&entry)));
            completed.send_modify(|completed| *completed += 1);
        }
        Heard::Entry(_) | Heard::Said(_) | Heard::Broadcast { .. } => {}
    }
}

pub(crate) struct Show {
    pub(crate) messaging: Messaging,
    pub(crate) commands: Commands,
    /// If events go by it.
    pub(crate) outbox: Option<Outbox<Sqlite>>,
    pub(crate) completed: Completed,
    pub(crate) screen: Screen,
    /// Where browsers connect.
    pub(crate) address: SocketAddr,
}

impl Show {
    pub(crate) async fn run(&self) -> Result<(), BoxError> {
        println!("\nAda is online with a phone and a laptop, Grace with a tablet.");
        let mut phone = self.device("phone", "auditlog", ADA).await?;
        let mut laptop = self.device("laptop", "auditlog", ADA).await?;
        let mut inbox = self.device("inbox", "notification", ADA).await?;
        let mut tablet = self.device("tablet", "auditlog", GRACE).await?;

        println!("\nAda creates a task. Her devices hear of it, and Grace's does not.");
        let report = self.create_task(ADA, "write the report").await?;
        phone.hear(PATIENCE).await?;
        laptop.hear(PATIENCE).await?;
        tablet.hear(MOMENT).await?;

        println!("\nThe phone acknowledges that, to everybody on its channel.");
        phone.acknowledge().await?;
        phone.hear(PATIENCE).await?;
        laptop.hear(PATIENCE).await?;

        println!(
            "\nShe opens a page. It hears her channel, and nobody else's; what it sends, her devices hear."
        );
        let token = site::session(&self.messaging, ADA).await?;
        let mut browser = Browser::open(self.address, &token, &self.screen).await?;
        browser.try_to_hear(&format!("auditlog:{GRACE}")).await?;
        browser.broadcast(&format!("auditlog:{ADA}"), json!({ "seen": report.title })).await?;
        browser.hear(PATIENCE).await?;
        phone.hear(PATIENCE).await?;
        laptop.hear(PATIENCE).await?;
        tablet.hear(MOMENT).await?;

        println!(
            "\nShe completes it with a task that is not there: neither is done, and nobody hears of it."
        );
        let both = [report.id.clone(), "00000000-0000-0000-0000-000000000000".to_owned()];
        let Err(error) = self.commands.complete_tasks(&both).await else {
            return Err("a task that is not there was completed".into());
        };
        self.screen.line("command", "rolled back", &error.to_string());
        phone.hear(MOMENT).await?;
        for task in self.commands.open_tasks(ADA).await? {
            self.screen.line("database", "still open", &task.title);
        }

        println!("\nShe completes it alone, and Grace another. Whoever listens to all users hears of both.");
        self.complete_task(&report).await?;
        phone.hear(PATIENCE).await?;
        laptop.hear(PATIENCE).await?;
        browser.hear(PATIENCE).await?;
        inbox.hear(PATIENCE).await?;
        let letter = self.create_task(GRACE, "answer the letter").await?;
        tablet.hear(PATIENCE).await?;
        self.complete_task(&letter).await?;
        tablet.hear(PATIENCE).await?;
        self.everybody_heard_of(2).await?;

        println!("\nAn entry is too large to be published. That undoes nothing.");
        self.screen.line("command", "create_task", "file the scans");
        let meta = json!({ "scan": "0".repeat(self.messaging.config().max_payload) });
        let scans = self.commands.create_task(ADA, "file the scans", meta).await?;
        self.what_was_not_published().await?;
        phone.hear(MOMENT).await?;

        println!("\nAda goes offline, dropping her subscriptions. A task of hers is completed elsewhere.");
        let channel = format!("auditlog:{ADA}");
        let before = self.subscribers(&channel).await?;
        drop((phone, laptop, inbox, browser));
        let unsubscribed = async {
            while self.subscribers(&channel).await? >= before {
                tokio::time::sleep(BRIEFLY).await;
            }
            Ok::<_, Error>(())
        };
        soon("dropping unsubscribes", unsubscribed).await?;
        self.screen.line("pubsub", "unsubscribed", &channel);
        self.complete_task(&scans).await?;
        self.everybody_heard_of(3).await?;

        println!("\nShe is back, and has missed that; the database has not.");
        let mut phone = self.device("phone", "auditlog", ADA).await?;
        phone.hear(MOMENT).await?;
        for entry in self.commands.history(ADA, 4).await? {
            self.screen.line("history", &entry.activity_type, &subject(&entry));
        }
        Ok(())
    }

    async fn device(&self, name: &'static str, channel_type: &str, user: &str) -> Result<Device, Error> {
        Device::connect(name, &format!("{channel_type}:{user}"), &self.messaging, &self.screen).await
    }

    async fn create_task(&self, user: &str, title: &str) -> Result<Task, BoxError> {
        self.screen.line("command", "create_task", title);
        self.commands.create_task(user, title, json!({ "action_created_at": Timestamp::now() })).await
    }

    async fn complete_task(&self, task: &Task) -> Result<(), BoxError> {
        self.screen.line("command", "complete_tasks", &task.title);
        self.commands.complete_tasks(std::slice::from_ref(&task.id)).await
    }

    /// Shows what became of an event that cannot be published: it is lost, or it waits for somebody to decide.
    async fn what_was_not_published(&self) -> Result<(), BoxError> {
        let Some(outbox) = &self.outbox else {
            let lost = self.messaging.health().lost_events;
            self.screen.line("health", "lost events", &lost.to_string());
            return Ok(());
        };
        let tried = async {
            loop {
                if let Some(row) = outbox.failing(1, 1).await?.pop() {
                    return Ok::<_, Error>(row);
                }
                tokio::time::sleep(BRIEFLY).await;
            }
        };
        let row = soon("a relay tries the event", tried).await?;
        self.screen.line("outbox", "failing", row.error.as_deref().unwrap_or_default());
        outbox.discard(&row.id).await?;
        self.screen.line("outbox", "discarded", "somebody has decided so");
        Ok(())
    }

    async fn everybody_heard_of(&self, completed: u32) -> Result<(), BoxError> {
        let mut count = self.completed.subscribe();
        soon("completed tasks are heard of", count.wait_for(|count| *count >= completed)).await?;
        Ok(())
    }

    /// Subscribers by name. Others may be among them, with `redis-cli subscribe`, say.
    async fn subscribers(&self, channel: &str) -> Result<u64, Error> {
        Ok(self.messaging.client().pubsub_numsub([channel]).await?.into_values().sum())
    }
}

/// Waits for what has to come.
async fn soon<T, E: Into<BoxError>>(
    what: &str,
    coming: impl Future<Output = Result<T, E>>,
) -> Result<T, BoxError> {
    match tokio::time::timeout(PATIENCE, coming).await {
        Ok(come) => come.map_err(E::into),
        Err(_) => Err(format!("it was to be shown that {what}; it has not been within {PATIENCE:?}").into()),
    }
}
