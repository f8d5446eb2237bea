//! What users did: the model with its table, and what is said on its channels.

use messaging_core::{Timestamp, event_config};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::commands::Task;

pub(crate) const TASK_CREATED: &str = "TASK_CREATED";
pub(crate) const TASK_COMPLETED: &str = "TASK_COMPLETED";

/// Something that a user did. Creating one publishes it, as the JSON of these fields, on the channel of its user.
#[event_config(
    publish = { create = "auditlog:{user_id}" },
    table = "audit_logs",
    key = id,
)]
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AuditLog {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) activity_type: String,
    /// RFC 3339 in UTC: as text, moments sort as they follow each other.
    pub(crate) occurred_at: String,
    pub(crate) entity_id: String,
    pub(crate) entity_type: String,
    #[column(json)]
    pub(crate) meta: Value,
    /// Which of two entries of one second came first. Only the database needs it.
    #[column(generated)]
    #[serde(skip)]
    seq: i64,
}

impl AuditLog {
    /// A user has done something with a task of hers.
    pub(crate) fn of_task(activity_type: &str, task: &Task, meta: Value) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            user_id: task.user_id.clone(),
            activity_type: activity_type.to_owned(),
            occurred_at: Timestamp::now().to_string(),
            entity_id: task.id.clone(),
            entity_type: "task".to_owned(),
            meta,
            seq: 0,
        }
    }
}

/// What is heard on the channels `auditlog:{user_id}` and `notification:{user_id}`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Heard {
    Entry(AuditLog),
    Said(Said),
    /// What one of the user's browsers has sent to all that listen. The gateway says who that was.
    Broadcast {
        sender: Sender,
        data: Value,
    },
}

#[derive(Debug, Deserialize)]
pub(crate) struct Sender {
    pub(crate) user: String,
}

/// What is said there beside the entries, and stored nowhere.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Said {
    Acknowledgment {
        received_at: Timestamp,
    },
    Notification {
        text: String,
    },
    /// Something that a service without our gateway has passed on for one of its clients.
    ClientBroadcast {
        data: Value,
    },
}
