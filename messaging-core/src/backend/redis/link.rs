//! The shared connection for commands: connects on demand, bounds every wait, drops a connection that broke or fell
//! silent, and says of each failure whether anything was sent.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind as RedisErrorKind,
    IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError,
    RedisResult, ServerErrorKind, cmd,
};
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Address, Config, Server};
use crate::error::{Error, ErrorKind, Result};
use crate::retry::deadline;

pub(super) struct Link {
    client: Client,
    endpoint: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    current: Arc<Slot>,
    /// The last attempt to connect; there is one at a time.
    attempt: Mutex<Option<Attempt>>,
    next_number: AtomicU64,
}

/// The connection in use.
type Slot = RwLock<Option<Numbered>>;

#[derive(Clone)]
struct Numbered {
    number: u64,
    connection: MultiplexedConnection,
    /// Whether it is being asked if it still answers.
    probed: Arc<AtomicBool>,
}

/// A task that connects. Its owner is the link, so that a caller who gives up does not end it for the others.
struct Attempt {
    outcome: watch::Receiver<Option<RedisResult<()>>>,
    task: AbortOnDropHandle<()>,
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
            command_timeout: config.command_timeout,
            current: Arc::default(),
            attempt: Mutex::new(None),
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
        F: Future<Output = RedisResult<T>>,
    {
        let deadline = deadline(limit);
        let current = match self.current() {
            Some(current) => current,
            None => match timeout_at(deadline, self.connect()).await {
                Ok(connected) => connected?,
                Err(_) => return Err(self.no_answer(limit).before_sending()),
            },
        };
        match timeout_at(deadline, command(current.connection.clone())).await {
            Ok(answer) => answer.map_err(|error| self.failed(current.number, error)),
            Err(_) => {
                if limit < self.command_timeout {
                    self.probe(current);
                } else {
                    // A half-open connection never answers again; a slow server is worth a new connection too.
                    discard(&self.current, current.number);
                }
                Err(self.no_answer(limit))
            }
        }
    }

    /// Our error for an answer of this connection, which is discarded if it is of no use any more.
    fn failed(&self, number: u64, error: RedisError) -> Error {
        // After a failover the address may lead to another server, which takes writes.
        let elsewhere = first_refusal(&error).0 == "READONLY";
        if elsewhere || error.is_unrecoverable_error() || error.is_connection_dropped() {
            discard(&self.current, number);
        }
        self.error(error)
    }

    /// A cache operation is given up long before a connection is; whether it still answers is found out apart, so that
    /// a process which only caches does not keep a half-open connection.
    fn probe(&self, suspect: Numbered) {
        if suspect.probed.swap(true, Ordering::Relaxed) {
            return;
        }
        let (slot, limit) = (Arc::clone(&self.current), self.command_timeout);
        tokio::spawn(async move {
            let Numbered { number, mut connection, probed } = suspect;
            let ping = cmd("PING");
            // An error is an answer; a lost connection announces itself.
            if timeout(limit, ping.query_async::<()>(&mut connection)).await.is_err() {
                discard(&slot, number);
            }
            probed.store(false, Ordering::Relaxed);
        });
    }

    fn current(&self) -> Option<Numbered> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the attempt to connect that is under way, or for a new one.
    ///
    /// Cancellation: the attempt goes on.
    async fn connect(&self) -> Result<Numbered> {
        let mut outcome = {
            let mut attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(current) = self.current() {
                return Ok(current);
            }
            match &*attempt {
                Some(attempt) if !attempt.task.is_finished() => attempt.outcome.clone(),
                _ => attempt.insert(self.attempt()).outcome.clone(),
            }
        };
        let lost = || RedisError::from(io::Error::from(io::ErrorKind::ConnectionAborted));
        let connected = match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(lost())),
            // The runtime that it ran on has ended.
            Err(_) => Err(lost()),
        };
        connected
            .and_then(|()| self.current().ok_or_else(lost))
            .map_err(|error| self.error(error).before_sending())
    }

    fn attempt(&self) -> Attempt {
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
        let (client, slot, limit) = (self.client.clone(), Arc::clone(&self.current), self.connect_timeout);
        let (sender, outcome) = watch::channel(None);
        let task = tokio::spawn(async move {
            let connecting = client.get_multiplexed_async_connection_with_config(&settings);
            let connected = timeout(limit, connecting)
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
                .map(|connection| {
                    let numbered = Numbered { number, connection, probed: Arc::default() };
                    *slot.write().unwrap_or_else(PoisonError::into_inner) = Some(numbered);
                });
            sender.send_replace(Some(connected));
        });
        Attempt { outcome, task: AbortOnDropHandle::new(task) }
    }

    fn no_answer(&self, limit: Duration) -> Error {
        Error::new(ErrorKind::Timeout, format!("redis at {} did not answer within {limit:?}", self.endpoint))
    }

    fn error(&self, error: RedisError) -> Error {
        describe(error, &self.endpoint)
    }
}

fn discard(slot: &Slot, number: u64) {
    let mut current = slot.write().unwrap_or_else(PoisonError::into_inner);
    if current.as_ref().is_some_and(|current| current.number == number) {
        *current = None;
    }
}

fn open_client(server: &Server, config: &Config) -> RedisResult<Client> {
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
        .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive()));
    #[cfg(feature = "tls")]
    if let Address::Tcp { tls: true, .. } = &server.address {
        return super::connection::tls::client(info, &config.tls);
    }
    #[cfg(not(feature = "tls"))]
    let _ = config;
    Client::open(info)
}

/// For both kinds of connection: what lies between does not forget one that is idle.
pub(super) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60))
}

/// Our error for one of the `redis` crate, in words that say what to do. A command or a transaction that was refused as
/// a whole is "not sent".
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
            let aborted = error.kind() == RedisErrorKind::Server(ServerErrorKind::ExecAbort);
            let (code, detail) = first_refusal(&error);
            let refused = Error::new(ErrorKind::Refused, refused(endpoint, &code, &detail));
            // What a transaction that was carried out says of its commands has no detail of its own.
            let as_a_whole = aborted || error.detail().is_some();
            let refused = if as_a_whole { refused.before_sending() } else { refused };
            return refused.with_source(error);
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

/// Our error for an error reply on one of our own connections; the command was not carried out.
pub(super) fn refusal(endpoint: &str, reply: &str) -> Error {
    let (code, detail) = reply.split_once(' ').unwrap_or((reply, ""));
    let (kind, text) = match code {
        "LOADING" => (ErrorKind::Connection, format!("redis at {endpoint} is still loading its data")),
        _ => (ErrorKind::Refused, refused(endpoint, code, detail)),
    };
    Error::new(kind, text).before_sending()
}

/// An error reply in words that say what to do.
fn refused(endpoint: &str, code: &str, detail: &str) -> String {
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
