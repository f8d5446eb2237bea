//! The shared connection for commands: connects on demand, bounds every wait, drops a connection that broke or fell
//! silent, and says of each failure whether anything was sent.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind as RedisErrorKind,
    IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError,
    ServerErrorKind,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::config::{Address, Config, Server};
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Link {
    client: Client,
    endpoint: String,
    connect_timeout: Duration,
    /// The connection in use, with its number.
    current: Arc<RwLock<Option<Numbered>>>,
    /// Held while connecting, so that there is one attempt at a time.
    connecting: Mutex<()>,
    next_number: AtomicU64,
}

#[derive(Clone)]
struct Numbered {
    number: u64,
    connection: MultiplexedConnection,
}

impl Link {
    pub(super) fn new(server: &Server, config: &Config) -> Result<Self> {
        let client = open_client(server, config).map_err(|source| {
            Error::new(ErrorKind::Configuration, format!("cannot use {}: {source}", config.endpoint))
                .with_source(source)
        })?;
        Ok(Self {
            client,
            endpoint: config.endpoint.to_string(),
            connect_timeout: config.connect_timeout,
            current: Arc::default(),
            connecting: Mutex::new(()),
            next_number: AtomicU64::new(1),
        })
    }

    /// Runs a command on the shared connection, connecting first if there is none. The whole takes at most `limit`,
    /// or `connect_timeout` while it has to connect, whichever is shorter.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] and [`ErrorKind::Timeout`] are "not sent" if there was no connection yet.
    ///
    /// Cancellation: what was written is carried out by Redis.
    pub(super) async fn run<T, F>(
        &self,
        limit: Duration,
        command: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T>
    where
        F: Future<Output = redis::RedisResult<T>>,
    {
        let deadline = Instant::now() + limit;
        let Numbered { number, connection } = match self.current() {
            Some(current) => current,
            // Boxed, because it is rare and large, and every command's future would have its size.
            None => match timeout_at(deadline, Box::pin(self.connect())).await {
                Ok(connected) => connected?,
                Err(_) => return Err(self.no_answer(limit).before_sending()),
            },
        };
        match timeout_at(deadline, command(connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                // After a failover the address may lead to another server, which takes writes.
                let elsewhere = first_refusal(&error).0 == "READONLY";
                if elsewhere || error.is_unrecoverable_error() || error.is_connection_dropped() {
                    self.discard(number);
                }
                Err(self.error(error))
            }
            Err(_) => {
                // A half-open connection never answers again; a slow server is worth a new connection too.
                self.discard(number);
                Err(self.no_answer(limit))
            }
        }
    }

    fn current(&self) -> Option<Numbered> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect(&self) -> Result<Numbered> {
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::clone(&self.current);
        // Told of a closed connection, the next command connects anew instead of failing on the old one.
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                discard(&slot, number);
            }
            Ok::<(), redis::aio::SendError>(())
        };
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None)
            .set_push_sender(on_push);
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&settings)
            .await
            .map_err(|error| self.error(error).before_sending())?;
        let numbered = Numbered { number, connection };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(numbered.clone());
        Ok(numbered)
    }

    fn discard(&self, number: u64) {
        discard(&self.current, number);
    }

    fn no_answer(&self, limit: Duration) -> Error {
        Error::new(ErrorKind::Timeout, format!("redis at {} did not answer within {limit:?}", self.endpoint))
    }

    fn error(&self, error: RedisError) -> Error {
        describe(error, &self.endpoint)
    }
}

fn discard(slot: &RwLock<Option<Numbered>>, number: u64) {
    let mut current = slot.write().unwrap_or_else(PoisonError::into_inner);
    if current.as_ref().is_some_and(|current| current.number == number) {
        *current = None;
    }
}

fn open_client(server: &Server, config: &Config) -> redis::RedisResult<Client> {
    let address = match &server.address {
        Address::Tcp { host, port, tls: false } => ConnectionAddr::Tcp(host.clone(), *port),
        Address::Tcp { host, port, tls: true } => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
        Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    // RESP3 is what tells of a connection that was closed while nobody was using it.
    let mut settings =
        RedisConnectionInfo::default().set_db(server.database).set_protocol(ProtocolVersion::RESP3);
    if let Some(username) = &server.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &server.password {
        settings = settings.set_password(&password.0);
    }
    let info: ConnectionInfo = address
        .into_connection_info()?
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    #[cfg(feature = "tls")]
    if let Address::Tcp { tls: true, .. } = &server.address {
        return super::connection::tls::client(info, &config.tls);
    }
    #[cfg(not(feature = "tls"))]
    let _ = config;
    Client::open(info)
}

/// Our error for one of the `redis` crate, in words that say what to do.
pub(super) fn describe(error: RedisError, endpoint: &str) -> Error {
    let (kind, text) = match error.kind() {
        RedisErrorKind::Server(ServerErrorKind::BusyLoading) => {
            let text = format!("redis at {endpoint} is still loading its data");
            return Error::new(ErrorKind::Connection, text).before_sending().with_source(error);
        }
        RedisErrorKind::AuthenticationFailed => (
            ErrorKind::Refused,
            format!("redis at {endpoint} refused the credentials; check the user and the password: {error}"),
        ),
        RedisErrorKind::Server(_) | RedisErrorKind::Extension => {
            let (code, detail) = first_refusal(&error);
            (ErrorKind::Refused, refused(endpoint, &code, &detail))
        }
        RedisErrorKind::Io if error.is_timeout() => {
            (ErrorKind::Timeout, format!("redis at {endpoint} did not answer in time"))
        }
        RedisErrorKind::Io if error.is_connection_refusal() => (
            ErrorKind::Connection,
            format!("cannot connect to redis at {endpoint}: {error}; is it running there?"),
        ),
        RedisErrorKind::Io => {
            (ErrorKind::Connection, format!("the connection to redis at {endpoint} failed: {error}"))
        }
        RedisErrorKind::InvalidClientConfig => {
            (ErrorKind::Configuration, format!("cannot use redis at {endpoint}: {error}"))
        }
        _ => (ErrorKind::Refused, format!("redis at {endpoint} answered unexpectedly: {error}")),
    };
    Error::new(kind, text).with_source(error)
}

/// The code and the text of an error reply; of a transaction or a batch, those of its first command that was refused.
fn first_refusal(error: &RedisError) -> (String, String) {
    let of_a_command = error.clone().into_server_errors().and_then(|errors| {
        let (_, first) = errors.first()?;
        Some((first.code().to_owned(), first.details().unwrap_or_default().to_owned()))
    });
    of_a_command.unwrap_or_else(|| {
        (error.code().unwrap_or("ERR").to_owned(), error.detail().unwrap_or_default().to_owned())
    })
}

/// An error reply in words that say what to do.
pub(super) fn refused(endpoint: &str, code: &str, detail: &str) -> String {
    let advice = match code {
        "NOPERM" => "; its ACL does not allow this user to do that",
        "NOAUTH" => "; it wants a password: set REDIS_PASSWORD, or put it into the URL",
        "WRONGPASS" => "; check the user and the password",
        "READONLY" => "; it is a read-only replica: connect to the primary",
        "OOM" => "; its `maxmemory` is used up and its policy evicts nothing",
        "MISCONF" => "; it cannot write its data to disk and accepts no writes",
        _ => "",
    };
    format!("redis at {endpoint} refused: {code} {detail}{advice}")
}
