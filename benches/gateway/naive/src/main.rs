//! `messaging-benches-naive <port of Redis>`: a gateway as one writes it in an afternoon. axum, a broadcast channel of tokio, one
//! task for each client; on the runtime that the other sides have.

#[path = "../../../src/job.rs"]
#[allow(dead_code, reason = "this program says that it is ready, and is told no job")]
mod job;

use std::net::Ipv4Addr;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use job::{CHANNEL, Failure, Said};

/// How many messages a client may be behind before it misses some: more than ever wait here.
const CAPACITY: usize = 1_024;

fn main() -> Result<(), Failure> {
    let port: u16 = std::env::args().nth(1).ok_or("the port of Redis")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(&format!("redis://127.0.0.1:{port}")))
}

/// Serves until the process is ended.
async fn serve(redis: &str) -> Result<(), Failure> {
    let mut subscription = redis::Client::open(redis)?.get_async_pubsub().await?;
    subscription.subscribe(CHANNEL).await?;
    let (sender, _) = channel(CAPACITY);
    let router = Router::new().route("/events", get(upgrade)).with_state(sender.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Said::Ready { port: listener.local_addr()?.port() }.say();
    let listener = listener.tap_io(|stream| {
        // A client that is gone is noticed later.
        let _ = stream.set_nodelay(true);
    });
    let relay = async {
        let mut messages = subscription.into_on_message();
        while let Some(message) = messages.next().await {
            // It fails if there is no client.
            let _ = sender.send(message.get_payload()?);
        }
        Err::<(), Failure>("redis has closed the connection".into())
    };
    tokio::select! {
        ended = relay => ended,
        served = axum::serve(listener, router) => Ok(served?),
    }
}

async fn upgrade(State(sender): State<Sender<String>>, upgrade: WebSocketUpgrade) -> Response {
    let messages = sender.subscribe();
    upgrade.on_upgrade(|socket| client(socket, messages))
}

async fn client(mut socket: WebSocket, mut messages: Receiver<String>) {
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Ok(message) => {
                    if socket.send(Message::Text(message.into())).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            said = socket.recv() => match said {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}
