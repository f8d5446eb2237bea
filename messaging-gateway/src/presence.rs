//! Who is there: connections that want to be seen in a channel, and those who are told who comes and goes, gathered for a
//! second.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use messaging_core::{Membership, Messaging, PresenceChange, PresenceChanges, PresenceEntry, Result};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::frame::Frame;
use crate::identity::Identity;
use crate::native::Say;
use crate::protocol::Protocol;

/// What the token of a subscription says of somebody, where it says something.
const CHANNEL_INFO: &str = "chan_info";
/// What the connection says then.
const CONNECTION_INFO: &str = "conn_info";

/// For how long comings and goings are gathered.
const GATHERED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Rooms {
    messaging: Messaging,
    tasks: TaskTracker,
    stop: CancellationToken,
    rooms: Mutex<HashMap<Arc<str>, Weak<Room>>>,
}

/// A channel whose comings and goings somebody is told.
#[derive(Debug)]
struct Room {
    channel: Arc<str>,
    watchers: Mutex<HashMap<u64, Arc<Connection>>>,
    stop: CancellationToken,
}

/// A connection that is seen in a channel; dropped, it leaves.
#[derive(Debug)]
pub(crate) struct Seen {
    _membership: Membership,
    room: Arc<Room>,
    number: u64,
}

impl Drop for Seen {
    fn drop(&mut self) {
        lock(&self.room.watchers).remove(&self.number);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rooms {
    pub(crate) fn new(messaging: Messaging, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { messaging, tasks, stop, rooms: Mutex::default() }
    }

    /// Lets a connection be seen in a channel, and be told who comes and goes if it watches. `info` is what a token says of
    /// it for this channel.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn enter(
        &self,
        channel: &Arc<str>,
        connection: &Arc<Connection>,
        identity: &Identity,
        watches: bool,
        info: Option<&Value>,
    ) -> Result<Seen> {
        let presence = self.messaging.presence(&**channel);
        let room = self.room(channel).await?;
        let meta = match info {
            None => identity.info.clone().unwrap_or(Value::Null),
            Some(info) => json!({ CHANNEL_INFO: info, CONNECTION_INFO: identity.info }),
        };
        let membership = presence.join_as(&connection.client, &identity.user, &meta).await?;
        if watches {
            lock(&room.watchers).insert(connection.number, Arc::clone(connection));
        }
        Ok(Seen { _membership: membership, room, number: connection.number })
    }

    /// Who is there now, by their connections.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn members(&self, channel: &str) -> Result<Map<String, Value>> {
        let entries = self.messaging.presence(channel).entries().await?;
        Ok(entries.into_iter().map(|(id, entry)| (id, told(&entry))).collect())
    }

    async fn room(&self, channel: &Arc<str>) -> Result<Arc<Room>> {
        if let Some(room) = lock(&self.rooms).get(channel).and_then(Weak::upgrade) {
            return Ok(room);
        }
        let changes = self.messaging.presence(&**channel).changes().await?;
        let mut rooms = lock(&self.rooms);
        // Somebody else may have been faster.
        if let Some(room) = rooms.get(channel).and_then(Weak::upgrade) {
            return Ok(room);
        }
        let room = Arc::new(Room {
            channel: Arc::clone(channel),
            watchers: Mutex::default(),
            stop: self.stop.child_token(),
        });
        rooms.retain(|_, room| room.strong_count() > 0);
        rooms.insert(Arc::clone(channel), Arc::downgrade(&room));
        self.tasks.spawn(watch(Arc::downgrade(&room), changes, room.stop.clone()));
        Ok(room)
    }
}

async fn watch(room: Weak<Room>, mut changes: PresenceChanges, stop: CancellationToken) {
    let watching = async {
        while let Some(first) = changes.next().await {
            let mut gathered = Gathered::default();
            gathered.note(first);
            let gathering = async {
                while let Some(change) = changes.next().await {
                    gathered.note(change);
                }
            };
            // The time being over is how it ends; nothing is lost by it.
            let _ = tokio::time::timeout(GATHERED, gathering).await;
            let Some(room) = room.upgrade() else { return };
            gathered.tell(&room);
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watching => {}
    }
}

/// Who has come and gone, by their ids.
#[derive(Debug, Default)]
struct Gathered(BTreeMap<String, Change>);

/// What has become of somebody.
#[derive(Debug)]
struct Change {
    was_there: bool,
    is_there: bool,
    /// What they are now, or were last.
    told: Value,
}

impl Gathered {
    fn note(&mut self, change: Result<PresenceChange>) {
        let (id, entry, was_there, is_there) = match change {
            Ok(PresenceChange::Joined { id, entry }) => (id, entry, false, true),
            Ok(PresenceChange::Updated { id, entry }) => (id, entry, true, true),
            Ok(PresenceChange::Left { id, entry }) => (id, entry, true, false),
            Ok(_) => return,
            Err(error) => return tracing::debug!(%error, "who is present could not be heard"),
        };
        let told = told(&entry);
        match self.0.entry(id) {
            Entry::Vacant(vacant) => _ = vacant.insert(Change { was_there, is_there, told }),
            // Whether they were there is known from the first change.
            Entry::Occupied(mut occupied) => {
                let change = occupied.get_mut();
                (change.is_there, change.told) = (is_there, told);
            }
        }
    }

    fn tell(self, room: &Room) {
        let (mut joins, mut leaves) = (Map::new(), Map::new());
        for (id, Change { was_there, is_there, told }) in self.0 {
            match (was_there, is_there) {
                (_, true) => _ = joins.insert(id, told),
                (true, false) => _ = leaves.insert(id, told),
                // Who came and went within a second was not there for anybody.
                (false, false) => {}
            }
        }
        if joins.is_empty() && leaves.is_empty() {
            return;
        }
        let say = Say::JoinLeave { channel: &room.channel, joins: &joins, leaves: &leaves };
        let mut frames: HashMap<Protocol, Option<Frame>> = HashMap::new();
        for connection in lock(&room.watchers).values() {
            let protocol = connection.protocol();
            if let Some(frame) = frames.entry(protocol).or_insert_with(|| protocol.frame(&say)) {
                connection.outbox.tell(frame.clone());
            }
        }
    }
}

/// What clients are told of somebody who is there.
fn told(entry: &PresenceEntry) -> Value {
    let mut told = Map::new();
    told.insert("user".to_owned(), entry.user.clone().into());
    let of_channel = entry.meta.as_object().filter(|meta| meta.len() == 2);
    let of_channel = of_channel.and_then(|meta| Some((meta.get(CHANNEL_INFO)?, meta.get(CONNECTION_INFO)?)));
    match of_channel {
        Some((info, connection)) => {
            told.insert("info".to_owned(), info.clone());
            told.insert(CONNECTION_INFO.to_owned(), connection.clone());
        }
        None if entry.meta.is_null() => {}
        None => _ = told.insert("info".to_owned(), entry.meta.clone()),
    }
    Value::Object(told)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_left(gathered: &Gathered) -> bool {
        matches!(gathered.0["client"], Change { was_there: true, is_there: false, .. })
    }

    #[tokio::test]
    async fn who_goes_within_the_second_of_a_change_is_told_to_have_gone() {
        let messaging = Messaging::builder().url("memory://").build().await.unwrap();
        let room = messaging.presence("chat:1");
        let _membership = room.join_as("client", "ada", &Value::Null).await.unwrap();
        let entry = room.entries().await.unwrap().remove("client").unwrap();
        let id = || "client".to_owned();
        // He was there before, says something else of himself, and goes.
        let mut gathered = Gathered::default();
        gathered.note(Ok(PresenceChange::Updated { id: id(), entry: entry.clone() }));
        gathered.note(Ok(PresenceChange::Left { id: id(), entry: entry.clone() }));
        assert!(has_left(&gathered), "{gathered:?}");
        // He was there before, goes, comes back, and goes.
        let mut gathered = Gathered::default();
        gathered.note(Ok(PresenceChange::Left { id: id(), entry: entry.clone() }));
        gathered.note(Ok(PresenceChange::Joined { id: id(), entry: entry.clone() }));
        gathered.note(Ok(PresenceChange::Left { id: id(), entry }));
        assert!(has_left(&gathered), "{gathered:?}");
    }
}
