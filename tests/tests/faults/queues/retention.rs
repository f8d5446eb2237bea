//! What is kept is bounded, on the server and in each process.

use std::num::NonZeroU64;

use futures_util::{StreamExt as _, stream};
use messaging_core::Retention;
use messaging_tests::{RedisServer, eventually};

use super::{CHANNEL, STREAM, built, count, of_the_group, pending, place, queue};
use crate::gated::{FOR_EVER, buffer};
use crate::{child, outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_to_its_length() {
    let redis = RedisServer::start();
    let kept = Retention { max_len: NonZeroU64::new(1_000).unwrap(), ..Retention::DEFAULT };
    let messaging = built(place(&redis.url()).builder().durable(CHANNEL, kept)).await;
    let publish = |number: u64| {
        let messaging = messaging.clone();
        async move { messaging.publish(CHANNEL, &number).await.unwrap() }
    };
    stream::iter(0..20_000).map(publish).buffer_unordered(100).for_each(async |_| {}).await;
    let length = count(&redis, &["XLEN", STREAM]);
    assert!((1_000..=1_100).contains(&length), "{length}");
    let last = messaging.history(CHANNEL).limit(20_000).await.unwrap();
    assert_eq!((last.len() as u64, last.last().unwrap().number()), (length, 20_000), "the newest");
    outcome("20,000 messages, 1,000 to be kept", format!("{length} are there"));
}

/// A process with a handler that is stuck.
async fn stuck() {
    let messaging = built(place(&child::url()).builder()).await;
    let handler = queue(&messaging).timeout(FOR_EVER).buffer(buffer(100));
    let handler = handler.on(CHANNEL, async |_payload: String| std::future::pending::<()>().await);
    let _handler = handler.await.unwrap();
    println!("\nready as {}", std::process::id());
    std::future::pending::<()>().await;
}

#[cfg(target_os = "linux")]
#[test]
fn a_stuck_handler_reads_no_further() {
    const TEST: &str = "queues::retention::a_stuck_handler_reads_no_further";
    if child::is(TEST) {
        return child::run(stuck());
    }
    child::run(async {
        let redis = RedisServer::start();
        let mut program = child::start(TEST, &redis.url());
        let ready = program.wait_for_line(|line| line.starts_with("ready as "));
        let process = ready.rsplit(' ').next().unwrap().parse().unwrap();
        let messaging = built(place(&redis.url()).builder()).await;
        let payload = "x".repeat(1_000);
        let publish = async |count: u64| {
            for _ in 0..count {
                messaging.publish(CHANNEL, &payload).durable().await.unwrap();
            }
        };
        publish(200).await;
        let taken = async || pending(&redis, STREAM) > 50;
        eventually("it has read what it has room for", taken).await;
        let before = child::memory_of(process);
        // 50 MB, without the time that publishing them takes.
        let append =
            "for i = 1, 50000 do redis.call('XADD', KEYS[1], '*', 'channel', ARGV[1], 'data', ARGV[2]) end";
        redis.cli(&["EVAL", append, "1", STREAM, CHANNEL, &format!("\"{payload}\"")]);
        publish(200).await;
        // It shows that it lives, and could have read for as long.
        let alive = || redis.cli(&["ZRANGE", &of_the_group(STREAM, "alive"), "0", "-1", "WITHSCORES"]);
        for _ in 0..6 {
            let last = alive();
            eventually("it shows that it lives", async || alive() != last).await;
        }
        let (after, taken) = (child::memory_of(process), pending(&redis, STREAM));
        assert!(taken <= 101, "{taken} are in its hands");
        assert!(after < before + 5_000, "from {before} to {after} KiB");
        outcome("50,000 wait for a stuck handler", format!("{taken} were read, {before} to {after} KiB"));
    });
}
