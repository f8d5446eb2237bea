//! The connections that messages are published and cached values read on: the commands of all callers go out in as few
//! writes as possible, the answers come back in order. Owns the waiting for them and the knowledge of what has left; sends
//! nothing twice.
//!
//! It is ours because only who writes the bytes knows which never left: the `redis` crate cannot tell a command that
//! still waits in its queue from one that Redis may have carried out.

mod driver;

use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::answers::copy;
use super::connection::{Dialer, Role};
use crate::backend::{Generation, Reply, closed};
use crate::error::{Error, ErrorKind, Result};

use driver::Driver;

/// Callers wait while more bytes than this have not been written yet.
const MOST_UNWRITTEN: usize = 16 << 20;
/// By how much a caller on another runtime outwaits the driver, who knows better what became of the commands.
const GRACE: Duration = Duration::from_millis(200);

/// Sends commands of many callers on one connection, which it makes when there is something to send.
///
/// When it is dropped, what was handed over is still sent, if the connection takes it within the timeout.
pub(super) struct Pipe {
    shared: Arc<Shared>,
    dialer: Arc<Dialer>,
    role: Role,
    /// A question that goes ahead of each batch.
    question: Option<Vec<u8>>,
}

/// [`Generation`] as a number of [`Shared`], where no smaller one is a number that was answered.
const REFUSED: i64 = i64::MIN;
const UNKNOWN: i64 = i64::MIN + 1;

struct Shared {
    queue: Mutex<Queue>,
    /// How many bytes the driver has taken up and not written, as far as it has said.
    unwritten: AtomicUsize,
    /// Wakes the driver.
    work: Notify,
    /// Wakes callers that wait for room.
    room: Notify,
    /// What was answered last to the question ahead of a batch.
    noted: AtomicI64,
    /// How long a caller waits for the answers.
    timeout: Duration,
    /// After how long a silence with something to answer the connection is given up.
    dead_after: Duration,
    endpoint: String,
}

/// What callers have handed over and the driver has not taken up.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    requests: Vec<Request>,
    /// The runtime that the driver runs on, if there is a driver.
    driven_by: Option<runtime::Id>,
    /// The pipe is gone.
    closing: bool,
}

/// The commands of one caller, who waits for the answers.
struct Request {
    deadline: Instant,
    /// How many bytes the commands have, with the question if there is one.
    size: usize,
    /// The question goes ahead of the commands, and is not answered yet.
    asks: bool,
    replies: Replies,
    /// How many answers are still to come.
    missing: usize,
    /// Gone when the caller has been told what became of it; further answers are passed over.
    answer: Option<oneshot::Sender<Answer>>,
}

type Answer = std::result::Result<Replies, Lost>;

/// What Redis answered to one caller's commands.
#[derive(Debug)]
pub(super) enum Replies {
    One(Reply),
    Several(Vec<Reply>),
}

/// Why there will be no answer.
#[derive(Clone, Debug)]
struct Lost {
    error: Arc<Error>,
    not_sent: bool,
}

/// Commands that were handed over.
struct Sent {
    answer: oneshot::Receiver<Answer>,
    /// The driver is on the caller's runtime: where the one runs, so does the other.
    side_by_side: bool,
}

impl Pipe {
    pub(super) fn new(
        dialer: &Arc<Dialer>,
        role: Role,
        (timeout, dead_after): (Duration, Duration),
        endpoint: String,
        question: Option<Vec<u8>>,
    ) -> Self {
        let shared = Shared {
            queue: Mutex::default(),
            unwritten: AtomicUsize::new(0),
            work: Notify::new(),
            room: Notify::new(),
            noted: AtomicI64::new(UNKNOWN),
            timeout,
            dead_after,
            endpoint,
        };
        Self { shared: Arc::new(shared), dialer: Arc::clone(dialer), role, question }
    }

    /// What was answered to the question ahead of the batch of commands that were answered last, or to a later one.
    pub(super) fn noted(&self) -> Generation {
        match self.shared.noted.load(Ordering::Acquire) {
            REFUSED => Generation::Refused,
            UNKNOWN => Generation::Unknown,
            number => Generation::Number(number),
        }
    }

    /// Sends the commands that `encode` writes, of which there are `commands`; nothing comes between them. Waits for room,
    /// and then for the answers.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] or [`ErrorKind::Timeout`], "not sent" if no byte of the commands has left.
    ///
    /// Cancellation: while it waits for room nothing is sent; after that the commands are sent, if the connection takes
    /// them in time.
    pub(super) async fn send(
        &self,
        deadline: Instant,
        commands: usize,
        encode: impl Fn(&mut Vec<u8>),
    ) -> Result<Replies> {
        let Sent { answer, side_by_side } = match self.try_send(deadline, commands, &encode)? {
            Some(sent) => sent,
            None => self.send_when_there_is_room(deadline, commands, &encode).await?,
        };
        let answered = if side_by_side {
            answer.await
        } else {
            // That runtime may have come to a standstill.
            match timeout_at(deadline + GRACE, answer).await {
                Ok(answered) => answered,
                Err(_) => return Err(self.shared.no_answer(false).into()),
            }
        };
        answered.map_err(|_| closed())?.map_err(Error::from)
    }

    async fn send_when_there_is_room(
        &self,
        deadline: Instant,
        commands: usize,
        encode: &impl Fn(&mut Vec<u8>),
    ) -> Result<Sent> {
        loop {
            let mut room = pin!(self.shared.room.notified());
            room.as_mut().enable();
            if let Some(sent) = self.try_send(deadline, commands, encode)? {
                return Ok(sent);
            }
            if timeout_at(deadline, room).await.is_err() {
                return Err(self.shared.no_answer(true).into());
            }
        }
    }

    /// Hands commands over; `None` if there is no room.
    fn try_send(
        &self,
        deadline: Instant,
        commands: usize,
        encode: &impl Fn(&mut Vec<u8>),
    ) -> Result<Option<Sent>> {
        let here = runtime::Handle::current();
        let (mut queue, driven_by) = self.driven_queue(&here)?;
        let before = queue.bytes.len();
        if before + self.shared.unwritten.load(Ordering::Relaxed) > MOST_UNWRITTEN {
            return Ok(None);
        }
        let asks = queue.requests.is_empty() && self.question.is_some();
        if asks && let Some(question) = &self.question {
            queue.bytes.extend_from_slice(question);
        }
        encode(&mut queue.bytes);
        let size = queue.bytes.len() - before;
        let replies = match commands {
            1 => Replies::One(Reply::Done),
            _ => Replies::Several(Vec::with_capacity(commands)),
        };
        let (sender, answer) = oneshot::channel();
        queue.requests.push(Request {
            deadline,
            size,
            asks,
            replies,
            missing: commands,
            answer: Some(sender),
        });
        // If something was there before, the driver has been woken for that.
        if queue.requests.len() == 1 {
            self.shared.work.notify_one();
        }
        Ok(Some(Sent { answer, side_by_side: driven_by == here.id() }))
    }

    /// The queue, with a driver. The runtime of an earlier one may have ended.
    fn driven_queue(&self, here: &runtime::Handle) -> Result<(MutexGuard<'_, Queue>, runtime::Id)> {
        let mut queue = self.shared.queue();
        if queue.driven_by.is_none() {
            queue.driven_by = Some(here.id());
            // Not under the lock: a runtime that is ending drops the task at once, and that takes the lock.
            drop(queue);
            here.spawn(Driver::new(Arc::clone(&self.shared), Arc::clone(&self.dialer), self.role).run());
            queue = self.shared.queue();
        }
        match queue.driven_by {
            Some(driven_by) => Ok((queue, driven_by)),
            None => Err(closed().before_sending()),
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shared.queue().closing = true;
        self.shared.work.notify_one();
    }
}

impl Lost {
    fn new(error: Error, not_sent: bool) -> Self {
        Self { error: Arc::new(error), not_sent }
    }
}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Self {
        let error = copy(&lost.error);
        if lost.not_sent { error.before_sending() } else { error.maybe_sent() }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a batch that loses its question, nobody knows what it would have been answered.
    fn forget_noted(&self, lost: &Request) {
        if lost.asks {
            self.noted.store(UNKNOWN, Ordering::Release);
        }
    }

    fn no_answer(&self, not_sent: bool) -> Lost {
        let (what, limit) = (if not_sent { "take a command" } else { "answer" }, self.timeout);
        let text = format!("redis at {} did not {what} within {limit:?}", self.endpoint);
        Lost::new(Error::new(ErrorKind::Timeout, text), not_sent)
    }
}

impl Request {
    /// Tells the caller.
    fn fail(self, lost: &Lost) {
        if let Some(answer) = self.answer {
            let _ = answer.send(Err(lost.clone()));
        }
    }
}
