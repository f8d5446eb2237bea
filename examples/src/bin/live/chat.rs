//! A chat: what a client sends is published for everybody in the room, with who has sent it.

use messaging_gateway::{AccessRequest, Verb, subscription};

/// A room. Who is in it is seen by the others.
#[subscription(channels = "chat:{room}", authorize = may_chat, send, presence)]
pub(crate) struct Chat;

/// Everybody may read; who writes or is seen has to have a name.
async fn may_chat(request: AccessRequest) -> bool {
    match request.verb() {
        Verb::Send | Verb::Presence => !request.identity().is_anonymous(),
        _ => true,
    }
}
