//! Every behaviour on every backend, and on Redis what only a real server can show.

#![allow(missing_docs, reason = "tests document themselves")]

mod cache;
mod handlers;
mod lifecycle;
mod models;
mod place;
mod pubsub;
mod redis_only;
