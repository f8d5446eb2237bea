//! Durable channels on Redis: streams with consumer groups, and beside each group what it delays, remembers and has
//! given up. See `stream_scripts` for what has to happen in one step.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Cmd, ScriptInvocation, Value, cmd};

use super::{Redis, millis};
use crate::backend::Token;
use crate::backend::streams::{
    Append, From, GroupState, MOST_TAKEOVERS, Member, Settlement, Tail, Taken, Tend, Tended,
};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{EntryId, EventId, RawEntry, Retention, StreamInfo, StreamName};

/// For how long a stream that was registered is taken to be so.
const REGISTERED: Duration = Duration::from_secs(10);

/// When each template was to be registered the last time.
#[derive(Debug, Default)]
pub(super) struct Registered(Mutex<HashMap<String, Registration>>);

#[derive(Debug)]
struct Registration {
    at: Instant,
    /// It has been once.
    known: bool,
}

impl Registered {
    /// Whether it has to be registered now. Whoever asks is taken to do it.
    pub(super) fn is_due(&self, template: &str) -> bool {
        let mut registered = self.lock();
        let now = Instant::now();
        match registered.get_mut(template) {
            Some(registration) if registration.at.elapsed() < REGISTERED => false,
            Some(registration) => {
                registration.at = now;
                true
            }
            None => {
                registered.insert(template.to_owned(), Registration { at: now, known: false });
                true
            }
        }
    }

    pub(super) fn note(&self, template: &str) {
        if let Some(registration) = self.lock().get_mut(template) {
            registration.known = true;
        }
    }

    pub(super) fn is_known(&self, template: &str) -> bool {
        self.lock().get(template).is_some_and(|registration| registration.known)
    }

    /// It was not, or is not any more.
    pub(super) fn forget(&self, template: &str) {
        self.lock().remove(template);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Registration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Redis {
    fn key(&self, stream: &StreamName, what: &str) -> String {
        stream.key(&self.namespace, what)
    }

    fn group_key(&self, stream: &StreamName, what: &str, group: &str) -> String {
        stream.group_key(&self.namespace, what, group)
    }

    fn registry_key(&self) -> String {
        format!("{}:streams", self.namespace)
    }

    /// The command that registers streams.
    pub(super) fn registration(&self, streams: &[StreamInfo]) -> Cmd {
        let mut register = cmd("HSET");
        register.arg(self.registry_key());
        for stream in streams {
            register.arg(stream.name.to_string()).arg(stream.to_json());
        }
        register
    }

    /// The keys and arguments of the script that appends; `publish` is the command that it publishes with, if any.
    pub(super) fn append_parts(
        &self,
        append: &Append,
        channel: &str,
        payload: &Bytes,
        publish: &str,
        mark: Option<(&Bytes, &[crate::backend::CacheKey])>,
    ) -> ([String; 2], Vec<Bytes>) {
        let stream = append.target(channel);
        let text = |text: String| Bytes::from(text);
        let retention = append.durability.retention;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut arguments = vec![
            text(channel.to_owned()),
            payload.clone(),
            text(retention.max_len.to_string()),
            text(millis(retention.max_age).to_string()),
            text(publish.to_owned()),
            text(append.event.as_str().to_owned()),
            text(now.as_millis().to_string()),
        ];
        let (mark, removed) = mark.map_or((Bytes::new(), &[][..]), |(mark, removed)| (mark.clone(), removed));
        arguments.extend([text(self.names.own.clone()), mark, text((2 * removed.len()).to_string())]);
        let removed = removed.iter().flat_map(|key| [&key.value, &key.lease]);
        arguments.extend(removed.map(|key| text(key.clone())));
        let kind = append.kind.iter().map(|kind| ("type", kind));
        let key = append.key.iter().map(|key| ("key", key));
        let headers = append.headers.iter().map(|(name, value)| (name.as_str(), value));
        for (name, value) in kind.chain(key).chain(headers) {
            arguments.push(text(name.to_owned()));
            arguments.push(text(value.clone()));
        }
        ([self.key(&stream, "stream"), self.key(&stream, "n")], arguments)
    }

    /// On a cluster a read is of one slot.
    pub(crate) fn readable_together(&self) -> bool {
        !self.is_cluster()
    }

    pub(crate) async fn now(&self) -> Result<u64> {
        let (seconds, micros): (u64, u64) = self.command(&cmd("TIME")).await?;
        Ok(seconds * 1_000 + micros / 1_000)
    }

    pub(crate) async fn streams(&self) -> Result<Vec<StreamInfo>> {
        let kept: Vec<Bytes> = self.command(cmd("HVALS").arg(self.registry_key())).await?;
        Ok(kept.iter().filter_map(|kept| StreamInfo::read(kept)).collect())
    }

    pub(crate) async fn register(&self, streams: &[StreamInfo]) -> Result<()> {
        if streams.is_empty() { Ok(()) } else { self.command(&self.registration(streams)).await }
    }

    pub(crate) async fn listens_since(
        &self,
        group: &str,
        wire: &str,
        now: u64,
        kept: Duration,
    ) -> Result<u64> {
        let mut call = self.stream_scripts.since.key(format!("{}:since:{group}:{wire}", self.namespace));
        call.arg(now).arg(millis(kept));
        self.invoke(&call).await
    }

    pub(crate) async fn ensure_group(&self, stream: &StreamName, group: &str, from: From) -> Result<()> {
        let (after, is_place) = match from {
            From::Beginning => ("0".to_owned(), 0),
            From::Now => ("$".to_owned(), 0),
            From::Time(millis) => (EntryId { millis, sequence: 0 }.previous().to_string(), 0),
            From::After(id) => (id.to_string(), 1),
        };
        let mut call = self.stream_scripts.ensure_group.key(self.key(stream, "stream"));
        call.arg(group).arg(after).arg(is_place);
        self.invoke(&call).await
    }

    pub(crate) async fn tend(&self, stream: &StreamName, member: &Member, tend: Tend) -> Result<Tended> {
        let group = &member.group;
        let mut call = self.stream_scripts.tend.key(self.key(stream, "stream"));
        for what in ["alive", "delay", "attempts", "owner"] {
            call.key(self.group_key(stream, what, group));
        }
        call.arg(group).arg(&member.consumer).arg(millis(tend.lease));
        call.arg(tend.take).arg(u8::from(tend.exclusive)).arg(u8::from(tend.recover)).arg(MOST_TAKEOVERS);
        type Answer = (u8, u8, i64, usize, u8, String, Vec<Value>);
        let (ours, lapsed, next_due, lost, more, read, entries): Answer = self.invoke(&call).await?;
        let mut taken = entries.into_iter().map(read_taken).collect::<Result<Vec<_>>>()?;
        taken.sort_by_key(|taken| taken.entry.id);
        Ok(Tended {
            ours: ours == 1,
            lapsed: lapsed == 1,
            taken,
            next_due: u64::try_from(next_due).ok().map(Duration::from_millis),
            lost,
            more: more > 0,
            waits: more == 2,
            read: read.parse()?,
        })
    }

    pub(crate) async fn read_exclusive(
        &self,
        stream: &StreamName,
        member: &Member,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        let mut call = self.stream_scripts.read_exclusive.key(self.key(stream, "stream"));
        call.key(self.group_key(stream, "owner", &member.group));
        call.arg(&member.group).arg(&member.consumer).arg(most);
        read_entries(self.invoke(&call).await?)
    }

    pub(crate) async fn join(&self, stream: &StreamName, member: &Member, lease: Duration) -> Result<u64> {
        let mut call = self.stream_scripts.join.key(self.members_key(stream, &member.group));
        call.arg(&member.consumer).arg(millis(lease));
        self.invoke(&call).await
    }

    fn members_key(&self, stream: &StreamName, group: &str) -> String {
        self.group_key(&stream.whole(), "members", group)
    }

    pub(crate) async fn holdings(&self, stream: &StreamName, member: &Member) -> Result<Vec<EntryId>> {
        const AT_ONCE: usize = 1_000;
        let mut ids: Vec<EntryId> = Vec::new();
        loop {
            let mut pending = cmd("XPENDING");
            pending.arg(self.key(stream, "stream")).arg(&member.group);
            pending.arg(ids.last().map_or("-".to_owned(), |last| format!("({last}"))).arg("+").arg(AT_ONCE);
            pending.arg(&member.consumer);
            let page: Vec<(String, String, u64, u64)> = self.command(&pending).await?;
            for (id, ..) in &page {
                ids.push(id.parse()?);
            }
            if page.len() < AT_ONCE {
                return Ok(ids);
            }
        }
    }

    pub(crate) async fn settle(
        &self,
        stream: &StreamName,
        member: &Member,
        settlements: &[Settlement],
    ) -> Result<()> {
        let group = &member.group;
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(self.key(stream, "stream")).arg(group);
        let mut call = self.stream_scripts.settle.key(self.key(stream, "stream"));
        for what in ["delay", "attempts", "seen", "dead"] {
            call.key(self.group_key(stream, what, group));
        }
        call.arg(group).arg(&member.consumer);
        let (mut plain, mut others) = (0, 0);
        for settlement in settlements {
            let id = settlement.id().to_string();
            match settlement {
                Settlement::Done { remember: None, retried: false, .. } => {
                    acknowledge.arg(id);
                    plain += 1;
                    continue;
                }
                Settlement::Done { remember, .. } => {
                    let (event, window) = match remember {
                        Some((event, window)) => (event.as_str(), millis(*window)),
                        None => ("", 0),
                    };
                    call.arg("done").arg(id).arg(event).arg(window);
                }
                Settlement::Retry { next, delay, .. } => {
                    call.arg("retry").arg(id).arg(*next).arg(delay_millis(*delay));
                }
                Settlement::Note { next, delay, .. } => {
                    call.arg("note").arg(id).arg(*next).arg(delay_millis(*delay));
                }
                Settlement::HandBack { .. } => _ = call.arg("back").arg(id),
                Settlement::Dead { record, notice, .. } => {
                    let kept = Retention::DEAD;
                    call.arg("dead").arg(id).arg(kept.max_len.get()).arg(millis(kept.max_age));
                    match notice {
                        Some(notice) => call.arg(&notice.channel).arg(&notice.payload[..]),
                        None => call.arg("").arg(""),
                    };
                    call.arg(&record.handler).arg(&record.error).arg(record.attempts).arg(record.failed_at);
                }
            }
            others += 1;
        }
        if plain > 0 && self.command::<usize>(&acknowledge).await? < plain {
            // Somebody has taken one over, and may have put it back to be tried again.
            for settlement in settlements {
                if let Settlement::Done { id, remember: None, retried: false } = settlement {
                    call.arg("done").arg(id.to_string()).arg("").arg(0);
                    others += 1;
                }
            }
        }
        if others > 0 { self.invoke(&call).await } else { Ok(()) }
    }

    pub(crate) async fn seen(
        &self,
        stream: &StreamName,
        group: &str,
        events: &[EventId],
    ) -> Result<Vec<bool>> {
        let mut call = self.stream_scripts.seen.key(self.group_key(stream, "seen", group));
        for event in events {
            call.arg(event.as_str());
        }
        let seen: Vec<u8> = self.invoke(&call).await?;
        Ok(seen.into_iter().map(|seen| seen == 1).collect())
    }

    pub(crate) async fn leave(&self, stream: &StreamName, member: &Member) -> Result<()> {
        let group = &member.group;
        let mut call = self.stream_scripts.leave.key(self.key(stream, "stream"));
        call.key(self.group_key(stream, "alive", group)).key(self.group_key(stream, "owner", group));
        call.arg(group).arg(&member.consumer);
        self.invoke(&call).await
    }

    pub(crate) async fn withdraw(&self, stream: &StreamName, member: &Member) -> Result<()> {
        self.command(cmd("ZREM").arg(self.members_key(stream, &member.group)).arg(&member.consumer)).await
    }

    pub(crate) async fn groups(&self, stream: &StreamName) -> Result<Vec<GroupState>> {
        let mut call = self.stream_scripts.groups.key(self.key(stream, "stream"));
        call.arg(self.group_key(stream, "delay", "")).arg(self.group_key(stream, "alive", ""));
        let groups: Vec<(String, u64, u64, u64, u64)> = self.invoke(&call).await?;
        let state =
            |(group, pending, delayed, unread, alive)| GroupState { group, pending, delayed, unread, alive };
        Ok(groups.into_iter().map(state).collect())
    }

    pub(crate) async fn tail(&self, stream: &StreamName) -> Result<Tail> {
        let mut call = self.stream_scripts.tail.key(self.key(stream, "stream"));
        call.key(self.key(stream, "n"));
        let (id, number): (String, u64) = self.invoke(&call).await?;
        Ok(Tail { id: id.parse()?, number })
    }

    pub(crate) async fn end(&self, stream: &StreamName, over: Option<&str>) -> Result<(Tail, String)> {
        let mut call = self.stream_scripts.end.key(self.key(stream, "stream"));
        call.key(self.key(stream, "n")).key(self.key(stream, "epoch")).arg(Token::random().0);
        call.arg(over.unwrap_or_default());
        let (id, number, epoch): (String, u64, String) = self.invoke(&call).await?;
        Ok((Tail { id: id.parse()?, number }, epoch))
    }

    pub(crate) async fn range_back(
        &self,
        stream: &StreamName,
        last: EntryId,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        let mut range = cmd("XREVRANGE");
        range.arg(self.key(stream, "stream")).arg(last.to_string()).arg("-").arg("COUNT").arg(most);
        read_entries(self.command(&range).await?)
    }

    pub(crate) async fn range(
        &self,
        stream: &StreamName,
        first: EntryId,
        last: EntryId,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        self.entries(self.key(stream, "stream"), first, last, most).await
    }

    pub(crate) async fn dead(
        &self,
        stream: &StreamName,
        group: &str,
        after: EntryId,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        self.entries(self.group_key(stream, "dead", group), after.next(), EntryId::MAX, most).await
    }

    async fn entries(
        &self,
        key: String,
        first: EntryId,
        last: EntryId,
        most: usize,
    ) -> Result<Vec<RawEntry>> {
        let mut range = cmd("XRANGE");
        range.arg(key).arg(first.to_string()).arg(last.to_string()).arg("COUNT").arg(most);
        read_entries(self.command(&range).await?)
    }

    pub(crate) async fn replay(&self, stream: &StreamName, group: &str, id: EntryId) -> Result<bool> {
        let mut call = self.stream_scripts.replay.key(self.group_key(stream, "dead", group));
        call.key(self.key(stream, "stream")).key(self.key(stream, "n"));
        call.arg(id.to_string()).arg(group).arg(millis(Retention::DEFAULT.max_age));
        let replayed: u8 = self.invoke(&call).await?;
        Ok(replayed == 1)
    }

    pub(crate) async fn purge(&self, stream: &StreamName, group: &str, ids: &[EntryId]) -> Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let mut delete = cmd("XDEL");
        delete.arg(self.group_key(stream, "dead", group));
        for id in ids {
            delete.arg(id.to_string());
        }
        self.command(&delete).await
    }

    async fn invoke<T: redis::FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T> {
        self.link
            .run(self.command_timeout, async |mut connection| call.invoke_async(&mut connection).await)
            .await
            .map_err(Error::of_a_script)
    }
}

/// A delay may be nothing, unlike a time to live.
fn delay_millis(delay: Duration) -> u64 {
    if delay.is_zero() { 0 } else { millis(delay) }
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Decode, "redis answered a read of streams in an unknown form")
}

fn read_entries(answer: Value) -> Result<Vec<RawEntry>> {
    match answer {
        Value::Array(entries) => entries.into_iter().map(read_entry).collect(),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unexpected()),
    }
}

fn read_entry(entry: Value) -> Result<RawEntry> {
    let Value::Array(pair) = entry else { return Err(unexpected()) };
    let mut pair = pair.into_iter();
    let id = read_id(pair.next().ok_or_else(unexpected)?)?;
    Ok(RawEntry { id, fields: read_fields(pair.next().unwrap_or(Value::Nil))? })
}

fn read_id(id: Value) -> Result<EntryId> {
    let id = bytes_of(id)?;
    std::str::from_utf8(&id).map_err(|_| unexpected())?.parse()
}

fn read_fields(fields: Value) -> Result<Vec<(Bytes, Bytes)>> {
    let flat = match fields {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(pairs) => {
            return pairs.into_iter().map(|(name, value)| Ok((bytes_of(name)?, bytes_of(value)?))).collect();
        }
        Value::Array(flat) => flat,
        _ => return Err(unexpected()),
    };
    let mut fields = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        fields.push((bytes_of(name)?, bytes_of(value)?));
    }
    Ok(fields)
}

fn read_taken(taken: Value) -> Result<Taken> {
    let Value::Array(parts) = taken else { return Err(unexpected()) };
    let mut parts = parts.into_iter();
    let mut next = || parts.next().ok_or_else(unexpected);
    let id = read_id(next()?)?;
    let fields = read_fields(next()?)?;
    let mut number = || match next()? {
        Value::Int(number) => u64::try_from(number).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    };
    let (attempt, takeovers, wait) = (number()?, number()?, number()?);
    let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Taken {
        entry: RawEntry { id, fields },
        attempt: small(attempt),
        takeovers: small(takeovers),
        wait: Duration::from_millis(wait),
    })
}

fn bytes_of(value: Value) -> Result<Bytes> {
    match value {
        Value::BulkString(bytes) => Ok(Bytes::from(bytes)),
        Value::SimpleString(text) => Ok(Bytes::from(text)),
        _ => Err(unexpected()),
    }
}
