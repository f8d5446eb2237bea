//! Somebody who hears everything that a server publishes: a plain subscriber straight at the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use messaging_tests::{RedisServer, eventually};
use redis::Client;
use tokio::task::JoinHandle;

/// How often each payload was heard on one channel.
pub struct Witness {
    heard: Arc<Mutex<BTreeMap<u64, u32>>>,
    task: JoinHandle<()>,
}

impl Witness {
    pub async fn on(redis: &RedisServer, channel: &str) -> Self {
        let mut subscriber = Client::open(redis.url()).unwrap().get_async_pubsub().await.unwrap();
        subscriber.subscribe(channel).await.unwrap();
        let heard = Arc::<Mutex<BTreeMap<u64, u32>>>::default();
        let notes = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut messages = subscriber.into_on_message();
            while let Some(message) = messages.next().await {
                let number = message.get_payload().expect("payloads are numbers");
                *notes.lock().unwrap().entry(number).or_default() += 1;
            }
        });
        Self { heard, task }
    }

    pub fn heard(&self) -> BTreeMap<u64, u32> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has heard this number: what the server had taken before has been heard too.
    pub async fn has_heard(&self, number: u64) {
        eventually(&format!("the witness hears {number}"), async || self.heard().contains_key(&number)).await;
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}
