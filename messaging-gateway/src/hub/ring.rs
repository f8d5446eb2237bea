//! What was appended to a stream lately, so that those who come back are served without asking Redis. Pure values.

use std::collections::VecDeque;
use std::ops::Range;

use messaging_core::{Channel, EntryId, Position};

use crate::payload::Payload;

/// The last entries of a stream, without a hole: everything after `below`, up to `high`.
#[derive(Debug)]
pub(crate) struct Ring {
    entries: VecDeque<Kept>,
    bytes: usize,
    /// The entry before the first.
    below: Position,
    /// The last entry, be it in here or before it.
    high: Position,
    /// The last number that an entry had: those of foreign publishers have none.
    number: u64,
    /// There is nothing before the first entry any more.
    reaches_start: bool,
    most: usize,
    most_bytes: usize,
}

/// An entry.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) position: Position,
    /// Where an entry is nobody's news, there is none.
    pub(crate) message: Option<(Channel, Told)>,
}

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Payload(Payload),
    /// It is too large, which those who miss it are told.
    Not,
}

impl Kept {
    pub(crate) fn size(&self) -> usize {
        /// What an entry takes beside its payload.
        const ITSELF: usize = 128;
        let payload = match &self.message {
            Some((_, Told::Payload(payload))) => payload.len(),
            Some((_, Told::Not)) | None => 0,
        };
        ITSELF + payload
    }
}

/// Where somebody goes on who has seen everything up to a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// What was missed are these entries.
    Here(Range<usize>),
    /// It is older than what is here.
    Older,
    /// Somebody else has read further.
    Ahead,
    /// It is not known any more what was missed, or it never was a position of this stream.
    Lost,
}

impl Ring {
    /// A ring that begins after the end of a stream.
    pub(crate) fn new(end: Position, most: usize, most_bytes: usize) -> Self {
        let entries = VecDeque::new();
        Self {
            entries,
            bytes: 0,
            below: end,
            high: end,
            number: end.number,
            reaches_start: false,
            most,
            most_bytes,
        }
    }

    /// Begins anew: the stream is another one.
    pub(crate) fn reset(&mut self, end: Position) {
        *self = Self::new(end, self.most, self.most_bytes);
    }

    pub(crate) fn high(&self) -> Position {
        self.high
    }

    /// The last number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn below(&self) -> Position {
        self.below
    }

    pub(crate) fn get(&self, place: usize) -> &Kept {
        &self.entries[place]
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether older entries could be put in.
    pub(crate) fn can_grow(&self) -> bool {
        !self.reaches_start && self.entries.len() < self.most && self.bytes < self.most_bytes
    }

    /// Takes a new entry up.
    pub(crate) fn push(&mut self, entry: Kept) {
        self.high = entry.position;
        if entry.position.number != 0 {
            self.number = entry.position.number;
        }
        self.bytes += entry.size();
        self.entries.push_back(entry);
        while self.entries.len() > 1 && (self.entries.len() > self.most || self.bytes > self.most_bytes) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.size();
            self.below = oldest.position;
            self.reaches_start = false;
        }
    }

    /// Puts older entries in, newest first, beginning with [`below`](Self::below) if that is still there. `is_all` says
    /// that there is nothing older.
    pub(crate) fn grow(&mut self, mut older: Vec<Kept>, is_all: bool) {
        if is_all {
            self.below = Position::default();
            self.reaches_start = true;
        } else if let Some(oldest) = older.pop() {
            self.below = oldest.position;
        }
        for entry in older {
            self.bytes += entry.size();
            self.entries.push_front(entry);
        }
    }

    /// What came after `offset`.
    pub(crate) fn since(&self, offset: Position) -> Since {
        let all = self.entries.len();
        // A stream that has expired has kept its counter.
        let is_same = |place: Position| {
            let is_numbered = offset.number != 0 && offset.number == place.number;
            offset == place || (place.id == EntryId::default() && is_numbered)
        };
        let is_end = is_same(self.high);
        if is_end {
            return Since::Here(all..all);
        }
        if offset.id > self.high.id {
            return if offset.number > self.number { Since::Ahead } else { Since::Lost };
        }
        let first = if is_same(self.below) {
            0
        } else {
            let place = self.entries.partition_point(|entry| entry.position.id < offset.id);
            match self.entries.get(place) {
                Some(entry) if entry.position == offset => place + 1,
                // Itself removed, but nothing after it: the numbers tell.
                Some(entry) if place == 0 && self.reaches_start => {
                    let follows = entry.position.number != 0 && entry.position.number == offset.number + 1;
                    if follows { 0 } else { return Since::Lost }
                }
                _ if !self.reaches_start && offset.id <= self.below.id => return Since::Older,
                _ => return Since::Lost,
            }
        };
        if self.has_hole(offset, first) { Since::Lost } else { Since::Here(first..all) }
    }

    /// The same by a number alone. What foreign publishers append has none: if something of theirs that `concerns` who asks
    /// stands right behind the number, nobody can tell whether it was seen.
    pub(crate) fn since_number(&self, number: u64, concerns: impl Fn(&Kept) -> bool) -> Since {
        if number > self.number {
            return Since::Ahead;
        }
        let Some(position) = self.position_of(number) else {
            let first = self.entries.front().map(|entry| entry.position);
            // Itself removed, but nothing after it.
            let follows = first.filter(|first| self.reaches_start && first.number == number + 1);
            let before = follows.map(|_| Position { id: EntryId::default(), number });
            return match before {
                Some(before) if !self.has_hole(before, 0) => Since::Here(0..self.entries.len()),
                _ if self.reaches_start => Since::Lost,
                _ => Since::Older,
            };
        };
        let since = self.since(position);
        if let Since::Here(range) = &since {
            let mut unnumbered =
                self.entries.range(range.clone()).take_while(|entry| entry.position.number == 0);
            if unnumbered.any(concerns) {
                return Since::Lost;
            }
        }
        since
    }

    /// Where a number stands.
    fn position_of(&self, number: u64) -> Option<Position> {
        if number == 0 {
            return Some(Position::default());
        }
        let entries = self.entries.iter().rev().map(|entry| entry.position);
        entries.chain([self.below, self.high]).find(|position| position.number == number)
    }

    /// Whether an entry with this number or an earlier one is known.
    pub(crate) fn knows(&self, number: u64) -> bool {
        let mut positions = self.entries.iter().map(|entry| entry.position).chain([self.below]);
        positions.any(|position| position.number != 0 && position.number <= number)
    }

    /// Whether numbers are missing between `offset` and the end.
    fn has_hole(&self, offset: Position, first: usize) -> bool {
        let before = self.entries.range(..first).rev().map(|entry| entry.position.number);
        // What foreign publishers append has no number: then it is that of the last before it that has one.
        let last = std::iter::once(offset.number)
            .chain(before)
            .chain([self.below.number])
            .find(|number| *number != 0);
        let is_known = last.is_some() || offset.id == EntryId::default();
        let mut expected = is_known.then_some(last.unwrap_or(0) + 1);
        let mut numbers =
            self.entries.range(first..).map(|entry| entry.position.number).filter(|number| *number != 0);
        numbers.any(|number| expected.replace(number + 1).is_some_and(|expected| number != expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Position {
        Position { id: EntryId { millis: 100 + number, sequence: 0 }, number }
    }

    fn entry(number: u64) -> Kept {
        Kept { position: at(number), message: None }
    }

    /// A ring over a stream that ended with `end` when it began, and has `new` entries more.
    fn ring(end: u64, new: u64, most: usize) -> Ring {
        let mut ring = Ring::new(if end == 0 { Position::default() } else { at(end) }, most, 1 << 20);
        (end + 1..=end + new).for_each(|number| ring.push(entry(number)));
        ring
    }

    fn missed(ring: &Ring, offset: Position) -> Result<Vec<u64>, Since> {
        match ring.since(offset) {
            Since::Here(places) => Ok(places.map(|place| ring.get(place).position.number).collect()),
            other => Err(other),
        }
    }

    #[test]
    fn what_came_after_is_told_or_it_is_said_that_it_is_not_known() {
        let ring = ring(10, 3, 100);
        assert_eq!(missed(&ring, at(13)), Ok(vec![]));
        assert_eq!(missed(&ring, at(11)), Ok(vec![12, 13]));
        assert_eq!(missed(&ring, at(10)), Ok(vec![11, 12, 13]));
        assert_eq!(missed(&ring, at(9)), Err(Since::Older));
        assert_eq!(missed(&ring, at(14)), Err(Since::Ahead));
        // Positions that were never there: another number at the id, an id between two.
        assert_eq!(missed(&ring, Position { number: 4, ..at(11) }), Err(Since::Lost));
        assert_eq!(
            missed(&ring, Position { id: EntryId { millis: 111, sequence: 5 }, number: 11 }),
            Err(Since::Lost)
        );
    }

    #[test]
    fn the_oldest_go_and_come_again() {
        let mut ring = ring(0, 10, 4);
        assert_eq!(missed(&ring, at(6)), Ok(vec![7, 8, 9, 10]));
        assert_eq!(missed(&ring, at(5)), Err(Since::Older));
        assert!(!ring.can_grow());
        let mut ring2 = Ring::new(at(10), 100, 1 << 20);
        ring2.push(entry(11));
        ring2.grow(vec![entry(10), entry(9), entry(8)], false);
        assert_eq!((missed(&ring2, at(8)), missed(&ring2, at(7))), (Ok(vec![9, 10, 11]), Err(Since::Older)));
        ring2.grow(vec![entry(8), entry(7)], true);
        // 6 is not there any more, but nothing after it is missing; before it, something is.
        assert_eq!(missed(&ring2, at(6)), Ok(vec![7, 8, 9, 10, 11]));
        assert_eq!(missed(&ring2, at(5)), Err(Since::Lost));
        assert_eq!(missed(&ring2, Position::default()), Err(Since::Lost));
        ring.reset(at(20));
        assert_eq!((ring.len(), missed(&ring, at(10))), (0, Err(Since::Older)));
    }

    #[test]
    fn a_stream_that_was_empty_is_known_from_its_first_entry() {
        let mut ring = ring(0, 0, 100);
        assert_eq!(missed(&ring, Position::default()), Ok(vec![]));
        ring.push(entry(1));
        assert_eq!(missed(&ring, Position::default()), Ok(vec![1]));
        let mut later = Ring::new(at(2), 100, 1 << 20);
        later.grow(vec![entry(2), entry(1)], true);
        assert_eq!(missed(&later, Position::default()), Ok(vec![1, 2]));
        // A stream that has expired: its counter tells that nothing came.
        let mut expired = Ring::new(Position { id: EntryId::default(), number: 7 }, 100, 1 << 20);
        assert_eq!((missed(&expired, at(7)), missed(&expired, at(6))), (Ok(vec![]), Err(Since::Lost)));
        expired.push(entry(8));
        assert_eq!(missed(&expired, at(7)), Ok(vec![8]));
    }

    fn missed_by_number(ring: &Ring, number: u64) -> Result<Vec<u64>, Since> {
        match ring.since_number(number, |_| true) {
            Since::Here(places) => Ok(places.map(|place| ring.get(place).position.number).collect()),
            other => Err(other),
        }
    }

    #[test]
    fn numbers_alone_tell_the_same() {
        let mut ring = ring(10, 3, 100);
        for number in 9..=14 {
            assert_eq!(missed_by_number(&ring, number), missed(&ring, at(number)), "{number}");
        }
        assert_eq!((ring.knows(9), ring.knows(10), ring.knows(20)), (false, true, true));
        ring.grow(vec![entry(10), entry(9), entry(8)], true);
        assert_eq!(missed_by_number(&ring, 7), Ok((8..=13).collect()), "only 7 itself is not there any more");
        assert_eq!(missed_by_number(&ring, 6), Err(Since::Lost));
        assert_eq!(missed_by_number(&ring, 0), Err(Since::Lost));
        ring.push(entry(15));
        assert_eq!(missed_by_number(&ring, 12), Err(Since::Lost), "14 is missing");
        let empty = self::ring(0, 0, 100);
        assert_eq!(
            (missed_by_number(&empty, 0), missed_by_number(&empty, 1)),
            (Ok(vec![]), Err(Since::Ahead))
        );
        assert_eq!(missed_by_number(&self::ring(0, 2, 100), 0), Ok(vec![1, 2]));
        let expired = Ring::new(Position { id: EntryId::default(), number: 7 }, 100, 1 << 20);
        assert_eq!(missed_by_number(&expired, 7), Ok(vec![]));
    }

    #[test]
    fn who_may_have_seen_an_entry_without_a_number_is_not_told_it_again() {
        let mut ring = ring(10, 1, 100);
        ring.push(Kept { position: foreign(111), message: None });
        assert_eq!(missed_by_number(&ring, 11), Err(Since::Lost));
        assert_eq!(ring.since_number(11, |_| false), Since::Here(1..2), "it is of another channel");
        assert_eq!(missed_by_number(&ring, 10), Ok(vec![11, 0]), "who has not seen 11 has not seen it");
        ring.push(entry(12));
        assert_eq!(
            (missed_by_number(&ring, 11), missed_by_number(&ring, 12)),
            (Err(Since::Lost), Ok(vec![]))
        );
    }

    #[test]
    fn a_hole_is_never_silent() {
        let mut ring = ring(10, 2, 100);
        ring.push(entry(15));
        assert_eq!((missed(&ring, at(12)), missed(&ring, at(11))), (Err(Since::Lost), Err(Since::Lost)));
        assert_eq!(missed(&ring, at(15)), Ok(vec![]));
        ring.push(Kept {
            position: Position { number: 0, id: EntryId { millis: 116, sequence: 0 } },
            message: None,
        });
        ring.push(Kept {
            position: Position { number: 16, id: EntryId { millis: 117, sequence: 0 } },
            message: None,
        });
        assert_eq!(missed(&ring, at(15)), Ok(vec![0, 16]));
    }

    fn foreign(millis: u64) -> Position {
        Position { id: EntryId { millis, sequence: 1 }, number: 0 }
    }

    #[test]
    fn who_has_seen_an_entry_without_a_number_goes_on_after_it() {
        let mut ring = Ring::new(at(6), 100, 1 << 20);
        let unnumbered = Kept { position: foreign(105), message: None };
        ring.grow(vec![entry(6), unnumbered, entry(5)], true);
        assert_eq!(missed(&ring, foreign(105)), Ok(vec![6]));
    }

    #[test]
    fn a_hole_after_an_entry_without_a_number_is_not_silent() {
        let mut ring = ring(10, 1, 100);
        ring.push(Kept { position: foreign(111), message: None });
        // 12 was removed before it was read.
        ring.push(entry(13));
        assert_eq!(missed(&ring, at(11)), Err(Since::Lost));
        assert_eq!(missed(&ring, foreign(111)), Err(Since::Lost));
    }
}
