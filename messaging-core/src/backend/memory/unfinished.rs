//! Tells those who wait for a group to be done how much it still has to do.

use crate::activity::Activity;

/// The activities of those who read for a group, each of which counts all that is unfinished in it.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    readers: Vec<Activity>,
    count: usize,
}

impl Unfinished {
    /// Counts in this activity too, from now on.
    pub(super) fn attach(&mut self, activity: &Activity) {
        if !self.readers.iter().any(|reader| reader.is(activity)) {
            activity.begin(self.count);
            self.readers.push(activity.clone());
        }
    }

    /// Counts in this activity no more.
    pub(super) fn detach(&mut self, activity: &Activity) {
        let count = self.count;
        self.readers.retain(|reader| {
            let stays = !reader.is(activity);
            if !stays {
                reader.finish(count);
            }
            stays
        });
    }

    /// So much is unfinished now.
    pub(super) fn set(&mut self, count: usize) {
        let before = std::mem::replace(&mut self.count, count);
        for reader in &self.readers {
            reader.begin(count.saturating_sub(before));
            reader.finish(before.saturating_sub(count));
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_activity_counts_for_as_long_as_it_is_attached() {
        let (first, second) = (Activity::default(), Activity::default());
        let counts = || [first.unfinished(), second.unfinished()];
        let mut unfinished = Unfinished::default();
        unfinished.attach(&first);
        unfinished.set(3);
        unfinished.attach(&first);
        unfinished.attach(&second);
        assert_eq!(counts(), [3, 3], "who comes later counts what is there");
        unfinished.set(1);
        assert_eq!(counts(), [1, 1]);
        unfinished.detach(&first);
        unfinished.set(2);
        assert_eq!(counts(), [0, 2]);
        drop(unfinished);
        assert_eq!(counts(), [0, 0]);
    }
}
