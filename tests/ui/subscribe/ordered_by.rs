#![allow(dead_code, unused_variables)]

use messaging_core::{channel, subscribe};

#[channel("auditlog:{user_id}")]
struct AuditLog {
    user_id: u64,
}

#[subscribe("a:{id}", ordered_by = id)]
async fn no_workers(id: u64) {}

#[subscribe("a:{id}", ordered_by = id, workers = 1)]
async fn one_worker(id: u64) {}

#[subscribe("a:{id}", ordered_by = ident, workers = 2)]
async fn no_such_placeholder(id: u64) {}

#[subscribe("a", ordered_by = id, workers = 2)]
async fn no_placeholder() {}

#[subscribe("a:{id}", ordered_by = "id", workers = 2)]
async fn text(id: u64) {}

#[subscribe(AuditLog, ordered_by = user_id, workers = 2)]
async fn typed_channel() {}

#[subscribe("a:{id}", ordered_by = key, workers = 2)]
async fn key_of_a_broadcast(id: u64) {}

#[subscribe("a:{id}", delivery = "queue", ordered_by = ident)]
async fn no_such_placeholder_of_a_queue(id: u64) {}

#[subscribe("a", delivery = "queue", ordered_by = channel)]
async fn one_worker_of_a_queue() {}

#[subscribe(AuditLog, delivery = "resumable", ordered_by = user_id)]
async fn typed_channel_of_a_stream() {}

#[subscribe("a", delivery = "queue", ordered_by = "key")]
async fn key_in_quotes() {}

#[subscribe("a", delivery = "queue", ordered_by = 5)]
async fn number() {}

// What could mean two things is refused; with a broadcast there is no other key.
#[subscribe("a:{key}.{channel}", delivery = "queue", ordered_by = key)]
async fn key_or_placeholder(key: u64, channel: u64) {}

#[subscribe("a:{key}.{channel}", ordered_by = channel, workers = 2)]
async fn channel_or_placeholder(key: u64, channel: u64) {}

#[subscribe("a:{key}.{channel}", ordered_by = key, workers = 2)]
async fn only_a_placeholder(key: u64, channel: u64) {}

fn main() {}
