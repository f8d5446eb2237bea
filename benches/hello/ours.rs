use messaging_core::{Messaging, subscribe};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greeting {
    text: String,
}

#[subscribe("greetings")]
async fn greeted(greeting: Greeting) {
    println!("{}", greeting.text);
}

#[tokio::main]
async fn main() -> messaging_core::Result<()> {
    let messaging = Messaging::builder().build().await?;
    let running = messaging.start().await?;
    messaging.publish("greetings", &Greeting { text: "hello".into() }).await?;
    running.shutdown(messaging.config().drain_timeout).await;
    Ok(())
}
