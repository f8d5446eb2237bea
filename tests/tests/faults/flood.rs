//! A publisher that is not ours, and that publishes as fast as it can.

use messaging_core::Messaging;
use messaging_tests::RedisServer;
use redis::Client;
use redis::aio::MultiplexedConnection;

use crate::place::Place;
use crate::stream::plain_connection;

/// A plain connection straight to the server.
pub struct Publisher {
    connection: MultiplexedConnection,
    prefix: String,
}

impl Publisher {
    pub async fn at(url: &str, prefix: &str) -> Self {
        let connection = plain_connection(&Client::open(url).unwrap()).await.unwrap();
        Self { connection, prefix: prefix.to_owned() }
    }

    pub async fn publish(&mut self, channel: &str, payload: impl redis::ToRedisArgs + Send + Sync) {
        let channel = format!("{}{channel}", self.prefix);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(payload).query_async::<u64>(&mut self.connection).await.unwrap();
    }

    /// Publishes all of this, a hundred in one write.
    pub async fn flood(&mut self, channel: &str, payloads: impl IntoIterator<Item = String>) {
        let channel = format!("{}{channel}", self.prefix);
        let mut payloads = payloads.into_iter().peekable();
        while payloads.peek().is_some() {
            let mut batch = redis::pipe();
            for payload in payloads.by_ref().take(100) {
                batch.cmd("PUBLISH").arg(&channel).arg(payload).ignore();
            }
            batch.query_async::<()>(&mut self.connection).await.unwrap();
        }
    }
}

pub fn numbers(numbers: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    numbers.map(|number| number.to_string())
}

/// A messaging without handlers, and somebody else who publishes on its channels.
pub async fn at(redis: &RedisServer) -> (Messaging, Publisher) {
    let place = Place::at(&redis.url());
    (place.messaging().await, Publisher::at(&redis.url(), &place.config.channel_prefix).await)
}
