//! The routes for operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use messaging_core::{Handlers, Location, Messaging, ServiceHealth};
use messaging_gateway::{
    DeclaredAccess, FilterField, InternalState, Metrics, Operator, SlowPolicy, SubscriptionDescriptor,
    internal_router,
};
use serde_json::{Value, json};

use crate::web::Server;

const HERE: Location = Location { file: "internal.rs", line: 1 };

messaging_gateway::__private::inventory::submit! {
    SubscriptionDescriptor {
        id: "shown",
        entity: "Shown",
        channels: &["shown.all", "shown.of:{id}"],
        filters: &[
            FilterField { field: "id", operators: &[Operator::Eq, Operator::In] },
            FilterField { field: "a.b", operators: &[Operator::Eq] },
        ],
        tenant: Some("org"),
        access: DeclaredAccess::Authorize(|_| messaging_gateway::__private::decide(async { true })),
        send: true,
        presence: false,
        slow: SlowPolicy::Latest,
        location: HERE,
    }
}

messaging_gateway::__private::inventory::submit! {
    SubscriptionDescriptor {
        id: "hidden",
        entity: "Hidden",
        channels: &["hidden"],
        filters: &[],
        tenant: None,
        access: DeclaredAccess::Public,
        send: false,
        presence: true,
        slow: SlowPolicy::Disconnect,
        location: HERE,
    }
}

async fn messaging() -> Messaging {
    Messaging::builder().url("memory://").handlers(Handlers::none()).build().await.unwrap()
}

#[tokio::test]
async fn the_schema_is_sorted_and_complete() {
    let server = Server::start(internal_router(InternalState::new("events", &messaging().await))).await;
    let answer = server.get("/__schema").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    let mut schema = answer.value();
    let models = schema["models"].take();
    assert_eq!(
        schema,
        json!({
            "protocol": 1,
            "service": "events",
            "entities": [
                {
                    "entity": "Hidden", "channels": ["hidden"], "filters": {}, "tenant": null, "send": false,
                    "presence": true, "slow": "disconnect", "public": true,
                },
                {
                    "entity": "Shown", "channels": ["shown.all", "shown.of:{id}"],
                    "filters": {"a.b": ["eq"], "id": ["eq", "in"]}, "tenant": "org", "send": true,
                    "presence": false, "slow": "latest", "public": false,
                },
            ],
            "models": null,
        })
    );
    let names: Vec<_> =
        models.as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"it::rest::Order"), "{names:?}");
    let order = models.as_array().unwrap().iter().find(|model| model["name"] == "it::rest::Order").unwrap();
    assert_eq!(order["publishes"], json!([{"op": "update", "channel": "rest.order.updated"}]));
}

#[tokio::test]
async fn the_document_is_of_asyncapi() {
    let state = InternalState::new("events", &messaging().await).version("1.2.3");
    let server = Server::start(internal_router(state)).await;
    let document = server.get("/asyncapi.json").await.value();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(document["info"], json!({"title": "events", "version": "1.2.3"}));
    let addresses: Vec<&Value> =
        document["channels"].as_object().unwrap().values().map(|channel| &channel["address"]).collect();
    for address in ["shown.of:{id}", "hidden", "rest.camera.created"] {
        assert!(addresses.contains(&&json!(address)), "{address}: {addresses:?}");
    }
}

#[tokio::test]
async fn what_is_declared_is_told_with_its_place() {
    let server = Server::start(internal_router(InternalState::new("events", &messaging().await))).await;
    let description = server.get("/describe.json").await.value();
    let models = description["models"].as_array().unwrap();
    let order = models.iter().find(|model| model["id"] == "it::rest::Order").unwrap();
    assert_eq!(order["publishes"], json!([["update", "rest.order.updated"]]));
    assert!(order["location"]["file"].as_str().unwrap().ends_with("tests/it/rest.rs"), "{order}");
}

#[tokio::test]
async fn ready_is_what_messaging_and_the_gateway_are() {
    let messaging = messaging().await;
    let is_sound = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_sound);
    let state = InternalState::new("events", &messaging).gateway(move || {
        if asked.load(Ordering::Relaxed) {
            ServiceHealth::sound(json!({"connections": 2}))
        } else {
            ServiceHealth::unsound(json!({})).warning("it drains")
        }
    });
    let server = Server::start(internal_router(state)).await;
    let ready = async || {
        let answer = server.get("/readyz").await;
        assert_eq!(server.get("/healthz").await.status, 200, "it lives in any case");
        (answer.status.as_u16(), answer.value())
    };

    let (status, body) = ready().await;
    assert_eq!((status, &body["ready"], &body["messaging"]["phase"]), (503, &json!(false), &json!("built")));
    let running = messaging.start().await.unwrap();
    let (status, body) = ready().await;
    assert_eq!(
        (status, &body["ready"], &body["gateway"]["details"]),
        (200, &json!(true), &json!({"connections": 2}))
    );
    is_sound.store(false, Ordering::Relaxed);
    let (status, body) = ready().await;
    assert_eq!(
        (status, &body["ready"], &body["gateway"]["warnings"]),
        (503, &json!(false), &json!(["it drains"]))
    );
    is_sound.store(true, Ordering::Relaxed);
    running.shutdown(Duration::from_secs(10)).await;
    assert_eq!(ready().await.0, 503);
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let metrics = Arc::new(Metrics::default());
    let state = InternalState::new("events", &messaging().await).metrics(&metrics);
    let server = Server::start(internal_router(state)).await;
    metrics.connections.add(3);
    metrics.connections.decrement();
    metrics.slow.of(SlowPolicy::DropOldest).increment();
    metrics.rejected.origin.add(4);
    metrics.recovered.increment();

    let answer = server.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let lines: Vec<&str> = answer.text().lines().collect();
    for line in [
        "# TYPE messaging_gateway_connections gauge",
        "messaging_gateway_connections 2",
        "# TYPE messaging_gateway_slow_total counter",
        "messaging_gateway_slow_total{policy=\"disconnect\"} 0",
        "messaging_gateway_slow_total{policy=\"drop_oldest\"} 1",
        "messaging_gateway_rejected_total{reason=\"origin\"} 4",
        "messaging_gateway_resumes_total{recovered=\"true\"} 1",
        "messaging_gateway_resumes_total{recovered=\"false\"} 0",
        "messaging_ready 0",
        "messaging_lost_events_total 0",
        "messaging_handlers{state=\"running\"} 0",
    ] {
        assert!(lines.contains(&line), "{line} is missing in\n{}", answer.text());
    }
    // Every family once, with its help and its type in front of its samples.
    let mut families = Vec::new();
    let mut lines = lines.into_iter().peekable();
    while let Some(help) = lines.next() {
        let name = help.strip_prefix("# HELP ").expect(help).split(' ').next().unwrap();
        assert!(lines.next().unwrap().starts_with(&format!("# TYPE {name} ")), "{name}");
        let mut samples = 0;
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            assert_eq!(sample.split(['{', ' ']).next(), Some(name));
            sample.rsplit_once(' ').unwrap().1.parse::<u64>().expect(sample);
            samples += 1;
        }
        assert!(samples > 0, "{name}");
        families.push(name);
    }
    let all = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), all);
    assert!(answer.text().ends_with('\n'));
}
