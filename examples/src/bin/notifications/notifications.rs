//! Notifications and events: what they look like, who publishes them, and the service whose methods handle them.

use std::io;

use messaging_core::{Attempt, Channel, Messaging, Result, Timestamp, subscribers};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::channels::{EventChannel, NOTIFICATIONS, UserChannel};
use crate::screen::Screen;

/// What a user is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notification {
    pub(crate) id: String,
    pub(crate) timestamp: Timestamp,
    pub(crate) user_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) data: Map<String, Value>,
}

/// A notification with its user, and when it was sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NotificationMessage {
    pub(crate) user_id: String,
    pub(crate) notification: Notification,
    pub(crate) timestamp: Timestamp,
}

/// Something that has happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// Tells of notifications and events, in whichever process.
pub(crate) struct NotificationPublisher(pub(crate) Messaging);

impl NotificationPublisher {
    pub(crate) async fn publish_notification(
        &self,
        user_id: &str,
        notification: Notification,
    ) -> Result<u64> {
        let message =
            NotificationMessage { user_id: user_id.to_owned(), notification, timestamp: Timestamp::now() };
        self.0.publish(NOTIFICATIONS, &message).await
    }

    pub(crate) async fn broadcast_event(&self, event: &Event) -> Result<u64> {
        self.0.publish(&EventChannel { event_type: event.kind.clone() }, event).await
    }

    /// Tells a user, on the channel that is theirs, and whoever looks at all notifications.
    pub(crate) async fn notify_user(&self, user_id: &str, notification: &Notification) -> Result<u64> {
        let devices = self.0.publish(&UserChannel { user_id: user_id.to_owned() }, notification).await?;
        Ok(devices + self.0.publish(NOTIFICATIONS, notification).await?)
    }
}

/// Both forms that come on `notifications`: [`NotificationPublisher`] sends either.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Heard {
    Message(NotificationMessage),
    Notification(Notification),
}

impl Heard {
    fn into_notification(self) -> Notification {
        match self {
            Self::Message(message) => message.notification,
            Self::Notification(notification) => notification,
        }
    }
}

/// Handles what is published, in each process that has it.
pub(crate) struct NotificationSubscriber(pub(crate) Screen);

// What is set here is what a handler has by itself, too.
#[subscribers]
impl NotificationSubscriber {
    #[subscribe(
        "notifications",
        buffer = 1_000,
        timeout = "30s",
        retry = { attempts = 3, initial = "100ms", multiplier = 2.0 },
    )]
    async fn handle_notification(&self, message: Heard, attempt: Attempt) -> Result<(), io::Error> {
        let Notification { user_id, kind, .. } = message.into_notification();
        if kind == "sms" && attempt.0 == 1 {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the provider has hung up"));
        }
        self.0.heard("notification", &format!("userId {user_id}, type {kind}, attempt {}", attempt.0));
        Ok(())
    }

    #[subscribe("events.*")]
    async fn handle_events(&self, message: Event, channel: Channel) {
        let event_type = channel.strip_prefix("events.").unwrap_or(&channel);
        self.0.heard("event", &format!("type {event_type}, id {}", message.id));
    }
}
