//! A client such as a browser is one, as far as the show needs it: HTTP by hand, and Server-Sent Events.

use std::net::SocketAddr;

use messaging_core::BoxError;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Updates as they come.
pub(crate) struct Events(BufReader<TcpStream>);

/// Sends JSON, and returns the JSON of the answer, if it has any.
pub(crate) async fn post(api: SocketAddr, path: &str, body: &Value) -> Result<Value, BoxError> {
    let body = body.to_string();
    let mut reader = send(
        api,
        &format!(
            "POST {path} HTTP/1.0\r\nhost: {api}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
    .await?;
    let mut answer = String::new();
    reader.read_to_string(&mut answer).await?;
    Ok(if answer.is_empty() { Value::Null } else { serde_json::from_str(&answer)? })
}

impl Events {
    /// Begins to listen, by the query of `GET /events`; returns when the API has confirmed all `subscriptions` of it.
    pub(crate) async fn listen(api: SocketAddr, query: &str, subscriptions: usize) -> Result<Self, BoxError> {
        // An answer in HTTP/1.0 is not cut into chunks.
        let mut events =
            Self(send(api, &format!("GET /events?{query} HTTP/1.0\r\nhost: {api}\r\n\r\n")).await?);
        events.next("welcome").await?;
        for _ in 0..subscriptions {
            events.next("subscribed").await?;
        }
        Ok(events)
    }

    /// What the next message with this name says; others are passed over.
    pub(crate) async fn next(&mut self, wanted: &str) -> Result<Value, BoxError> {
        let (mut name, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                return Err("the API has ended the stream".into());
            }
            match line.trim_end().split_once(": ") {
                Some(("event", event)) => event.clone_into(&mut name),
                Some(("data", json)) if name == wanted => return Ok(serde_json::from_str(json)?),
                _ => {}
            }
        }
    }
}

/// Sends a request; where the body of its answer begins.
async fn send(api: SocketAddr, request: &str) -> Result<BufReader<TcpStream>, BoxError> {
    let mut stream = TcpStream::connect(api).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status).await?;
    if status.split(' ').nth(1).is_none_or(|code| !code.starts_with('2')) {
        return Err(format!("the API answers {status:?}").into());
    }
    let mut line = String::new();
    while reader.read_line(&mut line).await? > 2 {
        line.clear();
    }
    Ok(reader)
}
