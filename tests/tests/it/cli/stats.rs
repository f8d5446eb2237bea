//! `stats`.

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};

use super::{Cli, with_dead_letters, workers};

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_is_counted() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    with_dead_letters(&messaging, "billing", "orders.created", 2).await;
    let _workers = workers(&messaging, "billing", "orders.created").await;
    let _subscription = messaging.subscribe("orders.shipped").await.unwrap();
    let mut stats =
        cli.start(&["stats", "--json", "--watch", "--interval", "300ms", "--channel", "orders.*"]);
    let reports = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    stats.wait_for_line(|_| true);
    let counted = |report: &Value| {
        let stream = report["streams"][0]["per_second"].as_f64().unwrap() > 0.0;
        let channels = report["channels"].as_array().unwrap();
        let shipped = channels.iter().find(|channel| channel["channel"] == "orders.shipped").unwrap();
        stream
            && shipped["per_second"].as_f64().is_some_and(|rate| rate > 0.0)
            && shipped["subscribers"] == json!(1)
    };
    // Others are busy on this server, too: what is ours has to be in one of the intervals.
    let publishing = tokio::spawn({
        let messaging = messaging.clone();
        async move {
            loop {
                messaging.publish("orders.created", &1).durable().await.unwrap();
                messaging.publish("orders.shipped", &1).await.unwrap();
            }
        }
    });
    let line =
        tokio::task::spawn_blocking(move || (stats.wait_for_line(|line| counted(&reports(line))), stats))
            .await;
    let (line, stats) = line.unwrap();
    publishing.abort();
    let report = reports(&line);
    assert_eq!(report["streams"][0]["pattern"], "orders.created");
    assert_eq!((&report["groups"][0]["group"], &report["groups"][0]["dead"]), (&json!("billing"), &json!(2)));
    assert!(report["server"]["publishes_per_second"].as_f64().unwrap() > 0.0, "{report}");
    #[cfg(unix)]
    {
        stats.signal("INT");
        stats.end().succeeded();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_show_the_deployment_and_services() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    with_dead_letters(&messaging, "billing", "orders.created", 1).await;
    let readyz = r#"{"ready":true,"messaging":{"handlers":[{"id":"a::b","state":"running","handled":1234,"failed":2,"waiting":3,"dropped":4,"gaps":1}],
        "caches":[{"function":"c::d","hits":90,"local_hits":5,"stale":0,"misses":5,"loads":4}],"warnings":["look at this"]}}"#;
    let router = Router::new().route("/readyz", get(async move || readyz));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/readyz", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let shown = cli
        .run(&["stats", "--interval", "100ms", "--http", &url, "--http", "http://127.0.0.1:1/readyz"])
        .well();
    let line = |beginning: &str| {
        let line =
            shown.lines().find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("{shown}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(line("redis ").contains("commands/s"), "{shown}");
    assert!(line("orders.created").starts_with("orders.created 0 2 2 "), "{shown}");
    let groups: Vec<_> = shown.lines().filter(|line| line.contains("billing")).collect();
    assert_eq!(groups.len(), 1, "{shown}");
    assert_eq!(line("a::b"), "a::b running 1,234 2 3 4 1");
    assert_eq!(line("c::d"), "c::d 100 95.0% 4");
    assert!(shown.contains("look at this\n") && shown.contains("cannot connect: "), "{shown}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let cli = Cli::new();
    for (arguments, part) in [
        (&["stats", "--interval", "1ms"][..], "the shortest is 100ms"),
        (&["stats", "--http", "https://a/readyz"], "only http:// is spoken"),
        (&["stats", "--channel", "a b"], "not a valid channel"),
    ] {
        let complaint = cli.run(arguments).complaint(2);
        assert!(complaint.contains(part), "{complaint}");
    }
}
