//! What the programs of this crate share. They differ in the cached functions that they have, and are told by their
//! arguments what to do: `URL publish CHANNEL PAYLOAD`, `URL read ID VERSION`, or `URL stay`.

use std::time::Duration;

use messaging_core::{Config, Messaging, Result};

/// Runs one program; `read` is its cached function, given a key and what is in the database.
pub async fn run(read: impl AsyncFn(u64, u64) -> u64) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let messaging = Messaging::builder().config(Config::new(words[0])?).build().await?;
    let running = messaging.start().await?;
    match &words[1..] {
        ["publish", channel, payload] => {
            let payload: serde_json::Value = serde_json::from_str(payload).expect("the payload is JSON");
            messaging.publish(*channel, &payload).await?;
            println!("published");
        }
        ["read", id, version] => {
            let [id, version] = [id, version].map(|text| text.parse().expect("it is a number"));
            println!("read {}", messaging.scope(read(id, version)).await);
        }
        ["stay"] => {
            messaging.scope(read(0, 0)).await;
            println!("ready");
            std::future::pending::<()>().await;
        }
        other => panic!("{other:?}"),
    }
    // What was loaded is stored behind the caller's back.
    assert!(running.shutdown(Duration::from_secs(10)).await.is_complete());
    Ok(())
}
