//! Who is there: rooms that are joined and left, who is in them, and what changes.

mod changes;
mod membership;
mod node;
mod record;
mod roster;
mod watcher;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use changes::{PresenceChange, PresenceChanges};
pub use membership::Membership;
pub(crate) use node::Node;
pub use node::PresenceHealth;

use crate::backend::Token;
use crate::backend::presence::JoinKey;
use crate::channel::{Channel, ToChannel};
use crate::error::{Error, ErrorKind, Result};
use crate::json::short_type_name;
use crate::messaging::Messaging;
use record::{Record, Seen};

/// Who is present on a channel; made by [`Messaging::presence`]. Cheap to clone.
///
/// Users join, in any process, and are members until they leave: with [`Membership::leave`], when the [`Membership`] is
/// dropped, when their [`Messaging`] is shut down or dropped, or when their process has given no sign of life for
/// `MESSAGING_PRESENCE_TTL` (10 s). What happens on the channel itself has nothing to do with it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// use messaging_core::{Messaging, PresenceChange};
/// use serde_json::json;
///
/// let messaging = Messaging::builder().url("memory://").build().await?;
/// let room = messaging.presence("chat:7");
/// let mut changes = room.changes().await?;
/// let ada = room.join("ada", &json!({ "status": "online" })).await?;
/// ada.update(&json!({ "status": "busy" })).await?;
///
/// let members = room.members().await?;
/// assert_eq!(members["ada"].meta["status"], "busy");
///
/// ada.leave().await?;
/// let mut told = Vec::new();
/// while let Some(change) = changes.next().await {
///     match change? {
///         PresenceChange::Joined { entry, .. } => told.push(format!("{} joined", entry.user)),
///         PresenceChange::Updated { entry, .. } => told.push(format!("{} is {}", entry.user, entry.meta["status"])),
///         PresenceChange::Left { entry, .. } => {
///             told.push(format!("{} left", entry.user));
///             break;
///         }
///         _ => {}
///     }
/// }
/// assert_eq!(told, ["ada joined", "ada is \"busy\"", "ada left"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Presence {
    messaging: Messaging,
    channel: std::result::Result<Channel, Arc<Error>>,
}

/// A user who is present, once or several times.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Member {
    /// What he says of himself: what came last, if he has joined several times.
    pub meta: Value,
    /// When the process that he has joined in gave its last sign of life.
    pub last_seen: SystemTime,
}

/// One join of a user: a tab, a device, a process.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PresenceEntry {
    /// Who has joined.
    pub user: String,
    /// What he says of himself.
    pub meta: Value,
}

impl Presence {
    pub(crate) fn new<C: ToChannel + ?Sized>(messaging: Messaging, channel: &C) -> Self {
        Self { messaging, channel: channel.to_channel().map_err(Arc::new) }
    }

    /// Makes a user present, until the [`Membership`] is dropped or left. A user may join several times, here and elsewhere:
    /// he is one member. `meta` is what he says of himself, such as a name and a status.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`]; [`ErrorKind::InvalidKey`] if `user` is empty or longer than 1,024 bytes;
    /// [`ErrorKind::Encode`]; [`ErrorKind::PayloadTooLarge`]; otherwise what the backend says: then the user has not joined,
    /// or is removed again.
    ///
    /// # Cancellation
    /// What has been joined is left again.
    pub async fn join<T: Serialize + ?Sized>(&self, user: &str, meta: &T) -> Result<Membership> {
        self.join_as(&Token::random().0, user, meta).await
    }

    /// As [`join`](Self::join), under an id of its own: that of a connection, say. No two joins of a channel may have one id,
    /// in whatever process.
    ///
    /// # Errors
    /// As `join`; [`ErrorKind::Conflict`] if there is such a join in this process; [`ErrorKind::InvalidKey`] also if `id` is
    /// empty or longer than 1,024 bytes.
    ///
    /// # Cancellation
    /// What has been joined is left again.
    pub async fn join_as<T: Serialize + ?Sized>(&self, id: &str, user: &str, meta: &T) -> Result<Membership> {
        let attempted = |error: Error| error.context(format_args!("join {:?}", self.name()));
        let joined = async {
            record::check_name("id", id)?;
            let record = Record::new(user, meta, millis_now())?;
            Membership::join(self.messaging.node(), self.channel()?, id, record).await
        };
        joined.await.map_err(attempted)
    }

    /// Who is present, by user.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`]; otherwise what the backend says.
    pub async fn members(&self) -> Result<BTreeMap<String, Member>> {
        let mut members = BTreeMap::<String, (u64, Member)>::new();
        for (_, Living { seen, ago }) in self.living().await? {
            let last_seen = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
            let Seen { entry: PresenceEntry { user, meta }, at, .. } = seen;
            match members.get_mut(&user) {
                None => _ = members.insert(user, (at, Member { meta, last_seen })),
                Some((latest, member)) => {
                    member.last_seen = member.last_seen.max(last_seen);
                    if at >= *latest {
                        (*latest, member.meta) = (at, meta);
                    }
                }
            }
        }
        Ok(members.into_iter().map(|(user, (_, member))| (user, member)).collect())
    }

    /// Everything that is joined, by the id of the join.
    ///
    /// # Errors
    /// As [`members`](Self::members).
    pub async fn entries(&self) -> Result<BTreeMap<String, PresenceEntry>> {
        let living = self.living().await?.into_iter();
        Ok(living.map(|(key, living)| (key.id.to_string(), living.seen.entry)).collect())
    }

    /// What changes from now on: who joins, is updated, and leaves. It returns when nothing will be missed;
    /// [`PresenceChanges::entries`] is what there was at that moment.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`]; [`ErrorKind::Refused`] by an ACL; [`ErrorKind::Timeout`] if it takes longer than
    /// `MESSAGING_CONNECT_TIMEOUT`.
    ///
    /// # Cancellation
    /// Nothing is watched any more.
    pub async fn changes(&self) -> Result<PresenceChanges> {
        let attempted = |error: Error| error.context(format_args!("watch who is on {:?}", self.name()));
        let watching = async { PresenceChanges::open(&self.messaging, self.channel()?).await };
        watching.await.map_err(attempted)
    }

    /// The joins of nodes that live. What the others had is removed.
    async fn living(&self) -> Result<Vec<(JoinKey, Living)>> {
        let channel = self.channel()?;
        let (node, core) = (self.messaging.node(), self.messaging.core());
        let attempted = |error: Error| error.context(format_args!("read who is on {:?}", self.name()));
        if core.stop.is_cancelled() {
            return Err(attempted(
                Error::new(ErrorKind::Closed, "messaging has been shut down").before_sending(),
            ));
        }
        let mut all = core.backend.members(channel).await.map_err(attempted)?;
        all.sort_unstable();
        // After the members: a node that is dead now will write again what it had, if it comes back.
        let mut nodes: Vec<_> = all.iter().map(|(key, _)| key.node.clone()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let lives = core.backend.lives(&nodes).await.map_err(attempted)?;
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for (key, value) in all {
            let life = nodes.binary_search(&key.node).ok().and_then(|place| *lives.get(place)?);
            match life {
                None => dead.push((key, value)),
                Some(life) => {
                    if let Some(seen) = Seen::read(value) {
                        living.push((key, Living { seen, ago: life.ago }));
                    }
                }
            }
        }
        node.bury(channel, dead);
        Ok(living)
    }

    fn channel(&self) -> Result<&Channel> {
        self.channel.as_ref().map_err(|error| Error::new(error.kind(), error.to_string()))
    }

    fn name(&self) -> &str {
        self.channel.as_ref().map_or("", |channel| channel)
    }
}

/// A join of a node that lives.
struct Living {
    seen: Seen,
    /// How long ago the node's last sign of life was.
    ago: Duration,
}

impl Member {
    /// Reads the meta as a type.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if it is not of that shape.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        read_meta(&self.meta)
    }
}

impl PresenceEntry {
    /// Reads the meta as a type.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if it is not of that shape.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        read_meta(&self.meta)
    }
}

fn read_meta<'a, T: Deserialize<'a>>(meta: &'a Value) -> Result<T> {
    T::deserialize(meta).map_err(|source| {
        let text = format!("the meta is not a {}: {source}", short_type_name::<T>());
        Error::new(ErrorKind::Decode, text).with_source(source)
    })
}

fn millis_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("channel", &self.channel).finish_non_exhaustive()
    }
}
