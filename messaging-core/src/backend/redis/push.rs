//! The decoder of a subscription connection: RESP2 as far as a subscriber receives it (simple strings, errors,
//! integers, bulk strings, flat arrays), one batch a read, without copying. No I/O.
//!
//! Source of the format: <https://redis.io/docs/latest/develop/reference/protocol-spec/> and
//! <https://redis.io/docs/latest/develop/pubsub/>. Why it is ours: the `redis` crate's subscriber is unbounded in memory.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::backend::{Push, Reply};

/// No line (a length, a simple string, an error) is longer than this.
const LONGEST_LINE: usize = 64 << 10;
/// A message with a longer channel or pattern name is skipped.
const LONGEST_NAME: usize = 1 << 20;
/// No array that a subscriber receives has more elements.
const WIDEST_ARRAY: usize = 8;

const NULL_PART: ProtocolError = ProtocolError("a null in a message");

/// The peer sent something that a subscription connection cannot receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProtocolError(pub(crate) &'static str);

/// Decodes as many frames as there are in the buffer and leaves an unfinished one in it.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Payloads that are longer are skipped while they stream in.
    longest_payload: usize,
    longest_name: usize,
    /// How many bytes of an oversized part, its line end included, are still to be skipped.
    skip: usize,
    /// How many parts of the same message come after that and are to be skipped too.
    skip_parts: usize,
    /// How many bytes the buffer needs before it is worth looking again.
    wanted: usize,
    frames: Vec<Frame>,
}

/// Where a frame's parts are in the buffer.
#[derive(Debug)]
enum Frame {
    Message {
        pattern: Option<Range<usize>>,
        channel: Range<usize>,
        payload: Range<usize>,
    },
    /// `size` is that of the part that is too long, `after` how many parts follow it.
    Oversized {
        channel: Range<usize>,
        size: usize,
        after: usize,
    },
    Reply(Reply),
}

/// A part of a message: its place, or its size if that is too long.
enum Part {
    Fits(Range<usize>),
    Oversized(usize),
}

/// One step: the position after what was read, or more bytes are needed (how many in all, if it is known).
type Step<T> = Result<Option<(T, usize)>, ProtocolError>;

impl Decoder {
    pub(crate) fn new(longest_payload: usize) -> Self {
        Self {
            longest_payload,
            longest_name: LONGEST_NAME,
            skip: 0,
            skip_parts: 0,
            wanted: 0,
            frames: Vec::new(),
        }
    }

    /// How many more bytes are needed to complete the frame that has begun, as far as that is known; at least 1.
    pub(crate) fn missing(&self, buffer: &BytesMut) -> usize {
        self.wanted.saturating_sub(buffer.len()).max(1)
    }

    /// Moves all complete frames out of `buffer` into `pushes`.
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
        while at < buffer.len() {
            let Some((frame, end)) = self.frame(buffer, at)? else { break };
            if let Frame::Oversized { size, after, .. } = frame {
                self.skip = size + 2;
                self.skip_parts = after;
            }
            self.frames.push(frame);
            at = end;
            if self.skip > 0 {
                break;
            }
        }
        self.wanted = self.wanted.saturating_sub(at);
        if at > 0 {
            let chunk = buffer.split_to(at).freeze();
            pushes.extend(self.frames.drain(..).map(|frame| frame.into_push(&chunk)));
        }
        if self.skip > 0 {
            return self.decode(buffer, pushes);
        }
        Ok(())
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

    fn frame(&mut self, buffer: &[u8], at: usize) -> Step<Frame> {
        let Some((line, after)) = line(buffer, at)? else { return Ok(None) };
        let text = &line[1..];
        match line[0] {
            b'+' if text == b"PONG" => Ok(Some((Frame::Reply(Reply::Pong), after))),
            b'+' => Ok(Some((Frame::Reply(Reply::Done), after))),
            b'-' => {
                let error = String::from_utf8_lossy(text).into_owned();
                Ok(Some((Frame::Reply(Reply::Error(error)), after)))
            }
            b':' => number(text).map(|number| Some((Frame::Reply(Reply::Integer(number)), after))),
            b'$' => match self.bulk(buffer, at)? {
                Some((_, after)) => Ok(Some((Frame::Reply(Reply::Done), after))),
                None => Ok(None),
            },
            b'*' => self.array(buffer, length(text)?, after),
            _ => Err(ProtocolError("an unknown type byte")),
        }
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
            (b"message", 3) => self.message(buffer, at, false),
            (b"pmessage", 4) => self.message(buffer, at, true),
            (b"subscribe" | b"psubscribe" | b"ssubscribe", 3) => self.rest(buffer, at, 2, Reply::Done),
            (b"unsubscribe" | b"punsubscribe" | b"sunsubscribe", 3) => self.rest(buffer, at, 2, Reply::Done),
            (b"pong", 2) => self.rest(buffer, at, 1, Reply::Pong),
            _ => Err(ProtocolError("an array that no subscription receives")),
        }
    }

    fn message(&mut self, buffer: &[u8], at: usize, by_pattern: bool) -> Step<Frame> {
        let (mut pattern, mut at) = (None, at);
        if by_pattern {
            let Some((part, next)) = self.part(buffer, at, self.longest_name)? else { return Ok(None) };
            match part {
                Part::Fits(place) => pattern = Some(place),
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
            Part::Fits(payload) => Frame::Message { pattern, channel, payload },
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
            let Some((header, after)) = line(buffer, at)? else { return Ok(None) };
            at = if header[0] == b':' {
                number(&header[1..])?;
                after
            } else {
                let Some((_, after)) = self.bulk(buffer, at)? else { return Ok(None) };
                after
            };
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
            Self::Message { pattern, channel, payload } => Push::Message {
                pattern: pattern.map(|range| chunk.slice(range)),
                channel: chunk.slice(channel),
                payload: chunk.slice(payload),
            },
            Self::Oversized { channel, size, .. } => Push::Oversized { channel: chunk.slice(channel), size },
            Self::Reply(reply) => Push::Reply(reply),
        }
    }
}

/// The line at `at` without its end, with the type byte, and the position after it.
fn line(buffer: &[u8], at: usize) -> Step<&[u8]> {
    let rest = &buffer[at..];
    let searched = &rest[..rest.len().min(LONGEST_LINE)];
    match searched.windows(2).position(|pair| pair == b"\r\n") {
        Some(0) => Err(ProtocolError("an empty line")),
        Some(end) => Ok(Some((&rest[..end], at + end + 2))),
        None if rest.len() >= LONGEST_LINE => Err(ProtocolError("a line without an end")),
        None => Ok(None),
    }
}

/// The size in the header of the bulk string at `at`, `None` inside for a null, and where its contents begin.
fn bulk_size(buffer: &[u8], at: usize) -> Step<Option<usize>> {
    let Some((header, after)) = line(buffer, at)? else { return Ok(None) };
    match header.split_first() {
        Some((b'$', size)) => Ok(Some((length(size)?, after))),
        _ => Err(ProtocolError("something else where a bulk string belongs")),
    }
}

fn number(text: &[u8]) -> Result<i64, ProtocolError> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| text.len() <= 20)
        .and_then(|text| text.parse().ok())
        .ok_or(ProtocolError("something else where a number belongs"))
}

/// A length; `None` for the -1 of a null.
fn length(text: &[u8]) -> Result<Option<usize>, ProtocolError> {
    match number(text)? {
        -1 => Ok(None),
        // The server's own limit, `proto-max-bulk-len`.
        length @ 0..=0x2000_0000 => Ok(Some(length as usize)),
        _ => Err(ProtocolError("an impossible length")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_in_steps(limit: usize, bytes: &[u8], steps: &[usize]) -> Result<Vec<Push>, ProtocolError> {
        let mut decoder = Decoder { longest_name: 30, ..Decoder::new(limit) };
        let mut buffer = BytesMut::new();
        let mut pushes = Vec::new();
        let mut at = 0;
        for step in steps.iter().copied().chain([bytes.len()]) {
            let end = (at + step).min(bytes.len());
            buffer.extend_from_slice(&bytes[at..end]);
            decoder.decode(&mut buffer, &mut pushes)?;
            at = end;
        }
        Ok(pushes)
    }

    fn message(channel: &str, payload: &str) -> Vec<u8> {
        format!(
            "*3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n",
            channel.len(),
            payload.len()
        )
        .into()
    }

    fn shown(push: &Push) -> String {
        match push {
            Push::Message { pattern, channel, payload } => format!("{pattern:?} {channel:?} {payload:?}"),
            Push::Oversized { channel, size } => format!("{channel:?} oversized {size}"),
            Push::Reply(reply) => format!("{reply:?}"),
        }
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        let mut bytes = b"+OK\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n".to_vec();
        bytes.extend(message("a", "{\"x\":1}"));
        bytes.extend(b"*4\r\n$8\r\npmessage\r\n$2\r\nb*\r\n$2\r\nbc\r\n$0\r\n\r\n");
        bytes.extend(message("a", &"y".repeat(40)));
        bytes.extend(message(&"c".repeat(31), "{}"));
        bytes.extend(message(&"c".repeat(32), &"y".repeat(40)));
        bytes.extend(
            format!("*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$33\r\n{}\r\n$0\r\n\r\n", "c".repeat(33)).bytes(),
        );
        bytes.extend(
            format!("*4\r\n$8\r\npmessage\r\n$34\r\n{}\r\n$1\r\nc\r\n$1\r\n1\r\n", "*".repeat(34)).bytes(),
        );
        bytes.extend(
            b"-NOPERM no\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
        );
        let whole: Vec<_> = decode_in_steps(20, &bytes, &[]).unwrap().iter().map(shown).collect();
        assert_eq!(
            whole,
            [
                "Done",
                "Done",
                "None b\"a\" b\"{\\\"x\\\":1}\"",
                "Some(b\"b*\") b\"bc\" b\"\"",
                "b\"a\" oversized 40",
                "b\"\" oversized 31",
                "b\"\" oversized 32",
                "b\"\" oversized 33",
                "b\"\" oversized 34",
                "Error(\"NOPERM no\")",
                "Pong",
                "Pong",
                "Done"
            ]
        );
        for first in 0..bytes.len() {
            for second in [1, 2, 7, 30] {
                let split = decode_in_steps(20, &bytes, &[first, second]).unwrap();
                assert_eq!(split.iter().map(shown).collect::<Vec<_>>(), whole, "split at {first}+{second}");
            }
        }
        let one_by_one = decode_in_steps(20, &bytes, &vec![1; bytes.len()]).unwrap();
        assert_eq!(one_by_one.iter().map(shown).collect::<Vec<_>>(), whole);
    }

    #[test]
    fn what_no_subscriber_receives_is_refused() {
        for bytes in [
            &b"!x\r\n"[..],
            b"\r\n",
            b"*9\r\n",
            b"*3\r\n$3\r\nfoo\r\n$1\r\na\r\n:1\r\n",
            b"*3\r\n:1\r\n",
            b"$-2\r\n",
            b"$99999999999999999999\r\n",
            b"*3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\nx\r\n",
            b"*3\r\n$7\r\nmessage\r\n$31\r\nccccccccccccccccccccccccccccccc\r\n$-1\r\n",
            b"*3\r\n$7\r\nmessage\r\n$31\r\nccccccccccccccccccccccccccccccc\r\n:1\r\n",
            b"*3\r\n$7\r\nmessageXX",
        ] {
            assert!(decode_in_steps(20, bytes, &[]).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_oversized_payload_never_fills_the_buffer() {
        let mut decoder = Decoder::new(100);
        let mut buffer = BytesMut::new();
        let mut pushes = Vec::new();
        buffer.extend_from_slice(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1000000\r\n");
        for _ in 0..1_000 {
            buffer.extend_from_slice(&[b'x'; 1_000]);
            decoder.decode(&mut buffer, &mut pushes).unwrap();
            assert!(buffer.len() <= 2);
        }
        buffer.extend_from_slice(b"\r\n+PONG\r\n");
        decoder.decode(&mut buffer, &mut pushes).unwrap();
        assert_eq!(pushes.iter().map(shown).collect::<Vec<_>>(), ["b\"a\" oversized 1000000", "Pong"]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
            let _ = decode_in_steps(64, &bytes, &vec![step; bytes.len() / step]);
        }

        #[test]
        fn arbitrary_resp_never_panics(text in "([*$:+-][0-9]{0,3}\r\n|message|pmessage|pong|\r\n|[a-z]{0,5}){0,30}", step in 1usize..9) {
            let _ = decode_in_steps(64, text.as_bytes(), &vec![step; text.len() / step]);
        }
    }
}
