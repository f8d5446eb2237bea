//! One schedule on its way: who can act, and what a step of theirs comes to. Judges nothing, and chooses nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::explorer::Scenario;
use super::stepper::{Stepper, as_actor};
use super::world::World;
use crate::cache::LEASE;

/// A caller looks again after 10 to 100 ms: little by little, so that no lease has to be renewed meanwhile.
const WAITS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(30), Duration::from_millis(60)];
/// Nothing happens for so many leases' time: nothing ever will.
const MOST_PASSES: usize = 10;
/// A step that can be taken.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    actor: usize,
    /// What waits; nothing for an actor that has not begun.
    waiting: Option<(u64, &'static str)>,
}

/// An actor and its command, `begin` for one that has not begun.
pub(super) type Name = (usize, &'static str);

/// One schedule on its way.
pub(super) struct Run<'s> {
    scenario: &'s Scenario,
    pub(super) world: Arc<World>,
    stepper: Arc<Stepper>,
    pub(super) actors: Vec<Actor>,
    /// How many commands have been carried out that may have changed something.
    changes: u64,
    pub(super) schedule: Vec<String>,
}

#[derive(Default)]
pub(super) struct Actor {
    pub(super) life: Option<JoinHandle<()>>,
    /// It waits for another actor, not for time to pass.
    blocked: bool,
    /// What it waits with was reached by the mere passing of time, so that it is of use only after a change.
    again: bool,
    /// After how many changes it has looked last.
    looked: u64,
}

impl Choice {
    pub(super) fn name(&self) -> Name {
        (self.actor, self.waiting.map_or("begin", |(_, command)| command))
    }
}

impl<'s> Run<'s> {
    pub(super) fn new(scenario: &'s Scenario, world: Arc<World>, stepper: Arc<Stepper>) -> Self {
        let actors = scenario.roles.iter().map(|_| Actor::default()).collect();
        Self { scenario, world, stepper, actors, changes: 0, schedule: Vec::new() }
    }

    /// What can happen next, in an order that depends on nothing but what has happened.
    pub(super) fn choices(&self) -> Vec<Choice> {
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

    pub(super) fn is_over(&self) -> bool {
        self.stepper.waiting().is_empty()
            && self.actors.iter().all(|actor| actor.life.as_ref().is_none_or(JoinHandle::is_finished))
    }

    pub(super) async fn step(&mut self, choice: &Choice) {
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
                "load" | "load ends" | "write" | "scan" | "announce" => {}
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
    pub(super) async fn let_time_pass(&mut self) {
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

/// As in a schedule: `A.begin`, `A.lease`.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = char::from(b'A' + u8::try_from(self.actor).unwrap_or_default());
        let (_, command) = self.name();
        write!(f, "{letter}.{}", command.replace(' ', "-"))
    }
}
