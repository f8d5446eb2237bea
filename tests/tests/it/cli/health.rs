//! `health`, as probes use it.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use messaging_tests::RedisServer;
use serde_json::Value;

use super::{Cli, messaging, run, with_dead_letters, workers};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_well_while_somebody_handles_its_messages() {
    let cli = Cli::new();
    let said = cli.run(&["health"]).well();
    assert!(said.starts_with("well: redis://127.0.0.1:") && said.contains("answers in"), "{said}");
    let said = cli.run(&["health", "-g", "billing"]).with(1).out;
    assert!(said.contains("unwell: billing: there is no such group"), "{said}");

    let messaging = cli.messaging().await;
    messaging.publish("orders.created", &0).durable().await.unwrap();
    let workers = workers(&messaging, "billing", "orders.created").await;
    let said = cli.run(&["health", "--handler", "billing", "--max-lag", "0"]).well();
    assert!(said.ends_with("well: billing on orders.created: 1 consumer, 0 messages to handle\n"), "{said}");
    let came = cli.run(&["health", "--quiet", "-g", "billing"]).with(0);
    assert_eq!((came.out, came.err), (String::new(), String::new()));
    workers.stop().await;
    messaging.publish("orders.created", &1).durable().await.unwrap();
    let report = cli.run(&["health", "-g", "billing", "--max-lag", "0", "--json"]).with(1).json();
    assert_eq!((&report["well"], &report["checks"][1]["well"]), (&Value::Bool(false), &Value::Bool(false)));
    let detail = report["checks"][1]["detail"].as_str().unwrap();
    assert!(
        detail.contains("no consumer lives") && detail.contains("1 message to handle, more than 0"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_can_ask_for_the_consumers_of_its_own_host() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    messaging.publish("orders.created", &0).durable().await.unwrap();
    let _workers = workers(&messaging, "billing", "orders.created").await;
    let groups = messaging.operator().groups().await.unwrap();
    let host = groups[0].consumers[0].name.split(':').next().unwrap().to_owned();
    for (here, code) in [(host.as_str(), 0), ("another-pod", 1)] {
        let mut command = cli.command(&["health", "-g", "billing", "--here"]);
        command.env("HOSTNAME", here);
        run(command, None).with(code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_and_channels_can_be_asked_for() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    with_dead_letters(&messaging, "billing", "orders.created", 2).await;
    let _workers = workers(&messaging, "billing", "orders.created").await;
    cli.run(&["health", "-g", "billing", "--max-dead", "2"]).well();
    let said = cli.run(&["health", "-g", "billing", "--max-dead", "1"]).with(1).out;
    assert!(said.contains("2 dead letters, more than 1"), "{said}");
    let said = cli.run(&["health", "--channel", "orders.shipped"]).with(1).out;
    assert!(said.ends_with("unwell: orders.shipped: 0 subscribers\n"), "{said}");
    let _subscription = messaging.subscribe("orders.shipped").await.unwrap();
    cli.run(&["health", "--channel", "orders.shipped"]).well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_can_be_asked_over_http() {
    let not_ready = r#"{"ready":false,"messaging":{"handlers":[{"id":"a::b","state":"stopped"},{"id":"c","state":"running"}]}}"#;
    let router = Router::new()
        .route("/readyz", get(async || "{}"))
        .route("/sick", get(async move || (StatusCode::SERVICE_UNAVAILABLE, not_ready)))
        .route("/slow", get(async || tokio::time::sleep(Duration::from_secs(60)).await));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let ask = |path: &str| {
        // Redis is not asked.
        let mut command = messaging();
        command.args(["health", "--timeout", "300ms", "--http", &format!("http://{address}{path}")]);
        command.env("REDIS_URL", "redis://127.0.0.1:1");
        run(command, None)
    };
    assert!(ask("/readyz").well().ends_with("/readyz: ready\n"));
    let said = ask("/sick").with(1).out;
    assert!(said.ends_with("not ready: it answers 503, handler a::b is stopped\n"), "{said}");
    assert!(ask("/slow").with(1).out.contains("no answer within 300ms"));
    assert!(ask("/nothing").with(1).out.contains("it answers 404"));
}

#[test]
fn whatever_is_wrong_with_redis_is_unwell() {
    let redis = RedisServer::builder().password("hidden").start();
    for (url, part) in [
        (redis.url(), "answers in"),
        (redis.url().replace("hidden", "wrong"), "WRONGPASS"),
        ("redis://127.0.0.1:1".to_owned(), "is it running there?"),
    ] {
        let mut command = messaging();
        command.args(["health"]).env("REDIS_URL", &url);
        let came = run(command, None).with(i32::from(part != "answers in"));
        assert!(came.out.contains(part) && !came.out.contains("hidden"), "{came:?}");
    }
    redis.pause();
    let mut command = messaging();
    command.args(["health", "--timeout", "200ms"]).env("REDIS_URL", redis.url());
    assert_eq!(run(command, None).with(1).out, "unwell: redis: no answer within 200ms\n");
    redis.resume();
}
