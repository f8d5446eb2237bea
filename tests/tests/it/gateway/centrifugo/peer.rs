//! A connection that speaks the protocol, and does nothing by itself.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::place::soon;

/// A connection that speaks the protocol.
pub struct Peer {
    pub socket: WebSocketStream<TcpStream>,
    ids: u64,
    pub said: VecDeque<Value>,
}

impl Peer {
    pub async fn open(address: SocketAddr) -> Self {
        Self::try_open(address, "", &[]).await.unwrap()
    }

    pub async fn try_open(
        address: SocketAddr,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        use tungstenite::client::IntoClientRequest as _;
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/connection/websocket{query}");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = soon(tokio_tungstenite::client_async(request, stream)).await?;
        Ok(Self { socket, ids: 0, said: VecDeque::new() })
    }

    pub async fn connect(address: SocketAddr, token: &str) -> Self {
        let mut peer = Self::open(address).await;
        let answer = peer.ask(json!({ "connect": { "token": token } })).await;
        assert!(answer["connect"]["client"].is_string(), "{answer}");
        peer
    }

    pub async fn say_text(&mut self, text: String) {
        soon(self.socket.send(Message::text(text))).await.unwrap();
    }

    /// Says something that has an answer, and waits for it, past what is pushed.
    pub async fn ask(&mut self, mut command: Value) -> Value {
        self.ids += 1;
        let id = self.ids;
        command["id"] = id.into();
        self.say_text(command.to_string()).await;
        let mut aside = VecDeque::new();
        loop {
            let said = self.next().await;
            if said["id"] == id {
                aside.append(&mut self.said);
                self.said = aside;
                return said;
            }
            aside.push_back(said);
        }
    }

    pub async fn subscribe(&mut self, request: Value) -> Value {
        let answer = self.ask(json!({ "subscribe": request })).await;
        assert!(answer["subscribe"].is_object(), "{answer}");
        answer["subscribe"].clone()
    }

    pub async fn code(&mut self, command: Value) -> u64 {
        let answer = self.ask(command).await;
        answer["error"]["code"].as_u64().unwrap_or_else(|| panic!("it is no error: {answer}"))
    }

    /// What is said next, or the code with which the connection ends.
    pub async fn next_or_code(&mut self) -> Result<Value, u16> {
        while self.said.is_empty() {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    self.said
                        .extend(text.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)));
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(0, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(0),
            }
        }
        Ok(self.said.pop_front().unwrap())
    }

    pub async fn next(&mut self) -> Value {
        self.next_or_code().await.unwrap_or_else(|code| panic!("the connection has ended with {code}"))
    }

    /// What is pushed next of this kind.
    pub async fn push(&mut self, kind: &str) -> Value {
        loop {
            let mut said = self.next().await;
            if said["push"][kind].is_object() {
                return said["push"].take();
            }
        }
    }

    pub async fn publication(&mut self) -> Value {
        self.push("pub").await["pub"].take()
    }

    pub async fn ended_with(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next_or_code().await {
                return code;
            }
        }
    }
}
