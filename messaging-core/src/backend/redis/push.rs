//! The decoder of our own connections: RESP2 as far as a subscriber or a publisher receives it (simple strings, errors,
//! integers, bulk strings, flat arrays), one batch a read, without copying. No I/O.
//!
//! Source of the format: <https://redis.io/docs/latest/develop/reference/protocol-spec/> and
//! <https://redis.io/docs/latest/develop/pubsub/>. Why it is ours: the `redis` crate's subscriber is unbounded in memory.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::backend::{Chunk, Place, Push, Reply};
use crate::channel::Kind;

/// No line (a simple string, an error) is longer than this.
const LONGEST_LINE: usize = 64 << 10;
/// A message with a longer channel or pattern name is skipped.
const LONGEST_NAME: usize = 1 << 20;
/// No number has more digits: leading zeros must not go on for ever.
const MOST_DIGITS: usize = 20;
/// No array that a subscriber receives has more elements.
const WIDEST_ARRAY: usize = 8;

const NULL_PART: ProtocolError = ProtocolError("a null in a message");

/// The peer sent something that we cannot receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProtocolError(pub(crate) &'static str);

/// Decodes as many frames as there are in the buffer and leaves an unfinished one in it.
#[derive(Debug)]
pub(crate) struct Decoder {
    of: Of,
    /// Payloads that are longer are skipped while they stream in.
    longest_payload: usize,
    longest_name: usize,
    /// How many bytes of an oversized part, its line end included, are still to be skipped.
    skip: usize,
    /// How many parts of the same message come after that and are to be skipped too.
    skip_parts: usize,
    /// How many bytes the buffer needs before it is worth looking again.
    wanted: usize,
    /// What has been found in the buffer: the messages, and everything else with how many messages were before it.
    places: Vec<Place>,
    frames: Vec<(usize, Frame)>,
    /// How many messages there were in the last chunks: so many there may be in the next.
    usual: usize,
}

/// What is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Messages,
    /// The answers to commands, whose values are of any size.
    Commands,
}

/// Where a frame's parts are in the buffer.
#[derive(Debug)]
enum Frame {
    Message(Place),
    /// `size` is that of the part that is too long, `after` how many parts follow it.
    Oversized {
        channel: Range<usize>,
        size: usize,
        after: usize,
    },
    Unsubscribed(Range<usize>),
    Reply(Reply),
    Value(Option<Range<usize>>),
    Values(Vec<Frame>),
}

/// A part of a message: its place, or its size if that is too long.
enum Part {
    Fits(Range<usize>),
    Oversized(usize),
}

/// One step: the position after what was read, or more bytes are needed (how many in all, if it is known).
pub(super) type Step<T> = Result<Option<(T, usize)>, ProtocolError>;

impl Decoder {
    /// For a subscriber.
    pub(crate) fn new(longest_payload: usize) -> Self {
        Self::of(Of::Messages, longest_payload)
    }

    /// For who sends commands and is answered.
    pub(crate) fn of_commands() -> Self {
        Self::of(Of::Commands, usize::MAX)
    }

    fn of(of: Of, longest_payload: usize) -> Self {
        Self {
            of,
            longest_payload,
            longest_name: if of == Of::Commands { usize::MAX } else { LONGEST_NAME },
            skip: 0,
            skip_parts: 0,
            wanted: 0,
            places: Vec::new(),
            frames: Vec::new(),
            usual: 0,
        }
    }

    /// How many more bytes are needed to complete the frame that has begun, as far as that is known; at least 1.
    pub(crate) fn missing(&self, buffer: &BytesMut) -> usize {
        self.wanted.saturating_sub(buffer.len()).max(1)
    }

    /// Moves all complete frames out of `buffer` into `pushes`, also those before an error.
    ///
    /// # Errors
    /// The stream is broken for good; the connection must be closed.
    pub(crate) fn decode(
        &mut self,
        buffer: &mut BytesMut,
        pushes: &mut Vec<Push>,
    ) -> Result<(), ProtocolError> {
        self.skip_oversized(buffer)?;
        if self.skip > 0 || self.skip_parts > 0 || buffer.len() < self.wanted {
            return Ok(());
        }
        self.wanted = 0;
        let mut at = 0;
        let mut broken = Ok(());
        while at < buffer.len() && self.skip == 0 {
            if let Some((place, end)) = self.whole_message(buffer, at) {
                if self.places.capacity() == 0 {
                    self.places.reserve(self.usual);
                }
                self.places.push(place);
                at = end;
                continue;
            }
            let (frame, end) = match self.frame(buffer, at) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    broken = Err(error);
                    break;
                }
            };
            if let Frame::Oversized { size, after, .. } = frame {
                self.skip = size + 2;
                self.skip_parts = after;
            }
            match frame {
                Frame::Message(place) => self.places.push(place),
                frame => self.frames.push((self.places.len(), frame)),
            }
            at = end;
        }
        self.wanted = self.wanted.saturating_sub(at);
        if at > 0 {
            self.give(buffer.split_to(at).freeze(), pushes);
        }
        broken?;
        if self.skip > 0 {
            return self.decode(buffer, pushes);
        }
        Ok(())
    }

    /// Gives away what has been found in `chunk`.
    fn give(&mut self, chunk: Bytes, pushes: &mut Vec<Push>) {
        self.usual = self.places.len().max(self.usual / 4 * 3);
        let mut given = 0;
        for (before, frame) in self.frames.drain(..) {
            if before > given {
                let places = self.places.drain(..before - given).collect();
                pushes.push(Push::Messages(Chunk { bytes: chunk.clone(), places }));
                given = before;
            }
            pushes.push(frame.into_push(&chunk));
        }
        if !self.places.is_empty() {
            let places = std::mem::take(&mut self.places);
            pushes.push(Push::Messages(Chunk { bytes: chunk, places }));
        }
    }

    fn skip_oversized(&mut self, buffer: &mut BytesMut) -> Result<(), ProtocolError> {
        loop {
            let now = self.skip.min(buffer.len());
            buffer.advance(now);
            self.skip -= now;
            if self.skip > 0 || self.skip_parts == 0 {
                return Ok(());
            }
            let Some((size, after)) = bulk_size(buffer, 0)? else { return Ok(()) };
            buffer.advance(after);
            self.skip = size.ok_or(NULL_PART)? + 2;
            self.skip_parts -= 1;
        }
    }

    /// The message at `at`, if it is all there and nothing is special about it: most are like this. Of everything else,
    /// [`frame`](Self::frame) finds out what it is.
    fn whole_message(&self, buffer: &[u8], at: usize) -> Option<(Place, usize)> {
        if self.of != Of::Messages {
            return None;
        }
        let rest = &buffer[at..];
        let starts = [
            (Kind::Channel, &b"*3\r\n$7\r\nmessage\r\n"[..]),
            (Kind::Glob, b"*4\r\n$8\r\npmessage\r\n"),
            (Kind::Sharded, b"*3\r\n$8\r\nsmessage\r\n"),
        ];
        let (kind, start) = starts.into_iter().find(|(_, start)| rest.starts_with(start))?;
        let mut at = at + start.len();
        let pattern = match kind {
            Kind::Glob => whole_part(buffer, &mut at, self.longest_name)?,
            Kind::Channel | Kind::Sharded => at..at,
        };
        let channel = whole_part(buffer, &mut at, self.longest_name)?;
        let payload = whole_part(buffer, &mut at, self.longest_payload)?;
        Some((Place { kind, pattern, channel, payload }, at))
    }

    fn frame(&mut self, buffer: &[u8], at: usize) -> Step<Frame> {
        let frame = match buffer[at] {
            b'*' => {
                let Some((elements, after)) = length(buffer, at + 1)? else { return Ok(None) };
                return match self.of {
                    Of::Messages => self.array(buffer, elements, after),
                    Of::Commands => self.values(buffer, elements, after),
                };
            }
            b':' => integer(buffer, at + 1)?.map(|(number, after)| (Reply::Integer(number), after)),
            b'$' => {
                let Some((value, after)) = self.bulk(buffer, at)? else { return Ok(None) };
                let frame = match self.of {
                    Of::Messages => Frame::Reply(Reply::Done),
                    Of::Commands => Frame::Value(value),
                };
                return Ok(Some((frame, after)));
            }
            b'+' => line(buffer, at + 1)?
                .map(|(text, after)| (if text == b"PONG" { Reply::Pong } else { Reply::Done }, after)),
            b'-' => line(buffer, at + 1)?
                .map(|(text, after)| (Reply::Error(String::from_utf8_lossy(text).into_owned()), after)),
            _ => return Err(ProtocolError("an unknown type byte")),
        };
        Ok(frame.map(|(reply, after)| (Frame::Reply(reply), after)))
    }

    /// The answer to a command: a flat array.
    fn values(&mut self, buffer: &[u8], elements: Option<usize>, mut at: usize) -> Step<Frame> {
        let Some(elements) = elements else { return Ok(Some((Frame::Value(None), at))) };
        let mut values = Vec::with_capacity(elements.min(64));
        for _ in 0..elements {
            match buffer.get(at) {
                None => return Ok(None),
                Some(b'*') => return Err(ProtocolError("an array within an array")),
                Some(_) => {}
            }
            let Some((value, after)) = self.frame(buffer, at)? else { return Ok(None) };
            values.push(value);
            at = after;
        }
        Ok(Some((Frame::Values(values), at)))
    }

    fn array(&mut self, buffer: &[u8], elements: Option<usize>, at: usize) -> Step<Frame> {
        let elements = elements.unwrap_or(0);
        if elements > WIDEST_ARRAY {
            return Err(ProtocolError("an array too wide for a subscription"));
        }
        if elements == 0 {
            return Ok(Some((Frame::Reply(Reply::Done), at)));
        }
        let Some((Some(kind), at)) = self.bulk(buffer, at)? else { return Ok(None) };
        match (&buffer[kind], elements) {
            (b"message", 3) => self.message(buffer, at, Kind::Channel),
            (b"pmessage", 4) => self.message(buffer, at, Kind::Glob),
            (b"smessage", 3) => self.message(buffer, at, Kind::Sharded),
            (b"subscribe" | b"psubscribe" | b"ssubscribe", 3) => self.rest(buffer, at, 2, Reply::Done),
            (b"unsubscribe" | b"punsubscribe", 3) => self.rest(buffer, at, 2, Reply::Done),
            (b"sunsubscribe", 3) => self.unsubscribed(buffer, at),
            (b"pong", 2) => self.rest(buffer, at, 1, Reply::Pong),
            _ => Err(ProtocolError("an array that no subscription receives")),
        }
    }

    /// A cluster says this unasked, too, when the channel's slot moves away: so the channel matters.
    fn unsubscribed(&mut self, buffer: &[u8], at: usize) -> Step<Frame> {
        let Some((channel, after)) = self.bulk(buffer, at)? else { return Ok(None) };
        let Some((_, end)) = self.rest(buffer, after, 1, Reply::Done)? else { return Ok(None) };
        Ok(Some((channel.map_or(Frame::Reply(Reply::Done), Frame::Unsubscribed), end)))
    }

    fn message(&mut self, buffer: &[u8], at: usize, kind: Kind) -> Step<Frame> {
        let (mut pattern, mut at) = (at..at, at);
        if kind == Kind::Glob {
            let Some((part, next)) = self.part(buffer, at, self.longest_name)? else { return Ok(None) };
            match part {
                Part::Fits(place) => pattern = place,
                Part::Oversized(size) => {
                    return Ok(Some((Frame::Oversized { channel: at..at, size, after: 2 }, next)));
                }
            }
            at = next;
        }
        let Some((part, next)) = self.part(buffer, at, self.longest_name)? else { return Ok(None) };
        let channel = match part {
            Part::Fits(place) => place,
            Part::Oversized(size) => {
                return Ok(Some((Frame::Oversized { channel: at..at, size, after: 1 }, next)));
            }
        };
        let Some((part, end)) = self.part(buffer, next, self.longest_payload)? else { return Ok(None) };
        let frame = match part {
            Part::Fits(payload) => Frame::Message(Place { kind, pattern, channel, payload }),
            Part::Oversized(size) => Frame::Oversized { channel, size, after: 0 },
        };
        Ok(Some((frame, end)))
    }

    /// A part of a message; of one that is over `longest`, the header only.
    fn part(&mut self, buffer: &[u8], at: usize, longest: usize) -> Step<Part> {
        let Some((size, start)) = bulk_size(buffer, at)? else { return Ok(None) };
        let size = size.ok_or(NULL_PART)?;
        if size > longest {
            return Ok(Some((Part::Oversized(size), start)));
        }
        let contents = self.contents(buffer, start, size)?;
        Ok(contents.map(|(place, after)| (Part::Fits(place), after)))
    }

    /// Passes over `count` elements: bulk strings or integers.
    fn rest(&mut self, buffer: &[u8], mut at: usize, count: usize, reply: Reply) -> Step<Frame> {
        for _ in 0..count {
            let after = if buffer.get(at) == Some(&b':') {
                integer(buffer, at + 1)?.map(|(_, after)| after)
            } else {
                self.bulk(buffer, at)?.map(|(_, after)| after)
            };
            match after {
                Some(after) => at = after,
                None => return Ok(None),
            }
        }
        Ok(Some((Frame::Reply(reply), at)))
    }

    /// The place of a bulk string's contents; `None` inside for a null.
    fn bulk(&mut self, buffer: &[u8], at: usize) -> Step<Option<Range<usize>>> {
        let Some((size, start)) = bulk_size(buffer, at)? else { return Ok(None) };
        let Some(size) = size else { return Ok(Some((None, start))) };
        if size > self.longest_name {
            return Err(ProtocolError("a name that is too long"));
        }
        let contents = self.contents(buffer, start, size)?;
        Ok(contents.map(|(place, after)| (Some(place), after)))
    }

    /// The place of a bulk string's contents, which begin at `start`.
    fn contents(&mut self, buffer: &[u8], start: usize, size: usize) -> Step<Range<usize>> {
        let end = start + size;
        if buffer.len() < end + 2 {
            self.wanted = end + 2;
            return Ok(None);
        }
        if &buffer[end..end + 2] != b"\r\n" {
            return Err(ProtocolError("a bulk string without its end"));
        }
        Ok(Some((start..end, end + 2)))
    }
}

impl Frame {
    fn into_push(self, chunk: &Bytes) -> Push {
        match self {
            Self::Message(place) => Push::Messages(Chunk { bytes: chunk.clone(), places: vec![place] }),
            Self::Oversized { channel, size, .. } => Push::Oversized { channel: chunk.slice(channel), size },
            Self::Unsubscribed(channel) => Push::Reply(Reply::Unsubscribed(chunk.slice(channel))),
            reply => Push::Reply(reply.into_reply(chunk)),
        }
    }

    fn into_reply(self, chunk: &Bytes) -> Reply {
        match self {
            Self::Reply(reply) => reply,
            Self::Value(value) => Reply::Value(value.map(|place| chunk.slice(place))),
            Self::Values(values) => {
                Reply::Values(values.into_iter().map(|value| value.into_reply(chunk)).collect())
            }
            // None of these is part of an answer.
            Self::Message(_) | Self::Oversized { .. } | Self::Unsubscribed(_) => Reply::Done,
        }
    }
}

/// What a server says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Master,
    Other,
    Refused(String),
}

/// Takes the answer to ROLE out of the buffer, once it is complete.
pub(crate) fn role(buffer: &mut BytesMut) -> Result<Option<Role>, ProtocolError> {
    let Some(end) = after_reply(buffer, 0)? else { return Ok(None) };
    let reply = buffer.split_to(end);
    Ok(Some(match &reply[..] {
        [b'-', text @ ..] => Role::Refused(String::from_utf8_lossy(text).trim_end().to_owned()),
        reply if reply.starts_with(b"*3\r\n$6\r\nmaster\r\n") => Role::Master,
        _ => Role::Other,
    }))
}

/// The position after the reply at `at`, however deep it is.
fn after_reply(buffer: &[u8], at: usize) -> Result<Option<usize>, ProtocolError> {
    let Some(kind) = buffer.get(at) else { return Ok(None) };
    match kind {
        b'*' => {
            let Some((elements, mut at)) = length(buffer, at + 1)? else { return Ok(None) };
            for _ in 0..elements.unwrap_or(0) {
                let Some(after) = after_reply(buffer, at)? else { return Ok(None) };
                at = after;
            }
            Ok(Some(at))
        }
        b'$' => {
            let Some((size, start)) = length(buffer, at + 1)? else { return Ok(None) };
            let end = size.map_or(start, |size| start + size + 2);
            Ok((end <= buffer.len()).then_some(end))
        }
        _ => Ok(line(buffer, at + 1)?.map(|(_, after)| after)),
    }
}

/// The line that begins at `at`, without its end, and the position after it.
fn line(buffer: &[u8], at: usize) -> Step<&[u8]> {
    let rest = &buffer[at..];
    let searched = &rest[..rest.len().min(LONGEST_LINE)];
    match searched.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Some((&rest[..end], at + end + 2))),
        None if rest.len() >= LONGEST_LINE => Err(ProtocolError("a line without an end")),
        None => Ok(None),
    }
}

/// How much of an answer is there that may be of any depth: it remembers how far it has looked.
#[derive(Debug)]
pub(super) struct Scan {
    /// What comes next is here, or will be.
    at: usize,
    /// So many elements are still to come, at whatever depth.
    elements: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self { at: 0, elements: 1 }
    }
}

impl Scan {
    /// The size of the answer at the beginning of the buffer; or how many more bytes are needed at least.
    pub(super) fn whole(&mut self, buffer: &[u8]) -> Result<Result<usize, usize>, ProtocolError> {
        while self.elements > 0 {
            let Some(kind) = buffer.get(self.at) else { break };
            let (more, after) = match kind {
                b'*' => match length(buffer, self.at + 1)? {
                    Some((count, after)) => (count.unwrap_or(0), after),
                    None => break,
                },
                b'$' => match length(buffer, self.at + 1)? {
                    Some((size, after)) => (0, after + size.map_or(0, |size| size + 2)),
                    None => break,
                },
                b'+' | b'-' | b':' => match line(buffer, self.at + 1)? {
                    Some((_, after)) => (0, after),
                    None => break,
                },
                _ => return Err(ProtocolError("an unknown type byte")),
            };
            self.elements = self.elements - 1 + more;
            self.at = after;
        }
        if self.elements > 0 || self.at > buffer.len() {
            return Ok(Err(self.at.saturating_sub(buffer.len()).max(1)));
        }
        Ok(Ok(std::mem::take(self).at))
    }
}

/// The size in the header of the bulk string at `at`, `None` inside for a null, and where its contents begin.
pub(super) fn bulk_size(buffer: &[u8], at: usize) -> Step<Option<usize>> {
    match buffer.get(at) {
        Some(b'$') => length(buffer, at + 1),
        Some(_) => Err(ProtocolError("something else where a bulk string belongs")),
        None => Ok(None),
    }
}

/// The contents of a bulk string that is all there, of at most `longest` bytes; `at` moves behind it.
fn whole_part(buffer: &[u8], at: &mut usize, longest: usize) -> Option<Range<usize>> {
    const MOST_DIGITS: usize = 9;
    let [b'$', digits @ ..] = buffer.get(*at..)? else { return None };
    let (mut size, mut count) = (0, 0);
    while let Some(digit @ b'0'..=b'9') = digits.get(count) {
        size = size * 10 + usize::from(digit - b'0');
        count += 1;
        if count > MOST_DIGITS {
            return None;
        }
    }
    let start = *at + 1 + count + 2;
    let end = start + size;
    let is_whole = count > 0 && size <= longest && ends_line(buffer, start - 2) && ends_line(buffer, end);
    is_whole.then(|| {
        *at = end + 2;
        start..end
    })
}

fn ends_line(buffer: &[u8], at: usize) -> bool {
    buffer.get(at..at + 2) == Some(b"\r\n")
}

/// The length at `at` and the position after its line; `None` inside for the -1 of a null.
pub(super) fn length(buffer: &[u8], at: usize) -> Step<Option<usize>> {
    let length = match integer(buffer, at)? {
        None => return Ok(None),
        Some((-1, after)) => (None, after),
        // The server's own limit, `proto-max-bulk-len`.
        Some((length @ 0..=0x2000_0000, after)) => (Some(length as usize), after),
        Some(_) => return Err(ProtocolError("an impossible length")),
    };
    Ok(Some(length))
}

/// The number at `at` and the position after its line. Written out because it runs four times for each message.
fn integer(buffer: &[u8], at: usize) -> Step<i64> {
    const NO_NUMBER: ProtocolError = ProtocolError("something else where a number belongs");
    let negative = buffer.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let mut number = 0_i64;
    for (index, byte) in buffer[first.min(buffer.len())..].iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                let digit = i64::from(byte - b'0');
                number = number.checked_mul(10).and_then(|tens| tens.checked_add(digit)).ok_or(NO_NUMBER)?;
                if index >= MOST_DIGITS {
                    return Err(NO_NUMBER);
                }
            }
            b'\r' if index > 0 => {
                return match buffer.get(first + index + 1) {
                    Some(b'\n') => Ok(Some((if negative { -number } else { number }, first + index + 2))),
                    Some(_) => Err(NO_NUMBER),
                    None => Ok(None),
                };
            }
            _ => return Err(NO_NUMBER),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
