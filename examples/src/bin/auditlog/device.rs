//! Where a user is online: a live subscription, read by hand.

use std::time::Duration;

use messaging_core::{ErrorKind, Messaging, Result, Subscription, Timestamp};

use crate::audit_log::{AuditLog, Heard, Said, Sender};
use crate::screen::Screen;

/// Hears what is published from now on; dropping it unsubscribes.
pub(crate) struct Device {
    name: &'static str,
    subscription: Subscription,
    screen: Screen,
}

impl Device {
    /// Subscribes to a channel `{channel_type}:{user_id}`.
    pub(crate) async fn connect(
        name: &'static str,
        channel: &str,
        messaging: &Messaging,
        screen: &Screen,
    ) -> Result<Self> {
        let subscription = messaging.subscribe(channel).await?;
        screen.line(name, "subscribed", channel);
        Ok(Self { name, subscription, screen: screen.clone() })
    }

    /// Waits for the next message, for so long at most, and shows it.
    pub(crate) async fn hear(&mut self, patience: Duration) -> Result<()> {
        match self.subscription.get_message(patience).await {
            Ok(Some(message)) => show(&self.screen, self.name, &message.json()?),
            Ok(None) => self.line("None", &format!("nothing within {patience:?}")),
            // The connection was lost and is back. What was published meanwhile is in the database.
            Err(error) if error.kind() == ErrorKind::Gap => self.line("gap", &error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells everybody on the channel, this device included, that something was received.
    pub(crate) async fn acknowledge(&self) -> Result<()> {
        let message = Said::Acknowledgment { received_at: Timestamp::now() };
        self.subscription.send_message(&message).await.map(drop)
    }

    fn line(&self, what: &str, text: &str) {
        self.screen.line(self.name, what, text);
    }
}

/// Shows what was heard, by whatever means.
pub(crate) fn show(screen: &Screen, name: &str, heard: &Heard) {
    match heard {
        Heard::Entry(entry) => screen.line(name, &entry.activity_type, &subject(entry)),
        Heard::Said(Said::Acknowledgment { received_at }) => {
            screen.line(name, "acknowledgment", &format!("received at {received_at}"));
        }
        Heard::Said(Said::Notification { text }) => screen.line(name, "notification", text),
        Heard::Said(Said::ClientBroadcast { data }) => screen.line(name, "broadcast", &data.to_string()),
        Heard::Broadcast { sender: Sender { user }, data } => {
            screen.line(name, "broadcast", &format!("{data} from {user}"));
        }
    }
}

/// What an entry is about, in a few words.
pub(crate) fn subject(entry: &AuditLog) -> String {
    let AuditLog { entity_type, entity_id, occurred_at, .. } = entry;
    format!("{entity_type} {} at {occurred_at}", entity_id.get(..8).unwrap_or(entity_id))
}
