//! What it looks like when something is wrong, and what tells: Redis is not there, events do not arrive, a cached value does
//! not go.

use std::collections::BTreeSet;
use std::time::Duration;

use messaging_core::{
    BoxError, CacheManager, Config, Messaging, describe, get_global_subscriber, get_redis_client,
};
use serde_json::{Value, json};

use crate::screen::Screen;

const CHANNEL: &str = "test.channel";

pub(crate) async fn show(config: Config) -> Result<(), BoxError> {
    println!("1. Redis is not there");
    let named = std::env::var_os("REDIS_URL").is_some_and(|url| !url.is_empty());
    say("REDIS_URL", if named { "is set" } else { "is not set: this program stays in memory" });
    // Without a password, if there is one.
    say("it means", &config.endpoint.to_string());
    let mut wrong = Config::new("redis://127.0.0.1:1")?;
    wrong.connect_timeout = Duration::from_millis(200);
    let lost = Messaging::builder().config(wrong).build().await?;
    match lost.client().ping().await {
        Ok(()) => say("ping", "somebody answers on port 1"),
        Err(error) => say("elsewhere", &format!("{error} (kind {:?})", error.kind())),
    }
    drop(lost);
    let messaging = Messaging::builder().config(config).state(Screen::new()).build().await?;
    let phase = |messaging: &Messaging| {
        let health = messaging.health();
        format!("phase {:?}, ready {}", health.phase, health.is_ready())
    };
    say("health", &format!("{} before start", phase(&messaging)));
    let running = messaging.start().await?;
    let client = get_redis_client()?;
    client.ping().await?;
    say("ping", "answered");
    say("health", &format!("{} after start", phase(&messaging)));

    println!("\n2. Events do not arrive");
    let receivers = client.publish(CHANNEL, "test message").await?;
    say("publish", &format!("{CHANNEL}: {receivers} receivers, nobody is subscribed"));
    let subscriber = get_global_subscriber()?;
    let misspelt = subscriber.on("test.chanel", async |_: Value| ()).await?;
    let receivers = client.publish(CHANNEL, "test message").await?;
    say("publish", &format!("{CHANNEL}: {receivers} receivers, the handler is elsewhere:"));
    for handler in messaging.health().handlers {
        say("handler", &format!("{:?} on {}", handler.state, handler.channels.join(", ")));
    }
    misspelt.stop().await;
    let right = get_global_subscriber()?.on(CHANNEL, async |_: Value| ()).await?;
    let receivers = client.publish(CHANNEL, "test message").await?;
    say("publish", &format!("{CHANNEL}: {receivers} receivers, with a handler of the right name"));
    right.stop().await;

    println!("\n3. A cached value does not go");
    say(
        "handlers",
        if messaging.health().is_ready() { "have been started" } else { "have not been started" },
    );
    let description = describe();
    let published: BTreeSet<_> =
        description.models.iter().flat_map(|model| &model.publishes).map(|(_, channel)| *channel).collect();
    for function in description.functions.iter().filter(|function| !function.invalidate_on.is_empty()) {
        for channel in &function.invalidate_on {
            let by = if published.contains(channel) {
                "published by a model here"
            } else {
                "published by nobody here"
            };
            say("invalidate_on", &format!("{channel} of {}: {by}", function.key));
        }
    }
    for suspicious in description.warnings.iter().chain(&description.notes) {
        say("describe", suspicious);
    }
    let cache = CacheManager::new("");
    let key = "camera:mac:AA:BB:CC:DD:EE:FF";
    cache.set(key, &json!({ "id": 7 }), Duration::from_secs(60)).await?;
    cache.invalidate(key).await?;
    let left: Option<Value> = cache.get(key).await?;
    say("by hand", &format!("{key} is {}", if left.is_none() { "gone" } else { "still there" }));
    running.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

fn say(what: &str, text: &str) {
    println!("   {what:<14} {text}");
}
