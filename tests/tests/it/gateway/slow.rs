//! Clients that do not keep up: each costs at most its queue, and nobody else anything.

use messaging_tests::eventually;
use serde_json::{Value, json};

use super::client::{Client, Served};
use super::on_memory_and_redis;
use crate::place::Place;

on_memory_and_redis! {
    who_does_not_keep_up_is_disconnected
    who_reads_too_slowly_is_told_so
    the_latest_or_the_newest_are_there_in_the_end
}

/// So large that what waits in the kernel is soon full.
fn large(number: u64) -> Value {
    json!({ "number": number, "text": "x".repeat(40_000) })
}

async fn who_does_not_keep_up_is_disconnected(place: Place) {
    let served = Served::limited(&place, |limits| limits.queue = 200_000.try_into().unwrap()).await;
    let (mut slow, mut quick) = (served.client("slow").await, served.client("quick").await);
    for client in [&mut slow, &mut quick] {
        client.subscribe(json!({ "channel": "slow.disconnect" })).await;
    }
    let mut number = 0;
    eventually("it has not kept up", async || {
        number += 1;
        served.publish("slow.disconnect", large(number)).await;
        assert_eq!(quick.next().await["data"]["number"], number, "the other one loses nothing");
        served.metric("messaging_gateway_slow_total{policy=\"disconnect\"}").await == 1
    })
    .await;
    served.until_metric("messaging_gateway_connections", |count| count == 1).await;
    served.until_metric("messaging_gateway_subscriptions", |count| count == 1).await;
    // Told why, if it still reads within a moment.
    let mut next = 0;
    let code = loop {
        match slow.next_or_closed().await {
            Ok(message) if message["type"] == "disconnect" => assert_eq!(message["code"], 3008),
            Ok(message) => {
                next += 1;
                assert_eq!(message["data"]["number"], next, "until then nothing is missing");
            }
            Err(code) => break code,
        }
    };
    assert!(matches!(code, None | Some(3008)), "{code:?}");
    served.publish("slow.disconnect", large(number + 1)).await;
    assert_eq!(quick.next().await["data"]["number"], number + 1);
}

async fn who_reads_too_slowly_is_told_so(place: Place) {
    let served = Served::limited(&place, |limits| limits.queue = 1_000.try_into().unwrap()).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "slow.disconnect" })).await;
    let publishing = {
        let messaging = served.messaging.clone();
        tokio::spawn(async move {
            let text = "x".repeat(900);
            loop {
                // Handed over together, so that no client is quick enough.
                let many = (0..50).map(|_| messaging.publish("slow.disconnect", &text).into_future());
                futures_util::future::join_all(many).await;
                // In memory nothing else lets others run.
                tokio::task::yield_now().await;
            }
        })
    };
    assert_eq!(ada.closed().await, Some(3008));
    publishing.abort();
}

async fn the_latest_or_the_newest_are_there_in_the_end(place: Place) {
    let served = Served::limited(&place, |limits| limits.queue = 200_000.try_into().unwrap()).await;
    for policy in ["latest", "oldest"] {
        let label = if policy == "oldest" { "drop_oldest" } else { policy };
        let metric = format!("messaging_gateway_slow_total{{policy=\"{label}\"}}");
        let channel = format!("slow.{policy}:a");
        let (mut slow, mut quick) = (served.client("slow").await, served.client("quick").await);
        for client in [&mut slow, &mut quick] {
            client.subscribe(json!({ "channel": channel })).await;
        }
        let mut last = 0;
        eventually("it has lost events more than once", async || {
            last += 1;
            served.publish(&channel, large(last)).await;
            assert_eq!(quick.next().await["data"]["number"], last);
            served.metric(&metric).await > 2
        })
        .await;
        let (mut gaps, mut next) = (0, 1);
        let mut after_gap = 0;
        loop {
            let message = slow.next().await;
            if message["type"] == "gap" {
                assert_eq!((&message["channel"], &message["reason"]), (&json!(channel), &json!("slow")));
                gaps += 1;
                after_gap = 0;
                let event = slow.next().await;
                let number = event["data"]["number"].as_u64().unwrap();
                assert!(number > next, "something is missing before {number}, after {next}");
                next = number;
            } else {
                assert_eq!(message["data"]["number"], next, "nothing is missing without a word");
            }
            after_gap += 1;
            if next == last {
                break;
            }
            next += 1;
        }
        assert!(gaps > 0, "{policy}");
        // What waits is never more than the queue, and what is being written.
        assert!(after_gap * 40_000 <= 200_000 + (64 << 10) + 40_000, "{after_gap}");
        // And it goes on.
        served.publish(&channel, large(last + 1)).await;
        assert_eq!(slow.next().await["data"]["number"], last + 1);
        drop::<(Client, Client)>((slow, quick));
    }
    served.until_nobody().await;
}
