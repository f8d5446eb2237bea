//! One connection for commands, shared by all callers: connects on demand, where the locator says or to one node of a
//! cluster, and drops a connection that broke, fell silent, or leads to a server that is the master no more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, RedisResult, Value, cmd};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::answers::{copy, describe};
use super::topology::Locator;
use crate::config::Address;
use crate::error::{Error, ErrorKind, Result};

/// How often, at most, it is found out whether a connection still leads to the master.
const CHECK_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Node {
    locator: Arc<Locator>,
    /// A node of a cluster; otherwise the locator is asked at each attempt.
    address: Option<Address>,
    connect_timeout: Duration,
    command_timeout: Duration,
    current: Arc<Slot>,
    /// The last attempt to connect; there is one at a time.
    attempt: Mutex<Option<Attempt>>,
}

/// The connection in use.
type Slot = RwLock<Option<Numbered>>;

#[derive(Clone)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) connection: MultiplexedConnection,
    pub(super) address: Address,
    /// Whether it is being asked if it still answers.
    probed: Arc<AtomicBool>,
    /// When it was known to lead to the master.
    checked: Arc<Mutex<Instant>>,
}

impl Numbered {
    /// A number that no other connection of this process has, to whichever server.
    pub(super) fn identity(&self) -> u64 {
        self.number
    }
}

/// A task that connects. Its owner is the node, so that a caller who gives up does not end it for the others.
struct Attempt {
    outcome: watch::Receiver<Option<Outcome>>,
    task: AbortOnDropHandle<()>,
}

type Outcome = std::result::Result<(), Arc<Error>>;

impl Node {
    pub(super) fn new(
        locator: &Arc<Locator>,
        address: Option<Address>,
        connect_timeout: Duration,
        command_timeout: Duration,
    ) -> Self {
        Self {
            locator: Arc::clone(locator),
            address,
            connect_timeout,
            command_timeout,
            current: Arc::default(),
            attempt: Mutex::new(None),
        }
    }

    /// The connection, connecting first if there is none.
    ///
    /// # Errors
    /// "Not sent".
    ///
    /// Cancellation: the attempt to connect goes on.
    pub(super) async fn connection(&self) -> Result<Numbered> {
        match self.current() {
            Some(current) => {
                self.check(&current);
                Ok(current)
            }
            None => self.connect().await,
        }
    }

    /// A connection that failed with this error is used no more, if it is of no use.
    pub(super) fn failed(&self, number: u64, error: &RedisError) {
        // After a failover the address may lead to another server, which takes writes.
        let elsewhere = super::answers::first_refusal(error).0 == "READONLY";
        if elsewhere {
            self.locator.doubt();
        }
        if elsewhere || error.is_unrecoverable_error() || error.is_connection_dropped() {
            discard(&self.current, number);
        }
    }

    /// No answer came within this limit. A half-open connection never answers again; a slow server is worth a new
    /// connection too.
    pub(super) fn silent(&self, numbered: Numbered, limit: Duration) {
        if limit < self.command_timeout {
            self.probe(numbered);
        } else {
            discard(&self.current, numbered.number);
        }
    }

    /// A cache operation is given up long before a connection is; whether it still answers is found out apart, so that
    /// a process which only caches does not keep a half-open connection.
    fn probe(&self, suspect: Numbered) {
        if suspect.probed.swap(true, Ordering::Relaxed) {
            return;
        }
        let (slot, limit) = (Arc::clone(&self.current), self.command_timeout);
        tokio::spawn(async move {
            let Numbered { number, mut connection, probed, .. } = suspect;
            let ping = cmd("PING");
            // An error is an answer; a lost connection announces itself.
            if timeout(limit, ping.query_async::<()>(&mut connection)).await.is_err() {
                discard(&slot, number);
            }
            probed.store(false, Ordering::Relaxed);
        });
    }

    /// Finds out apart, now and then, whether this is still the master: one that sentinels cannot reach answers on.
    fn check(&self, current: &Numbered) {
        if !self.locator.wants_master() {
            return;
        }
        {
            let mut checked = current.checked.lock().unwrap_or_else(PoisonError::into_inner);
            if checked.elapsed() < CHECK_EVERY {
                return;
            }
            *checked = Instant::now();
        }
        let (slot, locator) = (Arc::clone(&self.current), Arc::clone(&self.locator));
        let (number, address) = (current.number, current.address.clone());
        tokio::spawn(async move {
            if locator.left_by_master(&address).await.is_some() {
                discard(&slot, number);
            }
        });
    }

    fn current(&self) -> Option<Numbered> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the attempt to connect that is under way, or for a new one.
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
        // Without an outcome the runtime that it ran on has ended.
        if let Ok(Some(Err(error))) = outcome.wait_for(Option::is_some).await.as_deref() {
            return Err(copy(error));
        }
        self.current().ok_or_else(|| {
            let text = "the connection was lost as soon as it was made";
            Error::new(ErrorKind::Connection, text).before_sending()
        })
    }

    fn attempt(&self) -> Attempt {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
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
        let (locator, address) = (Arc::clone(&self.locator), self.address.clone());
        let (slot, limit) = (Arc::clone(&self.current), self.connect_timeout);
        let (sender, outcome) = watch::channel(None);
        let task = tokio::spawn(async move {
            let connected = open(&locator, address, &settings, limit).await.map(|(connection, address)| {
                let (probed, checked) = (Arc::default(), Arc::new(Mutex::new(Instant::now())));
                let numbered = Numbered { number, connection, address, probed, checked };
                *slot.write().unwrap_or_else(PoisonError::into_inner) = Some(numbered);
            });
            sender.send_replace(Some(connected.map_err(Arc::new)));
        });
        Attempt { outcome, task: AbortOnDropHandle::new(task) }
    }
}

/// Opens a connection for commands: to this node of a cluster, or else where the locator says. It takes at most `limit`.
///
/// # Errors
/// "Not sent".
pub(super) async fn open(
    locator: &Locator,
    address: Option<Address>,
    settings: &AsyncConnectionConfig,
    limit: Duration,
) -> Result<(MultiplexedConnection, Address)> {
    let mut place = None;
    let connecting = async {
        let address = match address {
            Some(address) => address,
            None => locator.locate().await?,
        };
        let name = locator.name(place.insert(address.clone()));
        let connected = async {
            let client = locator.clients.open(&address)?;
            let mut connection = client.get_multiplexed_async_connection_with_config(settings).await?;
            let is_master = !locator.wants_master() || is_master(&mut connection).await?;
            RedisResult::Ok((connection, is_master))
        };
        match connected.await {
            Ok((connection, true)) => Ok((connection, address)),
            Ok((_, false)) => Err(super::connection::no_master(&name)),
            Err(error) => Err(describe(error, &name).before_sending()),
        }
    };
    let connected = timeout(limit, connecting).await.unwrap_or_else(|_| {
        let timed_out = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let name = place.map_or_else(|| locator.endpoint().to_owned(), |place| locator.name(&place));
        Err(describe(timed_out, &name).before_sending())
    });
    if connected.is_err() {
        locator.doubt();
    }
    connected
}

/// An ACL may forbid the question; then the sentinel's word counts.
async fn is_master(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    match cmd("ROLE").query_async::<Value>(connection).await {
        Ok(Value::Array(role)) => {
            let said = role.first().map(redis::from_redis_value_ref::<String>);
            Ok(matches!(said, Some(Ok(role)) if role == "master"))
        }
        Ok(_) => Ok(false),
        Err(error) if error.code() == Some("NOPERM") => Ok(true),
        Err(error) => Err(error),
    }
}

fn discard(slot: &Slot, number: u64) {
    let mut current = slot.write().unwrap_or_else(PoisonError::into_inner);
    if current.as_ref().is_some_and(|current| current.number == number) {
        *current = None;
    }
}
