//! Our own connections to Redis: dialling (TCP, TLS or a unix socket), the handshake, and reading and writing as a
//! subscriber. What a publisher does with its connection is in `publisher`.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use redis::io::tcp::socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::link::{keepalive, refusal};
use super::push::{Decoder, ProtocolError};
use crate::backend::{Push, Reply, Request, closed};
use crate::channel::Wire;
use crate::config::{Address, Config, Server};
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
}

/// Opens connections.
pub(super) struct Dialer {
    server: Server,
    endpoint: String,
    connect_timeout: Duration,
    command_timeout: Duration,
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
}

impl Dialer {
    pub(super) fn new(server: &Server, config: &Config) -> Result<Self> {
        Ok(Self {
            #[cfg(feature = "tls")]
            tls: match &server.address {
                Address::Tcp { host, tls: true, .. } => Some(tls::Connector::new(host, &config.tls)?),
                _ => None,
            },
            server: server.clone(),
            endpoint: config.endpoint.to_string(),
            connect_timeout: config.connect_timeout,
            command_timeout: config.command_timeout,
            max_payload: config.max_payload,
            reconnect: config.reconnect,
        })
    }

    pub(super) async fn subscriber(&self) -> Result<Connection> {
        Ok(Connection {
            dialled: self.connect(Role::Subscriber).await?,
            out: Vec::new(),
            write_timeout: self.command_timeout,
            endpoint: self.endpoint.clone(),
        })
    }

    pub(super) async fn connect(&self, role: Role) -> Result<Dialled> {
        let connecting = async {
            let mut dialled = Dialled {
                stream: self.dial().await?,
                // What it begins with is what it grows to again after each chunk that is taken out of it.
                buffer: BytesMut::with_capacity(CHUNK),
                decoder: Decoder::new(self.max_payload),
            };
            self.greet(&mut dialled, role).await?;
            Ok(dialled)
        };
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

    async fn dial(&self) -> Result<Box<dyn Stream>> {
        let failed = |source: std::io::Error| {
            Error::new(
                ErrorKind::Connection,
                format!("cannot connect to redis at {}: {source}; is it running there?", self.endpoint),
            )
            .with_source(source)
        };
        match &self.server.address {
            Address::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                SockRef::from(&stream).set_tcp_keepalive(&keepalive()).map_err(failed)?;
                #[cfg(feature = "tls")]
                if let Some(tls) = &self.tls {
                    return tls.connect(stream).await.map(|stream| Box::new(stream) as _).map_err(failed);
                }
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Address::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await.map_err(failed)?)),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(Error::new(ErrorKind::Configuration, "this system has no unix sockets")),
        }
    }

    /// Says who we are. A name is a courtesy that an ACL may forbid; any other refusal ends the attempt.
    async fn greet(&self, dialled: &mut Dialled, role: Role) -> Result<()> {
        let mut out = Vec::new();
        let name = match role {
            Role::Subscriber => "messaging-subscriber",
            Role::Publisher => "messaging-publisher",
        };
        let mut needed = 0;
        if let Some(password) = &self.server.password {
            let user = self.server.username.as_deref().unwrap_or("default");
            command(&mut out, &[b"AUTH", user.as_bytes(), password.0.as_bytes()]);
            needed += 1;
        }
        // Messages know no database, but what is removed from the cache before them does.
        if role == Role::Publisher && self.server.database != 0 {
            command(&mut out, &[b"SELECT", self.server.database.to_string().as_bytes()]);
            needed += 1;
        }
        command(&mut out, &[b"CLIENT", b"SETNAME", name.as_bytes()]);
        let broken = |source| broken(&self.endpoint, source);
        dialled.stream.write_all(&out).await.map_err(broken)?;
        dialled.stream.flush().await.map_err(broken)?;
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

impl Dialled {
    async fn receive(&mut self, endpoint: &str, pushes: &mut Vec<Push>) -> Result<()> {
        self.buffer.reserve(self.decoder.missing(&self.buffer).max(CHUNK / 4));
        let read = self.stream.read_buf(&mut self.buffer).await.map_err(|source| broken(endpoint, source))?;
        if read == 0 {
            return Err(closed());
        }
        self.decoder.decode(&mut self.buffer, pushes).map_err(|error| garbled(endpoint, &error))
    }
}

/// A subscription connection; closed when dropped.
pub(crate) struct Connection {
    dialled: Dialled,
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
            },
            out: Vec::new(),
            write_timeout: Duration::from_secs(1),
            endpoint: "redis".to_owned(),
        }
    }

    pub(crate) async fn receive(&mut self, pushes: &mut Vec<Push>) -> Result<()> {
        self.dialled.receive(&self.endpoint, pushes).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.dialled.stream.is_closed()
    }

    pub(crate) async fn send(&mut self, requests: &[Request]) -> Result<()> {
        for request in requests {
            match request {
                Request::Subscribe(Wire { glob: false, name }) => {
                    command(&mut self.out, &[b"SUBSCRIBE", name.as_bytes()])
                }
                Request::Subscribe(Wire { glob: true, name }) => {
                    command(&mut self.out, &[b"PSUBSCRIBE", name.as_bytes()])
                }
                Request::Unsubscribe(Wire { glob: false, name }) => {
                    command(&mut self.out, &[b"UNSUBSCRIBE", name.as_bytes()]);
                }
                Request::Unsubscribe(Wire { glob: true, name }) => {
                    command(&mut self.out, &[b"PUNSUBSCRIBE", name.as_bytes()]);
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

#[cfg(feature = "tls")]
pub(super) mod tls {
    //! TLS by rustls, for both kinds of connection from the same files.

    use std::path::Path;
    use std::sync::Arc;

    use redis::{Client, ClientTlsConfig, ConnectionInfo, RedisError, TlsCertificates};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

    use crate::config::TlsFiles;
    use crate::error::{BoxError, Error, ErrorKind, Result};

    pub(in crate::backend::redis) struct Connector {
        connector: TlsConnector,
        server: ServerName<'static>,
    }

    impl Connector {
        pub(in crate::backend::redis) fn new(host: &str, files: &TlsFiles) -> Result<Self> {
            let server = ServerName::try_from(host.to_owned()).map_err(|source| {
                Error::new(
                    ErrorKind::Configuration,
                    format!("{host:?} is no name that a certificate can have"),
                )
                .with_source(source)
            })?;
            let mut roots = RootCertStore::empty();
            match &files.ca_certs {
                None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
                Some(path) => {
                    for certificate in certificates("REDIS_SSL_CA_CERTS", path)? {
                        roots
                            .add(certificate)
                            .map_err(|source| unusable("REDIS_SSL_CA_CERTS", path, source))?;
                    }
                }
            }
            let provider = Arc::new(crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|source| {
                    Error::new(ErrorKind::Configuration, format!("cannot set TLS up: {source}"))
                        .with_source(source)
                })?
                .with_root_certificates(roots);
            let config = match (&files.certfile, &files.keyfile) {
                (Some(certfile), Some(keyfile)) => {
                    let key = PrivateKeyDer::from_pem_file(keyfile)
                        .map_err(|source| unusable("REDIS_SSL_KEYFILE", keyfile, source))?;
                    builder
                        .with_client_auth_cert(certificates("REDIS_SSL_CERTFILE", certfile)?, key)
                        .map_err(|source| unusable("REDIS_SSL_CERTFILE", certfile, source))?
                }
                _ => builder.with_no_client_auth(),
            };
            Ok(Self { connector: TlsConnector::from(Arc::new(config)), server })
        }

        pub(super) async fn connect(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
            self.connector.connect(self.server.clone(), stream).await
        }
    }

    /// The `redis` crate's client with the same certificates. It takes the process's default provider; one that the
    /// program has installed already stays.
    pub(in crate::backend::redis) fn client(
        info: ConnectionInfo,
        files: &TlsFiles,
    ) -> redis::RedisResult<Client> {
        let _ = crypto::ring::default_provider().install_default();
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| {
                RedisError::from(std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
            })
        };
        let root_cert = files.ca_certs.as_deref().map(read).transpose()?;
        let client_tls = match (&files.certfile, &files.keyfile) {
            (Some(certfile), Some(keyfile)) => {
                Some(ClientTlsConfig { client_cert: read(certfile)?, client_key: read(keyfile)? })
            }
            _ => None,
        };
        Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })
    }

    fn certificates(variable: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|source| unusable(variable, path, source));
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err(Error::new(
                ErrorKind::Configuration,
                format!("{variable}: there is no certificate in {}", path.display()),
            )),
            other => other,
        }
    }

    fn unusable(variable: &str, path: &Path, source: impl Into<BoxError>) -> Error {
        let source = source.into();
        Error::new(ErrorKind::Configuration, format!("{variable}: cannot use {}: {source}", path.display()))
            .with_source(source)
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
        assert!(matches!(&pushes[..], [Push::Message { payload, .. }] if payload == "123456789"));
    }
}
