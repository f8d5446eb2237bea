//! The gateway as its clients see it, on each backend.

mod centrifugo;
pub mod client;
mod discovery;
mod drain;
mod events;
mod fuzz;
mod later;
mod limits;
mod order;
mod partitions;
mod presence;
mod property;
mod protocol;
mod resume;
mod review;
mod security;
mod slow;
mod tickets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use messaging_gateway::{AccessRequest, Decision, Verb, subscription};

/// Makes a test of each function for memory and for Redis: where all of Redis is the same to a gateway.
macro_rules! on_memory_and_redis {
    ($($name:ident)*) => {
        $crate::place::on_backend! { memory $($name)* }
        $crate::place::on_backend! { redis $($name)* }
    };
}

use on_memory_and_redis;

/// Events of cameras, of all and of one complex.
#[subscription(
    entity = "CameraEvents",
    channels = ["camera.events", "camera.events.complex:{complex_id}"],
    filters = { camera_id = [eq, in], kind = [eq] },
    public,
)]
pub struct CameraEvents;

/// What is kept, so that one can resume.
#[subscription(channels = "kept.{name}", filters = { parity = [eq, in] }, send, presence, authorize = may_keep)]
pub struct Kept;

async fn may_keep(request: AccessRequest) -> Decision {
    let user = &request.identity().user;
    let name = request.param("name").unwrap_or_default();
    match request.verb() {
        _ if name == "secret" => Decision::from(user == "root"),
        Verb::Send if user == "reader" => Decision::deny(),
        _ if user == "odd" => Decision::allow().only("parity", ["odd"]),
        _ => Decision::allow(),
    }
}

/// What concerns one user.
#[subscription(channels = "auditlog:{user_id}", authorize = everybody)]
pub struct AuditLog;

async fn everybody(_: AccessRequest) -> bool {
    true
}

/// What concerns one tenant: by its channel, and by a field.
#[subscription(channels = ["tenant:{tenant_id}:update", "tenants"], tenant = tenant, public)]
pub struct TenantUpdates;

/// What is asked again each time, of a [`Guard`].
#[subscription(channels = "guarded:{name}", filters = { parity = [eq] }, send, presence, authorize = Guard::ask)]
pub struct Guarded;

/// What an `authorize` makes of a question; where nothing is said, it allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Deny,
    Fail,
    Panic,
    Never,
}

/// Changes its mind.
#[derive(Clone, Default)]
pub struct Guard(Arc<Mutex<HashMap<Verb, Mood>>>);

impl Guard {
    pub fn set(&self, verb: Verb, mood: Option<Mood>) {
        let mut moods = self.0.lock().unwrap();
        match mood {
            Some(mood) => moods.insert(verb, mood),
            None => moods.remove(&verb),
        };
    }

    async fn ask(request: AccessRequest) -> Result<bool, String> {
        let guard = request.state::<Self>().ok_or("there is no guard")?;
        let mood = guard.0.lock().unwrap().get(&request.verb()).copied();
        match mood {
            None => Ok(true),
            Some(Mood::Deny) => Ok(false),
            Some(Mood::Fail) => Err("it does not know".to_owned()),
            Some(Mood::Panic) => panic!("it panics"),
            Some(Mood::Never) => std::future::pending().await,
        }
    }
}

/// Clients that do not keep up with these get what their names say.
#[subscription(channels = "slow.disconnect", public)]
pub struct SlowDisconnect;

/// The latest only.
#[subscription(channels = "slow.latest:{name}", public, slow = "latest")]
pub struct SlowLatest;

/// Without the oldest.
#[subscription(channels = "slow.oldest:{name}", public, slow = "drop_oldest")]
pub struct SlowOldest;
