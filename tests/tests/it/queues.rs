//! Queues: one process of each group gets a message, at least once; what fails is tried again, and kept when it is given
//! up.

use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use messaging_core::{
    Attempt, Builder, Channel, DeliveryMode, Durability, ErrorKind, EventId, HandlerError, Handlers, Headers,
    Messaging, OrderedBy, Overflow, Retention, Retry, StartAt, Subscriber, TestMessaging,
};

use crate::place::{Place, Probe, on_each_backend, soon};

on_each_backend! {
    a_message_reaches_one_consumer_of_each_group
    a_queue_keeps_what_is_published_while_nobody_reads
    a_queue_can_begin_with_what_is_there
    only_the_handler_that_failed_is_called_again
    what_is_given_up_is_kept_with_all_facts_and_can_be_replayed
    errors_choose_the_fate_of_a_message
    a_payload_that_cannot_be_decoded_is_a_dead_letter_at_once
    the_dead_letter_channel_is_told
    an_event_that_is_published_twice_is_handled_once
    ids_keys_and_headers_arrive
    only_durable_messages_have_headers
    subscribers_and_publishers_meet_whatever_placeholders_are_called
    a_thousand_ids_are_one_stream
    partitions_keep_the_order_of_a_key
    an_ordered_key_waits_for_its_own_retry
    a_broadcast_handler_hears_durable_messages_too
    a_durable_message_can_go_to_a_sharded_channel
    what_does_not_go_together_is_refused
    two_handlers_of_one_group_on_one_stream_are_refused
    a_stop_hands_back_what_waits
    a_slow_handler_leaves_messages_to_others
    health_tells_of_queues
    history_is_read_in_order_and_in_pieces
    a_resumable_handler_gets_everything_in_order
    a_resumable_handler_can_begin_with_what_is_there
    a_resumable_handler_is_told_of_what_was_removed
}

const QUICK: Retry = Retry {
    attempts: NonZeroU32::new(3).unwrap(),
    initial: Duration::from_millis(10),
    multiplier: 1.0,
    max_delay: Duration::from_millis(10),
};

fn queue(messaging: &Messaging, group: &str) -> Subscriber {
    messaging.subscriber().delivery(DeliveryMode::Queue).group(group).id(group).retry(QUICK)
}

/// A handler that tells what it gets.
fn teller(probe: &Probe) -> impl Fn(u32) -> std::future::Ready<()> + Send + Sync + 'static + use<> {
    let probe = probe.clone();
    move |number| {
        probe.tell(number);
        std::future::ready(())
    }
}

async fn numbers(probe: &Probe, count: usize) -> Vec<u32> {
    soon(probe.wait_for(count)).await.iter().map(|number| number.parse().unwrap()).collect()
}

async fn sorted(probe: &Probe, count: usize) -> Vec<u32> {
    let mut numbers = numbers(probe, count).await;
    numbers.sort_unstable();
    numbers
}

/// Waits until a group has nothing left to do, and everything of it is settled.
async fn settled(messaging: &Messaging, group: &str) {
    messaging_tests::eventually("everything is settled", async || {
        let groups = messaging.queues().await.unwrap();
        let mut of_group = groups.iter().filter(|queue| queue.group == group);
        of_group.all(|queue| queue.pending + queue.delayed + queue.unread == 0).then_some(())
    })
    .await;
}

async fn publish(messaging: &Messaging, channel: &str, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        messaging.publish(channel, &number).durable().await.unwrap();
    }
}

async fn a_message_reaches_one_consumer_of_each_group(place: Place) {
    let (a, b, publisher) = (place.messaging().await, place.messaging().await, place.messaging().await);
    let (billing, mailing) = (Probe::default(), Probe::default());
    for messaging in [&a, &b] {
        for (group, probe) in [("billing", &billing), ("mailing", &mailing)] {
            let _ = queue(messaging, group).on("orders.created", teller(probe)).await.unwrap();
        }
    }
    publish(&publisher, "orders.created", 0..50).await;
    for (group, probe) in [("billing", &billing), ("mailing", &mailing)] {
        assert_eq!(sorted(probe, 50).await, (0..50).collect::<Vec<_>>());
        settled(&publisher, group).await;
        assert_eq!(probe.told().len(), 50);
    }
}

async fn a_queue_keeps_what_is_published_while_nobody_reads(place: Place) {
    let probe = Probe::default();
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let handler = queue(&messaging, "workers").on("jobs", teller(&probe)).await.unwrap();
    handler.stop().await;
    publish(&messaging, "jobs", 1..4).await;
    let later = place.messaging().await;
    let _handler = queue(&later, "workers").on("jobs", teller(&probe)).await.unwrap();
    // What was there before the group was made is not its own.
    assert_eq!(numbers(&probe, 3).await, [1, 2, 3]);
}

async fn a_queue_can_begin_with_what_is_there(place: Place) {
    let probe = Probe::default();
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", 0..3).await;
    let subscriber = queue(&messaging, "workers").start_at(StartAt::Beginning);
    let handler = subscriber.on("jobs", teller(&probe)).await.unwrap();
    assert_eq!(numbers(&probe, 3).await, [0, 1, 2]);
    settled(&messaging, "workers").await;
    handler.stop().await;
    // That counts only for a group that does not exist.
    let again = queue(&messaging, "workers").start_at(StartAt::Beginning);
    let _handler = again.on("jobs", teller(&probe)).await.unwrap();
    publish(&messaging, "jobs", [3]).await;
    assert_eq!(numbers(&probe, 4).await, [0, 1, 2, 3]);
}

async fn only_the_handler_that_failed_is_called_again(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let (failing, sound) = (Probe::default(), Probe::default());
    let told = failing.clone();
    let fails_twice = move |number: u32, attempt: Attempt| {
        told.tell((number, attempt.0));
        std::future::ready(if attempt.0 < 3 { Err("not yet") } else { Ok(()) })
    };
    let _failing = queue(&messaging, "failing").on("jobs", fails_twice).await.unwrap();
    let _sound = queue(&messaging, "sound").on("jobs", teller(&sound)).await.unwrap();
    publish(&messaging, "jobs", [7]).await;
    assert_eq!(failing.wait_for(3).await, ["(7, 1)", "(7, 2)", "(7, 3)"]);
    settled(&messaging, "failing").await;
    settled(&messaging, "sound").await;
    assert_eq!((failing.told().len(), sound.told().len()), (3, 1));
    assert!(messaging.dead_letters("failing").list().await.unwrap().is_empty());
}

async fn what_is_given_up_is_kept_with_all_facts_and_can_be_replayed(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let (poisoned, sound) = (Probe::default(), Probe::default());
    let told = poisoned.clone();
    let always_fails = move |number: u32, attempt: Attempt| {
        told.tell((number, attempt.0));
        std::future::ready(Err::<(), _>(format!("cannot do {number}")))
    };
    let _poisoned = queue(&messaging, "poisoned").on("jobs", always_fails).await.unwrap();
    let _sound = queue(&messaging, "sound").on("jobs", teller(&sound)).await.unwrap();
    messaging.publish("jobs", &7).durable().id("seven").header("colour", "red").await.unwrap();
    messaging.publish("jobs", &8).durable().await.unwrap();
    let dead = messaging.dead_letters("poisoned");
    let letters = messaging_tests::eventually("two dead letters", async || {
        Some(dead.list().await.unwrap()).filter(|letters| letters.len() == 2)
    })
    .await;
    assert_eq!(poisoned.told().len(), 6, "three attempts each");
    let seven = letters.iter().find(|letter| letter.event_id().as_str() == "seven").unwrap();
    assert_eq!((seven.json::<u32>().unwrap(), &**seven.channel()), (7, "jobs"));
    assert_eq!((seven.error(), seven.attempts(), seven.handler()), ("cannot do 7", 3, "poisoned"));
    assert_eq!(seven.headers().get("colour"), Some("red"));
    assert!(seven.failed_at() >= seven.published_at() && seven.number() > 0);

    dead.replay(seven.id()).await.unwrap();
    assert_eq!(dead.replay(seven.id()).await.unwrap_err().kind(), ErrorKind::NotFound);
    poisoned.wait_for(9).await;
    let letters = messaging_tests::eventually("it is dead again", async || {
        Some(dead.list().await.unwrap()).filter(|letters| letters.len() == 2)
    })
    .await;
    let again = letters.iter().find(|letter| letter.event_id().as_str() == "seven").unwrap();
    assert_eq!((again.attempts(), again.headers().get("colour")), (3, Some("red")));
    assert!(dead.purge(again.id()).await.unwrap() && !dead.purge(again.id()).await.unwrap());
    assert_eq!(dead.replay_all().await.unwrap(), 1);
    poisoned.wait_for(12).await;
    settled(&messaging, "poisoned").await;
    assert_eq!(dead.purge_all().await.unwrap(), 1);
    assert!(dead.list().await.unwrap().is_empty());
    settled(&messaging, "sound").await;
    assert_eq!(sound.told(), ["7", "8"], "a replay is for its group alone");
}

async fn errors_choose_the_fate_of_a_message(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let probe = Probe::default();
    let told = probe.clone();
    let handler = move |what: String, attempt: Attempt| {
        told.tell((&what, attempt.0));
        std::future::ready(match what.as_str() {
            "skip" => Err(HandlerError::skip("no use")),
            "dead" => Err(HandlerError::dead_letter("poison")),
            "retry" => Err(HandlerError::retry("again")),
            _ => Ok(()),
        })
    };
    let _handler = queue(&messaging, "workers").on("jobs", handler).await.unwrap();
    for what in ["skip", "dead", "retry", "fine"] {
        messaging.publish("jobs", what).durable().await.unwrap();
    }
    probe.wait_for(6).await;
    settled(&messaging, "workers").await;
    let dead = messaging.dead_letters("workers").list().await.unwrap();
    let mut dead: Vec<_> =
        dead.iter().map(|letter| (letter.json::<String>().unwrap(), letter.attempts())).collect();
    dead.sort();
    assert_eq!(dead, [("dead".to_owned(), 1), ("retry".to_owned(), 3)]);
    assert_eq!(probe.told().len(), 6);
}

async fn a_payload_that_cannot_be_decoded_is_a_dead_letter_at_once(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let probe = Probe::default();
    let _handler = queue(&messaging, "workers").on("jobs", teller(&probe)).await.unwrap();
    messaging.publish("jobs", "not a number").durable().await.unwrap();
    publish(&messaging, "jobs", [5]).await;
    assert_eq!(numbers(&probe, 1).await, [5]);
    settled(&messaging, "workers").await;
    let dead = messaging.dead_letters("workers").list().await.unwrap();
    assert_eq!((dead.len(), dead[0].attempts()), (1, 1));
    assert!(dead[0].error().contains("expected u32"), "{}", dead[0].error());
}

async fn the_dead_letter_channel_is_told(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let mut alias = messaging.subscribe("jobs.dead").await.unwrap();
    let poison = |_: u32| std::future::ready(Err::<(), _>(HandlerError::dead_letter("poison")));
    let subscriber = queue(&messaging, "workers").dead_letter("jobs.dead");
    let _handler = subscriber.on("jobs", poison).await.unwrap();
    messaging.publish("jobs", &1).durable().id("one").await.unwrap();
    let notice = soon(alias.get_message(None)).await.unwrap().unwrap();
    let notice: serde_json::Value = notice.json().unwrap();
    assert_eq!(
        (&notice["event"], &notice["group"], &notice["error"]),
        (&"one".into(), &"workers".into(), &"poison".into())
    );
    assert_eq!(messaging.dead_letters("workers").list().await.unwrap().len(), 1);
}

async fn an_event_that_is_published_twice_is_handled_once(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let probe = Probe::default();
    let subscriber = queue(&messaging, "workers").dedupe(Duration::from_secs(60));
    let _handler = subscriber.on("jobs", teller(&probe)).await.unwrap();
    messaging.publish("jobs", &1).durable().id("one").await.unwrap();
    assert_eq!(numbers(&probe, 1).await, [1]);
    settled(&messaging, "workers").await;
    // Again, and two of another event at once.
    messaging.publish("jobs", &1).durable().id("one").await.unwrap();
    messaging.publish("jobs", &2).durable().id("two").await.unwrap();
    messaging.publish("jobs", &2).durable().id("two").await.unwrap();
    publish(&messaging, "jobs", [3]).await;
    probe.wait_for(3).await;
    settled(&messaging, "workers").await;
    assert_eq!(numbers(&probe, 3).await, [1, 2, 3]);
    assert_eq!(messaging.health().handlers[0].counts.duplicates, 2);
}

async fn ids_keys_and_headers_arrive(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let probe = Probe::default();
    let told = probe.clone();
    let handler = move |_: u32, id: EventId, headers: Headers, channel: Channel| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        told.tell((id.to_string(), headers, channel.to_string()));
        std::future::ready(())
    };
    let _handler = queue(&messaging, "workers").on("jobs", handler).await.unwrap();
    let publish = messaging.publish("jobs", &1).durable();
    publish.id("event-1").header("traceparent", "00-1").header("b", "2").await.unwrap();
    let expected = r#"("event-1", ["traceparent=00-1", "b=2"], "jobs")"#;
    assert_eq!(probe.wait_for(1).await, [expected]);
    messaging.publish("jobs", &1).durable().await.unwrap();
    let told = probe.wait_for(2).await;
    assert_eq!(&told[1][15..17], "-7", "{told:?}: a UUID of version 7");
}

async fn only_durable_messages_have_headers(place: Place) {
    let messaging = place.messaging().await;
    let error = messaging.publish("jobs", &1).header("a", "b").await.unwrap_err();
    assert!(error.is_not_sent() && error.to_string().contains("`.durable()`"), "{error}");
    for name in ["", "data", "n", "dead.error"] {
        let error = messaging.publish("jobs", &1).durable().header(name, "b").await.unwrap_err();
        assert!(error.is_not_sent() && error.to_string().contains("cannot be a header"), "{error}");
    }
}

fn durable(place: &Place, pattern: &str, durability: impl Into<Durability>) -> Builder {
    place.builder().durable(pattern, durability)
}

async fn subscribers_and_publishers_meet_whatever_placeholders_are_called(place: Place) {
    let publisher = durable(&place, "orders:{id}:created", Retention::DEFAULT).build().await.unwrap();
    publisher.publish("orders:0:created", &0).await.unwrap();
    let messaging = place.messaging().await;
    let (by_template, by_glob, by_channel) = (Probe::default(), Probe::default(), Probe::default());
    let _a = queue(&messaging, "a").on("orders:{order}:created", teller(&by_template)).await.unwrap();
    let _b = queue(&messaging, "b").on("orders:*", teller(&by_glob)).await.unwrap();
    let _c = queue(&messaging, "c").on("orders:2:created", teller(&by_channel)).await.unwrap();
    for id in 1..=3 {
        publisher.publish(&format!("orders:{id}:created"), &id).await.unwrap();
    }
    assert_eq!(numbers(&by_template, 3).await, [1, 2, 3]);
    assert_eq!(numbers(&by_glob, 3).await, [1, 2, 3]);
    assert_eq!(numbers(&by_channel, 1).await, [2]);
    for group in ["a", "b", "c"] {
        settled(&messaging, group).await;
    }
    let streams: Vec<_> = messaging.health().handlers.into_iter().map(|handler| handler.streams).collect();
    let first = streams[0].clone();
    assert!(streams.iter().all(|streams| *streams == first && streams.len() == 1), "{streams:?}");
}

async fn a_thousand_ids_are_one_stream(place: Place) {
    let publisher = durable(&place, "orders:{id}", Retention::DEFAULT).build().await.unwrap();
    for id in 0..1_000 {
        publisher.publish(&format!("orders:{id}"), &id).await.unwrap();
    }
    let probe = Probe::default();
    let subscriber = queue(&publisher, "all").start_at(StartAt::Beginning);
    let _handler = subscriber.on("orders:{id}", teller(&probe)).await.unwrap();
    assert_eq!(numbers(&probe, 1_000).await, (0..1_000).collect::<Vec<_>>());
    assert_eq!(publisher.health().handlers[0].streams.len(), 1);
}

async fn partitions_keep_the_order_of_a_key(place: Place) {
    let durability = Durability::DEFAULT.partitions(NonZeroU16::new(4).unwrap());
    let publisher = durable(&place, "orders", durability).build().await.unwrap();
    publisher.publish("orders", &(0, 0)).await.unwrap();
    let probe = Probe::default();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let messaging = place.messaging().await;
        let told = probe.clone();
        let handler = move |payload: (u32, u32)| {
            let told = told.clone();
            async move {
                tokio::task::yield_now().await;
                told.tell(payload);
            }
        };
        let subscriber =
            queue(&messaging, "workers").workers(NonZeroUsize::new(4).unwrap()).ordered_by(OrderedBy::Key);
        let _ = subscriber.on("orders", handler).await.unwrap();
        consumers.push(messaging);
    }
    for number in 0..50_u32 {
        for key in 0..10_u32 {
            publisher.publish("orders", &(key, number)).key(key.to_string()).await.unwrap();
        }
    }
    let told = probe.wait_for(500).await;
    for key in 0..10 {
        let of_key: Vec<_> = told.iter().filter(|told| told.starts_with(&format!("({key},"))).collect();
        let expected: Vec<_> = (0..50).map(|number| format!("({key}, {number})")).collect();
        assert_eq!(of_key, expected.iter().collect::<Vec<_>>());
    }
}

async fn an_ordered_key_waits_for_its_own_retry(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let probe = Probe::default();
    let told = probe.clone();
    let handler = move |number: u32, attempt: Attempt| {
        told.tell((number, attempt.0));
        std::future::ready(if attempt.0 == 1 { Err("not yet") } else { Ok(()) })
    };
    let subscriber = queue(&messaging, "workers").ordered_by(OrderedBy::Key);
    let _handler = subscriber.on("jobs", handler).await.unwrap();
    for number in 1..=2 {
        messaging.publish("jobs", &number).durable().key("same").await.unwrap();
    }
    assert_eq!(probe.wait_for(4).await, ["(1, 1)", "(1, 2)", "(2, 1)", "(2, 2)"]);
    settled(&messaging, "workers").await;
}

async fn a_broadcast_handler_hears_durable_messages_too(place: Place) {
    let messaging = place.messaging().await;
    let probe = Probe::default();
    let _handler = messaging.subscriber().on("jobs", teller(&probe)).await.unwrap();
    place.counts(messaging.publish("jobs", &1).durable().await.unwrap(), 1);
    assert_eq!(numbers(&probe, 1).await, [1]);
}

async fn a_durable_message_can_go_to_a_sharded_channel(place: Place) {
    let (messaging, probe) = (place.messaging().await, Probe::default());
    let _handler = queue(&messaging, "workers").on("jobs", teller(&probe)).await.unwrap();
    let mut sharded = messaging.subscribe_sharded("jobs").await.unwrap();
    let mut plain = messaging.subscribe("jobs").await.unwrap();
    assert_eq!(messaging.publish("jobs", &1_u32).durable().sharded().await.unwrap(), 1);
    assert_eq!(numbers(&probe, 1).await, [1]);
    let heard = soon(sharded.get_message(None)).await.unwrap().unwrap();
    assert_eq!(heard.json::<u32>().unwrap(), 1);
    publish(&messaging, "jobs", [2]).await;
    let heard = soon(plain.get_message(None)).await.unwrap().unwrap();
    assert_eq!(heard.json::<u32>().unwrap(), 2, "the sharded one passed it by");
    assert!(sharded.get_message(Duration::from_millis(1)).await.unwrap().is_none());
}

async fn what_does_not_go_together_is_refused(place: Place) {
    let messaging = place.messaging().await;
    let nothing = async || {};
    for (subscriber, reason) in [
        (messaging.subscriber().group("g"), "only a queue has"),
        (messaging.subscriber().dead_letter("d"), "only a queue has"),
        (messaging.subscriber().dedupe(Duration::from_secs(1)), "a broadcast cannot have"),
        (messaging.subscriber().start_at(StartAt::Beginning), "a broadcast cannot have"),
        (messaging.subscriber().ordered_by(OrderedBy::Key), "a broadcast cannot have"),
        (queue(&messaging, "g").overflow(Overflow::DropOldest), "nothing overflows"),
        (queue(&messaging, "g").dedupe(Duration::ZERO), "a `dedupe` of nothing"),
        (queue(&messaging, "{g}"), "letters, digits"),
        (queue(&messaging, "g").dead_letter("dead.*"), "dead-letter channel"),
        (messaging.subscriber().delivery(DeliveryMode::Queue), "needs a group"),
    ] {
        let error = subscriber.on("jobs", nothing).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let error = messaging.subscriber().on("jobs", async |_: EventId| {}).await.unwrap_err().to_string();
    assert!(error.contains("takes `EventId`") && error.contains("delivery = \"queue\""), "{error}");
    let error = durable(&place, "a.*", Retention::DEFAULT).durable("a.b", Retention::DEFAULT).build().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Configuration);
}

async fn two_handlers_of_one_group_on_one_stream_are_refused(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let _first = queue(&messaging, "workers").on("jobs", async || {}).await.unwrap();
    let error = queue(&messaging, "workers").id("other").on("jobs", async || {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Registration);
    assert!(error.to_string().contains("`workers` and `other` are both in the group `workers`"), "{error}");
}

async fn a_stop_hands_back_what_waits(place: Place) {
    let (first, second) = (place.messaging().await, place.messaging().await);
    publish(&first, "jobs", [0]).await;
    let (begun, others) = (Probe::default(), Probe::default());
    let (told, go_on) = (begun.clone(), std::sync::Arc::new(tokio::sync::Notify::new()));
    let gate = go_on.clone();
    let stuck = move |number: u32| {
        let (told, gate) = (told.clone(), gate.clone());
        async move {
            told.tell(number);
            gate.notified().await;
        }
    };
    let handler = queue(&first, "workers").on("jobs", stuck).await.unwrap();
    publish(&first, "jobs", 1..=10).await;
    begun.wait_for(1).await;
    messaging_tests::eventually("something waits in its hands", async || {
        (first.health().handlers[0].waiting > 0).then_some(())
    })
    .await;
    let stopping = tokio::spawn(handler.stop());
    let _second = queue(&second, "workers").on("jobs", teller(&others)).await.unwrap();
    assert_eq!(
        sorted(&others, 9).await,
        (2..=10).collect::<Vec<_>>(),
        "what waited, though the first is still busy"
    );
    go_on.notify_one();
    soon(stopping).await.unwrap();
    settled(&second, "workers").await;
    assert_eq!((begun.told().len(), others.told().len()), (1, 9));
}

async fn a_slow_handler_leaves_messages_to_others(place: Place) {
    let (slow, fast) = (place.messaging().await, place.messaging().await);
    publish(&slow, "jobs", [0]).await;
    let (begun, others) = (Probe::default(), Probe::default());
    let told = begun.clone();
    let stuck = move |number: u32| {
        told.tell(number);
        std::future::pending::<()>()
    };
    let _slow = queue(&slow, "workers").on("jobs", stuck).await.unwrap();
    publish(&slow, "jobs", 1..=100).await;
    begun.wait_for(1).await;
    let _fast = queue(&fast, "workers").on("jobs", teller(&others)).await.unwrap();
    // The slow one took only a few ahead.
    others.wait_for(90).await;
}

async fn health_tells_of_queues(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", [0]).await;
    let handler = queue(&messaging, "workers").on("jobs", async || {}).await.unwrap();
    let health = messaging.health();
    let queue = &health.handlers[0];
    assert_eq!((queue.delivery, queue.group.as_deref()), (DeliveryMode::Queue, Some("workers")));
    assert!(queue.streams.len() == 1 && queue.streams[0].ends_with("jobs"), "{:?}", queue.streams);
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["handlers"][0]["delivery"], "queue");
    let state = messaging.queues().await.unwrap();
    assert_eq!((state.len(), state[0].group.as_str(), state[0].alive), (1, "workers", 1));
    handler.stop().await;
    assert_eq!(messaging.queues().await.unwrap()[0].alive, 0);
}

async fn history_is_read_in_order_and_in_pieces(place: Place) {
    let publisher = durable(&place, "orders:{id}", Retention::DEFAULT).build().await.unwrap();
    for id in 0..10 {
        publisher.publish(&format!("orders:{id}"), &id).header("id", id.to_string()).await.unwrap_err();
        publisher.publish(&format!("orders:{id}"), &id).header("x", id.to_string()).await.unwrap();
    }
    let reader = place.messaging().await;
    let first = reader.history("orders:*").limit(4).await.unwrap();
    let values = |past: &[messaging_core::PastMessage]| -> Vec<u32> {
        past.iter().map(|message| message.json().unwrap()).collect()
    };
    assert_eq!(values(&first), [0, 1, 2, 3]);
    let rest = reader.history("orders:{id}").since(first[3].position()).await.unwrap();
    assert_eq!(values(&rest), [4, 5, 6, 7, 8, 9]);
    assert_eq!((rest[0].number(), rest[0].headers().get("x")), (5, Some("4")));
    let one = reader.history("orders:7").await.unwrap();
    assert_eq!((values(&one), one[0].channel().as_str()), (vec![7], "orders:7"));
    assert!(reader.history("nothing").await.unwrap().is_empty());
    assert_eq!(reader.history("or ders").await.unwrap_err().kind(), ErrorKind::InvalidChannel);
}

fn resumable(messaging: &Messaging) -> Subscriber {
    messaging.subscriber().delivery(DeliveryMode::Resumable).id("resumable").retry(QUICK)
}

async fn a_resumable_handler_gets_everything_in_order(place: Place) {
    let publisher = place.messaging().await;
    publish(&publisher, "jobs", [99]).await;
    let probes = [Probe::default(), Probe::default()];
    let mut processes = Vec::new();
    for probe in &probes {
        let messaging = place.messaging().await;
        let told = probe.clone();
        let fails_once = move |number: u32, attempt: Attempt, _: EventId| {
            let failed = number == 5 && attempt.0 == 1;
            if !failed {
                told.tell(number);
            }
            std::future::ready(if failed { Err("not yet") } else { Ok(()) })
        };
        let _ = resumable(&messaging).on("jobs", fails_once).await.unwrap();
        processes.push(messaging);
    }
    publish(&publisher, "jobs", 0..100).await;
    for probe in &probes {
        assert_eq!(numbers(probe, 100).await, (0..100).collect::<Vec<_>>());
    }
}

async fn a_resumable_handler_can_begin_with_what_is_there(place: Place) {
    let messaging = place.messaging().await;
    publish(&messaging, "jobs", 0..3).await;
    let probe = Probe::default();
    let subscriber = resumable(&messaging).start_at(StartAt::Beginning).dedupe(Duration::from_secs(60));
    let _handler = subscriber.on("jobs", teller(&probe)).await.unwrap();
    for _ in 0..2 {
        messaging.publish("jobs", &3).durable().id("three").await.unwrap();
    }
    publish(&messaging, "jobs", [4]).await;
    assert_eq!(numbers(&probe, 5).await, [0, 1, 2, 3, 4]);
}

async fn a_resumable_handler_is_told_of_what_was_removed(place: Place) {
    // Redis removes in chunks of a hundred.
    let kept = Retention { max_len: std::num::NonZeroU64::new(100).unwrap(), ..Retention::DEFAULT };
    let publisher = durable(&place, "jobs", kept).build().await.unwrap();
    publish(&publisher, "jobs", [0]).await;
    let messaging = place.builder().handlers(Handlers::none()).build().await.unwrap();
    let (probe, gate) = (Probe::default(), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (told, held) = (probe.clone(), gate.clone());
    let handler = move |number: u32| {
        let (told, held) = (told.clone(), held.clone());
        async move {
            told.tell(number);
            if number == 1 {
                held.notified().await;
            }
        }
    };
    let small = messaging_core::Buffer { messages: NonZeroUsize::new(10).unwrap(), ..Default::default() };
    let _handler = resumable(&messaging).buffer(small).on("jobs", handler).await.unwrap();
    publish(&publisher, "jobs", 1..=1_000).await;
    probe.wait_for(1).await;
    gate.notify_one();
    messaging_tests::eventually("the last one is handled", async || {
        probe.told().last().is_some_and(|last| last == "1000").then_some(())
    })
    .await;
    let told = numbers(&probe, 1).await;
    assert!(told.is_sorted() && told.len() < 1_000, "{}", told.len());
    let counts = messaging.health().handlers[0].counts;
    assert_eq!(counts.removed as usize + told.len(), 1_000);
    assert!(counts.gaps >= 1);
}

/// Handlers of each delivery count what `settled` has to wait for, whether their streams are there or come up later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_waits_for_queues_and_resumable_handlers() {
    let partitioned = Durability::DEFAULT.partitions(NonZeroU16::new(4).unwrap());
    for round in 0..10 {
        let set_up = |builder: Builder| builder.handlers(Handlers::none()).durable("parts.{id}", partitioned);
        let test = TestMessaging::with(set_up).await.unwrap();
        let probe = Probe::default();
        let fails_once = |probe: &Probe| {
            let probe = probe.clone();
            move |number: u32, attempt: Attempt| {
                let failed = number.is_multiple_of(3) && attempt.0 == 1;
                if !failed {
                    probe.tell(number);
                }
                std::future::ready(if failed { Err("not yet") } else { Ok(()) })
            }
        };
        let _queue = queue(&test, "queue").on("late.*", fails_once(&probe)).await.unwrap();
        let _resumable = resumable(&test).on("late.*", fails_once(&probe)).await.unwrap();
        let ordered = queue(&test, "ordered").ordered_by(OrderedBy::Key);
        let ordered = ordered.on("parts.{id}", fails_once(&probe)).await.unwrap();
        for number in 0..4_u32 {
            test.publish(&format!("late.{}", number % 2), &number).durable().await.unwrap();
            test.publish(&format!("parts.{number}"), &number).await.unwrap();
        }
        soon(test.settled()).await;
        assert_eq!(probe.told().len(), 12, "round {round}");
        ordered.stop().await;
        test.publish("parts.1", &1).await.unwrap();
        soon(test.settled()).await;
    }
}
