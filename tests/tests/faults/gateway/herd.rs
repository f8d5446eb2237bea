//! Ten thousand clients that come back at once to a gateway that has just been started.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{SinkExt as _, StreamExt as _};
use messaging_tests::{RedisServer, eventually};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::gateway::KEPT;
use crate::gateway::client::Client;
use crate::gateway::peer::{Socket, connect};
use crate::gateway::serving::{self, Process, metric, publish, raise_files};
use crate::place::soon;
use crate::{child, outcome};

const HERD: u64 = 10_000;
const MISSED: usize = 20;
/// How many knock at once: less than what the kernel keeps waiting for the gateway.
const AT_ONCE: usize = 500;
/// How much more memory a second herd may take, in KiB, of which the first would have left behind some 40 MiB.
const KEPT_MEMORY: u64 = 4 << 10;

/// Comes back, and has everything that it missed.
async fn resume(address: SocketAddr, text: String, missed: usize, turn: Arc<Semaphore>) -> Socket {
    let _turn = turn.acquire().await.unwrap();
    let mut socket = connect(address).await.unwrap();
    socket.send(Message::text(text)).await.unwrap();
    loop {
        let message = socket.next().await.unwrap().unwrap();
        let text = message.to_text().unwrap();
        if text.contains("\"subscribed\"") {
            assert!(text.contains("\"recovered\":true"), "{text}");
            assert_eq!(text.matches("\"number\":").count(), missed, "{text}");
            return socket;
        }
    }
}

async fn herd(address: SocketAddr, count: u64, place: &Value, missed: usize) -> Vec<Socket> {
    let (mut coming, turns) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
    for number in 0..count {
        let hello = json!({ "type": "hello", "token": number.to_string() });
        let subscribe = json!({ "type": "subscribe", "id": 1, "channel": KEPT, "resume": place });
        coming.spawn(resume(address, format!("{hello}\n{subscribe}"), missed, Arc::clone(&turns)));
    }
    soon(coming.join_all()).await
}

#[test]
fn ten_thousand_clients_that_come_back_are_one_read() {
    const TEST: &str = "gateway::herd::ten_thousand_clients_that_come_back_are_one_read";
    if child::is(TEST) {
        return child::run(serving::service());
    }
    // Each has a file here and one in the gateway.
    let count = HERD.min(raise_files().saturating_sub(500));
    child::run_here(async {
        let redis = RedisServer::start();
        let publisher = serving::messaging(&serving::place(&redis.url())).await;
        let before = Process::start(TEST, &redis.url());
        publish(&publisher, KEPT, 1..=5).await;
        let mut ada = Client::connect(before.address).await;
        ada.hello("ada").await;
        let begun = ada.subscribe(json!({ "channel": KEPT })).await;
        let place = json!({ "epoch": begun["epoch"], "offset": begun["offset"] });
        publish(&publisher, KEPT, 6..=5 + MISSED as u64).await;
        ada.data(MISSED).await;

        let after = Process::start(TEST, &redis.url());
        let reads = || {
            let info = redis.cli(&["INFO", "commandstats"]);
            let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_xrevrange:calls="));
            line.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
        };
        let reads_before = reads();
        let empty = after.memory();
        let begun = Instant::now();
        let sockets = herd(after.address, count, &place, MISSED).await;
        let took = begun.elapsed();
        let full = after.memory();
        assert_eq!(metric(after.address, "messaging_gateway_history_reads_total").await, 1);
        let reads = reads() - reads_before;
        assert!(reads <= 12, "redis was asked {reads} times");
        let resumed = metric(after.address, "messaging_gateway_resumes_total{recovered=\"true\"}").await;
        assert_eq!(resumed, count);
        assert_eq!(metric(after.address, "messaging_gateway_connections").await, count);
        // One event reaches all of them.
        publish(&publisher, KEPT, 100..=100).await;
        let told = async || metric(after.address, "messaging_gateway_deliveries_total").await >= count;
        eventually("all are told", told).await;
        drop(sockets);
        let gone = async || metric(after.address, "messaging_gateway_connections").await == 0;
        eventually("all have gone", gone).await;
        assert_eq!(metric(after.address, "messaging_gateway_subscriptions").await, 0);
        // The allocator keeps what was freed for those who come next.
        let sockets = herd(after.address, count / 2, &place, MISSED + 1).await;
        let again = after.memory();
        assert!(
            again < full + KEPT_MEMORY,
            "{again} KiB with half as many as before, when it was {full} KiB"
        );
        drop(sockets);
        outcome(
            "a herd",
            format!(
                "{count} clients resumed in {took:.1?} with {reads} reads of redis; {} MiB, {} with them, {} with half of them later",
                empty >> 10,
                full >> 10,
                again >> 10
            ),
        );
    });
}
