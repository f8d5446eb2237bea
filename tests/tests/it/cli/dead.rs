//! `dead list`, `show`, `replay`, `purge`.

use expect_test::expect;
use serde_json::{Value, json};

use super::{Cli, with_dead_letters};

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_and_shown() {
    let cli = Cli::new();
    let came = cli.run(&["dead", "list"]).with(1);
    assert!(came.err.contains("no group has dead letters"), "{came:?}");
    let messaging = cli.messaging().await;
    with_dead_letters(&messaging, "billing", "orders.created", 3).await;
    expect![[r#"
        GROUP    DEAD
        billing     3
    "#]]
    .assert_eq(&cli.run(&["dead", "list"]).well());
    assert_eq!(cli.run(&["dead", "list", "--json"]).json(), json!({ "group": "billing", "dead": 3 }));

    let shown = cli.run(&["dead", "list", "billing", "--limit", "2"]).with(0);
    assert!(shown.err.contains("the first 2 of 3 dead letters; --limit shows more"), "{}", shown.err);
    let lines: Vec<_> = shown.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", shown.out);
    assert!(lines[0].starts_with("ID") && lines[0].ends_with("ATTEMPTS  ERROR"), "{}", lines[0]);
    assert!(lines[1].starts_with("orders.created@") && lines[1].ends_with("1  cannot do -1"), "{}", lines[1]);

    let listed = cli.run(&["dead", "list", "billing", "--json", "--error", "-2"]).json();
    for (field, value) in [
        ("group", json!("billing")),
        ("channel", json!("orders.created")),
        ("handler", json!("billing")),
        ("attempts", json!(1)),
        ("error", json!("cannot do -2")),
        ("headers", json!({ "from": "the test" })),
        ("payload", json!(-2)),
    ] {
        assert_eq!(listed[field], value, "{field}");
    }
    let id = listed["id"].as_str().unwrap();
    let short = id.split('@').nth(1).unwrap();
    let shown = cli.run(&["dead", "show", "billing", short]).well();
    for part in [
        &format!("       id {id}\n"),
        "  channel orders.created\n",
        "   header from: the test\n",
        "    error cannot do -2\n",
        "payload\n-2\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    let real = format!("{}{id}", cli.0.config.channel_prefix);
    assert_eq!(cli.run(&["dead", "show", "billing", &real, "--json"]).json()["payload"], json!(-2));
    let complaint = cli.run(&["dead", "show", "billing", "1-1"]).complaint(1);
    assert!(complaint.contains("the group billing has no dead letter 1-1"), "{complaint}");
    let came = cli.run(&["dead", "list", "nobody"]).with(1);
    assert!(came.err.contains("the group nobody has no such dead letters"), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_replayed_and_purged() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    with_dead_letters(&messaging, "billing", "orders.created", 1_200).await;
    let (dead, operator) = (messaging.dead_letters("billing"), messaging.operator());
    let first = dead.page(None, 1).await.unwrap()[0].id().to_string();
    assert_eq!(cli.run(&["dead", "replay", "billing", &first]).well(), "replayed 1 dead letter\n");
    assert_eq!((dead.count().await.unwrap(), operator.groups().await.unwrap()[0].unread), (1_199, 1));
    cli.run(&["dead", "replay", "billing", &first]).complaint(1);

    // Nobody sits in front of it.
    for verb in ["replay", "purge"] {
        let complaint = cli.run(&["dead", verb, "billing", "--all"]).complaint(2);
        assert!(complaint.contains(&format!("{verb} 1,199 dead letters of billing")), "{complaint}");
        assert!(complaint.ends_with("add --yes"), "{complaint}");
    }
    assert_eq!(dead.count().await.unwrap(), 1_199);
    let purged = cli.run(&["dead", "purge", "billing", "--error", "do -11", "--yes", "--json"]).json();
    // -11, -110 to -119, and -1100 to -1199.
    assert_eq!(purged, json!({ "group": "billing", "purged": 111 }));
    cli.run(&["dead", "purge", "billing", "--older-than", "1d", "--yes"]).with(1);
    assert_eq!(
        cli.run(&["dead", "replay", "billing", "--all", "--yes"]).well(),
        "replayed 1,088 dead letters\n"
    );
    assert_eq!((dead.count().await.unwrap(), operator.groups().await.unwrap()[0].unread), (0, 1_089));
    cli.run(&["dead", "purge", "billing", "--all", "--yes"]).with(1);
}

/// Streams expire before dead letters do.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_outlive_their_stream() {
    let cli = Cli::new();
    let messaging = cli.messaging().await;
    with_dead_letters(&messaging, "billing", "orders.created", 1).await;
    let key = format!("{}:{{{}orders.created}}:stream", cli.0.config.namespace, cli.0.config.channel_prefix);
    messaging_tests::shared_redis().cli(&["DEL", &key]);
    assert!(cli.run(&["dead", "list"]).well().contains("billing"));
    let listed: Value = cli.run(&["dead", "list", "billing", "--json"]).json();
    assert_eq!(listed["payload"], json!(-1));
    cli.run(&["dead", "replay", "billing", "--all", "-y"]).well();
}

#[test]
fn what_is_to_be_removed_has_to_be_said() {
    let cli = Cli::new();
    for (arguments, part) in [
        (&["dead", "purge", "billing"][..], "try `messaging dead purge --help`"),
        (&["dead", "purge", "billing", "1-1", "--all"], "cannot be used with"),
        (&["dead", "replay", "billing", "--older-than", "soon"], "write a time span such as 250ms"),
        (&["dead", "list", "--error", "x"], "go with a group"),
    ] {
        let complaint = cli.run(arguments).complaint(2);
        assert!(complaint.contains(part), "{complaint}");
    }
}
