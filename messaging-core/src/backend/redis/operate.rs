//! How streams, groups and cached functions are, asked of Redis.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join3, try_join, try_join_all};
use redis::{Value, cmd};

use super::Redis;
use crate::backend::operate::{ConsumerFacts, FamilyFacts, GroupFacts, StreamFacts};
use crate::error::{ErrorKind, Result};
use crate::stream::{EntryId, StreamName};

/// What a group keeps beside its stream.
const BESIDE: [&str; 7] = ["alive", "delay", "attempts", "owner", "members", "seen", "dead"];

impl Redis {
    pub(crate) async fn stream_facts(&self, stream: &StreamName) -> Result<StreamFacts> {
        let mut length = cmd("XLEN");
        length.arg(stream.key(&self.namespace, "stream"));
        let (length, first, tail) = join3(
            self.command::<u64>(&length),
            self.range(stream, EntryId::MIN, EntryId::MAX, 1),
            self.tail(stream),
        )
        .await;
        let (first, tail) = (first?.first().map(|entry| entry.id), tail?);
        Ok(StreamFacts { length: length?, first, last: tail.id, number: tail.number })
    }

    pub(crate) async fn group_facts(&self, stream: &StreamName) -> Result<Vec<GroupFacts>> {
        let mut info = cmd("XINFO");
        info.arg("GROUPS").arg(stream.key(&self.namespace, "stream"));
        let known = match self.command::<Vec<HashMap<String, Value>>>(&info).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            known => known?,
        };
        let states = self.groups(stream).await?;
        let facts = states.into_iter().map(async |mut state| {
            let of = known.iter().find(|group| text(group.get("name")).as_deref() == Some(&*state.group));
            // Before 7.0, and where entries were removed from the middle, Redis does not know how many there are.
            let unknown = of.is_some_and(|group| !matches!(group.get("lag"), Some(Value::Int(_))));
            let mut at_least = false;
            if unknown && state.unread > 0 {
                let read = of.and_then(|group| text(group.get("last-delivered-id")));
                let read = read.and_then(|id| id.parse::<EntryId>().ok()).unwrap_or(EntryId::MIN);
                match self.numbers_after(stream, read).await? {
                    Some(unread) => state.unread = unread,
                    None => at_least = true,
                }
            }
            let (oldest, consumers) =
                try_join(self.oldest_pending(stream, &state.group), self.consumers(stream, &state.group))
                    .await?;
            let dead = self.dead_count(stream, &state.group).await?;
            Ok(GroupFacts { state, at_least, oldest, consumers, dead })
        });
        try_join_all(facts).await
    }

    /// How many entries come after this one, by the numbers that publishers of ours give them.
    async fn numbers_after(&self, stream: &StreamName, read: EntryId) -> Result<Option<u64>> {
        let next = self.range(stream, read.next(), EntryId::MAX, 1).await?;
        let Some(next) = next.first() else { return Ok(Some(0)) };
        let number = next.fields.iter().find(|(name, _)| &name[..] == b"n").map(|(_, value)| value);
        let number = number.and_then(|value| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
        let last = self.tail(stream).await?.number;
        Ok(number.filter(|number| (1..=last).contains(number)).map(|number| last - number + 1))
    }

    async fn oldest_pending(&self, stream: &StreamName, group: &str) -> Result<Option<EntryId>> {
        let mut pending = cmd("XPENDING");
        pending.arg(stream.key(&self.namespace, "stream")).arg(group).arg("-").arg("+").arg(1);
        let pending: Vec<(String, String, u64, u64)> = self.command(&pending).await?;
        pending.first().map(|(id, ..)| id.parse()).transpose()
    }

    async fn consumers(&self, stream: &StreamName, group: &str) -> Result<Vec<ConsumerFacts>> {
        let mut info = cmd("XINFO");
        info.arg("CONSUMERS").arg(stream.key(&self.namespace, "stream")).arg(group);
        let mut alive = cmd("ZRANGEBYSCORE");
        alive.arg(stream.group_key(&self.namespace, "alive", group));
        alive.arg(self.now().await?).arg("+inf");
        let (known, alive) = try_join(
            self.command::<Vec<HashMap<String, Value>>>(&info),
            self.command::<HashSet<String>>(&alive),
        )
        .await?;
        let mut consumers: Vec<_> = known
            .iter()
            .filter_map(|consumer| {
                let name = text(consumer.get("name"))?;
                Some(ConsumerFacts {
                    pending: number(consumer.get("pending")),
                    idle: Duration::from_millis(number(consumer.get("idle"))),
                    lives: alive.contains(&name),
                    name,
                })
            })
            // What was handed back stands under this name.
            .filter(|consumer| consumer.name != "-")
            .collect();
        // One that has never read anything is in no list of Redis's.
        for name in alive {
            if consumers.iter().all(|consumer| consumer.name != name) {
                consumers.push(ConsumerFacts { name, pending: 0, idle: Duration::ZERO, lives: true });
            }
        }
        consumers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(consumers)
    }

    pub(crate) async fn dead_count(&self, stream: &StreamName, group: &str) -> Result<u64> {
        self.command(cmd("XLEN").arg(stream.group_key(&self.namespace, "dead", group))).await
    }

    pub(crate) async fn dead_groups(&self, streams: &[StreamName]) -> Result<BTreeSet<String>> {
        let mut glob = String::new();
        crate::channel::escape_glob(&self.namespace, &mut glob);
        glob.push_str(":{*}:dead:*");
        let beginnings: Vec<_> =
            streams.iter().map(|stream| stream.group_key(&self.namespace, "dead", "")).collect();
        let mut groups = BTreeSet::new();
        let (nodes, _) = self.link.primaries(self.command_timeout).await?;
        for node in nodes {
            let mut cursor = 0_u64;
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&glob).arg("COUNT").arg(1_000).arg("TYPE").arg("stream");
                let (next, keys): (u64, Vec<Bytes>) = self.command_on(&node, &scan).await?;
                for key in keys.iter().filter_map(|key| std::str::from_utf8(key).ok()) {
                    let group = beginnings.iter().find_map(|beginning| key.strip_prefix(beginning.as_str()));
                    groups.extend(group.map(str::to_owned));
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(groups)
    }

    pub(crate) async fn remove_stream(&self, stream: &StreamName) -> Result<bool> {
        let groups = self.groups(stream).await?;
        let mut remove = cmd("UNLINK");
        for what in ["stream", "n", "epoch"] {
            remove.arg(stream.key(&self.namespace, what));
        }
        for state in &groups {
            for what in BESIDE {
                remove.arg(stream.group_key(&self.namespace, what, &state.group));
            }
        }
        let removed: u64 = self.command(&remove).await?;
        for state in &groups {
            // Elsewhere on a cluster.
            let since = format!("{}:since:{}:{}", self.namespace, state.group, stream.template());
            self.command::<u64>(cmd("UNLINK").arg(since)).await?;
        }
        let mut forget = cmd("HDEL");
        forget.arg(format!("{}:streams", self.namespace)).arg(stream.to_string());
        let known: u64 = self.command(&forget).await?;
        // Whoever publishes on it again from here has to register it.
        self.registered.forget(stream.template());
        Ok(removed + known > 0)
    }

    pub(crate) async fn command_calls(&self) -> Result<BTreeMap<String, u64>> {
        let infos: Vec<String> = self.of_each_primary(cmd("INFO").arg("commandstats")).await?;
        let mut calls = BTreeMap::new();
        for line in infos.iter().flat_map(|info| info.lines()) {
            let Some((command, stats)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(':'))
            else {
                continue;
            };
            let count =
                stats.strip_prefix("calls=").and_then(|stats| stats.split(',').next()?.parse::<u64>().ok());
            *calls.entry(command.to_owned()).or_default() += count.unwrap_or_default();
        }
        Ok(calls)
    }

    pub(crate) async fn family_facts(&self, names: &[&str]) -> Result<Vec<FamilyFacts>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.now().await?;
        let mut expiries = cmd("ZMSCORE");
        expiries.arg(&self.names.expiries).arg(names);
        let mut cover = cmd("HMGET");
        cover.arg(&self.names.cover);
        for name in names {
            cover.arg(format!("{name}:n")).arg(format!("{name}:proven"));
        }
        let (expiries, cover) =
            try_join(self.command::<Vec<Option<f64>>>(&expiries), self.command::<Vec<Option<u64>>>(&cover))
                .await?;
        let facts = expiries.iter().zip(cover.chunks(2)).map(|(expires, cover)| FamilyFacts {
            known_for: expires.map(|at| Duration::from_millis((at as u64).saturating_sub(now))),
            joined: cover.first().copied().flatten().unwrap_or_default(),
            proven: cover.get(1).copied().flatten().unwrap_or_default(),
        });
        Ok(facts.collect())
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn number(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or_default(),
        _ => 0,
    }
}
