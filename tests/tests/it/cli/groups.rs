//! `groups`.

use expect_test::expect;
use serde_json::json;

use super::{Cli, with_dead_letters, workers};

#[tokio::test(flavor = "multi_thread")]
async fn every_group_of_every_stream_is_shown() {
    let cli = Cli::new();
    let came = cli.run(&["groups"]).with(1);
    assert!(came.out.is_empty() && came.err.contains("there are no groups"), "{came:?}");
    assert_eq!(cli.run(&["groups", "--json"]).with(1).json(), json!([]));

    let messaging = cli.messaging().await;
    with_dead_letters(&messaging, "billing", "orders.created", 2).await;
    for number in 1..=1_500 {
        messaging.publish("orders.created", &number).durable().await.unwrap();
    }
    messaging.publish("orders.shipped", &0).durable().await.unwrap();
    let _mailing = workers(&messaging, "mailing", "orders.shipped").await;
    let shown = cli.run(&["groups"]).well();
    // How long a consumer has been idle, and the age of what is in hand, differ.
    let lines: Vec<_> = shown.lines().collect();
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    expect!["STREAM GROUP ALIVE UNREAD PENDING DELAYED OLDEST IDLE DEAD"].assert_eq(&columns(lines[0]));
    let billing = columns(lines[1]);
    assert!(
        billing.starts_with("orders.created billing 0 1,500 0 0 - ") && billing.ends_with(" 2"),
        "{billing}"
    );
    assert!(columns(lines[2]).starts_with("orders.shipped mailing 1 0 0 0 - "), "{}", lines[2]);
    assert_eq!(lines.len(), 3, "{shown}");

    let report = cli.run(&["groups", "mailing", "--json"]).well();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report.as_array().unwrap().len(), 1);
    for (field, value) in
        [("group", json!("mailing")), ("alive", json!(1)), ("unread", json!(0)), ("dead", json!(0))]
    {
        assert_eq!(report[0][field], value, "{field}");
    }
    assert_eq!(report[0]["consumers"][0]["alive"], json!(true));
    let shown = cli.run(&["groups", "mailing", "--consumers"]).well();
    assert!(
        shown.contains("CONSUMER") && shown.contains(report[0]["consumers"][0]["name"].as_str().unwrap()),
        "{shown}"
    );
    let came = cli.run(&["groups", "nobody"]).with(1);
    assert!(came.err.contains("there is no group nobody"), "{came:?}");
}
