//! Clients that do not read: they cost nobody anything.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use messaging_tests::{RedisServer, eventually};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Message;

use crate::flood::Publisher;
use crate::gateway::peer::{Socket, open};
use crate::gateway::serving::{self, Process, metric};
use crate::place::soon;
use crate::{child, outcome};

const READERS: usize = 200;
const SLOW: usize = 20;
/// How much waits for a client at most.
const QUEUE: usize = 256 << 10;
/// How much the gateway may have more than before: that much for each slow client, twice over, and what the allocator
/// takes.
const MORE_MEMORY: u64 = (SLOW * QUEUE * 2 / 1024) as u64 + (8 << 10);
const PAYLOAD: usize = 1 << 10;
/// What the slow are told besides: the sockets between take some four mebibytes before anything waits.
const NOISE: &str = "faults.plain.noise";
/// In bytes, so that all of it together is more than that.
const NOISE_PAYLOAD: usize = 3 << 10;
/// How many events are published before all readers have to have them.
const BATCH: u64 = 50;
const BATCHES: u64 = 40;

/// Somebody who is subscribed, and takes little that he does not read.
async fn subscribed(address: SocketAddr, channels: &[&str], name: &str) -> Socket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let stream = soon(socket.connect(address)).await.unwrap();
    let mut socket = soon(open(stream, address)).await.unwrap();
    let hello = json!({ "type": "hello", "token": name });
    socket.send(Message::text(hello.to_string())).await.unwrap();
    for channel in channels {
        let subscribe = json!({ "type": "subscribe", "id": 1, "channel": channel });
        socket.send(Message::text(subscribe.to_string())).await.unwrap();
        while !soon(socket.next()).await.unwrap().unwrap().to_text().unwrap().contains("\"subscribed\"") {}
    }
    socket
}

/// What comes of the events of some numbers, and of gaps, until one of `last` has come or it is closed.
#[derive(Debug, Default)]
struct Taken {
    numbers: Vec<u64>,
    /// Why events are missing, and how many had come before.
    gaps: Vec<(String, usize)>,
    closed: Option<u16>,
}

async fn take(socket: &mut Socket, last: u64) -> Taken {
    let mut taken = Taken::default();
    while taken.numbers.last() != Some(&last) {
        match soon(socket.next()).await {
            Some(Ok(Message::Text(text))) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                match message["type"].as_str().unwrap() {
                    "event" if message["channel"] != NOISE => {
                        taken.numbers.push(message["data"]["number"].as_u64().unwrap())
                    }
                    "gap" => {
                        taken.gaps.push((message["reason"].as_str().unwrap().to_owned(), taken.numbers.len()))
                    }
                    _ => {}
                }
            }
            Some(Ok(Message::Close(frame))) => {
                taken.closed = frame.map(|frame| frame.code.into());
                break;
            }
            Some(Ok(_)) => {}
            _ => break,
        }
    }
    taken
}

/// Readers that count what they have.
async fn readers(count: usize, address: SocketAddr, channel: &str) -> Vec<Arc<AtomicU64>> {
    let mut readers = Vec::new();
    for number in 0..count {
        let mut socket = subscribed(address, &[channel], &format!("{channel} {number}")).await;
        let counted = Arc::<AtomicU64>::default();
        readers.push(Arc::clone(&counted));
        tokio::spawn(async move {
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                // They are counted in order, or not at all.
                let next = counted.load(Ordering::SeqCst) + 1;
                if text.contains(&format!("\"number\":{next},")) {
                    counted.store(next, Ordering::SeqCst);
                }
            }
        });
    }
    readers
}

/// Publishes a flood of events of this size, as fast as readers take it: all of them have each batch before the next one is
/// published. Returns the most memory that the gateway had.
async fn flood(
    publisher: &mut Publisher,
    (channel, payload): (&str, usize),
    gateway: &Process,
    readers: &[Arc<AtomicU64>],
) -> u64 {
    let events = |last: u64, payload: usize| {
        let padding = "x".repeat(payload);
        (last - BATCH + 1..=last)
            .map(move |number| format!("{{\"number\":{number},\"padding\":\"{padding}\"}}"))
    };
    let mut most = 0;
    for batch in 1..=BATCHES {
        let last = batch * BATCH;
        publisher.flood(NOISE, events(last, NOISE_PAYLOAD)).await;
        publisher.flood(channel, events(last, payload)).await;
        let counted = |reader: &Arc<AtomicU64>| reader.load(Ordering::SeqCst) == last;
        eventually("all readers have all events", async || readers.iter().all(counted)).await;
        most = most.max(gateway.memory());
    }
    most
}

#[test]
fn clients_that_do_not_read_cost_nobody_anything() {
    const TEST: &str = "gateway::slow::clients_that_do_not_read_cost_nobody_anything";
    if child::is(TEST) {
        return child::run(serving::service());
    }
    child::run_here(async {
        let redis = RedisServer::start();
        let gateway = Process::with_queue(TEST, &redis.url(), NonZeroUsize::new(QUEUE).unwrap());
        let channel = "faults.plain.flood";
        let readers = readers(READERS, gateway.address, channel).await;
        let mut publisher = Publisher::at(&redis.url(), "").await;
        // What a flood costs by itself.
        let warm = "faults.plain.warm";
        let warmed = self::readers(READERS, gateway.address, warm).await;
        let before = flood(&mut publisher, (warm, PAYLOAD), &gateway, &warmed).await;
        let mut slow = Vec::new();
        for number in 0..SLOW {
            slow.push(subscribed(gateway.address, &[channel, NOISE], &format!("slow {number}")).await);
        }
        // Half of them never read again, and are let go all the same.
        let deaf = slow.split_off(SLOW / 2);
        let address = gateway.address;
        let closing = async {
            let policy = "messaging_gateway_slow_total{policy=\"disconnect\"}";
            let found = async || metric(address, policy).await == SLOW as u64;
            eventually("the slow are found out", found).await;
            // Whoever reads again within a second learns why.
            let mut told = 0;
            for mut socket in slow {
                let taken = take(&mut socket, u64::MAX).await;
                assert!(taken.closed.is_none_or(|code| code == 3008), "{:?}", taken.closed);
                assert!(taken.numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{:?}", taken.numbers);
                assert!(taken.gaps.is_empty() && (taken.numbers.len() as u64) < BATCHES * BATCH);
                told += usize::from(taken.closed.is_some());
            }
            told
        };
        let (most, told) =
            tokio::join!(flood(&mut publisher, (channel, PAYLOAD), &gateway, &readers), closing);
        assert!(told > 0, "somebody learns why");
        let left = async || metric(address, "messaging_gateway_connections").await == 2 * READERS as u64;
        eventually("they have gone", left).await;
        drop(deaf);
        assert!(most < before + MORE_MEMORY, "{most} KiB, {before} without the slow");
        assert_eq!(metric(address, "messaging_gateway_subscriptions").await, 2 * READERS as u64);
        outcome(
            "20 of 220 clients do not read",
            format!("{} MiB, {} without them; {told} read again and are told 3008", most >> 10, before >> 10),
        );
    });
}

#[test]
fn clients_that_read_late_get_what_their_channel_promises() {
    const TEST: &str = "gateway::slow::clients_that_read_late_get_what_their_channel_promises";
    const READERS: usize = 10;
    const LAST: u64 = BATCHES * BATCH;
    if child::is(TEST) {
        return child::run(serving::service());
    }
    child::run_here(async {
        let redis = RedisServer::start();
        let gateway = Process::with_queue(TEST, &redis.url(), NonZeroUsize::new(QUEUE).unwrap());
        let address = gateway.address;
        let mut publisher = Publisher::at(&redis.url(), "").await;
        for (channel, policy) in [("faults.latest.a", "latest"), ("faults.oldest.a", "drop_oldest")] {
            let readers = readers(READERS, address, channel).await;
            let mut slow = Vec::new();
            for number in 0..5 {
                slow.push(subscribed(address, &[channel], &format!("slow {number}")).await);
            }
            flood(&mut publisher, (channel, NOISE_PAYLOAD), &gateway, &readers).await;
            let count =
                metric(address, &format!("messaging_gateway_slow_total{{policy=\"{policy}\"}}")).await;
            assert!(count >= 5, "{count}");
            let mut missed = 0;
            for socket in &mut slow {
                let Taken { numbers, gaps, closed } = take(socket, LAST).await;
                assert_eq!((numbers.last(), closed), (Some(&LAST), None));
                let holes: Vec<_> =
                    (1..numbers.len()).filter(|place| numbers[place - 1] + 1 != numbers[*place]).collect();
                assert!(numbers.is_sorted() && holes.len() == 1, "{numbers:?}");
                assert_eq!(gaps, [("slow".to_owned(), holes[0])], "one, however much was dropped, and where");
                missed = LAST - numbers.len() as u64;
            }
            assert_eq!(metric(address, "messaging_gateway_slow_total{policy=\"disconnect\"}").await, 0);
            outcome(policy, format!("{missed} of {LAST} dropped, one gap, the connection stays"));
        }
    });
}
