//! A service whose handlers are in other crates: one that is named here, and one that is only listed in `Cargo.toml`.

use std::time::Duration;

use handlers_named as _;
use messaging_core::{Messaging, Result, describe};

#[tokio::main]
async fn main() -> Result<()> {
    println!("{}", serde_json::to_string(&describe()).expect("a description is JSON"));
    let messaging = Messaging::builder().url("memory://").build().await?;
    let running = messaging.start().await?;
    let mut answers = messaging.subscribe("greeted.{who}").await?;
    messaging.publish("greet.world", &"Hello").await?;
    let answer = answers.get_message(Duration::from_secs(30)).await?.expect("the handler answers");
    println!("{} {}", answer.channel(), answer.json::<String>()?);
    running.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
