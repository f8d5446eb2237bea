//! `cache get`, `invalidate`, `families`.

use std::time::Duration;

use expect_test::expect;
use messaging_core::{Messaging, redis_cache};
use serde_json::json;

use super::Cli;

#[redis_cache(key = "cli:{key}", ttl = 600, jitter = 0, invalidate_on = ["cli.changed", { on = "cli:{which}:gone", key = which }])]
async fn remembered(key: &str) -> Vec<String> {
    vec![key.to_owned()]
}

async fn started(cli: &Cli) -> (Messaging, messaging_core::Running) {
    let messaging = cli.messaging().await;
    let running = messaging.start().await.unwrap();
    (messaging, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_shown_and_made_out_of_date() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    let cache = messaging.cache("user");
    cache.set("7", &json!({ "name": "Ada", "tags": [] }), Duration::from_secs(600)).await.unwrap();
    let came = cli.run(&["cache", "get", "user:7"]).with(0);
    expect![[r#"
        {
          "name": "Ada",
          "tags": []
        }
    "#]]
    .assert_eq(&came.out);
    assert!(came.err.contains("24 B, for "), "{}", came.err);
    let report = cli.run(&["cache", "get", "user:7", "--json"]).json();
    assert_eq!((&report["value"]["name"], &report["loading"]), (&json!("Ada"), &json!(false)));
    let left = report["left_ms"].as_u64().unwrap();
    assert!((1..=600_000).contains(&left), "{left}");
    assert_eq!(cli.run(&["cache", "invalidate", "user:7", "user:8"]).well(), "invalidated 2 keys\n");
    assert!(cache.get::<serde_json::Value>("7").await.unwrap().is_none());
    let came = cli.run(&["cache", "get", "user:7"]).with(1);
    assert!(came.err.contains("there is nothing under user:7"), "{came:?}");
    assert_eq!(cli.run(&["cache", "get", "user:7", "--json"]).with(1).json()["found"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_removed_by_pattern_if_that_is_really_wanted() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    for key in ["user:1", "user:2", "order:1"] {
        messaging.cache("").set(key, &1, Duration::from_secs(600)).await.unwrap();
    }
    let complaint = cli.run(&["cache", "invalidate", "--pattern", "user:*"]).complaint(2);
    assert!(
        complaint.contains("invalidate all values whose key matches user:*")
            && complaint.ends_with("add --yes"),
        "{complaint}"
    );
    assert_eq!(
        cli.run(&["cache", "invalidate", "--pattern", "user:*", "--yes"]).well(),
        "invalidated 2 values\n"
    );
    cli.run(&["cache", "get", "user:1"]).with(1);
    assert_eq!(cli.run(&["cache", "get", "order:1"]).well(), "1\n");
}

/// A process that keeps a value in its memory, or is just loading it, is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_another_process_is_made_out_of_date() {
    let cli = Cli::new();
    let came = cli.run(&["cache", "families"]).with(1);
    assert!(came.err.contains("no cached function with `invalidate_on` is registered"), "{came:?}");
    let (messaging, _running) = started(&cli).await;
    let id = concat!(module_path!(), "::remembered");
    let families = cli.run(&["cache", "families", "--json"]).json();
    let ours = families.as_array().unwrap().iter().find(|family| family["id"] == id).unwrap();
    assert_eq!((&ours["key"], &ours["keep_ms"]), (&json!("cli:{key}"), &json!(600_000)));
    assert_eq!(ours["channels"], json!(["cli.changed", "cli:{which}:gone"]));
    let shown = cli.run(&["cache", "families"]).well();
    let line = shown.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(line.contains("cli:{key}  ") && line.contains("cli.changed cli:{which}:gone"), "{line}");

    for key in ["a", "b"] {
        messaging.scope(remembered(key)).await;
    }
    messaging_tests::eventually("both are stored", async || {
        let operator = messaging.operator();
        operator.cached("cli:a").await.unwrap().is_some() && operator.cached("cli:b").await.unwrap().is_some()
    })
    .await;
    cli.run(&["cache", "invalidate", "--family", id]).complaint(2);
    assert_eq!(cli.run(&["cache", "invalidate", "--family", id, "-y"]).well(), "invalidated 2 values\n");
    assert!(messaging.operator().cached("cli:a").await.unwrap().is_none());
    let complaint = cli.run(&["cache", "invalidate", "--family", "nothing", "-y"]).complaint(1);
    assert!(
        complaint.contains("`nothing`") && complaint.contains("`messaging cache families` shows"),
        "{complaint}"
    );
}
