//! Handlers: their arguments, their order, and what becomes of failures.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use messaging_core::{
    Attempt, Buffer, Channel, ChannelOf, Context, Delivery, ErrorAction, ErrorKind, FromDelivery,
    HandlerError, HandlerState, Handlers, Messaging, OrderedBy, Overflow, Raw, Rejection, Segments, State,
    channel, subscribe, subscribers,
};
use messaging_tests::eventually;
use serde::Deserialize;
use tokio::sync::{Barrier, Semaphore};

use crate::place::{Place, Probe, on_each_backend, soon};

on_each_backend! {
    a_handler_gets_its_payload
    placeholders_are_typed_arguments
    a_glob_handler_gets_the_channel
    several_channels_make_one_handler
    overlapping_channels_deliver_once
    payloads_can_borrow_even_with_escapes
    everything_can_be_taken_from_a_delivery
    a_service_method_is_a_handler
    a_typed_channel_can_be_subscribed_to
    one_worker_keeps_the_order
    ordered_workers_keep_the_order_of_each_value
    workers_work_at_the_same_time
    a_failing_handler_is_tried_again_and_then_given_up
    an_error_can_choose_its_fate
    the_error_handler_overrides_the_policy
    an_error_handler_can_stop_a_handler
    an_error_handler_that_panics_stops_nothing
    a_panic_stops_nothing
    a_timeout_is_a_failure
    what_cannot_be_decoded_is_skipped
    a_handler_can_publish
    handlers_come_and_go_at_run_time
    a_service_of_a_generic_type_is_added_at_run_time
    a_runtime_handler_with_a_taken_id_is_refused
    drop_oldest_keeps_the_newest
    block_loses_nothing_and_holds_nobody_else_up
    a_stuck_handler_is_told_what_it_lost
    resync_comes_first_and_then_at_its_interval
    a_failing_resync_is_tried_again
}

#[derive(Debug, Deserialize)]
struct Order {
    id: u64,
    customer: String,
}

#[subscribe("orders.created")]
async fn on_order(order: Order, probe: State<Probe>) {
    probe.tell((order.id, order.customer));
}

async fn a_handler_gets_its_payload(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_order").await;
    let order = serde_json::json!({ "id": u64::MAX, "customer": "Ada", "more": [1, 2] });
    place.counts(running.messaging().publish("orders.created", &order).await.unwrap(), 1);
    assert_eq!(probe.wait_for(1).await, [r#"(18446744073709551615, "Ada")"#]);
    eventually("it is counted", async || running.messaging().health().handlers[0].counts.handled == 1).await;
    let health = running.messaging().health();
    assert!(health.is_ready(), "{health:?}");
    assert_eq!(health.channels, ["orders.created"]);
}

#[subscribe("camera.events.complex:{complex_id}:{kind}", workers = 4, ordered_by = complex_id)]
async fn on_complex(complex_id: u64, kind: &str, _event: serde_json::Value, probe: State<Probe>) {
    probe.tell((complex_id, kind));
}

async fn placeholders_are_typed_arguments(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_complex").await;
    for channel in
        ["camera.events.complex:x:moved", "camera.events.complex:-1:moved", "camera.events.complex:7:moved"]
    {
        running.messaging().publish(channel, &()).await.unwrap();
    }
    assert_eq!(probe.wait_for(1).await, [r#"(7, "moved")"#]);
    let counted = async || {
        let counts = running.messaging().health().handlers[0].counts;
        (counts.mismatched, counts.handled) == (2, 1)
    };
    eventually("what does not parse is counted and not delivered", counted).await;
}

#[subscribe("events.*")]
async fn on_event(event: u32, channel: Channel, probe: State<Probe>) {
    probe.tell((channel, event));
}

async fn a_glob_handler_gets_the_channel(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_event").await;
    running.messaging().publish("events.user.created", &1).await.unwrap();
    assert_eq!(probe.wait_for(1).await, [r#"("events.user.created", 1)"#]);
    assert_eq!(running.messaging().health().patterns, ["events.*"]);
}

#[subscribe(["a.{id}", "b.{id}"])]
async fn on_a_or_b(id: u32, channel: Channel, probe: State<Probe>) {
    probe.tell((id, channel));
}

async fn several_channels_make_one_handler(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_a_or_b").await;
    running.messaging().publish("a.1", &()).await.unwrap();
    running.messaging().publish("b.2", &()).await.unwrap();
    assert_eq!(probe.wait_for(2).await, [r#"(1, "a.1")"#, r#"(2, "b.2")"#]);
}

#[subscribe(["lamp.on", "lamp.*", "*.on"])]
async fn on_lamp(channel: Channel, probe: State<Probe>) {
    probe.tell(channel);
}

async fn overlapping_channels_deliver_once(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_lamp").await;
    // Redis delivers three times.
    place.counts(running.messaging().publish("lamp.on", &()).await.unwrap(), 3);
    running.messaging().publish("lamp.off", &()).await.unwrap();
    running.messaging().publish("heater.on", &()).await.unwrap();
    assert_eq!(probe.wait_for(3).await, [r#""lamp.on""#, r#""lamp.off""#, r#""heater.on""#]);
}

#[derive(Deserialize)]
struct Borrowed<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    raw: &'a serde_json::value::RawValue,
}

#[subscribe("borrowed")]
async fn on_borrowed(event: Borrowed<'_>, probe: State<Probe>) {
    probe.tell((&event.name, matches!(event.name, Cow::Borrowed(_)), event.raw.get()));
}

async fn payloads_can_borrow_even_with_escapes(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_borrowed").await;
    for json in [r#"{"name":"plain","raw":[1]}"#, r#"{"name":"caf\u00e9","raw":{}}"#] {
        let raw = serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
        running.messaging().publish("borrowed", &raw).await.unwrap();
    }
    assert_eq!(probe.wait_for(2).await, [r#"("plain", true, "[1]")"#, r#"("café", false, "{}")"#]);
}

/// An extractor as users write it.
struct Tenant(String);

impl<'d> FromDelivery<'d> for Tenant {
    fn from_delivery(delivery: &'d Delivery) -> Result<Self, Rejection> {
        match delivery.segment("tenant") {
            Some("forbidden") => Err(Rejection::failed("this tenant is forbidden")),
            Some("foreign") => Err(Rejection::mismatch()),
            Some(tenant) => Ok(Self(tenant.to_owned())),
            None => Err(Rejection::mismatch()),
        }
    }
}

#[subscribe("tenant:{tenant}", retry = { attempts = 1 })]
#[allow(clippy::too_many_arguments)]
async fn on_everything(
    tenant: &str,
    own: Tenant,
    payload: Vec<u8>,
    raw: Raw,
    segments: Segments,
    attempt: Attempt,
    context: Context,
    messaging: Messaging,
    probe: State<Probe>,
) {
    assert_eq!(tenant, own.0);
    let endpoint_is_known = !messaging.config().endpoint.to_string().is_empty();
    probe.tell((
        (tenant, payload, String::from_utf8_lossy(&raw)),
        (segments.get("tenant"), attempt, context.handler(), context.is_shutting_down(), endpoint_is_known),
    ));
}

async fn everything_can_be_taken_from_a_delivery(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_everything").await;
    for tenant in ["foreign", "forbidden", "acme"] {
        running.messaging().publish(&format!("tenant:{tenant}"), &[1, 2]).await.unwrap();
    }
    let expected = r#"(("acme", [1, 2], "[1,2]"), (Some("acme"), Attempt(1), "it::handlers::on_everything", false, true))"#;
    assert_eq!(probe.wait_for(1).await, [expected]);
    let counts = running.messaging().health().handlers[0].counts;
    assert_eq!((counts.mismatched, counts.failed), (1, 1));
}

struct Notifier {
    greeting: &'static str,
    probe: Probe,
}

#[subscribers]
impl Notifier {
    #[subscribe("notifications")]
    async fn handle(&self, message: String) -> Result<(), std::fmt::Error> {
        self.probe.tell(format!("{}, {message}", self.greeting));
        Ok(())
    }

    #[subscribe("notifications:{user}")]
    async fn handle_user(&self, user: u32, _message: String) {
        self.probe.tell(user);
    }
}

async fn a_service_method_is_a_handler(place: Place) {
    let probe = Probe::default();
    let messaging = place
        .builder()
        .handlers(Handlers::matching("it::handlers::Notifier::*"))
        .service(Notifier { greeting: "hello", probe: probe.clone() })
        .build()
        .await
        .unwrap();
    let running = messaging.start().await.unwrap();
    assert_eq!(running.messaging().health().handlers.len(), 2);
    messaging.publish("notifications", "Ada").await.unwrap();
    messaging.publish("notifications:7", "Ada").await.unwrap();
    let mut told = probe.wait_for(2).await;
    told.sort();
    assert_eq!(told, [r#""hello, Ada""#, "7"]);
}

#[channel("room:{building}.{number}")]
#[derive(Debug)]
struct Room {
    building: String,
    number: u32,
}

#[subscribe(Room)]
async fn on_room(room: ChannelOf<Room>, probe: State<Probe>) {
    probe.tell((&room.building, room.number));
}

async fn a_typed_channel_can_be_subscribed_to(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_room").await;
    running.messaging().publish("room:main.x", &()).await.unwrap();
    running.messaging().publish(&Room { building: "main".into(), number: 7 }, &()).await.unwrap();
    assert_eq!(probe.wait_for(1).await, [r#"("main", 7)"#]);
}

async fn one_worker_keeps_the_order(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_event").await;
    for number in 0..200 {
        running.messaging().publish("events.n", &number).await.unwrap();
    }
    let expected: Vec<_> = (0..200).map(|number| format!(r#"("events.n", {number})"#)).collect();
    assert_eq!(probe.wait_for(200).await, expected);
}

async fn ordered_workers_keep_the_order_of_each_value(place: Place) {
    let messaging = place.messaging().await;
    let probe = Probe::default();
    let seen = probe.clone();
    let _handler = messaging
        .subscriber()
        .workers(NonZeroUsize::new(8).unwrap())
        .ordered_by(OrderedBy::Placeholder("key"))
        .on("ordered.{key}", move |number: u32, segments: Segments| {
            let seen = seen.clone();
            async move {
                // Whoever comes first gives way, so that an order that is not kept shows.
                for _ in 0..(97 * (number + 1)) % 13 {
                    tokio::task::yield_now().await;
                }
                seen.tell((segments.parse::<u32>("key").unwrap(), number));
            }
        })
        .await
        .unwrap();
    for number in 0..50 {
        for key in 0..10 {
            messaging.publish(&format!("ordered.{key}"), &number).await.unwrap();
        }
    }
    let told = probe.wait_for(500).await;
    for key in 0..10 {
        let of_key: Vec<_> =
            told.iter().filter(|told| told.starts_with(&format!("({key},"))).cloned().collect();
        assert_eq!(of_key, (0..50).map(|number| format!("({key}, {number})")).collect::<Vec<_>>());
    }
}

async fn workers_work_at_the_same_time(place: Place) {
    let messaging = place.messaging().await;
    let (barrier, probe) = (Arc::new(Barrier::new(4)), Probe::default());
    let seen = probe.clone();
    let _handler = messaging
        .subscriber()
        .workers(NonZeroUsize::new(4).unwrap())
        .on("parallel", move |_: u32| {
            let (barrier, seen) = (Arc::clone(&barrier), seen.clone());
            async move {
                // Nobody passes before all four are here.
                barrier.wait().await;
                seen.tell(());
            }
        })
        .await
        .unwrap();
    for number in 0..4 {
        messaging.publish("parallel", &number).await.unwrap();
    }
    probe.wait_for(4).await;
}

#[subscribe("flaky", retry = { attempts = 3, initial = "1ms", multiplier = 1.0, max_delay = "1ms" })]
async fn flaky(works_at: u32, attempt: Attempt, probe: State<Probe>) -> Result<(), String> {
    probe.tell((works_at, attempt.0));
    if attempt.0 < works_at { Err("not yet".into()) } else { Ok(()) }
}

async fn a_failing_handler_is_tried_again_and_then_given_up(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::flaky").await;
    running.messaging().publish("flaky", &2).await.unwrap();
    running.messaging().publish("flaky", &9).await.unwrap();
    running.messaging().publish("flaky", &1).await.unwrap();
    let told = probe.wait_for(6).await;
    assert_eq!(told, ["(2, 1)", "(2, 2)", "(9, 1)", "(9, 2)", "(9, 3)", "(1, 1)"]);
    eventually("all are settled", async || running.messaging().health().handlers[0].counts.handled == 2)
        .await;
    let counts = running.messaging().health().handlers[0].counts;
    assert_eq!((counts.retried, counts.failed), (3, 1));
}

#[subscribe("fate", retry = { attempts = 2, initial = 0 })]
async fn choosing_its_fate(fate: String, attempt: Attempt, probe: State<Probe>) -> Result<(), HandlerError> {
    probe.tell((&fate, attempt.0));
    match fate.as_str() {
        "skip" => Err(HandlerError::skip("it never works")),
        "retry" => Err(HandlerError::retry("try again")),
        "parse" => {
            "x".parse::<u32>()?;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn an_error_can_choose_its_fate(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::choosing_its_fate").await;
    for fate in ["skip", "retry", "parse", "end"] {
        running.messaging().publish("fate", fate).await.unwrap();
    }
    let told = probe.wait_for(6).await;
    let expected = [
        r#"("skip", 1)"#,
        r#"("retry", 1)"#,
        r#"("retry", 2)"#,
        r#"("parse", 1)"#,
        r#"("parse", 2)"#,
        r#"("end", 1)"#,
    ];
    assert_eq!(told, expected);
}

async fn the_error_handler_overrides_the_policy(place: Place) {
    let probe = Probe::default();
    let (decisions, decided) = (Probe::default(), Probe::default());
    let decisions_in = decisions.clone();
    let messaging = place
        .builder()
        .handlers(Handlers::only(["it::handlers::flaky"]))
        .state(probe.clone())
        .error_handler(move |error, context| {
            decisions_in.tell((error.to_string(), &*context.handler, context.attempt, context.attempts));
            (context.attempt == 2).then_some(ErrorAction::Skip)
        })
        .build()
        .await
        .unwrap();
    let _running = messaging.start().await.unwrap();
    messaging.publish("flaky", &9).await.unwrap();
    messaging.publish("flaky", &1).await.unwrap();
    assert_eq!(probe.wait_for(3).await, ["(9, 1)", "(9, 2)", "(1, 1)"]);
    assert_eq!(decisions.told()[1], r#"("not yet", "it::handlers::flaky", 2, 3)"#);
    drop(decided);
}

async fn an_error_handler_can_stop_a_handler(place: Place) {
    let probe = Probe::default();
    let messaging = place
        .builder()
        .handlers(Handlers::only(["it::handlers::flaky", "it::handlers::on_event"]))
        .state(probe.clone())
        .error_handler(|_, _| ErrorAction::Stop)
        .build()
        .await
        .unwrap();
    let running = messaging.start().await.unwrap();
    assert!(messaging.health().is_ready());
    messaging.publish("flaky", &9).await.unwrap();
    eventually("it is not ready any more", async || !messaging.health().is_ready()).await;
    let state =
        |id: &str| messaging.health().handlers.iter().find(|handler| handler.id.ends_with(id)).unwrap().state;
    assert_eq!((state("flaky"), state("on_event")), (HandlerState::Stopped, HandlerState::Running));
    eventually("it is unsubscribed", async || messaging.publish("flaky", &1).await.unwrap() == 0).await;
    messaging.publish("events.x", &1).await.unwrap();
    assert_eq!(probe.wait_for(2).await, ["(9, 1)", r#"("events.x", 1)"#]);
    assert!(running.shutdown(Duration::from_secs(5)).await.is_complete());
}

async fn an_error_handler_that_panics_stops_nothing(place: Place) {
    let probe = Probe::default();
    let messaging = place
        .builder()
        .handlers(Handlers::only(["it::handlers::flaky"]))
        .state(probe.clone())
        .error_handler(|_, _| -> Option<ErrorAction> { panic!("not even this works") })
        .build()
        .await
        .unwrap();
    let _running = messaging.start().await.unwrap();
    messaging.publish("flaky", &9).await.unwrap();
    messaging.publish("flaky", &1).await.unwrap();
    assert_eq!(probe.wait_for(2).await, ["(9, 1)", "(1, 1)"]);
    let counts = messaging.health().handlers[0].counts;
    assert_eq!((counts.panicked, counts.failed), (1, 1));
    assert!(messaging.health().is_ready());
}

#[subscribe("panics", retry = { attempts = 2, initial = 0 })]
async fn panicking(number: u32, probe: State<Probe>) {
    probe.tell(number);
    assert!(number != 13, "thirteen is unlucky");
}

async fn a_panic_stops_nothing(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::panicking").await;
    for number in [12, 13, 14] {
        running.messaging().publish("panics", &number).await.unwrap();
    }
    assert_eq!(probe.wait_for(4).await, ["12", "13", "13", "14"]);
    let counts = running.messaging().health().handlers[0].counts;
    assert_eq!((counts.panicked, counts.failed), (2, 1));
    assert!(running.messaging().health().is_ready());
}

#[subscribe("slow", timeout = "20ms", retry = { attempts = 1 })]
async fn too_slow(number: u32, probe: State<Probe>) {
    probe.tell(number);
    if number == 1 {
        std::future::pending::<()>().await;
    }
}

async fn a_timeout_is_a_failure(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::too_slow").await;
    running.messaging().publish("slow", &1).await.unwrap();
    running.messaging().publish("slow", &2).await.unwrap();
    assert_eq!(probe.wait_for(2).await, ["1", "2"]);
    let counts = running.messaging().health().handlers[0].counts;
    assert_eq!((counts.timed_out, counts.failed), (1, 1));
}

async fn what_cannot_be_decoded_is_skipped(place: Place) {
    let (running, probe) = place.with_handler("it::handlers::on_order").await;
    for json in [r#"{"id":"seven"}"#, "[]", "{", "", "nonsense", "\"caf\u{e9}\""] {
        // What is no JSON can only come from others.
        let raw = serde_json::value::RawValue::from_string(json.to_owned());
        if let Ok(raw) = raw {
            running.messaging().publish("orders.created", &raw).await.unwrap();
        }
    }
    running
        .messaging()
        .publish("orders.created", &serde_json::json!({ "id": 1, "customer": "x" }))
        .await
        .unwrap();
    assert_eq!(probe.wait_for(1).await, [r#"(1, "x")"#]);
    let counts = running.messaging().health().handlers[0].counts;
    assert_eq!((counts.undecodable, counts.failed, counts.retried), (3, 0, 0));
}

#[subscribe("first")]
async fn relay(number: u32, messaging: Messaging) -> Result<(), messaging_core::Error> {
    messaging.publish("events.second", &(number + 1)).await?;
    messaging_core::redis_publish("events.third", &(number + 2)).await?;
    Ok(())
}

async fn a_handler_can_publish(place: Place) {
    let probe = Probe::default();
    let handlers = Handlers::only(["it::handlers::relay", "it::handlers::on_event"]);
    let messaging = place.builder().handlers(handlers).state(probe.clone()).build().await.unwrap();
    let _running = messaging.start().await.unwrap();
    messaging.publish("first", &1).await.unwrap();
    assert_eq!(probe.wait_for(2).await, [r#"("events.second", 2)"#, r#"("events.third", 3)"#]);
}

async fn handlers_come_and_go_at_run_time(place: Place) {
    let messaging = place.messaging().await;
    let probe = Probe::default();
    let seen = probe.clone();
    let handler = messaging
        .subscriber()
        .on("chat:{room}", move |text: String, segments: Segments, channel: Channel| {
            seen.tell((segments.get("room").unwrap_or_default(), text, channel));
            async {}
        })
        .await
        .unwrap();
    messaging.publish("chat:lobby", "hi").await.unwrap();
    assert_eq!(probe.wait_for(1).await, [r#"("lobby", "hi", "chat:lobby")"#]);
    assert_eq!(messaging.health().handlers.len(), 1);
    soon(handler.stop()).await;
    place.counts(messaging.publish("chat:lobby", "anybody?").await.unwrap(), 0);
    assert!(messaging.health().handlers.is_empty());

    let two_payloads = messaging.subscriber().on("c", async |_: u32, _: String| {}).await.unwrap_err();
    assert!(two_payloads.to_string().contains("2 payloads"), "{two_payloads}");
    let missing = messaging.subscriber().on("c", async |_: State<Order>| {}).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Registration);
    assert!(missing.to_string().contains("Order"), "{missing}");
    let order = messaging.subscriber().ordered_by(OrderedBy::Placeholder("x")).on("c.{y}", async || {}).await;
    assert!(order.unwrap_err().to_string().contains("{x}"));
}

struct Counter<T> {
    add: T,
    probe: Probe,
}

#[subscribers(manual)]
impl<T: Copy + Into<u64> + Send + Sync + 'static> Counter<T> {
    #[subscribe("count:{by}")]
    async fn count(&self, by: u64) {
        self.probe.tell(self.add.into() + by);
    }
}

async fn a_service_of_a_generic_type_is_added_at_run_time(place: Place) {
    let messaging = place.messaging().await;
    let probe = Probe::default();
    let one =
        messaging.subscriber().id("one").service(Counter { add: 1_u8, probe: probe.clone() }).await.unwrap();
    let ten = messaging
        .subscriber()
        .id("ten")
        .service(Counter { add: 10_u32, probe: probe.clone() })
        .await
        .unwrap();
    assert_eq!(one.ids().collect::<Vec<_>>(), ["one::count"]);
    messaging.publish("count:5", &()).await.unwrap();
    let mut told = probe.wait_for(2).await;
    told.sort();
    assert_eq!(told, ["15", "6"]);
    soon(ten.stop()).await;
    messaging.publish("count:6", &()).await.unwrap();
    assert_eq!(probe.wait_for(3).await[2], "7");
}

async fn a_runtime_handler_with_a_taken_id_is_refused(place: Place) {
    let messaging = place.messaging().await;
    let _first = messaging.subscriber().id("mine").on("a", async || {}).await.unwrap();
    let error = messaging.subscriber().id("mine").on("b", async || {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Registration);
    assert!(error.to_string().contains("`mine`"), "{error}");
    eventually("it is not subscribed", async || messaging.publish("b", &1).await.unwrap() == 0).await;
}

/// A handler that waits for permission for each message, so that a test can fill its buffer.
async fn gated(
    messaging: &Messaging,
    channel: &str,
    overflow: Overflow,
    room: usize,
) -> (messaging_core::HandlerHandle, Arc<Semaphore>, Probe) {
    let (permits, probe) = (Arc::new(Semaphore::new(0)), Probe::default());
    let (gate, seen) = (Arc::clone(&permits), probe.clone());
    let buffer = Buffer { messages: NonZeroUsize::new(room).unwrap(), ..Buffer::DEFAULT };
    let handler = messaging
        .subscriber()
        .id(channel)
        .buffer(buffer)
        .overflow(overflow)
        .on(channel, move |number: u32| {
            let (gate, seen) = (Arc::clone(&gate), seen.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                seen.tell(number);
            }
        })
        .await
        .unwrap();
    (handler, permits, probe)
}

fn health_of(messaging: &Messaging, id: &str) -> messaging_core::HandlerHealth {
    messaging.health().handlers.into_iter().find(|handler| handler.id == id).unwrap()
}

async fn drop_oldest_keeps_the_newest(place: Place) {
    let messaging = place.messaging().await;
    let (_handler, permits, probe) = gated(&messaging, "flood", Overflow::DropOldest, 10).await;
    messaging.publish("flood", &0).await.unwrap();
    eventually("the first is being handled", async || health_of(&messaging, "flood").in_flight == 1).await;
    for number in 1..=100 {
        messaging.publish("flood", &number).await.unwrap();
    }
    eventually("ninety are dropped", async || health_of(&messaging, "flood").counts.dropped == 90).await;
    assert_eq!(health_of(&messaging, "flood").waiting, 10);
    permits.add_permits(1_000);
    let expected: Vec<_> = [0].into_iter().chain(91..=100).map(|number: u32| number.to_string()).collect();
    assert_eq!(probe.wait_for(11).await, expected);
}

async fn block_loses_nothing_and_holds_nobody_else_up(place: Place) {
    let messaging = place.messaging().await;
    let (_blocked, permits, probe) = gated(&messaging, "blocked", Overflow::Block, 10).await;
    let (_free, free_permits, free) = gated(&messaging, "free", Overflow::Wait, 1_000).await;
    free_permits.add_permits(1_000);
    for number in 0..100 {
        messaging.publish("blocked", &number).await.unwrap();
        messaging.publish("free", &number).await.unwrap();
    }
    free.wait_for(100).await;
    assert_eq!(probe.told(), Vec::<String>::new());
    permits.add_permits(1_000);
    let expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(probe.wait_for(100).await, expected);
    assert_eq!(health_of(&messaging, "blocked").counts.dropped, 0);
}

async fn a_stuck_handler_is_told_what_it_lost(place: Place) {
    let messaging = place.messaging().await;
    let (_stuck, permits, probe) = gated(&messaging, "stuck", Overflow::Wait, 10).await;
    let (_other, other_permits, other) = gated(&messaging, "other", Overflow::Wait, 1_000).await;
    other_permits.add_permits(1_000);
    messaging.publish("stuck", &0).await.unwrap();
    eventually("the first is being handled", async || health_of(&messaging, "stuck").in_flight == 1).await;
    for number in 1..=30 {
        messaging.publish("stuck", &number).await.unwrap();
        messaging.publish("other", &number).await.unwrap();
    }
    // The reader waits for the stuck handler for a second in all, then for nobody.
    other.wait_for(30).await;
    eventually("twenty are dropped", async || health_of(&messaging, "stuck").counts.dropped == 20).await;
    assert!(health_of(&messaging, "stuck").counts.gaps >= 1, "drops are announced");
    assert_eq!(health_of(&messaging, "other").counts.gaps, 0);
    permits.add_permits(1_000);
    let expected: Vec<_> = [0].into_iter().chain(21..=30).map(|number: u32| number.to_string()).collect();
    assert_eq!(probe.wait_for(11).await, expected);
}

#[derive(Clone, Default)]
struct Resyncs {
    count: Arc<AtomicU32>,
    fails: Arc<AtomicBool>,
}

#[subscribe("replica.changed", resync = reload, resync_every = "20ms", retry = { initial = "1ms", max_delay = "1ms" })]
async fn on_replica_change(number: u32, probe: State<Probe>) {
    probe.tell(number);
}

async fn reload(resyncs: State<Resyncs>, probe: State<Probe>, context: Context) -> Result<(), String> {
    let count = resyncs.count.fetch_add(1, Ordering::SeqCst);
    if resyncs.fails.load(Ordering::SeqCst) {
        return Err("the source is away".into());
    }
    if count == 0 {
        probe.tell(format!("resync of {}", context.handler()));
    }
    Ok(())
}

async fn started_with_resync(place: &Place, resyncs: &Resyncs) -> (messaging_core::Running, Probe) {
    let probe = Probe::default();
    let messaging = place
        .builder()
        .handlers(Handlers::only(["it::handlers::on_replica_change"]))
        .state(probe.clone())
        .state(resyncs.clone())
        .build()
        .await
        .unwrap();
    (messaging.start().await.unwrap(), probe)
}

async fn resync_comes_first_and_then_at_its_interval(place: Place) {
    let resyncs = Resyncs::default();
    let (running, probe) = started_with_resync(&place, &resyncs).await;
    running.messaging().publish("replica.changed", &1).await.unwrap();
    assert_eq!(probe.wait_for(2).await, [r#""resync of it::handlers::on_replica_change""#, "1"]);
    eventually("it runs again and again", async || resyncs.count.load(Ordering::SeqCst) >= 4).await;
    eventually("it is counted", async || running.messaging().health().handlers[0].counts.resyncs >= 4).await;
}

async fn a_failing_resync_is_tried_again(place: Place) {
    let resyncs = Resyncs::default();
    resyncs.fails.store(true, Ordering::SeqCst);
    let (running, probe) = started_with_resync(&place, &resyncs).await;
    eventually("it is tried again", async || resyncs.count.load(Ordering::SeqCst) >= 3).await;
    // Messages flow all the same.
    running.messaging().publish("replica.changed", &1).await.unwrap();
    probe.wait_for(1).await;
    assert_eq!(running.messaging().health().handlers[0].counts.resyncs, 0);
    resyncs.fails.store(false, Ordering::SeqCst);
    eventually("it succeeds", async || running.messaging().health().handlers[0].counts.resyncs >= 1).await;
}
