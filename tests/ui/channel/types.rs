#![allow(dead_code, unused_variables)]

use messaging_core::channel;

struct UserId(u64);

#[channel("auditlog:{user_id}")]
struct AuditLog {
    user_id: UserId,
}

fn main() {}
