//! Gateways that are killed or replaced: their clients go on with another one.

use std::time::Instant;

use messaging_tests::{RedisServer, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::gateway::peer::{Crowd, Kind};
use crate::gateway::serving::{
    self, DRAIN_TIMEOUT, PRESENCE_TTL, Process, Steady, kept, metric, publish, raise_files,
};
use crate::gateway::{KEPT, PLAIN};
use crate::place::soon;
use crate::{child, outcome};

/// How much later than promised something may be, on a machine that is busy with other tests.
const MARGIN: std::time::Duration = std::time::Duration::from_secs(3);

#[test]
fn clients_of_a_killed_gateway_go_on_with_another() {
    const TEST: &str = "gateway::processes::clients_of_a_killed_gateway_go_on_with_another";
    const CLIENTS: usize = 200;
    const SEEN: usize = 50;
    if child::is(TEST) {
        return child::run(serving::service());
    }
    child::run_here(async {
        let redis = RedisServer::start();
        let publisher = serving::messaging(&serving::place(&redis.url())).await;
        let (first, second) = (Process::start(TEST, &redis.url()), Process::start(TEST, &redis.url()));
        let watcher = |_| Kind { presence: true, ..Kind::new("watcher", &[KEPT]) };
        let watcher = Crowd::of(1, second.address, watcher).await;
        let kind = |number: usize| Kind {
            presence: number < SEEN,
            ..Kind::new(format!("{number}"), if number < SEEN { &[KEPT] } else { &[KEPT, PLAIN] })
        };
        let crowd = Crowd::first_of(CLIENTS, vec![first.address, second.address], kind).await;
        let present = async || publisher.presence(KEPT).entries().await.unwrap().len();
        eventually("they are present", async || present().await == SEEN + 1).await;
        let before = publisher.presence(KEPT).entries().await.unwrap();
        let steady = Steady::start(&publisher);
        steady.makes(20).await;

        first.program.signal("KILL");
        let killed = Instant::now();
        let all_back = async || {
            let heard = crowd.heard(KEPT).all(|heard| heard.subscribed == 2 && heard.is_subscribed);
            heard && metric(second.address, "messaging_gateway_connections").await == CLIENTS as u64 + 1
        };
        eventually("all are with the other", all_back).await;
        let back = killed.elapsed();
        let ghosts = async || {
            let now = publisher.presence(KEPT).entries().await.unwrap();
            now.keys().filter(|id| before.contains_key(*id)).count() - 1
        };
        eventually("no ghost is left", async || ghosts().await == 0).await;
        let gone = killed.elapsed();
        assert!(gone <= PRESENCE_TTL + MARGIN, "ghosts were there for {gone:?}");
        eventually("they are present once", async || present().await == SEEN + 1).await;
        let told = async || watcher.peers[0].notes().left.len() == SEEN;
        eventually("who watches is told of the ghosts", told).await;

        let last = steady.stop().await;
        crowd.have(KEPT, last).await;
        let kept = kept(&publisher, KEPT).await;
        for heard in crowd.heard(KEPT) {
            assert_eq!(heard.numbers, kept, "nothing is missed");
            assert_eq!((&heard.recovered[..], heard.gaps.len()), (&[true][..], 0));
        }
        for heard in crowd.heard(PLAIN).filter(|heard| heard.subscribed > 0) {
            assert!(heard.recovered.is_empty(), "there is nothing to resume from");
        }
        let subscriptions = (CLIENTS + 1 + CLIENTS - SEEN) as u64;
        assert_eq!(metric(second.address, "messaging_gateway_subscriptions").await, subscriptions);
        assert_eq!(metric(second.address, "messaging_gateway_channels").await, 2);
        let resumed = metric(second.address, "messaging_gateway_resumes_total{recovered=\"true\"}").await;
        assert_eq!(resumed, CLIENTS as u64);
        outcome(
            "kill -9",
            format!("{CLIENTS} clients back after {back:.1?}, {SEEN} ghosts gone after {gone:.1?}"),
        );
    });
}

#[test]
fn a_rolling_restart_costs_nothing_that_is_kept() {
    const TEST: &str = "gateway::processes::a_rolling_restart_costs_nothing_that_is_kept";
    if child::is(TEST) {
        return child::run(serving::service());
    }
    let clients = if raise_files() < 4_096 { 500 } else { 2_000 };
    child::run_here(async {
        let redis = RedisServer::start();
        let publisher = serving::messaging(&serving::place(&redis.url())).await;
        let (old, new) = (Process::start(TEST, &redis.url()), Process::start(TEST, &redis.url()));
        // Every other one waits until it is closed.
        let kind = |number: usize| Kind {
            leaves: number.is_multiple_of(2),
            ..Kind::new(format!("{number}"), &[KEPT])
        };
        let crowd = Crowd::first_of(clients, vec![old.address, new.address], kind).await;
        publish(&publisher, KEPT, 1..=3).await;
        crowd.have(KEPT, 3).await;
        // Somebody who never comes to the point must not keep the process from ending.
        let mut vague = TcpStream::connect(old.address).await.unwrap();
        vague.write_all(b"GET /subscribe HTTP/1.1\r\nHost: a").await.unwrap();
        old.program.terminate();
        let told = Instant::now();
        publish(&publisher, KEPT, 4..=6).await;
        let there = async || metric(new.address, "messaging_gateway_subscriptions").await == clients as u64;
        eventually("all are with the other", there).await;
        let moved = told.elapsed();
        publish(&publisher, KEPT, 7..=9).await;
        let ended = soon(tokio::task::spawn_blocking(|| old.program.end())).await.unwrap();
        let took = told.elapsed();
        assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
        assert!(took <= DRAIN_TIMEOUT + MARGIN, "{took:?}");
        drop(vague);
        crowd.have(KEPT, 9).await;
        for heard in crowd.heard(KEPT) {
            assert_eq!(heard.numbers, (1..=9).collect::<Vec<_>>());
            assert!(heard.gaps.is_empty() && heard.recovered == [true], "{heard:?}");
        }
        for (number, peer) in crowd.peers.iter().enumerate() {
            let notes = peer.notes();
            let code = if number.is_multiple_of(2) { None } else { Some(3001) };
            assert_eq!((notes.goaways, &notes.closed[..]), (1, &[code][..]));
        }
        outcome(
            "rolling restart",
            format!("{clients} clients moved within {moved:.1?}, the old one ended after {took:.1?}"),
        );
    });
}
