//! The native protocol: commands out of JSON, and answers and events into it. Knows no sockets and no channels.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::code::{DisconnectCode, ErrorCode, UnsubscribeCode};
use crate::command::{
    Action, After, Command, Hello, Nonsense, Order, Presence, Said, Since, Subscribe, To, Token,
};
use crate::event::Event;
use crate::frame::Frame;
use crate::limits::Limits;
use crate::payload::Payload;

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    id: Option<u64>,
    token: Option<Token>,
    entity: Option<String>,
    channel: Option<String>,
    params: Option<Map<String, Value>>,
    filters: Option<Value>,
    resume: Option<WireSince>,
    since: Option<WireSince>,
    last: Option<usize>,
    limit: Option<usize>,
    #[serde(default)]
    presence: bool,
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct WireSince {
    epoch: String,
    offset: String,
}

impl From<WireSince> for Since {
    fn from(WireSince { epoch, offset }: WireSince) -> Self {
        Self { epoch, after: After::Offset(offset) }
    }
}

/// Reads one message.
pub(crate) fn read(text: &str) -> Result<Said, Nonsense> {
    let not_a_message =
        |reason: String| Nonsense { id: None, code: ErrorCode::BadRequest, reason, is_fatal: false };
    // An array would be read as the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(not_a_message("a message is a JSON object".to_owned()));
    }
    let wire: Wire<'_> =
        serde_json::from_str(text).map_err(|error| not_a_message(format!("not a message: {error}")))?;
    let id = wire.id;
    let nonsense =
        |code: ErrorCode, reason: &str| Nonsense { id, code, reason: reason.to_owned(), is_fatal: false };
    let missing = |what: &str| nonsense(ErrorCode::BadRequest, &format!("`{what}` is missing"));
    match &*wire.kind {
        "hello" => return Ok(Said::Hello(Hello { id: 0, token: wire.token, data: None })),
        "pong" => return Ok(Said::Pong),
        _ => {}
    }
    let channel = |channel: Option<String>| channel.ok_or_else(|| missing("channel"));
    let action = match &*wire.kind {
        "subscribe" => Action::Subscribe(Box::new(Subscribe {
            to: to(wire.entity, wire.channel, wire.params)
                .map_err(|reason| nonsense(ErrorCode::BadRequest, reason))?,
            filters: wire.filters,
            resume: wire.resume.map(Into::into),
            last: wire.last.unwrap_or(0),
            presence: if wire.presence { Presence::Wanted } else { Presence::Unwanted },
            token: None,
            must_recover: false,
        })),
        "update" => Action::Update {
            channel: channel(wire.channel)?,
            filters: wire.filters.unwrap_or_else(|| Value::Object(Map::new())),
        },
        "unsubscribe" => Action::Unsubscribe { channel: channel(wire.channel)? },
        "send" => {
            Action::Send { channel: channel(wire.channel)?, data: wire.data.ok_or_else(|| missing("data"))? }
        }
        "presence" => Action::Presence { channel: channel(wire.channel)? },
        "history" => Action::History {
            channel: channel(wire.channel)?,
            since: wire.since.map(Into::into),
            limit: wire.limit,
            order: Order::Latest,
        },
        "refresh" => Action::Refresh { token: wire.token.ok_or_else(|| missing("token"))? },
        _ => return Err(nonsense(ErrorCode::MethodNotFound, "there is no such message")),
    };
    let id = id.ok_or_else(|| missing("id"))?;
    Ok(Said::Command(Command { id, action }))
}

/// What is subscribed to, by an entity with the values of its placeholders or by a channel.
pub(crate) fn to(
    entity: Option<String>,
    channel: Option<String>,
    params: Option<Map<String, Value>>,
) -> Result<To, &'static str> {
    match (entity, channel) {
        (None, Some(channel)) if params.is_none() => Ok(To::Channel(channel)),
        (None, Some(_)) => Err("`params` go with `entity`"),
        (Some(entity), None) => {
            let text = |(name, value): (String, Value)| match value {
                Value::String(text) => Ok((name, text)),
                Value::Number(number) => Ok((name, number.to_string())),
                _ => Err("`params` are texts and numbers"),
            };
            let params = params.unwrap_or_default().into_iter().map(text).collect::<Result<_, _>>()?;
            Ok(To::Entity { entity, params })
        }
        _ => Err("either `entity` or `channel`"),
    }
}

/// What the server says, apart from events. As JSON it is the native protocol's, which leaves out what only others tell.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Say<'a> {
    Welcome {
        #[serde(skip)]
        id: u64,
        client: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        ping_ms: u64,
        pong_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in_ms: Option<u64>,
        limits: SayLimits,
    },
    Subscribed {
        id: u64,
        channel: &'a str,
        #[serde(flatten)]
        place: Option<SayPlace<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
        /// Of its token.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in_ms: Option<u64>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        events: Vec<SayEvent<'a>>,
    },
    /// The answer to a history.
    #[serde(rename = "ok")]
    Past {
        id: u64,
        #[serde(flatten)]
        place: SayPlace<'a>,
        events: Vec<SayEvent<'a>>,
    },
    Ok {
        id: u64,
        #[serde(skip)]
        of: Done,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        members: Option<&'a Map<String, Value>>,
    },
    Stats {
        id: u64,
        clients: usize,
        users: usize,
    },
    Called {
        id: u64,
        data: &'a RawValue,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        code: u16,
        message: &'a str,
        temporary: bool,
    },
    JoinLeave {
        channel: &'a str,
        joins: &'a Map<String, Value>,
        leaves: &'a Map<String, Value>,
    },
    Gap {
        channel: &'a str,
        reason: GapReason,
        #[serde(flatten)]
        place: Option<SayPlace<'a>>,
    },
    Position {
        channel: &'a str,
        offset: &'a str,
    },
    Unsubscribed {
        channel: &'a str,
        code: u16,
        reason: &'static str,
    },
    Ping,
    Goaway {
        after_ms: u64,
    },
    Disconnect {
        code: u16,
        reason: &'static str,
        reconnect: bool,
    },
}

/// What an `ok` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Update,
    Unsubscribe,
    Send,
    Presence,
    Refresh,
    Renew,
}

#[derive(Debug, Serialize)]
pub(crate) struct SayLimits {
    message: usize,
    subscriptions: usize,
}

impl SayLimits {
    pub(crate) fn of(limits: &Limits) -> Self {
        Self { message: limits.message.get(), subscriptions: limits.subscriptions.get() }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SayPlace<'a> {
    pub(crate) epoch: &'a str,
    pub(crate) offset: &'a str,
    /// The last number of the one stream of the channel.
    #[serde(skip)]
    pub(crate) number: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SayEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<&'a str>,
    data: &'a RawValue,
    #[serde(skip)]
    pub(crate) event: &'a Event,
}

impl<'a> SayEvent<'a> {
    pub(crate) fn of(event: &'a Event) -> Self {
        Self { offset: event.offset(), data: event.payload().as_json(), event }
    }
}

/// Why events may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GapReason {
    /// The connection to Redis was lost.
    Reconnected,
    /// The client, or this gateway, did not keep up.
    Slow,
    /// The retention removed events before they were read.
    Removed,
    /// The stream was made anew, or has become one.
    Reset,
    /// An event was larger than the limit.
    TooLarge,
}

impl Say<'_> {
    pub(crate) fn ok(id: u64, of: Done) -> Self {
        Self::Ok { id, of, expires_in_ms: None, members: None }
    }

    pub(crate) fn error(id: Option<u64>, code: ErrorCode) -> Self {
        Self::Error { id, code: code.number(), message: code.message(), temporary: code.is_temporary() }
    }

    pub(crate) fn disconnect(code: DisconnectCode) -> Self {
        Self::Disconnect { code: code.number(), reason: code.reason(), reconnect: code.reconnects() }
    }

    /// In the native protocol.
    pub(crate) fn frame(&self) -> Frame {
        Frame::text(256, |out| {
            serde_json::to_writer(out, self).expect("texts, numbers and checked JSON can always be written");
        })
    }
}

impl<'a> Say<'a> {
    pub(crate) fn unsubscribed(channel: &'a str, code: UnsubscribeCode) -> Self {
        Self::Unsubscribed { channel, code: code.number(), reason: code.reason() }
    }
}

/// An event, by hand: it is the one message that has to be written fast.
pub(crate) fn event(channel: &str, offset: Option<&str>, payload: &Payload) -> Frame {
    Frame::text(64 + channel.len() + payload.len(), |out| {
        out.extend_from_slice(b"{\"type\":\"event\",\"channel\":");
        serde_json::to_writer(&mut *out, channel).expect("a text can always be written");
        if let Some(offset) = offset {
            // Of our own making: digits and punctuation that JSON does not escape.
            out.extend_from_slice(b",\"offset\":\"");
            out.extend_from_slice(offset.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(payload.as_bytes());
        out.push(b'}');
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let read = match read(text) {
            Ok(said) => format!("{said:?}"),
            Err(nonsense) => format!("{:?} {} {}", nonsense.id, nonsense.code.number(), nonsense.reason),
        };
        expected.assert_eq(&read);
    }

    #[test]
    fn commands_are_read() {
        check(r#"{"type":"hello"}"#, expect!["Hello(Hello { id: 0, token: None, data: None })"]);
        check(r#"{"type":"pong"}"#, expect!["Pong"]);
        check(
            r#"{"type":"subscribe","id":1,"entity":"E","params":{"n":7,"t":"x"},"filters":{"a":1},"resume":{"epoch":"e","offset":"o"},"last":3,"presence":true,"new":1}"#,
            expect![[
                r#"Command(Command { id: 1, action: Subscribe(Subscribe { to: Entity { entity: "E", params: [("n", "7"), ("t", "x")] }, filters: Some(Object {"a": Number(1)}), resume: Some(Since { epoch: "e", after: Offset("o") }), last: 3, presence: Wanted, token: None, must_recover: false }) })"#
            ]],
        );
        check(
            r#"{"type":"unsubscribe","id":2,"channel":"c"}"#,
            expect![[r#"Command(Command { id: 2, action: Unsubscribe { channel: "c" } })"#]],
        );
    }

    #[test]
    fn nonsense_is_told_what_it_lacks() {
        check(r#"{"type":"subscribe","id":1}"#, expect!["Some(1) 107 either `entity` or `channel`"]);
        check(r#"{"type":"send","id":1,"channel":"c"}"#, expect!["Some(1) 107 `data` is missing"]);
        check(r#"{"type":"unsubscribe","channel":"c"}"#, expect!["None 107 `id` is missing"]);
        check(r#"{"type":"fly","id":4}"#, expect!["Some(4) 104 there is no such message"]);
        check("{}", expect!["None 107 not a message: missing field `type` at line 1 column 2"]);
        check("[]", expect!["None 107 a message is a JSON object"]);
        check(
            r#"{"type":"pong","id":-1}"#,
            expect!["None 107 not a message: invalid value: integer `-1`, expected u64 at line 1 column 22"],
        );
    }

    #[test]
    fn events_are_json() {
        let payload = Payload::check(bytes::Bytes::from_static(br#"{"a":1}"#), 100).unwrap();
        let frame = event("c:\"7", Some("1-2.3"), &payload);
        assert_eq!(
            std::str::from_utf8(frame.payload()).unwrap(),
            r#"{"type":"event","channel":"c:\"7","offset":"1-2.3","data":{"a":1}}"#
        );
        serde_json::from_slice::<Value>(frame.payload()).unwrap();
    }
}
