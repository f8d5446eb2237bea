//! What a client can ask for, whatever protocol it speaks.

use std::fmt;

use crate::code::ErrorCode;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What a client says.
#[derive(Debug)]
pub(crate) enum Said {
    Hello(Hello),
    Pong,
    Command(Command),
    /// Something that the program knows what to do with; it has no answer.
    Message(Box<RawValue>),
}

/// Who somebody says to be.
#[derive(Debug)]
pub(crate) struct Hello {
    /// What the answer repeats, where answers do.
    pub(crate) id: u64,
    pub(crate) token: Option<Token>,
    /// What the program wants to know.
    pub(crate) data: Option<Value>,
}

/// Why a message makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nonsense {
    /// The request that it was, if one can tell.
    pub(crate) id: Option<u64>,
    pub(crate) code: ErrorCode,
    /// What the client is told.
    pub(crate) reason: String,
    /// Whether it is the end of the connection.
    pub(crate) is_fatal: bool,
}

/// A request that has an answer.
#[derive(Debug)]
pub(crate) struct Command {
    /// What the answer repeats.
    pub(crate) id: u64,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    Subscribe(Box<Subscribe>),
    Update {
        channel: String,
        filters: Value,
    },
    Unsubscribe {
        channel: String,
    },
    Send {
        channel: String,
        data: Box<RawValue>,
    },
    Presence {
        channel: String,
    },
    /// How many are there.
    Stats {
        channel: String,
    },
    History {
        channel: String,
        since: Option<Since>,
        limit: Option<usize>,
        order: Order,
    },
    Refresh {
        token: Token,
    },
    /// The token of a subscription.
    Renew {
        channel: String,
        token: Token,
    },
    /// A function of the program.
    Call {
        method: String,
        data: Option<Box<RawValue>>,
    },
}

/// Which part of the past is told, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The newest without a place, or what came first after one.
    Latest,
    /// From the oldest, or from a place on.
    Forward,
    /// From the newest, or from a place, backwards.
    Backward,
}

/// Being seen in a channel, and seeing who comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Unwanted,
    Wanted,
    /// Wherever the channel has it; `watches` is to be told who comes and goes.
    Offered {
        watches: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) to: To,
    pub(crate) filters: Option<Value>,
    pub(crate) resume: Option<Since>,
    /// So many events of the past.
    pub(crate) last: usize,
    pub(crate) presence: Presence,
    /// Allows it in place of whoever decides.
    pub(crate) token: Option<Token>,
    /// Not without what was missed.
    pub(crate) must_recover: bool,
}

/// What is subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Channel(String),
    Entity { entity: String, params: Vec<(String, String)> },
}

/// A token, which is not printed.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Token(pub(crate) String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// A place in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) epoch: String,
    pub(crate) after: After,
}

/// The last event that somebody has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// What events carry as their offset.
    Offset(String),
    /// Its number in the one stream of the channel; 0 before the first.
    Number(u64),
}
