//! The client protocol of Centrifugo, version 2, in JSON: a second codec over the same commands. Knows no sockets and no
//! channels.
//!
//! Source: <https://centrifugal.dev/docs/transports/client_protocol>, and the schema in
//! <https://github.com/centrifugal/protocol>.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::code::ErrorCode;
use crate::command::{
    Action, After, Command, Hello, Nonsense, Order, Presence, Said, Since, Subscribe, To, Token,
};
use crate::event::Event;
use crate::frame::Frame;
use crate::native::{Done, Say, SayEvent, SayPlace};
use crate::payload::Payload;

/// The flag of a subscription that wants to know before it begins that something is lost.
const REJECT_UNRECOVERED: u64 = 2;
/// How differences between events may be asked for. A server that has none leaves it out of its answer.
const DELTA: &str = "fossil";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(deserialize_with = "or_default")]
    id: u64,
    connect: Option<Connect>,
    subscribe: Option<WireSubscribe>,
    unsubscribe: Option<Named>,
    publish: Option<Publish>,
    presence: Option<Named>,
    presence_stats: Option<Named>,
    history: Option<History>,
    rpc: Option<Rpc>,
    send: Option<Send>,
    refresh: Option<Connect>,
    sub_refresh: Option<SubRefresh>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Connect {
    #[serde(deserialize_with = "or_default")]
    token: String,
    data: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireSubscribe {
    #[serde(deserialize_with = "or_default")]
    channel: String,
    #[serde(deserialize_with = "or_default")]
    token: String,
    #[serde(deserialize_with = "or_default")]
    recover: bool,
    #[serde(deserialize_with = "or_default")]
    epoch: String,
    #[serde(deserialize_with = "or_default")]
    offset: u64,
    data: Option<Value>,
    #[serde(deserialize_with = "or_default")]
    join_leave: bool,
    #[serde(deserialize_with = "or_default")]
    delta: String,
    tf: Option<Value>,
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: u64,
    #[serde(deserialize_with = "or_default")]
    flag: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    #[serde(deserialize_with = "or_default")]
    channel: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Publish {
    #[serde(deserialize_with = "or_default")]
    channel: String,
    #[serde(deserialize_with = "json")]
    data: Option<Box<RawValue>>,
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct History {
    #[serde(deserialize_with = "or_default")]
    channel: String,
    #[serde(deserialize_with = "or_default")]
    limit: i64,
    since: Option<StreamPosition>,
    #[serde(deserialize_with = "or_default")]
    reverse: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamPosition {
    #[serde(deserialize_with = "or_default")]
    offset: u64,
    #[serde(deserialize_with = "or_default")]
    epoch: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rpc {
    #[serde(deserialize_with = "or_default")]
    method: String,
    #[serde(deserialize_with = "json")]
    data: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Send {
    #[serde(deserialize_with = "json")]
    data: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SubRefresh {
    #[serde(deserialize_with = "or_default")]
    channel: String,
    #[serde(deserialize_with = "or_default")]
    token: String,
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: u64,
}

/// Nothing counts as what a field is without it: some encoders write `null` for that.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// `null` is a value as any other.
fn json<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// A token, if there is one: many clients say that there is none by an empty one.
fn token(token: String) -> Option<Token> {
    (!token.is_empty()).then_some(Token(token))
}

impl Wire {
    /// Whether it asks for nothing.
    fn is_empty(&self) -> bool {
        let Self { id: _, connect, subscribe, unsubscribe, publish, presence, presence_stats, .. } = self;
        let Self { history, rpc, send, refresh, sub_refresh, .. } = self;
        connect.is_none()
            && subscribe.is_none()
            && publish.is_none()
            && [unsubscribe, presence, presence_stats].iter().all(|named| named.is_none())
            && (history.is_none() && rpc.is_none() && send.is_none())
            && (refresh.is_none() && sub_refresh.is_none())
    }
}

/// Reads one command.
pub(crate) fn read(text: &str) -> Result<Said, Nonsense> {
    let fatal = |reason: String| Nonsense { id: None, code: ErrorCode::BadRequest, reason, is_fatal: true };
    // An array would be read as the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(fatal("a command is a JSON object".to_owned()));
    }
    let wire: Wire = serde_json::from_str(text).map_err(|error| fatal(format!("not a command: {error}")))?;
    let id = wire.id;
    if id == 0 {
        return match wire.send {
            Some(Send { data }) => Ok(Said::Message(data.unwrap_or_default())),
            None if wire.is_empty() => Ok(Said::Pong),
            None => Err(fatal("`id` is missing".to_owned())),
        };
    }
    let refused = |code: ErrorCode, reason: &str| {
        Err(Nonsense { id: Some(id), code, reason: reason.to_owned(), is_fatal: false })
    };
    let channel = |channel: String| match channel.is_empty() {
        true => Err(fatal("`channel` is missing".to_owned())),
        false => Ok(channel),
    };
    let action = if let Some(connect) = wire.connect {
        return Ok(Said::Hello(Hello { id, token: token(connect.token), data: connect.data }));
    } else if let Some(subscribe) = wire.subscribe {
        let channel = channel(subscribe.channel)?;
        if subscribe.kind != 0 {
            return refused(ErrorCode::NotAvailable, "map and poll subscriptions are not available");
        }
        if subscribe.tf.is_some() {
            return refused(ErrorCode::BadRequest, "filters by tags are not available");
        }
        if !matches!(&*subscribe.delta, "" | DELTA) {
            return Err(fatal("there is no such delta".to_owned()));
        }
        // Of our own: what the native protocol has as `filters`.
        let filters = subscribe.data.and_then(|mut data| data.get_mut("filters").map(Value::take));
        let since = Since { epoch: subscribe.epoch, after: After::Number(subscribe.offset) };
        Action::Subscribe(Box::new(Subscribe {
            to: To::Channel(channel),
            filters,
            resume: subscribe.recover.then_some(since),
            last: 0,
            presence: Presence::Offered { watches: subscribe.join_leave },
            token: token(subscribe.token),
            must_recover: subscribe.flag & REJECT_UNRECOVERED != 0,
        }))
    } else if let Some(unsubscribe) = wire.unsubscribe {
        Action::Unsubscribe { channel: channel(unsubscribe.channel)? }
    } else if let Some(publish) = wire.publish {
        if publish.kind != 0 {
            return refused(ErrorCode::NotAvailable, "maps are not available");
        }
        match publish.data {
            Some(data) => Action::Send { channel: channel(publish.channel)?, data },
            None => return refused(ErrorCode::BadRequest, "`data` is missing"),
        }
    } else if let Some(presence) = wire.presence {
        Action::Presence { channel: channel(presence.channel)? }
    } else if let Some(stats) = wire.presence_stats {
        Action::Stats { channel: channel(stats.channel)? }
    } else if let Some(history) = wire.history {
        Action::History {
            channel: channel(history.channel)?,
            since: history
                .since
                .map(|StreamPosition { offset, epoch }| Since { epoch, after: After::Number(offset) }),
            // Less than nothing is as many as there may be.
            limit: Some(usize::try_from(history.limit).unwrap_or(usize::MAX)),
            order: if history.reverse { Order::Backward } else { Order::Forward },
        }
    } else if let Some(rpc) = wire.rpc {
        Action::Call { method: rpc.method, data: rpc.data }
    } else if let Some(refresh) = wire.refresh {
        match token(refresh.token) {
            Some(token) => Action::Refresh { token },
            None => return Err(fatal("`token` is missing".to_owned())),
        }
    } else if let Some(refresh) = wire.sub_refresh {
        if refresh.kind != 0 {
            return refused(ErrorCode::NotAvailable, "poll subscriptions are not available");
        }
        let channel = channel(refresh.channel)?;
        match token(refresh.token) {
            Some(token) => Action::Renew { channel, token },
            None => return refused(ErrorCode::BadRequest, "`token` is missing"),
        }
    } else if let Some(send) = wire.send {
        return Ok(Said::Message(send.data.unwrap_or_default()));
    } else {
        return Err(fatal("there is no such command".to_owned()));
    };
    Ok(Said::Command(Command { id, action }))
}

#[derive(Serialize)]
struct Reply<'a> {
    id: u64,
    #[serde(flatten)]
    result: Answer<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer<'a> {
    Error(Refusal<'a>),
    Connect(Connected<'a>),
    Subscribe(Subscribed<'a>),
    Unsubscribe(Nothing),
    Publish(Nothing),
    Presence(Members<'a>),
    PresenceStats(Stats),
    History(Past<'a>),
    Rpc(Data<'a>),
    Refresh(Ends),
    SubRefresh(Ends),
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Refusal<'a> {
    code: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    temporary: bool,
}

#[derive(Serialize)]
struct Connected<'a> {
    client: &'a str,
    version: &'static str,
    #[serde(flatten)]
    ends: Ends,
    /// In seconds.
    ping: u64,
    pong: bool,
}

/// Whether something has an end, and in how many seconds.
#[derive(Serialize)]
struct Ends {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
}

impl Ends {
    /// Rounded down, because a token is renewed when it ends; and at least one second, of which clients take 0 for no end.
    fn of(expires_in_ms: Option<u64>) -> Self {
        Self { expires: expires_in_ms.is_some(), ttl: expires_in_ms.map(|ms| (ms / 1_000).max(1)) }
    }
}

#[derive(Serialize)]
struct Subscribed<'a> {
    #[serde(flatten)]
    ends: Ends,
    #[serde(flatten)]
    place: Option<Place<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    publications: Vec<Publication<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    recovered: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    was_recovering: bool,
}

/// Where a subscription begins that can be recovered.
#[derive(Serialize)]
struct Place<'a> {
    recoverable: bool,
    positioned: bool,
    epoch: &'a str,
    offset: u64,
}

#[derive(Serialize)]
struct Past<'a> {
    publications: Vec<Publication<'a>>,
    epoch: &'a str,
    offset: u64,
}

#[derive(Serialize)]
struct Members<'a> {
    presence: BTreeMap<&'a str, Info<'a>>,
}

#[derive(Serialize)]
struct Stats {
    num_clients: usize,
    num_users: usize,
}

#[derive(Serialize)]
struct Data<'a> {
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Pushed<'a> {
    push: Push<'a>,
}

#[derive(Serialize)]
struct Push<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum What<'a> {
    Pub(Publication<'a>),
    Join(Somebody<'a>),
    Leave(Somebody<'a>),
    Unsubscribe(Unsubscribe),
    Message(Gap<'a>),
}

#[derive(Serialize)]
struct Unsubscribe {
    code: u16,
    reason: &'static str,
}

/// What of Centrifugo's has no words for it: a message of the server, to whoever listens to those.
#[derive(Serialize)]
struct Gap<'a> {
    data: &'a Say<'a>,
}

#[derive(Serialize)]
struct Somebody<'a> {
    info: Info<'a>,
}

/// Who somebody is.
#[derive(Serialize)]
struct Info<'a> {
    user: Cow<'a, str>,
    client: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<Json<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Json<'a> {
    Raw(&'a RawValue),
    Value(&'a Value),
}

#[derive(Serialize)]
struct Publication<'a> {
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Info<'a>>,
}

/// What a client has sent, as the gateway publishes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent<'a> {
    #[serde(borrow)]
    sender: Sender<'a>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sender<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
}

/// How what a client has sent begins.
const SENT: &[u8] = br#"{"sender":{"user":"#;

impl<'a> Publication<'a> {
    fn of(payload: &'a Payload, offset: Option<NonZeroU64>) -> Self {
        let bytes = payload.as_bytes();
        let sent = bytes.starts_with(SENT).then(|| serde_json::from_slice::<Sent<'a>>(bytes).ok()).flatten();
        match sent {
            None => Self { data: payload.as_json(), offset, info: None },
            Some(Sent { sender: Sender { user, client, info }, data }) => {
                let conn_info = info.map(Json::Raw);
                Self { data, offset, info: Some(Info { user, client, conn_info, chan_info: None }) }
            }
        }
    }

    fn said(event: &SayEvent<'a>) -> Self {
        Self::of(event.event.payload(), event.event.number())
    }
}

/// An event that is told to everybody.
pub(crate) fn event(event: &Event) -> Frame {
    let publication = Publication::of(event.payload(), event.number());
    let push = Push { channel: Some(event.channel()), what: What::Pub(publication) };
    written(96 + event.channel().len() + event.payload().len(), &Pushed { push })
}

/// `None` for what these clients are not told: how far a stream is, that the gateway is about to end, why it closes.
pub(crate) fn frame(say: &Say<'_>) -> Option<Frame> {
    let place = |place: &SayPlace<'_>| place.number.unwrap_or(0);
    let (id, result) = match say {
        Say::Welcome { id, client, ping_ms, expires_in_ms, .. } => {
            let connected = Connected {
                client,
                version: env!("CARGO_PKG_VERSION"),
                ends: Ends::of(*expires_in_ms),
                ping: ping_ms.div_ceil(1_000),
                pong: true,
            };
            (*id, Answer::Connect(connected))
        }
        Say::Subscribed { id, place, recovered, expires_in_ms, events, .. } => {
            let subscribed = Subscribed {
                ends: Ends::of(*expires_in_ms),
                place: place.and_then(|SayPlace { epoch, number, .. }| {
                    number.map(|offset| Place { recoverable: true, positioned: true, epoch, offset })
                }),
                publications: events.iter().map(Publication::said).collect(),
                recovered: *recovered == Some(true),
                was_recovering: recovered.is_some(),
            };
            (*id, Answer::Subscribe(subscribed))
        }
        Say::Past { id, place: at, events } => {
            let publications = events.iter().map(Publication::said).collect();
            (*id, Answer::History(Past { publications, epoch: at.epoch, offset: place(at) }))
        }
        Say::Ok { id, of, expires_in_ms, members } => {
            let answer = match of {
                Done::Update | Done::Unsubscribe => Answer::Unsubscribe(Nothing {}),
                Done::Send => Answer::Publish(Nothing {}),
                Done::Presence => {
                    let members = members.iter().flat_map(|members| members.iter());
                    let presence = members.map(|(id, told)| (id.as_str(), info(id, told))).collect();
                    Answer::Presence(Members { presence })
                }
                Done::Refresh => Answer::Refresh(Ends::of(*expires_in_ms)),
                Done::Renew => Answer::SubRefresh(Ends::of(*expires_in_ms)),
            };
            (*id, answer)
        }
        Say::Stats { id, clients, users } => {
            (*id, Answer::PresenceStats(Stats { num_clients: *clients, num_users: *users }))
        }
        Say::Called { id, data } => (*id, Answer::Rpc(Data { data })),
        Say::Error { id, code, message, temporary } => {
            ((*id)?, Answer::Error(Refusal { code: *code, message, temporary: *temporary }))
        }
        Say::JoinLeave { channel, joins, leaves } => {
            // Several replies may stand in one message, each on a line.
            let joins = joins.iter().map(|(id, told)| What::Join(Somebody { info: info(id, told) }));
            let leaves = leaves.iter().map(|(id, told)| What::Leave(Somebody { info: info(id, told) }));
            let pushes =
                joins.chain(leaves).map(|what| Pushed { push: Push { channel: Some(channel), what } });
            let lines: Vec<_> = pushes.collect();
            return Some(Frame::text(128 * lines.len(), |out| {
                for (number, line) in lines.iter().enumerate() {
                    if number > 0 {
                        out.push(b'\n');
                    }
                    write(out, line);
                }
            }));
        }
        Say::Gap { .. } => {
            let push = Push { channel: None, what: What::Message(Gap { data: say }) };
            return Some(written(128, &Pushed { push }));
        }
        Say::Unsubscribed { channel, code, reason } => {
            let what = What::Unsubscribe(Unsubscribe { code: *code, reason });
            return Some(written(128, &Pushed { push: Push { channel: Some(channel), what } }));
        }
        Say::Ping => return Some(written(2, &Nothing {})),
        Say::Position { .. } | Say::Goaway { .. } | Say::Disconnect { .. } => return None,
    };
    Some(written(256, &Reply { id, result }))
}

/// Who somebody is, of whom is told as in the native protocol.
fn info<'a>(client: &'a str, told: &'a Value) -> Info<'a> {
    let user = told.get("user").and_then(Value::as_str).unwrap_or_default();
    let (conn_info, chan_info) = match (told.get("info"), told.get("conn_info")) {
        (info, None) => (info, None),
        (info, Some(conn_info)) => (Some(conn_info).filter(|info| !info.is_null()), info),
    };
    Info {
        user: user.into(),
        client: client.into(),
        conn_info: conn_info.map(Json::Value),
        chan_info: chan_info.map(Json::Value),
    }
}

fn written(size: usize, what: &impl Serialize) -> Frame {
    Frame::text(size, |out| write(out, what))
}

fn write(out: &mut Vec<u8>, what: &impl Serialize) {
    serde_json::to_writer(out, what).expect("texts, numbers and checked JSON can always be written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::GapReason;

    #[test]
    fn what_has_no_words_there_is_a_message_or_is_not_told() {
        let gap =
            frame(&Say::Gap { channel: "slow.latest:a", reason: GapReason::Slow, place: None }).unwrap();
        assert_eq!(
            std::str::from_utf8(gap.payload()).unwrap(),
            r#"{"push":{"message":{"data":{"type":"gap","channel":"slow.latest:a","reason":"slow"}}}}"#
        );
        assert!(frame(&Say::Position { channel: "a", offset: "1-0.1" }).is_none());
        assert!(frame(&Say::Goaway { after_ms: 1 }).is_none());
    }
}
