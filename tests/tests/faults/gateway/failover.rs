//! Sentinel replaces the master under clients.

use std::time::Instant;

use messaging_tests::{Sentinel, eventually};

use crate::gateway::KEPT;
use crate::gateway::peer::{Crowd, Kind};
use crate::gateway::serving::{self, Served, Steady, kept, limits, publish};
use crate::outcome;

const CLIENTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on_when_sentinel_replaces_the_master() {
    let sentinel = Sentinel::start();
    let place = serving::place(&sentinel.url());
    let publisher = serving::messaging(&place).await;
    let served = Served::at(&place, limits()).await;
    let crowd = Crowd::of(CLIENTS, served.address, |number| Kind::new(format!("{number}"), &[KEPT])).await;
    let steady = Steady::start(&publisher);
    steady.makes(20).await;
    let old = sentinel.master();
    old.stop();
    let since = Instant::now();
    steady.makes(5).await;
    let back = since.elapsed();
    steady.makes(20).await;
    let last = steady.stop().await;
    publish(&publisher, KEPT, last + 1..=last + 1).await;
    crowd.have(KEPT, last + 1).await;
    let kept = kept(&publisher, KEPT).await;
    for heard in crowd.heard(KEPT) {
        check(&heard.numbers, &heard.gaps, &kept);
    }
    outcome("a failover under clients", format!("{last} events each, published again after {back:.1?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_master_takes_with_it_is_not_recovered() {
    const LOST: u64 = 30;
    let sentinel = Sentinel::start();
    let place = serving::place(&sentinel.url());
    let publisher = serving::messaging(&place).await;
    let served = Served::at(&place, limits()).await;
    let crowd = Crowd::of(CLIENTS, served.address, |number| Kind::new(format!("{number}"), &[KEPT])).await;
    publish(&publisher, KEPT, 1..=20).await;
    crowd.have(KEPT, 20).await;
    let old = sentinel.master();
    // The replicas do not follow any more, and nobody else notices: nobody new may do anything.
    old.cli(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    eventually("no replica follows", async || {
        old.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        old.cli(&["INFO", "replication"]).contains("connected_slaves:0")
    })
    .await;
    publish(&publisher, KEPT, 21..=20 + LOST).await;
    crowd.have(KEPT, 20 + LOST).await;
    // Others are away when it happens.
    let away =
        Crowd::of(CLIENTS, served.address, |number| Kind::new(format!("away {number}"), &[KEPT])).await;
    away.addresses.send_replace(Vec::new());
    eventually("they have gone", async || served.gateway.connections() == CLIENTS).await;
    old.stop();
    sentinel.wait_for_another_than(old);
    let published = async || publisher.publish(KEPT, &serving::Event { number: 1_000 }).await.is_ok();
    eventually("there is another master", published).await;
    crowd.have(KEPT, 1_000).await;
    let kept = kept(&publisher, KEPT).await;
    assert!(!kept.contains(&21), "the old master had it alone: {kept:?}");
    for heard in crowd.heard(KEPT) {
        assert_eq!(heard.gaps, ["reset"], "{heard:?}");
    }
    let second = Served::at(&place, limits()).await;
    away.addresses.send_replace(vec![second.address]);
    away.is_there().await;
    assert!(
        away.heard(KEPT).all(|heard| heard.recovered == [false]),
        "the gateway has never heard of what they had"
    );
    crowd.addresses.send_replace(Vec::new());
    eventually("they have gone", async || served.gateway.connections() == 0).await;
    publish(&publisher, KEPT, 1_001..=1_005).await;
    crowd.addresses.send_replace(vec![served.address]);
    crowd.have(KEPT, 1_005).await;
    assert!(crowd.heard(KEPT).all(|heard| heard.recovered == [true] && heard.gaps.len() == 1));
    outcome("a master with what nobody else has", format!("{LOST} events of it, then one gap"));
}

/// Everything that the new master has came, in order; if something else came, it is said that the stream is another one.
fn check(numbers: &[u64], gaps: &[String], kept: &[u64]) {
    let others = numbers.iter().filter(|number| !kept.contains(number)).count();
    let of_stream: Vec<_> = numbers.iter().filter(|number| kept.contains(number)).copied().collect();
    let whole = of_stream == kept && others == 0;
    assert!(whole || gaps == ["reset"], "{numbers:?} of {kept:?}, gaps: {gaps:?}");
}
