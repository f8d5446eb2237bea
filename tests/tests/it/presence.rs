//! Who is there: joining, leaving, and being told of it, in one process and between several.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt};
use messaging_core::{ErrorKind, Messaging, Presence, PresenceChange, PresenceChanges, channel};
use messaging_tests::{eventually, shared_redis};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::place::{PATIENCE, Place, on_each_backend, soon};

on_each_backend! {
    who_joins_is_a_member_until_he_leaves
    a_meta_is_a_type
    dropping_a_membership_leaves
    a_membership_is_dropped_anywhere
    a_join_that_is_given_up_is_left_again
    a_user_with_several_joins_is_one_member
    ids_are_given_and_given_again
    one_id_is_joined_once
    who_joins_again_while_he_leaves_stays
    changes_come_in_order
    changes_begin_with_who_is_there
    a_watcher_begins_where_it_has_read
    changes_are_a_stream
    a_member_stays_for_longer_than_its_time
    two_processes_see_each_other
    many_joins_at_once
    a_process_that_shuts_down_has_left
    a_messaging_that_is_dropped_has_left
    a_runtime_that_ends_takes_its_members_with_it
    channels_and_deployments_are_apart
    globs_do_not_hear_of_presence
    hostile_metas_and_names
    what_is_too_large_is_refused
    after_shutting_down_nobody_joins
    an_invalid_channel_is_refused_when_it_is_used
}

/// The users of a channel.
async fn users(room: &Presence) -> Vec<String> {
    soon(room.members()).await.unwrap().into_keys().collect()
}

/// The next change, in one line.
async fn told(changes: &mut PresenceChanges) -> String {
    line(&soon(changes.next()).await.expect("it goes on").unwrap())
}

fn line(change: &PresenceChange) -> String {
    let what = match change {
        PresenceChange::Joined { .. } => "joined",
        PresenceChange::Updated { .. } => "updated",
        PresenceChange::Left { .. } => "left",
        other => panic!("{other:?}"),
    };
    format!("{} {what} {}", change.entry().user, change.entry().meta)
}

async fn who_joins_is_a_member_until_he_leaves(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    assert!(room.members().await.unwrap().is_empty());
    let ada = soon(room.join("ada", &json!({ "status": "online" }))).await.unwrap();
    assert_eq!((ada.user(), &**ada.channel()), ("ada", "chat:7"));
    let members = room.members().await.unwrap();
    assert_eq!(members.keys().collect::<Vec<_>>(), ["ada"]);
    assert_eq!(members["ada"].meta, json!({ "status": "online" }));
    assert!(members["ada"].last_seen.elapsed().unwrap_or_default() < PATIENCE);

    soon(ada.update(&json!({ "status": "busy" }))).await.unwrap();
    assert_eq!(room.members().await.unwrap()["ada"].meta, json!({ "status": "busy" }));
    let entries = room.entries().await.unwrap();
    assert_eq!(entries[ada.id()].user, "ada");
    soon(ada.leave()).await.unwrap();
    assert!(room.members().await.unwrap().is_empty() && room.entries().await.unwrap().is_empty());
}

async fn a_meta_is_a_type(place: Place) {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Status<'a> {
        name: &'a str,
        since: u64,
    }
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let status = Status { name: "Ada", since: u64::MAX };
    let _ada = room.join("ada", &status).await.unwrap();
    let members = room.members().await.unwrap();
    assert_eq!(members["ada"].json::<Status<'_>>().unwrap(), status);
    let error = members["ada"].json::<u8>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
}

async fn dropping_a_membership_leaves(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    drop(room.join("ada", &1).await.unwrap());
    assert_eq!(told(&mut changes).await, "ada joined 1");
    assert_eq!(told(&mut changes).await, "ada left 1");
    assert!(users(&room).await.is_empty());
}

async fn a_membership_is_dropped_anywhere(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let ada = room.join("ada", &1).await.unwrap();
    std::thread::spawn(move || drop(ada)).join().expect("a thread without a runtime can drop it");
    eventually("ada has left", async || users(&room).await.is_empty()).await;
}

async fn a_join_that_is_given_up_is_left_again(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    // The node already counts as alive, so that the first step of a join is the write.
    let witness = room.join("witness", &0).await.unwrap();
    assert_eq!(told(&mut changes).await, "witness joined 0");
    for number in 0..20 {
        drop(room.join("ada", &number).now_or_never());
    }
    witness.update(&1).await.unwrap();
    eventually("nobody but the witness is there", async || users(&room).await == ["witness"]).await;
    witness.leave().await.unwrap();
    let mut there = 1_i32;
    while there > 0 {
        match soon(changes.next()).await.unwrap().unwrap() {
            PresenceChange::Joined { .. } => there += 1,
            PresenceChange::Left { .. } => there -= 1,
            _ => {}
        }
    }
}

async fn a_user_with_several_joins_is_one_member(place: Place) {
    let (one, other) = (place.messaging().await, place.messaging().await);
    let room = one.presence("chat:7");
    let phone = room.join("ada", &json!("phone")).await.unwrap();
    let tab = other.presence("chat:7").join("ada", &json!("tab")).await.unwrap();
    let later = async || {
        phone.update(&json!("phone again")).await.unwrap();
        room.members().await.unwrap()["ada"].meta == "phone again"
    };
    eventually("what came last speaks for her", later).await;
    assert_eq!(users(&room).await, ["ada"]);
    assert_eq!(room.entries().await.unwrap().len(), 2);
    phone.leave().await.unwrap();
    let members = room.members().await.unwrap();
    assert_eq!(members["ada"].meta, "tab");
    tab.leave().await.unwrap();
    assert!(users(&room).await.is_empty());
}

async fn ids_are_given_and_given_again(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    for number in 0..10 {
        // Who came before may still be leaving.
        let ada = soon(room.join_as("connection/1 {x}", "ada", &number)).await.unwrap();
        assert_eq!(ada.id(), "connection/1 {x}");
        assert_eq!(room.entries().await.unwrap()["connection/1 {x}"].meta, number);
        drop(ada);
    }
    let mut last = None;
    while last.as_ref().is_none_or(|last| *last != "ada left 9") {
        last = Some(told(&mut changes).await);
    }
    assert!(users(&room).await.is_empty());
}

async fn one_id_is_joined_once(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let _ada = room.join_as("1", "ada", &1).await.unwrap();
    let error = room.join_as("1", "bob", &1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.is_not_sent() && error.to_string().contains("another id"), "{error}");
    let _elsewhere = messaging.presence("chat:8").join_as("1", "bob", &1).await.unwrap();
    assert_eq!(users(&room).await, ["ada"]);
}

async fn who_joins_again_while_he_leaves_stays(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    for number in 0..10 {
        let before = room.join_as("1", "ada", &number).await.unwrap();
        let mut leaving = pin!(before.leave());
        let left = (&mut leaving).now_or_never();
        let ada = room.join_as("1", "ada", &"again").await.unwrap();
        match left {
            Some(left) => left.unwrap(),
            None => soon(leaving).await.unwrap(),
        }
        assert_eq!(room.members().await.unwrap()["ada"].meta, "again");
        soon(ada.leave()).await.unwrap();
        assert!(users(&room).await.is_empty());
    }
}

async fn changes_come_in_order(place: Place) {
    let (one, other) = (place.messaging().await, place.messaging().await);
    let mut changes = one.presence("chat:7").changes().await.unwrap();
    let room = other.presence("chat:7");
    let ada = room.join("ada", &0).await.unwrap();
    for number in 1..=20 {
        ada.update(&number).await.unwrap();
    }
    let bob = room.join("bob", &json!({})).await.unwrap();
    ada.leave().await.unwrap();
    bob.leave().await.unwrap();
    assert_eq!(told(&mut changes).await, "ada joined 0");
    for number in 1..=20 {
        assert_eq!(told(&mut changes).await, format!("ada updated {number}"));
    }
    for expected in ["bob joined {}", "ada left 20", "bob left {}"] {
        assert_eq!(told(&mut changes).await, expected);
    }
}

async fn changes_begin_with_who_is_there(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let ada = room.join("ada", &1).await.unwrap();
    let mut changes = room.changes().await.unwrap();
    let there = |changes: &mut PresenceChanges| {
        let entries: BTreeMap<_, _> = changes.entries();
        entries.into_values().map(|entry| (entry.user, entry.meta)).collect::<Vec<(String, Value)>>()
    };
    assert_eq!(there(&mut changes), [("ada".to_owned(), json!(1))]);
    let bob = room.join("bob", &2).await.unwrap();
    ada.update(&3).await.unwrap();
    assert_eq!(there(&mut changes), [("ada".to_owned(), json!(1))], "nothing has been yielded");
    assert_eq!(told(&mut changes).await, "bob joined 2", "who was there already has not joined");
    assert_eq!(there(&mut changes).len(), 2);
    assert_eq!(told(&mut changes).await, "ada updated 3");
    ada.leave().await.unwrap();
    assert_eq!(told(&mut changes).await, "ada left 3");
    assert_eq!(there(&mut changes), [("bob".to_owned(), json!(2))]);
    bob.leave().await.unwrap();
}

async fn a_watcher_begins_where_it_has_read(place: Place) {
    let (one, other) = (place.messaging().await, place.messaging().await);
    let ada = other.presence("chat:7").join("ada", &0_u64).await.unwrap();
    let updating = tokio::spawn(async move {
        for number in 1_u64.. {
            ada.update(&number).await.unwrap();
        }
    });
    for _ in 0..20 {
        let mut changes = one.presence("chat:7").changes().await.unwrap();
        let read = changes.entries().into_values().next().unwrap().json::<u64>().unwrap();
        for expected in read + 1..read + 20 {
            let change = soon(changes.next()).await.unwrap().unwrap();
            assert_eq!(change.entry().json::<u64>().unwrap(), expected, "nothing is told twice or left out");
        }
    }
    updating.abort();
}

async fn a_member_stays_for_longer_than_its_time(mut place: Place) {
    // Of so many signs of life one may be late on a busy machine.
    place.config.presence_ttl = Duration::from_secs(2);
    let (one, other) = (place.messaging().await, place.messaging().await);
    let room = one.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    let _ada = other.presence("chat:7").join("ada", &1).await.unwrap();
    assert_eq!(told(&mut changes).await, "ada joined 1");
    let begun = Instant::now();
    while begun.elapsed() < place.config.presence_ttl * 2 {
        assert_eq!(users(&room).await, ["ada"]);
        if let Ok(change) = tokio::time::timeout(Duration::from_millis(20), changes.next()).await {
            panic!("{change:?}");
        }
    }
}

async fn changes_are_a_stream(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    let ada = room.join("ada", &0).await.unwrap();
    // What a wait of the stream has begun with is not lost to a call.
    let _ = StreamExt::next(&mut changes).now_or_never();
    for number in 1..10 {
        ada.update(&number).await.unwrap();
    }
    let changes = changes.filter_map(async |change| match change.unwrap() {
        PresenceChange::Updated { entry, .. } => entry.json::<u32>().ok(),
        _ => None,
    });
    assert_eq!(soon(changes.take(9).collect::<Vec<_>>()).await, (1..10).collect::<Vec<_>>());
}

async fn two_processes_see_each_other(place: Place) {
    let messagings = [place.messaging().await, place.messaging().await];
    let rooms = messagings.each_ref().map(|messaging| messaging.presence("chat:7"));
    let mut members = Vec::new();
    for (number, room) in rooms.iter().enumerate() {
        members.push(room.join(&format!("user-{number}"), &number).await.unwrap());
    }
    for room in &rooms {
        assert_eq!(users(room).await, ["user-0", "user-1"]);
    }
    members.remove(0).leave().await.unwrap();
    for room in &rooms {
        assert_eq!(users(room).await, ["user-1"]);
    }
}

async fn many_joins_at_once(place: Place) {
    const JOINS: usize = 500;
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    let joins = (0..JOINS).map(|number| {
        let room = room.clone();
        tokio::spawn(async move { room.join(&format!("user-{number}"), &number).await.unwrap() })
    });
    let mut members = Vec::new();
    for join in joins.collect::<Vec<_>>() {
        members.push(soon(join).await.unwrap());
    }
    assert_eq!(users(&room).await.len(), JOINS);
    for _ in 0..JOINS {
        assert!(told(&mut changes).await.contains("joined"));
    }
    drop(members);
    for _ in 0..JOINS {
        assert!(told(&mut changes).await.contains("left"));
    }
    assert!(users(&room).await.is_empty());
}

async fn a_process_that_shuts_down_has_left(place: Place) {
    let (one, other) = (place.messaging().await, place.messaging().await);
    let room = one.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    let running = other.start().await.unwrap();
    let mut members = Vec::new();
    for number in 0..100 {
        members.push(other.presence("chat:7").join(&format!("user-{number}"), &1).await.unwrap());
    }
    assert!(running.shutdown(PATIENCE).await.is_complete());
    assert!(users(&room).await.is_empty(), "nobody waits for anything to run out");
    for what in ["joined", "left"] {
        for _ in 0..100 {
            assert!(told(&mut changes).await.contains(what));
        }
    }
    let error = members[0].update(&2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    members.remove(0).leave().await.unwrap();
}

async fn a_messaging_that_is_dropped_has_left(place: Place) {
    let (one, other) = (place.messaging().await, place.messaging().await);
    let room = one.presence("chat:7");
    let ada = other.presence("chat:7").join("ada", &1).await.unwrap();
    assert_eq!(users(&room).await, ["ada"]);
    let begun = Instant::now();
    drop(other);
    eventually("ada has left", async || users(&room).await.is_empty()).await;
    assert!(begun.elapsed() < place.config.presence_ttl / 2, "not because her time ran out");
    drop(ada);
}

/// As a process that is killed: its keys run out.
async fn a_runtime_that_ends_takes_its_members_with_it(mut place: Place) {
    place.config.presence_ttl = Duration::from_secs(2);
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    let dying = place.clone();
    let kept = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let joined = runtime.block_on(async {
            let messaging = dying.messaging().await;
            let ada = messaging.presence("chat:7").join("ada", &1).await.unwrap();
            let unwatched = messaging.presence("chat:8").join("ada", &1).await.unwrap();
            (messaging, [ada, unwatched])
        });
        drop(runtime);
        joined
    });
    let kept: (Messaging, _) = kept.join().unwrap();
    assert_eq!(told(&mut changes).await, "ada joined 1");
    assert_eq!(told(&mut changes).await, "ada left 1");
    for channel in ["chat:7", "chat:8"] {
        let room = messaging.presence(channel);
        eventually("nobody is there", async || users(&room).await.is_empty()).await;
    }
    drop(kept);
}

async fn channels_and_deployments_are_apart(place: Place) {
    #[channel("chat:{room}")]
    struct Chat {
        room: u32,
    }
    let messaging = place.messaging().await;
    let ada = messaging.presence(&Chat { room: 7 }).join("ada", &1).await.unwrap();
    assert_eq!(users(&messaging.presence("chat:7")).await, ["ada"]);
    assert!(users(&messaging.presence("chat:70")).await.is_empty());
    let mut elsewhere = place.clone();
    elsewhere.config.channel_prefix.push_str("staging.");
    assert!(users(&elsewhere.messaging().await.presence("chat:7")).await.is_empty());
    let mut elsewhere = place.clone();
    elsewhere.config.namespace.push('x');
    assert!(users(&elsewhere.messaging().await.presence("chat:7")).await.is_empty());
    ada.leave().await.unwrap();
}

async fn globs_do_not_hear_of_presence(place: Place) {
    let messaging = place.messaging().await;
    let mut everything = messaging.subscribe("*").await.unwrap();
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    room.join("ada", &1).await.unwrap().leave().await.unwrap();
    assert_eq!(told(&mut changes).await, "ada joined 1");
    assert_eq!(told(&mut changes).await, "ada left 1");
    messaging.publish("last", &1).await.unwrap();
    let message = soon(everything.get_message(None)).await.unwrap().unwrap();
    assert_eq!(message.channel(), &"last");
}

async fn hostile_metas_and_names(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    let nested = |depth| (1..depth).fold(json!([]), |inner, _| json!([inner]));
    for meta in [
        json!(null),
        json!("\u{0}\u{2028}\"\\\r\n"),
        json!({ "value": { "join": "x/y" }, "": [u64::MAX, i64::MIN, 1.5] }),
        json!({ "n": 0, "user": "root", "meta": { "meta": 1 } }),
        nested(100),
    ] {
        for user in ["ada", " ", "\u{0}\r\n", "{}[]*?", "Ä…/\u{10ffff}", &"x".repeat(1_024)] {
            let id = format!("{user}/{user}").chars().take(200).collect::<String>();
            let joined = room.join_as(&id, user, &meta).await.unwrap();
            assert_eq!(room.members().await.unwrap()[user].meta, meta);
            let change = soon(changes.next()).await.unwrap().unwrap();
            assert_eq!((change.id(), &*change.entry().user, &change.entry().meta), (&*id, user, &meta));
            joined.leave().await.unwrap();
            soon(changes.next()).await.unwrap().unwrap();
        }
    }
    for (user, id) in [("", "1"), ("ada", ""), ("ada", &"x".repeat(1_025)), (&"x".repeat(1_025), "1")] {
        let error = room.join_as(id, user, &1).await.unwrap_err();
        assert_eq!((error.kind(), error.is_not_sent()), (ErrorKind::InvalidKey, true));
    }
    let error = room.join("ada", &nested(500)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_not_sent()), (ErrorKind::Encode, true));
    let error = room.join("ada", &BTreeMap::from([((1, 2), 3)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    assert!(users(&room).await.is_empty());
}

async fn what_is_too_large_is_refused(mut place: Place) {
    place.config.max_payload = 10_000;
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    let error = room.join("ada", &"x".repeat(10_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    assert!(error.is_not_sent() && error.to_string().contains("MESSAGING_MAX_PAYLOAD"), "{error}");
    let ada = room.join("ada", &"x".repeat(9_000)).await.unwrap();
    assert_eq!(ada.update(&"x".repeat(10_000)).await.unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    assert_eq!(told(&mut changes).await.len(), "ada joined ".len() + 9_002);
    assert_eq!(room.members().await.unwrap()["ada"].meta.as_str().unwrap().len(), 9_000);
}

async fn after_shutting_down_nobody_joins(place: Place) {
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    messaging.start().await.unwrap().shutdown(PATIENCE).await;
    assert_eq!(room.join("ada", &1).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(room.members().await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(soon(changes.next()).await.is_none());
    assert_eq!(room.changes().await.unwrap_err().kind(), ErrorKind::Closed);
}

async fn an_invalid_channel_is_refused_when_it_is_used(place: Place) {
    let messaging = place.messaging().await;
    for channel in ["", "chat:*", "chat:{room}", "a b"] {
        let room = messaging.presence(channel);
        let errors = [
            room.join("ada", &1).await.unwrap_err(),
            room.members().await.unwrap_err(),
            room.changes().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.is_not_sent()), (ErrorKind::InvalidChannel, true), "{error}");
        }
    }
}

/// What somebody else has put under our names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_in_redis_is_nobody() {
    let (place, redis) = (Place::redis(), shared_redis());
    let messaging = place.messaging().await;
    let room = messaging.presence("chat:7");
    let mut changes = room.changes().await.unwrap();
    let _ada = room.join("ada", &1).await.unwrap();
    assert_eq!(told(&mut changes).await, "ada joined 1");
    let members = format!("{}:{{{}chat:7}}:presence", place.config.namespace, place.config.channel_prefix);
    let fields = redis.cli(&["HKEYS", &members]);
    let node = fields.split_once('/').expect("it has one field").0;
    let of_a_live_node = format!("{node}/x");
    let foreign = "0123456789abcdef0123456789abcdef/x";
    let sound = r#"{"user":"eve","meta":1}"#;
    for (field, value) in [
        ("", sound),
        ("/", sound),
        ("x/y", sound),
        ("\u{0}{}*", sound),
        (&format!("{node}/"), sound),
        (&of_a_live_node, ""),
        (&of_a_live_node, "{}"),
        (&of_a_live_node, r#"{"user":"eve"}"#),
        (&of_a_live_node, &format!(r#"{{"user":"eve","meta":{}{}}}"#, "[".repeat(500), "]".repeat(500))),
        (&of_a_live_node, &format!(r#"{{"user":"eve","meta":"{}"}}"#, "x".repeat(2 << 20))),
        (foreign, sound),
    ] {
        redis.cli(&["HSET", &members, field, value]);
        assert_eq!(users(&room).await, ["ada"], "{field}");
    }
    let gone = async || redis.cli(&["HEXISTS", &members, foreign]) == "0";
    eventually("what belongs to a dead process is removed", gone).await;
    let alive = format!("{}:presence:node:0123456789abcdef0123456789abcdef", place.config.namespace);
    for pulse in ["", "x", "1 1000", "18446744073709551616 1"] {
        // Without an end, or without sense, it is no sign of life.
        redis.cli(&["SET", &alive, pulse]);
        redis.cli(&["HSET", &members, foreign, sound]);
        assert_eq!(users(&room).await, ["ada"], "{pulse}");
    }
    let notices = format!("{}{}:presence:in:chat:7", place.config.channel_prefix, place.config.namespace);
    for notice in ["", "{}", "[]", r#"{"join":1}"#, r#"{"join":"x/y","value":1}"#, &"x".repeat(2 << 20)] {
        redis.cli(&["PUBLISH", &notices, notice]);
    }
    let _bob = room.join("bob", &2).await.unwrap();
    assert_eq!(told(&mut changes).await, "bob joined 2");
}
