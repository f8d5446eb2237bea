//! The task behind a pipe: the only one that touches the connection.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Lost, MOST_UNWRITTEN, REFUSED, Replies, Request, Shared, UNKNOWN};
use crate::backend::redis::connection::{Dialer, Dialled, Role, Stream, broken, garbled};
use crate::backend::redis::push::Decoder;
use crate::backend::{Generation, Push, Reply, closed, generation_of};
use crate::error::Error;

/// A buffer that a burst has made larger than this is given back.
const KEPT: usize = 1 << 20;
/// How much is read at once: the answers are short.
const CHUNK: usize = 16 << 10;

/// Answers that came together are given out in so many shares, if they are not too small, with a write after each:
/// otherwise Redis would wait for all of its callers, and they for Redis, in turn.
const SHARES: usize = 4;
const SMALLEST_SHARE: usize = 16;

pub(super) struct Driver {
    shared: Arc<Shared>,
    dialer: Arc<Dialer>,
    role: Role,
    /// What is to be written; what comes before `written` has been.
    out: Vec<u8>,
    written: usize,
    /// How many of the bytes still to be written belong to the last of the requests that are `asked`.
    rest_of_asked: usize,
    /// Of these something has been written.
    asked: VecDeque<Request>,
    /// Of these nothing has; their bytes end `out`.
    unsent: VecDeque<Request>,
    /// What [`Shared::unwritten`] says.
    said_unwritten: usize,
    /// Several callers came at once the last time.
    crowded: bool,
    /// Nobody hands over any more.
    closing: bool,
}

/// How a connection ended.
struct Ended {
    error: Error,
    /// Something was answered on it.
    fruitful: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, dialer: Arc<Dialer>, role: Role) -> Self {
        Self {
            shared,
            dialer,
            role,
            out: Vec::new(),
            written: 0,
            rest_of_asked: 0,
            asked: VecDeque::new(),
            unsent: VecDeque::new(),
            said_unwritten: 0,
            crowded: false,
            closing: false,
        }
    }

    pub(super) async fn run(mut self) {
        // Connections in a row that answered nothing.
        let mut fruitless = 0;
        loop {
            self.take_up();
            while self.unsent.is_empty() {
                if self.closing {
                    return;
                }
                self.shared.work.notified().await;
                self.take_up();
            }
            let dialer = Arc::clone(&self.dialer);
            let role = self.role;
            match self.meanwhile(dialer.connect(role)).await {
                None => {}
                Some(Ok(dialled)) => {
                    let Ended { error, fruitful } = self.serve(dialled).await;
                    self.lose(error);
                    fruitless = if fruitful { 0 } else { fruitless + 1 };
                    if fruitless > 0 {
                        let delay = self.dialer.reconnect.delay(fruitless - 1);
                        self.meanwhile(sleep(delay)).await;
                    }
                }
                Some(Err(error)) => self.fail_unsent(&Lost::new(error, true)),
            }
        }
    }

    /// Takes up what callers have handed over.
    fn take_up(&mut self) {
        let mut queue = self.shared.queue();
        if self.out.is_empty() {
            // The callers get the empty buffer back.
            std::mem::swap(&mut self.out, &mut queue.bytes);
        } else {
            if self.written > self.out.len() / 2 {
                self.out.drain(..std::mem::take(&mut self.written));
            }
            self.out.append(&mut queue.bytes);
        }
        self.crowded = queue.requests.len() > 1;
        self.closing = queue.closing;
        self.unsent.extend(queue.requests.drain(..));
        self.said_unwritten = self.out.len() - self.written;
        self.shared.unwritten.store(self.said_unwritten, Ordering::Relaxed);
    }

    /// Waits without a connection: what is handed over is taken up, and what waits too long is given up. `None` if
    /// nothing is left to wait for.
    async fn meanwhile<T>(&mut self, waited_for: impl Future<Output = T>) -> Option<T> {
        let shared = Arc::clone(&self.shared);
        let mut waited_for = pin!(waited_for);
        loop {
            if self.closing && self.unsent.is_empty() {
                return None;
            }
            let oldest = self.next_deadline();
            tokio::select! {
                done = &mut waited_for => return Some(done),
                () = shared.work.notified() => self.take_up(),
                () = sleep_until(oldest.unwrap_or_else(Instant::now)), if oldest.is_some() => {
                    self.expire(Instant::now());
                }
            }
        }
    }

    /// Serves a connection until it is lost, or of no use any more.
    async fn serve(&mut self, mut dialled: Dialled) -> Ended {
        let shared = Arc::clone(&self.shared);
        let may_have_written = dialled.stream.may_fail_after_writing();
        let mut watch = std::mem::take(&mut dialled.watch);
        let (mut reader, mut writer) = tokio::io::split(dialled.stream);
        let (mut pushes, mut unflushed, mut leaving) = (Vec::new(), false, false);
        let mut share = 0;
        let mut heard = Instant::now();
        let mut fruitful = false;
        let mut alarm = pin!(sleep_until(heard));
        let mut armed = false;
        let error = loop {
            let nothing_left = leaving || self.closing && self.unsent.is_empty();
            if nothing_left && !self.is_awaited() {
                break closed();
            }
            if !armed && let Some(deadline) = self.next_deadline() {
                alarm.as_mut().reset(deadline);
                armed = true;
            }
            let end = if leaving { self.written + self.rest_of_asked } else { self.out.len() };
            tokio::select! {
                biased;
                () = &mut alarm, if armed && pushes.is_empty() => {
                    armed = false;
                    // After this process has stood still, the answers may be there.
                    if let Err(error) = self.take_what_has_come(&mut reader, &mut dialled.buffer, &mut dialled.decoder, &mut pushes, &mut heard) {
                        break error;
                    }
                    if !pushes.is_empty() {
                        share = pushes.len();
                        continue;
                    }
                    if self.expire(Instant::now()) && self.is_dead(heard) {
                        // A half-open connection never answers again.
                        break shared.no_answer(false).into();
                    }
                }
                wrote = write(&mut writer, &self.out[self.written..end], &mut unflushed),
                    if unflushed || self.written < end => match wrote {
                    Ok(bytes) => self.wrote(bytes),
                    Err(error) => {
                        if may_have_written {
                            self.wrote(end - self.written);
                        }
                        break broken(&shared.endpoint, error);
                    }
                },
                () = std::future::ready(()), if !pushes.is_empty() => {
                    for push in pushes.drain(..share.min(pushes.len())) {
                        // After a failover the address may lead to another server, which takes writes.
                        leaving |= matches!(&push, Push::Reply(Reply::Error(error)) if error.starts_with("READONLY"));
                        fruitful |= self.answered(push);
                    }
                    // Those who got their answer may have more to send: Redis works on that while we go on here.
                    yield_now().await;
                    self.take_up();
                }
                read = read(&mut reader, &mut dialled.buffer) => {
                    if let Err(error) = read {
                        break broken(&shared.endpoint, error);
                    }
                    heard = Instant::now();
                    if let Err(error) = dialled.decoder.decode(&mut dialled.buffer, &mut pushes) {
                        break garbled(&shared.endpoint, &error);
                    }
                    share = pushes.len().div_ceil(SHARES).max(SMALLEST_SHARE);
                }
                error = watch.left() => break error,
                () = shared.work.notified() => {
                    // The others who were woken together with the first caller come along in the same write.
                    if !self.asked.is_empty() || self.crowded {
                        yield_now().await;
                    }
                    self.take_up();
                }
            }
        };
        // What has come counts, though the connection is lost.
        let _ = self.take_what_has_come(
            &mut reader,
            &mut dialled.buffer,
            &mut dialled.decoder,
            &mut pushes,
            &mut heard,
        );
        for push in pushes {
            fruitful |= self.answered(push);
        }
        Ended { error, fruitful }
    }

    /// Reads without waiting.
    fn take_what_has_come(
        &self,
        reader: &mut ReadHalf<Box<dyn Stream>>,
        buffer: &mut BytesMut,
        decoder: &mut Decoder,
        pushes: &mut Vec<Push>,
        heard: &mut Instant,
    ) -> Result<(), Error> {
        while let Some(read) = read(reader, buffer).now_or_never() {
            read.map_err(|error| broken(&self.shared.endpoint, error))?;
            *heard = Instant::now();
            decoder.decode(buffer, pushes).map_err(|error| garbled(&self.shared.endpoint, &error))?;
        }
        Ok(())
    }

    /// Whether nothing was heard for too long since the oldest request without an answer.
    fn is_dead(&self, heard: Instant) -> bool {
        let Some(oldest) = self.asked.front() else { return false };
        let asked = oldest.deadline.checked_sub(self.shared.timeout).unwrap_or(heard);
        asked.max(heard).elapsed() >= self.shared.dead_after
    }

    /// Whether an answer is to come that somebody waits for, or would, had he not gone away.
    fn is_awaited(&self) -> bool {
        self.rest_of_asked > 0 || self.asked.iter().any(|request| request.answer.is_some())
    }

    /// When the first request expires whose caller still waits. They do not expire in their order: some callers have
    /// waited for room before.
    fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.asked.iter().chain(&self.unsent).filter(|request| request.answer.is_some());
        waiting.map(|request| request.deadline).min()
    }

    /// Tells those who have waited too long; `true` if there were any. What was not sent yet never is.
    fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        for request in self.asked.iter_mut().filter(|request| request.deadline <= now) {
            if let Some(answer) = request.answer.take() {
                any = true;
                let _ = answer.send(Err(self.shared.no_answer(false)));
            }
        }
        if self.unsent.iter().any(|request| request.deadline <= now) {
            any = true;
            let lost = self.shared.no_answer(true);
            let bytes = self.out.split_off(self.written + self.rest_of_asked);
            let mut at = 0;
            for request in std::mem::take(&mut self.unsent) {
                let of_it = at..at + request.size;
                at = of_it.end;
                if request.deadline <= now {
                    self.shared.forget_noted(&request);
                    request.fail(&lost);
                } else {
                    self.out.extend_from_slice(&bytes[of_it]);
                    self.unsent.push_back(request);
                }
            }
            self.say_unwritten();
        }
        any
    }

    /// The connection has taken so many bytes.
    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        let of_asked = bytes.min(self.rest_of_asked);
        self.rest_of_asked -= of_asked;
        let mut of_unsent = bytes - of_asked;
        while of_unsent > 0 {
            let Some(request) = self.unsent.pop_front() else { break };
            let now = of_unsent.min(request.size);
            of_unsent -= now;
            self.rest_of_asked = request.size - now;
            self.asked.push_back(request);
        }
        if self.written == self.out.len() {
            self.written = 0;
            self.out.clear();
            self.out.shrink_to(KEPT);
        }
        if self.said_unwritten > MOST_UNWRITTEN / 2 {
            self.say_unwritten();
        }
    }

    /// Takes the answer to the oldest command; `false` if nobody asked.
    fn answered(&mut self, push: Push) -> bool {
        let (Push::Reply(reply), Some(oldest)) = (push, self.asked.front_mut()) else { return false };
        if std::mem::take(&mut oldest.asks) {
            self.shared.noted.store(number_of(&reply), Ordering::Release);
            return true;
        }
        oldest.missing -= 1;
        match &mut oldest.replies {
            Replies::One(one) => *one = reply,
            Replies::Several(several) => several.push(reply),
        }
        if oldest.missing > 0 {
            return true;
        }
        if let Some(Request { replies, answer: Some(answer), .. }) = self.asked.pop_front() {
            // Who does not wait any more does not want to know.
            let _ = answer.send(Ok(replies));
        }
        true
    }

    /// The connection is gone. What had left may have been carried out; what had not goes out on the next connection.
    fn lose(&mut self, error: Error) {
        let lost = Lost::new(error, false);
        for request in self.asked.drain(..) {
            self.shared.forget_noted(&request);
            request.fail(&lost);
        }
        // What is left of a batch goes without its question.
        self.shared.noted.store(UNKNOWN, Ordering::Release);
        self.out.drain(..self.written + self.rest_of_asked);
        (self.written, self.rest_of_asked) = (0, 0);
        self.say_unwritten();
    }

    fn fail_unsent(&mut self, lost: &Lost) {
        for request in self.unsent.drain(..) {
            request.fail(lost);
        }
        self.out.clear();
        self.say_unwritten();
    }

    /// Makes room known to those who wait for it.
    fn say_unwritten(&mut self) {
        self.said_unwritten = self.out.len() - self.written;
        self.shared.unwritten.store(self.said_unwritten, Ordering::Relaxed);
        self.shared.room.notify_waiters();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.lose(closed());
        let mut queue = self.shared.queue();
        queue.driven_by = None;
        queue.bytes.clear();
        self.unsent.extend(queue.requests.drain(..));
        drop(queue);
        self.fail_unsent(&Lost::new(closed(), true));
    }
}

/// What is noted of the answer to the question ahead of a batch.
fn number_of(reply: &Reply) -> i64 {
    let noted = match reply {
        Reply::Value(text) => generation_of(text.as_deref()),
        _ => Generation::Refused,
    };
    match noted {
        Generation::Number(number) => number,
        Generation::Refused | Generation::Unknown => REFUSED,
    }
}

/// Reads something. Cancellation: nothing is lost.
async fn read(reader: &mut ReadHalf<Box<dyn Stream>>, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(CHUNK);
    match reader.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Writes some of the bytes and says how many; with nothing to write, flushes what was. Cancellation: nothing is lost.
async fn write(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    bytes: &[u8],
    unflushed: &mut bool,
) -> io::Result<usize> {
    if bytes.is_empty() {
        writer.flush().await?;
        *unflushed = false;
        return Ok(0);
    }
    let written = writer.write(bytes).await?;
    *unflushed = true;
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

#[cfg(test)]
mod tests;
