//! What a client can ask for, whatever protocol it speaks.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

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
    Update { channel: String, filters: Value },
    Unsubscribe { channel: String },
    Send { channel: String, data: Box<RawValue> },
    Presence { channel: String },
    History { channel: String, since: Option<Since>, limit: Option<usize> },
    Refresh { token: Token },
}

#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) to: To,
    pub(crate) filters: Option<Value>,
    pub(crate) resume: Option<Since>,
    /// So many events of the past.
    pub(crate) last: usize,
    /// Be seen, and see who comes and goes.
    pub(crate) presence: bool,
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
    pub(crate) offset: String,
}
