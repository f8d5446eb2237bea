//! `GET /events`: Server-Sent Events, for who cannot or need not have a WebSocket. The same subscriptions, named in the query.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::auth::is_within_depth;
use crate::command::{Action, After, Command, Presence, Said, Since, Subscribe, To};
use crate::connection::Transport;
use crate::event::Event;
use crate::frame::Frame;
use crate::gateway::{Admitted, Shared};
use crate::native::{self, Say};
use crate::outbox::{End, Item};
use crate::protocol::Protocol;
use crate::session::Session;
use crate::tickets::status_of;

/// How many bytes are written at once.
const WRITE: usize = 64 << 10;

/// `GET /events`.
pub(crate) async fn events(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let cors = shared.origins.answer(&request.headers);
    let resume = request.headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let asked = match Asked::read(request.uri.query().unwrap_or_default(), resume, &shared) {
        Ok(asked) => asked,
        Err(reason) => {
            shared.metrics.rejected.message.increment();
            return (StatusCode::BAD_REQUEST, cors, reason).into_response();
        }
    };
    let Admitted { shown, place, redeemed } = match shared.admit(&request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return (cors, refusal).into_response(),
    };
    let identity = match redeemed {
        Some(identity) => Ok(identity),
        None => shared.authenticator.authenticate(shown.credentials, shared.limits.decision).await,
    };
    let identity = match identity {
        Ok(identity) => identity,
        Err(error) => {
            shared.metrics.rejected.credentials.increment();
            return (status_of(&error), cors).into_response();
        }
    };
    let open = match shared.open(Transport::Events, place) {
        Ok(open) => open,
        Err(refusal) => return (cors, refusal).into_response(),
    };
    let mut session = Session::new(Arc::clone(&shared), open, Default::default(), None);
    session.welcome(0, identity);
    let catalog = shared.catalog();
    for (id, mut subscribe) in (1..).zip(asked.subscriptions) {
        if let Some(identity) = session.connection().identity()
            && let Some(resolved) = catalog.resolve(&subscribe.to, &identity)
        {
            let resume = || asked.resume.get(&*resolved.channel).map(Place::since);
            subscribe.resume = subscribe.resume.or_else(resume);
        }
        session.handle(Said::Command(Command { id, action: Action::Subscribe(Box::new(subscribe)) })).await;
    }
    let stream =
        stream::unfold(Some(Events { session, positions: Positions::new(), shared }), |events| async move {
            let mut events = events?;
            let (written, goes_on) = events.next().await?;
            Some((Ok::<_, std::convert::Infallible>(written), goes_on.then_some(events)))
        });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies that gather what they pass on would hold events back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (cors, headers, Body::from_stream(stream)).into_response()
}

/// What a request asks for.
#[derive(Debug)]
struct Asked {
    subscriptions: Vec<Subscribe>,
    /// What it resumes from.
    resume: Positions,
}

/// Where each resumable channel is.
type Positions = BTreeMap<String, Place>;

#[derive(Clone, Debug, Default)]
struct Place {
    epoch: String,
    offset: String,
}

impl Place {
    fn since(&self) -> Since {
        Since { epoch: self.epoch.clone(), after: After::Offset(self.offset.clone()) }
    }
}

impl Asked {
    fn read(query: &str, resume: Option<String>, shared: &Shared) -> Result<Self, String> {
        let mut subscriptions = Vec::new();
        let (mut resume, mut params, mut filters, mut last) = (resume, None, None, 0);
        let mut entities = 0;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', "%20");
            let value =
                percent_decode_str(&value).decode_utf8().map_err(|_| format!("`{name}` is not UTF-8"))?;
            let object = |what: &str| -> Result<Map<String, Value>, String> {
                if !is_within_depth(&value, shared.limits.depth) {
                    return Err(format!("`{what}` is nested too deeply"));
                }
                serde_json::from_str(&value)
                    .map_err(|error| format!("`{what}` is not a JSON object: {error}"))
            };
            match name {
                "subscribe" => {
                    let mut message = object("subscribe")?;
                    message.insert("type".to_owned(), "subscribe".into());
                    message.insert("id".to_owned(), 0.into());
                    match native::read(&Value::Object(message).to_string()) {
                        Ok(Said::Command(Command { action: Action::Subscribe(subscribe), .. })) => {
                            subscriptions.push(*subscribe)
                        }
                        Ok(_) => {}
                        Err(nonsense) => return Err(format!("`subscribe`: {}", nonsense.reason)),
                    }
                }
                "channel" => subscriptions.push(plain(To::Channel(value.into_owned()))),
                "entity" => {
                    entities += 1;
                    subscriptions.push(plain(To::Entity { entity: value.into_owned(), params: Vec::new() }));
                }
                "params" => params = Some(object("params")?),
                "filters" => filters = Some(Value::Object(object("filters")?)),
                "last" => last = value.parse().map_err(|_| "`last` is not a number".to_owned())?,
                "last_event_id" => resume = resume.or(Some(value.into_owned())),
                // Of whoever put it there: a proxy, or a cache buster.
                _ => {}
            }
        }
        if subscriptions.is_empty() {
            return Err("name what to subscribe to: `channel`, `entity` or `subscribe`".to_owned());
        }
        if subscriptions.len() > shared.limits.subscriptions.get() {
            return Err(format!("more than {} subscriptions", shared.limits.subscriptions));
        }
        if params.is_some() && entities != 1 {
            return Err("`params` go with one `entity`; several are written as `subscribe`".to_owned());
        }
        let resume = resume.as_deref().map(read_positions).unwrap_or_default();
        for subscribe in &mut subscriptions {
            if let (To::Entity { entity, params: given }, Some(params)) = (&mut subscribe.to, &params)
                && given.is_empty()
            {
                subscribe.to = native::to(Some(std::mem::take(entity)), None, Some(params.clone()))?;
            }
            subscribe.filters = subscribe.filters.take().or_else(|| filters.clone());
            subscribe.last = subscribe.last.max(last);
        }
        Ok(Self { subscriptions, resume })
    }
}

fn plain(to: To) -> Subscribe {
    Subscribe {
        to,
        filters: None,
        resume: None,
        last: 0,
        presence: Presence::Unwanted,
        token: None,
        must_recover: false,
    }
}

/// Reads a `Last-Event-ID`. What cannot be read is not resumed.
fn read_positions(text: &str) -> Positions {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let pair = |pair: &str| {
        let (channel, position) = pair.split_once('=')?;
        let position = decode(position)?;
        let (epoch, offset) = position.split_once('/')?;
        Some((decode(channel)?, Place { epoch: epoch.to_owned(), offset: offset.to_owned() }))
    };
    text.split(',').filter_map(pair).collect()
}

fn write_positions(positions: &Positions) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pair = |(channel, Place { epoch, offset }): (&String, &Place)| {
        format!("{}={}", encode(channel), encode(&format!("{epoch}/{offset}")))
    };
    positions.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// What is written to one client.
struct Events {
    session: Session,
    positions: Positions,
    shared: Arc<Shared>,
}

/// What a message says of itself and of where its channel is.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    offset: Option<String>,
}

impl Events {
    /// What is to be written next, and whether something may follow it.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        let connection = Arc::clone(self.session.connection());
        let mut batch = Vec::new();
        loop {
            connection.outbox.ready().await;
            match connection.outbox.take(&mut batch, WRITE) {
                Some(End::Gone) => return None,
                Some(End::Close(code)) => {
                    let last = Item::Message(Box::new(Say::disconnect(code).frame()));
                    return Some((self.write(&[last]), false));
                }
                None => {}
            }
            connection.note_written();
            if !batch.is_empty() {
                return Some((self.write(&batch), true));
            }
        }
    }

    fn write(&mut self, batch: &[Item]) -> Bytes {
        let mut out = BytesMut::with_capacity(batch.iter().map(|item| item.wire().len() + 64).sum());
        for item in batch {
            match item {
                Item::Events(run) => run.events().iter().for_each(|event| self.write_event(&mut out, event)),
                Item::Gap(gap) => self.write_message(&mut out, gap.frame()),
                Item::Message(frame) => self.write_message(&mut out, frame),
            }
        }
        self.shared.metrics.bytes.add(out.len() as u64);
        out.freeze()
    }

    fn write_event(&mut self, out: &mut BytesMut, event: &Event) {
        let moved = match (event.offset(), self.positions.get_mut(&**event.channel())) {
            (Some(offset), Some(place)) => {
                offset.clone_into(&mut place.offset);
                true
            }
            _ => false,
        };
        self.write_one(out, "event", moved, event.frame(Protocol::Native).payload());
    }

    fn write_message(&mut self, out: &mut BytesMut, frame: &Frame) {
        let Ok(Head { kind, channel, epoch, offset }) = serde_json::from_slice(frame.payload()) else {
            return;
        };
        if kind == "ping" {
            out.put_slice(b":\n\n");
            return;
        }
        let mut moved = false;
        if let (Some(channel), Some(offset)) = (channel, offset) {
            moved = true;
            let place = self.positions.entry(channel).or_default();
            place.offset = offset;
            place.epoch = epoch.unwrap_or_else(|| std::mem::take(&mut place.epoch));
        }
        self.write_one(out, &kind, moved, frame.payload());
    }

    fn write_one(&self, out: &mut BytesMut, kind: &str, moved: bool, json: &[u8]) {
        out.put_slice(b"event: ");
        out.put_slice(kind.as_bytes());
        if moved {
            out.put_slice(b"\nid: ");
            out.put_slice(write_positions(&self.positions).as_bytes());
        }
        // Of one line, as all our JSON is.
        out.put_slice(b"\ndata: ");
        out.put_slice(json);
        out.put_slice(b"\n\n");
    }
}
