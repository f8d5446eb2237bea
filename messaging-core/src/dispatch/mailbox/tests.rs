use std::num::NonZeroUsize;

use bytes::Bytes;

use super::*;
use crate::channel::Channel;

fn message(number: u8) -> Received {
    let channel = Channel::new(&format!("c.{}", number % 3)).unwrap();
    Received {
        channel,
        payload: Bytes::from(vec![number; 10]),
        at: std::time::Instant::now(),
        pattern: 0,
        entry: None,
    }
}

fn batch(numbers: impl IntoIterator<Item = u8>) -> Batch {
    numbers.into_iter().map(message).collect()
}

fn mailbox(messages: usize, bytes: usize, overflow: Overflow) -> Mailbox {
    let limit = |limit| NonZeroUsize::new(limit).unwrap();
    Mailbox::for_subscription(Buffer { messages: limit(messages), bytes: limit(bytes) }, overflow)
}

async fn rest(mailbox: &Mailbox) -> Vec<u8> {
    mailbox.close();
    let mut numbers = Vec::new();
    while let Some(entry) = mailbox.pop(0).await {
        match entry {
            Entry::Message(message) => numbers.push(message.payload[0]),
            Entry::Gap(_) => numbers.push(u8::MAX),
        }
    }
    numbers
}

#[test]
fn a_gap_is_unfinished_until_somebody_has_caught_up() {
    let activity = Activity::default();
    let alarm = Alarm::new(activity.clone());
    alarm.raise();
    alarm.raise();
    assert_eq!(activity.unfinished(), 1);
    let due = alarm.take();
    assert_eq!(activity.unfinished(), 1);
    drop(due);
    assert_eq!(activity.unfinished(), 0);
    alarm.raise();
    alarm.end();
    alarm.raise();
    assert_eq!(activity.unfinished(), 0, "nobody catches up any more");
}

#[tokio::test(start_paused = true)]
async fn waiting_holds_the_reader_up_for_one_second_in_all() {
    let mailbox = mailbox(2, 1_000, Overflow::Wait);
    let start = Instant::now();
    mailbox.push(&mut batch(0..2)).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    mailbox.push(&mut batch(2..4)).await;
    assert_eq!(start.elapsed(), PATIENCE);
    // The patience is used up: from now on nothing waits, until the buffer was half empty.
    mailbox.push(&mut batch(4..6)).await;
    assert_eq!(start.elapsed(), PATIENCE);
    assert!(matches!(mailbox.pop(0).await, Some(Entry::Gap(GapCause::Overflow(4)))));
    assert!(matches!(mailbox.pop(0).await, Some(Entry::Message(_))));
    mailbox.push(&mut batch(6..8)).await;
    assert_eq!(start.elapsed(), PATIENCE * 2);
    assert_eq!(rest(&mailbox).await, [u8::MAX, 6, 7]);
    assert_eq!(mailbox.counts(), (8, 5, 2), "two gaps: before and after it was half empty");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_catches_up_in_time_loses_nothing() {
    let mailbox = Arc::new(mailbox(1, 1_000, Overflow::Wait));
    let reader = {
        let mailbox = Arc::clone(&mailbox);
        tokio::spawn(async move { mailbox.push(&mut batch(0..6)).await })
    };
    for _ in 0..6 {
        // Each message waits for less than a second; all of them together for more.
        tokio::time::sleep(PATIENCE * 6 / 10).await;
        assert!(matches!(mailbox.pop(0).await, Some(Entry::Message(_))));
    }
    reader.await.unwrap();
    assert_eq!(mailbox.counts(), (6, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_keeps_working_loses_nothing_however_long_the_flood() {
    let mailbox = Arc::new(mailbox(10, 1_000, Overflow::Wait));
    let reader = {
        let mailbox = Arc::clone(&mailbox);
        tokio::spawn(async move { mailbox.push(&mut batch(0..250)).await })
    };
    // Half a buffer takes it a tenth of the reader's patience, the flood five times the patience.
    for number in 0..250 {
        tokio::time::sleep(PATIENCE / 50).await;
        let entry = mailbox.pop(0).await;
        assert!(
            matches!(&entry, Some(Entry::Message(message)) if message.payload[0] == number),
            "{number}: {entry:?}"
        );
    }
    reader.await.unwrap();
    assert_eq!(mailbox.counts(), (250, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn drops_are_signalled_when_the_consumer_has_caught_up() {
    let signal = Arc::new(Alarm::new(Activity::default()));
    let patterns: Arc<[Pattern]> = [Pattern::parse("c.{key}").unwrap()].into();
    let buffer = Buffer { messages: NonZeroUsize::new(4).unwrap(), ..Buffer::DEFAULT };
    let options = HandlerOptions { buffer, ..HandlerOptions::DEFAULT };
    let gaps = Gaps::Signal(Arc::clone(&signal));
    let mailbox = Mailbox::for_handler("h", &patterns, &options, Activity::default(), gaps);
    for _ in 0..5 {
        mailbox.push(&mut batch(0..20)).await;
    }
    let signalled = || futures_util::FutureExt::now_or_never(signal.raised()).is_some();
    assert_eq!((mailbox.counts().2, signalled()), (1, false));
    mailbox.pop(0).await;
    assert!(!signalled());
    mailbox.pop(0).await;
    assert!(signalled(), "it is half empty");
}

#[tokio::test(start_paused = true)]
async fn a_reader_goes_on_when_the_buffer_is_half_empty() {
    for overflow in [Overflow::Wait, Overflow::Block] {
        let mailbox = Arc::new(mailbox(2, 1_000, overflow));
        mailbox.push(&mut batch(0..2)).await;
        let reader = {
            let mailbox = Arc::clone(&mailbox);
            tokio::spawn(async move { mailbox.push(&mut batch(2..7)).await })
        };
        let mut numbers = Vec::new();
        while numbers.len() < 7 {
            if let Some(Entry::Message(message)) = mailbox.pop(0).await {
                numbers.push(message.payload[0]);
            }
        }
        reader.await.unwrap();
        assert_eq!(numbers, (0..7).collect::<Vec<_>>());
        assert_eq!(mailbox.counts().1, 0, "nothing is dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_lane_leaves_the_rest_of_the_buffer_to_the_others() {
    for overflow in [Overflow::Wait, Overflow::Block] {
        let limit = |limit| NonZeroUsize::new(limit).unwrap();
        let limits = Buffer { messages: limit(10), bytes: limit(10_000) };
        let mailbox = Arc::new(Mailbox::new(2, LaneBy::Channel, limits, overflow, None, Gaps::Count));
        let stuck = mailbox.lane_of(&message(0));
        let other = (1..3).find(|number| mailbox.lane_of(&message(*number)) != stuck).unwrap();
        mailbox.push(&mut std::iter::repeat_n(0, 6).map(message).collect()).await;
        let reader = tokio::spawn({
            let (mailbox, rest) = (Arc::clone(&mailbox), std::iter::repeat_n(other, 5).map(message));
            async move { mailbox.push(&mut rest.collect()).await }
        });
        for _ in 0..5 {
            mailbox.pop(1 - stuck).await;
        }
        assert_eq!(reader.await.unwrap(), Duration::ZERO, "{overflow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_oldest_never_waits_and_is_no_gap() {
    let mailbox = mailbox(3, 1_000, Overflow::DropOldest);
    let start = Instant::now();
    mailbox.push(&mut batch(0..10)).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(rest(&mailbox).await, [7, 8, 9]);
    assert_eq!(mailbox.counts(), (10, 7, 0));
}

#[tokio::test]
async fn bytes_are_bounded_but_one_message_always_fits() {
    let mailbox = mailbox(100, 25, Overflow::DropOldest);
    mailbox.push(&mut batch(0..5)).await;
    assert_eq!(mailbox.waiting(), (2, 20));
    assert_eq!(rest(&mailbox).await, [3, 4]);
    let small = self::mailbox(100, 5, Overflow::Wait);
    assert!(small.try_push(&mut batch(0..1)));
    assert!(!small.try_push(&mut batch(1..2)));
}

#[tokio::test]
async fn a_closed_mailbox_lets_its_reader_go() {
    let mailbox = Arc::new(mailbox(1, 100, Overflow::Block));
    mailbox.push(&mut batch(0..1)).await;
    let reader = {
        let mailbox = Arc::clone(&mailbox);
        tokio::spawn(async move { mailbox.push(&mut batch(1..3)).await })
    };
    tokio::task::yield_now().await;
    mailbox.close();
    reader.await.unwrap();
    assert_eq!(rest(&mailbox).await, [0]);
    assert_eq!(mailbox.clear(), 2, "what came too late is counted");
}

#[tokio::test]
async fn lanes_keep_each_values_order_and_drop_the_oldest_of_all() {
    let patterns: Arc<[Pattern]> = [Pattern::parse("c.{key}").unwrap()].into();
    let options = HandlerOptions {
        workers: NonZeroUsize::new(4).unwrap(),
        ordered_by: Some(OrderedBy::Placeholder("key")),
        buffer: Buffer { messages: NonZeroUsize::new(9).unwrap(), ..Buffer::DEFAULT },
        overflow: Overflow::DropOldest,
        ..HandlerOptions::DEFAULT
    };
    let activity = Activity::default();
    let mailbox = Mailbox::for_handler("h", &patterns, &options, activity.clone(), Gaps::Count);
    mailbox.push(&mut batch(0..12)).await;
    assert_eq!(activity.unfinished(), 9);
    mailbox.close();
    let mut lane_of = [None; 3];
    let mut all = Vec::new();
    for lane in 0..4 {
        while let Some(Entry::Message(message)) = mailbox.pop(lane).await {
            let number = message.payload[0];
            let known = lane_of[usize::from(number % 3)].get_or_insert(lane);
            assert_eq!(*known, lane, "one value, one lane");
            all.push(number);
            mailbox.finished(1);
        }
    }
    for key in 0..3 {
        let of_key: Vec<_> = all.iter().filter(|number| *number % 3 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    all.sort_unstable();
    assert_eq!(all, (3..12).collect::<Vec<_>>());
    assert_eq!(activity.unfinished(), 0);
}

fn of_a_handler(options: &HandlerOptions, activity: &Activity) -> Mailbox {
    Mailbox::for_handler("h", &[].into(), options, activity.clone(), Gaps::Count)
}

fn numbers(hand: &Hand) -> Vec<u8> {
    let number = |queued: &Queued| match &queued.entry {
        Entry::Message(message) => message.payload[0],
        Entry::Gap(_) => u8::MAX,
    };
    hand.iter().map(number).collect()
}

#[tokio::test]
async fn what_a_worker_has_in_its_hand_still_counts_as_waiting() {
    let buffer = Buffer { messages: NonZeroUsize::new(8).unwrap(), ..Buffer::DEFAULT };
    let activity = Activity::default();
    let mailbox = of_a_handler(&HandlerOptions { buffer, ..HandlerOptions::DEFAULT }, &activity);
    let mut more = batch(0..9);
    assert!(!mailbox.try_push(&mut more), "one is too many");
    let mut hand = Hand::new();
    assert!(mailbox.take(0, &mut hand).await);
    assert_eq!(numbers(&hand), [0, 1], "a quarter of the buffer");
    assert_eq!(mailbox.waiting(), (8, 80));
    assert!(!mailbox.try_push(&mut more), "there is no room before the worker has begun with it");
    let Some(Queued { entry: Entry::Message(first), .. }) = hand.pop_front() else { panic!("no message") };
    assert!(mailbox.begins(&first));
    assert!(mailbox.try_push(&mut more));
    assert_eq!(mailbox.waiting(), (8, 80));
    mailbox.finished(1);
    mailbox.not_begun(&mut hand);
    assert_eq!((mailbox.waiting(), activity.unfinished()), ((7, 70), 7));
    assert_eq!(mailbox.clear(), 8, "what was not begun with was not taken");
    assert_eq!(activity.unfinished(), 0);
}

#[tokio::test]
async fn what_a_worker_has_in_its_hand_can_be_thrown_away() {
    let activity = Activity::default();
    let mailbox = of_a_handler(&HandlerOptions::DEFAULT, &activity);
    mailbox.push(&mut batch(0..5)).await;
    let mut hand = Hand::new();
    assert!(mailbox.take(0, &mut hand).await);
    let Some(Queued { entry: Entry::Message(first), .. }) = hand.pop_front() else { panic!("no message") };
    assert!(mailbox.begins(&first));
    mailbox.push(&mut batch(5..7)).await;
    assert_eq!(mailbox.clear(), 6);
    assert_eq!(activity.unfinished(), 1, "the one that the worker has begun with");
    let Some(Queued { entry: Entry::Message(second), .. }) = hand.pop_front() else { panic!("no message") };
    assert!(!mailbox.begins(&second));
    mailbox.not_begun(&mut hand);
    assert_eq!((mailbox.clear(), mailbox.waiting()), (0, (0, 0)), "it has been counted");
    assert_eq!(activity.unfinished(), 1);
}

#[tokio::test]
async fn a_reader_hears_of_the_room_that_a_run_has_made() {
    let limit = |limit| NonZeroUsize::new(limit).unwrap();
    let buffer = Buffer { messages: limit(100), bytes: limit(85) };
    let options = HandlerOptions { buffer, overflow: Overflow::Block, ..HandlerOptions::DEFAULT };
    let mailbox = Arc::new(of_a_handler(&options, &Activity::default()));
    mailbox.push(&mut batch(0..2)).await;
    let mut hand = Hand::new();
    assert!(mailbox.take(0, &mut hand).await);
    assert_eq!(numbers(&hand), [0, 1], "21 bytes at once, and one message always");
    let reader = {
        let mailbox = Arc::clone(&mailbox);
        tokio::spawn(async move { mailbox.push(&mut batch(2..9)).await })
    };
    tokio::task::yield_now().await;
    assert_eq!(mailbox.waiting(), (8, 80));
    for _ in 0..5 {
        while let Some(Queued { entry: Entry::Message(message), .. }) = hand.pop_front() {
            assert!(mailbox.begins(&message));
        }
        if reader.is_finished() {
            break;
        }
        assert!(mailbox.take(0, &mut hand).await);
        tokio::task::yield_now().await;
    }
    reader.await.unwrap();
}

#[tokio::test]
async fn only_a_worker_that_is_alone_takes_runs() {
    let several = HandlerOptions { workers: NonZeroUsize::new(2).unwrap(), ..HandlerOptions::DEFAULT };
    let latest = HandlerOptions { overflow: Overflow::DropOldest, ..HandlerOptions::DEFAULT };
    let queue = HandlerOptions { delivery: DeliveryMode::Queue, ..HandlerOptions::DEFAULT };
    let small = Buffer { messages: NonZeroUsize::new(7).unwrap(), ..Buffer::DEFAULT };
    let small = HandlerOptions { buffer: small, ..HandlerOptions::DEFAULT };
    for (options, run) in [(HandlerOptions::DEFAULT, 5), (several, 1), (latest, 1), (queue, 1), (small, 1)] {
        let mailbox = of_a_handler(&options, &Activity::default());
        mailbox.push(&mut batch(0..5)).await;
        let mut hand = Hand::new();
        assert!(mailbox.take(0, &mut hand).await);
        assert_eq!(hand.len(), run, "{options:?}");
    }
}
