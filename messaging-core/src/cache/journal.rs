//! What was invalidated while Redis could not be told: to be removed before this process serves anything again. Bounded:
//! of functions with too many keys all values are removed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rules::Rules;
use crate::channel::glob_matches;

/// How many keys are remembered.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Journal {
    pending: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Keys as they are on the backend, with the family if it is known. Each entry has a number of its own, so that what
    /// is noted again is not taken for what was removed before that.
    keys: HashMap<String, (u64, Option<Arc<Rules>>)>,
    /// Families of which all values are to be removed, by their name.
    families: HashMap<String, (u64, Arc<Rules>)>,
    /// Globs by which values are to be removed.
    globs: HashMap<String, u64>,
    last: u64,
    /// Keys of no family that were more than can be remembered.
    lost: u64,
    /// Somebody is writing it off.
    tended: bool,
}

/// What is to be removed, with the numbers of the entries.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) keys: Vec<(String, u64)>,
    pub(super) families: Vec<(Arc<Rules>, u64)>,
    pub(super) globs: Vec<(String, u64)>,
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
                let number = state.number();
                if let Some(rules) = &rules
                    && let Some(family) = state.families.get_mut(&rules.name)
                {
                    family.0 = number;
                    continue;
                }
                state.keys.insert(key, (number, rules));
                if state.keys.len() > MOST {
                    state.overflow();
                }
            }
        })
    }

    pub(super) fn note_family(&self, rules: &Arc<Rules>) -> bool {
        self.add(|state| {
            let number = state.number();
            state.families.insert(rules.name.clone(), (number, Arc::clone(rules)));
        })
    }

    pub(super) fn note_glob(&self, glob: &str) -> bool {
        self.add(|state| {
            let number = state.number();
            state.globs.insert(glob.to_owned(), number);
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

    /// Whether this key, as it is on the backend, is still to be removed.
    pub(super) fn has(&self, key: &str) -> bool {
        if !self.is_pending() {
            return false;
        }
        let state = self.lock();
        state.keys.contains_key(key)
            || state.families.values().any(|(_, rules)| rules.could_be(key))
            || state.globs.keys().any(|glob| glob_matches(glob.as_bytes(), key.as_bytes()))
    }

    /// What is noted at the moment.
    pub(super) fn backlog(&self) -> Backlog {
        let state = self.lock();
        Backlog {
            keys: state.keys.iter().map(|(key, (number, _))| (key.clone(), *number)).collect(),
            families: state.families.values().map(|(number, rules)| (Arc::clone(rules), *number)).collect(),
            globs: state.globs.iter().map(|(glob, number)| (glob.clone(), *number)).collect(),
        }
    }

    /// This was removed; what was noted again meanwhile stays. Returns whether nothing is left; then nobody tends it any
    /// more.
    pub(super) fn written_off(&self, done: &Backlog) -> bool {
        let mut state = self.lock();
        for (key, number) in &done.keys {
            if state.keys.get(key).is_some_and(|(now, _)| now == number) {
                state.keys.remove(key);
            }
        }
        for (rules, number) in &done.families {
            if state.families.get(&rules.name).is_some_and(|(now, _)| now == number) {
                state.families.remove(&rules.name);
            }
        }
        for (glob, number) in &done.globs {
            if state.globs.get(glob) == Some(number) {
                state.globs.remove(glob);
            }
        }
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

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The families with keys are flushed instead; of other keys any one makes room.
    fn overflow(&mut self) {
        let Self { keys, families, .. } = self;
        keys.retain(|_, (number, rules)| match rules {
            Some(rules) => {
                families.entry(rules.name.clone()).or_insert_with(|| (*number, Arc::clone(rules)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::Definition;

    fn rules(key: &str) -> Arc<Rules> {
        let text = format!(
            r#"{{"id":"{key}","cache_prefix":"","channel_prefix":"","key":"{key}","keep_ms":1,"on":[]}}"#
        );
        Rules::new(Definition::from_json(&text).unwrap()).unwrap()
    }

    #[test]
    fn what_is_noted_while_it_is_written_off_stays() {
        let journal = Journal::default();
        assert!(!journal.is_pending());
        assert!(journal.note([(None, "a".to_owned())]), "somebody has to begin");
        assert!(!journal.note([(None, "b".to_owned())]), "who has begun sees to it");
        let backlog = journal.backlog();
        journal.note_glob("c*");
        journal.note_family(&rules("d:{id}"));
        assert!(["a", "b", "cx", "d:7"].iter().all(|key| journal.has(key)) && !journal.has("e"));
        assert!(!journal.written_off(&backlog) && journal.is_pending());
        assert!(!journal.has("a") && journal.has("cx") && journal.has("d:7"));
        assert!(journal.written_off(&journal.backlog()) && !journal.is_pending());
        assert!(journal.note([(None, "a".to_owned())]), "again somebody has to begin");
        let backlog = journal.backlog();
        journal.note([(None, "a".to_owned())]);
        assert!(!journal.written_off(&backlog) && journal.has("a"), "it was invalidated again since");
    }

    #[test]
    fn too_many_keys_of_a_family_are_the_family() {
        let (journal, camera) = (Journal::default(), rules("camera:{id}"));
        let keys =
            |count: usize| (0..count).map(|number| (Some(Arc::clone(&camera)), format!("camera:{number}")));
        journal.note([(None, "by hand".to_owned())]);
        journal.note(keys(MOST + 100));
        let backlog = journal.backlog();
        assert_eq!((backlog.keys.len(), backlog.families.len()), (1, 1));
        assert!(journal.has("camera:0") && journal.has("by hand"));
        assert_eq!(journal.take_lost(), 0);
        journal.note((0..MOST).map(|number| (None, number.to_string())));
        assert_eq!((journal.backlog().keys.len(), journal.take_lost()), (MOST, 1));
    }
}
