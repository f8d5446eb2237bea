//! Processes that share a server, a source of truth whose versions only grow, and who acts on them. Judges what the actors
//! were given; knows nothing of schedules.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::mutants::{Mutant, nothing, without_lease};
use super::stepper::{Stepper, gate, second_gate, ungated};
use crate::activity::Activity;
use crate::backend::{Attempt, Backend, CacheKey, Outgoing, Token};
use crate::cache::shape::Fallible;
use crate::cache::source::{Once, Remote};
use crate::cache::{Ask, Cache, LEASE};
use crate::channel::Channel;
use crate::config::Config;
use crate::dispatch::Carrier;
use crate::registry::{FunctionDescriptor, Location, Registry, Trigger, TriggerOn};

const KEY: &str = "camera:7";
const TTL: Duration = Duration::from_secs(600);

/// The function as most processes know it.
static CAMERA: FunctionDescriptor = camera(&[]);
/// The same in the process that publishes, so that the publish alone has to do it: nobody listens.
static PUBLISHED: FunctionDescriptor =
    camera(&[Trigger { on: TriggerOn::Channel("camera.updated"), select: &[] }]);

const fn camera(invalidate_on: &'static [Trigger]) -> FunctionDescriptor {
    FunctionDescriptor {
        id: "camera",
        key: "camera:{id}",
        ttl: TTL,
        jitter: 0.1,
        cache_none: None,
        stale: None,
        wait: None,
        local: None,
        invalidate_on,
        location: Location { file: file!(), line: line!() },
    }
}

/// What one actor does. Each begins with its first command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Calls the cached function.
    Call { process: usize, how: Call },
    /// Reads without loading.
    Read { process: usize },
    /// Writes a new version to the source, then removes the old from the cache.
    Invalidate { process: usize, by: Invalidation },
    /// Writes a new version to the source, then to the cache.
    Set { process: usize },
    /// Writes a new version to the source, then plainly to the value's key, as somebody would who knows no leases.
    ForeignSet,
    /// Redis evicts the value, or it expires.
    Eviction,
    /// An attempt to get the lease that has been given up is carried out after all.
    LateLease,
    /// A third of a lease's time passes.
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Plain,
    /// It is asked to replace what is stored.
    Refresh,
    /// What it has loaded takes a while to be returned.
    Slow,
    /// The function fails.
    Failing,
    /// The caller may go away at any point.
    Cancelled,
    /// Its first attempt to get the lease is lost on its way. It has to be the first actor.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalidation {
    Exact,
    Family,
    Pattern,
    Publish,
}

/// The processes, before anything has happened.
pub(super) struct World {
    caches: Vec<Arc<Cache>>,
    key: CacheKey,
    stepper: Arc<Stepper>,
    loses: bool,
    truth: Mutex<Truth>,
}

struct Truth {
    version: u64,
    /// The newest version whose invalidation has returned.
    announced: u64,
    /// Loads that run, and whether what happened since makes them worthless.
    loads: Vec<(usize, bool)>,
    /// Others may have lost patience.
    time_has_passed: bool,
    broken: Option<String>,
}

/// One cache for each backend.
fn caches(backends: &[Arc<Backend>], config: &Config, publisher: Option<usize>) -> Vec<Arc<Cache>> {
    let cache = |(process, backend): (usize, &Arc<Backend>)| {
        let mut registry = Registry::empty();
        registry.functions.push(if publisher == Some(process) { &PUBLISHED } else { &CAMERA });
        let (work, background, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        let backend = Arc::clone(backend);
        let cache =
            Cache::new(backend, &registry, config, Activity::default(), work, background, stop).unwrap();
        Arc::new(cache)
    };
    backends.iter().enumerate().map(cache).collect()
}

/// The key that everybody is about.
pub(super) fn key(config: &Config) -> CacheKey {
    CacheKey::new(&config.namespace, KEY.to_owned())
}

impl World {
    pub(super) fn new(
        backends: &[Arc<Backend>],
        config: &Config,
        roles: &[Role],
        stepper: &Arc<Stepper>,
    ) -> Arc<Self> {
        let publisher = roles.iter().find_map(|role| match role {
            Role::Invalidate { process, by: Invalidation::Publish } => Some(*process),
            _ => None,
        });
        let loses = roles.iter().any(|role| matches!(role, Role::Call { how: Call::Lost, .. }));
        if loses {
            stepper.lose_next_lease();
        }
        Arc::new(Self {
            caches: caches(backends, config, publisher),
            key: stepper.key.clone(),
            stepper: Arc::clone(stepper),
            loses,
            truth: Mutex::new(Truth {
                version: 1,
                announced: 0,
                loads: Vec::new(),
                time_has_passed: false,
                broken: None,
            }),
        })
    }

    /// What broke a promise first.
    pub(super) fn broken(&self) -> Option<String> {
        self.truth().broken.clone()
    }

    /// Whether an actor can begin.
    pub(super) fn can_begin(&self, role: Role) -> bool {
        role != Role::LateLease || !self.replays() || self.stepper.token().is_some()
    }

    /// Whether the attempt that comes late is one of the first actor's, and not somebody's who is gone.
    fn replays(&self) -> bool {
        self.loses || self.stepper.mutant == Some(Mutant::RetryWithTheSameToken)
    }

    /// A command has been carried out that defeats the loads that run.
    pub(super) fn defeat_loads(&self) {
        self.truth().loads.iter_mut().for_each(|(_, defeated)| *defeated = true);
    }

    /// So much that others may have lost patience, or a lease has expired.
    pub(super) fn time_passes(&self) {
        self.truth().time_has_passed = true;
    }

    /// Publishers know the registry.
    pub(super) async fn read_the_registry(&self) {
        for cache in &self.caches {
            ungated(cache.renew_catalog(&cache.catalog.snapshot())).await.unwrap();
        }
    }

    /// The first version is in the cache before anything happens.
    pub(super) async fn store_the_first(&self) {
        let first = Bytes::from_static(b"1");
        ungated(self.caches[0].backend.set(&without_lease(&self.key), &first, TTL, &nothing()))
            .await
            .unwrap();
    }

    /// What is stored in the end is the newest version or nothing.
    pub(super) async fn look_at_the_end(&self) {
        let stored = ungated(self.caches[0].backend.look(&self.key, false)).await.unwrap().value;
        let newest = self.truth().version;
        if let Some(stored) = stored
            && version(&stored) != newest
        {
            self.breaks(format!("{stored:?} is stored in the end, though the newest version is {newest}"));
        }
    }

    /// Leaves nothing behind.
    pub(super) async fn sweep(&self) {
        ungated(self.caches[0].backend.forget(std::slice::from_ref(&self.key), None)).await.unwrap();
    }

    pub(super) async fn live(self: Arc<Self>, actor: usize, role: Role) {
        let announced = self.truth().announced;
        match role {
            Role::Call { process, how } => {
                let returned = match how {
                    Call::Cancelled => tokio::select! {
                        biased;
                        returned = self.call(actor, process, how) => returned,
                        _ = gate("cancel") => Err(()),
                    },
                    _ => self.call(actor, process, how).await,
                };
                if let Ok(version) = returned {
                    self.was_given(version, announced);
                }
            }
            Role::Read { process } => {
                let looked = self.caches[process].backend.look(&self.key, false).await.unwrap();
                if let Some(value) = looked.value {
                    self.was_given(version(&value), announced);
                }
            }
            Role::Invalidate { process, by } => {
                let version = self.write().await;
                self.invalidate(process, by).await;
                self.announce(version);
            }
            Role::Set { process } => {
                let version = self.write().await;
                let value = Bytes::from(version.to_string());
                self.caches[process].set(self.key.clone(), &value, TTL).await.unwrap();
                self.announce(version);
            }
            Role::ForeignSet => {
                let version = self.write().await;
                let _step = gate("foreign set").await;
                let (key, value) = (without_lease(&self.key), Bytes::from(version.to_string()));
                ungated(self.caches[0].backend.set(&key, &value, TTL, &nothing())).await.unwrap();
                self.announce(version);
            }
            Role::Eviction => {
                let _step = gate("evict").await;
                ungated(self.caches[0].backend.forget(&[without_lease(&self.key)], None)).await.unwrap();
            }
            Role::LateLease => {
                let _step = gate("late lease").await;
                let token = self.stepper.token().filter(|_| self.replays()).unwrap_or_else(Token::random);
                let attempt = Attempt { token: &token, earlier: &[] };
                ungated(self.caches[0].backend.lease(&self.key, &attempt, None, LEASE)).await.unwrap();
            }
            Role::Time => {
                let _step = gate("time").await;
                tokio::time::advance(LEASE / 3).await;
            }
        }
    }

    async fn call(self: &Arc<Self>, actor: usize, process: usize, how: Call) -> Result<u64, ()> {
        let cache = &self.caches[process];
        let family = cache.families.iter().next().unwrap();
        let replace = how == Call::Refresh;
        let load = Once(Box::pin(self.load(actor, how)));
        let ask = Ask { family, key: KEY, ttl: TTL, replace, current: None };
        cache.call::<Result<u64, ()>, Fallible<u64, ()>, Remote, _>(ask, load).await
    }

    async fn load(self: &Arc<Self>, actor: usize, how: Call) -> Result<u64, ()> {
        if how == Call::Refresh {
            // Whoever replaces takes the lease from whoever has it.
            self.defeat_loads();
        }
        let _load = self.load_begins(actor);
        let version = {
            let _step = gate("load").await;
            self.truth().version
        };
        if how == Call::Slow {
            drop(second_gate("load ends").await);
        }
        if how == Call::Failing { Err(()) } else { Ok(version) }
    }

    async fn write(&self) -> u64 {
        let _step = gate("write").await;
        let mut truth = self.truth();
        truth.version += 1;
        truth.version
    }

    async fn invalidate(&self, process: usize, by: Invalidation) {
        let cache = &self.caches[process];
        match by {
            Invalidation::Exact => cache.forget(vec![self.key.clone()]).await.unwrap(),
            Invalidation::Family => {
                let family = cache.families.iter().next().unwrap();
                cache.forget_all_of(family.descriptor).await.unwrap();
            }
            Invalidation::Pattern => _ = cache.forget_matching("camera:*").await.unwrap(),
            Invalidation::Publish => {
                let event = Outgoing {
                    channel: Channel::new("camera.updated").unwrap(),
                    payload: Bytes::from_static(br#"{"id":7}"#),
                    durable: None,
                    carrier: Carrier::Broadcast,
                    mark: None,
                };
                cache.publish(vec![event]).await.unwrap();
            }
        }
    }

    fn announce(&self, version: u64) {
        let mut truth = self.truth();
        truth.announced = truth.announced.max(version);
    }

    fn was_given(&self, version: u64, announced: u64) {
        if version < announced {
            self.breaks(format!("version {version} was given to a call that began after version {announced} had been announced"));
        }
    }

    fn load_begins(self: &Arc<Self>, actor: usize) -> RunningLoad {
        let mut truth = self.truth();
        let other = truth.loads.iter().find(|(_, defeated)| !defeated).map(|(actor, _)| *actor);
        truth.loads.push((actor, false));
        let time_has_passed = truth.time_has_passed;
        drop(truth);
        if let Some(other) = other
            && !time_has_passed
        {
            self.breaks(format!("two loads run at once: those of the actors {other} and {actor}"));
        }
        RunningLoad { world: Arc::clone(self), actor }
    }

    fn breaks(&self, what: String) {
        self.truth().broken.get_or_insert(what);
    }

    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct RunningLoad {
    world: Arc<World>,
    actor: usize,
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.world.truth().loads.retain(|(actor, _)| *actor != self.actor);
    }
}

fn version(value: &Bytes) -> u64 {
    crate::json::decode(value).unwrap()
}
