//! Who is there: connections that want to be seen in a channel, and those who are told who comes and goes, gathered for a
//! second.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use messaging_core::{Membership, Messaging, PresenceChange, PresenceChanges, PresenceEntry, Result};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::identity::Identity;
use crate::native::Say;

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

    /// Lets a connection be seen in a channel, and be told who comes and goes.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn enter(
        &self,
        channel: &Arc<str>,
        connection: &Arc<Connection>,
        identity: &Identity,
    ) -> Result<Seen> {
        let presence = self.messaging.presence(&**channel);
        let room = self.room(channel).await?;
        let meta = identity.info.clone().unwrap_or(Value::Null);
        let membership = presence.join_as(&connection.client, &identity.user, &meta).await?;
        lock(&room.watchers).insert(connection.number, Arc::clone(connection));
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

/// Who has come and gone.
#[derive(Debug, Default)]
struct Gathered {
    joins: Map<String, Value>,
    leaves: Map<String, Value>,
    /// Who was not there before any of this.
    new: HashSet<String>,
}

impl Gathered {
    fn note(&mut self, change: Result<PresenceChange>) {
        match change {
            Ok(PresenceChange::Joined { id, entry }) => {
                if self.leaves.remove(&id).is_none() && !self.joins.contains_key(&id) {
                    self.new.insert(id.clone());
                }
                self.joins.insert(id, told(&entry));
            }
            Ok(PresenceChange::Updated { id, entry }) => {
                self.joins.insert(id, told(&entry));
            }
            Ok(PresenceChange::Left { id, entry }) => {
                self.joins.remove(&id);
                // Who came and went within a second was not there for anybody; who went, came back and went again was.
                if !self.new.remove(&id) {
                    self.leaves.insert(id, told(&entry));
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "who is present could not be heard"),
        }
    }

    fn tell(&self, room: &Room) {
        if self.joins.is_empty() && self.leaves.is_empty() {
            return;
        }
        let frame =
            Say::JoinLeave { channel: &room.channel, joins: &self.joins, leaves: &self.leaves }.frame();
        for connection in lock(&room.watchers).values() {
            connection.outbox.push(frame.clone());
        }
    }
}

/// What clients are told of somebody who is there.
fn told(entry: &PresenceEntry) -> Value {
    let mut told = Map::new();
    told.insert("user".to_owned(), entry.user.clone().into());
    if !entry.meta.is_null() {
        told.insert("info".to_owned(), entry.meta.clone());
    }
    Value::Object(told)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_told_is_what_has_changed() {
        let messaging = Messaging::builder().url("memory://told").build().await.unwrap();
        let presence = messaging.presence("room");
        let _membership = presence.join_as("ada", "ada", &Value::Null).await.unwrap();
        let entry = presence.entries().await.unwrap().remove("ada").unwrap();
        // The changes of one second, and what is told of them.
        for (changes, joins, leaves) in [
            ("j", 1, 0),
            ("l", 0, 1),
            ("u", 1, 0),
            ("jl", 0, 0),
            ("jlj", 1, 0),
            ("jul", 0, 0),
            ("lj", 1, 0),
            ("ljl", 0, 1),
            ("ul", 0, 1),
            ("jljl", 0, 0),
            ("ljljl", 0, 1),
        ] {
            let mut gathered = Gathered::default();
            for change in changes.chars() {
                let (id, entry) = ("ada".to_owned(), entry.clone());
                gathered.note(Ok(match change {
                    'j' => PresenceChange::Joined { id, entry },
                    'u' => PresenceChange::Updated { id, entry },
                    _ => PresenceChange::Left { id, entry },
                }));
            }
            assert_eq!((gathered.joins.len(), gathered.leaves.len()), (joins, leaves), "{changes}");
        }
    }
}
