//! Events whose publisher has told that they are its own, and that it has removed what they make out of date: whoever
//! hears them need not do that again, which would only defeat the loads that began since.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sha1_smol::Sha1;
use tokio::time::Instant;

/// More marks than this are not kept: of channels that we do not hear the events never come.
const MOST: usize = 10_000;
/// An event that has not come so long after its mark does not come any more.
const KEPT_FOR: Duration = Duration::from_secs(10);

type Digest = [u8; 20];

/// Marks without their events, each as often as it came.
#[derive(Debug, Default)]
pub(super) struct Marks {
    generations: HashMap<Digest, VecDeque<i64>>,
    order: VecDeque<(Instant, Digest)>,
}

fn digest(channel: &str, payload: &[u8]) -> Sha1 {
    let mut digest = Sha1::from(channel);
    digest.update(b"\0");
    digest.update(payload);
    digest
}

/// The mark of an event, by a publisher that knows the registry of this generation.
pub(super) fn mark(channel: &str, payload: &[u8], generation: i64) -> Bytes {
    Bytes::from(format!("{} {generation}", digest(channel, payload).digest()))
}

impl Marks {
    /// Takes a mark up; what is none is passed over.
    pub(super) fn note(&mut self, mark: &[u8]) {
        let Some((digest, generation)) = read(mark) else { return };
        let now = Instant::now();
        while self.order.front().is_some_and(|(at, _)| self.order.len() >= MOST || now - *at > KEPT_FOR) {
            if let Some((_, oldest)) = self.order.pop_front() {
                self.take_one(&oldest);
            }
        }
        self.generations.entry(digest).or_default().push_back(generation);
        self.order.push_back((now, digest));
    }

    /// The generation that the publisher of this event knew, if it has told that it is its own; each mark counts once.
    pub(super) fn take(&mut self, channel: &str, payload: &[u8]) -> Option<i64> {
        if self.generations.is_empty() {
            return None;
        }
        let digest = digest(channel, payload).digest().bytes();
        let generation = self.take_one(&digest)?;
        // Mostly it is the one that came last.
        if let Some(place) = self.order.iter().rposition(|(_, other)| *other == digest) {
            self.order.remove(place);
        }
        Some(generation)
    }

    pub(super) fn clear(&mut self) {
        self.generations.clear();
        self.order.clear();
    }

    fn take_one(&mut self, digest: &Digest) -> Option<i64> {
        let generations = self.generations.get_mut(digest)?;
        let generation = generations.pop_front();
        if generations.is_empty() {
            self.generations.remove(digest);
        }
        generation
    }
}

fn read(mark: &[u8]) -> Option<(Digest, i64)> {
    let (digest, generation) = std::str::from_utf8(mark).ok()?.split_once(' ')?;
    if digest.len() != 40 || !digest.is_ascii() {
        return None;
    }
    let mut bytes = Digest::default();
    for (byte, pair) in bytes.iter_mut().zip(digest.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some((bytes, generation.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_mark_counts_once_and_not_for_long() {
        let mut marks = Marks::default();
        let mark = mark("camera.updated", b"{}", 7);
        marks.note(&mark);
        marks.note(&mark);
        marks.note(b"something else");
        marks.note("ééééééééééééééééééé\u{20ac} 1".as_bytes());
        assert_eq!(marks.take("camera.updated", b"{ }"), None);
        assert_eq!(marks.take("camera.update", b"d{}"), None);
        assert_eq!(marks.take("camera.updated", b"{}"), Some(7));
        tokio::time::advance(KEPT_FOR + Duration::from_millis(1)).await;
        marks.note(&super::mark("x", b"", 1));
        assert_eq!(marks.take("camera.updated", b"{}"), None, "it would hide an equal one of somebody else");
        assert_eq!(marks.take("x", b""), Some(1));
        assert!(marks.order.is_empty() && marks.generations.is_empty());
    }

    #[tokio::test]
    async fn they_are_bounded() {
        let mut marks = Marks::default();
        (0..=MOST).for_each(|number| marks.note(&mark("a", number.to_string().as_bytes(), 1)));
        assert_eq!((marks.order.len(), marks.generations.len()), (MOST, MOST));
        assert_eq!(marks.take("a", b"0"), None);
    }
}
