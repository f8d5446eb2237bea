//! What integration tests share: real Redis servers, a real PostgreSQL, a proxy that breaks connections, names of their own, waiting for conditions, and Python scripts.
//! It knows nothing of `messaging-core`.
//!
//! ```no_run
//! # async fn example() {
//! use messaging_tests::{PostgresServer, RedisServer, eventually, shared_redis, unique};
//!
//! // Most tests share one server and keep to a name of their own.
//! let url = shared_redis().url();
//! let channel = unique("camera");
//!
//! // A test that stops, pauses or configures its server has one of its own.
//! let redis = RedisServer::builder().password("secret").arg("--maxmemory", "8mb").start();
//! redis.stop();
//! redis.start_again();
//!
//! // Where PostgreSQL is missing, tests that need it have nothing to do.
//! if PostgresServer::available() {
//!     let database = PostgresServer::shared().database();
//!     assert_eq!(database.psql("select 1"), "1");
//! }
//!
//! // A test waits for a condition, never for a time.
//! eventually("it is subscribed", async || redis.cli(&["PUBSUB", "CHANNELS"]).contains(&channel)).await;
//! # }
//! ```

mod certificates;
mod cluster;
mod meter;
mod ports;
#[cfg(unix)]
mod postgres;
mod proxy;
mod python;
mod reaper;
mod resp;
mod sentinel;
mod server;
mod setup;
#[cfg(test)]
mod tests;
mod waiting;

pub use certificates::TlsFiles;
pub use cluster::{Cluster, ClusterBuilder};
pub use meter::{Meter, Request};
pub use ports::free_port;
#[cfg(unix)]
pub use postgres::{Database, PostgresServer};
pub use proxy::{Direction, Proxy};
pub use python::{Python, Script};
pub use sentinel::{Sentinel, SentinelBuilder};
pub use server::RedisServer;
pub use setup::RedisBuilder;
pub use waiting::{Condition, eventually};

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The plain server that all tests of one process share: started on first use, gone when the process is.
///
/// A test keeps to names of its own ([`unique`]) and does not stop, pause or reconfigure this server.
#[must_use]
pub fn shared_redis() -> &'static RedisServer {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    SHARED.get_or_init(RedisServer::start)
}

/// The servers behind Sentinel that all tests of one process share, as [`shared_redis`].
#[must_use]
pub fn shared_sentinel() -> &'static Sentinel {
    static SHARED: OnceLock<Sentinel> = OnceLock::new();
    SHARED.get_or_init(Sentinel::start)
}

/// The cluster that all tests of one process share, as [`shared_redis`].
#[must_use]
pub fn shared_cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

/// A name that no other test has, in this process or another: `unique("camera")` is, say, `camera-1f6e3a9c0b2d-7`.
///
/// It is one segment of a channel: it holds neither `.` nor `:`, and no glob character, unless `prefix` does.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(process_number) % (1 << 48);
    format!("{prefix}-{process:012x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Differs between processes that run at the same time and between runs.
fn process_number() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    RandomState::new().hash_one((std::process::id(), now))
}

/// The quick start of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The guide to caching, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/caching.md")]
pub struct Caching;

/// The guide to models in SQL, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/models.md")]
pub struct Models;

/// The guide to testing, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
pub struct Testing;

/// The guide to operating, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/operating.md")]
pub struct Operating;

/// The guide to the gateway, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/gateway.md")]
pub struct Gateway;

/// The guide to errors, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/errors.md")]
pub struct Errors;

/// The guide to migrating, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/migrating.md")]
pub struct Migrating;
