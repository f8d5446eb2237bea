//! Runs the actors through every order of their steps, depth first: each schedule from the beginning, with the last choice
//! that is left made otherwise. (Stateless search, as in "Model Checking for Programming Languages using VeriSoft",
//! Godefroid, POPL 1997.) Of schedules that differ only in the order of steps which have nothing to do with each other, one
//! is enough: "sleep sets", from the same author's "Partial-Order Methods for the Verification of Concurrent Systems" (1996).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, yield_now};

use super::mutants::Mutant;
use super::stepper::{Installed, Stepper, as_actor};
use super::world::{Role, World, key};
use crate::activity::Activity;
use crate::backend::Backend;
use crate::cache::LEASE;
use crate::config::Config;

/// A schedule to be run alone, as a failure prints it.
const REPLAY: &str = "INTERLEAVING";
/// A caller looks again after 10 to 100 ms: little by little, so that no lease has to be renewed meanwhile.
const WAITS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(30), Duration::from_millis(60)];
/// Nothing happens for so many leases' time: nothing ever will.
const MOST_PASSES: usize = 10;
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

/// A step that can be taken.
#[derive(Clone, Debug)]
struct Choice {
    actor: usize,
    /// What waits; nothing for an actor that has not begun.
    waiting: Option<(u64, &'static str)>,
}

/// One schedule on its way.
struct Run<'s> {
    scenario: &'s Scenario,
    world: Arc<World>,
    stepper: Arc<Stepper>,
    actors: Vec<Actor>,
    /// How many commands have been carried out that may have changed something.
    changes: u64,
    schedule: Vec<String>,
}

#[derive(Default)]
struct Actor {
    life: Option<JoinHandle<()>>,
    /// It waits for another actor, not for time to pass.
    blocked: bool,
    /// What it waits with was reached by the mere passing of time, so that it is of use only after a change.
    again: bool,
    /// After how many changes it has looked last.
    looked: u64,
}

/// The choices of the last schedule.
type Path = Vec<Node>;

struct Node {
    choices: Vec<Name>,
    /// What has been tried before, in an order that comes to the same.
    asleep: Vec<Name>,
    chosen: usize,
}

/// An actor and its command, `begin` for one that has not begun.
type Name = (usize, &'static str);

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
        if self.stored {
            awake(world.store_the_first()).await;
        }
        let actors = self.roles.iter().map(|_| Actor::default()).collect();
        let mut run = Run { scenario: self, world, stepper, actors, changes: 0, schedule: Vec::new() };
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
            // A scan that finds nothing may be the end of an invalidation, which is a change to those who begin.
            ("lease" | "store" | "forget" | "scan" | "unlink" | "flush" | "publish" | "set", _) => {
                Touches::Stored(true)
            }
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

impl Choice {
    fn name(&self) -> Name {
        (self.actor, self.waiting.map_or("begin", |(_, command)| command))
    }
}

impl Run<'_> {
    /// What can happen next, in an order that depends on nothing but what has happened.
    fn choices(&self) -> Vec<Choice> {
        let waiting = self.stepper.waiting();
        let mut choices = Vec::new();
        for (actor, state) in self.actors.iter().enumerate() {
            if state.life.is_none() && self.world.can_begin(self.scenario.roles[actor]) {
                choices.push(Choice { actor, waiting: None });
            }
            // Who looks once more and finds what it found before only waits on.
            let idle = state.again && state.looked == self.changes;
            let of_actor = waiting.iter().filter(|(_, of, _)| *of == actor);
            choices.extend(
                of_actor
                    .filter(|(_, _, command)| !(idle && *command == "look"))
                    .map(|(serial, _, command)| Choice { actor, waiting: Some((*serial, command)) }),
            );
        }
        choices
    }

    fn is_over(&self) -> bool {
        self.stepper.waiting().is_empty()
            && self.actors.iter().all(|actor| actor.life.as_ref().is_none_or(JoinHandle::is_finished))
    }

    async fn step(&mut self, choice: &Choice) {
        self.schedule.push(choice.to_string());
        self.actors[choice.actor].again = false;
        match choice.waiting {
            Some((serial, _)) => self.stepper.open(serial),
            None => {
                let (world, actor) = (Arc::clone(&self.world), choice.actor);
                let role = self.scenario.roles[actor];
                let begun = self.stepper.begin(actor);
                let life = async move {
                    world.live(actor, role).await;
                    drop(begun);
                };
                self.actors[actor].life = Some(tokio::spawn(as_actor(actor, life)));
            }
        }
        self.stepper.settle().await;
        self.note_what_passed();
        self.wake_waiters().await;
    }

    fn note_what_passed(&mut self) {
        for (actor, command) in self.stepper.take_passed() {
            match command {
                "look" => self.actors[actor].looked = self.changes,
                "load" | "load ends" | "write" | "scan" => {}
                _ => self.changes += 1,
            }
            if matches!(command, "forget" | "unlink" | "flush" | "publish" | "set") {
                self.world.defeat_loads();
            }
        }
    }

    /// Lets those who wait for time to pass come to their next look. Which is no step: nobody notices.
    async fn wake_waiters(&mut self) {
        for actor in 0..self.actors.len() {
            if !self.is_idle(actor) {
                self.actors[actor].blocked = false;
            } else if !self.actors[actor].blocked {
                self.wake(actor).await;
                self.actors[actor].blocked = self.is_idle(actor);
            }
        }
    }

    /// Whether an actor neither waits for its turn nor has ended.
    fn is_idle(&self, actor: usize) -> bool {
        self.actors[actor].life.as_ref().is_some_and(|life| !life.is_finished())
            && !self.stepper.waiting().iter().any(|(_, of, command)| *of == actor && *command != "cancel")
    }

    async fn wake(&mut self, actor: usize) {
        for wait in WAITS {
            tokio::time::advance(wait).await;
            self.stepper.settle().await;
            if !self.is_idle(actor) {
                break;
            }
        }
        let waiting = self.stepper.waiting();
        self.actors[actor].again = waiting.iter().any(|(_, of, command)| *of == actor && *command == "look");
    }

    /// Nothing can happen, but that somebody loses patience or a lease expires.
    async fn let_time_pass(&mut self) {
        self.world.time_passes();
        for _ in 0..MOST_PASSES {
            tokio::time::advance(LEASE).await;
            self.stepper.settle().await;
            let waiting = self.stepper.waiting();
            if let Some((serial, actor, command)) = waiting.first().copied() {
                return self.step(&Choice { actor, waiting: Some((serial, command)) }).await;
            }
            if self.is_over() {
                return;
            }
        }
        panic!("they wait for each other: {}", self.schedule.join(" "));
    }
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

/// As in a schedule: `A.begin`, `A.lease`.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = char::from(b'A' + u8::try_from(self.actor).unwrap_or_default());
        let (_, command) = self.name();
        write!(f, "{letter}.{}", command.replace(' ', "-"))
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    {REPLAY}='{}'", self.what, self.schedule.join(" "))
    }
}
