//! The promises of the cache: what many processes see of it, whatever becomes of Redis, the network, and each other. Here is
//! what these tests share: one deployment, a few cached functions, and the database behind them.

mod cancelled;
mod clock;
mod database;
mod failing;
mod history;
mod keys;
mod options;
mod outage;
mod reloads;
mod round_trips;
mod stalls;
mod stampede;
mod topology;
mod unheard;

use std::time::Duration;

use messaging_core::{CacheStats, Config, Messaging, event_config, redis_cache};
use serde::{Deserialize, Serialize};

use crate::place::Place;
use database::Source;

/// Within this time somebody else's event has made a value out of date: the default.
pub const LAG: Duration = Duration::from_secs(1);

/// One deployment for all processes of a test, with the settings that a service has by default.
pub fn by_default(url: &str) -> Place {
    Place { config: Config::new(url).unwrap() }
}

/// The same with the patience of tests: a busy machine must not look like a slow Redis.
pub fn patient(url: &str) -> Place {
    let mut place = Place::at(url);
    place.config.channel_prefix.clear();
    place.config.cache_prefix.clear();
    "msg".clone_into(&mut place.config.namespace);
    place
}

/// The address of a port on this machine.
pub fn at(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

/// A key with one placeholder, and an event that names it.
#[redis_cache(key = "row:{id}", ttl = "10m", invalidate_on = ["cached.row"])]
pub async fn row(id: u64, source: &Source) -> u64 {
    source.load(&row_name(id)).await
}

pub fn row_name(id: u64) -> String {
    format!("row:{id}")
}

/// A key with two placeholders: one is named by the channel, the other by the payload.
#[redis_cache(key = "cell:{site}:{id}", ttl = "10m", invalidate_on = [{ on = "cached.cells.{site}", id = cell }])]
pub async fn cell(site: u64, id: u64, source: &Source) -> u64 {
    source.load(&cell_name(site, id)).await
}

pub fn cell_name(site: u64, id: u64) -> String {
    format!("cell:{site}:{id}")
}

/// A model whose key can change.
#[event_config(
    publish = { update = "cached.seat" },
    payload_fields = [id, address],
    previous = [address],
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seat {
    pub id: u64,
    pub address: String,
}

#[redis_cache(key = "seat:{address}", ttl = "10m", invalidate_on = [Seat(update)])]
pub async fn seat(address: &str, source: &Source) -> u64 {
    source.load(&seat_name(address)).await
}

pub fn seat_name(address: &str) -> String {
    format!("seat:{address}")
}

/// Its event may not say which of them it means.
#[redis_cache(key = "page:{id}", ttl = "10m", invalidate_on = ["cached.page"])]
pub async fn page(id: u64, source: &Source) -> u64 {
    source.load(&page_name(id)).await
}

pub fn page_name(id: u64) -> String {
    format!("page:{id}")
}

/// It is kept in the processes too.
#[redis_cache(key = "near:{id}", ttl = "10m", local = "5s", invalidate_on = ["cached.near"])]
pub async fn near(id: u64, source: &Source) -> u64 {
    source.load(&near_name(id)).await
}

pub fn near_name(id: u64) -> String {
    format!("{NEAR}{id}")
}

/// What the names of rows begin with that processes keep themselves: they hear of others within the lag.
pub const NEAR: &str = "near:";

/// After its time it is still answered with, while it is loaded again.
#[redis_cache(key = "aging:{id}", ttl = "200ms", stale = "10m", invalidate_on = ["cached.aging"])]
pub async fn aging(id: u64, source: Source) -> u64 {
    source.load(&aging_name(id)).await
}

pub fn aging_name(id: u64) -> String {
    format!("aging:{id}")
}

/// Nobody waits long for another process.
#[redis_cache(key = "hasty:{id}", ttl = "10m", wait = "2s", invalidate_on = ["cached.hasty"])]
pub async fn hasty(id: u64, source: &Source) -> u64 {
    source.load(&hasty_name(id)).await
}

pub fn hasty_name(id: u64) -> String {
    format!("hasty:{id}")
}

/// What one of the functions above has done.
pub fn stats(messaging: &Messaging, function: &str) -> CacheStats {
    let ending = format!("::{function}");
    let mut caches = messaging.health().caches.into_iter();
    caches.find(|stats| stats.function.ends_with(&ending)).unwrap()
}
