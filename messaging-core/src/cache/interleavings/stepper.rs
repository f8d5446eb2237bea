//! Holds every command up until its turn has come, and knows when a step is over. Decides nothing: which command is next
//! is the explorer's business.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::mutants::Mutant;
use crate::backend::{CacheKey, Token};

/// A command that takes so long, by the clock on the wall, has hung.
const HUNG: Duration = Duration::from_secs(20);

thread_local! {
    /// All tasks of a schedule run on the thread of its test.
    static STEPPER: RefCell<Option<Arc<Stepper>>> = const { RefCell::new(None) };
}

tokio::task_local! {
    /// Who the task is; what it spawns in the background is not told, and belongs to whoever's step it is.
    static ACTOR: usize;
    /// Commands of the test itself, which are no steps.
    static UNGATED: ();
}

/// Frees the thread when it is dropped: it may go on to other tests.
#[derive(Debug)]
pub(super) struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        STEPPER.set(None);
    }
}

#[derive(Debug)]
pub(super) struct Stepper {
    pub(super) mutant: Option<Mutant>,
    /// What all actors are about.
    pub(super) key: CacheKey,
    /// Whether a scan and the removal of what it found are two steps.
    fine: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    arrivals: Vec<Arrival>,
    /// The commands that have been let through and are not done.
    running: Vec<u64>,
    /// Whose step it is.
    acting: usize,
    /// The actor whose first command is to be let through at once: it begins with it.
    beginning: Option<(usize, u64)>,
    passed: Vec<(usize, &'static str)>,
    /// With which token the first actor has asked for the lease: the last time, or the time that was lost on its way.
    token: Option<Token>,
    /// Whether its next attempt is lost on its way.
    loses: bool,
    last: u64,
}

/// A command that waits for its turn.
#[derive(Debug)]
struct Arrival {
    serial: u64,
    actor: usize,
    command: &'static str,
    open: oneshot::Sender<()>,
}

/// A command that waits or runs, until this is dropped.
#[derive(Debug)]
pub(crate) struct Step {
    stepper: Arc<Stepper>,
    serial: u64,
}

/// Waits for the turn of a command, if this thread runs a schedule.
pub(crate) async fn gate(command: &'static str) -> Option<Step> {
    let stepper = current()?;
    let (step, turn) = stepper.arrive(command);
    if let Some(turn) = turn {
        // The stepper outlives the schedule, so that the sender is there.
        let _ = turn.await;
    }
    Some(step)
}

/// The same for the second half of a command: the first is done.
pub(super) async fn second_gate(command: &'static str) -> Option<Step> {
    current()?.state().running.clear();
    gate(command).await
}

/// The stepper of this thread, unless the command is the test's own.
pub(super) fn current() -> Option<Arc<Stepper>> {
    let is_gated = UNGATED.try_with(|()| ()).is_err();
    STEPPER.with_borrow(Option::clone).filter(|_| is_gated)
}

/// Commands in this future are no steps.
pub(super) async fn ungated<F: Future>(commands: F) -> F::Output {
    UNGATED.scope((), commands).await
}

/// A task that is spawned for the actor of this one.
pub(in crate::cache) fn for_this_actor<F: Future>(task: F) -> impl Future<Output = F::Output> {
    let actor = ACTOR.try_with(|actor| *actor).ok();
    async move {
        match actor {
            Some(actor) => ACTOR.scope(actor, task).await,
            None => task.await,
        }
    }
}

/// The process or actor that a task stands for.
pub(super) async fn as_actor<F: Future>(actor: usize, life: F) -> F::Output {
    ACTOR.scope(actor, life).await
}

impl Stepper {
    /// Puts a new one in charge of this thread.
    pub(super) fn install(key: CacheKey, mutant: Option<Mutant>, fine: bool) -> Arc<Self> {
        let stepper = Arc::new(Self { mutant, key, fine, state: Mutex::default() });
        STEPPER.set(Some(Arc::clone(&stepper)));
        stepper
    }

    /// Who acts: the task's actor, or for background tasks the one whose step it is.
    pub(super) fn actor(&self) -> usize {
        ACTOR.try_with(|actor| *actor).unwrap_or_else(|_| self.state().acting)
    }

    /// The next attempt of the first actor to get the lease will not arrive.
    pub(super) fn lose_next_lease(&self) {
        self.state().loses = true;
    }

    /// Whether an attempt to get the lease arrives.
    pub(super) fn lease_arrives(&self, token: &Token) -> bool {
        if self.actor() != 0 {
            return true;
        }
        let mut state = self.state();
        state.token = Some(token.clone());
        !std::mem::take(&mut state.loses)
    }

    pub(super) fn token(&self) -> Option<Token> {
        self.state().token.clone()
    }

    fn arrive(self: &Arc<Self>, command: &'static str) -> (Step, Option<oneshot::Receiver<()>>) {
        let actor = self.actor();
        let mut state = self.state();
        state.last += 1;
        let serial = state.last;
        let step = Step { stepper: Arc::clone(self), serial };
        let begins = state.beginning.take_if(|(beginner, _)| *beginner == actor);
        if let Some((_, launch)) = begins {
            state.running.retain(|running| *running != launch);
        }
        if begins.is_some() || (command == "unlink" && !self.fine) {
            state.running.push(serial);
            state.passed.push((actor, command));
            return (step, None);
        }
        let (open, turn) = oneshot::channel();
        state.arrivals.push(Arrival { serial, actor, command, open });
        (step, Some(turn))
    }

    /// The next step is the beginning of this actor, up to the end of its first command. It has ended its beginning at
    /// the latest when the step is dropped.
    pub(super) fn begin(self: &Arc<Self>, actor: usize) -> Step {
        let mut state = self.state();
        state.last += 1;
        let serial = state.last;
        state.acting = actor;
        state.beginning = Some((actor, serial));
        state.running.push(serial);
        Step { stepper: Arc::clone(self), serial }
    }

    /// Lets a command through.
    pub(super) fn open(&self, serial: u64) {
        let mut state = self.state();
        let place = state.arrivals.iter().position(|arrival| arrival.serial == serial);
        let arrival = state.arrivals.remove(place.expect("only what waits is let through"));
        state.acting = arrival.actor;
        state.running.push(serial);
        state.passed.push((arrival.actor, arrival.command));
        let _ = arrival.open.send(());
    }

    /// Waits until nothing moves any more: all commands are done and every task waits.
    pub(super) async fn settle(&self) {
        let began = Instant::now();
        loop {
            // Never idle: the clock stands still unless the runtime has nothing to do. And a turn of the main task lets
            // everybody run who can.
            let mut turns = 0;
            while !self.state().running.is_empty() {
                yield_now().await;
                turns += 1;
                if turns < 3 {
                    continue;
                }
                // The server may need the processor.
                std::thread::yield_now();
                assert!(began.elapsed() < HUNG, "a command has hung: {:?}", self.state());
            }
            yield_now().await;
            yield_now().await;
            if self.state().running.is_empty() {
                return;
            }
        }
    }

    /// What waits for its turn: serial, actor and command, in the order of arrival.
    pub(super) fn waiting(&self) -> Vec<(u64, usize, &'static str)> {
        self.state().arrivals.iter().map(|at| (at.serial, at.actor, at.command)).collect()
    }

    /// What has been let through since this was asked last.
    pub(super) fn take_passed(&self) -> Vec<(usize, &'static str)> {
        std::mem::take(&mut self.state().passed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let mut state = self.stepper.state();
        state.arrivals.retain(|arrival| arrival.serial != self.serial);
        state.running.retain(|running| *running != self.serial);
        state.beginning.take_if(|(_, launch)| *launch == self.serial);
    }
}
