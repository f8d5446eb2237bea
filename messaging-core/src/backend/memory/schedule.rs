//! A moment for each of many keys, found by key and in the order of the moments.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Schedule<K> {
    moments: HashMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self { moments: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Clone + Hash + Ord> Schedule<K> {
    /// Gives a key its moment; an earlier one is forgotten.
    pub(super) fn set(&mut self, key: K, moment: u64) {
        self.remove(&key);
        self.moments.insert(key.clone(), moment);
        self.order.insert((moment, key));
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some((key, moment)) = self.moments.remove_entry(key) {
            self.order.remove(&(moment, key));
        }
    }

    /// Whether a key's moment is still to come.
    pub(super) fn is_ahead(&self, key: &K, now: u64) -> bool {
        self.moments.get(key).is_some_and(|moment| *moment > now)
    }

    /// The earliest moment.
    pub(super) fn first(&self) -> Option<u64> {
        self.order.first().map(|(moment, _)| *moment)
    }

    /// The keys whose moment has come, by moment and then by key.
    pub(super) fn due(&self, now: u64) -> impl Iterator<Item = &K> {
        self.order.iter().take_while(move |(moment, _)| *moment <= now).map(|(_, key)| key)
    }

    /// Forgets the keys whose moment has come.
    pub(super) fn drop_due(&mut self, now: u64) {
        while let Some((moment, _)) = self.order.first()
            && *moment <= now
            && let Some((_, key)) = self.order.pop_first()
        {
            self.moments.remove(&key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.moments.len()
    }

    /// The keys whose moment is still to come.
    pub(super) fn ahead(&self, now: u64) -> impl Iterator<Item = &K> {
        self.order.iter().rev().take_while(move |(moment, _)| *moment > now).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_due_in_the_order_of_their_moments() {
        let mut schedule = Schedule::default();
        for (key, moment) in [("c", 3), ("b", 2), ("a", 3), ("d", 9), ("d", 1)] {
            schedule.set(key, moment);
        }
        assert_eq!((schedule.len(), schedule.first()), (4, Some(1)), "setting again replaces");
        assert_eq!(schedule.due(3).collect::<Vec<_>>(), [&"d", &"b", &"a", &"c"]);
        assert!(schedule.is_ahead(&"b", 1) && !schedule.is_ahead(&"b", 2) && !schedule.is_ahead(&"x", 0));
        schedule.remove(&"a");
        schedule.drop_due(2);
        assert_eq!((schedule.len(), schedule.ahead(2).count(), schedule.ahead(3).count()), (1, 1, 0));
        assert_eq!(schedule.due(9).collect::<Vec<_>>(), [&"c"]);
    }
}
