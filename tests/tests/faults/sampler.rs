//! Asks health all the time, and compares it with what the server itself knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use messaging_core::{HandlerState, Messaging};
use messaging_tests::RedisServer;
use redis::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::place::soon;
use crate::stream::plain_connection;

const PACE: Duration = Duration::from_millis(5);
/// How long the server may take to say what it knows, before that counts as no answer.
const ANSWER: Duration = Duration::from_millis(100);
/// What scheduling may add to a bound, besides what the sampler itself sees of it.
const SLACK: Duration = Duration::from_secs(1);

/// What is known of the connections that a fault has made useless.
#[derive(Default)]
pub struct Fault {
    /// The server is stopped in its tracks: no answer means that it serves nobody.
    paused: AtomicBool,
    /// Connections up to this number lead nowhere, though the server does not know it yet.
    dead: AtomicU64,
}

pub struct Sampler {
    fault: Arc<Fault>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Sample>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Whether health says that messages are heard.
    listening: bool,
    /// Whether the server has a working subscription of ours, asked after that; unknown if it did not answer.
    subscribed: Option<bool>,
}

impl Sampler {
    /// For a messaging with a handler on one channel and a subscription to one glob.
    pub fn start(redis: &RedisServer, messaging: &Messaging) -> Self {
        let client = Client::open(redis.url()).unwrap();
        let fault = Arc::<Fault>::default();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(sample(client, messaging.clone(), Arc::clone(&fault), stopped));
        Self { fault, stop, task }
    }

    /// The connections that there are by now are of no use any more.
    pub fn connections_are_dead(&self, redis: &RedisServer) {
        let newest = redis.cli(&["CLIENT", "ID"]).parse().unwrap();
        self.fault.dead.store(newest, Ordering::SeqCst);
    }

    pub fn paused(&self, paused: bool) {
        self.fault.paused.store(paused, Ordering::SeqCst);
    }

    /// Checks that health claimed a subscription that there was not for no longer than `bound`, and never again once the
    /// loss had been noticed. Returns for how long it did.
    pub async fn check(self, bound: Duration) -> Duration {
        self.stop.send_replace(true);
        let samples = soon(self.task).await.unwrap();
        let hiccup = samples.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default();
        let (mut wrong_since, mut longest, mut noticed) = (None, Duration::ZERO, false);
        for sample in &samples {
            noticed |= !sample.listening;
            let wrong = sample.listening && sample.subscribed == Some(false);
            assert!(
                !(wrong && noticed),
                "the loss was noticed, and health says that all is well: {sample:?}"
            );
            wrong_since = wrong_since.filter(|_| sample.listening && sample.subscribed != Some(true));
            if wrong {
                longest = longest.max(sample.at - *wrong_since.get_or_insert(sample.at));
            }
        }
        let limit = bound + SLACK + 2 * hiccup;
        assert!(
            longest <= limit,
            "health was wrong for {longest:?}; it may be for {bound:?} ({limit:?} here)"
        );
        assert!(samples.last().unwrap().listening, "it is well at the end");
        longest
    }
}

async fn sample(
    client: Client,
    messaging: Messaging,
    fault: Arc<Fault>,
    stopped: watch::Receiver<bool>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut connection = None;
    while !*stopped.borrow() {
        let at = Instant::now();
        let health = messaging.health();
        let handler_listens = health.handlers[0].state == HandlerState::Running;
        let session = &health.sessions[0];
        let session_listens = session.connected && session.unconfirmed.is_empty();
        let listening = health.is_ready() || handler_listens || session_listens;
        let answer = timeout(ANSWER, async {
            if connection.is_none() {
                connection = Some(plain_connection(&client).await?);
            }
            let mut list = redis::cmd("CLIENT");
            list.arg("LIST").arg("TYPE").arg("pubsub");
            list.query_async::<String>(connection.as_mut().expect("it was just made")).await
        });
        let subscribed = match answer.await {
            Ok(Ok(clients)) => {
                Some(clients.lines().any(|client| is_ours(client, fault.dead.load(Ordering::SeqCst))))
            }
            Ok(Err(_)) => {
                connection = None;
                Some(false)
            }
            Err(_) => fault.paused.load(Ordering::SeqCst).then_some(false),
        };
        samples.push(Sample { at, listening, subscribed });
        sleep(PACE).await;
    }
    samples
}

/// Whether a line of CLIENT LIST is that of the session for handlers and subscriptions: only that one has a glob. PUBSUB
/// NUMSUB and NUMPAT would not tell a connection that works from one that is half-open.
fn is_ours(client: &str, dead: u64) -> bool {
    let field = |name: &str| -> u64 {
        let value = client.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    field("sub") == 1 && field("psub") == 1 && field("id") > dead
}
