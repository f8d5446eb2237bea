//! A client that does what a good one does, all the time: it subscribes, answers pings, comes back, and resumes where it was.
//! It is light, so that there can be thousands, and notes all that it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use messaging_tests::eventually;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// How long it waits before it tries again.
const AGAIN: Duration = Duration::from_millis(30);

pub type Socket = WebSocketStream<TcpStream>;

/// A WebSocket that needs little memory.
pub async fn connect(address: SocketAddr) -> Result<Socket, Error> {
    open(TcpStream::connect(address).await?, address).await
}

pub async fn open(stream: TcpStream, address: SocketAddr) -> Result<Socket, Error> {
    let request = format!("ws://{address}/subscribe").into_client_request()?;
    let config = WebSocketConfig::default().read_buffer_size(2 << 10).write_buffer_size(0);
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    Ok(opened.0)
}

/// What a client is like.
#[derive(Clone, Debug)]
pub struct Kind {
    pub name: String,
    pub channels: &'static [&'static str],
    /// It is seen on its channels.
    pub presence: bool,
    /// It goes elsewhere when it is told that the gateway ends, and does not wait to be closed.
    pub leaves: bool,
}

impl Kind {
    pub fn new(name: impl Into<String>, channels: &'static [&'static str]) -> Self {
        Self { name: name.into(), channels, presence: false, leaves: false }
    }
}

/// What it was told.
#[derive(Default, Debug)]
pub struct Notes {
    pub channels: BTreeMap<String, Heard>,
    /// How its connections were closed.
    pub closed: Vec<Option<u16>>,
    pub goaways: usize,
    /// The codes of errors.
    pub errors: Vec<u64>,
    /// Who has left, by what it was told of comings and goings.
    pub left: BTreeSet<String>,
}

/// What it was told of one channel.
#[derive(Default, Debug, Clone)]
pub struct Heard {
    pub numbers: Vec<u64>,
    /// The reasons.
    pub gaps: Vec<String>,
    /// Whether it was, each time that it resumed.
    pub recovered: Vec<bool>,
    pub subscribed: usize,
    pub is_subscribed: bool,
    place: Option<(Value, Value)>,
}

impl Heard {
    fn note_place(&mut self, message: &Value) {
        let old = self.place.take();
        let epoch = message.get("epoch").cloned().or_else(|| old.as_ref().map(|(epoch, _)| epoch.clone()));
        let offset = message.get("offset").cloned();
        self.place = epoch.zip(offset).or(old);
    }
}

pub struct Peer {
    channels: &'static [&'static str],
    notes: Arc<Mutex<Notes>>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Tries one address after the other; with none of them it stays away.
    pub fn start(kind: Kind, addresses: watch::Receiver<Vec<SocketAddr>>) -> Self {
        let notes = Arc::<Mutex<Notes>>::default();
        let channels = kind.channels;
        let life = Life { kind, notes: Arc::clone(&notes), addresses };
        Self { channels, notes, task: tokio::spawn(life.live()) }
    }

    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    pub fn heard(&self, channel: &str) -> Heard {
        self.notes().channels.get(channel).cloned().unwrap_or_default()
    }
}

/// Many of them.
pub struct Crowd {
    pub peers: Vec<Peer>,
    pub addresses: watch::Sender<Vec<SocketAddr>>,
}

impl Crowd {
    /// So many, all subscribed.
    pub async fn of(count: usize, address: SocketAddr, kind: impl Fn(usize) -> Kind) -> Self {
        Self::first_of(count, vec![address], kind).await
    }

    /// The same at the first of some addresses; whoever is closed there goes to the next.
    pub async fn first_of(count: usize, addresses: Vec<SocketAddr>, kind: impl Fn(usize) -> Kind) -> Self {
        let addresses = watch::Sender::new(addresses);
        let peers = (0..count).map(|number| Peer::start(kind(number), addresses.subscribe())).collect();
        let crowd = Self { peers, addresses };
        crowd.is_there().await;
        crowd
    }

    /// Waits until all are subscribed.
    pub async fn is_there(&self) {
        let is_there = |peer: &Peer| {
            let notes = peer.notes();
            let is_subscribed =
                |channel: &&str| notes.channels.get(*channel).is_some_and(|heard| heard.is_subscribed);
            peer.channels.iter().all(is_subscribed)
        };
        eventually("all are subscribed", async || self.peers.iter().all(is_there)).await;
    }

    /// Waits until all have heard a number.
    pub async fn have(&self, channel: &str, number: u64) {
        let has = |peer: &Peer| {
            peer.notes().channels.get(channel).is_some_and(|heard| heard.numbers.last() == Some(&number))
        };
        eventually(&format!("all have heard {number} on {channel}"), async || self.peers.iter().all(has))
            .await;
    }

    pub fn heard<'c>(&'c self, channel: &'c str) -> impl Iterator<Item = Heard> + 'c {
        self.peers.iter().map(move |peer| peer.heard(channel))
    }
}

struct Life {
    kind: Kind,
    notes: Arc<Mutex<Notes>>,
    addresses: watch::Receiver<Vec<SocketAddr>>,
}

impl Life {
    async fn live(mut self) {
        for number in 0.. {
            let addresses = self.addresses.borrow_and_update().clone();
            if addresses.is_empty() {
                if self.addresses.changed().await.is_err() {
                    return;
                }
                continue;
            }
            if let Ok(socket) = connect(addresses[number % addresses.len()]).await {
                let code = self.connected(socket).await;
                let mut notes = self.notes.lock().unwrap();
                notes.closed.push(code);
                notes.channels.values_mut().for_each(|heard| heard.is_subscribed = false);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn subscribe(&self, channel: &str) -> Value {
        let id = self.kind.channels.iter().position(|other| *other == channel);
        let mut message = json!({ "type": "subscribe", "id": id, "channel": channel });
        if self.kind.presence {
            message["presence"] = true.into();
        }
        let place = self.notes.lock().unwrap().channels.get(channel).and_then(|heard| heard.place.clone());
        if let Some((epoch, offset)) = place {
            message["resume"] = json!({ "epoch": epoch, "offset": offset });
        }
        message
    }

    /// Until it is closed.
    async fn connected(&mut self, mut socket: Socket) -> Option<u16> {
        let mut text = json!({ "type": "hello", "token": self.kind.name }).to_string();
        for channel in self.kind.channels {
            text.push('\n');
            text.push_str(&self.subscribe(channel).to_string());
        }
        socket.send(Message::text(text)).await.ok()?;
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                // It is asked to be elsewhere.
                changed = self.addresses.changed() => {
                    changed.ok()?;
                    return None;
                }
            };
            let message: Value = match message?.ok()? {
                Message::Text(text) => serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => return frame.map(|frame| frame.code.into()),
                _ => continue,
            };
            let answer = match message["type"].as_str().unwrap() {
                "ping" => json!({ "type": "pong" }),
                "error" => {
                    self.notes.lock().unwrap().errors.push(message["code"].as_u64().unwrap());
                    tokio::time::sleep(AGAIN).await;
                    let channel = message["id"].as_u64().unwrap();
                    self.subscribe(self.kind.channels[usize::try_from(channel).unwrap()])
                }
                "goaway" => {
                    self.notes.lock().unwrap().goaways += 1;
                    if self.kind.leaves {
                        let _ = socket.close(None).await;
                        return None;
                    }
                    continue;
                }
                _ => {
                    self.note(&message);
                    continue;
                }
            };
            socket.send(Message::text(answer.to_string())).await.ok()?;
        }
    }

    fn note(&self, message: &Value) {
        let Some(channel) = message["channel"].as_str() else { return };
        let mut notes = self.notes.lock().unwrap();
        if message["type"] == "join_leave" {
            let leaves = message["leaves"].as_object().unwrap().values();
            notes.left.extend(leaves.map(|entry| entry["user"].as_str().unwrap().to_owned()));
            return;
        }
        let heard = notes.channels.entry(channel.to_owned()).or_default();
        let number = |event: &Value| event["data"]["number"].as_u64().unwrap();
        match message["type"].as_str().unwrap() {
            "subscribed" => {
                heard.subscribed += 1;
                heard.is_subscribed = true;
                heard.recovered.extend(message["recovered"].as_bool());
                heard.numbers.extend(message["events"].as_array().into_iter().flatten().map(number));
            }
            "event" => heard.numbers.push(number(message)),
            "gap" => heard.gaps.push(message["reason"].as_str().unwrap().to_owned()),
            "position" => {}
            other => panic!("a message of type {other}: {message}"),
        }
        heard.note_place(message);
    }
}

/// That these grow one by one, and come once.
pub fn check_order(numbers: &[u64]) {
    let out_of_order = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(out_of_order, None, "{numbers:?}");
}
