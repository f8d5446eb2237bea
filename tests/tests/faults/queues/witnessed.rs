//! Handlers in processes of their own that note what they handle in a second Redis, which nothing happens to.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use messaging_core::{Attempt, Messaging, OrderedBy, Subscriber};
use messaging_tests::{RedisServer, eventually};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Client};
use serde::{Deserialize, Serialize};

use super::{built, health, place, queue};
use crate::child;
use crate::programs::Program;
use crate::stream::plain_connection;

const WITNESS: &str = "FAULTS_WITNESS";
const HANDLED: &str = "handled";

/// A message: which of those with its key it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Numbered {
    pub key: String,
    pub number: u64,
}

/// The Redis that the handlers tell.
pub struct Witness(RedisServer);

impl Witness {
    pub fn start() -> Self {
        Self(RedisServer::start())
    }

    /// Starts a process with the handlers that are the child of this test.
    pub fn child(&self, test: &str, url: &str) -> Program {
        child::start_with(test, url, &[(WITNESS, &self.0.url())])
    }

    /// Where it is, as its children know.
    pub fn url() -> String {
        std::env::var(WITNESS).expect("the parent has set it")
    }

    /// The server itself.
    pub fn server(&self) -> &RedisServer {
        &self.0
    }

    /// How often something was handled.
    pub fn count(&self) -> u64 {
        super::count(&self.0, &["LLEN", HANDLED])
    }

    /// What was handled, in order, as often as it was.
    pub fn handled(&self) -> Vec<Numbered> {
        self.notes().into_iter().map(|note| note.message).collect()
    }

    /// The same, with everything that was noted.
    pub fn notes(&self) -> Vec<Note> {
        let notes = self.0.cli(&["LRANGE", HANDLED, "0", "-1"]);
        notes.lines().map(|note| serde_json::from_str(note).unwrap()).collect()
    }

    /// Waits until so much was handled; as long as it takes, while it goes on.
    pub async fn reaches(&self, count: u64) {
        let mut before = self.count();
        while before < count {
            before =
                eventually("more is handled", async || Some(self.count()).filter(|now| *now > before)).await;
        }
    }

    /// Lets one handler go on that waits for it.
    pub fn permit(&self) {
        self.0.cli(&["RPUSH", "permits", "1"]);
    }
}

/// What a handler notes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    pub message: Numbered,
    pub attempt: u32,
    pub process: u32,
    /// Milliseconds since 1970.
    pub at: u128,
}

/// A child's way to the witness.
#[derive(Clone)]
pub struct Pen(MultiplexedConnection);

impl Pen {
    /// For a child.
    pub async fn new() -> Self {
        Self::to(&Witness::url()).await
    }

    /// For the test's own process.
    pub async fn to(url: &str) -> Self {
        Self(plain_connection(&Client::open(url).unwrap()).await.unwrap())
    }

    pub async fn note(&self, message: &Numbered, attempt: u32) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let note =
            Note { message: message.clone(), attempt, process: std::process::id(), at: now.as_millis() };
        let note = serde_json::to_string(&note).unwrap();
        self.0.clone().rpush::<_, _, ()>(HANDLED, note).await.unwrap();
    }

    /// Waits for the parent's permission.
    pub async fn permission(&self) {
        let mut connection = self.0.clone();
        while connection.lpop::<_, Option<u64>>("permits", None).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What a child's handlers are like.
#[derive(Clone, Copy, Default)]
pub struct Plan {
    /// Messages of one key are handled in order, by one process at a time.
    pub in_order: bool,
    pub buffer: Option<usize>,
}

/// The life of a child: handles for the group and notes it, until it is killed or told to end.
pub async fn handle_for_ever(channel: &str, plan: Plan) {
    let messaging = built(place(&child::url()).builder()).await;
    let pen = Pen::new().await;
    // Redis may be away at this very moment.
    while plan.apply(queue(&messaging)).on(channel, noting(pen.clone())).await.is_err() {}
    println!("\nready");
    messaging.run().await.unwrap();
}

impl Plan {
    fn apply(self, mut handler: Subscriber) -> Subscriber {
        if self.in_order {
            handler = handler.workers(NonZeroUsize::new(4).unwrap()).ordered_by(OrderedBy::Key);
        }
        if let Some(buffer) = self.buffer {
            handler = handler.buffer(crate::gated::buffer(buffer));
        }
        handler
    }
}

/// A handler that notes each message and attempt.
pub fn noting(pen: Pen) -> impl Fn(Numbered, Attempt) -> BoxFuture<'static, ()> + Send + Sync + 'static {
    move |message, Attempt(attempt)| {
        let pen = pen.clone();
        Box::pin(async move { pen.note(&message, attempt).await })
    }
}

/// Waits until the group's handler of this process has nothing to do.
pub async fn idle(messaging: &Messaging) {
    let idle = async || {
        let health = health(messaging);
        health.waiting == 0 && health.in_flight == 0
    };
    eventually("it has nothing to do", idle).await;
}

/// The first handlings of each key.
pub fn first_handlings(handled: &[Numbered]) -> BTreeMap<&str, Vec<u64>> {
    let mut firsts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for message in handled {
        if seen.insert(message) {
            firsts.entry(&message.key).or_default().push(message.number);
        }
    }
    firsts
}
