//! Streams that lose what they had: by FLUSHALL, DEL, or a retention that is faster than the gateway. Nobody is told that all
//! is well when it is not.

use messaging_core::Messaging;
use messaging_tests::RedisServer;
use messaging_tests::eventually;

use crate::gateway::peer::{Crowd, Kind, check_order};
use crate::gateway::serving::{self, Process, SHORT_LENGTH, Served, limits, publish};
use crate::gateway::{KEPT, SHORT};
use crate::place::soon;
use crate::{child, outcome};

const CLIENTS: usize = 10;

/// What makes a stream lose everything.
#[derive(Clone, Copy, Debug)]
enum Loss {
    FlushAll,
    Delete,
}

impl Loss {
    fn happens(self, redis: &RedisServer) {
        match self {
            Self::FlushAll => _ = redis.cli(&["FLUSHALL"]),
            Self::Delete => _ = redis.cli(&["DEL", &stream(redis)]),
        }
    }
}

/// The key of the one stream that there is.
fn stream(redis: &RedisServer) -> String {
    let keys = redis.cli(&["KEYS", "*"]);
    let is_stream = |key: &&str| redis.cli(&["TYPE", key]) == "stream";
    let streams: Vec<_> = keys.lines().filter(is_stream).collect();
    assert_eq!(streams.len(), 1, "{keys}");
    streams[0].to_owned()
}

async fn crowd(served: &Served) -> Crowd {
    Crowd::of(CLIENTS, served.address, |number| Kind::new(format!("{number}"), &[KEPT])).await
}

/// What was published after a loss comes, and either all of it, or it is said that something may be missing.
fn check(crowd: &Crowd, loss: Loss, first: u64, last: u64) {
    for heard in crowd.heard(KEPT) {
        check_order(&heard.numbers);
        let is_said = heard.gaps.iter().any(|reason| reason == "reset") || heard.recovered.contains(&false);
        let is_whole = (first..=last).all(|number| heard.numbers.contains(&number));
        assert!(is_said || is_whole, "a silent hole after {loss:?}: {heard:?}");
    }
}

async fn connected(loss: Loss) -> Vec<String> {
    let redis = RedisServer::start();
    let publisher: Messaging = serving::messaging(&serving::place(&redis.url())).await;
    let served = Served::at(&serving::place(&redis.url()), limits()).await;
    let crowd = crowd(&served).await;
    publish(&publisher, KEPT, 1..=20).await;
    crowd.have(KEPT, 20).await;
    loss.happens(&redis);
    publish(&publisher, KEPT, 21..=30).await;
    crowd.have(KEPT, 30).await;
    check(&crowd, loss, 21, 30);
    let before = crowd.heard(KEPT).map(|heard| heard.gaps).next().unwrap();
    // Who resumes then is served from what there is now.
    crowd.addresses.send_replace(Vec::new());
    eventually("they have gone", async || served.gateway.connections() == 0).await;
    publish(&publisher, KEPT, 31..=35).await;
    crowd.addresses.send_replace(vec![served.address]);
    crowd.have(KEPT, 35).await;
    for heard in crowd.heard(KEPT) {
        assert_eq!((&heard.recovered[..], &heard.gaps), (&[true][..], &before), "the next resume works");
        assert!(heard.numbers.ends_with(&(21..=35).collect::<Vec<_>>()), "{:?}", heard.numbers);
    }
    before
}

async fn away(loss: Loss) {
    let redis = RedisServer::start();
    let publisher: Messaging = serving::messaging(&serving::place(&redis.url())).await;
    let served = Served::at(&serving::place(&redis.url()), limits()).await;
    // Somebody has seen nothing yet, which is a place too.
    let early = Crowd::of(1, served.address, |_| Kind::new("early", &[KEPT])).await;
    early.addresses.send_replace(Vec::new());
    eventually("it has gone", async || served.gateway.connections() == 0).await;
    let crowd = crowd(&served).await;
    publish(&publisher, KEPT, 1..=20).await;
    crowd.have(KEPT, 20).await;
    crowd.addresses.send_replace(Vec::new());
    eventually("they have gone", async || served.gateway.connections() == 0).await;
    publish(&publisher, KEPT, 21..=30).await;
    loss.happens(&redis);
    publish(&publisher, KEPT, 31..=40).await;
    // They come back to one that has seen nothing of it.
    let second = Served::at(&serving::place(&redis.url()), limits()).await;
    early.addresses.send_replace(vec![second.address]);
    early.is_there().await;
    assert_eq!(early.peers[0].heard(KEPT).recovered, [false], "1 to 30 are lost");
    early.addresses.send_replace(Vec::new());
    crowd.addresses.send_replace(vec![second.address]);
    crowd.is_there().await;
    publish(&publisher, KEPT, 41..=41).await;
    crowd.have(KEPT, 41).await;
    for heard in crowd.heard(KEPT) {
        check_order(&heard.numbers);
        assert_eq!(heard.recovered, [false], "21 to 30 are lost: {heard:?}");
    }
    crowd.addresses.send_replace(Vec::new());
    eventually("they have gone", async || second.gateway.connections() == 0).await;
    publish(&publisher, KEPT, 42..=45).await;
    crowd.addresses.send_replace(vec![served.address]);
    crowd.have(KEPT, 45).await;
    for heard in crowd.heard(KEPT) {
        check_order(&heard.numbers);
        assert!(
            heard.recovered == [false, true] && heard.numbers.ends_with(&[41, 42, 43, 44, 45]),
            "{heard:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_lost_under_clients_is_announced() {
    let flushed = connected(Loss::FlushAll).await;
    let deleted = connected(Loss::Delete).await;
    assert_eq!(flushed, ["reset"]);
    outcome("lost under clients", format!("FLUSHALL: gaps {flushed:?}; DEL: gaps {deleted:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_lost_while_clients_are_away_is_not_recovered() {
    away(Loss::FlushAll).await;
    away(Loss::Delete).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_else_in_the_place_of_a_stream_is_seen_by_operators() {
    let redis = RedisServer::start();
    let publisher: Messaging = serving::messaging(&serving::place(&redis.url())).await;
    let served = Served::at(&serving::place(&redis.url()), limits()).await;
    let crowd = crowd(&served).await;
    publish(&publisher, KEPT, 1..=5).await;
    crowd.have(KEPT, 5).await;
    let key = stream(&redis);
    redis.cli(&["SET", &key, "something else"]);
    eventually("operators see it", async || !serving::is_ready(served.address).await).await;
    redis.cli(&["DEL", &key]);
    eventually("it is ready again", async || serving::is_ready(served.address).await).await;
    publish(&publisher, KEPT, 6..=8).await;
    crowd.have(KEPT, 8).await;
    for heard in crowd.heard(KEPT) {
        assert_eq!((&heard.numbers[..], heard.subscribed), (&[1, 2, 3, 4, 5, 6, 7, 8][..], 1));
        assert!(heard.gaps.is_empty(), "nothing is missing: {:?}", heard.gaps);
    }
}

#[test]
fn a_gateway_that_stood_still_for_longer_than_events_are_kept_says_so() {
    const TEST: &str = "gateway::lost::a_gateway_that_stood_still_for_longer_than_events_are_kept_says_so";
    if child::is(TEST) {
        return child::run(serving::service());
    }
    child::run_here(async {
        let redis = RedisServer::start();
        let publisher = serving::messaging(&serving::place(&redis.url())).await;
        let gateway = Process::start(TEST, &redis.url());
        let kind = |number: usize| Kind::new(format!("{number}"), &[SHORT]);
        let crowd = Crowd::of(CLIENTS, gateway.address, kind).await;
        publish(&publisher, SHORT, 1..=10).await;
        crowd.have(SHORT, 10).await;
        gateway.program.signal("STOP");
        // Redis removes whole nodes of a stream: up to a hundred too late.
        let last = 10 + 3 * SHORT_LENGTH;
        publish(&publisher, SHORT, 11..=last).await;
        let kept = serving::kept(&publisher, SHORT).await;
        assert!(kept[0] > 11, "some are removed: {kept:?}");
        gateway.program.signal("CONT");
        crowd.have(SHORT, last).await;
        for heard in crowd.heard(SHORT) {
            assert_eq!((&heard.gaps[..], heard.subscribed), (&["removed".to_owned()][..], 1));
            // What redis had sent already is there too.
            let (before, after): (Vec<_>, Vec<_>) =
                heard.numbers.iter().partition(|number| **number < kept[0]);
            assert_eq!(before, (1..=before.len() as u64).collect::<Vec<_>>());
            assert_eq!((before.len() < kept[0] as usize - 1, after), (true, kept.clone()));
        }
        crowd.addresses.send_replace(Vec::new());
        let gone = async || serving::metric(gateway.address, "messaging_gateway_connections").await == 0;
        eventually("they have gone", gone).await;
        publish(&publisher, SHORT, last + 1..=last + 5).await;
        crowd.addresses.send_replace(vec![gateway.address]);
        crowd.have(SHORT, last + 5).await;
        assert!(crowd.heard(SHORT).all(|heard| heard.recovered == [true] && heard.gaps.len() == 1));
        outcome("SIGSTOP", format!("{} of {} are removed, one gap", kept[0] - 11, last - 10));
        gateway.program.terminate();
        let ended = soon(tokio::task::spawn_blocking(|| gateway.program.end())).await.unwrap();
        assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
    });
}
