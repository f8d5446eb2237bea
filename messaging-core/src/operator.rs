//! What operators look at and mend in a deployment: its streams and groups, its cached functions, the rights that an ACL
//! gives. No handler needs any of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

pub use crate::backend::operate::Feature;
use crate::backend::operate::{GroupFacts, Scope};
use crate::channel::{Channel, Pattern};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::stream::{Durability, EntryId, Retention, StreamInfo, StreamName};

/// How many streams are asked about at the same time.
const AT_ONCE: usize = 16;

/// What is known of a whole deployment, of all of its processes. Made by [`Messaging::operator`](crate::Messaging::operator);
/// the command `messaging` shows what it says.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> messaging_core::Result<()> {
/// # let messaging = messaging_core::Messaging::builder().url("memory://").build().await?;
/// messaging.publish("orders.created", &1).durable().await?;
/// for stream in messaging.operator().streams().await? {
///     println!("{}: {} messages", stream.pattern, stream.length);
///     # assert_eq!(stream.length, 1);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Operator(Arc<Core>);

/// A stream of durable channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamReport {
    /// The stream: a template with `<>` in place of its placeholders, and `#` and a number if it has partitions.
    pub stream: String,
    /// Which channels it carries: a channel, a template or a glob, without the deployment's prefix. The names of a
    /// template's placeholders are not known.
    pub pattern: String,
    /// How many partitions the channels have, if they are divided.
    pub partitions: Option<u16>,
    /// How many messages are kept at least.
    pub max_len: u64,
    /// For how long they are kept, in milliseconds.
    pub max_age_ms: u64,
    /// How many messages it has.
    pub length: u64,
    /// How many were ever published: the last number that was given.
    pub published: u64,
    /// When the oldest message that is kept was appended, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// When the last message was appended, in milliseconds since 1970; it may be gone.
    pub newest_ms: Option<u64>,
}

/// A group of queue handlers on one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupReport {
    /// The stream, as in [`StreamReport::stream`].
    pub stream: String,
    /// The group.
    pub group: String,
    /// Consumers that live.
    pub alive: u64,
    /// Messages in the hands of a process.
    pub pending: u64,
    /// Messages that wait for another attempt.
    pub delayed: u64,
    /// Messages that nobody has read yet.
    pub unread: u64,
    /// There may be more of them: this stream was also written to by others, who do not number what they append.
    pub unread_is_least: bool,
    /// How long ago, in milliseconds, the oldest message was appended that is in the hands of a process.
    pub oldest_pending_ms: Option<u64>,
    /// How long ago, in milliseconds, one of its consumers has last done something; nothing without consumers.
    pub idle_ms: Option<u64>,
    /// Dead letters.
    pub dead: u64,
    /// The consumers, those included that are gone and have not been cleared away.
    pub consumers: Vec<ConsumerReport>,
}

impl GroupReport {
    /// Everything that is not handled yet: what nobody has read, what waits, and what is in hand.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.unread + self.delayed + self.pending
    }
}

/// Whoever reads for a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConsumerReport {
    /// Its name: the host (`HOSTNAME`), the process's number, and more that makes it unique, with `:` between.
    pub name: String,
    /// Whether it has shown life within `MESSAGING_RECLAIM`.
    pub alive: bool,
    /// Messages in its hands.
    pub pending: u64,
    /// How long ago, in milliseconds, it has last done something.
    pub idle_ms: u64,
}

/// A cached function with `invalidate_on`, of any process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FamilyReport {
    /// The function's id. Two versions of a function, as in a rolling deployment, are there twice.
    pub id: String,
    /// The template of its keys, without the deployment's prefix.
    pub key: String,
    /// A glob of its keys, as they are in Redis.
    pub glob: String,
    /// The channels whose events make its values out of date.
    pub channels: Vec<String>,
    /// How long a value is kept at most, in milliseconds: `ttl` and `stale` together.
    pub keep_ms: u64,
    /// For how long, in milliseconds, it stays registered unless a process renews it.
    pub known_for_ms: Option<u64>,
    /// How many sessions have begun to hear its events since the server was started.
    pub joined: u64,
    /// Up to which of them it is proven that nothing was missed.
    pub proven: u64,
}

/// What is under a key of the cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CachedEntry {
    /// The value, as it is stored.
    pub value: Bytes,
    /// How long it has to live, `stale` included; nothing if it has no end.
    pub left: Option<std::time::Duration>,
    /// Somebody is loading it.
    pub is_loading: bool,
}

/// Whether one command is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Right {
    /// What needs it.
    pub feature: Feature,
    /// The command.
    pub command: String,
    /// Why it is refused, in the server's words; nothing if it is allowed.
    pub refusal: Option<String>,
    /// What would allow it, in the words of `ACL SETUSER`: a command (`+xadd`), keys (`~msg:*`) or channels (`&orders.*`).
    /// Nothing if it is allowed, or if the server is too old to know it.
    pub rule: Option<String>,
}

impl Operator {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        Self(Arc::clone(core))
    }

    /// All streams of this deployment, sorted by name.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn streams(&self) -> Result<Vec<StreamReport>> {
        let core = &self.0;
        let reports = futures_util::stream::iter(self.registered().await?).map(async |info: StreamInfo| {
            let facts = core.backend.stream_facts(&info.name).await?;
            let Retention { max_len, max_age } = info.retention();
            Ok(StreamReport {
                stream: info.name.to_string(),
                pattern: self.pattern_of(&info.name),
                partitions: info.kept.partitions,
                max_len: max_len.get(),
                max_age_ms: u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX),
                length: facts.length,
                published: facts.number,
                oldest_ms: facts.first.map(|id| id.millis),
                newest_ms: (facts.last != EntryId::MIN).then_some(facts.last.millis),
            })
        });
        reports.buffered(AT_ONCE).try_collect().await
    }

    /// All groups of all streams of this deployment, sorted by stream and name.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn groups(&self) -> Result<Vec<GroupReport>> {
        let core = &self.0;
        let now = core.backend.now().await?;
        let facts = futures_util::stream::iter(self.registered().await?).map(async |info: StreamInfo| {
            let facts = core.backend.group_facts(&info.name).await?;
            Ok::<_, Error>((info.name.to_string(), facts))
        });
        let facts: Vec<(String, Vec<GroupFacts>)> = facts.buffered(AT_ONCE).try_collect().await?;
        let groups = facts
            .into_iter()
            .flat_map(|(stream, facts)| facts.into_iter().map(move |facts| group(&stream, facts, now)));
        let mut groups: Vec<_> = groups.collect();
        groups.sort_by(|a, b| (&a.stream, &a.group).cmp(&(&b.stream, &b.group)));
        Ok(groups)
    }

    /// The groups that have dead letters, also those whose stream has expired meanwhile, with how many they have. It
    /// scans the key space without blocking the server.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn dead_letters(&self) -> Result<Vec<(String, u64)>> {
        let streams: Vec<_> = self.registered().await?.into_iter().map(|info| info.name).collect();
        let mut counted = Vec::new();
        for group in self.0.backend.dead_groups(&streams).await? {
            let mut count = 0;
            for stream in &streams {
                count += self.0.backend.dead_count(stream, &group).await?;
            }
            if count > 0 {
                counted.push((group, count));
            }
        }
        Ok(counted)
    }

    /// How a channel is durable: which stream would carry what is published on it, as a pattern for
    /// [`Builder::durable`](crate::Builder::durable). Where several could, the one that is the most precise. `None` if
    /// none is registered.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn durability_of(&self, channel: &Channel) -> Result<Option<(String, Durability)>> {
        let fitting = self.registered().await?.into_iter().filter_map(|info| {
            let pattern = self.pattern_of(&info.name);
            Pattern::parse(&pattern)
                .ok()
                .filter(|pattern| pattern.matches(channel))
                .map(|parsed| (parsed, info))
        });
        let precise = |(pattern, _): &(Pattern, StreamInfo)| match pattern {
            Pattern::Exact(_) => 0,
            Pattern::Template(_) => 1,
            Pattern::Glob(_) => 2,
        };
        Ok(fitting
            .min_by_key(precise)
            .map(|(pattern, info)| (pattern.as_str().to_owned(), info.durability())))
    }

    /// Removes a stream with everything that its groups keep, dead letters included, and takes it out of the registry:
    /// for a channel that nobody uses any more. `false` if it is not there.
    ///
    /// # Errors
    /// What the backend says; some of it may be gone then.
    pub async fn remove_stream(&self, stream: &str) -> Result<bool> {
        let streams = self.registered().await?;
        match streams.iter().find(|info| info.name.to_string() == stream) {
            Some(info) => self.0.backend.remove_stream(&info.name).await,
            None => Ok(false),
        }
    }

    /// The cached functions with `invalidate_on` that the processes of this deployment have registered.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn families(&self) -> Result<Vec<FamilyReport>> {
        let registered = self.0.cache.registered().await?;
        let report = |known: crate::cache::Registered| {
            let (rules, facts) = (known.rules, known.facts);
            let millis =
                |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            FamilyReport {
                id: rules.id().to_owned(),
                key: rules.definition.key().to_owned(),
                glob: rules.glob(),
                channels: rules.patterns().map(|pattern| pattern.as_str().to_owned()).collect(),
                keep_ms: millis(rules.definition.keep()),
                known_for_ms: facts.known_for.map(millis),
                joined: facts.joined,
                proven: facts.proven,
            }
        };
        Ok(registered.into_iter().map(report).collect())
    }

    /// Removes all values of a cached function of any process, defeats the loads of them that are running, and tells all
    /// processes; returns how many values there were. It scans the key space without blocking the server.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if no function of this id is registered: only those with `invalidate_on` are. Otherwise
    /// what the backend says, and then some values may be gone.
    pub async fn invalidate_family(&self, id: &str) -> Result<u64> {
        self.0.cache.forget_all_of_any(id).await
    }

    /// What is under a key of the cache, given without the deployment's prefix.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey); otherwise what the backend says.
    pub async fn cached(&self, key: &str) -> Result<Option<CachedEntry>> {
        let kept =
            self.0.cache.kept(key).await.map_err(|error| error.context(format_args!("get {key:?}")))?;
        Ok(kept.value.map(|value| CachedEntry { value, left: kept.left, is_loading: kept.is_loading }))
    }

    /// Whether an ACL allows what the library does, command by command: on `channel`, on the stream that would carry it, and
    /// on cached values whose keys match the glob `values`. Nothing is carried out. On `memory://` there is no ACL, and
    /// nothing to tell.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) if the user may not even ask (`MULTI`); otherwise what the backend says.
    pub async fn rights(&self, channel: &Channel, values: &str) -> Result<Vec<Right>> {
        let prefix = &self.0.config.channel_prefix;
        let value = values.replace(['*', '?', '[', ']', '\\'], "x");
        let key = crate::backend::CacheKey::new(&self.0.config.namespace, value);
        let stream = match self.durability_of(channel).await {
            Ok(Some((pattern, _))) => StreamName::of(&Pattern::parse(&pattern)?, prefix),
            // Which it is may not be seen.
            Ok(None) | Err(_) => StreamName::of(&Pattern::Exact(channel.clone()), prefix),
        };
        let scope = Scope {
            channel: format!("{prefix}{channel}"),
            stream,
            group: "check".to_owned(),
            value: key.value,
            lease: key.lease,
            values: values.to_owned(),
        };
        let tried = self.0.backend.rights(&scope).await?;
        let right = |tried: crate::backend::operate::Tried| {
            let (refusal, rule) = tried.refusal.map(|refusal| (refusal.reason, refusal.rule)).unzip();
            Right { feature: tried.feature, command: tried.command, refusal, rule: rule.flatten() }
        };
        Ok(tried.into_iter().map(right).collect())
    }

    /// How often each command was called by anybody since the server was started, by its name in lower case (`publish`,
    /// `xinfo|stream`); of a cluster, on all primaries together. On `memory://` there are no commands.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn command_calls(&self) -> Result<BTreeMap<String, u64>> {
        self.0.backend.command_calls().await
    }

    /// The user whose rights count, as the configuration names him.
    #[must_use]
    pub fn user(&self) -> String {
        self.0.config.endpoint.user().unwrap_or("default").to_owned()
    }

    /// Other channel prefixes may share the namespace.
    async fn registered(&self) -> Result<Vec<StreamInfo>> {
        let prefix = self.0.config.channel_prefix.as_str();
        let mut streams = self.0.backend.streams().await?;
        streams.retain(|stream| stream.name.template().starts_with(prefix));
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(streams)
    }

    fn pattern_of(&self, stream: &StreamName) -> String {
        stream.pattern(&self.0.config.channel_prefix)
    }
}

fn group(stream: &str, facts: GroupFacts, now: u64) -> GroupReport {
    let GroupFacts { state, at_least, oldest, consumers, dead } = facts;
    let millis = |idle: std::time::Duration| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    let consumers = consumers.into_iter().map(|consumer| ConsumerReport {
        name: consumer.name,
        alive: consumer.lives,
        pending: consumer.pending,
        idle_ms: millis(consumer.idle),
    });
    let consumers: Vec<_> = consumers.collect();
    GroupReport {
        stream: stream.to_owned(),
        group: state.group,
        alive: state.alive,
        pending: state.pending,
        delayed: state.delayed,
        unread: state.unread,
        unread_is_least: at_least,
        oldest_pending_ms: oldest.map(|id| now.saturating_sub(id.millis)),
        idle_ms: consumers.iter().map(|consumer| consumer.idle_ms).min(),
        dead,
        consumers,
    }
}
