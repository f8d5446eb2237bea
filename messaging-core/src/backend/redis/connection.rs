//! Our own connections to Redis: dialling (TCP, TLS or a unix socket), the handshake, and reading and writing as a
//! subscriber. What a publisher does with its connection is in `publisher`.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use redis::io::tcp::socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::answers::refusal;
use super::client::keepalive;
use super::push::{Decoder, ProtocolError, Role as ServerRole, role};
#[cfg(feature = "tls")]
use super::tls;
use super::topology::Locator;
use crate::backend::{Push, Reply, Request, closed};
use crate::channel::{Kind, Wire};
use crate::config::{Address, Config, Credentials, Server};
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// Whether the other side has closed it, though there may still be something to read.
    fn is_closed(&self) -> bool;

    /// Whether a write that fails may have sent something before: TLS sends record after record in one write.
    fn may_fail_after_writing(&self) -> bool {
        false
    }
}

macro_rules! socket {
    ($socket:ty) => {
        impl Stream for $socket {
            fn is_closed(&self) -> bool {
                let ready = self.ready(Interest::READABLE).now_or_never();
                ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
            }
        }
    };
}

socket!(TcpStream);
#[cfg(unix)]
socket!(tokio::net::UnixStream);

#[cfg(feature = "tls")]
impl Stream for tokio_rustls::client::TlsStream<TcpStream> {
    fn is_closed(&self) -> bool {
        self.get_ref().0.is_closed()
    }

    fn may_fail_after_writing(&self) -> bool {
        true
    }
}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {
    fn is_closed(&self) -> bool {
        false
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Subscriber,
    Publisher,
    /// Who reads cached values.
    Cache,
    /// Who reads streams.
    Reader,
}

/// Opens connections.
pub(super) struct Dialer {
    pub(super) locator: Arc<Locator>,
    credentials: Credentials,
    database: i64,
    endpoint: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    pub(super) ping_after: Duration,
    pub(super) ping_timeout: Duration,
    max_payload: usize,
    pub(super) reconnect: Backoff,
    #[cfg(feature = "tls")]
    tls: Option<tls::Connector>,
}

/// A connection that has been accepted, with what has been read of it.
pub(super) struct Dialled {
    pub(super) stream: Box<dyn Stream>,
    pub(super) buffer: BytesMut,
    pub(super) decoder: Decoder,
    pub(super) watch: Watch,
}

/// Tells when the other side is not the server any more that we want.
#[derive(Default)]
pub(super) struct Watch(pub(super) Option<AbortOnDropHandle<Error>>);

impl Watch {
    /// Waits until the connection is of no use any more, which it may never be. Cancellation: nothing is lost.
    pub(super) async fn left(&mut self) -> Error {
        match &mut self.0 {
            Some(watch) => watch.await.unwrap_or_else(|_| closed()),
            None => pending().await,
        }
    }
}

impl Dialer {
    pub(super) fn new(server: &Server, config: &Config, locator: Arc<Locator>) -> Result<Self> {
        #[cfg(feature = "tls")]
        let mut tls = None;
        #[cfg(feature = "tls")]
        for address in server.topology.addresses() {
            if let Address::Tcp { host, tls: true, .. } = address {
                tls::check_name(host)?;
                tls = tls.map_or_else(|| tls::Connector::new(&config.tls).map(Some), |tls| Ok(Some(tls)))?;
            }
        }
        Ok(Self {
            #[cfg(feature = "tls")]
            tls,
            locator,
            credentials: server.credentials.clone(),
            database: server.database,
            endpoint: config.endpoint.to_string(),
            connect_timeout: config.connect_timeout,
            command_timeout: config.command_timeout,
            ping_after: config.ping_after,
            ping_timeout: config.ping_timeout,
            max_payload: config.max_payload,
            reconnect: config.reconnect,
        })
    }

    pub(super) async fn subscriber(&self) -> Result<Connection> {
        Ok(self.subscribed(self.connect(Role::Subscriber).await?))
    }

    /// A subscription connection to this very node.
    pub(super) async fn subscriber_at(&self, address: &Address) -> Result<Connection> {
        let connecting = self.connect_to(address, Role::Subscriber);
        Ok(self.subscribed(self.in_time(connecting).await?))
    }

    fn subscribed(&self, mut dialled: Dialled) -> Connection {
        Connection {
            watch: std::mem::take(&mut dialled.watch),
            dialled,
            out: Vec::new(),
            write_timeout: self.command_timeout,
            endpoint: self.endpoint.clone(),
        }
    }

    pub(super) async fn connect(&self, role: Role) -> Result<Dialled> {
        let connecting = async {
            let address = self.locator.locate().await?;
            self.connect_to(&address, role).await
        };
        let connected = self.in_time(connecting).await;
        if connected.is_err() {
            self.locator.doubt();
        }
        connected
    }

    /// A connection to read streams on: to the `owner` of their keys, if there is one, or where the locator says.
    pub(super) async fn reader(
        &self,
        owner: impl Future<Output = Result<Option<Address>>>,
    ) -> Result<Dialled> {
        let connecting = async {
            let address = match owner.await? {
                Some(owner) => owner,
                None => self.locator.locate().await?,
            };
            self.connect_to(&address, Role::Reader).await
        };
        let connected = self.in_time(connecting).await;
        if connected.is_err() {
            self.locator.doubt();
        }
        connected
    }

    async fn in_time(&self, connecting: impl Future<Output = Result<Dialled>>) -> Result<Dialled> {
        timeout(self.connect_timeout, connecting).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "redis at {} did not accept a connection within {:?}",
                    self.endpoint, self.connect_timeout
                ),
            ))
        })
    }

    async fn connect_to(&self, address: &Address, role: Role) -> Result<Dialled> {
        let mut dialled = Dialled {
            stream: self.dial(address).await?,
            // What it begins with is what it grows to again after each chunk that is taken out of it.
            buffer: BytesMut::with_capacity(CHUNK),
            decoder: match role {
                Role::Subscriber => Decoder::new(self.max_payload),
                Role::Publisher | Role::Cache | Role::Reader => Decoder::of_commands(),
            },
            watch: Watch(self.locator.watch(address)),
        };
        self.greet(&mut dialled, role).await?;
        if self.locator.wants_master() {
            self.check_master(&mut dialled, address).await?;
        }
        Ok(dialled)
    }

    async fn dial(&self, address: &Address) -> Result<Box<dyn Stream>> {
        let failed = |source: std::io::Error| {
            let name = self.locator.name(address);
            let text = format!("cannot connect to redis at {name}: {source}; is it running there?");
            Error::new(ErrorKind::Connection, text).with_source(source)
        };
        match address {
            Address::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                SockRef::from(&stream).set_tcp_keepalive(&keepalive()).map_err(failed)?;
                #[cfg(feature = "tls")]
                if let Some(tls) = &self.tls {
                    let secured = tls.connect(host, stream).await;
                    return secured.map(|stream| Box::new(stream) as _).map_err(failed);
                }
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Address::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await.map_err(failed)?)),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(Error::new(ErrorKind::Configuration, "this system has no unix sockets")),
        }
    }

    /// What a sentinel called the master has to say so itself: right after a failover a sentinel may not know yet. An ACL
    /// may forbid the question; then the sentinel's word counts.
    async fn check_master(&self, dialled: &mut Dialled, address: &Address) -> Result<()> {
        let mut question = Vec::new();
        command(&mut question, &[b"ROLE"]);
        dialled.write(&self.endpoint, &question).await?;
        loop {
            match role(&mut dialled.buffer).map_err(|error| garbled(&self.endpoint, &error))? {
                Some(ServerRole::Master) => return Ok(()),
                Some(ServerRole::Refused(error)) if error.starts_with("NOPERM") => return Ok(()),
                Some(ServerRole::Refused(error)) => return Err(refusal(&self.endpoint, &error)),
                Some(ServerRole::Other) => return Err(no_master(&self.locator.name(address))),
                None => dialled.read(&self.endpoint).await?,
            }
        }
    }

    /// Says who we are. A name is a courtesy that an ACL may forbid; any other refusal ends the attempt.
    async fn greet(&self, dialled: &mut Dialled, role: Role) -> Result<()> {
        let mut out = Vec::new();
        let name = match role {
            Role::Subscriber => "messaging-subscriber",
            Role::Publisher => "messaging-publisher",
            Role::Cache => "messaging-cache",
            Role::Reader => "messaging-reader",
        };
        let mut needed = 0;
        if let Some(password) = &self.credentials.password {
            let user = self.credentials.username.as_deref().unwrap_or("default");
            command(&mut out, &[b"AUTH", user.as_bytes(), password.0.as_bytes()]);
            needed += 1;
        }
        // Messages know no database, but what is removed from the cache before them does.
        if role != Role::Subscriber && self.database != 0 {
            command(&mut out, &[b"SELECT", self.database.to_string().as_bytes()]);
            needed += 1;
        }
        command(&mut out, &[b"CLIENT", b"SETNAME", name.as_bytes()]);
        dialled.write(&self.endpoint, &out).await?;
        let mut replies = Vec::new();
        let mut received = Ok(());
        while replies.len() <= needed && received.is_ok() {
            received = dialled.receive(&self.endpoint, &mut replies).await;
        }
        // A server that takes no more clients says so and closes, whatever was asked.
        for (number, reply) in replies.iter().enumerate() {
            if let Push::Reply(Reply::Error(error)) = reply
                && (number < needed || concerns_the_connection(error))
            {
                return Err(refusal(&self.endpoint, error));
            }
        }
        received
    }
}

/// Whether this is about more than CLIENT SETNAME, to which it was the answer.
fn concerns_the_connection(error: &str) -> bool {
    ["NOAUTH", "DENIED", "LOADING"].iter().any(|code| error.starts_with(code))
        || error.contains("max number of clients")
}

pub(super) fn no_master(name: &str) -> Error {
    let text = format!("redis at {name} is not the master that the sentinels take it for");
    Error::new(ErrorKind::Connection, text).before_sending()
}

impl Dialled {
    async fn receive(&mut self, endpoint: &str, pushes: &mut Vec<Push>) -> Result<()> {
        self.read(endpoint).await?;
        self.decoder.decode(&mut self.buffer, pushes).map_err(|error| garbled(endpoint, &error))
    }

    async fn read(&mut self, endpoint: &str) -> Result<()> {
        self.buffer.reserve(self.decoder.missing(&self.buffer).max(CHUNK / 4));
        let read = self.stream.read_buf(&mut self.buffer).await.map_err(|source| broken(endpoint, source))?;
        if read == 0 { Err(closed()) } else { Ok(()) }
    }

    async fn write(&mut self, endpoint: &str, bytes: &[u8]) -> Result<()> {
        let broken = |source| broken(endpoint, source);
        self.stream.write_all(bytes).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)
    }
}

/// A subscription connection; closed when dropped.
pub(crate) struct Connection {
    dialled: Dialled,
    watch: Watch,
    out: Vec<u8>,
    write_timeout: Duration,
    endpoint: String,
}

impl Connection {
    /// A connection whose other end a test holds.
    #[cfg(test)]
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self {
            dialled: Dialled {
                stream: Box::new(stream),
                buffer: BytesMut::new(),
                decoder: Decoder::new(1_000),
                watch: Watch::default(),
            },
            watch: Watch::default(),
            out: Vec::new(),
            write_timeout: Duration::from_secs(1),
            endpoint: "redis".to_owned(),
        }
    }

    pub(crate) async fn receive(&mut self, pushes: &mut Vec<Push>) -> Result<()> {
        let Self { dialled, watch, endpoint, .. } = self;
        if watch.0.is_none() {
            return dialled.receive(endpoint, pushes).await;
        }
        tokio::select! {
            received = dialled.receive(endpoint, pushes) => received,
            error = watch.left() => Err(error),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.dialled.stream.is_closed()
    }

    pub(crate) async fn send(&mut self, requests: &[Request]) -> Result<()> {
        for request in requests {
            match request {
                Request::Subscribe(Wire { kind, name }) => {
                    let verb: &[u8] = match kind {
                        Kind::Channel => b"SUBSCRIBE",
                        Kind::Glob => b"PSUBSCRIBE",
                        Kind::Sharded => b"SSUBSCRIBE",
                    };
                    command(&mut self.out, &[verb, name.as_bytes()]);
                }
                Request::Unsubscribe(Wire { kind, name }) => {
                    let verb: &[u8] = match kind {
                        Kind::Channel => b"UNSUBSCRIBE",
                        Kind::Glob => b"PUNSUBSCRIBE",
                        Kind::Sharded => b"SUNSUBSCRIBE",
                    };
                    command(&mut self.out, &[verb, name.as_bytes()]);
                }
                Request::Ping => command(&mut self.out, &[b"PING"]),
            }
        }
        let written = timeout(self.write_timeout, async {
            self.dialled.stream.write_all(&self.out).await?;
            self.dialled.stream.flush().await
        })
        .await;
        self.out.clear();
        match written {
            Ok(written) => written.map_err(|source| broken(&self.endpoint, source)),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("redis at {} took nothing off the subscription connection", self.endpoint),
            )),
        }
    }
}

pub(super) fn broken(endpoint: &str, source: std::io::Error) -> Error {
    let text = format!("the connection to redis at {endpoint} broke: {source}");
    Error::new(ErrorKind::Connection, text).with_source(source)
}

pub(super) fn garbled(endpoint: &str, error: &ProtocolError) -> Error {
    Error::new(ErrorKind::Connection, format!("{endpoint} does not speak redis's protocol: {}", error.0))
}

/// Appends a command as an array of bulk strings.
pub(super) fn command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    let header = |out: &mut Vec<u8>, kind: u8, length: usize| {
        out.push(kind);
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    header(out, b'*', arguments.len());
    for argument in arguments {
        header(out, b'$', argument.len());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_of_a_message_is_a_sign_of_life() {
        let (stream, mut peer) = tokio::io::duplex(1_024);
        let mut connection = Connection::over(stream);
        let mut pushes = Vec::new();
        for part in ["*3\r\n$7\r\nmessage\r\n$1\r\na\r\n", "$9\r\n12345", "6789\r\n"] {
            assert!(pushes.is_empty());
            assert!(connection.receive(&mut pushes).now_or_never().is_none(), "nothing has arrived");
            peer.write_all(part.as_bytes()).await.unwrap();
            connection.receive(&mut pushes).now_or_never().expect("it has arrived").unwrap();
        }
        let [Push::Messages(chunk)] = &pushes[..] else { panic!("{pushes:?}") };
        assert_eq!(chunk.bytes[chunk.places[0].payload.clone()], b"123456789"[..]);
    }
}
