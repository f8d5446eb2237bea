//! A subscription that is read by hand.

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;

use crate::channel::{Captures, Pattern};
use crate::core::Core;
use crate::dispatch::{BoxFuture, Buffer, Carrier, Entry, GapCause, Mailbox, Overflow};
use crate::error::{Error, ErrorKind, Result};
use crate::labels::Subscribed;
use crate::message::{self, Message};
use crate::meter;
use crate::publish::Publish;
use crate::session::Session;

/// Messages of a channel, a template or a glob, read one after the other; made by
/// [`Messaging::subscribe`](crate::Messaging::subscribe). Dropping it unsubscribes.
///
/// It is also a [`Stream`] of results. When messages may have been missed it yields one error of the kind
/// [`ErrorKind::Gap`] and goes on. Up to 1,000 messages or 16 MiB wait for the reader; more make the connection wait for
/// up to a second, then the oldest are dropped, which is a gap too.
#[derive(Debug)]
pub struct Subscription {
    /// As long as somebody reads, messaging must not end by itself.
    _alive: Arc<dyn Any + Send + Sync>,
    core: Arc<Core>,
    session: Session,
    inbox: Arc<Inbox>,
    carrier: Carrier,
    /// The wait of the [`Stream`] that is in progress.
    next: Option<NextBox>,
}

#[derive(Debug)]
struct Inbox {
    mailbox: Arc<Mailbox>,
    pattern: Pattern,
    /// Counts what is read.
    received: meter::Counter,
    _subscribed: Subscribed,
}

/// A boxed future; the mutex, never locked, makes it `Sync`.
struct NextBox(Mutex<BoxFuture<'static, Option<Result<Message>>>>);

impl NextBox {
    fn future(&mut self) -> &mut BoxFuture<'static, Option<Result<Message>>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for NextBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NextBox")
    }
}

impl Subscription {
    pub(crate) async fn open(
        alive: Arc<dyn Any + Send + Sync>,
        core: &Arc<Core>,
        session: &Session,
        pattern: Pattern,
        carrier: Carrier,
    ) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::for_subscription(Buffer::DEFAULT, Overflow::Wait));
        session.want(&mailbox, std::slice::from_ref(&pattern), carrier, &core.config.channel_prefix);
        let label = core.labels.of_pattern(&pattern);
        let (received, subscribed) = (meter::received(label), core.subscribers.enter(label));
        // From here on a drop, of this future too, undoes it.
        let subscription = Self {
            _alive: alive,
            core: Arc::clone(core),
            session: session.clone(),
            inbox: Arc::new(Inbox { mailbox, pattern, received, _subscribed: subscribed }),
            carrier,
            next: None,
        };
        let attempted = || format!("subscribe to {:?}", subscription.inbox.pattern.as_str());
        let limit = core.config.connect_timeout;
        match tokio::time::timeout(limit, session.confirmed(&subscription.inbox.mailbox)).await {
            Ok(confirmed) => confirmed.map_err(|error| error.context(attempted()))?,
            Err(_) => {
                let health = session.health();
                let reason = health.last_error.unwrap_or_else(|| "redis did not answer".to_owned());
                let text = format!("{}: not confirmed within {limit:?}: {reason}", attempted());
                return Err(Error::new(ErrorKind::Timeout, text).before_sending());
            }
        }
        Ok(subscription)
    }

    /// What it listens to.
    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.inbox.pattern
    }

    /// The next message; `None` when `timeout` has passed without one. Without a timeout (`None`) it waits.
    ///
    /// # Errors
    /// [`ErrorKind::Gap`] once where messages may have been missed; reading goes on after it. [`ErrorKind::Closed`] when
    /// messaging has been shut down.
    ///
    /// # Cancellation
    /// No message is lost.
    pub async fn get_message(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Option<Message>> {
        let next = async {
            match self.next.take() {
                // The stream had begun to wait: its message would be lost otherwise.
                Some(begun) => {
                    let begun = self.next.insert(begun);
                    let next = begun.future().await;
                    self.next = None;
                    next
                }
                None => self.inbox.next(&self.core).await,
            }
        };
        let next = match timeout.into() {
            None => next.await,
            Some(timeout) => match tokio::time::timeout(timeout, next).await {
                Ok(next) => next,
                Err(_) => return Ok(None),
            },
        };
        next.unwrap_or_else(|| Err(closed())).map(Some)
    }

    /// Publishes a message on the subscribed channel, to everybody there including this subscription. Returns the
    /// number of receivers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`] if this subscribes to a template or a glob: those are many channels. Otherwise as
    /// [`Messaging::publish`](crate::Messaging::publish).
    pub async fn send_message<T: Serialize + ?Sized>(&self, message: &T) -> Result<u64> {
        let Pattern::Exact(channel) = &self.inbox.pattern else {
            return Err(Error::new(
                ErrorKind::InvalidChannel,
                format!(
                    "{:?} is not one channel; use messaging.publish with a concrete one",
                    self.inbox.pattern.as_str()
                ),
            ));
        };
        let publish = Publish::new(&self.core, channel, message);
        match self.carrier {
            Carrier::Broadcast => publish.await,
            Carrier::Sharded => publish.sharded().await,
        }
    }

    /// Unsubscribes, and returns when that has been asked for. Messages that wait are thrown away.
    pub async fn close(self) {
        self.session.remove(&self.inbox.mailbox).await;
    }
}

impl Inbox {
    async fn next(&self, core: &Core) -> Option<Result<Message>> {
        loop {
            let entry = tokio::select! {
                biased;
                entry = self.mailbox.pop(0) => entry?,
                () = core.stop.cancelled() => return None,
            };
            match entry {
                Entry::Gap(cause) => return Some(Err(gap(cause))),
                Entry::Message(received) => {
                    let mut captures = Captures::new();
                    // A template's Redis pattern also covers what its separators forbid.
                    if self.pattern.captures(&received.channel, &mut captures) {
                        self.received.increment(1);
                        let segments = message::segments(&self.pattern, &received.channel, &captures);
                        return Some(Ok(Message {
                            channel: received.channel,
                            payload: received.payload,
                            segments,
                        }));
                    }
                }
            }
        }
    }
}

fn gap(cause: GapCause) -> Error {
    let text = match cause {
        GapCause::Reconnected(_) => {
            "the connection was lost and is back; messages in between were missed".to_owned()
        }
        GapCause::Overflow(dropped) => {
            format!("{dropped} messages were dropped because they were not read in time")
        }
        GapCause::Removed(_) => "messages were removed before they were read".to_owned(),
    };
    Error::new(ErrorKind::Gap, text)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "messaging has been shut down")
}

impl Stream for Subscription {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let next = this.next.get_or_insert_with(|| {
            let (inbox, core) = (Arc::clone(&this.inbox), Arc::clone(&this.core));
            NextBox(Mutex::new(Box::pin(async move { inbox.next(&core).await })))
        });
        let item = std::task::ready!(next.future().as_mut().poll(context));
        this.next = None;
        Poll::Ready(item)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.inbox.mailbox.close();
        self.session.remove_later(&self.inbox.mailbox);
    }
}
