//! Every behaviour on every backend, and on Redis what only a real server can show.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests document themselves, and a test binary exports nothing"
)]

mod asyncapi;
mod cache;
mod cache_options;
mod centrifuge_clients;
mod cli;
mod examples;
mod follow;
mod gateway;
mod gateway_python;
mod getting_started;
mod handlers;
mod jwt;
mod lifecycle;
mod models;
mod outside;
mod place;
mod presence;
mod programs;
mod pubsub;
mod python;
mod queue_edges;
mod queues;
mod redis_only;
mod seeds;
mod sql;
