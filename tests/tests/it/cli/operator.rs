//! What the command asks the library, on each kind of Redis.

use messaging_core::{Channel, Durability, ErrorKind, Feature, Retention};
use std::num::NonZeroU16;
use std::time::Duration;

use super::{with_dead_letters, workers};
use crate::place::{Place, on_backend};

on_backend! { redis
    streams_and_groups_are_told
    what_others_append_is_counted_too
    a_stream_is_removed_with_all_that_belongs_to_it
    dead_letters_come_page_by_page
    rights_are_told_and_nothing_is_done
}
on_backend! { sentinel streams_and_groups_are_told rights_are_told_and_nothing_is_done }
on_backend! { cluster
    streams_and_groups_are_told
    a_stream_is_removed_with_all_that_belongs_to_it
    dead_letters_come_page_by_page
    rights_are_told_and_nothing_is_done
}
on_backend! { memory streams_are_told_in_memory dead_letters_come_page_by_page }

async fn streams_and_groups_are_told(place: Place) {
    let kept = Durability::from(Retention { max_age: Duration::from_secs(60), ..Retention::DEFAULT });
    let messaging = place
        .builder()
        .durable("orders:{id}", kept.partitions(NonZeroU16::new(2).unwrap()))
        .build()
        .await
        .unwrap();
    let operator = messaging.operator();
    for number in 1..=5 {
        messaging.publish("orders:17", &number).key("one").await.unwrap();
    }
    let streams = operator.streams().await.unwrap();
    assert_eq!(streams.len(), 2);
    let used = streams.iter().find(|stream| stream.length > 0).unwrap();
    assert_eq!((used.pattern.as_str(), used.partitions, used.max_age_ms), ("orders:{p1*}", Some(2), 60_000));
    assert_eq!((used.length, used.published), (5, 5));
    assert!(used.oldest_ms.is_some() && used.oldest_ms <= used.newest_ms);
    let of = |channel: &str| Channel::new(channel).unwrap();
    let found = operator.durability_of(&of("orders:99")).await.unwrap();
    assert_eq!(
        found.map(|(pattern, kept)| (pattern, kept.partitions)),
        Some(("orders:{p1*}".into(), NonZeroU16::new(2)))
    );
    assert_eq!(operator.durability_of(&of("invoices:99")).await.unwrap(), None);

    let workers = workers(&messaging, "billing", "orders:{id}").await;
    let groups = operator.groups().await.unwrap();
    assert_eq!(groups.len(), 2, "one for each partition");
    assert!(
        groups.iter().all(|group| group.alive == 1 && group.consumers.len() == 1 && group.consumers[0].alive)
    );
    workers.stop().await;
    messaging.publish("orders:17", &6).key("one").await.unwrap();
    let lag: u64 = operator.groups().await.unwrap().iter().map(messaging_core::GroupReport::lag).sum();
    assert_eq!(lag, 1);
}

/// Where Redis cannot tell how many come after the last that was read, the numbers do.
async fn what_others_append_is_counted_too(place: Place) {
    let messaging = place.messaging().await;
    messaging.publish("jobs", &1).durable().await.unwrap();
    workers(&messaging, "billing", "jobs").await.stop().await;
    for number in 2..=4 {
        messaging.publish("jobs", &number).durable().await.unwrap();
    }
    let redis = messaging_tests::shared_redis();
    let key = format!("{}:{{{}jobs}}:stream", place.config.namespace, place.config.channel_prefix);
    let past = messaging.history("jobs").await.unwrap();
    redis.cli(&["XDEL", &key, &past[2].position().to_string()]);
    let group = &messaging.operator().groups().await.unwrap()[0];
    // The numbers do not know of what was removed in between.
    assert!((2..=3).contains(&group.unread) && !group.unread_is_least, "{group:?}");
    // What others append without a number cannot be counted.
    redis.cli(&["XDEL", &key, &past[1].position().to_string(), &past[3].position().to_string()]);
    redis.cli(&["XADD", &key, "*", "channel", &format!("{}jobs", place.config.channel_prefix), "data", "1"]);
    let group = &messaging.operator().groups().await.unwrap()[0];
    assert!(group.unread == 1, "{group:?}");
}

async fn a_stream_is_removed_with_all_that_belongs_to_it(place: Place) {
    let messaging = place.messaging().await;
    with_dead_letters(&messaging, "billing", "jobs", 1).await;
    let operator = messaging.operator();
    let stream = operator.streams().await.unwrap()[0].stream.clone();
    assert!(!operator.remove_stream("nothing").await.unwrap());
    assert!(operator.remove_stream(&stream).await.unwrap());
    assert!(!operator.remove_stream(&stream).await.unwrap());
    assert!(operator.streams().await.unwrap().is_empty());
    assert!(messaging.history("jobs").await.unwrap().is_empty());
    assert_eq!(messaging.dead_letters("billing").count().await.unwrap(), 0);
    messaging.publish("jobs", &2).durable().await.unwrap();
    let streams = operator.streams().await.unwrap();
    assert_eq!((streams.len(), streams[0].published), (1, 1), "it is registered again, and counts anew");
}

async fn streams_are_told_in_memory(place: Place) {
    let messaging = place.messaging().await;
    with_dead_letters(&messaging, "billing", "jobs", 1).await;
    let operator = messaging.operator();
    let streams = operator.streams().await.unwrap();
    assert_eq!((streams.len(), streams[0].length, streams[0].published), (1, 2, 2));
    let groups = operator.groups().await.unwrap();
    assert_eq!((groups.len(), groups[0].dead, groups[0].lag()), (1, 1, 0));
    assert_eq!(operator.dead_letters().await.unwrap(), [("billing".to_owned(), 1)]);
    let error = operator.invalidate_family("nothing").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

async fn dead_letters_come_page_by_page(place: Place) {
    let messaging = place.messaging().await;
    with_dead_letters(&messaging, "billing", "jobs", 5).await;
    with_dead_letters(&messaging, "mailing", "jobs", 1).await;
    let dead = messaging.dead_letters("billing");
    let all: Vec<_> = dead.list().await.unwrap().iter().map(|letter| letter.id().clone()).collect();
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = dead.page(after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = Some(last.id().clone());
        paged.extend(page.iter().map(|letter| letter.id().clone()));
    }
    assert_eq!((paged.len() as u64, &paged), (dead.count().await.unwrap(), &all));
}

async fn rights_are_told_and_nothing_is_done(place: Place) {
    let messaging = place.messaging().await;
    let channel = Channel::new("orders.created").unwrap();
    let rights = messaging.operator().rights(&channel, "user:*").await.unwrap();
    for feature in [Feature::Publish, Feature::Durable, Feature::Queue, Feature::Cache, Feature::Presence] {
        let of: Vec<_> = rights.iter().filter(|right| right.feature == feature).collect();
        assert!(!of.is_empty() && of.iter().all(|right| right.refusal.is_none()), "{of:?}");
    }
    assert!(messaging.operator().streams().await.unwrap().is_empty());
    assert!(messaging.history("orders.created").await.unwrap().is_empty());
    assert_eq!(messaging.operator().user(), "default");
    let redis = messaging_tests::shared_redis();
    if place.config.endpoint.to_string().contains(&format!(":{}/", redis.port())) {
        assert_eq!(redis.cli(&["KEYS", &format!("{}:*", place.config.namespace)]), "");
    }
}
