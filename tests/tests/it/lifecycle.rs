//! Building, starting, scopes, and shutting down.

use std::sync::Arc;
use std::time::Duration;

use messaging_core::{
    Buffer, Context, ErrorKind, Handlers, HealthPhase, Messaging, Overflow, State, TestMessaging, describe,
    subscribe,
};
use messaging_tests::eventually;
use tokio::sync::Semaphore;

use crate::place::{Place, Probe, on_each_backend, soon};

on_each_backend! {
    missing_state_is_named_at_start
    a_missing_service_is_named_at_start
    state_can_be_provided_until_start
    starting_twice_is_refused
    handlers_are_chosen_by_id
    health_follows_the_life_of_messaging
    shutdown_works_off_what_waits
    shutdown_reports_what_it_had_to_leave
    shutdown_tells_handlers_that_look_out_for_it
    shutdown_of_a_blocking_handler_stops_reading
    a_handler_added_before_start_keeps_its_id_and_survives_a_failed_start
    dropping_every_handle_ends_everything
    a_scope_is_current_and_spawn_carries_it
}

struct Missing;

#[subscribe("lifecycle.needs")]
async fn needs_state(_number: u32, _missing: State<Missing>, probe: State<Probe>) {
    probe.tell(());
}

#[subscribe("lifecycle.work")]
async fn work(number: u32, probe: State<Probe>, gate: State<Gate>) {
    probe.tell(format!("begins {number}"));
    gate.0.acquire().await.unwrap().forget();
    probe.tell(format!("ends {number}"));
}

#[derive(Clone)]
struct Gate(Arc<Semaphore>);

const NEEDS: &str = "it::lifecycle::needs_state";
const WORK: &str = "it::lifecycle::work";

async fn missing_state_is_named_at_start(place: Place) {
    let messaging = place.builder().handlers(Handlers::only([NEEDS, WORK])).build().await.unwrap();
    let error = messaging.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Registration);
    let text = error.to_string();
    for part in [
        "lifecycle::Missing",
        "place::Probe",
        "lifecycle::Gate",
        NEEDS,
        WORK,
        "lifecycle.rs:",
        "builder.state",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(messaging.health().phase, HealthPhase::Built);
}

async fn a_missing_service_is_named_at_start(place: Place) {
    let handlers = Handlers::matching("it::handlers::Notifier::*");
    let messaging = place.builder().handlers(handlers).build().await.unwrap();
    let text = messaging.start().await.unwrap_err().to_string();
    assert!(text.contains("handlers::Notifier") && text.contains("builder.service"), "{text}");
}

async fn state_can_be_provided_until_start(place: Place) {
    let probe = Probe::default();
    let messaging =
        place.builder().handlers(Handlers::only([NEEDS])).state(probe.clone()).build().await.unwrap();
    assert!(messaging.start().await.is_err());
    messaging.provide(Missing).unwrap();
    assert!(messaging.provide(Missing).unwrap_err().to_string().contains("given twice"));
    // A start that failed can be tried again.
    let _running = messaging.start().await.unwrap();
    messaging.publish("lifecycle.needs", &1).await.unwrap();
    probe.wait_for(1).await;
    let late = messaging.provide(1_u8).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Registration);
    let twice = place.builder().state(1_u8).state(2_u8).build().await.unwrap_err();
    assert!(twice.to_string().contains("`u8` was given twice"), "{twice}");
}

async fn starting_twice_is_refused(place: Place) {
    let messaging = place.messaging().await;
    let _running = messaging.start().await.unwrap();
    assert_eq!(messaging.start().await.unwrap_err().kind(), ErrorKind::Registration);
}

async fn handlers_are_chosen_by_id(place: Place) {
    for (handlers, reason) in [
        (Handlers::only(["it::lifecycle::nobody"]), "no handler `it::lifecycle::nobody`"),
        (Handlers::matching("billing::*"), "no handler matches `billing::*`"),
    ] {
        let messaging = place.builder().handlers(handlers).build().await.unwrap();
        let text = messaging.start().await.unwrap_err().to_string();
        assert!(text.contains(reason) && text.contains(WORK), "{text}");
    }
    let all = place.builder().handlers(Handlers::all()).build().await.unwrap();
    let text = all.start().await.unwrap_err().to_string();
    assert!(text.contains(NEEDS) && text.contains(WORK), "all of them were asked for: {text}");
}

async fn started(place: &Place) -> (messaging_core::Running, Probe, Gate) {
    let (probe, gate) = (Probe::default(), Gate(Arc::new(Semaphore::new(0))));
    let builder = place.builder().handlers(Handlers::only([WORK])).state(probe.clone()).state(gate.clone());
    (builder.build().await.unwrap().start().await.unwrap(), probe, gate)
}

async fn health_follows_the_life_of_messaging(place: Place) {
    let (running, probe, gate) = started(&place).await;
    let messaging = running.messaging().clone();
    assert!(messaging.health().is_ready());
    messaging.publish("lifecycle.work", &1).await.unwrap();
    messaging.publish("lifecycle.work", &2).await.unwrap();
    probe.wait_for(1).await;
    eventually("one waits", async || messaging.health().handlers[0].waiting == 1).await;
    let health = serde_json::to_value(messaging.health()).unwrap();
    assert_eq!(health["phase"], "running");
    assert_eq!(health["handlers"][0]["state"], "running");
    assert_eq!(health["handlers"][0]["in_flight"], 1);
    assert!(health["handlers"][0]["last_message_ms"].is_u64(), "{health}");
    assert!(health["sessions"][0]["last_alive_ms"].is_u64(), "{health}");
    gate.0.add_permits(2);
    probe.wait_for(4).await;
    assert!(soon(running.shutdown(Duration::from_secs(30))).await.is_complete());
    let health = messaging.health();
    assert_eq!((health.phase, health.ready), (HealthPhase::ShutDown, false));
    let closed = messaging.publish("lifecycle.work", &1).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
    assert!(closed.is_not_sent());
}

async fn shutdown_works_off_what_waits(place: Place) {
    let (running, probe, gate) = started(&place).await;
    let messaging = running.messaging().clone();
    for number in 0..20 {
        messaging.publish("lifecycle.work", &number).await.unwrap();
    }
    eventually("all have arrived", async || messaging.health().handlers[0].waiting == 19).await;
    let shutdown = tokio::spawn(running.shutdown(crate::place::PATIENCE));
    let outsider = place.messaging().await;
    eventually("it is unsubscribed", async || outsider.publish("lifecycle.work", &99).await.unwrap() == 0)
        .await;
    gate.0.add_permits(100);
    assert!(soon(shutdown).await.unwrap().is_complete());
    // The question whether it is unsubscribed may have been handled too.
    let told: Vec<_> = probe.told().into_iter().filter(|told| !told.contains("99")).collect();
    assert_eq!(told.len(), 40, "{told:?}");
    assert_eq!(told[39], r#""ends 19""#);
}

async fn shutdown_reports_what_it_had_to_leave(place: Place) {
    let (running, probe, _gate) = started(&place).await;
    let messaging = running.messaging().clone();
    for number in 0..20 {
        messaging.publish("lifecycle.work", &number).await.unwrap();
    }
    probe.wait_for(1).await;
    eventually("all have arrived", async || messaging.health().handlers[0].waiting == 19).await;
    let report = soon(running.shutdown(Duration::from_millis(10))).await;
    assert!(!report.is_complete());
    assert_eq!((report.unfinished[0].waiting, report.unfinished[0].cut_off), (19, 1));
    assert_eq!(report.to_string(), format!("`{WORK}`: 19 messages not handled, 1 calls cut off"));
}

#[subscribe("lifecycle.long", timeout = "1h")]
async fn long(_number: u32, context: Context, probe: State<Probe>) {
    probe.tell(context.is_shutting_down());
    context.shutting_down().await;
    probe.tell(context.is_shutting_down());
}

async fn shutdown_tells_handlers_that_look_out_for_it(place: Place) {
    let (running, probe) = place.with_handler("it::lifecycle::long").await;
    running.messaging().publish("lifecycle.long", &1).await.unwrap();
    assert_eq!(probe.wait_for(1).await, ["false"]);
    assert!(soon(running.shutdown(crate::place::PATIENCE)).await.is_complete(), "it finished by itself");
    assert_eq!(probe.told(), ["false", "true"]);
}

async fn shutdown_of_a_blocking_handler_stops_reading(place: Place) {
    let messaging = place.messaging().await;
    let running = messaging.start().await.unwrap();
    let (gate, probe) = (Gate(Arc::new(Semaphore::new(0))), Probe::default());
    let (in_gate, in_probe) = (gate.clone(), probe.clone());
    let one = std::num::NonZeroUsize::MIN;
    let _handler = messaging
        .subscriber()
        .overflow(Overflow::Block)
        .buffer(Buffer { messages: one, ..Buffer::DEFAULT })
        .on("lifecycle.block", move |number: u32| {
            let (gate, probe) = (in_gate.clone(), in_probe.clone());
            async move {
                probe.tell(number);
                gate.0.acquire().await.unwrap().forget();
            }
        })
        .await
        .unwrap();
    for number in 0..50 {
        messaging.publish("lifecycle.block", &number).await.unwrap();
    }
    eventually("one is handled, one waits", async || messaging.health().handlers[0].waiting == 1).await;
    let shutdown = tokio::spawn(running.shutdown(crate::place::PATIENCE));
    let outsider = place.messaging().await;
    let subscribers =
        async || outsider.client().pubsub_numsub(["lifecycle.block"]).await.unwrap()["lifecycle.block"];
    eventually("it is unsubscribed", async || subscribers().await == 0).await;
    gate.0.add_permits(100);
    let report = soon(shutdown).await.unwrap();
    // What had been read by then and could not be handled is counted; what had not been read is nobody's any more.
    let told = probe.told().len();
    let counted: usize = report.unfinished.iter().map(|handler| handler.waiting).sum();
    assert!(told >= 2 && told + counted <= 50, "{told} handled, {report}");
    assert!(report.unfinished.iter().all(|handler| handler.cut_off == 0), "{report}");
}

async fn a_handler_added_before_start_keeps_its_id_and_survives_a_failed_start(place: Place) {
    let probe = Probe::default();
    let gate = Gate(Arc::new(Semaphore::new(0)));
    let builder = place.builder().handlers(Handlers::only([WORK])).state(probe.clone()).state(gate);
    let messaging = builder.build().await.unwrap();
    let told = probe.clone();
    let handler = messaging
        .subscriber()
        .id(WORK)
        .on("lifecycle.early", move |number: u32| {
            told.tell(number);
            async {}
        })
        .await
        .unwrap();
    let error = messaging.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Registration);
    assert!(error.to_string().contains(WORK), "{error}");
    messaging.publish("lifecycle.early", &7).await.unwrap();
    assert_eq!(probe.wait_for(1).await, ["7"]);
    soon(handler.stop()).await;
    let _running = messaging.start().await.unwrap();
}

async fn dropping_every_handle_ends_everything(place: Place) {
    let (running, probe, _gate) = started(&place).await;
    running.messaging().publish("lifecycle.work", &1).await.unwrap();
    probe.wait_for(1).await;
    drop(running);
    let outsider = place.messaging().await;
    eventually("nobody is subscribed", async || outsider.publish("lifecycle.work", &2).await.unwrap() == 0)
        .await;
}

async fn a_scope_is_current_and_spawn_carries_it(place: Place) {
    let messaging = place.messaging().await;
    let mut subscription = messaging.subscribe("scoped").await.unwrap();
    messaging.scope(async { messaging_core::redis_publish("scoped", &1).await }).await.unwrap();
    messaging
        .spawn(async { Messaging::current().unwrap().publish("scoped", &2).await })
        .await
        .unwrap()
        .unwrap();
    for expected in [1, 2] {
        assert_eq!(
            soon(subscription.get_message(None)).await.unwrap().unwrap().json::<u32>().unwrap(),
            expected
        );
    }
}

#[subscribe("cascade.first")]
async fn first(number: u32, messaging: Messaging) -> Result<(), messaging_core::Error> {
    for more in 0..number {
        messaging.publish("cascade.second", &more).await?;
    }
    Ok(())
}

#[subscribe("cascade.second", retry = { attempts = 2, initial = "1ms" }, workers = 3)]
async fn second(number: u32) -> Result<(), &'static str> {
    tokio::task::yield_now().await;
    if number == 1 { Err("one is bad") } else { Ok(()) }
}

#[tokio::test]
async fn test_messaging_waits_for_the_whole_cascade() {
    let handlers = Handlers::matching("it::lifecycle::*nd");
    let test = TestMessaging::with(|builder| builder.handlers(handlers)).await.unwrap();
    test.publish("cascade.second", &7).await.unwrap();
    test.settled().await;
    assert_eq!(test.seen("second").len(), 1);

    let handlers = Handlers::only(["it::lifecycle::first", "it::lifecycle::second"]);
    let test = TestMessaging::with(|builder| builder.handlers(handlers)).await.unwrap();
    test.publish("cascade.first", &3).await.unwrap();
    test.settled().await;
    let seen = test.seen("lifecycle::second");
    assert_eq!(seen.len(), 4, "{seen:?}");
    let failed: Vec<_> = seen.iter().filter_map(|call| call.error.as_deref()).collect();
    assert_eq!(failed, ["one is bad", "one is bad"]);
    assert_eq!(seen.iter().map(|call| call.attempt).max(), Some(2));
    assert_eq!(&test.seen("first")[0].payload[..], b"3");
    // A handler that an error stops leaves nothing to wait for, and neither does one that never waits itself.
    let stopping = |builder: messaging_core::Builder| {
        let handlers = Handlers::only(["it::lifecycle::second"]);
        builder.handlers(handlers).error_handler(|_, _| messaging_core::ErrorAction::Stop)
    };
    let test = TestMessaging::with(stopping).await.unwrap();
    for _ in 0..1_000 {
        test.publish("cascade.second", &1).await.unwrap();
    }
    test.settled().await;
    assert!(!test.health().is_ready());

    let elsewhere = TestMessaging::with(|builder| builder.url("redis://127.0.0.1:1")).await.unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::Configuration);
}

#[test]
fn describe_lists_what_is_declared() {
    let description = describe();
    let work = description.handlers.iter().find(|handler| handler.id == WORK).unwrap();
    assert_eq!(work.channels, ["lifecycle.work"]);
    assert!(work.location.file.ends_with("lifecycle.rs") && work.location.line > 20);
    let camera = description.models.iter().find(|model| model.id == "it::models::Camera").unwrap();
    assert_eq!(camera.payload, ["id", "mac_address", "model", "settings"]);
    assert!(camera.publishes.contains(&("update", "camera.updated")));
    let function = description.functions.iter().find(|function| function.id == "users.find").unwrap();
    assert_eq!((function.key, function.ttl_ms), ("user:{tenant.id}:of:{user}", 60_000));
    assert!(description.channels.iter().any(|channel| channel.template == "auditlog:{user_id}"));
    let nobody =
        description.notes.iter().any(|note| note.contains(WORK) && note.contains("nothing declared"));
    assert!(nobody, "{:?}", description.notes);
    let text = description.to_string();
    assert!(text.contains("cached functions:") && text.contains("camera.updated"), "{text}");
}
