//! What users can do. Each command is a unit of work: the change, and the entry that tells of it, or neither.

use messaging_core::{BoxError, Messaging, Timestamp, event_config};
use messaging_sql::sqlx::{Sqlite, SqlitePool};
use messaging_sql::{Filter, SqlStorage, UnitOfWork};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit_log::{AuditLog, Said, TASK_COMPLETED, TASK_CREATED};

/// A row that nobody is told of by itself: it has a table and publishes nothing.
#[event_config(table = "tasks", key = id)]
#[derive(Debug, Serialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) title: String,
    pub(crate) is_completed: bool,
}

/// When the events of a command are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Events {
    /// After the commit. They are lost if that fails, or if the process dies before.
    #[default]
    AfterCommit,
    /// They are committed too, and a relay publishes them, as often as it takes.
    ByOutbox,
}

#[derive(Clone)]
pub(crate) struct Commands {
    pool: SqlitePool,
    messaging: Messaging,
    events: Events,
}

impl Commands {
    pub(crate) fn new(pool: &SqlitePool, messaging: &Messaging, events: Events) -> Self {
        Self { pool: pool.clone(), messaging: messaging.clone(), events }
    }

    pub(crate) async fn create_task(&self, user: &str, title: &str, meta: Value) -> Result<Task, BoxError> {
        let mut work = self.begin().await?;
        let (id, user_id, title) = (Uuid::new_v4().to_string(), user.to_owned(), title.to_owned());
        let task = work.create(&Task { id, user_id, title, is_completed: false }).await?;
        work.create(&AuditLog::of_task(TASK_CREATED, &task, meta)).await?;
        work.commit().await?;
        Ok(task)
    }

    /// Completes these tasks: all of them, or none.
    pub(crate) async fn complete_tasks(&self, ids: &[String]) -> Result<(), BoxError> {
        let meta = json!({ "action_created_at": Timestamp::now() });
        let mut work = self.begin().await?;
        for id in ids {
            let Some(mut task) = work.get_for_update::<Task>(id).await? else {
                // The unit of work is dropped, and with it what was done and recorded for the tasks before.
                return Err(format!("there is no task {id}").into());
            };
            task.is_completed = true;
            work.update(&task).await?;
            work.create(&AuditLog::of_task(TASK_COMPLETED, &task, meta.clone())).await?;
            // What is no model can be published with the commit, too.
            let text = format!("well done: {}", task.title);
            work.publish(&format!("notification:{}", task.user_id), &Said::Notification { text })?;
        }
        work.commit().await?;
        Ok(())
    }

    async fn begin(&self) -> messaging_core::Result<UnitOfWork<'static, Sqlite>> {
        let work = UnitOfWork::begin(&self.pool, &self.messaging).await?;
        Ok(match self.events {
            Events::AfterCommit => work,
            Events::ByOutbox => work.with_outbox(),
        })
    }

    /// What a user did last, latest first.
    pub(crate) async fn history(&self, user: &str, most: u32) -> messaging_core::Result<Vec<AuditLog>> {
        let entries = Filter::all().eq("user_id", user.to_owned());
        let entries = entries.descending("occurred_at").descending("seq").limit(most);
        SqlStorage::new(&self.pool).list_where(entries).await
    }

    pub(crate) async fn open_tasks(&self, user: &str) -> messaging_core::Result<Vec<Task>> {
        let open = Filter::all().eq("user_id", user.to_owned()).eq("is_completed", false);
        SqlStorage::new(&self.pool).list_where(open.ascending("title")).await
    }
}
