//! Entries in the order in which they were appended, and how many of them are kept. Knows no groups.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::clock::{later, millis};
use crate::stream::{EntryId, RawEntry, Retention};

pub(super) type Fields = Vec<(Bytes, Bytes)>;

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: BTreeMap<EntryId, Fields>,
    last: EntryId,
    retention: Retention,
    /// When it is gone, unless something is appended before.
    expires: Option<u64>,
}

impl Log {
    /// Appends an entry and removes what is not kept any more; returns the new entry's id, and the ids that are gone.
    pub(super) fn append(&mut self, fields: Fields, kept: Retention, now: u64) -> (EntryId, Vec<EntryId>) {
        let id = EntryId { millis: now, sequence: 0 }.max(self.last.next());
        self.entries.insert(id, fields);
        self.last = id;
        self.retention = kept;
        self.expires = Some(later(now, kept.max_age));
        (id, self.trim(now))
    }

    fn trim(&mut self, now: u64) -> Vec<EntryId> {
        let oldest = now.saturating_sub(millis(self.retention.max_age));
        let most = usize::try_from(self.retention.max_len.get()).unwrap_or(usize::MAX);
        let mut gone = Vec::new();
        while let Some(first) = self.entries.keys().next().copied()
            && (self.entries.len() > most || first.millis < oldest)
        {
            self.entries.remove(&first);
            gone.push(first);
        }
        gone
    }

    /// Whether nothing has been appended for so long that all of it is gone.
    pub(super) fn is_gone(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    pub(super) fn last(&self) -> EntryId {
        self.last
    }

    /// What was kept when something was appended the last time.
    pub(super) fn retention(&self) -> Retention {
        self.retention
    }

    pub(super) fn get(&self, id: EntryId) -> Option<RawEntry> {
        self.entries.get(&id).map(|fields| RawEntry { id, fields: fields.clone() })
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Fields> {
        self.entries.remove(&id)
    }

    /// The entries between two ids, both included.
    pub(super) fn range(&self, first: EntryId, last: EntryId) -> impl DoubleEndedIterator<Item = RawEntry> {
        // A range that ends before it begins is empty here, and a panic of the map.
        let last = (first <= last).then_some(last);
        last.into_iter().flat_map(move |last| self.entries.range(first..=last)).map(raw)
    }

    pub(super) fn after(&self, id: EntryId) -> impl Iterator<Item = RawEntry> {
        self.entries.range((Bound::Excluded(id), Bound::Unbounded)).map(raw)
    }

    pub(super) fn count_after(&self, id: EntryId) -> usize {
        self.entries.range((Bound::Excluded(id), Bound::Unbounded)).count()
    }
}

fn raw((id, fields): (&EntryId, &Fields)) -> RawEntry {
    RawEntry { id: *id, fields: fields.clone() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;

    const KEPT: Retention =
        Retention { max_len: NonZeroU64::new(3).unwrap(), max_age: Duration::from_millis(100) };

    fn id(millis: u64, sequence: u64) -> EntryId {
        EntryId { millis, sequence }
    }

    fn ids(entries: impl Iterator<Item = RawEntry>) -> Vec<EntryId> {
        entries.map(|entry| entry.id).collect()
    }

    #[test]
    fn ids_grow_even_if_the_clock_does_not() {
        let mut log = Log::default();
        let mut append = |now| log.append(Fields::new(), Retention::DEFAULT, now).0;
        assert_eq!([append(5), append(5), append(4), append(6)], [id(5, 0), id(5, 1), id(5, 2), id(6, 0)]);
        assert_eq!(log.last(), id(6, 0));
    }

    #[test]
    fn what_is_too_much_or_too_old_is_removed() {
        let mut log = Log::default();
        let mut append = |now| log.append(Fields::new(), KEPT, now).1;
        assert_eq!([append(1), append(2), append(2)], [[], [], []]);
        assert_eq!(append(3), [id(1, 0)]);
        assert_eq!(append(103), [id(2, 0), id(2, 1)], "exactly as old as allowed is not too old");
        assert_eq!(ids(log.after(EntryId::MIN)), [id(3, 0), id(103, 0)]);
        assert!(!log.is_gone(202) && log.is_gone(203), "100 ms after something was appended");
        assert!(!Log::default().is_gone(u64::MAX), "nothing was appended, nothing ends");
    }

    #[test]
    fn ranges_include_both_ends_and_may_be_empty() {
        let mut log = Log::default();
        for now in 1..=4 {
            log.append(Fields::new(), Retention::DEFAULT, now);
        }
        assert_eq!(ids(log.range(id(2, 0), id(3, 0))), [id(2, 0), id(3, 0)]);
        assert_eq!(ids(log.range(id(3, 0), id(2, 0))), []);
        assert_eq!(ids(log.after(id(3, 0))), [id(4, 0)]);
        assert_eq!(ids(log.after(EntryId::MAX)), []);
        assert_eq!((log.count_after(id(2, 0)), log.count_after(EntryId::MIN)), (2, 4));
        assert!(log.remove(id(2, 0)).is_some() && log.get(id(2, 0)).is_none());
    }
}
