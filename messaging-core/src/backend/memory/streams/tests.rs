use std::num::{NonZeroU16, NonZeroU64};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, advance};

use super::*;
use crate::activity::Activity;
use crate::backend::memory::{Connection, StreamReader};
use crate::backend::streams::{Append, Batch, Notice};
use crate::backend::{Outgoing, Push, Request};
use crate::channel::{Channel, Kind, Pattern, Wire};
use crate::config::Config;
use crate::error::ErrorKind;
use crate::stream::{DeadRecord, Durability, Retention};

const LEASE: Duration = Duration::from_secs(5);
const TEND: Tend = Tend { lease: LEASE, take: 100, exclusive: false, recover: false };
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn memory() -> (Memory, Activity) {
    named(None)
}

fn named(name: Option<&str>) -> (Memory, Activity) {
    let mut config = Config::new("memory://").unwrap();
    config.channel_prefix = "p.".to_owned();
    let activity = Activity::default();
    (Memory::open(name, &config, activity.clone()), activity)
}

fn stream(pattern: &str) -> StreamName {
    StreamName::of(&Pattern::parse(pattern).unwrap(), "p.")
}

fn member(consumer: &str) -> Member {
    Member { group: "g".to_owned(), consumer: consumer.to_owned() }
}

fn append(stream: &StreamName) -> Append {
    Append {
        stream: stream.clone(),
        durability: Durability::DEFAULT,
        event: EventId("e".to_owned().into()),
        kind: None,
        key: None,
        headers: Vec::new(),
    }
}

fn publish_as(memory: &Memory, channel: &str, append: Append) -> u64 {
    let channel = Channel::new(channel).unwrap();
    let payload = Bytes::from_static(b"{}");
    let published = memory.publish(
        &[Outgoing {
            channel,
            payload,
            carrier: Carrier::Broadcast,
            durable: Some(Box::new(append)),
            mark: None,
        }],
        &[],
    );
    published.receivers
}

fn publish(memory: &Memory, stream: &StreamName) {
    publish_as(memory, "c", append(stream));
}

fn done(id: EntryId) -> Settlement {
    Settlement::Done { id, remember: None, retried: false }
}

fn dead(id: EntryId, notice: Option<Notice>) -> Settlement {
    let record =
        DeadRecord { handler: "h".to_owned(), error: "it failed".to_owned(), attempts: 3, failed_at: 9 };
    Settlement::Dead { id, record, notice }
}

/// `name=value` of each field.
fn shown(entry: &RawEntry) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    entry.fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect()
}

/// Which streams, and how many entries of each.
fn counts(batch: &Batch) -> Vec<(usize, usize)> {
    batch.iter().map(|(position, entries)| (*position, entries.len())).collect()
}

fn all(memory: &Memory, stream: &StreamName) -> Vec<RawEntry> {
    memory.range(stream, EntryId::MIN, EntryId::MAX, usize::MAX)
}

async fn read(reader: &mut StreamReader, consumer: &str, stream: &StreamName) -> Vec<EntryId> {
    let streams = [stream.clone()];
    let batch = reader.read_group(&member(consumer), &streams, 100, Duration::ZERO).await.unwrap();
    batch.into_iter().flat_map(|(_, entries)| entries).map(|entry| entry.id).collect()
}

fn subscribed(memory: &Memory, channel: &str) -> Connection {
    let mut connection = memory.connect();
    connection.send(&[Request::Subscribe(Wire { kind: Kind::Channel, name: channel.to_owned() })]).unwrap();
    connection
}

async fn payloads(connection: &mut Connection) -> Vec<Bytes> {
    let mut pushes = Vec::new();
    connection.receive(&mut pushes).await.unwrap();
    let payloads = pushes.into_iter().filter_map(|push| match push {
        Push::Message { payload, .. } => Some(payload),
        _ => None,
    });
    payloads.collect()
}

#[tokio::test(start_paused = true)]
async fn a_durable_message_is_appended_and_delivered_in_one_step() {
    let (memory, _) = memory();
    let stream = stream("orders:{id}");
    let mut subscriber = subscribed(&memory, "p.orders:7");
    let began = memory.now();
    advance(SECOND).await;
    let whole = Append {
        kind: Some("created".to_owned()),
        key: Some("7".to_owned()),
        headers: vec![("traceparent".to_owned(), "00".to_owned()), ("b".to_owned(), "2".to_owned())],
        ..append(&stream)
    };
    assert_eq!(publish_as(&memory, "orders:7", whole), 1);
    publish_as(&memory, "orders:8", append(&stream));
    let entries = all(&memory, &stream);
    let now = began + 1_000;
    assert_eq!(
        shown(&entries[0]),
        [
            "id=e",
            "n=1",
            "channel=p.orders:7",
            &format!("time={now}"),
            "type=created",
            "key=7",
            "traceparent=00",
            "b=2",
            "data={}"
        ]
    );
    assert_eq!(shown(&entries[1]), ["id=e", "n=2", "channel=p.orders:8", &format!("time={now}"), "data={}"]);
    let last = EntryId { millis: now, sequence: 1 };
    assert_eq!((entries[0].id, entries[1].id), (EntryId { millis: now, sequence: 0 }, last));
    assert_eq!(memory.tail(&stream), Tail { id: last, number: 2 });
    assert_eq!(payloads(&mut subscriber).await, ["{}"]);
}

#[tokio::test(start_paused = true)]
async fn publishing_registers_all_partitions_and_goes_to_one() {
    let (memory, _) = memory();
    let stream = stream("orders:{id}");
    let three = Durability::DEFAULT.partitions(NonZeroU16::new(3).unwrap());
    let of =
        |durability, key: Option<&str>| Append { durability, key: key.map(str::to_owned), ..append(&stream) };
    publish_as(&memory, "orders:7", of(three, Some("k")));
    publish_as(&memory, "orders:8", of(three, Some("k")));
    assert_eq!(memory.streams(), StreamInfo::all(&stream, &three));
    let partition = stream.for_key("k", NonZeroU16::new(3).unwrap());
    assert_eq!(all(&memory, &partition).len(), 2);
    publish_as(&memory, "orders:7", of(three, None));
    let by_channel = stream.for_key("p.orders:7", NonZeroU16::new(3).unwrap());
    assert_eq!(shown(all(&memory, &by_channel).last().unwrap())[2], "channel=p.orders:7");
    let shorter = three.retention(Retention { max_age: SECOND, ..Retention::DEFAULT });
    publish_as(&memory, "orders:7", of(shorter, None));
    assert_eq!(memory.streams(), StreamInfo::all(&stream, &shorter), "the latest word counts");
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_what_others_append_to_the_same_bus() {
    let (memory, _) = named(Some("a_reader_waits"));
    let (other, _) = named(Some("a_reader_waits"));
    let streams = [stream("a"), stream("b")];
    for stream in &streams {
        memory.ensure_group(stream, "g", From::Now);
    }
    let began = Instant::now();
    let mut reader = memory.stream_reader();
    let me = member("x");
    let nothing = reader.read_group(&me, &streams, 10, SECOND).await.unwrap();
    assert_eq!((nothing.len(), began.elapsed()), (0, SECOND));
    {
        let mut reading = std::pin::pin!(reader.read_group(&me, &streams, 10, HOUR));
        assert!(reading.as_mut().now_or_never().is_none());
        publish(&other, &stream("elsewhere"));
        assert!(reading.as_mut().now_or_never().is_none());
        publish(&other, &streams[1]);
        assert_eq!(counts(&reading.await.unwrap()), [(1, 1)]);
    }
    assert_eq!(began.elapsed(), SECOND, "nobody waited for a timeout");
    // Whoever gives up has not taken anything.
    assert!(reader.read_group(&me, &streams, 10, HOUR).now_or_never().is_none());
    publish(&other, &streams[0]);
    assert_eq!(read(&mut memory.stream_reader(), "y", &streams[0]).await.len(), 1);
    let held = |consumer| memory.holdings(&streams[0], &member(consumer)).len();
    assert_eq!((held("x"), held("y")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_read_is_of_all_streams_together_and_neglects_none() {
    let (memory, _) = memory();
    let streams = [stream("a"), stream("b")];
    for stream in &streams {
        memory.ensure_group(stream, "g", From::Now);
        for _ in 0..4 {
            publish(&memory, stream);
        }
    }
    let mut reader = memory.stream_reader();
    let mut read = [0, 0];
    let mut first = Vec::new();
    while read != [4, 4] {
        let batch = reader.read_group(&member("x"), &streams, 3, Duration::ZERO).await.unwrap();
        assert!((1..=3).contains(&counts(&batch).iter().map(|(_, count)| count).sum::<usize>()));
        first.push(batch[0].0);
        for (position, entries) in &batch {
            read[*position] += entries.len();
        }
    }
    first.truncate(2);
    first.sort_unstable();
    assert_eq!(first, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_went_takes_its_groups_with_it_and_begins_anew() {
    let (memory, activity) = memory();
    let (stream, other) = (stream("a"), stream("b"));
    memory.ensure_group(&stream, "g", From::Now);
    memory.ensure_group(&other, "g", From::Now);
    let hour =
        Append { durability: Retention { max_age: HOUR, ..Retention::DEFAULT }.into(), ..append(&stream) };
    publish_as(&memory, "c", hour.clone());
    publish(&memory, &other);
    let mut reader = memory.stream_reader();
    let last = read(&mut reader, "x", &stream).await[0];
    advance(HOUR - Duration::from_millis(1)).await;
    assert!(memory.tend(&stream, &member("x"), TEND).is_ok());
    advance(Duration::from_millis(1)).await;
    assert_eq!(memory.tail(&stream), Tail { number: 1, ..Tail::default() }, "its numbers go on");
    assert!(memory.groups(&stream).is_empty() && memory.holdings(&stream, &member("x")).is_empty());
    assert_eq!(activity.unfinished(), 1, "nobody can handle what is gone");
    let both = [other.clone(), stream.clone()];
    let kind = |error: crate::Error| error.kind();
    let missing = reader.read_group(&member("x"), &both, 9, HOUR).await.map_err(kind);
    assert_eq!(missing, Err(ErrorKind::NotFound), "at once");
    assert!(memory.holdings(&other, &member("x")).is_empty(), "nothing is taken of the other stream");
    assert_eq!(memory.tend(&stream, &member("x"), TEND).map_err(kind).err(), Some(ErrorKind::NotFound));
    let exclusive = memory.read_exclusive(&stream, &member("x"), 9).map_err(kind);
    assert_eq!(exclusive, Err(ErrorKind::NotFound));
    // What must not fail does nothing.
    memory.settle(&stream, &member("x"), &[dead(last, None), done(last)]);
    assert_eq!(memory.seen(&stream, "g", &[EventId::default()]), [false]);
    memory.leave(&stream, &member("x"));
    // A stream without its group is missing too; the group begins with what the new stream has.
    publish_as(&memory, "c", hour);
    assert!(reader.read_group(&member("x"), &both, 9, HOUR).await.is_err());
    memory.ensure_group(
        &stream,
        "g",
        From::After(EntryId { millis: last.millis + HOUR.as_millis() as u64 * 2, ..last }),
    );
    assert_eq!(read(&mut reader, "x", &stream).await.len(), 1);
    assert_eq!(shown(&all(&memory, &stream)[0])[1], "n=2");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_consumer_had_is_taken_over_after_its_lease() {
    let (memory, activity) = memory();
    let stream = stream("a");
    memory.ensure_group(&stream, "g", From::Now);
    publish(&memory, &stream);
    memory.tend(&stream, &member("x"), TEND).unwrap();
    let ids = read(&mut memory.stream_reader(), "x", &stream).await;
    advance(LEASE - Duration::from_millis(1)).await;
    assert!(memory.tend(&stream, &member("y"), TEND).unwrap().taken.is_empty());
    advance(Duration::from_millis(1)).await;
    let taken = memory.tend(&stream, &member("y"), TEND).unwrap().taken;
    assert_eq!((taken[0].entry.id, taken[0].takeovers), (ids[0], 1));
    assert!(memory.tend(&stream, &member("x"), TEND).unwrap().lapsed);
    assert_eq!(memory.holdings(&stream, &member("y")), ids);
    memory.settle(&stream, &member("x"), &[Settlement::HandBack { id: ids[0] }]);
    assert_eq!(memory.holdings(&stream, &member("y")), ids, "it is not the first one's any more");
    assert_eq!(activity.unfinished(), 1);
    memory.settle(&stream, &member("x"), &[done(ids[0])]);
    assert_eq!(activity.unfinished(), 0, "but it has handled it");
}

#[tokio::test(start_paused = true)]
async fn a_delay_passes_with_the_clock() {
    let (memory, activity) = memory();
    let stream = stream("a");
    memory.ensure_group(&stream, "g", From::Now);
    publish(&memory, &stream);
    let id = read(&mut memory.stream_reader(), "x", &stream).await[0];
    memory.settle(&stream, &member("x"), &[Settlement::Retry { id, next: 2, delay: SECOND }]);
    assert!(activity.idle().now_or_never().is_none(), "it will be handled yet");
    let early = memory.tend(&stream, &member("x"), TEND).unwrap();
    assert_eq!((early.taken.len(), early.next_due), (0, Some(SECOND)));
    tokio::time::sleep(SECOND).await;
    let taken = memory.tend(&stream, &member("x"), TEND).unwrap().taken;
    assert_eq!((taken[0].entry.id, taken[0].attempt), (id, 2));
    let remember = Some((EventId("e".to_owned().into()), SECOND));
    memory.settle(&stream, &member("x"), &[Settlement::Done { id, remember, retried: true }]);
    activity.idle().now_or_never().unwrap();
    let seen = || memory.seen(&stream, "g", &[EventId("e".to_owned().into())]);
    assert_eq!(seen(), [true]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(seen(), [false]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_announced_and_replayed_for_its_group_alone() {
    let (memory, activity) = memory();
    let stream = stream("a");
    let mut subscriber = subscribed(&memory, "p.dead");
    payloads(&mut subscriber).await;
    memory.ensure_group(&stream, "g", From::Now);
    publish(&memory, &stream);
    let id = read(&mut memory.stream_reader(), "x", &stream).await[0];
    let notice = Notice { channel: "p.dead".to_owned(), payload: Bytes::from_static(b"gone") };
    memory.settle(&stream, &member("x"), &[dead(id, Some(notice.clone())), dead(id, Some(notice.clone()))]);
    assert_eq!(activity.unfinished(), 1, "the notice, once");
    assert_eq!(payloads(&mut subscriber).await, ["gone"]);
    subscriber.delivered(1);
    assert!(memory.holdings(&stream, &member("x")).is_empty());
    let letters = memory.dead(&stream, "g", EntryId::MIN, 9);
    let original = shown(&all(&memory, &stream)[0]);
    let about = [
        format!("dead.entry={id}"),
        "dead.group=g".to_owned(),
        "dead.handler=h".to_owned(),
        "dead.error=it failed".to_owned(),
        "dead.attempts=3".to_owned(),
        "dead.at=9".to_owned(),
    ];
    assert_eq!(shown(&letters[0]), [&original[..], &about].concat());
    assert!(memory.dead(&stream, "g", letters[0].id, 9).is_empty());

    assert!(!memory.replay(&stream, "another", letters[0].id));
    let mut reader = memory.stream_reader();
    let streams = [stream.clone()];
    let me = member("x");
    let mut reading = std::pin::pin!(reader.read_group(&me, &streams, 9, HOUR));
    assert!(reading.as_mut().now_or_never().is_none());
    assert!(memory.replay(&stream, "g", letters[0].id));
    assert!(!memory.replay(&stream, "g", letters[0].id), "it is a dead letter no more");
    assert_eq!(activity.unfinished(), 1);
    let again = reading.await.unwrap().remove(0).1.remove(0);
    let mut expected = original.clone();
    expected[1] = "n=2".to_owned();
    expected.push("only=g".to_owned());
    assert_eq!(shown(&again), expected);

    // Once more, without what the first replay added; and the third time it is removed.
    memory.settle(&stream, &me, &[dead(again.id, None)]);
    let letter = memory.dead(&stream, "g", EntryId::MIN, 9)[0].id;
    assert!(memory.replay(&stream, "g", letter));
    expected[1] = "n=3".to_owned();
    assert_eq!(shown(&all(&memory, &stream)[2]), expected);
    let id = read(&mut memory.stream_reader(), "x", &stream).await[0];
    memory.settle(&stream, &me, &[dead(id, None)]);
    let letter = memory.dead(&stream, "g", EntryId::MIN, 9)[0].id;
    assert_eq!(memory.purge(&stream, "g", &[letter, letter, id.next()]), 1);
    assert!(memory.dead(&stream, "g", EntryId::MIN, 9).is_empty());
}

#[tokio::test(start_paused = true)]
async fn dead_letters_outlive_their_stream() {
    let (memory, _) = memory();
    let stream = stream("a");
    memory.ensure_group(&stream, "g", From::Now);
    publish(&memory, &stream);
    publish(&memory, &stream);
    let ids = read(&mut memory.stream_reader(), "x", &stream).await;
    memory.settle(&stream, &member("x"), &[dead(ids[0], None), dead(ids[1], None)]);
    advance(HOUR * 24).await;
    assert_eq!(memory.tail(&stream), Tail { number: 2, ..Tail::default() });
    let letters = memory.dead(&stream, "g", EntryId::MIN, 9);
    assert!(memory.replay(&stream, "g", letters[0].id));
    assert_eq!(shown(&all(&memory, &stream)[0])[1], "n=3", "in a stream made anew");
    advance(HOUR * 24).await;
    assert!(all(&memory, &stream).is_empty(), "which is kept as long as others");
    assert_eq!(memory.dead(&stream, "g", EntryId::MIN, 9), letters[1..]);
    advance(HOUR * 24 * 12).await;
    assert!(memory.dead(&stream, "g", EntryId::MIN, 9).is_empty());
}

#[tokio::test(start_paused = true)]
async fn partitions_are_shared_by_those_who_live() {
    let (memory, _) = memory();
    let stream = stream("a");
    let join = |partition, consumer| memory.join(&stream.with_partition(partition), &member(consumer), LEASE);
    assert_eq!((join(0, "x"), join(1, "y"), join(2, "x")), (1, 2, 2));
    advance(LEASE / 2).await;
    assert_eq!(join(0, "x"), 2);
    advance(LEASE / 2).await;
    assert_eq!(join(0, "z"), 2, "the second is gone");
    memory.withdraw(&stream.with_partition(1), &member("x"));
    assert_eq!(join(0, "z"), 1);
    let elsewhere = Member { group: "another".to_owned(), ..member("x") };
    assert_eq!(memory.join(&stream, &elsewhere, LEASE), 1);
}

#[tokio::test(start_paused = true)]
async fn what_live_readers_will_handle_counts_as_unfinished() {
    let (memory, activity) = named(Some("what_live_readers"));
    let (other, others) = named(Some("what_live_readers"));
    let stream = stream("a");
    let unfinished = || (activity.unfinished(), others.unfinished());
    publish(&memory, &stream);
    assert_eq!(unfinished(), (0, 0), "nobody knows the stream");
    memory.ensure_group(&stream, "g", From::Beginning);
    assert_eq!(unfinished(), (1, 0));
    other.tend(&stream, &member("y"), TEND).unwrap();
    publish(&memory, &stream);
    assert_eq!(unfinished(), (2, 2), "each waits for what the group does");
    let ids = read(&mut memory.stream_reader(), "x", &stream).await;
    memory.settle(&stream, &member("x"), &[done(ids[0])]);
    assert_eq!(unfinished(), (1, 1));
    memory.leave(&stream, &member("x"));
    assert_eq!(unfinished(), (0, 1), "who left does not wait");
    drop(other);
    assert_eq!(unfinished(), (0, 0));
    drop(memory);
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_without_a_group_has_not_put_elsewhere_counts_as_unfinished() {
    let (memory, activity) = memory();
    let streams = [(stream("a"), EntryId::MIN), (stream("b"), EntryId::MIN)];
    publish(&memory, &streams[0].0);
    publish(&memory, &streams[0].0);
    assert_eq!(activity.unfinished(), 0, "nobody reads it");
    let mut reader = memory.stream_reader();
    let batch = reader.read_after(&streams, 1, HOUR).await.unwrap();
    assert_eq!((counts(&batch), activity.unfinished()), (vec![(0, 1)], 1));
    let mut after = streams.clone();
    after[0].1 = batch[0].1[0].id;
    let batch = reader.read_after(&after, 1, HOUR).await.unwrap();
    assert_eq!((counts(&batch), activity.unfinished()), (vec![(0, 1)], 1));
    after[0].1 = batch[0].1[0].id;
    {
        let mut reading = std::pin::pin!(reader.read_after(&after, 9, HOUR));
        assert!(reading.as_mut().now_or_never().is_none());
        assert_eq!(activity.unfinished(), 0, "it has come back for more");
        publish(&memory, &stream("elsewhere"));
        assert_eq!(activity.unfinished(), 0);
        publish(&memory, &streams[1].0);
        assert_eq!(activity.unfinished(), 1, "before it has been woken");
        assert_eq!(counts(&reading.await.unwrap()), [(1, 1)]);
    }
    assert_eq!(activity.unfinished(), 1);
    drop(reader);
    assert_eq!(activity.unfinished(), 0);
    publish(&memory, &streams[1].0);
    assert_eq!(activity.unfinished(), 0);
}

#[tokio::test(start_paused = true)]
async fn groups_are_shown_as_they_are() {
    let (memory, _) = memory();
    let stream = stream("a");
    assert!(memory.groups(&stream).is_empty());
    memory.ensure_group(&stream, "g", From::Now);
    publish(&memory, &stream);
    publish(&memory, &stream);
    let ids = read(&mut memory.stream_reader(), "x", &stream).await;
    publish(&memory, &stream);
    memory.ensure_group(&stream, "g", From::Now);
    memory.ensure_group(&stream, "late", From::Now);
    memory.tend(&stream, &member("x"), TEND).unwrap();
    memory.settle(&stream, &member("x"), &[Settlement::Retry { id: ids[0], next: 2, delay: SECOND }]);
    let state = |group: &str, pending, delayed, unread, alive| GroupState {
        group: group.to_owned(),
        pending,
        delayed,
        unread,
        alive,
    };
    assert_eq!(memory.groups(&stream), [state("g", 1, 1, 1, 1), state("late", 0, 0, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn ranges_of_a_stream_are_bounded() {
    let (memory, _) = memory();
    let stream = stream("a");
    let two = Append {
        durability: Retention { max_len: NonZeroU64::new(2).unwrap(), ..Retention::DEFAULT }.into(),
        ..append(&stream)
    };
    for _ in 0..3 {
        publish_as(&memory, "c", two.clone());
    }
    let ids: Vec<_> = all(&memory, &stream).iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(memory.range(&stream, ids[1], EntryId::MAX, 9).len(), 1);
    assert_eq!(memory.range(&stream, EntryId::MIN, EntryId::MAX, 1)[0].id, ids[0]);
    assert!(memory.range(&stream, EntryId::MAX, EntryId::MIN, 9).is_empty());
    assert_eq!(memory.tail(&stream).number, 3);
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_stream_is_read_by_its_owner_alone() {
    let (memory, activity) = memory();
    let stream = stream("a");
    memory.ensure_group(&stream, "g", From::Now);
    for _ in 0..3 {
        publish(&memory, &stream);
    }
    let exclusive = Tend { exclusive: true, ..TEND };
    let read = |consumer, most| memory.read_exclusive(&stream, &member(consumer), most).unwrap().len();
    assert_eq!(read("x", 9), 0, "it is nobody's");
    assert!(memory.tend(&stream, &member("x"), exclusive).unwrap().ours);
    assert!(!memory.tend(&stream, &member("y"), exclusive).unwrap().ours);
    assert_eq!((read("y", 9), read("x", 2)), (0, 2));
    advance(LEASE).await;
    assert_eq!(read("x", 9), 0, "its lease has run out");
    let tended = memory.tend(&stream, &member("y"), exclusive).unwrap();
    assert_eq!((tended.taken.len(), read("y", 9), activity.unfinished()), (2, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn who_watches_hears_of_streams_that_come_up() {
    let (memory, activity) = named(Some("who_watches"));
    let (other, _) = named(Some("who_watches"));
    let watch = memory.watch_streams();
    assert!(watch.changed().now_or_never().is_none() && watch.take().is_none());
    publish(&other, &stream("a"));
    watch.changed().now_or_never().unwrap();
    watch.changed().now_or_never().unwrap();
    assert_eq!(activity.unfinished(), 1, "nobody has looked");
    let news = watch.take();
    assert!(watch.changed().now_or_never().is_none());
    publish(&other, &stream("a"));
    other.register(&StreamInfo::all(&stream("a"), &Durability::DEFAULT));
    assert!(watch.take().is_none(), "it is known");
    // Until whoever looks has made the group, which counts from then on.
    memory.ensure_group(&stream("a"), "g", From::Beginning);
    drop(news);
    assert_eq!(activity.unfinished(), 2);
    {
        let mut waiting = std::pin::pin!(watch.changed());
        assert!(waiting.as_mut().now_or_never().is_none());
        other.register(&StreamInfo::all(&stream("b"), &Durability::DEFAULT));
        waiting.await;
    }
    assert_eq!(activity.unfinished(), 3);
    drop(watch);
    assert_eq!(activity.unfinished(), 2);
}
