//! Units of work and their outbox: what is published while processes die and Redis goes away. On each database.

use messaging_core::{Messaging, Retention, event_config};
use serde::{Deserialize, Serialize};

use crate::place::Place;

/// A row that is changed again and again.
#[event_config(publish = { create = "entry.changed", update = "entry.changed" }, table = "entries", key = id)]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    pub id: i64,
    pub round: i64,
}

pub const TABLES: &str = "CREATE TABLE entries (id BIGINT PRIMARY KEY, round BIGINT NOT NULL)";

/// Where a test's events are kept, so that it can be seen afterwards what was published.
async fn messaging(place: &Place) -> Messaging {
    let builder = place.builder().durable("entry.*", Retention::DEFAULT);
    builder.build().await.unwrap()
}

/// What was published, in order: the event's id, the row and its round.
async fn published(messaging: &Messaging) -> Vec<(String, Entry)> {
    let past = messaging.history("entry.changed").limit(100_000).await.unwrap();
    past.iter().map(|message| (message.event_id().as_str().to_owned(), message.json().unwrap())).collect()
}

mod postgres;
mod sqlite;
