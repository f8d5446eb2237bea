//! Whoever speaks of the same channels meets in the same streams, whatever they call the parts.

use std::collections::BTreeSet;

use messaging_core::{Messaging, Retention, channel};
use messaging_tests::{RedisServer, eventually};

use super::{GROUP, built, count, place, queue};
use crate::outcome;
use crate::place::{Probe, soon};

/// As its publisher knows it.
#[channel("orders:{order_id}")]
struct OrderChannel {
    order_id: u64,
}

fn numbers(probe: &Probe) -> BTreeSet<u64> {
    probe.told().iter().map(|number| number.parse().unwrap()).collect()
}

async fn listens(redis: &RedisServer, channel: &str, group: &str) -> (Messaging, Probe) {
    let messaging = built(place(&redis.url()).builder()).await;
    let probe = Probe::default();
    let tells = probe.clone();
    let handler = queue(&messaging).group(group).id(group).on(channel, move |number: u64| {
        tells.tell(number);
        async {}
    });
    let _handler = handler.await.unwrap();
    (messaging, probe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_ids_are_one_stream_by_whatever_name() {
    const IDS: u64 = 1_000;
    let redis = RedisServer::start();
    let (template, by_template) = listens(&redis, "orders:{id}", GROUP).await;
    let (_glob, by_glob) = listens(&redis, "orders:*", "glob").await;
    let (_one, by_id) = listens(&redis, "orders:7", "one").await;
    let typed = built(place(&redis.url()).builder()).await;
    for order_id in 0..IDS {
        typed.publish(&OrderChannel { order_id }, &order_id).durable().await.unwrap();
    }
    let all: BTreeSet<u64> = (0..IDS).collect();
    eventually("all is handled", async || numbers(&by_template) == all && numbers(&by_glob) == all).await;
    assert_eq!(soon(by_id.wait_for(1)).await, ["7"]);
    let streams = ["msg:{orders:<>}:stream"];
    assert_eq!(redis.cli(&["KEYS", "*:stream"]).lines().collect::<Vec<_>>(), streams);
    assert_eq!(count(&redis, &["HLEN", "msg:streams"]), 1);
    for group in [GROUP, "glob", "one"] {
        let nothing = async || count(&redis, &["XPENDING", streams[0], group]) == 0;
        eventually("what is for others is passed over", nothing).await;
    }
    assert_eq!(template.dead_letters("one").list().await.unwrap().len(), 0);

    // Another publisher has it in its configuration, under a third name.
    let builder = place(&redis.url()).builder().durable("orders:{number}", Retention::DEFAULT);
    let configured = built(builder).await;
    for id in 0..IDS {
        configured.publish(&format!("orders:{id}"), &(IDS + id)).await.unwrap();
    }
    let all: BTreeSet<u64> = (0..IDS * 2).collect();
    eventually("all is handled", async || numbers(&by_template) == all && numbers(&by_glob) == all).await;
    assert_eq!(soon(by_id.wait_for(2)).await, ["7", "1007"]);
    assert_eq!(redis.cli(&["KEYS", "*:stream"]).lines().collect::<Vec<_>>(), streams);
    assert_eq!((by_template.told().len(), by_glob.told().len()), (2_000, 2_000), "each once");
    outcome("2,000 messages on 1,000 channels", "one stream");
}
