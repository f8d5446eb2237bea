//! A client of the native protocol that does nothing by itself, and a gateway for it.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use messaging_core::{Messaging, Running};
use messaging_gateway::{AuthError, Builder, Credentials, Gateway, Identity};
use serde_json::{Value, json};
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = gateway.router().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { messaging, gateway, address, _running: running }
    }

    pub async fn client(&self, token: &str) -> Client {
        let mut client = Client::connect(self.address).await;
        client.hello(token).await;
        client
    }

    pub async fn publish(&self, channel: &str, payload: impl serde::Serialize) {
        self.messaging.publish(channel, &payload).await.unwrap();
    }

    pub fn running(self) -> Running {
        self._running
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
        loop {
            if let Err(code) = self.next_or_closed().await {
                return code;
            }
        }
    }
}
