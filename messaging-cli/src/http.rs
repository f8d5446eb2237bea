//! One GET over plain HTTP, for what services say of themselves.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use url::Url;

/// More than any service has to say.
const MOST: usize = 16 << 20;

/// What a service answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// What `/readyz` of an internal router says, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Readiness {
    pub(crate) messaging: Messaging,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Messaging {
    #[serde(default)]
    pub(crate) handlers: Vec<Value>,
    #[serde(default)]
    pub(crate) caches: Vec<Value>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

/// Reads a URL that can be asked.
pub(crate) fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write http://host:port/readyz"))?;
    match url.scheme() {
        "http" if !url.username().is_empty() || url.password().is_some() => {
            Err("no user and no password are sent; leave them out".to_owned())
        }
        "http" if url.has_host() => Ok(url),
        "https" => Err("only http:// is spoken: ask the service itself, behind what ends TLS".to_owned()),
        _ => Err("write http://host:port/readyz".to_owned()),
    }
}

/// Asks, and waits no longer than `limit`. The error is a reason.
pub(crate) async fn get(url: &Url, limit: Duration) -> Result<Answer, String> {
    tokio::time::timeout(limit, ask(url)).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

async fn ask(url: &Url) -> Result<Answer, String> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
    let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let request = Request::get(path).header(HOST, format!("{host}:{port}")).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        Ok(Answer { status, body: body.map_err(|error| error.to_string())?.to_bytes() })
    };
    let mut connection = std::pin::pin!(connection);
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        // It has read all that there is; what was asked for is still to be taken out of it.
        ended = &mut connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
