//! Redis goes, hangs or cuts connections while clients are connected: what is kept comes once and in order, and of what is
//! not, clients are told that it may be missing.

use std::time::{Duration, Instant};

use messaging_core::Messaging;
use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use serde_json::json;

use crate::gateway::client::Client;
use crate::gateway::peer::{Crowd, Kind, check_order};
use crate::gateway::serving::{self, Served, Steady, get, is_ready, limits, publish};
use crate::gateway::{KEPT, PLAIN};
use crate::outcome;

const CLIENTS: usize = 50;
/// How long Redis is away.
const OUTAGE: Duration = Duration::from_secs(2);
const BOTH: &[&str] = &[KEPT, PLAIN];

/// A gateway with clients, and somebody who publishes all the time.
struct Stage {
    publisher: Messaging,
    served: Served,
    crowd: Crowd,
    steady: Steady,
}

impl Stage {
    /// The gateway reaches Redis at this URL, the publisher directly.
    async fn new(redis: &RedisServer, url: &str) -> Self {
        let publisher = serving::messaging(&serving::place(&redis.url())).await;
        let served = Served::at(&serving::place(url), limits()).await;
        let crowd = Crowd::of(CLIENTS, served.address, |number| Kind::new(format!("{number}"), BOTH)).await;
        let steady = Steady::start(&publisher);
        steady.makes(20).await;
        Self { publisher, served, crowd, steady }
    }

    /// Ends it, and checks what everybody has heard, with so many interruptions. Returns how much was published.
    async fn check(self, interruptions: usize) -> u64 {
        self.steady.makes(20).await;
        let last = self.steady.stop().await;
        // What went out last on the channel that is not kept may have failed.
        publish(&self.publisher, PLAIN, last + 1..=last + 1).await;
        publish(&self.publisher, KEPT, last + 1..=last + 1).await;
        for channel in [KEPT, PLAIN] {
            self.crowd.have(channel, last + 1).await;
        }
        let kept = serving::kept(&self.publisher, KEPT).await;
        assert!((1..=last + 1).all(|number| kept.contains(&number)), "what was published is kept");
        for heard in self.crowd.heard(KEPT) {
            assert_eq!(heard.numbers, kept, "all that the stream has, once and in order");
            assert!(heard.gaps.is_empty() && heard.subscribed == 1, "{:?}", heard.gaps);
        }
        for heard in self.crowd.heard(PLAIN) {
            check_order(&heard.numbers);
            assert_eq!(heard.gaps, vec!["reconnected"; interruptions], "one for each interruption");
        }
        for peer in &self.crowd.peers {
            let notes = peer.notes();
            assert!(notes.closed.is_empty() && notes.errors.is_empty(), "{notes:?}");
        }
        assert_eq!(self.served.gateway.connections(), CLIENTS);
        last
    }
}

/// How often clients were told of a gap on the channel that is not kept.
fn gaps(stage: &Stage) -> usize {
    stage.crowd.heard(PLAIN).map(|heard| heard.gaps.len()).min().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_redis_costs_nothing_that_is_kept() {
    let redis = RedisServer::builder().arg("--appendonly", "yes").start();
    let stage = Stage::new(&redis, &redis.url()).await;
    // One that serves nothing else reads streams only.
    let other = Served::at(&serving::place(&redis.url()), limits()).await;
    let reader = Crowd::of(1, other.address, |_| Kind::new("reader", &[KEPT])).await;
    let ready = async || (is_ready(stage.served.address).await, is_ready(other.address).await);
    let mut back = Vec::new();
    for (round, outage) in [Duration::ZERO, OUTAGE].into_iter().enumerate() {
        redis.stop();
        eventually("operators see that redis is away", async || ready().await == (false, false)).await;
        // How long it is away is what is tried out.
        tokio::time::sleep(outage).await;
        redis.start_again();
        let since = Instant::now();
        eventually("clients are told", async || gaps(&stage) > round).await;
        eventually("they are ready again", async || ready().await == (true, true)).await;
        back.push(since.elapsed());
        stage.steady.makes(10).await;
    }
    let publisher = stage.publisher.clone();
    let last = stage.check(2).await;
    reader.have(KEPT, last + 1).await;
    let heard = reader.peers[0].heard(KEPT);
    assert!(serving::kept(&publisher, KEPT).await.ends_with(&heard.numbers) && heard.gaps.is_empty());
    outcome("two restarts", format!("{last} events each, back after {back:.2?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_redis_kills_cost_nothing_that_is_kept() {
    const ROUNDS: usize = 3;
    let redis = RedisServer::start();
    let stage = Stage::new(&redis, &redis.url()).await;
    let readers = || {
        let clients = redis.cli(&["CLIENT", "LIST"]);
        let readers = clients.lines().filter(|client| client.contains("cmd=xread"));
        let ids = readers.filter_map(|client| client.split(' ').next()?.strip_prefix("id="));
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    for round in 0..ROUNDS {
        let reader = eventually("a connection waits for what is appended", async || readers().pop()).await;
        redis.cli(&["CLIENT", "KILL", "ID", &reader]);
        stage.steady.makes(5).await;
        assert_eq!(gaps(&stage), round, "nothing that is not kept went through it");
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        eventually("clients are told", async || gaps(&stage) > round).await;
        stage.steady.makes(5).await;
    }
    let last = stage.check(ROUNDS).await;
    outcome("six killed connections", format!("{last} events each"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_link_to_redis_costs_nothing_that_is_kept() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let stage = Stage::new(&redis, &format!("redis://127.0.0.1:{}", proxy.port())).await;
    proxy.strand(Direction::Both);
    let since = Instant::now();
    eventually("clients are told", async || gaps(&stage) == 1).await;
    let told = since.elapsed();
    stage.steady.makes(5).await;
    let last = stage.check(1).await;
    outcome("half-open link", format!("{last} events each, noticed after {told:.1?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_subscribes_while_redis_is_away_may_try_again() {
    let redis = RedisServer::start();
    let served = Served::at(&serving::place(&redis.url()), limits()).await;
    assert!(is_ready(served.address).await);
    redis.stop();
    let mut ada = Client::connect(served.address).await;
    ada.hello("ada").await;
    for channel in BOTH {
        let answer = ada.ask(json!({ "type": "subscribe", "channel": channel })).await;
        assert_eq!((&answer["code"], &answer["temporary"]), (&json!(100), &json!(true)), "{answer}");
    }
    let crowd =
        async { Crowd::of(CLIENTS, served.address, |number| Kind::new(format!("{number}"), BOTH)).await };
    let fault = async {
        eventually("operators see that redis is away", async || !is_ready(served.address).await).await;
        let (_, health) = get(served.address, "/readyz").await;
        assert!(health.contains("\"ready\":false"), "{health}");
        assert_eq!(get(served.address, "/healthz").await.0, 200, "it is alive");
        redis.start_again();
    };
    let (crowd, ()) = tokio::join!(crowd, fault);
    eventually("it is ready again", async || is_ready(served.address).await).await;
    assert!(crowd.peers.iter().all(|peer| peer.notes().errors.iter().all(|code| *code == 100)));
    for channel in BOTH {
        ada.subscribe(json!({ "channel": channel })).await;
    }
    let publisher = serving::messaging(&serving::place(&redis.url())).await;
    for channel in BOTH {
        publish(&publisher, channel, 1..=3).await;
        crowd.have(channel, 3).await;
        assert!(crowd.heard(channel).all(|heard| heard.numbers == [1, 2, 3] && heard.gaps.is_empty()));
    }
    let tries = crowd.peers.iter().map(|peer| peer.notes().errors.len()).sum::<usize>();
    outcome(
        "subscribing without redis",
        format!("{tries} tries of {CLIENTS} clients failed, then all worked"),
    );
}
