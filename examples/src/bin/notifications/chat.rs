//! Chat rooms, which are joined and left at run time.

use messaging_core::{Context, HandlerHandle, Messaging, Result, State, ToChannel as _};
use serde::{Deserialize, Serialize};

use crate::channels::ChatChannel;
use crate::screen::Screen;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatMessage {
    pub(crate) user_id: String,
    pub(crate) text: String,
}

pub(crate) async fn send_message(messaging: &Messaging, room_id: &str, message: &ChatMessage) -> Result<u64> {
    messaging.publish(&ChatChannel { room_id: room_id.to_owned() }, message).await
}

/// Hears what is said in a room from now on, until the handle is [stopped](HandlerHandle::stop).
pub(crate) async fn join_room(messaging: &Messaging, room_id: &str, user_id: &str) -> Result<HandlerHandle> {
    let channel = ChatChannel { room_id: room_id.to_owned() }.to_channel()?;
    messaging.subscriber().id(format!("{user_id} in {room_id}")).on(&channel, handle_message).await
}

async fn handle_message(message: ChatMessage, context: Context, screen: State<Screen>) {
    screen.heard("chat", &format!("{} reads {}: {}", context.handler(), message.user_id, message.text));
}
