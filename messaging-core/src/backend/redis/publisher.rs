//! The connection that messages are published on: the commands of all callers go out in as few writes as possible, the
//! answers come back in order. Owns the waiting for them and the knowledge of what has left; sends nothing twice.
//!
//! It is ours because only who writes the bytes knows which never left: the `redis` crate cannot tell a command that
//! still waits in its queue from one that Redis may have carried out.

mod driver;

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::connection::Dialer;
use crate::backend::{Reply, closed};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::retry::deadline;

use driver::Driver;

/// Callers wait while more bytes than this have not been written yet.
const MOST_UNWRITTEN: usize = 16 << 20;

/// Sends commands of many callers on one connection, which it makes when there is something to send.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    dialer: Arc<Dialer>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// How many bytes the driver has taken up and not written, as far as it has said.
    unwritten: AtomicUsize,
    /// Wakes the driver.
    work: Notify,
    /// Wakes callers that wait for room.
    room: Notify,
    timeout: Duration,
    endpoint: String,
}

/// What callers have handed over and the driver has not taken up.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    requests: Vec<Request>,
    driver: Option<AbortOnDropHandle<()>>,
}

/// The commands of one caller, who waits for the answers.
struct Request {
    deadline: Instant,
    /// How many bytes the commands have.
    size: usize,
    /// How many answers are still to come.
    replies: usize,
    /// Those that have come, if there are several.
    so_far: Vec<Reply>,
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
    kind: ErrorKind,
    reason: Arc<str>,
    not_sent: bool,
}

impl Publisher {
    pub(super) fn new(dialer: &Arc<Dialer>, timeout: Duration, endpoint: String) -> Self {
        let shared = Shared {
            queue: Mutex::default(),
            unwritten: AtomicUsize::new(0),
            work: Notify::new(),
            room: Notify::new(),
            timeout,
            endpoint,
        };
        Self { shared: Arc::new(shared), dialer: Arc::clone(dialer) }
    }

    /// Sends the commands that `encode` writes, of which there are `commands`; nothing comes between them. Waits for room,
    /// and then for the answers.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] or [`ErrorKind::Timeout`], "not sent" if no byte of the commands has left.
    ///
    /// Cancellation: while it waits for room nothing is sent; after that the commands are carried out.
    pub(super) async fn send(&self, commands: usize, encode: impl Fn(&mut Vec<u8>)) -> Result<Replies> {
        let answer = match self.try_send(commands, &encode) {
            Some(answer) => answer,
            None => self.send_when_there_is_room(commands, &encode).await?,
        };
        // Without an answer, the runtime that the driver ran on has ended.
        answer.await.map_err(|_| closed())?.map_err(Error::from)
    }

    async fn send_when_there_is_room(
        &self,
        commands: usize,
        encode: &impl Fn(&mut Vec<u8>),
    ) -> Result<oneshot::Receiver<Answer>> {
        let limit = deadline(self.shared.timeout);
        loop {
            let mut room = pin!(self.shared.room.notified());
            room.as_mut().enable();
            if let Some(answer) = self.try_send(commands, encode) {
                return Ok(answer);
            }
            if timeout_at(limit, room).await.is_err() {
                return Err(self.shared.no_answer(true).into());
            }
        }
    }

    /// Hands commands over; `None` if there is no room.
    fn try_send(&self, commands: usize, encode: &impl Fn(&mut Vec<u8>)) -> Option<oneshot::Receiver<Answer>> {
        let deadline = deadline(self.shared.timeout);
        let mut queue = self.shared.queue();
        let before = queue.bytes.len();
        if before + self.shared.unwritten.load(Ordering::Relaxed) > MOST_UNWRITTEN {
            return None;
        }
        encode(&mut queue.bytes);
        let size = queue.bytes.len() - before;
        let so_far = if commands > 1 { Vec::with_capacity(commands) } else { Vec::new() };
        let (sender, receiver) = oneshot::channel();
        queue.requests.push(Request { deadline, size, replies: commands, so_far, answer: Some(sender) });
        // The runtime that the driver ran on may have ended.
        if queue.driver.as_ref().is_none_or(|driver| driver.is_finished()) {
            let driver = Driver::new(Arc::clone(&self.shared), Arc::clone(&self.dialer));
            queue.driver = Some(AbortOnDropHandle::new(tokio::spawn(driver.run())));
        }
        // If something was there before, the driver has been woken for that.
        if queue.requests.len() == 1 {
            self.shared.work.notify_one();
        }
        Some(receiver)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // The driver holds what it shares with us, its own handle included. It must not be dropped under the lock.
        let driver = self.shared.queue().driver.take();
        drop(driver);
    }
}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Self {
        let error = Self::new(lost.kind, lost.reason.to_string());
        if lost.not_sent { error.before_sending() } else { error.maybe_sent() }
    }
}

impl Lost {
    fn new(error: &Error, not_sent: bool) -> Self {
        Self { kind: error.kind(), reason: chain(error).into(), not_sent }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_answer(&self, not_sent: bool) -> Lost {
        let (what, limit) = (if not_sent { "take a command" } else { "answer" }, self.timeout);
        let reason = format!("redis at {} did not {what} within {limit:?}", self.endpoint).into();
        Lost { kind: ErrorKind::Timeout, reason, not_sent }
    }
}

impl Request {
    /// Tells the caller; returns the size of the commands.
    fn fail(self, lost: &Lost) -> usize {
        if let Some(answer) = self.answer {
            let _ = answer.send(Err(lost.clone()));
        }
        self.size
    }
}
