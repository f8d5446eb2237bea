//! What each server wants to hear before it sends events, and how its messages are told apart by their first bytes.

use super::frames::{CLOSE, Frame, SEEN, TEXT};
use crate::job::{CHANNEL, Server};

/// What a server's message is to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Event,
    /// What was subscribed to comes from here on.
    Subscribed,
    /// It wants this answer.
    Question(&'static str),
    /// Nothing that has to be answered.
    Remark,
    /// What a client of a measurement does not expect.
    Refusal,
}

impl Server {
    /// Where its WebSocket is.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Ours => "/subscribe",
            Self::Naive => "/events",
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
        }
    }

    /// What a client says first.
    pub(super) fn opening(self) -> Vec<String> {
        match self {
            Self::Ours => {
                let subscribe = format!(r#"{{"type":"subscribe","id":1,"channel":"{CHANNEL}"}}"#);
                vec![r#"{"type":"hello"}"#.to_owned(), subscribe]
            }
            // The one waits for nothing, the other has the first word.
            Self::Naive | Self::SocketIo => Vec::new(),
        }
    }

    /// Whether events come as soon as the connection is there.
    pub(super) fn subscribes_by_itself(self) -> bool {
        self == Self::Naive
    }

    pub(super) fn hear(self, frame: &Frame<'_>) -> Heard {
        debug_assert!(frame.start.len() <= SEEN);
        match frame.opcode {
            TEXT => {}
            CLOSE => return Heard::Refusal,
            _ => return Heard::Remark,
        }
        match self {
            Self::Ours => native(frame.start),
            Self::Naive => Heard::Event,
            Self::SocketIo => socket_io(frame.start),
        }
    }
}

fn native(start: &[u8]) -> Heard {
    let Some(kind) = start.strip_prefix(br#"{"type":""#) else { return Heard::Refusal };
    let is = |name: &[u8]| kind.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'"'));
    match kind {
        _ if is(b"event") => Heard::Event,
        _ if is(b"ping") => Heard::Question(r#"{"type":"pong"}"#),
        _ if is(b"subscribed") => Heard::Subscribed,
        _ if is(b"welcome") => Heard::Remark,
        _ => Heard::Refusal,
    }
}

/// A digit of Engine.IO, then one of Socket.IO.
fn socket_io(start: &[u8]) -> Heard {
    match start {
        [b'4', b'2', ..] => Heard::Event,
        [b'2', ..] => Heard::Question("3"),
        // It is open: connect to the namespace; connected: ask for the room, with an acknowledgement; acknowledged.
        [b'0', ..] => Heard::Question("40"),
        [b'4', b'0', ..] => Heard::Question(r#"420["subscribe"]"#),
        [b'4', b'3', ..] => Heard::Subscribed,
        _ => Heard::Refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(server: Server, text: &str) -> Heard {
        server.hear(&Frame { opcode: TEXT, start: &text.as_bytes()[..text.len().min(SEEN)] })
    }

    #[test]
    fn our_messages() {
        let heard = |text| heard(Server::Ours, text);
        assert_eq!(heard(r#"{"type":"event","channel":"orders.created","data":{}}"#), Heard::Event);
        assert_eq!(heard(r#"{"type":"welcome","client":"…"}"#), Heard::Remark);
        assert_eq!(heard(r#"{"type":"subscribed","id":1}"#), Heard::Subscribed);
        assert_eq!(heard(r#"{"type":"ping"}"#), Heard::Question(r#"{"type":"pong"}"#));
        for text in [r#"{"type":"error","id":1}"#, r#"{"type":"gap"}"#, r#"{"type":"events"}"#, "[]", ""] {
            assert_eq!(heard(text), Heard::Refusal, "{text}");
        }
    }

    #[test]
    fn messages_of_socket_io() {
        let heard = |text| heard(Server::SocketIo, text);
        assert_eq!(heard(r#"0{"sid":"…"}"#), Heard::Question("40"));
        assert_eq!(heard(r#"40{"sid":"…"}"#), Heard::Question(r#"420["subscribe"]"#));
        assert_eq!(heard("430[]"), Heard::Subscribed);
        assert_eq!(heard(r#"42["orders.created",{}]"#), Heard::Event);
        assert_eq!(heard("2"), Heard::Question("3"));
        for text in ["41", r#"44{"message":"no"}"#, "1", ""] {
            assert_eq!(heard(text), Heard::Refusal, "{text}");
        }
    }

    #[test]
    fn a_server_that_closes_is_a_refusal() {
        assert_eq!(Server::Naive.hear(&Frame { opcode: CLOSE, start: b"" }), Heard::Refusal);
    }
}
