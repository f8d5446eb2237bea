//! What was invalidated while Redis could not be told: to be removed before this process serves anything again. Bounded:
//! of functions with too many keys all values are removed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rules::Rules;

/// How many keys are remembered.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Journal {
    pending: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Keys as they are on the backend, with the family if it is known.
    keys: HashMap<String, Option<Arc<Rules>>>,
    /// Families of which all values are to be removed, by their name.
    families: HashMap<String, Arc<Rules>>,
    /// Globs by which values are to be removed.
    globs: Vec<String>,
    /// Keys of no family that were more than can be remembered.
    lost: u64,
    /// Somebody is writing it off.
    tended: bool,
}

/// What is to be removed.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) keys: Vec<String>,
    pub(super) families: Vec<Arc<Rules>>,
    pub(super) globs: Vec<String>,
}

impl Journal {
    /// Whether something is still to be removed.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Notes keys. Returns whether somebody has to begin to write it off.
    pub(super) fn note(&self, keys: impl IntoIterator<Item = (Option<Arc<Rules>>, String)>) -> bool {
        self.add(|state| {
            for (rules, key) in keys {
                if rules.as_ref().is_some_and(|rules| state.families.contains_key(&rules.name)) {
                    continue;
                }
                state.keys.insert(key, rules);
                if state.keys.len() > MOST {
                    state.overflow();
                }
            }
        })
    }

    pub(super) fn note_family(&self, rules: &Arc<Rules>) -> bool {
        self.add(|state| _ = state.families.insert(rules.name.clone(), Arc::clone(rules)))
    }

    pub(super) fn note_glob(&self, glob: &str) -> bool {
        self.add(|state| {
            if !state.globs.iter().any(|other| other == glob) {
                state.globs.push(glob.to_owned());
            }
        })
    }

    fn add(&self, add: impl FnOnce(&mut State)) -> bool {
        let mut state = self.lock();
        add(&mut state);
        if state.is_empty() {
            return false;
        }
        self.pending.store(true, Ordering::Release);
        !std::mem::replace(&mut state.tended, true)
    }

    /// What is noted at the moment.
    pub(super) fn backlog(&self) -> Backlog {
        let state = self.lock();
        Backlog {
            keys: state.keys.keys().cloned().collect(),
            families: state.families.values().cloned().collect(),
            globs: state.globs.clone(),
        }
    }

    /// This was removed. What was noted again meanwhile was so before that. Returns whether nothing is left; then nobody
    /// tends it any more.
    pub(super) fn written_off(&self, done: &Backlog) -> bool {
        let mut state = self.lock();
        done.keys.iter().for_each(|key| _ = state.keys.remove(key));
        done.families.iter().for_each(|rules| _ = state.families.remove(&rules.name));
        state.globs.retain(|glob| !done.globs.contains(glob));
        let empty = state.is_empty();
        if empty {
            state.tended = false;
            self.pending.store(false, Ordering::Release);
        }
        empty
    }

    /// How many keys were more than can be remembered, since this was asked the last time.
    pub(super) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.families.is_empty() && self.globs.is_empty()
    }

    /// The families with keys are flushed instead; of other keys the one that was found first makes room.
    fn overflow(&mut self) {
        let Self { keys, families, .. } = self;
        keys.retain(|_, rules| match rules {
            Some(rules) => {
                families.entry(rules.name.clone()).or_insert_with(|| Arc::clone(rules));
                false
            }
            None => true,
        });
        if keys.len() > MOST
            && let Some(first) = keys.keys().next().cloned()
        {
            keys.remove(&first);
            self.lost += 1;
        }
    }
}
