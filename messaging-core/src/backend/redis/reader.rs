//! Reading streams, on a connection of its own: an answer may be waited for. What comes is hundreds of entries at a time, so
//! answers are taken apart where they were received, and nothing of them is copied.
//!
//! Why it is ours: the `redis` crate's parser spends three times as long on an entry as everything else that is done with
//! it here, the handler's JSON included.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::answers::describe_reply;
use super::connection::{Dialled, Watch, broken, command, garbled};
use super::push::{ProtocolError, Scan, bulk_size, length};
use super::{Redis, millis};
use crate::backend::closed;
use crate::backend::streams::{Batch, Member};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{EntryId, RawEntry, StreamName, field};

/// How much is read at least, and made room for at most, at once.
const CHUNK: usize = 64 << 10;
const MOST_ROOM: usize = 1 << 20;
/// An answer that is shorter is copied: it must not keep the whole buffer alive that it came in.
const WORTH_KEEPING: usize = 16 << 10;

impl Redis {
    pub(crate) async fn stream_reader(&self, first: &StreamName) -> Result<StreamReader> {
        let key = first.key(&self.namespace, "stream");
        let mut dialled = Box::pin(self.dialer.reader(self.link.owner(&key))).await?;
        Ok(StreamReader {
            watch: std::mem::take(&mut dialled.watch),
            line: Line {
                dialled,
                out: Vec::new(),
                scan: Scan::default(),
                owed: 0,
                is_torn: false,
                usual: 0,
                endpoint: self.endpoint.clone(),
            },
            namespace: self.namespace.clone(),
            limit: self.command_timeout,
        })
    }
}

/// A connection of its own for reads that wait.
///
/// Cancellation: an answer that was not waited for is passed over by the next question.
pub(crate) struct StreamReader {
    line: Line,
    /// A master that the sentinels have given up may go on answering that there is nothing new.
    watch: Watch,
    namespace: String,
    /// How long an answer may take beyond the wait.
    limit: Duration,
}

impl StreamReader {
    pub(crate) async fn read_group(
        &mut self,
        member: &Member,
        streams: &[StreamName],
        most: usize,
        wait: Duration,
    ) -> Result<Batch> {
        let keys: Vec<_> = streams.iter().map(|stream| stream.key(&self.namespace, "stream")).collect();
        let (most, block) = (most.to_string(), millis(wait).to_string());
        let mut read = vec!["XREADGROUP", "GROUP", &member.group, &member.consumer];
        read.extend(["COUNT", &most, "BLOCK", &block, "STREAMS"]);
        read.extend(keys.iter().map(String::as_str));
        read.extend(keys.iter().map(|_| ">"));
        self.read(&read, wait, &keys).await
    }

    pub(crate) async fn read_after(
        &mut self,
        streams: &[(StreamName, EntryId)],
        most: usize,
        wait: Duration,
    ) -> Result<Batch> {
        let keys: Vec<_> = streams.iter().map(|(stream, _)| stream.key(&self.namespace, "stream")).collect();
        let after: Vec<_> = streams.iter().map(|(_, after)| after.to_string()).collect();
        let (most, block) = (most.to_string(), millis(wait).to_string());
        let mut read = vec!["XREAD", "COUNT", &most, "BLOCK", &block, "STREAMS"];
        read.extend(keys.iter().chain(&after).map(String::as_str));
        self.read(&read, wait, &keys).await
    }

    pub(crate) async fn last_of(
        &mut self,
        streams: &[(StreamName, EntryId)],
    ) -> Result<Vec<Option<EntryId>>> {
        for (stream, _) in streams {
            self.line.put(&["XINFO", "STREAM", &stream.key(&self.namespace, "stream")]);
        }
        let answers = self.ask(streams.len(), Duration::ZERO).await?;
        let last = |answer: Bytes| match self.line.checked(&answer) {
            Ok(()) => {
                let info: HashMap<String, Value> = redis::parse_redis_value(&answer)
                    .and_then(|info| Ok(redis::from_redis_value(info)?))
                    .map_err(|_| unexpected())?;
                match info.get("last-generated-id") {
                    Some(Value::BulkString(id)) => id_of(id).map(Some),
                    _ => Err(unexpected()),
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(EntryId::MIN)),
            Err(error) if error.kind() == ErrorKind::Refused => Ok(None),
            Err(error) => Err(error),
        };
        answers.into_iter().map(last).collect()
    }

    async fn read(&mut self, read: &[&str], wait: Duration, keys: &[String]) -> Result<Batch> {
        self.line.put(read);
        let answer = self.ask(1, wait).await?.pop().unwrap_or_default();
        self.line.checked(&answer)?;
        batch(&answer, keys).map_err(|_| unexpected())
    }

    /// Sends what was put, and waits for so many answers, but not for ever.
    async fn ask(&mut self, answers: usize, wait: Duration) -> Result<Vec<Bytes>> {
        let limit = wait + self.limit;
        let answered = tokio::select! {
            answered = timeout(limit, self.line.ask(answers)) => answered,
            error = self.watch.left() => return Err(error),
        };
        answered.unwrap_or_else(|_| {
            let endpoint = &self.line.endpoint;
            let text = format!("redis at {endpoint} did not answer a read of streams within {limit:?}");
            Err(Error::new(ErrorKind::Timeout, text))
        })
    }
}

impl std::fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader").field("endpoint", &self.line.endpoint).finish_non_exhaustive()
    }
}

/// The connection, and how far it has been read.
struct Line {
    dialled: Dialled,
    out: Vec<u8>,
    /// How much of the next answer is there.
    scan: Scan,
    /// How many answers have not come yet, those included that nobody waits for any more.
    owed: usize,
    /// A command was cut off while it was being written.
    is_torn: bool,
    /// How long answers are.
    usual: usize,
    endpoint: String,
}

impl Line {
    /// Adds a command to what is sent next.
    fn put(&mut self, arguments: &[&str]) {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        command(&mut self.out, &arguments);
    }

    async fn ask(&mut self, answers: usize) -> Result<Vec<Bytes>> {
        let Self { dialled, out, endpoint, .. } = self;
        if std::mem::replace(&mut self.is_torn, true) {
            return Err(closed());
        }
        self.owed += answers;
        dialled.stream.write_all(out).await.map_err(|source| broken(endpoint, source))?;
        dialled.stream.flush().await.map_err(|source| broken(endpoint, source))?;
        out.clear();
        self.is_torn = false;
        let mut answered = Vec::with_capacity(answers);
        while self.owed > 0 {
            let answer = self.answer().await?;
            self.owed -= 1;
            if self.owed < answers {
                answered.push(answer);
            }
        }
        Ok(answered)
    }

    async fn answer(&mut self) -> Result<Bytes> {
        let Self { dialled: Dialled { stream, buffer, .. }, scan, usual, endpoint, .. } = self;
        loop {
            let missing = match scan.whole(buffer).map_err(|error| garbled(endpoint, &error))? {
                Ok(size) => {
                    *usual = size.max(*usual / 4 * 3);
                    let answer = buffer.split_to(size);
                    let is_short = size < WORTH_KEEPING;
                    return Ok(if is_short { Bytes::copy_from_slice(&answer) } else { answer.freeze() });
                }
                Err(missing) => missing,
            };
            let room = missing.max(usual.saturating_sub(buffer.len())).clamp(CHUNK, MOST_ROOM);
            buffer.reserve(room);
            let read = stream.read_buf(buffer).await.map_err(|source| broken(endpoint, source))?;
            if read == 0 {
                return Err(closed());
            }
        }
    }

    /// Whether an answer is none of an error.
    fn checked(&self, answer: &[u8]) -> Result<()> {
        match answer.strip_prefix(b"-") {
            Some(error) => {
                let text = String::from_utf8_lossy(error);
                Err(describe_reply(text.trim_end(), &self.endpoint))
            }
            None => Ok(()),
        }
    }
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Decode, "redis answered a read of streams in an unknown form")
}

const UNKNOWN: ProtocolError = ProtocolError("a read of streams in an unknown form");

fn id_of(text: &[u8]) -> Result<EntryId> {
    std::str::from_utf8(text).map_err(|_| unexpected())?.parse()
}

/// What was read, by the position of each stream's key: a null, or an array of keys with their entries.
fn batch(answer: &Bytes, keys: &[String]) -> Result<Batch, ProtocolError> {
    let mut cursor = Cursor { answer, at: 0 };
    let Some(streams) = cursor.array()? else { return Ok(Batch::new()) };
    let mut batch = Batch::with_capacity(streams.min(keys.len()));
    for _ in 0..streams {
        cursor.array_of(2)?;
        let key = cursor.bulk()?;
        let position = keys.iter().position(|wanted| wanted.as_bytes() == &answer[key.clone()]);
        let count = cursor.array()?.unwrap_or(0);
        let entries = (0..count).map(|_| cursor.entry()).collect::<Result<_, _>>()?;
        batch.push((position.ok_or(UNKNOWN)?, entries));
    }
    Ok(batch)
}

/// Goes through an answer that is all there.
struct Cursor<'a> {
    answer: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    /// An entry's id and its fields; none of one whose body was trimmed away.
    fn entry(&mut self) -> Result<RawEntry, ProtocolError> {
        self.array_of(2)?;
        let id = self.bulk()?;
        let id = id_of(&self.answer[id]).map_err(|_| UNKNOWN)?;
        let count = self.array()?.unwrap_or(0);
        // Each takes at least this much.
        let mut fields = Vec::with_capacity((count / 2).min(self.answer.len() / "$0\r\n\r\n".len()));
        for _ in 0..count / 2 {
            let name = self.bulk()?;
            let value = self.bulk()?;
            let name = field::known(&self.answer[name.clone()])
                .map_or_else(|| self.answer.slice(name), |name| Bytes::from_static(name.as_bytes()));
            fields.push((name, self.answer.slice(value)));
        }
        Ok(RawEntry { id, fields })
    }

    fn array_of(&mut self, count: usize) -> Result<(), ProtocolError> {
        if self.array()? == Some(count) { Ok(()) } else { Err(UNKNOWN) }
    }

    /// How many elements come; none of a null, which some servers write as a string's.
    fn array(&mut self) -> Result<Option<usize>, ProtocolError> {
        let kind = self.answer.get(self.at).copied();
        let (count, after) = length(self.answer, self.at + 1)?.ok_or(UNKNOWN)?;
        if kind != Some(b'*') && !(kind == Some(b'$') && count.is_none()) {
            return Err(UNKNOWN);
        }
        self.at = after;
        Ok(count)
    }

    fn bulk(&mut self) -> Result<Range<usize>, ProtocolError> {
        let (size, start) = bulk_size(self.answer, self.at)?.ok_or(UNKNOWN)?;
        let end = start + size.ok_or(UNKNOWN)?;
        self.at = end + 2;
        if self.at > self.answer.len() { Err(UNKNOWN) } else { Ok(start..end) }
    }
}

#[cfg(test)]
mod tests;
