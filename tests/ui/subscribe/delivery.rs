#![allow(dead_code, unused_variables)]

use messaging_core::{channel, subscribe, subscribers};

#[channel("auditlog:{user_id}")]
struct AuditLog {
    user_id: u64,
}

// No other mistake is made of what cannot be told.
#[subscribe("a", delivery = "quue", group = "billing", ordered_by = key)]
async fn misspelt() {}

#[subscribe("a", delivery = "stream")]
async fn unknown() {}

#[subscribe("a", delivery = queue)]
async fn without_quotes() {}

#[subscribe("a", delivery = 2)]
async fn number() {}

#[subscribe("a", delivery)]
async fn nothing() {}

#[subscribe("a", group = "billing", dead_letter = "a.dead", start = "new", dedupe = "24h")]
async fn broadcast() {}

#[subscribe("a", delivery = "broadcast", group = "billing")]
async fn broadcast_in_words() {}

#[subscribe(AuditLog, delivery = "resumable", group = "billing", dead_letter = "a.dead", overflow = "block")]
async fn resumable() {}

#[subscribe("a", delivery = "queue", overflow = "wait", resync = reload, resync_every = "30s")]
async fn queue() {}

#[subscribe("a", delivery = "queue", resync_every = "30s")]
async fn queue_at_intervals() {}

#[subscribe("a", delivery = "queue", group = "")]
async fn group_empty() {}

#[subscribe("a", delivery = "queue", group = "bill{ing}")]
async fn group_braces() {}

#[subscribe("a", delivery = "queue", group = billing)]
async fn group_without_quotes() {}

#[subscribe("a", delivery = "queue", start = "begining")]
async fn start_misspelt() {}

#[subscribe("a", delivery = "resumable", start = 0)]
async fn start_number() {}

#[subscribe("a", delivery = "queue", dedupe = 0)]
async fn dedupe_zero() {}

#[subscribe("a", delivery = "queue", dedupe = true)]
async fn dedupe_truth() {}

#[subscribe("a:{id}", delivery = "queue", dead_letter = "dead:{id}")]
async fn dead_letter_template(id: u64) {}

#[subscribe("a", delivery = "queue", dead_letter = "dead.*")]
async fn dead_letter_glob() {}

#[subscribe("a", delivery = "queue", dead_letter = "dead letters")]
async fn dead_letter_spaces() {}

#[subscribe("a", delivery = "queue", dead_letter = AuditLog)]
async fn dead_letter_type() {}

async fn reload() {}

struct Service;

#[subscribers]
impl Service {
    #[subscribe("a", group = "billing")]
    async fn broadcast(&self) {}

    #[subscribe("a", delivery = "queue", resync = Self::reload)]
    async fn queue(&self) {}

    async fn reload() {}
}

#[subscribe(["a", "b.*"], sharded)]
async fn sharded_glob() {}

#[subscribe("a:{id}", sharded)]
async fn sharded_template(id: u64) {}

#[subscribe("a", sharded = true)]
async fn sharded_with_a_value() {}

#[subscribe("a", delivery = "queue", sharded)]
async fn sharded_queue() {}

fn main() {}
