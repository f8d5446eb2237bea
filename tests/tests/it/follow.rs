//! Following the streams of durable channels: each entry once and in order, whatever happens to the connection.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU64};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use messaging_core::{
    DeliveryMode, Durability, EntryId, ErrorKind, Follow, Followed, HandlerError, Messaging, Retention,
    StreamEntry, StreamRef,
};
use messaging_tests::{Cluster, Direction, Proxy, RedisServer, Sentinel, eventually};

use crate::place::{Place, on_each_backend, soon};

on_each_backend! {
    streams_are_found_by_what_they_may_carry
    entries_come_once_and_in_order
    a_stream_can_be_added_while_it_waits
    a_stream_that_comes_up_later_is_followed
    a_removed_stream_tells_nothing_more
    a_stream_can_be_read_anew
    what_is_dropped_in_the_middle_is_not_lost
    a_backlog_of_partitions_comes_complete
    the_past_is_paged_to_the_very_beginning
    what_was_removed_shows_in_the_numbers
    what_was_replayed_for_one_group_is_nobodys_news
    the_end_is_that_of_the_stream
    an_epoch_ends_once_for_everybody
    shutting_down_ends_it
}

const BEGINNING: EntryId = EntryId { millis: 0, sequence: 0 };

async fn publish(messaging: &Messaging, channel: &str, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        messaging.publish(channel, &number).durable().await.unwrap();
    }
}

/// The one stream of a channel.
async fn stream(messaging: &Messaging, channel: &str) -> StreamRef {
    let streams = messaging.streams_of(channel).await.unwrap();
    assert_eq!(streams.len(), 1, "{streams:?}");
    streams[0].clone()
}

async fn entries(follow: &mut Follow) -> (StreamRef, Vec<StreamEntry>) {
    match soon(follow.next()).await {
        Followed::Entries { stream, entries } => {
            assert!(!entries.is_empty());
            (stream, entries)
        }
        other => panic!("{other:?}"),
    }
}

fn payload(entry: &StreamEntry) -> u32 {
    entry.message.as_ref().expect("it is a message").json().unwrap()
}

/// The payloads of the next so many entries.
async fn payloads(follow: &mut Follow, count: usize) -> Vec<u32> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        payloads.extend(entries(follow).await.1.iter().map(payload));
    }
    payloads
}

/// Nothing comes before what is published now.
async fn nothing_but(messaging: &Messaging, follow: &mut Follow, channel: &str, number: u32) {
    publish(messaging, channel, [number]).await;
    assert_eq!(payloads(follow, 1).await, [number]);
}

async fn streams_are_found_by_what_they_may_carry(place: Place) {
    let parts = Durability::DEFAULT.partitions(NonZeroU16::new(3).unwrap());
    let builder = place.builder().durable("orders.*", Retention::DEFAULT).durable("carts.*", parts);
    let messaging = builder.build().await.unwrap();
    publish(&messaging, "invoices", [0]).await;
    let prefix = &place.config.channel_prefix;
    let names = async |messaging: &Messaging, pattern: &str| {
        let streams = messaging.streams_of(pattern).await.unwrap();
        let names = streams.iter().map(|stream| stream.to_string().replace(prefix, "p."));
        names.collect::<Vec<_>>()
    };
    // Nobody has published there.
    assert_eq!(names(&messaging, "orders.7").await, ["p.orders.*"]);
    assert_eq!(names(&messaging, "carts.{id}").await, ["p.carts.*#0", "p.carts.*#1", "p.carts.*#2"]);
    assert_eq!(names(&messaging, "nothing").await, [""; 0]);
    // And those who do not make them find them too.
    let other = place.messaging().await;
    let all = ["p.carts.*#0", "p.carts.*#1", "p.carts.*#2", "p.invoices", "p.orders.*"];
    assert_eq!(names(&other, "*").await, all);
    let error = messaging.streams_of("orders.{").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidChannel);
}

async fn entries_come_once_and_in_order(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "orders", 0..3).await;
    let stream = stream(&messaging, "orders").await;
    let end = messaging.stream_end(&stream).await.unwrap();
    let mut follow = messaging.follow();
    follow.handle().add(stream.clone(), end.position.id);
    publish(&messaging, "orders", 3..100).await;
    let mut last = end.position;
    assert_eq!(last.number, 3);
    while last.number < 100 {
        let (of, entries) = entries(&mut follow).await;
        assert_eq!(of, stream);
        for entry in entries {
            assert_eq!(entry.position.number, last.number + 1);
            assert!(entry.position.id > last.id);
            assert_eq!(u64::from(payload(&entry)), last.number);
            let message = entry.message.unwrap();
            assert_eq!((&**message.channel(), message.position()), ("orders", entry.position.id));
            last = entry.position;
        }
    }
    assert_eq!(messaging.stream_end(&stream).await.unwrap().position, last);
    nothing_but(&messaging, &mut follow, "orders", 100).await;
}

async fn a_stream_can_be_added_while_it_waits(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "orders", [0]).await;
    publish(&messaging, "carts", [1]).await;
    let (orders, carts) = (stream(&messaging, "orders").await, stream(&messaging, "carts").await);
    let mut follow = messaging.follow();
    let handle = follow.handle();
    assert!(follow.next().now_or_never().is_none(), "it follows nothing");
    let ((of, _), ()) = tokio::join!(entries(&mut follow), async { handle.add(orders.clone(), BEGINNING) });
    assert_eq!(of, orders);
    // It waits for the first one, for longer than it may take to add another.
    let waits = Duration::from_millis(1_500);
    let both = async { tokio::join!(entries(&mut follow), async { handle.add(carts.clone(), BEGINNING) }) };
    let ((of, _), ()) = tokio::time::timeout(waits, both).await.expect("at once");
    assert_eq!(of, carts);
    nothing_but(&messaging, &mut follow, "orders", 2).await;
    nothing_but(&messaging, &mut follow, "carts", 3).await;
}

async fn a_stream_that_comes_up_later_is_followed(place: Place) {
    let messaging = place.builder().durable("orders.*", Retention::DEFAULT).build().await.unwrap();
    let stream = stream(&messaging, "orders.1").await;
    let end = messaging.stream_end(&stream).await.unwrap();
    assert_eq!((end.position.to_string().as_str(), end.epoch.is_empty()), ("0-0.0", false));
    let mut follow = messaging.follow();
    follow.handle().add(stream, end.position.id);
    assert!(follow.next().now_or_never().is_none());
    publish(&messaging, "orders.1", 0..5).await;
    assert_eq!(payloads(&mut follow, 5).await, [0, 1, 2, 3, 4]);
}

async fn a_removed_stream_tells_nothing_more(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "orders", 0..3).await;
    publish(&messaging, "carts", 10..13).await;
    let (orders, carts) = (stream(&messaging, "orders").await, stream(&messaging, "carts").await);
    let mut follow = messaging.follow();
    let handle = follow.handle();
    handle.add(orders.clone(), BEGINNING);
    handle.add(carts.clone(), BEGINNING);
    let (first, _) = entries(&mut follow).await;
    // What was read of the other with it is not told either.
    let other = if first == orders { &carts } else { &orders };
    let (channel, silent) = if first == orders { ("orders", "carts") } else { ("carts", "orders") };
    handle.remove(other);
    publish(&messaging, silent, [20]).await;
    nothing_but(&messaging, &mut follow, channel, 21).await;
    handle.remove(&first);
    publish(&messaging, "orders", [22]).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), follow.next()).await.is_err());
    // It begins where it is added, not where it was left.
    let end = messaging.stream_end(other).await.unwrap();
    handle.add(other.clone(), end.position.id);
    nothing_but(&messaging, &mut follow, silent, 23).await;
}

async fn a_stream_can_be_read_anew(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "orders", 0..3).await;
    let stream = stream(&messaging, "orders").await;
    let mut follow = messaging.follow();
    follow.handle().add(stream.clone(), BEGINNING);
    assert_eq!(payloads(&mut follow, 3).await, [0, 1, 2]);
    follow.handle().add(stream.clone(), BEGINNING);
    assert_eq!(payloads(&mut follow, 3).await, [0, 1, 2]);
    nothing_but(&messaging, &mut follow, "orders", 3).await;
}

async fn what_is_dropped_in_the_middle_is_not_lost(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "orders", [0]).await;
    let stream = stream(&messaging, "orders").await;
    let mut follow = messaging.follow();
    follow.handle().add(stream.clone(), messaging.stream_end(&stream).await.unwrap().position.id);
    let (mut told, mut drops) = (Vec::new(), 0);
    for number in 1..200 {
        // It is dropped while it waits, and while the answer is on its way.
        assert!(follow.next().now_or_never().is_none());
        publish(&messaging, "orders", [number]).await;
        while told.len() < number as usize {
            let patience = Duration::from_micros(50 * u64::from(number % 20));
            match tokio::time::timeout(patience, follow.next()).await {
                Ok(Followed::Entries { entries, .. }) => told.extend(entries.iter().map(payload)),
                Ok(other) => panic!("{other:?}"),
                Err(_) => drops += 1,
            }
            assert!(drops < 100_000, "nothing comes after {told:?}");
        }
    }
    assert_eq!(told, (1..200).collect::<Vec<_>>());
}

async fn a_backlog_of_partitions_comes_complete(place: Place) {
    let parts = Durability::DEFAULT.partitions(NonZeroU16::new(8).unwrap());
    let messaging = place.builder().durable("orders.*", parts).build().await.unwrap();
    for number in 0..2_000_u32 {
        messaging.publish("orders.new", &number).key((number % 50).to_string()).await.unwrap();
    }
    let streams = messaging.streams_of("orders.*").await.unwrap();
    assert_eq!(streams.len(), 8);
    let mut follow = messaging.follow();
    streams.iter().for_each(|stream| follow.handle().add(stream.clone(), BEGINNING));
    let (mut all, mut numbers) = (HashSet::new(), std::collections::HashMap::new());
    while all.len() < 2_000 {
        let (stream, entries) = entries(&mut follow).await;
        assert!(entries.len() <= 1_000);
        for entry in entries {
            let last = numbers.insert(stream.clone(), entry.position.number).unwrap_or(0);
            assert_eq!(entry.position.number, last + 1, "{stream}");
            assert!(all.insert(payload(&entry)), "{} came twice", payload(&entry));
        }
    }
    assert!(numbers.len() > 4, "they are spread");
}

async fn the_past_is_paged_to_the_very_beginning(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "orders", 0..25).await;
    let stream = stream(&messaging, "orders").await;
    let mut before = EntryId { millis: u64::MAX, sequence: u64::MAX };
    let (mut told, mut pages) = (Vec::new(), Vec::new());
    loop {
        let page = messaging.stream_before(&stream, before, 10).await.unwrap();
        let Some(oldest) = page.last() else { break };
        before = oldest.position.id;
        pages.push(page.len());
        told.extend(page.iter().map(|entry| (payload(entry), entry.position.number)));
    }
    assert_eq!(pages, [10, 10, 5]);
    assert_eq!(told, (0..25).rev().map(|number| (number, u64::from(number) + 1)).collect::<Vec<_>>());
    for (before, most) in [(BEGINNING, 10), (EntryId { millis: 0, sequence: 1 }, 10)] {
        assert!(messaging.stream_before(&stream, before, most).await.unwrap().is_empty());
    }
    let last = messaging.stream_end(&stream).await.unwrap().position.id;
    assert!(messaging.stream_before(&stream, last, 0).await.unwrap().is_empty());
    assert_eq!(payload(&messaging.stream_before(&stream, last, 1).await.unwrap()[0]), 23);
}

async fn what_was_removed_shows_in_the_numbers(place: Place) {
    let few = Retention { max_len: NonZeroU64::new(100).unwrap(), ..Retention::DEFAULT };
    let messaging = place.builder().durable("orders", few).build().await.unwrap();
    publish(&messaging, "orders", 0..2).await;
    let stream = stream(&messaging, "orders").await;
    let mut follow = messaging.follow();
    follow.handle().add(stream, BEGINNING);
    assert_eq!(payloads(&mut follow, 2).await, [0, 1]);
    // Redis removes in chunks of some hundred.
    publish(&messaging, "orders", 2..500).await;
    let (_, told) = entries(&mut follow).await;
    let first = told[0].position.number;
    assert!(first > 3, "{first} is the oldest that is left");
    assert_eq!(u64::from(payload(&told[0])), first - 1);
}

async fn what_was_replayed_for_one_group_is_nobodys_news(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "orders", [0]).await;
    let subscriber = messaging.subscriber().delivery(DeliveryMode::Queue).group("billing").id("billing");
    let fails = |_: u32| std::future::ready(Err::<(), _>(HandlerError::dead_letter("it is poison")));
    let _handler = subscriber.on("orders", fails).await.unwrap();
    let stream = stream(&messaging, "orders").await;
    let mut follow = messaging.follow();
    follow.handle().add(stream.clone(), messaging.stream_end(&stream).await.unwrap().position.id);
    publish(&messaging, "orders", [1]).await;
    assert_eq!(payloads(&mut follow, 1).await, [1]);
    let dead = messaging.dead_letters("billing");
    let letters = eventually("a dead letter", async || {
        Some(dead.list().await.unwrap()).filter(|letters| !letters.is_empty())
    })
    .await;
    dead.replay(letters[0].id()).await.unwrap();
    let (_, replayed) = entries(&mut follow).await;
    assert_eq!((replayed.len(), replayed[0].position.number), (1, 3));
    assert!(replayed[0].message.is_none());
    let end = messaging.stream_end(&stream).await.unwrap().position;
    assert_eq!(end, replayed[0].position);
    publish(&messaging, "orders", [2]).await;
    let (_, last) = entries(&mut follow).await;
    assert_eq!((last[0].position.number, payload(&last[0])), (4, 2));
    let past = messaging.stream_before(&stream, last[0].position.id, 10).await.unwrap();
    let news: Vec<_> = past.iter().map(|entry| (entry.position.number, entry.message.is_some())).collect();
    assert_eq!(news, [(3, false), (2, true), (1, true)]);
}

async fn the_end_is_that_of_the_stream(place: Place) {
    let short = Retention { max_age: Duration::from_secs(1), ..Retention::DEFAULT };
    let messaging = place.builder().durable("orders", short).build().await.unwrap();
    let (one, other) = (stream(&messaging, "orders").await, place.messaging().await);
    let first = messaging.stream_end(&one).await.unwrap();
    publish(&messaging, "orders", 0..3).await;
    // All who ask are told the same, now and later.
    let end = other.stream_end(&one).await.unwrap();
    assert_eq!((&end.epoch, end.position.number), (&first.epoch, 3));
    eventually("nothing is left", async || messaging.history("orders").await.unwrap().is_empty()).await;
    let end = eventually("there is no stream", async || {
        let end = messaging.stream_end(&one).await.unwrap();
        Some(end).filter(|end| end.position.id == BEGINNING)
    })
    .await;
    assert_eq!((&end.epoch, end.position.number), (&first.epoch, 3), "its numbers go on");
    publish(&messaging, "orders", [3]).await;
    let end = other.stream_end(&one).await.unwrap();
    assert_eq!((&end.epoch, end.position.number), (&first.epoch, 4));
    // Each stream has its own.
    publish(&messaging, "carts", [0]).await;
    let carts = stream(&messaging, "carts").await;
    assert_ne!(messaging.stream_end(&carts).await.unwrap().epoch, first.epoch);
}

async fn an_epoch_ends_once_for_everybody(place: Place) {
    let build = async || place.builder().durable("orders", Retention::DEFAULT).build().await.unwrap();
    let (one, other) = (build().await, build().await);
    publish(&one, "orders", 0..3).await;
    let stream = stream(&one, "orders").await;
    let before = one.stream_end(&stream).await.unwrap();
    // Both have seen the numbers go back; who is late does not end the epoch that the other one has begun.
    let after = one.stream_end_after(&stream, &before.epoch).await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.position, before.position);
    assert_eq!(other.stream_end_after(&stream, &before.epoch).await.unwrap().epoch, after.epoch);
    assert_eq!(other.stream_end(&stream).await.unwrap().epoch, after.epoch);
}

async fn shutting_down_ends_it(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "orders", [0]).await;
    let mut follow = messaging.follow();
    follow.handle().add(stream(&messaging, "orders").await, BEGINNING);
    assert_eq!(payloads(&mut follow, 1).await, [0]);
    let waiting = tokio::spawn(async move { (follow.next().await, follow) });
    let running = messaging.start().await.unwrap();
    assert!(soon(running.shutdown(Duration::from_secs(10))).await.is_complete());
    let (told, mut follow) = soon(waiting).await.unwrap();
    assert!(matches!(told, Followed::Closed), "{told:?}");
    assert!(matches!(follow.next().await, Followed::Closed));
}

/// A server of its own, what is at it, and the key of the stream of this channel.
async fn alone(redis: &RedisServer, channel: &str) -> (Messaging, StreamRef, String) {
    let mut place = Place::at(&redis.url());
    place.config.command_timeout = Duration::from_secs(2);
    let messaging = place.messaging().await;
    publish(&messaging, channel, [0]).await;
    let stream = stream(&messaging, channel).await;
    let key = format!("{}:{{{stream}}}", place.config.namespace);
    (messaging, stream, key)
}

/// Cuts off who waits in a read of streams; `false` if nobody does.
fn kill_reader(redis: &RedisServer) -> bool {
    let clients = redis.cli(&["CLIENT", "LIST"]);
    let reader = clients.lines().find(|client| client.contains(" cmd=xread "));
    let Some(reader) = reader else { return false };
    let id = reader.split(' ').find_map(|field| field.strip_prefix("id=")).unwrap();
    redis.cli(&["CLIENT", "KILL", "ID", id]) == "1"
}

/// Everything that is told until an entry with this payload: the payloads, and how often reading was lost and restored.
async fn until(follow: &mut Follow, last: u32) -> (Vec<u32>, [u32; 2]) {
    let (mut payloads, mut outages) = (Vec::new(), [0, 0]);
    while payloads.last() != Some(&last) {
        match soon(follow.next()).await {
            Followed::Entries { entries, .. } => payloads.extend(entries.iter().map(payload)),
            Followed::Lost(_) => outages[0] += 1,
            Followed::Restored => outages[1] += 1,
            Followed::Closed => panic!("it is closed"),
        }
    }
    (payloads, outages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_nothing() {
    let redis = RedisServer::start();
    let (messaging, stream, _) = alone(&redis, "orders").await;
    let mut follow = messaging.follow();
    follow.handle().add(stream, BEGINNING);
    let killing = async {
        for round in 0..20 {
            eventually("a reader waits and is killed", async || kill_reader(&redis)).await;
            publish(&messaging, "orders", round * 10 + 1..round * 10 + 11).await;
        }
    };
    let ((payloads, [lost, restored]), ()) = tokio::join!(until(&mut follow, 200), killing);
    assert_eq!(payloads, (0..=200).collect::<Vec<_>>());
    assert!(lost > 0 && lost <= 20 && lost == restored, "{lost} {restored}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_loses_nothing_and_is_told_once() {
    let redis = RedisServer::builder().arg("--appendonly", "yes").arg("--appendfsync", "always").start();
    let (messaging, stream, _) = alone(&redis, "orders").await;
    let before = messaging.stream_end(&stream).await.unwrap();
    let mut follow = messaging.follow();
    follow.handle().add(stream.clone(), BEGINNING);
    assert_eq!(payloads(&mut follow, 1).await, [0]);
    publish(&messaging, "orders", 1..50).await;
    redis.stop();
    assert!(matches!(soon(follow.next()).await, Followed::Lost(_)));
    assert!(tokio::time::timeout(Duration::from_millis(500), follow.next()).await.is_err(), "once");
    redis.start_again();
    assert!(matches!(soon(follow.next()).await, Followed::Restored));
    eventually("it can be published again", async || {
        messaging.publish("orders", &50).durable().await.is_ok()
    })
    .await;
    let (rest, outages) = until(&mut follow, 50).await;
    assert_eq!(rest, (1..=50).collect::<Vec<_>>());
    assert_eq!(outages, [0, 0]);
    let after = messaging.stream_end(&stream).await.unwrap();
    assert_eq!((after.epoch, after.position.number), (before.epoch, 51));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_fell_silent_is_noticed() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut place = Place::at(&format!("redis://127.0.0.1:{}", proxy.port()));
    place.config.command_timeout = Duration::from_secs(1);
    let messaging = place.messaging().await;
    let publisher = Messaging::builder()
        .config({
            let mut config = Place::at(&redis.url()).config;
            config.channel_prefix.clone_from(&place.config.channel_prefix);
            config.namespace.clone_from(&place.config.namespace);
            config
        })
        .build()
        .await
        .unwrap();
    publish(&publisher, "orders", [0]).await;
    let stream = stream(&messaging, "orders").await;
    let mut follow = messaging.follow();
    follow.handle().add(stream, BEGINNING);
    assert_eq!(payloads(&mut follow, 1).await, [0]);
    assert!(follow.next().now_or_never().is_none());
    proxy.strand(Direction::ToClient);
    publish(&publisher, "orders", [1]).await;
    let begun = Instant::now();
    assert!(matches!(soon(follow.next()).await, Followed::Lost(_)));
    // The wait of a read, and the command timeout.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let (payloads, _) = until(&mut follow, 1).await;
    assert_eq!(payloads, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_is_that_of_one_counting() {
    let redis = RedisServer::start();
    let (messaging, stream, key) = alone(&redis, "orders").await;
    let other = Messaging::builder().config(messaging.config().clone()).build().await.unwrap();
    // Of many who ask at the same time all are told the same.
    let ask = async || {
        let asking = (0..20).map(|asked| {
            let (messaging, stream) = (if asked % 2 == 0 { &messaging } else { &other }, &stream);
            async move { messaging.stream_end(stream).await.unwrap().epoch }
        });
        let epochs: HashSet<_> = futures_util::future::join_all(asking).await.into_iter().collect();
        assert_eq!(epochs.len(), 1, "{epochs:?}");
        epochs.into_iter().next().unwrap()
    };
    let first = ask().await;
    let lives = |what: &str| redis.cli(&["PTTL", &format!("{key}:{what}")]).parse::<i64>().unwrap();
    assert!(lives("epoch") > lives("n") + 86_400_000);
    publish(&messaging, "orders", 1..5).await;
    redis.cli(&["DEL", &format!("{key}:stream")]);
    assert_eq!(ask().await, first, "the numbers go on");

    let mut seen = HashSet::from([first]);
    redis.cli(&["FLUSHALL"]);
    assert!(seen.insert(ask().await), "the server has forgotten everything");
    // Before the first number and after it.
    let before = ask().await;
    publish(&messaging, "orders", 5..8).await;
    assert_eq!(ask().await, before);
    redis.cli(&["DEL", &format!("{key}:n")]);
    assert!(seen.insert(ask().await), "the numbers begin anew");
    let before = ask().await;
    publish(&messaging, "orders", 8..10).await;
    assert_eq!(ask().await, before);
    redis.cli(&["SET", &format!("{key}:n"), "1"]);
    assert!(seen.insert(ask().await), "a number is given twice");
    redis.cli(&["SET", &format!("{key}:epoch"), "nonsense"]);
    assert!(seen.insert(ask().await));
    let keys = redis.cli(&["KEYS", &format!("{}*", key.split('{').next().unwrap())]);
    let doomed: Vec<_> = ["DEL"].into_iter().chain(keys.lines()).collect();
    redis.cli(&doomed);
    assert!(seen.insert(ask().await), "all keys are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_keeps_epochs() {
    let redis = RedisServer::start();
    let (messaging, stream, key) = alone(&redis, "orders").await;
    let mut follow = messaging.follow();
    follow.handle().add(stream, BEGINNING);
    assert_eq!(payloads(&mut follow, 1).await, [0]);
    eventually("it is renewed", async || redis.cli(&["EXISTS", &format!("{key}:epoch")]) == "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_entries_have_positions() {
    let redis = RedisServer::start();
    let (messaging, stream, key) = alone(&redis, "orders").await;
    let (key, channel) = (format!("{key}:stream"), format!("{}orders", messaging.config().channel_prefix));
    let mut follow = messaging.follow();
    follow.handle().add(stream.clone(), BEGINNING);
    redis.cli(&["XADD", &key, "*", "channel", &channel, "data", "1"]);
    redis.cli(&["XADD", &key, "*", "any", "thing"]);
    redis.cli(&["XADD", &key, "*", "channel", "elsewhere", "data", "2", "n", "77"]);
    publish(&messaging, "orders", [3]).await;
    let mut told = Vec::new();
    while told.len() < 5 {
        told.extend(entries(&mut follow).await.1);
    }
    let told: Vec<_> = told.iter().map(|entry| (entry.position.number, entry.message.is_some())).collect();
    assert_eq!(told, [(1, true), (0, true), (0, false), (77, false), (2, true)]);
    let past = messaging.stream_before(&stream, EntryId { millis: u64::MAX, sequence: 0 }, 10).await.unwrap();
    let past: Vec<_> = past.iter().map(|entry| (entry.position.number, entry.message.is_some())).collect();
    assert_eq!(past, told.into_iter().rev().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_keeps_no_other_stream_from_being_read() {
    let redis = RedisServer::start();
    let (messaging, orders, key) = alone(&redis, "orders").await;
    publish(&messaging, "carts", [1]).await;
    let carts = stream(&messaging, "carts").await;
    let mut follow = messaging.follow();
    follow.handle().add(orders.clone(), messaging.stream_end(&orders).await.unwrap().position.id);
    follow.handle().add(carts.clone(), BEGINNING);
    assert_eq!(payloads(&mut follow, 1).await, [1]);
    redis.cli(&["SET", &format!("{key}:stream"), "something else"]);
    let error = match soon(follow.next()).await {
        Followed::Lost(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains(&orders.to_string()), "{error}");
    for number in 2..6 {
        publish(&messaging, "carts", [number]).await;
        assert_eq!(payloads(&mut follow, 1).await, [number], "and it is told only once");
    }
    redis.cli(&["DEL", &format!("{key}:stream")]);
    assert!(matches!(soon(follow.next()).await, Followed::Restored));
    publish(&messaging, "orders", [6]).await;
    assert_eq!(payloads(&mut follow, 1).await, [6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_made_anew_with_smaller_ids_is_followed() {
    let redis = RedisServer::start();
    let (messaging, stream, key) = alone(&redis, "orders").await;
    let key = format!("{key}:stream");
    let channel = format!("{}orders", messaging.config().channel_prefix);
    // As by a clock that is far ahead.
    redis.cli(&["XADD", &key, "99999999999999-0", "channel", &channel, "data", "1"]);
    let mut follow = messaging.follow();
    follow.handle().add(stream, BEGINNING);
    assert_eq!(payloads(&mut follow, 2).await, [0, 1]);
    redis.cli(&["DEL", &key]);
    assert!(follow.next().now_or_never().is_none());
    eventually("it waits and is killed", async || {
        _ = follow.next().now_or_never();
        kill_reader(&redis)
    })
    .await;
    assert!(matches!(soon(follow.next()).await, Followed::Lost(_)));
    assert!(matches!(soon(follow.next()).await, Followed::Restored));
    publish(&messaging, "orders", [2]).await;
    assert_eq!(payloads(&mut follow, 1).await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let sentinel = Sentinel::start();
    let messaging = Place::at(&sentinel.url()).messaging().await;
    publish(&messaging, "orders", 0..10).await;
    let stream = stream(&messaging, "orders").await;
    let mut follow = messaging.follow();
    follow.handle().add(stream, BEGINNING);
    assert_eq!(payloads(&mut follow, 10).await.len(), 10);
    let waiting = tokio::spawn(async move { (until(&mut follow, 10).await, follow) });
    let sentinel = tokio::task::spawn_blocking(move || {
        sentinel.failover();
        sentinel
    });
    let _sentinel = sentinel.await.unwrap();
    eventually("the new master takes it", async || {
        messaging.publish("orders", &10).durable().id("ten").await.is_ok()
    })
    .await;
    let ((payloads, [lost, restored]), _) = soon(waiting).await.unwrap();
    assert_eq!((payloads.as_slice(), lost), (&[10][..], restored));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed() {
    let cluster = Cluster::start();
    let place = Place::at(&cluster.url());
    let messaging = place.messaging().await;
    publish(&messaging, "orders", 0..10).await;
    let stream = stream(&messaging, "orders").await;
    let slot = cluster.slot_of(&format!("{}:{{{stream}}}:stream", place.config.namespace));
    let mut follow = messaging.follow();
    follow.handle().add(stream, BEGINNING);
    assert_eq!(payloads(&mut follow, 10).await.len(), 10);
    let waiting = tokio::spawn(async move { (until(&mut follow, 20).await, follow) });
    let from = cluster.owner_of(slot).port();
    let to = cluster.nodes().iter().take(3).position(|node| node.port() != from).unwrap();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.migrate_slot(slot, &cluster.nodes()[to]);
        cluster
    });
    let _cluster = cluster.await.unwrap();
    publish(&messaging, "orders", 10..=20).await;
    let ((payloads, _), _) = soon(waiting).await.unwrap();
    assert_eq!(payloads, (10..=20).collect::<Vec<_>>());
}
