//! Whether a history keeps the promises: nobody is answered with a version that was out of date for him when he asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::record::{Entry, How, What};
use crate::cache::{LAG, NEAR, clock, stalls};

/// A process whose network is or was disturbed may call its functions without the cache, until it has noticed that all is
/// well: its breaker asks again every 2 s at most.
const RECOVERY: Duration = Duration::from_secs(3);
/// How much of a history is shown with a violation.
const SHOWN: usize = 80;

/// What came of checking a history.
#[derive(Debug, Default)]
pub struct Verdict {
    pub reads: usize,
    pub loads: usize,
    pub writes: usize,
    pub failed_writes: usize,
    /// Reads that shared a load which its process had begun without the cache.
    pub shared_without_cache: usize,
    pub violations: Vec<String>,
}

/// A write that a reader may have to know of.
struct Write<'e> {
    version: u64,
    entry: &'e Entry,
}

/// The writes of one row of which one kind of reader has to know, in the order of their versions.
#[derive(Default)]
struct Writes<'e>(Vec<(Write<'e>, u64)>);

impl<'e> Writes<'e> {
    fn of(writes: impl Iterator<Item = (u64, &'e Entry)>) -> Self {
        let mut writes: Vec<_> = writes.map(|(version, entry)| (Write { version, entry }, 0)).collect();
        writes.sort_by_key(|(write, _)| write.version);
        // The earliest end from each version on.
        let mut earliest = u64::MAX;
        for (write, end) in writes.iter_mut().rev() {
            earliest = earliest.min(write.entry.end);
            *end = earliest;
        }
        Self(writes)
    }

    /// The write beyond `version` that was over first.
    fn first_beyond(&self, version: u64) -> Option<&'e Entry> {
        let from = self.0.partition_point(|(write, _)| write.version <= version);
        let end = self.0.get(from)?.1;
        self.0[from..].iter().find(|(write, _)| write.entry.end == end).map(|(write, _)| write.entry)
    }
}

/// What is known of one row.
#[derive(Default)]
struct Row<'e> {
    /// Of our own that succeeded: everybody has to know of them.
    ours: Writes<'e>,
    /// Of others: everybody has to know of them after a while.
    foreign: Writes<'e>,
    /// What each process asked for, whatever came of it: who asked has to know of it.
    own: BTreeMap<u32, Writes<'e>>,
    /// Processes keep it themselves: they hear within the lag what others have asked for.
    is_near: bool,
    /// Values that were set and whose fate is unknown: they may arrive at any time.
    loose: BTreeSet<u64>,
    loads: Vec<&'e Entry>,
}

pub fn check(history: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut rows: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    let mut stalled: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    let mut troubled: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for entry in history {
        match &entry.what {
            What::Read { row, .. } | What::Load { row, .. } | What::Write { row, .. } => {
                rows.entry(row).or_default().push(entry);
            }
            What::Stall => stalled.entry(entry.process).or_default().push((entry.start, entry.end)),
            What::Trouble(_) => troubled.entry(entry.process).or_default().push((entry.start, entry.end)),
        }
    }
    for times in stalled.values_mut().chain(troubled.values_mut()) {
        times.sort_unstable();
    }
    for entries in rows.values() {
        let row = Row::of(entries);
        for entry in entries {
            match &entry.what {
                What::Load { .. } => verdict.loads += 1,
                What::Write { succeeded, .. } => {
                    verdict.writes += 1;
                    verdict.failed_writes += usize::from(!succeeded);
                }
                _ => {}
            }
            let What::Read { version, .. } = entry.what else { continue };
            verdict.reads += 1;
            let stalls = stalled.get(&entry.process).map_or(&[][..], Vec::as_slice);
            let Some((write, promise)) = row.missed(entry, version, stalls) else { continue };
            let trouble = troubled.get(&entry.process).map_or(&[][..], Vec::as_slice);
            if write.process != entry.process && row.shared_without_cache(entry, version, trouble, stalls) {
                verdict.shared_without_cache += 1;
                continue;
            }
            verdict.violations.push(explain(history, entry, write, promise));
        }
    }
    verdict
}

impl<'e> Row<'e> {
    fn of(entries: &[&'e Entry]) -> Self {
        let writes = |wanted: &dyn Fn(How, bool, u32) -> bool| {
            let of = |entry: &&'e Entry| match &entry.what {
                What::Write { version, how, succeeded, .. } if wanted(*how, *succeeded, entry.process) => {
                    Some((*version, *entry))
                }
                _ => None,
            };
            Writes::of(entries.iter().filter_map(of))
        };
        let ours = |how: How| matches!(how, How::Publish | How::Invalidate);
        let processes: BTreeSet<u32> = entries.iter().map(|entry| entry.process).collect();
        // Of a value that could not be set nothing is promised.
        let own_of = |process: u32| {
            writes(&|how, succeeded, by| (ours(how) || (how == How::Set && succeeded)) && by == process)
        };
        let is_near = entries.iter().any(|entry| match &entry.what {
            What::Read { row, .. } => row.starts_with(NEAR),
            _ => false,
        });
        let loose = entries.iter().filter_map(|entry| match entry.what {
            What::Write { version, how: How::Set, succeeded: false, .. } => Some(version),
            _ => None,
        });
        let is_load = |entry: &&&Entry| matches!(entry.what, What::Load { .. });
        Self {
            ours: writes(&|how, succeeded, _| (ours(how) || how == How::Set) && succeeded),
            foreign: writes(&|how, succeeded, _| how == How::Foreign && succeeded),
            own: processes.into_iter().map(|process| (process, own_of(process))).collect(),
            is_near,
            loose: loose.collect(),
            loads: entries.iter().filter(is_load).copied().collect(),
        }
    }

    /// A write that this read should have known of, and why.
    fn missed(&self, read: &Entry, version: u64, stalls: &[(u64, u64)]) -> Option<(&'e Entry, &'static str)> {
        if self.loose.contains(&version) {
            return None;
        }
        let over = |write: &&Entry| write.end < read.start;
        let own = self.own.get(&read.process).and_then(|own| own.first_beyond(version));
        if let Some(write) = own.filter(over) {
            return Some((write, "the same process had asked for it before the read began"));
        }
        // The longer ago it was the more it is out of date, whatever there was of stalls.
        let is_late = |write: &&Entry| {
            let allowed = clock::nanos(LAG) + stalls::within(stalls, write.end, read.start);
            read.start - write.end > allowed
        };
        let ours = self.ours.first_beyond(version).filter(over);
        if let Some(write) = ours.filter(|write| !self.is_near || is_late(write)) {
            return Some((write, "it had succeeded before the read began"));
        }
        let write = self.foreign.first_beyond(version).filter(over).filter(is_late)?;
        Some((write, "somebody else published it long enough before the read began"))
    }

    /// Whether this read may have shared a load that runs without the cache: what other processes invalidate does not
    /// reach it.
    fn shared_without_cache(
        &self,
        read: &Entry,
        version: u64,
        trouble: &[(u64, u64)],
        stalls: &[(u64, u64)],
    ) -> bool {
        self.loads.iter().any(|load| {
            let found = matches!(load.what, What::Load { version: found, .. } if found == version);
            let recovery = clock::nanos(RECOVERY);
            let from = load.start.saturating_sub(recovery);
            let disturbed = trouble.iter().any(|(start, end)| *start < read.end && *end > from)
                || stalls::longest(stalls, from, read.end) > clock::nanos(Duration::from_millis(25));
            found
                && load.process == read.process
                && load.start < read.start
                && read.start < load.end
                && disturbed
        })
    }
}

/// What happened to the row from the write to the read, and to the reader.
fn explain(history: &[Entry], read: &Entry, write: &Entry, promise: &str) -> String {
    let row = |entry: &Entry| match &entry.what {
        What::Read { row, .. } | What::Load { row, .. } | What::Write { row, .. } => Some(row.clone()),
        What::Stall | What::Trouble(_) => None,
    };
    let (from, to) = (write.start.saturating_sub(200_000_000), read.end + 20_000_000);
    let concerned = |entry: &&Entry| {
        entry.end >= from
            && entry.start <= to
            && (row(entry) == row(read) || (row(entry).is_none() && entry.process == read.process))
    };
    let mut excerpt: Vec<&Entry> = history.iter().filter(concerned).collect();
    excerpt.sort_by_key(|entry| entry.start);
    let mut text = format!("{read}\n  is older than\n{write}\n  and {promise}; around them:\n");
    let left_out = excerpt.len().saturating_sub(SHOWN);
    for (place, entry) in excerpt.iter().enumerate() {
        if left_out > 0 && place == SHOWN / 2 {
            let _ = writeln!(text, "    … {left_out} more …");
        }
        if left_out == 0 || place < SHOWN / 2 || place >= excerpt.len() - SHOWN / 2 {
            let _ = writeln!(text, "{} {entry}", if std::ptr::eq(*entry, read) { ">>>" } else { "   " });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn entry(process: u32, start: u64, end: u64, what: What) -> Entry {
        Entry { process, start: start * MS, end: end * MS, what }
    }

    fn read(process: u32, start: u64, version: u64) -> Entry {
        entry(process, start, start + 1, What::Read { row: "a".to_owned(), version })
    }

    fn load(process: u32, start: u64, end: u64, version: u64) -> Entry {
        entry(process, start, end, What::Load { row: "a".to_owned(), version })
    }

    fn write(process: u32, end: u64, version: u64, how: How, succeeded: bool) -> Entry {
        entry(process, end - 5, end, What::Write { row: "a".to_owned(), version, how, succeeded })
    }

    fn is_wrong(history: &[Entry]) -> bool {
        let verdict = check(history);
        assert!(verdict.violations.len() < 2, "{verdict:?}");
        !verdict.violations.is_empty()
    }

    #[test]
    fn what_has_succeeded_is_known_to_everybody() {
        for how in [How::Publish, How::Invalidate, How::Set] {
            let written = write(1, 100, 7, how, true);
            assert!(is_wrong(&[written.clone(), read(2, 101, 6)]), "{how:?}");
            assert!(!is_wrong(&[written.clone(), read(2, 101, 7)]));
            assert!(!is_wrong(&[written.clone(), read(2, 98, 6)]), "it began before");
            // A later write that is not over yet hides nothing.
            let later = write(3, 300, 8, how, true);
            assert!(is_wrong(&[later.clone(), written.clone(), read(2, 101, 6)]));
            assert!(!is_wrong(&[later, written, read(2, 101, 7)]));
        }
        // Versions are written in one order, and the cache may be told in another.
        let (one, other) = (write(1, 200, 7, How::Publish, true), write(2, 100, 8, How::Publish, true));
        assert!(is_wrong(&[one, other, read(3, 150, 7)]));
    }

    #[test]
    fn what_has_failed_is_known_to_who_asked() {
        for how in [How::Publish, How::Invalidate] {
            let written = write(1, 100, 7, how, false);
            assert!(is_wrong(&[written.clone(), read(1, 101, 6)]));
            assert!(!is_wrong(&[written, read(2, 101, 6)]));
        }
        let unclear = write(1, 100, 7, How::Unclear, true);
        assert!(!is_wrong(&[unclear, read(1, 101, 6)]), "it may take as long as it takes");
    }

    #[test]
    fn what_processes_keep_themselves_is_known_to_others_after_a_while() {
        let near = |mut entry: Entry| {
            if let What::Read { row, .. } | What::Load { row, .. } | What::Write { row, .. } = &mut entry.what
            {
                *row = format!("{NEAR}1");
            }
            entry
        };
        for succeeded in [true, false] {
            let written = near(write(1, 100, 7, How::Publish, succeeded));
            assert!(is_wrong(&[written.clone(), near(read(1, 101, 6))]));
            assert!(!is_wrong(&[written.clone(), near(read(2, 1_099, 6))]));
            assert_eq!(is_wrong(&[written, near(read(2, 1_101, 6))]), succeeded);
        }
    }

    #[test]
    fn what_others_publish_is_known_after_a_while() {
        let written = write(1, 100, 7, How::Foreign, true);
        assert!(!is_wrong(&[written.clone(), read(2, 1_099, 6)]));
        assert!(is_wrong(&[written.clone(), read(2, 1_101, 6)]));
        let stall = |process| entry(process, 400, 900, What::Stall);
        assert!(!is_wrong(&[written.clone(), stall(2), read(2, 1_599, 6)]));
        assert!(is_wrong(&[written.clone(), stall(2), read(2, 1_602, 6)]));
        assert!(is_wrong(&[written, stall(3), read(2, 1_599, 6)]), "somebody else's stall is no excuse");
    }

    #[test]
    fn a_value_whose_fate_is_unknown_may_arrive_late() {
        let (lost, last) = (write(1, 100, 7, How::Set, false), write(1, 200, 8, How::Set, true));
        assert!(!is_wrong(&[lost.clone(), last.clone(), read(2, 300, 7)]));
        assert!(is_wrong(&[lost, last, read(2, 300, 6)]));
    }

    #[test]
    fn a_load_without_the_cache_is_shared_in_its_process_only() {
        let trouble = entry(2, 10, 20, What::Trouble("cut".to_owned()));
        let written = write(1, 100, 7, How::Publish, true);
        let history = |extra: &[Entry]| [&[written.clone(), read(2, 101, 6)], extra].concat();
        assert!(!is_wrong(&history(&[trouble.clone(), load(2, 90, 110, 6)])));
        assert!(is_wrong(&history(&[load(2, 90, 110, 6)])), "all was well");
        assert!(is_wrong(&history(&[trouble.clone(), load(2, 90, 100, 6)])), "it was over");
        assert!(is_wrong(&history(&[trouble.clone(), load(3, 90, 110, 6)])), "another process");
        let mine = write(2, 100, 7, How::Publish, true);
        assert!(is_wrong(&[mine, read(2, 101, 6), trouble, load(2, 90, 110, 6)]), "its own write");
    }
}
