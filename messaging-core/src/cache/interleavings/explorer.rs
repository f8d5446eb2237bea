//! Runs the actors through every order of their steps, depth first: each schedule from the beginning, with the last choice
//! that is left made otherwise. (Stateless search, as in "Model Checking for Programming Languages using VeriSoft",
//! Godefroid, POPL 1997.)

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, yield_now};

use super::mutants::Mutant;
use super::stepper::{Stepper, as_actor};
use super::world::{Role, World, key};
use crate::activity::Activity;
use crate::backend::Backend;
use crate::cache::LEASE;
use crate::config::Config;

/// A schedule to be run alone, as a failure prints it.
const REPLAY: &str = "INTERLEAVING";
/// As long as a caller waits at most before it looks again.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
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
    pub(super) what: String,
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

/// The choices of the last schedule: which of how many.
type Path = Vec<(usize, usize)>;

impl Scenario {
    pub(super) fn new(roles: &[Role]) -> Self {
        Self { roles: roles.to_vec(), beginning: "", stored: false, fine: false, mutant: None }
    }

    pub(super) fn mutated(&self, mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..self.clone() }
    }

    /// Tries all schedules, up to the first that breaks a promise.
    pub(super) fn explore(&self, place: &Place) -> Outcome {
        // The clock stands still, so that nothing times out and nobody waits in vain.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let outcome = runtime.block_on(self.explore_all(place));
        Stepper::uninstall();
        outcome
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
            let (schedule, broken) = self.run(backends, config, &mut path, replay.as_deref()).await;
            schedules += 1;
            if let Some(what) = broken {
                return Outcome::Broken(Violation { what, schedule });
            }
            if replay.is_some() {
                println!("kept: {}", schedule.join(" "));
                return Outcome::Kept(schedules);
            }
            while path.pop_if(|(chosen, count)| *chosen + 1 == *count).is_some() {}
            match path.last_mut() {
                Some((chosen, _)) => *chosen += 1,
                None => return Outcome::Kept(schedules),
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
    ) -> (Vec<String>, Option<String>) {
        let stepper = Stepper::install(key(config), self.mutant, self.fine);
        let world = World::new(backends, config, &self.roles, &stepper);
        if self.stored {
            awake(world.store_the_first()).await;
        }
        let actors = self.roles.iter().map(|_| Actor::default()).collect();
        let mut run = Run { scenario: self, world, stepper, actors, changes: 0, schedule: Vec::new() };
        let mut prescribed = replay.unwrap_or(self.beginning).split_whitespace();
        let mut chosen = 0;
        loop {
            let choices = run.choices();
            if choices.is_empty() {
                if run.is_over() {
                    break;
                }
                run.let_time_pass().await;
                continue;
            }
            assert!(run.schedule.len() < MOST_STEPS, "it does not end: {}", run.schedule.join(" "));
            let choice = match prescribed.next() {
                Some(wanted) => {
                    let place = choices.iter().position(|choice| choice.to_string() == wanted);
                    place.unwrap_or_else(|| panic!("there is no {wanted} among {choices:?}"))
                }
                None => {
                    if chosen == path.len() {
                        path.push((0, choices.len()));
                    }
                    let (choice, count) = path[chosen];
                    assert_eq!(count, choices.len(), "not the same twice: {}", run.schedule.join(" "));
                    chosen += 1;
                    choice
                }
            };
            run.step(&choices[choice]).await;
            if run.world.broken().is_some() {
                break;
            }
        }
        let Run { world, actors, schedule, .. } = run;
        for life in actors.into_iter().filter_map(|actor| actor.life) {
            life.abort();
            if let Err(error) = awake(life).await {
                assert!(error.is_cancelled(), "{error}, in {}", schedule.join(" "));
            }
        }
        awake(world.look_at_the_end()).await;
        let broken = world.broken();
        awake(world.sweep()).await;
        (schedule, broken)
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
                self.wake(actor, LONGEST_WAIT).await;
                self.actors[actor].blocked = self.is_idle(actor);
            }
        }
    }

    /// Whether an actor neither waits for its turn nor has ended.
    fn is_idle(&self, actor: usize) -> bool {
        self.actors[actor].life.as_ref().is_some_and(|life| !life.is_finished())
            && !self.stepper.waiting().iter().any(|(_, of, command)| *of == actor && *command != "cancel")
    }

    async fn wake(&mut self, actor: usize, at_most: Duration) {
        const TICK: Duration = Duration::from_millis(10);
        let mut passed = Duration::ZERO;
        while passed < at_most && self.is_idle(actor) {
            passed += TICK;
            tokio::time::advance(TICK).await;
            self.stepper.settle().await;
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
        let command = self.waiting.map_or("begin", |(_, command)| command);
        write!(f, "{letter}.{}", command.replace(' ', "-"))
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    {REPLAY}='{}'", self.what, self.schedule.join(" "))
    }
}
