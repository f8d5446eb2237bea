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

fn main() {}
