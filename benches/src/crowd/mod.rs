//! Many WebSocket clients in one thread: connects them, subscribes them, and counts what each is sent. It reads headers and
//! first bytes only, so that the server is what saturates. What is published, it does not know.

mod dialect;
mod frames;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::job::{Failure, Server};
use dialect::Heard;
use frames::Reader;

/// How many clients are on their way to a subscription at once.
const AT_ONCE: usize = 64;
/// How long nothing may come while something is awaited.
const PATIENCE: Duration = Duration::from_secs(10);
const BUFFER: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Crowd {
    server: Server,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    tally: Tally,
}

/// What all clients have come to.
#[derive(Debug, Default)]
struct Tally {
    subscribed: usize,
    events: u64,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    /// The answer to the request for a WebSocket, as far as it is there; `None` when it has been read.
    upgrade: Option<Vec<u8>>,
    frames: Reader,
    events: u64,
}

impl Crowd {
    /// Connects and subscribes so many clients.
    pub(crate) fn gather(server: Server, port: u16, size: u64) -> Result<Self, Failure> {
        let size = usize::try_from(size)?;
        let mut crowd = Self {
            server,
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            buffer: vec![0; BUFFER],
            clients: Vec::with_capacity(size),
            tally: Tally::default(),
        };
        while crowd.tally.subscribed < size {
            if crowd.clients.len() < size && crowd.clients.len() - crowd.tally.subscribed < AT_ONCE {
                crowd.connect(port)?;
            } else if !crowd.turn(PATIENCE)? {
                let Tally { subscribed, .. } = crowd.tally;
                return Err(
                    format!("{subscribed} of {size} clients are subscribed, and nothing more comes").into()
                );
            }
        }
        Ok(crowd)
    }

    fn connect(&mut self, port: u16) -> Result<(), Failure> {
        let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let stream =
            stream.map_err(|error| format!("client {} cannot connect: {error}", self.clients.len() + 1))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut client = Client {
            stream: TcpStream::from_std(stream),
            upgrade: Some(Vec::new()),
            frames: Reader::default(),
            events: 0,
        };
        let host = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let path = self.server.path();
        // The key is the one in the RFC: what matters is that there is one.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.stream.write_all(request.as_bytes())?;
        let token = Token(self.clients.len());
        self.poll.registry().register(&mut client.stream, token, Interest::READABLE)?;
        self.clients.push(client);
        Ok(())
    }

    /// Events that have come to anybody so far.
    pub(crate) fn events(&self) -> u64 {
        self.tally.events
    }

    /// Waits until so many events have come to all together; `false` if nothing comes any more before that.
    pub(crate) fn listen_for(&mut self, events: u64) -> Result<bool, Failure> {
        while self.tally.events < events {
            if !self.turn(PATIENCE)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Answers what is asked until the time is over.
    pub(crate) fn stay(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// How many events are missing, if each client should have got so many. More than that is a failure.
    pub(crate) fn lost(&self, each: u64) -> Result<u64, Failure> {
        let mut lost = 0;
        for client in &self.clients {
            let missing = each.checked_sub(client.events);
            lost += missing.ok_or_else(|| {
                format!("a client was sent {} events, and {each} were published", client.events)
            })?;
        }
        Ok(lost)
    }

    /// Reads what there is, waiting for it at most so long; whether there was something.
    fn turn(&mut self, patience: Duration) -> Result<bool, Failure> {
        let Self { server, poll, events, buffer, clients, tally } = self;
        match poll.poll(events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            polled => polled?,
        }
        for event in events.iter() {
            clients[event.token().0].read(*server, buffer, tally)?;
        }
        Ok(!events.is_empty())
    }
}

impl Client {
    fn read(&mut self, server: Server, buffer: &mut [u8], tally: &mut Tally) -> Result<(), Failure> {
        loop {
            let kept = self.frames.resume(buffer);
            let length = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = &buffer[..kept + length];
            match &mut self.upgrade {
                None => self.hear(server, bytes, tally)?,
                Some(answer) => {
                    answer.extend(bytes);
                    self.upgraded(server, tally)?;
                }
            }
            // It was all there is: what comes later is another event.
            if kept + length < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Begins to talk, if the WebSocket is there.
    fn upgraded(&mut self, server: Server, tally: &mut Tally) -> Result<(), Failure> {
        let Some(mut answer) = self.upgrade.take() else { return Ok(()) };
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            self.upgrade = Some(answer);
            return Ok(());
        };
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            return Err(format!("no WebSocket: {}", String::from_utf8_lossy(&answer)).into());
        }
        for text in server.opening() {
            self.stream.write_all(&frames::text(&text))?;
        }
        if server.subscribes_by_itself() {
            tally.subscribed += 1;
        }
        self.hear(server, &answer.split_off(end + 4), tally)
    }

    fn hear(&mut self, server: Server, bytes: &[u8], tally: &mut Tally) -> Result<(), Failure> {
        let Self { stream, frames, events, .. } = self;
        frames.take(bytes, |frame| {
            match server.hear(&frame) {
                Heard::Event => {
                    *events += 1;
                    tally.events += 1;
                }
                Heard::Subscribed => tally.subscribed += 1,
                Heard::Question(answer) => stream.write_all(&frames::text(answer))?,
                Heard::Remark => {}
                Heard::Refusal => {
                    return Err(format!("the server says {:?}", String::from_utf8_lossy(frame.start)).into());
                }
            }
            Ok(())
        })
    }
}
