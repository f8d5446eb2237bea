//! Clients that fall silent, never come to the point, or come and go all the time: nothing of them is left over.

use std::time::{Duration, Instant};

use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::gateway::client::Client;
use crate::gateway::peer::{Crowd, Kind};
use crate::gateway::serving::{self, Served, limits, metric, publish};
use crate::gateway::{KEPT, PLAIN};
use crate::place::{PATIENCE, soon};
use crate::{child, outcome};

/// What scheduling and the sweeps of the gateway, one a second, may add to a bound.
const MARGIN: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_fall_silent_are_gone_in_time() {
    const CLIENTS: usize = 20;
    let redis = RedisServer::start();
    let mut limits = limits();
    (limits.ping, limits.pong) = (Duration::from_secs(2), Duration::from_secs(1));
    let served = Served::at(&serving::place(&redis.url()), limits.clone()).await;
    let proxy = Proxy::before(served.address.port()).await;
    let kind = |number: usize| Kind { presence: true, ..Kind::new(format!("{number}"), &[KEPT]) };
    let crowd = Crowd::of(CLIENTS, ([127, 0, 0, 1], proxy.port()).into(), kind).await;
    let watcher = |_| Kind { presence: true, ..Kind::new("watcher", &[KEPT]) };
    let watcher = Crowd::of(1, served.address, watcher).await;
    assert_eq!(served.gateway.connections(), CLIENTS + 1);
    proxy.refuse().await;
    proxy.strand(Direction::Both);
    let since = Instant::now();
    eventually("only the watcher is left", async || served.gateway.connections() == 1).await;
    let gone = since.elapsed();
    assert!(gone <= limits.ping + limits.pong + MARGIN, "{gone:?}");
    assert_eq!(metric(served.address, "messaging_gateway_subscriptions").await, 1);
    assert_eq!(metric(served.address, "messaging_gateway_connections").await, 1);
    let publisher = serving::messaging(&serving::place(&redis.url())).await;
    let present = async || publisher.presence(KEPT).entries().await.unwrap().len() == 1;
    eventually("they are not present", present).await;
    let told = async || watcher.peers[0].notes().left.len() == CLIENTS;
    eventually("who watches is told", told).await;
    assert!(watcher.peers[0].notes().closed.is_empty(), "who answers stays");
    assert_eq!(crowd.peers.len(), CLIENTS);
    outcome("half-open clients", format!("gone after {gone:.1?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_come_to_the_point_are_gone_in_time() {
    const EACH: usize = 20;
    let redis = RedisServer::start();
    let mut limits = limits();
    limits.unauthenticated = Duration::from_secs(1);
    let served = Served::at(&serving::place(&redis.url()), limits.clone()).await;
    let (mut silent, mut half) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        silent.push(TcpStream::connect(served.address).await.unwrap());
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET /subscribe HTTP/1.1\r\nHost: a\r\nUpgrade: webso").await.unwrap();
        half.push(stream);
    }
    let mut ada = Client::connect(served.address).await;
    ada.hello("ada").await;
    assert_eq!(served.gateway.connections(), 1, "what is no request costs the gateway nothing");
    let mut nobody = Vec::new();
    for _ in 0..EACH {
        nobody.push(Client::connect(served.address).await);
    }
    // Neither of these reads what it is answered.
    let mut deaf = Vec::new();
    for _ in 0..EACH {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
        let request = format!(
            "GET /subscribe HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{key}\r\n\r\n",
            served.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    eventually("all are there", async || served.gateway.connections() == 2 * EACH + 1).await;
    let since = Instant::now();
    for client in &mut nobody {
        assert_eq!(client.closed().await, Some(3502));
    }
    eventually("only she is left", async || served.gateway.connections() == 1).await;
    let gone = since.elapsed();
    assert!(gone <= limits.unauthenticated + MARGIN, "{gone:?}");
    for stream in &mut deaf {
        let mut said = Vec::new();
        soon(stream.read_to_end(&mut said)).await.unwrap();
        assert!(said.starts_with(b"HTTP/1.1 101"), "it is closed");
    }
    let stale = metric(served.address, "messaging_gateway_rejected_total{reason=\"stale\"}").await;
    assert_eq!(stale, 2 * EACH as u64);
    assert_eq!(metric(served.address, "messaging_gateway_connections").await, 1);
    outcome("no hello", format!("gone after {gone:.1?}"));
}

/// What there is of something that clients could leave behind.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Inventory {
    tasks: usize,
    sockets: usize,
    connections: usize,
    subscriptions: u64,
    channels: u64,
    present: usize,
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    // Memory and sockets can be counted only in a process that does nothing else.
    const TEST: &str = "gateway::clients::clients_that_come_and_go_leave_nothing_behind";
    if child::is(TEST) {
        return child::run(come_and_go());
    }
    let redis = RedisServer::start();
    let mut program = child::start(TEST, &redis.url());
    let line = program.wait_for_line(|line| line.starts_with("came of it: "));
    let ended = program.end();
    assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
    outcome("50 times 100 clients", line.trim_start_matches("came of it: "));
}

async fn come_and_go() {
    const ROUNDS: usize = 50;
    const CLIENTS: usize = 100;
    /// What the allocator may keep of what was freed: a kibibyte for each of those who came later would be more.
    const KEPT_MEMORY: u64 = 3 << 10;
    let served = Served::at(&serving::place(&child::url()), limits()).await;
    let publisher = serving::messaging(&serving::place(&child::url())).await;
    let seen = |name: String| Kind { presence: true, ..Kind::new(name, &[KEPT]) };
    // The channels are there all the time.
    let stay = Crowd::of(2, served.address, |number| {
        if number == 0 { seen("stays".to_owned()) } else { Kind::new("stays", &[KEPT, PLAIN]) }
    })
    .await;
    let take = async || Inventory {
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        sockets: child::sockets(),
        connections: served.gateway.connections(),
        subscriptions: metric(served.address, "messaging_gateway_subscriptions").await,
        channels: metric(served.address, "messaging_gateway_channels").await,
        present: publisher.presence(KEPT).entries().await.unwrap().len(),
    };
    let mut before = take().await;
    let mut memory = 0;
    for round in 0..ROUNDS as u64 {
        let kind = |number: usize| match number % 10 {
            0 => seen(format!("{number}")),
            _ => Kind::new(format!("{number}"), &[KEPT, PLAIN]),
        };
        let crowd = Crowd::of(CLIENTS, served.address, kind).await;
        publish(&publisher, KEPT, round + 1..=round + 1).await;
        publish(&publisher, PLAIN, round + 1..=round + 1).await;
        // Some go while events are on their way to them.
        if !round.is_multiple_of(2) {
            crowd.have(KEPT, round + 1).await;
        }
        drop(crowd);
        eventually("they have gone", async || served.gateway.connections() == 2).await;
        if round == ROUNDS as u64 / 5 {
            before = take().await;
            memory = child::memory();
        }
    }
    let mut after = take().await;
    eventually(&format!("nothing is left over: {after:?}, before: {before:?}"), async || {
        after = take().await;
        after.tasks <= before.tasks && after.sockets <= before.sockets && {
            let Inventory { tasks, sockets, .. } = before;
            Inventory { tasks, sockets, ..after } == Inventory { present: 1, ..before }
        }
    })
    .await;
    stay.have(KEPT, ROUNDS as u64).await;
    let grown = child::memory().saturating_sub(memory);
    assert!(grown < KEPT_MEMORY, "{grown} KiB more than after {} rounds", ROUNDS / 5);
    println!("\ncame of it: {grown} KiB more memory, {after:?}");
    served.gateway.drain(PATIENCE).await;
}
