//! What a page of a user does, without a page: a WebSocket of the gateway.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use messaging_core::BoxError;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::audit_log::Heard;
use crate::device::show;
use crate::screen::Screen;

const NAME: &str = "browser";

pub(crate) struct Browser {
    socket: WebSocketStream<TcpStream>,
    screen: Screen,
    requests: u64,
    /// What came while an answer was waited for.
    events: VecDeque<Value>,
}

impl Browser {
    /// Connects as the user of the token, and subscribes to her own channel: which that is, she does not say.
    pub(crate) async fn open(address: SocketAddr, token: &str, screen: &Screen) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(address).await?;
        let (socket, _) =
            tokio_tungstenite::client_async(format!("ws://{address}/subscribe"), stream).await?;
        let mut browser = Self { socket, screen: screen.clone(), requests: 0, events: VecDeque::new() };
        browser.say(&json!({ "type": "hello", "token": token })).await?;
        let subscribed = browser.ask(json!({ "type": "subscribe", "entity": "auditlog" })).await?;
        browser.screen.line(NAME, "subscribed", subscribed["channel"].as_str().unwrap_or_default());
        Ok(browser)
    }

    /// Tries to hear what is not hers.
    pub(crate) async fn try_to_hear(&mut self, channel: &str) -> Result<(), BoxError> {
        let answer = self.ask(json!({ "type": "subscribe", "channel": channel })).await?;
        let message = answer["message"].as_str().unwrap_or("it was not refused");
        self.screen.line(NAME, "refused", &format!("{channel}: {message}"));
        Ok(())
    }

    /// Sends something to everybody who listens on a channel that she is subscribed to, this page included.
    pub(crate) async fn broadcast(&mut self, channel: &str, data: Value) -> Result<(), BoxError> {
        self.ask(json!({ "type": "send", "channel": channel, "data": data })).await.map(drop)
    }

    /// Waits for the next event, for so long at most, and shows it.
    pub(crate) async fn hear(&mut self, patience: Duration) -> Result<(), BoxError> {
        let waited = tokio::time::timeout(patience, async {
            while self.events.is_empty() {
                let said = self.read().await?;
                self.events.extend((said["type"] == "event").then_some(said));
            }
            Ok::<_, BoxError>(())
        });
        if let Ok(waited) = waited.await {
            waited?;
        }
        match self.events.pop_front() {
            Some(mut event) => {
                show(&self.screen, NAME, &serde_json::from_value::<Heard>(event["data"].take())?)
            }
            None => self.screen.line(NAME, "None", &format!("nothing within {patience:?}")),
        }
        Ok(())
    }

    async fn ask(&mut self, mut request: Value) -> Result<Value, BoxError> {
        self.requests += 1;
        request["id"] = self.requests.into();
        self.say(&request).await?;
        loop {
            let said = self.read().await?;
            if said["id"] == self.requests {
                return Ok(said);
            }
            self.events.extend((said["type"] == "event").then_some(said));
        }
    }

    async fn say(&mut self, message: &Value) -> Result<(), BoxError> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    async fn read(&mut self) -> Result<Value, BoxError> {
        loop {
            match self.socket.next().await.ok_or("the gateway has closed the connection")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                _ => continue,
            }
        }
    }
}
