#![allow(dead_code, unused_variables)]

use messaging_core::channel;

#[channel]
struct Missing;

#[channel(heartbeat)]
struct NotText;

#[channel("audit log")]
struct Space;

#[channel("events.*")]
struct Glob;

#[channel("a:{id}", name = "x")]
struct UnknownOption {
    id: u64,
}

#[channel("auditlog:{user_id}")]
struct Fields {
    user: u64,
    level: u8,
}

#[channel("auditlog:{user_id}")]
struct NoFields;

#[channel("auditlog:{user_id}")]
struct Unnamed(u64);

#[channel("auditlog:{user_id}")]
struct Generic<T> {
    user_id: T,
}

#[channel("auditlog")]
enum NotAStruct {}

fn main() {}
