//! A client of the gateway, as a page would be one: it says what it wants, and shows what comes.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use messaging_core::BoxError;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::screen::Screen;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Browser {
    name: &'static str,
    socket: WebSocketStream<TcpStream>,
    screen: Screen,
}

impl Browser {
    /// Connects to `ws://…/subscribe` and subscribes to what `wanted` says.
    pub(crate) async fn subscribe(
        name: &'static str,
        gateway: SocketAddr,
        wanted: Value,
        screen: &Screen,
    ) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(gateway).await?;
        let (socket, _) =
            tokio_tungstenite::client_async(format!("ws://{gateway}/subscribe"), stream).await?;
        let mut browser = Self { name, socket, screen: screen.clone() };
        let mut subscribe = json!({ "type": "subscribe", "id": 1, "entity": "CameraEvents" });
        if let (Some(subscribe), Value::Object(wanted)) = (subscribe.as_object_mut(), wanted.clone()) {
            subscribe.extend(wanted);
        }
        for message in [json!({ "type": "hello" }), subscribe] {
            browser.socket.send(Message::text(message.to_string())).await?;
        }
        let subscribed = browser.next("subscribed").await?;
        let channel = subscribed["channel"].as_str().unwrap_or_default();
        let filters = wanted.get("filters").map(|filters| format!(", only {filters}")).unwrap_or_default();
        screen.line(name, "subscribed", &format!("{channel}{filters}"));
        Ok(browser)
    }

    /// Waits for the next event and shows it.
    pub(crate) async fn event(&mut self) -> Result<(), BoxError> {
        let event = self.next("event").await?;
        let data = &event["data"];
        let kind = data["event_type"].as_str().unwrap_or_default();
        self.screen.line(self.name, "event", &format!("{kind} at camera {}", data["camera_id"]));
        Ok(())
    }

    /// The next message of this type.
    async fn next(&mut self, kind: &str) -> Result<Value, BoxError> {
        let coming = async {
            while let Some(message) = self.socket.next().await {
                let Message::Text(text) = message? else { continue };
                let message: Value = serde_json::from_str(&text)?;
                if message["type"] == kind {
                    return Ok(message);
                }
                if message["type"] == "error" {
                    return Err(format!("the gateway says {message}").into());
                }
            }
            Err("the gateway has closed the connection".into())
        };
        match tokio::time::timeout(PATIENCE, coming).await {
            Ok(message) => message,
            Err(_) => Err(format!("{} waited for {kind} for {PATIENCE:?}", self.name).into()),
        }
    }
}
