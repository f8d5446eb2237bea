//! Who is online, as a channel tells it: whoever listens keeps a table. (`messaging.presence` is the other way: it also tells who
//! was there before one listened, and notices processes that died. The show has both.)

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use messaging_core::{Messaging, Result, Timestamp, subscribers};
use serde::{Deserialize, Serialize};

use crate::channels::PRESENCE;
use crate::screen::Screen;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum PresenceStatus {
    Online,
    Away,
    Offline,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserPresence {
    pub(crate) status: PresenceStatus,
    pub(crate) last_seen: Timestamp,
}

/// What is said on `presence`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub(crate) enum PresenceMessage {
    UserOnline { user_id: String, presence: UserPresence },
    UserOffline { user_id: String },
}

/// The table. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PresenceSystem {
    presence: Arc<Mutex<BTreeMap<String, UserPresence>>>,
    screen: Screen,
}

#[subscribers]
impl PresenceSystem {
    #[subscribe("presence")]
    async fn on_presence(&self, message: PresenceMessage) {
        let mut presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            PresenceMessage::UserOnline { user_id, presence: now } => {
                self.screen.heard("presence", &format!("{user_id} is {:?}", now.status));
                presence.insert(user_id, now);
            }
            PresenceMessage::UserOffline { user_id } => {
                self.screen.heard("presence", &format!("{user_id} is gone"));
                presence.remove(&user_id);
            }
        }
    }
}

impl PresenceSystem {
    pub(crate) fn new(screen: &Screen) -> Self {
        Self { presence: Arc::default(), screen: screen.clone() }
    }

    pub(crate) fn online_users(&self) -> BTreeMap<String, UserPresence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tells everybody how a user is. Who is offline is online no more.
pub(crate) async fn update_presence(
    messaging: &Messaging,
    user_id: &str,
    status: PresenceStatus,
) -> Result<u64> {
    let user_id = user_id.to_owned();
    let message = match status {
        PresenceStatus::Offline => PresenceMessage::UserOffline { user_id },
        PresenceStatus::Online | PresenceStatus::Away => {
            let presence = UserPresence { status, last_seen: Timestamp::now() };
            PresenceMessage::UserOnline { user_id, presence }
        }
    };
    messaging.publish(PRESENCE, &message).await
}
