//! What a review found: each of these shows one thing that does not hold.

use std::time::Duration;

use messaging_core::{Durability, Retention};
use messaging_gateway::{AccessRequest, AuthError, Credentials, Identity, Limits, subscription};
use messaging_tests::{RedisServer, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::client::{Client, Served, who};
use crate::place::Place;

const BRIEF: Duration = Duration::from_secs(10);

/// Of those who do not keep up, nobody is disconnected.
#[subscription(channels = "flood", slow = "drop_oldest", public)]
pub struct Flood;

/// Who may see it is asked with the only connection of a pool.
#[subscription(channels = "pooled", authorize = with_the_pool)]
pub struct Pooled;

static POOL: Mutex<()> = Mutex::const_new(());
static ASKING: Notify = Notify::const_new();
static ANSWER: Notify = Notify::const_new();

async fn with_the_pool(_: AccessRequest) -> bool {
    let _connection = POOL.lock().await;
    ASKING.notify_one();
    ANSWER.notified().await;
    true
}

/// A line of `/metrics`.
async fn metric(served: &Served, line: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = served.gateway.internal_router("test");
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut stream = get(address, "/metrics", "").await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    serving.abort();
    let found = text.lines().find_map(|found| found.strip_prefix(line).map(|value| value.trim().to_owned()));
    found.unwrap_or_else(|| panic!("there is no {line} in {text}"))
}

async fn get(address: std::net::SocketAddr, path: &str, header: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_who_is_closed_are_not_counted() {
    let served = Served::at(&Place::memory()).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "camera.events" })).await;
    assert_eq!(metric(&served, "messaging_gateway_subscriptions ").await, "1");
    ada.say_raw(Message::binary(vec![0])).await.unwrap();
    assert_eq!(ada.closed().await, Some(3501));
    drop(ada);
    eventually("it has gone", async || served.gateway.connections() == 0).await;
    assert_eq!(metric(&served, "messaging_gateway_subscriptions ").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumes_are_counted() {
    let served = Served::at(&Place::memory()).await;
    let mut ada = served.client("ada").await;
    let begun = ada.subscribe(json!({ "channel": "kept.a" })).await;
    let mut bob = served.client("bob").await;
    let resume = json!({ "epoch": begun["epoch"], "offset": begun["offset"] });
    let resumed = bob.subscribe(json!({ "channel": "kept.a", "resume": resume })).await;
    assert_eq!(resumed["recovered"], true);
    assert_eq!(metric(&served, "messaging_gateway_resumes_total{recovered=\"true\"} ").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_gets_a_close_frame_back() {
    let served = Served::at(&Place::memory()).await;
    let mut ada = served.client("ada").await;
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    ada.say_raw(Message::Close(Some(frame))).await.unwrap();
    assert_eq!(ada.closed().await, Some(1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_catches_up_is_still_heard() {
    let served = Served::at(&Place::memory()).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "flood" })).await;
    let messaging = served.messaging.clone();
    let flood = tokio::spawn(async move {
        let text = "x".repeat(16 << 10);
        loop {
            messaging.publish("flood", &text).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    // It reads all the time, but its link is slower than what comes; then it has had enough.
    let reading = async {
        let (mut read, mut has_asked) = (0, false);
        loop {
            let message = ada.next().await;
            if message["id"] == 99 {
                return message;
            }
            read += 1;
            let falls_behind = "messaging_gateway_slow_total{policy=\"drop_oldest\"} ";
            if !has_asked && read % 50 == 0 && metric(&served, falls_behind).await != "0" {
                has_asked = true;
                ada.say(json!({ "type": "unsubscribe", "id": 99, "channel": "flood" })).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answer = timeout(Duration::from_secs(25), reading).await;
    flood.abort();
    assert_eq!(answer.expect("the gateway listens while it writes")["type"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_holds_nothing_that_others_need() {
    let mut limits = Limits::default();
    limits.queue = (256 << 20).try_into().unwrap();
    let served = Served::with(&Place::memory(), |builder| builder.limits(limits)).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "camera.events" })).await;
    ada.say(json!({ "type": "subscribe", "id": 9, "channel": "pooled" })).await;
    ASKING.notified().await;
    // It reads no more: what is written to it blocks.
    let text = "x".repeat(512 << 10);
    for _ in 0..128 {
        served.publish("camera.events", &text).await;
    }
    eventually("all of it waits for the client", async || {
        metric(&served, "messaging_gateway_deliveries_total ").await == "128"
    })
    .await;
    ANSWER.notify_one();
    let connection = timeout(BRIEF, POOL.lock()).await;
    assert!(connection.is_ok(), "a client that does not read keeps a command from ending");
    drop(ada);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_for_an_opening_that_failed_hears_events() {
    let redis = RedisServer::start();
    let mut place = Place::at(&redis.url());
    place.config.command_timeout = Duration::from_secs(2);
    let served = Served::at(&place).await;
    served.publish("kept.z", 0).await;
    let (mut ada, mut bob) = (served.client("ada").await, served.client("bob").await);
    redis.pause();
    for client in [&mut ada, &mut bob] {
        client.say(json!({ "type": "subscribe", "id": 5, "channel": "kept.a" })).await;
    }
    // One opens the channel, and fails; then it is the other's turn.
    let (failed, mut other) = tokio::select! {
        answer = ada.next() => (answer, bob),
        answer = bob.next() => (answer, ada),
    };
    redis.resume();
    assert_eq!(failed["code"], 100, "{failed}");
    let answer = other.next_where(|message| message["id"] == 5).await;
    assert_eq!(answer["type"], "subscribed", "{answer}");
    served.publish("kept.a", 1).await;
    assert_eq!(other.data(1).await, [1]);
    // Somebody else comes; the first goes on hearing what is published.
    let mut eve = served.client("eve").await;
    eve.subscribe(json!({ "channel": "kept.a" })).await;
    served.publish("kept.a", 2).await;
    assert_eq!(eve.data(1).await, [2]);
    let heard = timeout(BRIEF, other.data(1)).await;
    assert_eq!(heard.expect("a subscriber is deaf, and does not know it"), [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_gets_another_stream_is_heard() {
    let place = Place::memory();
    let served = Served::at(&place).await;
    let mut ada = served.client("ada").await;
    ada.subscribe(json!({ "channel": "kept.a" })).await;
    served.publish("kept.a", 1).await;
    assert_eq!(ada.data(1).await, [1]);
    // A newer version of a service has partitions.
    let partitions = 2.try_into().unwrap();
    let durability = Durability::from(Retention::DEFAULT).partitions(partitions);
    let newer = place.builder().durable("kept.{name}", durability).build().await.unwrap();
    newer.publish("kept.a", &2).await.unwrap();
    // One looks every ten seconds.
    let told = async {
        loop {
            let message = ada.next_where(|message| message["type"] != "ping").await;
            if message["type"] == "gap" || message["data"] == 2 {
                return message;
            }
            newer.publish("kept.a", &2).await.unwrap();
        }
    };
    let told = timeout(Duration::from_secs(22), told).await;
    assert!(told.is_ok(), "nothing was told, and no gap");
}

static PROVING: Notify = Notify::const_new();
static PROVEN: Notify = Notify::const_new();

async fn slowly(credentials: Credentials) -> Result<Identity, AuthError> {
    PROVING.notify_one();
    PROVEN.notified().await;
    who(credentials).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_let_in_before_the_end_is_closed_too() {
    let served = Served::with(&Place::memory(), |builder| builder.authenticate(slowly)).await;
    let mut stream =
        get(served.address, "/events?channel=camera.events", "authorization: Bearer ada\r\n").await;
    PROVING.notified().await;
    served.gateway.drain(BRIEF).await;
    PROVEN.notify_one();
    let mut text = String::new();
    let read = timeout(BRIEF, stream.read_to_string(&mut text)).await;
    assert!(read.is_ok(), "it is open after draining");
    assert!(text.contains("3001") || text.contains("503"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_expired_may_only_refresh() {
    let served = Served::at(&Place::memory()).await;
    let mut ada = served.client("ada~1").await;
    let until = std::time::Instant::now() + Duration::from_millis(2);
    eventually("it has expired", async || std::time::Instant::now() > until).await;
    let answer = ada.ask(json!({ "type": "subscribe", "channel": "camera.events" })).await;
    assert_eq!(answer["code"], 109, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_has_a_rate_too() {
    let served = Served::at(&Place::memory()).await;
    // Nobody knows yet who this is.
    let mut nobody = Client::connect(served.address).await;
    nobody.say_text(&"{\"type\":\"x\"}\n".repeat(5_000)).await;
    let mut answers = 0;
    let code = loop {
        match nobody.next_or_closed().await {
            Ok(Value::Object(_)) => answers += 1,
            Ok(_) => {}
            Err(code) => break code,
        }
        assert!(answers <= 1_000, "64 KB of nonsense are answered a thousand times and more");
    };
    assert!(code.is_some());
}
