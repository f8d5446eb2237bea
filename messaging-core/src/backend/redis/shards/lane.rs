//! One of the connections to a cluster, and the task that owns it: asks, matches the answers, and finds out whether the
//! node still lives. It does not know what is wanted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backend::redis::connection::{Connection, Dialer};
use crate::backend::{Push, Reply, Request};
use crate::channel::{Kind, Wire};
use crate::config::Address;
use crate::error::{Error, ErrorKind, Result};

/// A subscription that was asked for, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// Whose answer it is; nobody waits for that of our own.
    pub(super) number: Option<u64>,
    pub(super) request: Request,
}

/// What comes of a lane.
#[derive(Debug)]
pub(super) enum Event {
    Open,
    Heard(Vec<Heard>),
    /// It is over, without an answer to these.
    Ended {
        error: Error,
        unanswered: Vec<Ask>,
    },
}

#[derive(Debug)]
pub(super) enum Heard {
    Push(Push),
    Answer(Ask, Reply),
    /// The node does not serve this sharded channel any more.
    Dropped(Bytes),
}

pub(super) struct Lane {
    pub(super) number: u64,
    pub(super) dialer: Arc<Dialer>,
    /// Any node, without one.
    pub(super) address: Option<Address>,
    pub(super) asks: mpsc::UnboundedReceiver<Ask>,
    pub(super) events: mpsc::Sender<(u64, Event)>,
    /// The node has closed the connection, which was seen while nobody took what it had sent.
    pub(super) closed: Arc<AtomicBool>,
    /// Without an answer yet; a ping is `None`.
    pub(super) asked: VecDeque<Option<Ask>>,
}

impl Lane {
    pub(super) async fn run(mut self) {
        let connecting = async {
            match &self.address {
                Some(address) => self.dialer.subscriber_at(address).await,
                None => self.dialer.subscriber().await,
            }
        };
        let ended = match connecting.await {
            Ok(connection) => {
                self.tell(Event::Open).await;
                self.serve(connection).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = ended else { return };
        self.asks.close();
        let mut unanswered: Vec<Ask> = self.asked.drain(..).flatten().collect();
        while let Ok(ask) = self.asks.try_recv() {
            unanswered.push(ask);
        }
        self.tell(Event::Ended { error, unanswered }).await;
    }

    /// Whoever is told may be gone; then this task is ended too.
    async fn tell(&self, event: Event) {
        let _ = self.events.send((self.number, event)).await;
    }

    /// `Ok` when nobody asks any more.
    async fn serve(&mut self, mut connection: Connection) -> Result<()> {
        let (ping_after, ping_timeout) = (self.dialer.ping_after, self.dialer.ping_timeout);
        let (mut pushes, mut heard_at, mut pinged) = (Vec::new(), Instant::now(), false);
        loop {
            let silent_until = heard_at + ping_after + if pinged { ping_timeout } else { Duration::ZERO };
            tokio::select! {
                received = connection.receive(&mut pushes) => {
                    received?;
                    self.pass_on(&mut connection, &mut pushes).await?;
                    (heard_at, pinged) = (Instant::now(), false);
                }
                ask = self.asks.recv() => {
                    let Some(ask) = ask else { return Ok(()) };
                    let mut requests = vec![ask.request.clone()];
                    self.asked.push_back(Some(ask));
                    while let Ok(ask) = self.asks.try_recv() {
                        requests.push(ask.request.clone());
                        self.asked.push_back(Some(ask));
                    }
                    connection.send(&requests).await?;
                }
                () = sleep_until(silent_until) => {
                    if !pinged {
                        pinged = true;
                        self.ping(&mut connection).await?;
                        continue;
                    }
                    // After this process has stood still, what arrived meanwhile still shows life.
                    match connection.receive(&mut pushes).now_or_never() {
                        Some(received) => received?,
                        None => {
                            let silence = ping_after + ping_timeout;
                            let text = format!("a node of the cluster did not answer a ping; silent for {silence:?}");
                            return Err(Error::new(ErrorKind::Connection, text));
                        }
                    }
                    self.pass_on(&mut connection, &mut pushes).await?;
                    (heard_at, pinged) = (Instant::now(), false);
                }
            }
        }
    }

    async fn ping(&mut self, connection: &mut Connection) -> Result<()> {
        self.asked.push_back(None);
        connection.send(&[Request::Ping]).await
    }

    /// Hands over what was received, when there is room for it. Who waits does not read, and an end would stand behind what
    /// was not read; but to a ping a server that has closed the connection answers with a reset.
    async fn pass_on(&mut self, connection: &mut Connection, pushes: &mut Vec<Push>) -> Result<()> {
        let heard: Vec<Heard> = pushes.drain(..).filter_map(|push| self.matched(push)).collect();
        if heard.is_empty() {
            return Ok(());
        }
        let events = self.events.clone();
        loop {
            tokio::select! {
                biased;
                room = events.reserve() => {
                    if let Ok(room) = room {
                        room.send((self.number, Event::Heard(heard)));
                    }
                    self.closed.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                () = sleep(self.dialer.ping_after), if !self.closed.load(Ordering::Relaxed) => {
                    let usable = match connection.is_closed() {
                        false if self.asked.is_empty() => self.ping(connection).await.is_ok(),
                        closed => !closed,
                    };
                    self.closed.store(!usable, Ordering::Relaxed);
                }
            }
        }
    }

    /// Whom it is for.
    fn matched(&mut self, push: Push) -> Option<Heard> {
        let reply = match push {
            Push::Reply(reply) => reply,
            push => return Some(Heard::Push(push)),
        };
        if let Reply::Unsubscribed(channel) = &reply {
            let was_asked = match self.asked.front() {
                Some(Some(Ask {
                    request: Request::Unsubscribe(Wire { kind: Kind::Sharded, name }), ..
                })) => name.as_bytes() == channel,
                _ => false,
            };
            if !was_asked {
                return Some(Heard::Dropped(channel.clone()));
            }
        }
        let ask = self.asked.pop_front()??;
        Some(Heard::Answer(ask, reply))
    }
}
