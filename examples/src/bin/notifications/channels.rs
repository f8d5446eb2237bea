//! The channels, by names that say what is on them. Those with an id in them are types, so that publishers and subscribers cannot
//! disagree: `events:login` here and `events.login` there.

use messaging_core::channel;

pub(crate) const NOTIFICATIONS: &str = "notifications";
pub(crate) const PRESENCE: &str = "presence";
pub(crate) const UPDATES: &str = "updates";

/// What concerns one user. An id with a separator or a `*` in it is refused: it leads to nobody else's channel.
#[channel("user:{user_id}")]
pub(crate) struct UserChannel {
    pub(crate) user_id: String,
}

/// Events of one type.
#[channel("events.{event_type}")]
pub(crate) struct EventChannel {
    pub(crate) event_type: String,
}

/// What is said in one room.
#[channel("chat:{room_id}")]
pub(crate) struct ChatChannel {
    pub(crate) room_id: String,
}
