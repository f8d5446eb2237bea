//! All channels that somebody listens to, and where their events come from. One subscription of a channel, or one reader of
//! a stream, whatever the number of clients. Knows connections only as queues; decides nothing about who may listen.

mod feed;
#[cfg(test)]
mod interleavings;
mod join;
#[cfg(test)]
mod review;
mod ring;
mod topic;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use messaging_core::{EntryId, ErrorKind, FollowHandle, Followed, Messaging, StreamEntry, StreamRef};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::native::GapReason;
use crate::payload::{Payload, Unfit};
use feed::Feed;
use topic::{News, Source, Streams};

pub(crate) use join::{Join, Joined, Past, PastError};
pub(crate) use topic::Topic;

/// How many messages are told together at most.
const AT_ONCE: usize = 256;
/// How many batches of a stream may wait for their turn.
const BATCHES: usize = 8;
/// How long a stream is followed, and what it had lately is kept, after the last who listened has gone.
const KEPT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Hub {
    messaging: Messaging,
    metrics: Arc<Metrics>,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
    topics: Mutex<HashMap<Arc<str>, Arc<Slot>>>,
    feeds: Mutex<HashMap<StreamRef, Arc<OnceCell<Running>>>>,
    follow: Mutex<Option<FollowHandle>>,
    /// Why streams cannot be read, at the moment.
    lost: Mutex<Option<String>>,
}

/// A channel that is, or is about to be, listened to.
type Slot = OnceCell<Arc<Open>>;

/// A channel that is listened to.
#[derive(Debug)]
struct Open {
    topic: Arc<Topic>,
    /// Ends the task that hears it, where that is one of its own.
    stop: CancellationToken,
}

/// A stream that is followed.
#[derive(Clone, Debug)]
struct Running {
    feed: Arc<Feed>,
    batches: mpsc::Sender<Vec<StreamEntry>>,
    /// Where it begins.
    after: EntryId,
    is_followed: Arc<AtomicBool>,
}

impl Hub {
    pub(crate) fn new(
        messaging: Messaging,
        metrics: Arc<Metrics>,
        limits: Limits,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            messaging,
            metrics,
            limits,
            tasks,
            stop,
            topics: Mutex::default(),
            feeds: Mutex::default(),
            follow: Mutex::default(),
            lost: Mutex::default(),
        })
    }

    /// The topic of a channel, made if nobody listens to it yet.
    ///
    /// # Errors
    /// What the backend says; nothing is kept then.
    async fn topic(self: &Arc<Self>, channel: &Arc<str>) -> messaging_core::Result<Arc<Topic>> {
        // A slot is only taken out by `sweep`: others may wait for their turn to open it.
        let slot = Arc::clone(lock(&self.topics).entry(Arc::clone(channel)).or_default());
        slot.get_or_try_init(|| self.open(channel)).await.map(|open| Arc::clone(&open.topic))
    }

    async fn open(self: &Arc<Self>, channel: &Arc<str>) -> messaging_core::Result<Arc<Open>> {
        let stop = self.stop.child_token();
        let feeds = self.feeds_of(channel).await?;
        let topic = Arc::new(Topic::new(Arc::clone(channel), Source::Broadcast, Arc::clone(&self.metrics)));
        if feeds.is_empty() {
            self.listen(&topic, stop.clone()).await?;
        } else {
            Self::attach(&topic, feeds);
        }
        self.metrics.channels.increment();
        Ok(Arc::new(Open { topic, stop }))
    }

    /// Lets streams tell a topic.
    fn attach(topic: &Arc<Topic>, feeds: Vec<Arc<Feed>>) {
        let mut states: Vec<_> = feeds.iter().map(|feed| feed.lock()).collect();
        let positions = states.iter().map(|state| state.ring.high()).collect();
        let epochs = states.iter().map(|state| Arc::clone(&state.epoch)).collect();
        let mut told = topic.lock();
        // One that has been given up meanwhile would be in the way of the next.
        if told.is_closed {
            return;
        }
        for (number, state) in states.iter_mut().enumerate() {
            Feed::add(state, topic, number);
        }
        told.source = Source::Streams(Streams { feeds: feeds.clone(), positions, epochs });
    }

    /// Subscribes to a channel, and tells what is heard until `stop`.
    async fn listen(&self, topic: &Arc<Topic>, stop: CancellationToken) -> messaging_core::Result<()> {
        let mut subscription = self.messaging.subscribe(&**topic.channel()).await?;
        let (topic, metrics) = (Arc::clone(topic), Arc::clone(&self.metrics));
        let most_bytes = self.messaging.config().max_payload;
        self.tasks.spawn(async move {
            loop {
                let first = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    first = subscription.get_message(None) => first,
                };
                let mut news = Vec::new();
                let mut next = Some(first);
                while let Some(heard) = next {
                    match heard {
                        Ok(Some(message)) => match Payload::check(message.payload().clone(), most_bytes) {
                            Ok(payload) => news.push(News { payload, at: None }),
                            Err(unfit) => {
                                metrics.unfit.increment();
                                if unfit == Unfit::TooLarge {
                                    topic.tell(std::mem::take(&mut news));
                                    topic.tell_gap(GapReason::TooLarge);
                                }
                            }
                        },
                        Ok(None) => {}
                        Err(error) if error.kind() == ErrorKind::Gap => {
                            topic.tell(std::mem::take(&mut news));
                            topic.tell_gap(GapReason::Reconnected);
                        }
                        Err(_) => return,
                    }
                    // What is there already goes out together.
                    next = if news.len() < AT_ONCE {
                        subscription.get_message(None).now_or_never()
                    } else {
                        None
                    };
                }
                topic.tell(news);
            }
            subscription.close().await;
        });
        Ok(())
    }

    /// The streams that may carry a channel, followed; in the same order for every gateway.
    async fn feeds_of(self: &Arc<Self>, channel: &str) -> messaging_core::Result<Vec<Arc<Feed>>> {
        let mut feeds = Vec::new();
        for stream in self.messaging.streams_of(channel).await? {
            let cell = Arc::clone(lock(&self.feeds).entry(stream.clone()).or_default());
            let running = cell.get_or_try_init(|| self.take_up(stream.clone())).await?;
            // What is read is handed over to what is in the cell.
            if !running.is_followed.swap(true, Ordering::SeqCst) {
                self.follow_handle().add(stream, running.after);
            }
            feeds.push(Arc::clone(&running.feed));
        }
        Ok(feeds)
    }

    async fn take_up(&self, stream: StreamRef) -> messaging_core::Result<Running> {
        let end = self.messaging.stream_end(&stream).await?;
        let after = end.position.id;
        let feed = Arc::new(Feed::new(
            stream.clone(),
            end,
            self.messaging.clone(),
            Arc::clone(&self.metrics),
            &self.limits,
        ));
        let (batches, mut inbox) = mpsc::channel::<Vec<StreamEntry>>(BATCHES);
        let (worker, stop) = (Arc::clone(&feed), self.stop.clone());
        self.tasks.spawn(async move {
            let work = async {
                while let Some(entries) = inbox.recv().await {
                    worker.take_up(entries).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
        Ok(Running { feed, batches, after, is_followed: Arc::default() })
    }

    /// What is followed; the task that reads it is started with the first stream.
    fn follow_handle(self: &Arc<Self>) -> FollowHandle {
        let mut handle = lock(&self.follow);
        handle
            .get_or_insert_with(|| {
                let mut follow = self.messaging.follow();
                let handle = follow.handle();
                let (hub, stop) = (Arc::clone(self), self.stop.clone());
                self.tasks.spawn(async move {
                    let reading = async {
                        loop {
                            match follow.next().await {
                                Followed::Entries { stream, entries } => {
                                    hub.hand_over(&stream, entries).await
                                }
                                Followed::Lost(error) => *lock(&hub.lost) = Some(error.to_string()),
                                Followed::Restored => *lock(&hub.lost) = None,
                                Followed::Closed => return,
                            }
                        }
                    };
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = reading => {}
                    }
                });
                handle
            })
            .clone()
    }

    async fn hand_over(&self, stream: &StreamRef, entries: Vec<StreamEntry>) {
        let cell = lock(&self.feeds).get(stream).cloned();
        // What was read of one that has been given up is nobody's news.
        let Some(running) = cell.and_then(|cell| cell.get().cloned()) else { return };
        // A worker that has ended has nobody to tell.
        let _ = running.batches.send(entries).await;
    }

    /// Gives up what nobody listens to any more.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let is_over = |since: Option<Instant>, kept: Duration| since.is_some_and(|since| now - since >= kept);
        let mut closed = Vec::new();
        lock(&self.topics).retain(|_, slot| {
            // One that nobody could, or does want to open is held by nobody else.
            let Some(open) = slot.get() else { return Arc::strong_count(slot) > 1 };
            if !is_over(open.topic.idle_since(), self.limits.linger) {
                return true;
            }
            let mut state = open.topic.lock();
            if !state.is_idle() {
                return true;
            }
            state.is_closed = true;
            drop(state);
            closed.push(Arc::clone(open));
            false
        });
        for open in closed {
            open.stop.cancel();
            self.metrics.channels.decrement();
            open.topic.feeds().iter().for_each(|feed| feed.remove(&open.topic));
        }
        let handle = lock(&self.follow).clone();
        lock(&self.feeds).retain(|stream, cell| {
            // A topic that is being made holds the cell.
            let is_used = Arc::strong_count(cell) > 1;
            let kept = is_used
                || cell.get().is_some_and(|running| {
                    Arc::strong_count(&running.feed) > 2 || !is_over(running.feed.idle_since(), KEPT)
                });
            if !kept
                && cell.initialized()
                && let Some(handle) = &handle
            {
                handle.remove(stream);
            }
            kept
        });
    }

    /// Looks, every now and then, whether channels have become durable, or are carried by more streams than they were.
    pub(crate) async fn look_out(self: Arc<Self>) {
        let mut known: HashSet<StreamRef> = HashSet::new();
        let mut has_changed = false;
        loop {
            tokio::time::sleep(self.limits.look_out).await;
            let Ok(streams) = self.messaging.streams_of("*").await else { continue };
            let streams: HashSet<_> = streams.into_iter().collect();
            // Once more after each change: who had looked just before it may not have been among the channels then.
            let had_changed = std::mem::replace(&mut has_changed, streams != known);
            if !has_changed && !had_changed {
                continue;
            }
            known = streams;
            let open: Vec<_> = lock(&self.topics).values().filter_map(|slot| slot.get().cloned()).collect();
            for open in open {
                let before = open.topic.feeds();
                match self.feeds_of(open.topic.channel()).await {
                    // What has carried it once may have entries that are still to be read.
                    Ok(feeds) if feeds.len() <= before.len() => {}
                    Ok(feeds) => {
                        open.stop.cancel();
                        Self::attach(&open.topic, feeds);
                        open.topic.tell_gap(GapReason::Reset);
                    }
                    // It is found again with the next change.
                    Err(_) => known.clear(),
                }
            }
        }
    }

    /// The topic of a channel that somebody listens to.
    pub(crate) fn opened(&self, channel: &str) -> Option<Arc<Topic>> {
        lock(&self.topics).get(channel).and_then(|slot| slot.get().map(|open| Arc::clone(&open.topic)))
    }

    /// Why streams cannot be read, at the moment.
    pub(crate) fn lost(&self) -> Option<String> {
        lock(&self.lost).clone()
    }

    /// How many channels are listened to.
    pub(crate) fn channels(&self) -> usize {
        lock(&self.topics).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
