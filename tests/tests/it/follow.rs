//! Following the streams of durable channels: each entry once and in order, whatever happens to the connection.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU64};
use std::time::Duration;

use futures_util::FutureExt as _;
use messaging_core::{
    DeliveryMode, Durability, EntryId, ErrorKind, Follow, Followed, HandlerError, Messaging, Retention,
    StreamEntry, StreamRef,
};
use messaging_tests::eventually;

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
    let waiting = tokio::spawn(async move { (entries(&mut follow).await, follow) });
    handle.add(orders.clone(), BEGINNING);
    let ((of, _), mut follow) = soon(waiting).await.unwrap();
    assert_eq!(of, orders);
    let waiting = tokio::spawn(async move { (entries(&mut follow).await, follow) });
    // It waits for the first one, for longer than anybody should wait here.
    let waits = Duration::from_millis(1_500);
    handle.add(carts.clone(), BEGINNING);
    let ((of, _), mut follow) = tokio::time::timeout(waits, waiting).await.expect("at once").unwrap();
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
