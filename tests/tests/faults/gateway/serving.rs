//! Gateways to be tried out, here and in processes of their own; who publishes; and what operators see of a gateway.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use messaging_core::{Messaging, Retention, Running};
use messaging_gateway::{AuthError, Credentials, Gateway, Identity, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::child;
use crate::gateway::{KEPT, PLAIN};
use crate::place::{Place, soon};
use crate::programs::Program;

/// How much is kept on short channels.
pub const SHORT_LENGTH: u64 = 100;
pub const PRESENCE_TTL: Duration = Duration::from_secs(3);
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two publishes of somebody who publishes all the time.
const PACE: Duration = Duration::from_millis(20);
const QUEUE: &str = "FAULTS_QUEUE";

/// The same for every process at one Redis, which no other test has.
pub fn place(url: &str) -> Place {
    let mut place = Place::at(url);
    place.config.channel_prefix.clear();
    "msg".clone_into(&mut place.config.namespace);
    place.config.presence_ttl = PRESENCE_TTL;
    place.config.connect_timeout = Duration::from_secs(5);
    place.config.command_timeout = Duration::from_secs(2);
    place.config.reconnect.max = Duration::from_millis(200);
    place.config.drain_timeout = DRAIN_TIMEOUT;
    place
}

pub async fn messaging(place: &Place) -> Messaging {
    let short = Retention { max_len: NonZeroU64::new(SHORT_LENGTH).unwrap(), ..Retention::DEFAULT };
    let builder = place.builder().durable("faults.kept.{name}", Retention::DEFAULT);
    builder.durable("faults.short.{name}", short).build().await.unwrap()
}

/// All clients come from one address.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.connections_per_address = limits.connections;
    limits
}

/// A gateway that serves on a port of its own, for clients and operators.
pub struct Served {
    pub gateway: Gateway,
    pub address: SocketAddr,
    _running: Running,
}

impl Served {
    pub async fn at(place: &Place, limits: Limits) -> Self {
        let messaging = messaging(place).await;
        let gateway = Gateway::builder(&messaging).authenticate(who).limits(limits).build().unwrap();
        let running = messaging.start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = gateway.router().merge(gateway.internal_router("faults"));
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { gateway, address, _running: running }
    }
}

/// Everybody is who they say.
async fn who(credentials: Credentials) -> Result<Identity, AuthError> {
    credentials.token.map(Identity::user).ok_or_else(|| AuthError::invalid("there is no token"))
}

/// `main` of a gateway in a process of its own.
pub async fn service() {
    raise_files();
    let mut limits = limits();
    if let Some(queue) = std::env::var(QUEUE).ok().and_then(|queue| queue.parse().ok()) {
        limits.queue = queue;
    }
    limits.goaway = Duration::from_secs(1);
    let messaging = messaging(&place(&child::url())).await;
    let gateway = Gateway::builder(&messaging).authenticate(who).limits(limits).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\nserves {} {}", listener.local_addr().unwrap(), std::process::id());
    let app = gateway.router().merge(gateway.internal_router("faults"));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(gateway.drained());
    let serving = tokio::spawn(serving.into_future());
    messaging.run().await.unwrap();
    // Nobody has to send the rest of a request.
    if let Ok(served) = tokio::time::timeout(Duration::from_secs(1), serving).await {
        served.unwrap().unwrap();
    }
    println!("\nended");
}

/// A gateway in a process of its own.
pub struct Process {
    pub program: Program,
    pub address: SocketAddr,
    pub id: u32,
}

impl Process {
    pub fn start(test: &str, url: &str) -> Self {
        Self::of(child::start(test, url))
    }

    /// Which keeps so much for a client that does not read.
    pub fn with_queue(test: &str, url: &str, queue: NonZeroUsize) -> Self {
        Self::of(child::start_with(test, url, &[(QUEUE, &queue.to_string())]))
    }

    fn of(mut program: Program) -> Self {
        let line = program.wait_for_line(|line| line.starts_with("serves "));
        let (address, id) = line.trim_start_matches("serves ").split_once(' ').unwrap();
        Self { address: address.parse().unwrap(), id: id.parse().unwrap(), program }
    }

    /// Its memory in use, in KiB.
    pub fn memory(&self) -> u64 {
        child::memory_of(self.id)
    }
}

/// Lets this process have as many files open as it may. Returns how many that is.
pub fn raise_files() -> u64 {
    let process = std::process::id().to_string();
    let limits = || {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut both = line.split_whitespace().map(|limit| limit.parse().unwrap_or(u64::MAX));
        (both.next().unwrap(), both.next().unwrap())
    };
    let (now, most) = limits();
    if now < most {
        // Where there is no such program, fewer clients have to do.
        let _ =
            Command::new("prlimit").args(["--pid", &process, &format!("--nofile={most}:{most}")]).status();
    }
    limits().0
}

/// What is answered to a GET: the status, and the body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = soon(asked).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A number of `/metrics`, by its name and labels.
pub async fn metric(address: SocketAddr, name: &str) -> u64 {
    let (_, text) = get(address, "/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("there is no {name} in {text}")).parse().unwrap()
}

pub async fn is_ready(address: SocketAddr) -> bool {
    get(address, "/readyz").await.0 == 200
}

/// Somebody who publishes numbers all the time, on a channel that is kept, again under the same id where that fails, and on
/// one that is not.
pub struct Steady {
    published: Arc<AtomicU64>,
    stop: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Steady {
    pub fn start(messaging: &Messaging) -> Self {
        let (published, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (counted, stopped, messaging) = (Arc::clone(&published), Arc::clone(&stop), messaging.clone());
        let task = tokio::spawn(async move {
            for number in 1.. {
                if stopped.load(Ordering::SeqCst) > 0 {
                    return;
                }
                let event = Event { number };
                while messaging.publish(KEPT, &event).durable().id(format!("event-{number}")).await.is_err() {
                    tokio::time::sleep(PACE).await;
                }
                let _ = messaging.publish(PLAIN, &event).await;
                counted.store(number, Ordering::SeqCst);
                tokio::time::sleep(PACE).await;
            }
        });
        Self { published, stop, task }
    }

    /// Waits until so many more are out.
    pub async fn makes(&self, more: u64) {
        let wanted = self.published.load(Ordering::SeqCst) + more;
        let made = async || self.published.load(Ordering::SeqCst) >= wanted;
        messaging_tests::eventually("more is published", made).await;
    }

    /// Ends it; returns the last number.
    pub async fn stop(self) -> u64 {
        self.stop.store(1, Ordering::SeqCst);
        soon(self.task).await.unwrap();
        self.published.load(Ordering::SeqCst)
    }
}

/// What is published.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Event {
    pub number: u64,
}

pub async fn publish(messaging: &Messaging, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        messaging.publish(channel, &Event { number }).await.unwrap();
    }
}

/// The numbers that the stream of a channel has.
pub async fn kept(messaging: &Messaging, channel: &str) -> Vec<u64> {
    let history = async || messaging.history(channel).limit(100_000).await.ok();
    let past = messaging_tests::eventually("the history can be read", history).await;
    past.iter().map(|message| message.json::<Event>().unwrap().number).collect()
}
