//! Publishing, and subscriptions that are read by hand.

use std::time::Duration;

use futures_util::StreamExt as _;
use messaging_core::{Channel, ErrorKind, Pattern, ToChannel, TypedChannel, channel};
use messaging_tests::eventually;
use serde_json::json;

use crate::place::{Place, Probe, on_each_backend, soon};

on_each_backend! {
    a_message_arrives_as_it_was_sent
    publish_counts_receivers
    a_subscription_is_confirmed_before_it_returns
    get_message_waits_at_most_its_timeout
    send_message_goes_to_everybody_on_the_channel
    send_message_on_a_pattern_is_refused
    a_subscription_is_a_stream
    templates_give_segments_and_keep_to_their_separators
    globs_mean_what_redis_means
    dropping_a_subscription_unsubscribes
    closing_a_subscription_unsubscribes
    channels_that_are_not_valid_are_refused
    a_payload_over_the_limit_is_refused_before_it_is_sent
    a_typed_channel_publishes_subscribes_and_parses_back
    the_channel_prefix_separates
    the_server_can_be_asked
    a_foreign_payload_stays_as_it_is
    many_publishers_lose_nothing
    sharded_channels_are_apart
    many_sharded_channels_are_heard_and_given_up
    a_handler_of_sharded_channels
    a_sharded_pattern_is_refused
}

async fn a_message_arrives_as_it_was_sent(place: Place) {
    let messaging = place.messaging().await;
    let mut subscription = messaging.subscribe("auditlog:42").await.unwrap();
    let sent = json!({ "id": u64::MAX, "text": "Grüße \"\\\n", "none": null });
    messaging.publish("auditlog:42", &sent).await.unwrap();
    let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
    assert_eq!(message.channel(), &"auditlog:42");
    assert_eq!(&message.payload()[..], sent.to_string().as_bytes());
    assert_eq!(message.json::<serde_json::Value>().unwrap(), sent);
    let error = message.json::<u8>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("auditlog:42"), "{error}");
}

async fn publish_counts_receivers(place: Place) {
    let messaging = place.messaging().await;
    place.counts(messaging.publish("nobody", &1).await.unwrap(), 0);
    let _exact = messaging.subscribe("somebody").await.unwrap();
    let _glob = messaging.subscribe("some*").await.unwrap();
    // One connection is subscribed by name and by pattern, which Redis counts as two.
    place.counts(messaging.publish("somebody", &1).await.unwrap(), 2);
}

async fn a_subscription_is_confirmed_before_it_returns(place: Place) {
    let messaging = place.messaging().await;
    let publisher = place.messaging().await;
    for number in 0..50 {
        let name = format!("channel.{number}");
        let mut subscription = messaging.subscribe(&name).await.unwrap();
        place.counts(publisher.publish(&name, &number).await.unwrap(), 1);
        let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
        assert_eq!(message.json::<u32>().unwrap(), number);
    }
}

async fn get_message_waits_at_most_its_timeout(place: Place) {
    let messaging = place.messaging().await;
    let mut subscription = messaging.subscribe("quiet").await.unwrap();
    assert!(subscription.get_message(Duration::from_millis(5)).await.unwrap().is_none());
    assert!(subscription.get_message(Duration::ZERO).await.unwrap().is_none());
    messaging.publish("quiet", &1).await.unwrap();
    assert!(subscription.get_message(crate::place::PATIENCE).await.unwrap().is_some());
}

async fn send_message_goes_to_everybody_on_the_channel(place: Place) {
    let messaging = place.messaging().await;
    let mut one = messaging.subscribe("chat:1").await.unwrap();
    let mut other = place.messaging().await.subscribe("chat:1").await.unwrap();
    place.counts(one.send_message(&json!({ "type": "acknowledgment" })).await.unwrap(), 2);
    for subscription in [&mut one, &mut other] {
        let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
        assert_eq!(message.json::<serde_json::Value>().unwrap()["type"], "acknowledgment");
    }
}

async fn send_message_on_a_pattern_is_refused(place: Place) {
    let messaging = place.messaging().await;
    for pattern in ["chat:*", "chat:{room}"] {
        let subscription = messaging.subscribe(pattern).await.unwrap();
        let error = subscription.send_message(&1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidChannel);
        assert!(error.is_not_sent());
    }
}

async fn a_subscription_is_a_stream(place: Place) {
    let messaging = place.messaging().await;
    let subscription = messaging.subscribe("numbers").await.unwrap();
    for number in 0..10 {
        messaging.publish("numbers", &number).await.unwrap();
    }
    let numbers =
        subscription.take(10).map(|message| message.unwrap().json::<u32>().unwrap()).collect::<Vec<_>>();
    assert_eq!(soon(numbers).await, (0..10).collect::<Vec<_>>());
}

async fn templates_give_segments_and_keep_to_their_separators(place: Place) {
    let messaging = place.messaging().await;
    let mut subscription = messaging.subscribe("tenant:{tenant}:user:{user}").await.unwrap();
    // All of these match the Redis pattern; only the last one matches the template.
    for channel in ["tenant:1:2:user:3", "tenant::user:3", "tenant:1:user:3.4", "tenant:1:user:7"] {
        let raw = Place { config: place.config.clone() }.messaging().await;
        place.counts(raw.publish(channel, &1).await.unwrap(), 1);
    }
    let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
    assert_eq!(message.segments().get("tenant"), Some("1"));
    assert_eq!(message.segments().parse::<u32>("user").unwrap(), 7);
    assert_eq!(message.segments().parse::<u32>("nobody").unwrap_err().kind(), ErrorKind::InvalidChannel);
    assert!(subscription.get_message(Duration::ZERO).await.unwrap().is_none());
}

async fn globs_mean_what_redis_means(place: Place) {
    let messaging = place.messaging().await;
    let mut subscription = messaging.subscribe("events.[a-c]?[^x]").await.unwrap();
    for (channel, receivers) in [("events.a1b", 1), ("events.d1b", 0), ("events.a1x", 0), ("events.a1", 0)] {
        place.counts(messaging.publish(channel, &1).await.unwrap(), receivers);
    }
    let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
    assert_eq!(message.channel(), &"events.a1b");
}

async fn dropping_a_subscription_unsubscribes(place: Place) {
    let messaging = place.messaging().await;
    let _other = messaging.subscribe("other").await.unwrap();
    let subscription = messaging.subscribe("mine").await.unwrap();
    drop(subscription);
    let publisher = place.messaging().await;
    eventually("nobody is subscribed", async || publisher.publish("mine", &1).await.unwrap() == 0).await;
    place.counts(publisher.publish("other", &1).await.unwrap(), 1);
}

async fn closing_a_subscription_unsubscribes(place: Place) {
    let messaging = place.messaging().await;
    messaging.subscribe("mine").await.unwrap().close().await;
    let publisher = place.messaging().await;
    eventually("nobody is subscribed", async || publisher.publish("mine", &1).await.unwrap() == 0).await;
    // It can be subscribed to again at once, also while the old one is still being given up.
    for _ in 0..20 {
        let mut again = messaging.subscribe("mine").await.unwrap();
        messaging.publish("mine", &1).await.unwrap();
        assert!(soon(again.get_message(None)).await.unwrap().is_some());
        again.close().await;
    }
}

async fn channels_that_are_not_valid_are_refused(place: Place) {
    let messaging = place.messaging().await;
    for channel in ["", "a b", "a\nb", "events.*", "chat:{room}", "what?"] {
        let error = messaging.publish(channel, &1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidChannel, "{channel:?}");
        assert!(error.is_not_sent() && !error.is_retryable());
    }
    for pattern in ["", "a b", "chat:{room", "{a}{b}", "{a}.*"] {
        let error = messaging.subscribe(pattern).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidChannel, "{pattern:?}");
    }
}

async fn a_payload_over_the_limit_is_refused_before_it_is_sent(mut place: Place) {
    place.config.max_payload = 100;
    let messaging = place.messaging().await;
    let mut subscription = messaging.subscribe("c").await.unwrap();
    let error = messaging.publish("c", &"x".repeat(99)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    assert!(error.is_not_sent() && error.to_string().contains("101 bytes"), "{error}");
    // A payload of exactly the limit goes through; one that somebody else sends over it is skipped.
    let generous = {
        let mut place = place.clone();
        place.config.max_payload = 1 << 20;
        place.messaging().await
    };
    generous.publish("c", &"y".repeat(200_000)).await.unwrap();
    messaging.publish("c", &"x".repeat(98)).await.unwrap();
    let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
    assert_eq!(message.payload().len(), 100);
    // Of two publishers on a cluster the second may be heard first.
    let skipped = async || messaging.health().sessions[0].oversized == 1;
    eventually("the larger one is counted", skipped).await;
}

#[channel("auditlog:{user_id}")]
#[derive(Debug, PartialEq)]
struct AuditLog {
    user_id: u64,
}

async fn a_typed_channel_publishes_subscribes_and_parses_back(place: Place) {
    let messaging = place.messaging().await;
    let channel = AuditLog { user_id: 7 };
    let mut one = messaging.subscribe(&channel).await.unwrap();
    let mut all = messaging.subscribe(AuditLog::TEMPLATE).await.unwrap();
    place.counts(messaging.publish(&channel, &1).await.unwrap(), 2);
    for subscription in [&mut one, &mut all] {
        let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
        assert_eq!(AuditLog::from_channel(message.channel()).unwrap(), channel);
    }
    assert_eq!(channel.to_channel().unwrap(), Channel::new("auditlog:7").unwrap());
    for wrong in ["auditlog:x", "auditlog:", "other:7", "auditlog:7:8"] {
        assert_eq!(AuditLog::from_channel(wrong).unwrap_err().kind(), ErrorKind::InvalidChannel, "{wrong}");
    }
    assert!(Pattern::parse(AuditLog::TEMPLATE).unwrap().matches("auditlog:9"));
}

async fn the_channel_prefix_separates(place: Place) {
    let messaging = place.messaging().await;
    let mut other = place.clone();
    other.config.channel_prefix = messaging_tests::unique("other-");
    let _other = other.messaging().await.subscribe("c").await.unwrap();
    place.counts(messaging.publish("c", &1).await.unwrap(), 0);
    // Without a prefix of its own, a client sees the channel with the prefix in its name.
    let mut bare = place.clone();
    bare.config.channel_prefix.clear();
    let whole = format!("{}c", place.config.channel_prefix);
    let mut bare = bare.messaging().await.subscribe(&whole).await.unwrap();
    place.counts(messaging.publish("c", &1).await.unwrap(), 1);
    assert_eq!(soon(bare.get_message(None)).await.unwrap().unwrap().channel(), &whole.as_str());
}

async fn the_server_can_be_asked(place: Place) {
    let messaging = place.messaging().await;
    let _subscription = messaging.subscribe("here").await.unwrap();
    let client = messaging.client();
    let connected: u64 = client.info().await.unwrap()["connected_clients"].parse().unwrap();
    assert!(connected >= 1);
    assert_eq!(client.pubsub_channels().await.unwrap(), ["here"]);
    let counts = client.pubsub_numsub(["here", "nowhere"]).await.unwrap();
    assert_eq!((counts["here"], counts["nowhere"]), (1, 0));
    place.counts(client.publish("here", "test message").await.unwrap(), 1);
    client.ping().await.unwrap();
}

async fn a_foreign_payload_stays_as_it_is(place: Place) {
    let messaging = place.messaging().await;
    let mut subscription = messaging.subscribe("c").await.unwrap();
    messaging
        .publish("c", &serde_json::value::RawValue::from_string(r#"{ "b": 1,  "a" : 2 }"#.into()).unwrap())
        .await
        .unwrap();
    let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
    assert_eq!(&message.payload()[..], br#"{ "b": 1,  "a" : 2 }"#);
}

async fn many_publishers_lose_nothing(place: Place) {
    let messaging = place.messaging().await;
    let mut subscription = messaging.subscribe("busy").await.unwrap();
    let publishers: Vec<_> = (0..8_u32)
        .map(|publisher| {
            let messaging = messaging.clone();
            tokio::spawn(async move {
                for number in 0..100_u32 {
                    messaging.publish("busy", &(publisher, number)).await.unwrap();
                }
            })
        })
        .collect();
    let mut next = [0_u32; 8];
    for _ in 0..800 {
        let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
        let (publisher, number): (usize, u32) = message.json().unwrap();
        assert_eq!(number, next[publisher], "each publisher's messages come in order");
        next[publisher] += 1;
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
}

async fn sharded_channels_are_apart(place: Place) {
    let messaging = place.messaging().await;
    let mut sharded = messaging.subscribe_sharded("c").await.unwrap();
    let mut plain = messaging.subscribe("c").await.unwrap();
    assert_eq!(messaging.publish("c", &"for the shard").sharded().await.unwrap(), 1);
    place.counts(messaging.publish("c", &"for all").await.unwrap(), 1);
    for (subscription, expected) in [(&mut sharded, "for the shard"), (&mut plain, "for all")] {
        let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
        assert_eq!(
            (message.channel().as_str(), message.json::<String>().unwrap()),
            ("c", expected.to_owned())
        );
        assert!(subscription.get_message(Duration::from_millis(1)).await.unwrap().is_none());
    }
    assert_eq!(sharded.send_message(&"again").await.unwrap(), 1);
    soon(sharded.get_message(None)).await.unwrap().unwrap();
    assert_eq!(messaging.publish("nobody", &1).sharded().await.unwrap(), 0);
}

async fn many_sharded_channels_are_heard_and_given_up(place: Place) {
    let messaging = place.messaging().await;
    let mut subscriptions = Vec::new();
    for number in 0..50 {
        subscriptions.push(messaging.subscribe_sharded(&format!("channel.{number}")).await.unwrap());
    }
    for (number, subscription) in subscriptions.iter_mut().enumerate() {
        let channel = format!("channel.{number}");
        assert_eq!(messaging.publish(&channel, &number).sharded().await.unwrap(), 1);
        let message = soon(subscription.get_message(None)).await.unwrap().unwrap();
        assert_eq!(message.json::<usize>().unwrap(), number);
    }
    for subscription in subscriptions {
        subscription.close().await;
    }
    for number in 0..50 {
        let channel = format!("channel.{number}");
        assert_eq!(messaging.publish(&channel, &number).sharded().await.unwrap(), 0);
    }
    // And once more: what was given up can be wanted again.
    let mut again = messaging.subscribe_sharded("channel.7").await.unwrap();
    assert_eq!(again.send_message(&7).await.unwrap(), 1);
    soon(again.get_message(None)).await.unwrap().unwrap();
}

async fn a_handler_of_sharded_channels(place: Place) {
    let messaging = place.messaging().await;
    let probe = Probe::default();
    let told = probe.clone();
    let handler =
        messaging.subscriber().sharded().on("vehicle.42", move |position: u64, channel: Channel| {
            told.tell((channel, position));
            async {}
        });
    let handler = handler.await.unwrap();
    messaging.publish("vehicle.42", &1).await.unwrap();
    assert_eq!(messaging.publish("vehicle.42", &2).sharded().await.unwrap(), 1);
    assert_eq!(probe.wait_for(1).await, [r#"("vehicle.42", 2)"#]);
    handler.stop().await;
    assert_eq!(messaging.publish("vehicle.42", &3).sharded().await.unwrap(), 0);
}

async fn a_sharded_pattern_is_refused(place: Place) {
    let messaging = place.messaging().await;
    for pattern in ["vehicle.*", "vehicle.{id}"] {
        let error = messaging.subscribe_sharded(pattern).await.unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidChannel && error.is_not_sent(), "{error:?}");
        assert!(error.to_string().contains(pattern), "{error}");
        let handler = messaging.subscriber().sharded().on(pattern, async |_: u64| {});
        let error = handler.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Registration);
        assert!(error.to_string().contains("no patterns"), "{error}");
    }
}
