use futures_util::StreamExt;
use redis::AsyncCommands;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greeting {
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = redis::Client::open(std::env::var("REDIS_URL")?)?;
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe("greetings").await?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let greeting = serde_json::to_vec(&Greeting { text: "hello".into() })?;
    connection.publish::<_, _, ()>("greetings", greeting).await?;
    if let Some(message) = subscription.on_message().next().await {
        let greeting: Greeting = serde_json::from_slice(message.get_payload_bytes())?;
        println!("{}", greeting.text);
    }
    Ok(())
}
