//! Runs the actors through every order of their steps, depth first: each schedule from the beginning, with the last choice
//! that is left made otherwise. (Stateless search, as in "Model Checking for Programming Languages using VeriSoft",
//! Godefroid, POPL 1997.) Of schedules that differ only in the order of steps which have nothing to do with each other, one
//! is enough: "sleep sets", from the same author's "Partial-Order Methods for the Verification of Concurrent Systems" (1996).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::yield_now;

use super::mutants::Mutant;
use super::run::{Choice, Name, Run};
use super::stepper::{Installed, Stepper};
use super::world::{Invalidation, Role, World, key};
use crate::activity::Activity;
use crate::backend::Backend;
use crate::config::Config;

/// A schedule to be run alone, as a failure prints it.
const REPLAY: &str = "INTERLEAVING";
/// More steps than any schedule has.
const MOST_STEPS: usize = 200;

/// Who acts on what, and what is to be tried of it.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// The actors, by the letters A, B, ….
    pub(super) roles: Vec<Role>,
    /// Steps that all schedules begin with.
    pub(super) beginning: &'static str,
    /// Whether the first version is in the cache at the start.
    pub(super) stored: bool,
    /// Whether a scan and the removal of what it found are two steps.
    pub(super) fine: bool,
    pub(super) mutant: Option<Mutant>,
    /// Whether schedules that must come to the same are all tried nevertheless.
    pub(super) all: bool,
}

/// Where the processes of a scenario keep their values.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Memory,
    /// A Redis database of the scenario's own.
    Redis(String),
}

/// What came of a search.
#[derive(Debug)]
pub(super) enum Outcome {
    /// So many schedules, none of which broke a promise.
    Kept(u64),
    Broken(Violation),
}

pub(super) struct Violation {
    what: String,
    schedule: Vec<String>,
}

/// The choices of the last schedule.
type Path = Vec<Node>;

struct Node {
    choices: Vec<Name>,
    /// What has been tried before, in an order that comes to the same.
    asleep: Vec<Name>,
    chosen: usize,
}

impl Node {
    /// Whether it still has a choice that is awake, from this one on; that becomes the chosen one.
    fn choose(&mut self, from: usize) -> bool {
        let awake = |place: &usize| !self.asleep.contains(&self.choices[*place]);
        match (from..self.choices.len()).find(awake) {
            Some(place) => self.chosen = place,
            None => return false,
        }
        true
    }
}

impl Scenario {
    pub(super) fn new(roles: &[Role]) -> Self {
        Self { roles: roles.to_vec(), beginning: "", stored: false, fine: false, mutant: None, all: false }
    }

    pub(super) fn mutated(&self, mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..self.clone() }
    }

    /// Tries all schedules, up to the first that breaks a promise.
    pub(super) fn explore(&self, place: &Place) -> Outcome {
        // The clock stands still, so that nothing times out and nobody waits in vain.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        if let Place::Redis(_) = place {
            runtime.enable_io();
        }
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let _installed = Installed;
        runtime.block_on(self.explore_all(place))
    }

    async fn explore_all(&self, place: &Place) -> Outcome {
        let replay = std::env::var(REPLAY).ok();
        let mut opened = None;
        let mut path = Path::new();
        let mut schedules = 0;
        loop {
            let (backends, config) = match (place, &opened) {
                (Place::Redis(_), Some(opened)) => opened,
                _ => opened.insert(place.open(self.processes())),
            };
            let (schedule, ended) = self.run(backends, config, &mut path, replay.as_deref()).await;
            match ended {
                Ended::Kept => schedules += 1,
                Ended::SameAsBefore => {}
                Ended::Broken(what) => return Outcome::Broken(Violation { what, schedule }),
            }
            if replay.is_some() {
                println!("kept: {}", schedule.join(" "));
                return Outcome::Kept(schedules);
            }
            while path.pop_if(|node| !node.choose(node.chosen + 1)).is_some() {}
            if path.is_empty() {
                return Outcome::Kept(schedules);
            }
        }
    }

    fn processes(&self) -> usize {
        let process = |role: &Role| match role {
            Role::Call { process, .. }
            | Role::Read { process }
            | Role::Invalidate { process, .. }
            | Role::Set { process } => *process,
            _ => 0,
        };
        1 + self.roles.iter().map(process).max().unwrap_or_default()
    }

    /// One schedule: the choices of `path`, then always the first.
    async fn run(
        &self,
        backends: &[Arc<Backend>],
        config: &Config,
        path: &mut Path,
        replay: Option<&str>,
    ) -> (Vec<String>, Ended) {
        let stepper = Stepper::install(key(config), self.mutant, self.fine);
        let world = World::new(backends, config, &self.roles, &stepper);
        if self.roles.iter().any(|role| matches!(role, Role::Invalidate { by: Invalidation::Publish, .. })) {
            awake(world.read_the_registry()).await;
        }
        if self.stored {
            awake(world.store_the_first()).await;
        }
        let mut run = Run::new(self, world, stepper);
        let mut prescribed = replay.unwrap_or(self.beginning).split_whitespace();
        let (mut depth, mut time_has_passed, mut same_as_before) = (0, false, false);
        loop {
            let choices = run.choices();
            if choices.is_empty() {
                if run.is_over() {
                    break;
                }
                run.let_time_pass().await;
                time_has_passed = true;
                continue;
            }
            assert!(run.schedule.len() < MOST_STEPS, "it does not end: {}", run.schedule.join(" "));
            let choice = match prescribed.next() {
                Some(wanted) => match choices.iter().position(|choice| choice.to_string() == wanted) {
                    Some(choice) => choice,
                    // Of the steps that broke a mutant not all are there without it.
                    None if replay.is_some() => continue,
                    None => panic!("there is no {wanted} among {choices:?}"),
                },
                None => {
                    let names: Vec<Name> = choices.iter().map(Choice::name).collect();
                    if depth == path.len() {
                        // What happens when time passes has to do with everything.
                        let before = path.last().filter(|_| !time_has_passed);
                        let asleep = before.map_or_else(Vec::new, |node| self.asleep_after(node));
                        let mut node = Node { choices: names, asleep, chosen: 0 };
                        if !node.choose(0) {
                            same_as_before = true;
                            break;
                        }
                        path.push(node);
                    } else {
                        assert_eq!(
                            names,
                            path[depth].choices,
                            "not the same twice: {}",
                            run.schedule.join(" ")
                        );
                    }
                    depth += 1;
                    path[depth - 1].chosen
                }
            };
            run.step(&choices[choice]).await;
            if run.world.broken().is_some() {
                break;
            }
        }
        let Run { world, actors, schedule, .. } = run;
        // What those who are cut short have begun in the background waits for its turn for ever.
        for life in actors.into_iter().filter_map(|actor| actor.life) {
            life.abort();
            if let Err(error) = awake(life).await {
                assert!(error.is_cancelled(), "{error}, in {}", schedule.join(" "));
            }
        }
        if !same_as_before {
            awake(world.look_at_the_end()).await;
        }
        let ended = match world.broken() {
            Some(what) => Ended::Broken(what),
            None if same_as_before => Ended::SameAsBefore,
            None => Ended::Kept,
        };
        awake(world.sweep()).await;
        (schedule, ended)
    }

    /// What need not be tried after the chosen step: it has been tried before it, and comes to the same in either order.
    fn asleep_after(&self, node: &Node) -> Vec<Name> {
        if self.all {
            return Vec::new();
        }
        let chosen = node.choices[node.chosen];
        let tried = node.choices[..node.chosen].iter().chain(&node.asleep).copied();
        tried.filter(|tried| self.is_apart(*tried, chosen)).collect()
    }

    /// Whether two steps have nothing to do with each other.
    fn is_apart(&self, one: Name, other: Name) -> bool {
        use Touches::{Everything, Source, Stored, Truth};
        if one.0 == other.0 {
            return false;
        }
        match (self.touches(one), self.touches(other)) {
            (Everything, _) | (_, Everything) => false,
            // Reading commutes with reading.
            (Stored(false), Stored(false) | Source) | (Source, Stored(false) | Source) => true,
            (Truth, Stored(_)) | (Stored(_), Truth) => true,
            _ => false,
        }
    }

    fn touches(&self, (actor, command): Name) -> Touches {
        match (command, self.roles[actor]) {
            ("begin", Role::Call { .. } | Role::Read { .. }) | ("look", _) => Touches::Stored(false),
            ("begin", Role::Invalidate { .. } | Role::Set { .. } | Role::ForeignSet) => Touches::Truth,
            // A scan that finds nothing may be the end of an invalidation, as an announcement is, which is a change to those
            // who begin.
            (
                "lease" | "store" | "forget" | "scan" | "unlink" | "flush" | "publish" | "set" | "announce",
                _,
            ) => Touches::Stored(true),
            ("load", _) => Touches::Source,
            _ => Touches::Everything,
        }
    }
}

/// How a schedule ended.
enum Ended {
    Kept,
    SameAsBefore,
    Broken(String),
}

/// What a step has to do with.
enum Touches {
    /// It writes the new version to the source.
    Truth,
    /// It loads from the source, and ends a load.
    Source,
    /// It reads or changes (`true`) what is stored, and with it what has been announced.
    Stored(bool),
    Everything,
}

impl Place {
    fn open(&self, processes: usize) -> (Vec<Arc<Backend>>, Config) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let url = match self {
            Self::Memory => format!("memory://interleavings-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            Self::Redis(url) => url.clone(),
        };
        let config = Config::new(&url).unwrap();
        let backend = |_| Arc::new(Backend::new(&config, Activity::default()).unwrap());
        ((0..processes).map(backend).collect(), config)
    }
}

/// Waits without ever leaving the runtime idle, which would set the clock forward.
async fn awake<F: Future>(future: F) -> F::Output {
    tokio::pin!(future);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            () = yield_now() => {}
        }
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    {REPLAY}='{}'", self.what, self.schedule.join(" "))
    }
}
