//! Queues: what at-least-once is worth while processes, the server and the network go away. Here is what these tests share:
//! one channel, one group, and what the server says of them.

mod drain;
mod healing;
mod leases;
mod names;
mod order;
mod outages;
mod poison;
mod retention;
mod retries;
mod witnessed;

use std::num::NonZeroUsize;
use std::time::Duration;

use messaging_core::{Buffer, Builder, DeliveryMode, HandlerHealth, Messaging, Subscriber};
use messaging_tests::{Proxy, RedisServer, eventually};

use crate::place::Place;

pub const CHANNEL: &str = "orders.created";
pub const GROUP: &str = "billing";
pub const STREAM: &str = "msg:{orders.created}:stream";
/// Long enough for a machine that is busy with other tests, short enough to wait for.
pub const RECLAIM: Duration = Duration::from_secs(1);

/// Where all processes of a test are.
pub fn place(url: &str) -> Place {
    let mut place = Place::at(url);
    place.config.channel_prefix.clear();
    "msg".clone_into(&mut place.config.namespace);
    place.config.reclaim = RECLAIM;
    place
}

/// The same, with a proxy between.
pub fn place_behind(proxy: &Proxy) -> Place {
    place(&format!("redis://127.0.0.1:{}", proxy.port()))
}

/// A queue handler of the one group, which takes ahead as much as there is.
pub fn queue(messaging: &Messaging) -> Subscriber {
    let buffer = Buffer { messages: NonZeroUsize::new(2_000).unwrap(), ..Buffer::DEFAULT };
    messaging.subscriber().delivery(DeliveryMode::Queue).group(GROUP).id(GROUP).buffer(buffer)
}

pub async fn built(builder: Builder) -> Messaging {
    builder.build().await.unwrap()
}

pub async fn publish(messaging: &Messaging, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        messaging.publish(CHANNEL, &number).durable().await.unwrap();
    }
}

/// How the group's handler of this process is.
pub fn health(messaging: &Messaging) -> HandlerHealth {
    messaging.health().handlers.into_iter().find(|handler| handler.id == GROUP).unwrap()
}

/// A number that the server answers with; 0 if it refuses.
pub fn count(redis: &RedisServer, command: &[&str]) -> u64 {
    let answer = redis.try_cli(command).unwrap_or_default();
    answer.lines().next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// How many entries of a stream are in the hands of the group's consumers.
pub fn pending(redis: &RedisServer, stream: &str) -> u64 {
    count(redis, &["XPENDING", stream, GROUP])
}

/// How many entries of a stream wait for another attempt of the group.
pub fn delayed(redis: &RedisServer, stream: &str) -> u64 {
    count(redis, &["ZCARD", &of_the_group(stream, "delay")])
}

/// How many dead letters of a stream the group has.
pub fn dead(redis: &RedisServer, stream: &str) -> u64 {
    count(redis, &["XLEN", &of_the_group(stream, "dead")])
}

/// How many consumers the group has of the one stream, by their names.
pub fn consumers(redis: &RedisServer) -> u64 {
    const CONSUMERS: &str = "return #redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])";
    count(redis, &["EVAL", CONSUMERS, "1", STREAM, GROUP])
}

/// A key of what the group keeps beside a stream.
pub fn of_the_group(stream: &str, what: &str) -> String {
    format!("{}:{what}:{GROUP}", stream.trim_end_matches(":stream"))
}

/// Waits until the group has nothing in hand and nothing left to try again, in any of these streams. Both are asked for at
/// once: between two questions an entry would move from one to the other.
pub async fn settled(redis: &RedisServer, streams: &[&str]) {
    const LEFT: &str = "local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1]) \
        return (pending.err and 0 or pending[1]) + redis.call('ZCARD', KEYS[2])";
    let left = |stream: &str| {
        let delay = of_the_group(stream, "delay");
        count(redis, &["EVAL", LEFT, "2", stream, &delay, GROUP])
    };
    eventually("nothing is pending", async || streams.iter().all(|stream| left(stream) == 0)).await;
}
