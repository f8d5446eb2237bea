//! What a gateway's routes do, over real sockets.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests document themselves, and a test binary exports nothing"
)]

mod discovery;
mod internal;
mod rest;
mod web;
