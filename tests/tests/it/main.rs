//! Every behaviour on every backend, and on Redis what only a real server can show.

#![allow(missing_docs, unreachable_pub, reason = "tests document themselves, and a test binary exports nothing")]

mod cache;
mod handlers;
mod lifecycle;
mod models;
mod place;
mod pubsub;
mod python;
mod redis_only;
