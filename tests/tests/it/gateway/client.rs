//! A client of the native protocol that does nothing by itself, and a gateway for it.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use messaging_core::{Messaging, Running};
use messaging_gateway::{AuthError, Builder, Credentials, Gateway, Identity, Limits};
use messaging_tests::eventually;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::place::{Place, soon};

/// A gateway that serves on a port of its own.
pub struct Served {
    pub messaging: Messaging,
    pub gateway: Gateway,
    pub address: SocketAddr,
    /// What operators see.
    pub internal: SocketAddr,
    _running: Running,
}

impl Served {
    /// Where everybody is who their token says: `ada`, or `ada@acme` of a tenant.
    pub async fn at(place: &Place) -> Self {
        Self::with(place, |builder| builder).await
    }

    pub async fn with(place: &Place, more: impl FnOnce(Builder) -> Builder) -> Self {
        let builder = place.builder().durable("kept.{name}", messaging_core::Retention::DEFAULT);
        Self::of(builder.build().await.unwrap(), more).await
    }

    pub async fn of(messaging: Messaging, more: impl FnOnce(Builder) -> Builder) -> Self {
        let gateway = more(Gateway::builder(&messaging).authenticate(who)).build().unwrap();
        let running = messaging.start().await.unwrap();
        let address = serve(gateway.router()).await;
        let internal = serve(gateway.internal_router("gateway")).await;
        Self { messaging, gateway, address, internal, _running: running }
    }

    /// With other limits.
    pub async fn limited(place: &Place, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self::with(place, |builder| builder.limits(limits)).await
    }

    pub async fn client(&self, token: &str) -> Client {
        let mut client = Client::connect(self.address).await;
        client.hello(token).await;
        client
    }

    pub async fn publish(&self, channel: &str, payload: impl serde::Serialize) {
        self.messaging.publish(channel, &payload).await.unwrap();
    }

    /// Waits until the gateway itself has read this, which is the last that was published on a durable channel.
    pub async fn has_read(&self, channel: &str, last: &Value) {
        let mut watcher = self.client("ada").await;
        let begun = watcher.subscribe(json!({ "channel": channel, "last": 1 })).await;
        let is_there = begun["events"].as_array().is_some_and(|events| events[0]["data"] == *last);
        while !is_there && watcher.next_of("event").await["data"] != *last {}
    }

    pub fn running(self) -> Running {
        self._running
    }

    /// What `/metrics` says of this, with its labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let answer = http(self.internal, "GET", "/metrics", &[]).await;
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is counted")).parse().unwrap()
    }

    /// Waits until a number is this.
    pub async fn until_metric(&self, name: &str, is: impl Fn(u64) -> bool) {
        eventually(name, async || is(self.metric(name).await)).await;
    }

    /// Waits until nobody is connected, and nothing of those who were is left.
    pub async fn until_nobody(&self) {
        eventually("all connections are gone", async || self.gateway.connections() == 0).await;
        self.until_metric("messaging_gateway_connections", |count| count == 0).await;
        self.until_metric("messaging_gateway_subscriptions", |count| count == 0).await;
    }
}

pub async fn serve(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// An answer to a plain request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A request whose answer ends with its connection.
pub async fn http(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let (mut answer, mut reader) = begin(address, method, path, headers).await;
    soon(reader.read_to_string(&mut answer.body)).await.unwrap();
    answer
}

/// In HTTP/1.0, so that what is streamed comes as it is.
async fn begin(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (Answer, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    soon(stream.write_all(request.as_bytes())).await.unwrap();
    let mut reader = BufReader::new(stream);
    let mut answer = Answer { status: 0, headers: Vec::new(), body: String::new() };
    loop {
        let mut line = String::new();
        soon(reader.read_line(&mut line)).await.unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            return (answer, reader);
        } else if answer.status == 0 {
            answer.status = line.split(' ').nth(1).unwrap().parse().unwrap();
        } else {
            let (name, value) = line.split_once(": ").unwrap();
            answer.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
}

/// A stream of Server-Sent Events.
pub struct Events {
    pub answer: Answer,
    reader: BufReader<TcpStream>,
}

/// One of them; a comment has nothing of it.
#[derive(Debug, Default, PartialEq)]
pub struct Sse {
    pub event: String,
    pub id: Option<String>,
    pub data: Value,
}

impl Events {
    pub async fn of(served: &Served, query: &str, headers: &[(&str, &str)]) -> Self {
        Self::at(served.address, query, headers).await
    }

    pub async fn at(address: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Self {
        let (answer, reader) = begin(address, "GET", &format!("/events?{query}"), headers).await;
        assert_eq!(answer.status, 200, "{query}");
        Self { answer, reader }
    }

    /// What comes next, be it a comment; nothing if the stream has ended.
    pub async fn next_or_end(&mut self) -> Option<Sse> {
        let mut sse = Sse::default();
        loop {
            let mut line = String::new();
            if soon(self.reader.read_line(&mut line)).await.ok()? == 0 {
                return None;
            }
            let line = line.strip_suffix('\n').unwrap();
            match line.split_once(": ") {
                _ if line.is_empty() => return Some(sse),
                Some(("event", event)) => sse.event = event.to_owned(),
                Some(("id", id)) => sse.id = Some(id.to_owned()),
                Some(("data", data)) => sse.data = serde_json::from_str(data).unwrap(),
                _ => assert_eq!(line, ":"),
            }
        }
    }

    pub async fn next(&mut self) -> Sse {
        loop {
            let sse = self.next_or_end().await.expect("the stream goes on");
            if !sse.event.is_empty() {
                return sse;
            }
        }
    }

    pub async fn next_of(&mut self, event: &str) -> Sse {
        loop {
            let sse = self.next().await;
            if sse.event == event {
                return sse;
            }
        }
    }
}

/// `ada` or `ada@acme`; `old` has expired, `soon` expires, `` is nobody.
pub async fn who(credentials: Credentials) -> Result<Identity, AuthError> {
    let token = credentials.token.ok_or_else(|| AuthError::invalid("there is no token"))?;
    match token.as_str() {
        "wrong" => return Err(AuthError::invalid("it is wrong")),
        "old" => return Err(AuthError::Expired),
        _ => {}
    }
    let (user, tenant) = token.split_once('@').map_or((&*token, None), |(user, tenant)| (user, Some(tenant)));
    let (user, left) = user.split_once('~').map_or((user, None), |(user, left)| (user, left.parse().ok()));
    let mut identity = Identity::user(user).with_info(json!({ "name": user }));
    if let Some(tenant) = tenant {
        identity = identity.with_tenant(tenant);
    }
    if let Some(left) = left {
        identity =
            identity.expiring_at(std::time::SystemTime::now() + std::time::Duration::from_millis(left));
    }
    Ok(identity)
}

/// A WebSocket.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    ids: u64,
    /// What came while something else was waited for.
    aside: Vec<Value>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, &[]).await.unwrap()
    }

    pub async fn try_connect(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        Self::try_connect_to(address, "/subscribe", headers).await
    }

    pub async fn try_connect_to(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = soon(tokio_tungstenite::client_async(request, stream)).await?;
        Ok(Self { socket, ids: 0, aside: Vec::new() })
    }

    pub async fn hello(&mut self, token: &str) -> Value {
        self.say(json!({ "type": "hello", "token": token })).await;
        self.next_of("welcome").await
    }

    pub async fn say(&mut self, message: Value) {
        self.say_text(&message.to_string()).await;
    }

    pub async fn say_text(&mut self, text: &str) {
        soon(self.socket.send(Message::text(text))).await.unwrap();
    }

    pub async fn say_raw(&mut self, message: Message) -> Result<(), tungstenite::Error> {
        soon(self.socket.send(message)).await
    }

    /// Says it if it is taken, even slowly; `false` if the gateway takes nothing more, or has gone.
    pub async fn try_say(&mut self, message: Message) -> bool {
        let said = tokio::time::timeout(std::time::Duration::from_secs(1), self.socket.send(message)).await;
        said.is_ok_and(|said| said.is_ok())
    }

    /// Says something that has an answer, and waits for it.
    pub async fn ask(&mut self, mut message: Value) -> Value {
        self.ids += 1;
        let id = self.ids;
        message["id"] = id.into();
        self.say(message).await;
        self.next_where(|message| message["id"] == id).await
    }

    pub async fn subscribe(&mut self, message: Value) -> Value {
        let mut message = message;
        message["type"] = "subscribe".into();
        let answer = self.ask(message).await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// What came while something else was waited for.
    pub fn aside(&self) -> &[Value] {
        &self.aside
    }

    /// The same, which is not there afterwards.
    pub fn take_aside(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.aside)
    }

    /// What comes next; nothing if the connection is closed.
    pub async fn next_or_closed(&mut self) -> Result<Value, Option<u16>> {
        if !self.aside.is_empty() {
            return Ok(self.aside.remove(0));
        }
        self.read().await
    }

    async fn read(&mut self) -> Result<Value, Option<u16>> {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    pub async fn next(&mut self) -> Value {
        self.next_or_closed().await.expect("the connection is open")
    }

    /// The next message that is looked for; others are put aside.
    pub async fn next_where(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.aside.iter().position(&is_wanted) {
            return self.aside.remove(place);
        }
        loop {
            let message = self.read().await.expect("the connection is open");
            if is_wanted(&message) {
                return message;
            }
            self.aside.push(message);
        }
    }

    pub async fn next_of(&mut self, kind: &str) -> Value {
        self.next_where(|message| message["type"] == kind).await
    }

    /// The next events' data.
    pub async fn data(&mut self, count: usize) -> Vec<Value> {
        let mut data = Vec::new();
        while data.len() < count {
            data.push(self.next_of("event").await["data"].take());
        }
        data
    }

    /// The code that the connection is closed with.
    pub async fn closed(&mut self) -> Option<u16> {
        self.aside.clear();
        let mut code = None;
        let all = async {
            loop {
                match self.read().await {
                    Ok(_) => {}
                    Err(closed) => break code = closed,
                }
            }
        };
        soon(all).await;
        code
    }
}
