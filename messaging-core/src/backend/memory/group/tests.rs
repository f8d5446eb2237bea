use std::num::NonZeroU64;

use proptest::prelude::*;

use super::*;
use crate::activity::Activity;
use crate::stream::{DeadRecord, Retention};

const LEASE: Duration = Duration::from_millis(100);
const EVENT: &str = "event";

/// A group that has a stream to itself. The first entry is appended in the first millisecond, and so on.
struct Scene {
    log: Log,
    group: Group,
}

impl Scene {
    fn of(entries: u64) -> Self {
        let group = Group::new(&Log::default(), From::Beginning);
        let mut scene = Self { log: Log::default(), group };
        scene.append(1..=entries, Retention::DEFAULT);
        scene
    }

    /// All entries have been read by this consumer, who shows life at 0.
    fn read_by(consumer: &str, entries: u64) -> Self {
        let mut scene = Self::of(entries);
        scene.tend(consumer, 0);
        assert_eq!(scene.read(consumer, usize::MAX).len() as u64, entries);
        scene
    }

    fn append(&mut self, times: impl IntoIterator<Item = u64>, retention: Retention) {
        for now in times {
            let fields = vec![("data".into(), now.to_string().into())];
            let (id, removed) = self.log.append(fields, retention, now);
            self.group.note_appended(id, &removed);
        }
    }

    /// Appends one entry more, for which all others are removed.
    fn trim(&mut self, now: u64) {
        self.append([now], Retention { max_len: NonZeroU64::MIN, ..Retention::DEFAULT });
    }

    fn read(&mut self, consumer: &str, most: usize) -> Vec<u64> {
        self.group.read(&self.log, consumer, most).iter().map(|entry| entry.id.millis).collect()
    }

    fn tend(&mut self, consumer: &str, now: u64) -> Tended {
        self.tend_with(consumer, now, Tend { lease: LEASE, take: 100, exclusive: false, recover: false })
    }

    fn own(&mut self, consumer: &str, now: u64) -> Tended {
        self.tend_with(consumer, now, Tend { lease: LEASE, take: 100, exclusive: true, recover: false })
    }

    fn tend_with(&mut self, consumer: &str, now: u64, tend: Tend) -> Tended {
        self.group.tend(&self.log, &consumer.to_owned(), tend, now)
    }

    fn settle(&mut self, consumer: &str, settlement: Settlement, now: u64) -> Option<RawEntry> {
        let dead = self.group.settle(&self.log, consumer, &settlement, now);
        self.group.count();
        dead
    }

    fn held_by(&self, consumer: &str) -> Vec<u64> {
        self.group.held_by(consumer).map(|id| id.millis).collect()
    }

    /// Pending, delayed, unread, alive.
    fn state(&self, now: u64) -> [u64; 4] {
        let state = self.group.state("g", now);
        [state.pending, state.delayed, state.unread, state.alive]
    }
}

fn id(millis: u64) -> EntryId {
    EntryId { millis, sequence: 0 }
}

fn done(id: EntryId) -> Settlement {
    Settlement::Done { id, remember: None, retried: false }
}

fn retry(id: EntryId, next: u32, delay: u64) -> Settlement {
    Settlement::Retry { id, next, delay: Duration::from_millis(delay) }
}

fn note(id: EntryId, next: u32, delay: u64) -> Settlement {
    Settlement::Note { id, next, delay: Duration::from_millis(delay) }
}

fn hand_back(id: EntryId) -> Settlement {
    Settlement::HandBack { id }
}

fn dead(id: EntryId) -> Settlement {
    let record = DeadRecord { handler: "h".to_owned(), error: "e".to_owned(), attempts: 3, failed_at: 7 };
    Settlement::Dead { id, record, notice: None }
}

/// Entry, attempt, takeovers, milliseconds to wait.
fn taken(tended: &Tended) -> Vec<(u64, u32, u32, u128)> {
    let parts =
        |taken: &Taken| (taken.entry.id.millis, taken.attempt, taken.takeovers, taken.wait.as_millis());
    tended.taken.iter().map(parts).collect()
}

fn next_due(tended: &Tended) -> Option<u128> {
    tended.next_due.map(|due| due.as_millis())
}

#[test]
fn a_group_begins_where_it_is_told_to() {
    for (from, expected) in [
        (From::Beginning, &[1, 2, 3, 4][..]),
        (From::Now, &[4]),
        (From::Time(0), &[1, 2, 3, 4]),
        (From::Time(2), &[2, 3, 4]),
        (From::Time(4), &[4]),
        (From::Time(5), &[]),
        (From::After(id(1)), &[2, 3, 4]),
        (From::After(id(3)), &[4]),
        (From::After(id(9)), &[1, 2, 3, 4]),
    ] {
        let mut scene = Scene::of(3);
        scene.group = Group::new(&scene.log, from);
        scene.append([4], Retention::DEFAULT);
        assert_eq!(scene.state(0)[2], expected.len() as u64, "{from:?}");
        assert_eq!(scene.read("a", 10), expected, "{from:?}");
        assert_eq!(scene.state(0)[2], 0, "{from:?}");
    }
}

#[test]
fn each_entry_is_handed_out_once() {
    let mut scene = Scene::of(3);
    assert_eq!(scene.read("a", 2), [1, 2]);
    assert_eq!(scene.read("b", 2), [3]);
    assert!(scene.read("a", 2).is_empty());
    assert_eq!((scene.held_by("a"), scene.held_by("b")), (vec![1, 2], vec![3]));
    assert_eq!(scene.state(0), [3, 0, 0, 0]);
}

#[test]
fn what_the_dead_have_is_taken_over_after_their_lease_and_not_before() {
    let mut scene = Scene::read_by("a", 2);
    assert_eq!(taken(&scene.tend("b", 99)), [], "its lease ends at 100");
    assert_eq!(taken(&scene.tend("b", 100)), [(1, 1, 1, 0), (2, 1, 1, 0)]);
    assert_eq!((scene.held_by("a"), scene.held_by("b")), (vec![], vec![1, 2]));
    assert_eq!(taken(&scene.tend("b", 150)), [], "it has them already");
    assert_eq!(taken(&scene.tend("a", 299)), [(1, 1, 2, 0), (2, 1, 2, 0)], "once more");
}

#[test]
fn who_has_never_shown_life_does_not_live() {
    let mut scene = Scene::of(1);
    scene.read("a", 1);
    assert_eq!(taken(&scene.tend("b", 0)), [(1, 1, 1, 0)]);
}

#[test]
fn a_consumer_is_told_that_its_lease_had_run_out() {
    let mut scene = Scene::read_by("a", 1);
    assert!(!scene.tend("a", 99).lapsed);
    assert!(scene.tend("a", 199).lapsed);
    assert!(!scene.tend("a", 200).lapsed);
    // Others remove it.
    assert!(!scene.tend("b", 300).lapsed, "it is new");
    assert_eq!(scene.state(300), [1, 0, 0, 1]);
    assert!(scene.tend("a", 301).lapsed);
    // It leaves with nothing.
    scene.group.leave(&"a".to_owned());
    assert!(!scene.tend("a", 302).lapsed);
    // It leaves with something.
    scene.group.leave(&"b".to_owned());
    assert_eq!(taken(&scene.tend("a", 303)), [(1, 1, 2, 0)], "who left does not live");
    scene.group.leave(&"a".to_owned());
    assert!(scene.tend("a", 304).lapsed, "others may have taken it");
}

#[test]
fn a_retry_is_due_after_its_delay_wherever() {
    let mut scene = Scene::read_by("a", 3);
    scene.settle("a", retry(id(1), 2, 50), 10);
    scene.settle("a", retry(id(2), 3, 20), 10);
    assert_eq!((scene.held_by("a"), scene.state(10)), (vec![3], [1, 2, 0, 1]));
    let tended = scene.tend("b", 29);
    assert_eq!((taken(&tended), next_due(&tended)), (vec![], Some(1)));
    let tended = scene.tend("b", 30);
    assert_eq!((taken(&tended), next_due(&tended)), (vec![(2, 3, 0, 0)], Some(30)));
    let tended = scene.tend("a", 75);
    assert_eq!((taken(&tended), next_due(&tended)), (vec![(1, 2, 0, 0)], None));
    // The number of the attempt outlives its consumer.
    assert_eq!(taken(&scene.tend("c", 175)), [(1, 2, 1, 0), (2, 3, 1, 0), (3, 1, 1, 0)]);
    scene.settle("c", done(id(1)), 176);
    scene.settle("c", hand_back(id(2)), 176);
    assert_eq!(taken(&scene.tend("c", 177)), [(2, 3, 0, 0)], "handed back, it is no consumer's end");
}

#[test]
fn no_more_is_taken_than_was_asked_for() {
    let mut scene = Scene::read_by("a", 4);
    scene.settle("a", hand_back(id(4)), 1);
    let tend = |take| Tend { lease: LEASE, take, exclusive: false, recover: false };
    let tended = scene.tend_with("b", 200, tend(0));
    assert_eq!(
        (taken(&tended), tended.more, next_due(&tended)),
        (vec![], true, Some(0)),
        "it only shows life"
    );
    assert_eq!(scene.state(200), [3, 1, 0, 1]);
    let tended = scene.tend_with("b", 200, tend(2));
    assert_eq!(
        (taken(&tended), tended.more),
        (vec![(1, 1, 1, 0), (4, 1, 0, 0)], true),
        "what is due goes first"
    );
    let tended = scene.tend_with("b", 200, tend(2));
    assert_eq!((taken(&tended), tended.more), (vec![(2, 1, 1, 0), (3, 1, 1, 0)], false));
}

#[test]
fn what_is_its_own_is_told_again_if_an_answer_may_have_been_lost() {
    let mut scene = Scene::read_by("a", 3);
    scene.tend("b", 99);
    scene.settle("a", done(id(1)), 99);
    scene.settle("a", note(id(2), 2, 50), 99);
    let recover = |take, exclusive| Tend { lease: LEASE, take, exclusive, recover: true };
    let own = scene.tend_with("a", 99, recover(0, false));
    assert_eq!(
        (taken(&own), own.more),
        (vec![(2, 2, 0, 50), (3, 1, 0, 0)], false),
        "whatever there is room for"
    );
    scene.trim(100);
    let own = scene.tend_with("a", 100, recover(9, false));
    assert_eq!((taken(&own), own.lost, scene.held_by("a")), (vec![], 2, vec![]));
    assert_eq!(scene.read("a", 9), [100]);
    assert_eq!(taken(&scene.tend_with("b", 200, recover(9, false))), [(100, 1, 1, 0)]);
    assert_eq!(taken(&scene.tend_with("b", 201, recover(9, true))), [(100, 1, 1, 0)], "that is no takeover");
    assert_eq!(taken(&scene.tend_with("a", 202, recover(9, true))), [], "it is not its own any more");
}

#[test]
fn an_exclusive_stream_has_one_owner_and_goes_to_the_next_in_order() {
    let mut scene = Scene::of(5);
    assert!(scene.own("a", 0).ours);
    assert_eq!(scene.read("a", 3), [1, 2, 3]);
    let tended = scene.own("b", 50);
    assert!(!tended.ours && tended.taken.is_empty());
    assert_eq!(scene.state(50)[3], 2, "it waits, and shows that it lives");
    assert!(scene.own("a", 60).ours);
    assert!(!scene.own("b", 159).ours);
    scene.settle("a", hand_back(id(1)), 159);
    scene.settle("a", hand_back(id(3)), 159);
    // Its lease runs out, and everything goes to the next, oldest first, however it was left.
    let two = Tend { lease: LEASE, take: 2, exclusive: true, recover: false };
    let tended = scene.tend_with("b", 160, two);
    assert_eq!((tended.ours, tended.lapsed, tended.more), (true, false, true));
    assert_eq!(taken(&tended), [(1, 1, 0, 0), (2, 1, 1, 0)]);
    let tended = scene.tend_with("b", 161, two);
    assert_eq!((taken(&tended), tended.more), (vec![(3, 1, 0, 0)], false));
    let tended = scene.own("a", 161);
    assert_eq!((tended.ours, tended.lapsed), (false, true));
}

#[test]
fn what_a_living_owner_left_behind_goes_to_the_next_too() {
    let mut scene = Scene::of(2);
    scene.own("a", 0);
    scene.read("a", 2);
    scene.group.leave(&"a".to_owned());
    // As when it shows life again before anyone has taken what it had.
    scene.tend("a", 1);
    assert_eq!(taken(&scene.own("b", 2)), [(1, 1, 1, 0), (2, 1, 1, 0)]);
    assert!(!scene.own("a", 3).ours);
    scene.group.leave(&"b".to_owned());
    assert!(scene.own("a", 3).ours);
}

#[test]
fn a_note_leaves_an_entry_with_its_consumer() {
    let mut scene = Scene::read_by("a", 1);
    assert_eq!(taken(&scene.own("b", 100)), [(1, 1, 1, 0)]);
    scene.settle("b", note(id(1), 2, 500), 110);
    assert_eq!(scene.held_by("b"), [1]);
    assert_eq!(taken(&scene.own("c", 210)), [(1, 2, 1, 400)], "takeovers count from the last attempt on");
    scene.settle("c", hand_back(id(1)), 220);
    assert_eq!(taken(&scene.own("c", 230)), [(1, 2, 0, 380)], "the note stays");
    assert_eq!(taken(&scene.own("d", 700)), [(1, 2, 1, 0)]);
}

#[test]
fn what_is_not_ours_is_only_ever_marked_as_done() {
    let mut scene = Scene::read_by("a", 2);
    for settlement in [retry(id(1), 2, 0), note(id(1), 2, 900), hand_back(id(1)), dead(id(1))] {
        assert!(scene.settle("b", settlement, 1).is_none());
    }
    assert_eq!((scene.state(1), scene.held_by("a")), ([2, 0, 0, 1], vec![1, 2]));
    assert_eq!(taken(&scene.tend("b", 100)), [(1, 1, 1, 0), (2, 1, 1, 0)], "there is no note of it");
    scene.settle("a", done(id(1)), 101);
    scene.settle("b", retry(id(2), 2, 10), 101);
    scene.settle("a", done(id(2)), 102);
    assert_eq!(scene.state(102), [0, 0, 0, 1]);
}

#[test]
fn a_dead_letter_leaves_nothing_in_its_group() {
    let mut scene = Scene::read_by("a", 1);
    scene.settle("a", note(id(1), 3, 0), 1);
    assert_eq!(scene.settle("a", dead(id(1)), 2).map(|entry| entry.id), Some(id(1)));
    assert_eq!(scene.state(2), [0, 0, 0, 1]);
    assert!(scene.settle("a", dead(id(1)), 3).is_none(), "once");
}

#[test]
fn entries_whose_body_was_trimmed_are_settled_and_counted() {
    let mut scene = Scene::read_by("a", 4);
    scene.append([5], Retention::DEFAULT);
    scene.settle("a", retry(id(1), 2, 0), 6);
    scene.trim(7);
    assert_eq!(scene.state(7), [3, 1, 1, 1], "nobody had read the fifth, and nobody will");
    assert!(scene.settle("a", dead(id(2)), 8).is_none());
    scene.settle("a", done(id(3)), 8);
    let tended = scene.tend("b", 200);
    assert_eq!((taken(&tended), tended.lost, scene.state(200)), (vec![], 2, [0, 0, 1, 1]));
    assert_eq!(scene.read("b", 9), [7]);
}

#[test]
fn handled_events_are_remembered_for_their_time() {
    let mut scene = Scene::read_by("a", 2);
    let event = |text: &str| EventId(text.to_owned().into());
    let remember = |millis, text| {
        let remember = Some((event(text), Duration::from_millis(50)));
        Settlement::Done { id: id(millis), remember, retried: false }
    };
    let events = [event(EVENT), event("another")];
    scene.settle("a", remember(1, EVENT), 10);
    assert_eq!(scene.group.seen(&events, 59), [true, false]);
    assert_eq!(scene.group.seen(&events, 60), [false, false]);
    scene.settle("a", remember(2, "another"), 60);
    assert_eq!(scene.group.remembered.len(), 1, "what is over is dropped");
    assert_eq!(scene.group.seen(&events, 61), [false, true]);
}

#[test]
fn the_dead_are_removed_once_they_have_nothing() {
    let mut scene = Scene::read_by("a", 1);
    scene.tend("b", 50);
    assert_eq!((scene.state(99)[3], scene.state(100)[3], scene.state(150)[3]), (2, 1, 0));
    scene.tend_with("c", 100, Tend { lease: LEASE, take: 0, exclusive: false, recover: false });
    assert_eq!(scene.group.alive.len(), 3, "the first still has something");
    scene.tend("c", 150);
    assert_eq!(scene.group.alive.len(), 1);
}

#[test]
fn everything_that_will_be_handled_counts_as_unfinished() {
    let mut scene = Scene::of(4);
    let activity = Activity::default();
    scene.group.unfinished.attach(&activity);
    assert_eq!(activity.unfinished(), 4, "what was there before counts");
    scene.append([5, 6, 7], Retention::DEFAULT);
    scene.tend("a", 8);
    scene.read("a", 6);
    for settlement in [retry(id(1), 2, 0), note(id(2), 2, 0), hand_back(id(3))] {
        scene.settle("a", settlement, 8);
    }
    assert_eq!(activity.unfinished(), 7);
    scene.settle("a", done(id(4)), 8);
    scene.settle("a", dead(id(5)), 8);
    assert_eq!(activity.unfinished(), 5);
    scene.trim(9);
    assert_eq!(activity.unfinished(), 5, "one came, and one is gone unread");
    assert_eq!(scene.tend("a", 10).lost, 2);
    assert_eq!(activity.unfinished(), 3);
    scene.settle("a", done(id(2)), 11);
    scene.settle("a", done(id(6)), 11);
    scene.read("a", 1);
    scene.settle("a", done(id(9)), 11);
    assert_eq!(activity.unfinished(), 0);
    scene.append([12], Retention::DEFAULT);
    assert_eq!(activity.unfinished(), 1);
    drop(scene);
    assert_eq!(activity.unfinished(), 0, "what is gone is not waited for");
}

/// What may happen to a group: by which of three consumers, to which entry.
#[derive(Clone, Debug)]
enum Step {
    Append,
    Trim,
    Wait(u64),
    Read(usize, usize),
    Tend(usize, usize),
    Leave(usize),
    Settle(usize, usize, usize),
}

const CONSUMERS: [&str; 3] = ["a", "b", "c"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Append),
        1 => Just(Step::Trim),
        2 => (0..120_u64).prop_map(Step::Wait),
        3 => (0..3_usize, 0..4_usize).prop_map(|(who, most)| Step::Read(who, most)),
        3 => (0..3_usize, 0..4_usize).prop_map(|(who, take)| Step::Tend(who, take)),
        1 => (0..3_usize).prop_map(Step::Leave),
        8 => (0..3_usize, 0..12_usize, 0..5_usize).prop_map(|(who, which, how)| Step::Settle(who, which, how)),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn every_entry_is_in_one_place_until_it_is_settled(exclusive: bool, steps in steps()) {
        let (mut scene, activity, mut now) = (Scene::of(0), Activity::default(), 1);
        let mut settled = HashSet::new();
        scene.group.unfinished.attach(&activity);
        for step in steps {
            let ids: Vec<_> = scene.log.after(EntryId::MIN).map(|entry| entry.id).collect();
            match step {
                Step::Append => scene.append([now], Retention::DEFAULT),
                Step::Trim => scene.trim(now),
                Step::Wait(millis) => now += millis,
                Step::Read(who, most) => _ = scene.group.read(&scene.log, CONSUMERS[who], most),
                Step::Tend(who, take) => {
                    let tend = Tend { lease: LEASE, take, exclusive, recover: false };
                    let tended = scene.tend_with(CONSUMERS[who], now, tend);
                    prop_assert!(tended.taken.len() + tended.lost <= take);
                    let held: Vec<_> = scene.group.held_by(CONSUMERS[who]).collect();
                    prop_assert!(tended.taken.iter().all(|taken| held.contains(&taken.entry.id)));
                }
                Step::Leave(who) => scene.group.leave(&CONSUMERS[who].to_owned()),
                Step::Settle(who, which, how) => {
                    // Only what has been handed out can be settled.
                    let handed_out = ids.partition_point(|id| *id <= scene.group.read);
                    let Some(which) = which.checked_rem(handed_out) else { continue };
                    let id = ids[which];
                    let how = [done(id), retry(id, 2, 40), note(id, 2, 40), hand_back(id), dead(id)][how].clone();
                    let is_done = matches!(how, Settlement::Done { .. });
                    let given_up = scene.settle(CONSUMERS[who], how, now).is_some();
                    if is_done || given_up {
                        settled.insert(id);
                    }
                }
            }
            let Group { pending, delayed, read, unread, .. } = &scene.group;
            prop_assert_eq!(*unread, scene.log.count_after(*read));
            prop_assert_eq!(activity.unfinished(), unread + pending.len() + delayed.len());
            for entry in scene.log.after(EntryId::MIN).filter(|entry| entry.id <= *read) {
                let waits = delayed.due(u64::MAX).any(|id| *id == entry.id);
                let places = [settled.contains(&entry.id), pending.contains_key(&entry.id), waits];
                prop_assert_eq!(places.iter().filter(|place| **place).count(), 1, "{:?}", places);
            }
        }
        // Whoever is left gets all that is left.
        now += 1_000;
        scene.group.read(&scene.log, "last", usize::MAX);
        let two = Tend { lease: LEASE, take: 2, exclusive, recover: false };
        while scene.tend_with("last", now, two).more {}
        let left: Vec<_> = scene.log.after(EntryId::MIN).map(|entry| entry.id).collect();
        let held: HashSet<_> = scene.group.held_by("last").collect();
        prop_assert!(left.iter().all(|id| held.contains(id) != settled.contains(id)));
        prop_assert_eq!(activity.unfinished(), held.len());
    }
}
