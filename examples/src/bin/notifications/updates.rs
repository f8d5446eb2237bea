//! Live updates: one channel, three kinds of message, told apart by a tag.

use messaging_core::{Messaging, Result, State, subscribe};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::channels::UPDATES;
use crate::screen::Screen;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum LiveUpdate {
    DataUpdate { table: String, id: u64 },
    ConfigUpdate { name: String, value: Value },
    StatusUpdate { service: String, status: String },
}

pub(crate) async fn broadcast_update(messaging: &Messaging, update: &LiveUpdate) -> Result<u64> {
    messaging.publish(UPDATES, update).await
}

#[subscribe("updates")]
async fn handle_update(update: LiveUpdate, screen: State<Screen>) {
    match update {
        LiveUpdate::DataUpdate { table, id } => screen.heard("update", &format!("refreshes {table} {id}")),
        LiveUpdate::ConfigUpdate { name, value } => {
            screen.heard("update", &format!("sets {name} to {value}"))
        }
        LiveUpdate::StatusUpdate { service, status } => {
            screen.heard("update", &format!("{service} is {status}"))
        }
    }
}
