//! The gateway and its clients while Redis, the network, processes or clients fail.

#[path = "../../it/gateway/client.rs"]
#[allow(dead_code, reason = "the other suite uses more of it")]
mod client;
mod clients;
mod failover;
mod herd;
mod lost;
mod outages;
mod peer;
mod processes;
mod serving;
mod slow;

use messaging_gateway::subscription;

/// What is kept, so that one can resume.
#[subscription(entity = "FaultsKept", channels = "faults.kept.{name}", presence, public)]
pub struct Kept;

/// The same, of which little is kept.
#[subscription(entity = "FaultsShort", channels = "faults.short.{name}", public)]
pub struct Short;

/// What is not kept.
#[subscription(entity = "FaultsPlain", channels = "faults.plain.{name}", public)]
pub struct Plain;

/// Who does not keep up gets the latest.
#[subscription(entity = "FaultsLatest", channels = "faults.latest.{name}", slow = "latest", public)]
pub struct Latest;

/// Who does not keep up loses the oldest.
#[subscription(entity = "FaultsOldest", channels = "faults.oldest.{name}", slow = "drop_oldest", public)]
pub struct Oldest;

const KEPT: &str = "faults.kept.a";
const SHORT: &str = "faults.short.a";
const PLAIN: &str = "faults.plain.a";
