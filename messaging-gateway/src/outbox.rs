//! What waits to be written to one connection: bounded for events, so that a client that does not read costs nobody else
//! anything. Owns the policies for slow clients; knows nothing of sockets.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use crate::code::DisconnectCode;
use crate::descriptor::SlowPolicy;
use crate::event::Run;
use crate::frame::Frame;

/// A queue that has grown beyond this is given back when it is empty.
const USUAL: usize = 16;

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Wakes the one task that writes.
    ready: AtomicWaker,
    /// Ends whatever that task is at.
    ended: Notify,
    /// How many bytes of events may wait.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// Of the events that wait, in bytes.
    events: usize,
    /// Of everything else that waits, in bytes.
    others: usize,
    end: Option<End>,
}

/// What is written. Small, because every connection has room for some.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Events(Arc<Run>),
    /// Events of a channel are missing here.
    Gap(Box<Gap>),
    /// An answer, or what the server says by itself.
    Message(Box<Frame>),
}

#[derive(Clone, Debug)]
pub(crate) struct Gap {
    channel: Arc<str>,
    frame: Frame,
}

impl Gap {
    pub(crate) fn frame(&self) -> &Frame {
        &self.frame
    }
}

impl Item {
    /// As it is on a WebSocket.
    pub(crate) fn wire(&self) -> &Bytes {
        match self {
            Self::Events(run) => run.wire(),
            Self::Gap(gap) => gap.frame.wire(),
            Self::Message(frame) => frame.wire(),
        }
    }
}

#[cfg(test)]
impl Item {
    /// The frames that it is made of, in the native protocol.
    pub(crate) fn frames(&self) -> Vec<&Frame> {
        use crate::protocol::Protocol;
        match self {
            Self::Events(run) => run.events().iter().map(|event| event.frame(Protocol::Native)).collect(),
            Self::Gap(gap) => vec![&gap.frame],
            Self::Message(frame) => vec![frame],
        }
    }
}

/// Why nothing more is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this code; what waits is written before that, if the client takes it.
    Close(DisconnectCode),
    /// Nobody reads any more.
    Gone,
}

/// What became of events that were put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    All,
    /// Some events of the channel are not written.
    Dropped,
    /// The client was too slow, and is disconnected.
    TooSlow,
    /// The connection has ended.
    Ended,
}

impl Outbox {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), ready: AtomicWaker::new(), ended: Notify::new(), limit }
    }

    /// Puts events of one channel in, in order. `gap` makes what tells the client that some are missing.
    pub(crate) fn push_events(
        &self,
        runs: &[Arc<Run>],
        policy: SlowPolicy,
        gap: impl Fn() -> Option<Frame>,
    ) -> Pushed {
        let mut state = self.lock();
        if state.end.is_some() {
            return Pushed::Ended;
        }
        let was_empty = state.items.is_empty();
        let mut dropped = false;
        for run in runs {
            // One may be larger than the limit.
            let size = run.wire().len();
            if state.events + size > self.limit && state.events > 0 {
                let channel = run.channel();
                match policy {
                    SlowPolicy::Disconnect => {}
                    SlowPolicy::Latest => state.drop_events_of(channel, usize::MAX),
                    // Half of the room at once: each time costs a walk through the queue.
                    SlowPolicy::DropOldest => state.drop_events_of(channel, size.max(self.limit / 2)),
                }
                // Other channels may take all the room.
                if state.events + size > self.limit && state.events > 0 {
                    Self::end_with(&mut state, End::Close(DisconnectCode::Slow));
                    drop(state);
                    self.ready.wake();
                    self.ended.notify_one();
                    return Pushed::TooSlow;
                }
                dropped = true;
                if let Some(frame) = gap() {
                    state.others += frame.len();
                    let place = state.first_of(channel);
                    state
                        .items
                        .insert(place, Item::Gap(Box::new(Gap { channel: Arc::clone(channel), frame })));
                }
            }
            state.events += size;
            state.items.push_back(Item::Events(Arc::clone(run)));
        }
        let wake = was_empty && !state.items.is_empty();
        drop(state);
        if wake {
            self.ready.wake();
        }
        if dropped { Pushed::Dropped } else { Pushed::All }
    }

    /// Puts in what nobody has asked for. A client that does not take that either is too slow.
    pub(crate) fn tell(&self, frame: Frame) {
        let is_full = {
            let state = self.lock();
            state.others + frame.len() > self.limit && !state.items.is_empty()
        };
        if is_full { self.end(End::Close(DisconnectCode::Slow)) } else { self.push(frame) }
    }

    /// Puts an answer in. Those have no limit of their own: [`has_room`](Self::has_room) says when the client has to read
    /// before it asks for more.
    pub(crate) fn push(&self, frame: Frame) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        state.others += frame.len();
        state.items.push_back(Item::Message(Box::new(frame)));
        drop(state);
        self.ready.wake();
    }

    /// Whether little enough waits that the client may ask for more.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        state.others < self.limit
    }

    /// Ends it. The first reason counts.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.lock();
        if state.end.is_none() {
            Self::end_with(&mut state, end);
        }
        drop(state);
        self.ready.wake();
        self.ended.notify_one();
    }

    fn end_with(state: &mut State, end: End) {
        state.end = Some(end);
        if end != End::Close(DisconnectCode::Shutdown) {
            state.items.clear();
            (state.events, state.others) = (0, 0);
        }
    }

    pub(crate) fn has_ended(&self) -> Option<End> {
        self.lock().end
    }

    /// Moves up to `most` bytes of what waits into `batch`, at least one item. Returns why there will be nothing more, once
    /// nothing waits.
    pub(crate) fn take(&self, batch: &mut Vec<Item>, most: usize) -> Option<End> {
        let mut state = self.lock();
        let mut taken = 0;
        while let Some(item) = state.items.front() {
            let size = item.wire().len();
            if taken > 0 && taken + size > most {
                break;
            }
            taken += size;
            match item {
                Item::Events(_) => state.events -= size,
                Item::Gap(_) | Item::Message(_) => state.others -= size,
            }
            batch.extend(state.items.pop_front());
        }
        if state.items.is_empty() && state.items.capacity() > USUAL {
            state.items = VecDeque::new();
        }
        if batch.is_empty() { state.end } else { None }
    }

    /// Waits until there is something to take, or it has ended.
    ///
    /// Cancellation: nothing is lost.
    pub(crate) async fn ready(&self) {
        poll_fn(|context| {
            self.ready.register(context.waker());
            let state = self.lock();
            if state.items.is_empty() && state.end.is_none() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        while self.has_ended().is_none() {
            self.ended.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops the oldest events of a channel, up to so many bytes of them, and what says that others were dropped before.
    fn drop_events_of(&mut self, channel: &Arc<str>, bytes: usize) {
        let (mut freed, mut gaps) = (0, 0);
        self.items.retain(|item| match item {
            Item::Events(run) if freed < bytes && Arc::ptr_eq(run.channel(), channel) => {
                freed += run.wire().len();
                false
            }
            Item::Gap(gap) if Arc::ptr_eq(&gap.channel, channel) => {
                gaps += gap.frame.len();
                false
            }
            _ => true,
        });
        self.events -= freed;
        self.others -= gaps;
    }

    fn first_of(&self, channel: &Arc<str>) -> usize {
        let is_of = |item: &Item| matches!(item, Item::Events(run) if Arc::ptr_eq(run.channel(), channel));
        self.items.iter().position(is_of).unwrap_or(self.items.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;
    use crate::payload::Payload;
    use crate::protocol::Protocol;

    const LIMIT: usize = 1_000;

    #[derive(Clone, Debug)]
    enum Step {
        /// Events of these sizes on a channel.
        Events(usize, SlowPolicy, Vec<usize>),
        Message(usize),
        Take(usize),
        End(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let policy =
            prop::sample::select(vec![SlowPolicy::Disconnect, SlowPolicy::Latest, SlowPolicy::DropOldest]);
        prop_oneof![
            8 => (0..3_usize, policy, prop::collection::vec(0..600_usize, 0..8))
                .prop_map(|(channel, policy, sizes)| Step::Events(channel, policy, sizes)),
            2 => (0..400_usize).prop_map(Step::Message),
            4 => (1..900_usize).prop_map(Step::Take),
            1 => any::<bool>().prop_map(Step::End),
        ]
    }

    fn event(channel: &Arc<str>, number: u64, size: usize) -> Arc<Event> {
        let json = serde_json::json!({ "n": number, "x": "x".repeat(size) }).to_string();
        Arc::new(Event::new(channel, None, Payload::check(Bytes::from(json), 10_000).unwrap()))
    }

    fn number(event: &Event) -> u64 {
        serde_json::from_slice::<serde_json::Value>(event.payload().as_bytes()).unwrap()["n"]
            .as_u64()
            .unwrap()
    }

    fn text(size: usize) -> Frame {
        Frame::text(size, |out| out.resize(out.len() + size, b'm'))
    }

    /// What a client knows of a channel.
    #[derive(Default)]
    struct Known {
        put: u64,
        got: u64,
        gap: bool,
    }

    /// What is written has no hole without a gap in its place, no gap without a hole, and nothing out of order.
    fn look(known: &mut HashMap<Arc<str>, Known>, batch: &[Item]) -> Result<(), TestCaseError> {
        for item in batch {
            match item {
                Item::Events(run) => {
                    let known = known.get_mut(run.channel()).unwrap();
                    for number in run.events().iter().map(|event| number(event)) {
                        if known.gap {
                            prop_assert!(
                                number > known.got + 1,
                                "a gap before {} where nothing is missing",
                                number
                            );
                        } else {
                            prop_assert_eq!(number, known.got + 1);
                        }
                        (known.got, known.gap) = (number, false);
                    }
                }
                Item::Gap(gap) => {
                    // It may come twice, if the first was written before more was dropped.
                    known.get_mut(&gap.channel).unwrap().gap = true;
                }
                Item::Message(_) => {}
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn what_waits_is_bounded_and_what_is_missing_is_said(steps in prop::collection::vec(step(), 0..60)) {
            let outbox = Outbox::new(LIMIT);
            let channels: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
            let mut known: HashMap<Arc<str>, Known> =
                channels.iter().map(|channel| (Arc::clone(channel), Known::default())).collect();
            let mut end = None;
            for step in steps {
                match step {
                    Step::Events(channel, policy, sizes) => {
                        let channel = &channels[channel];
                        let events: Vec<_> = sizes
                            .iter()
                            .map(|size| {
                                let known = known.get_mut(channel).unwrap();
                                known.put += 1;
                                event(channel, known.put, *size)
                            })
                            .collect();
                        let pushed = outbox.push_events(&Run::of(Protocol::Native, &events), policy, || Some(text(20)));
                        match (end, pushed) {
                            (Some(_), pushed) => prop_assert_eq!(pushed, Pushed::Ended),
                            (None, Pushed::TooSlow) => end = Some(End::Close(DisconnectCode::Slow)),
                            (None, Pushed::Dropped) => prop_assert_ne!(policy, SlowPolicy::Disconnect),
                            (None, pushed) => prop_assert_eq!(pushed, Pushed::All),
                        }
                        // The newest is always there, unless it has ended.
                        if end.is_none() && let Some(newest) = events.last() {
                            let state = outbox.lock();
                            let is_last = matches!(state.items.back(), Some(Item::Events(run)) if Arc::ptr_eq(run.events().last().unwrap(), newest));
                            prop_assert!(is_last);
                        }
                    }
                    Step::Message(size) => outbox.push(text(size)),
                    Step::Take(most) => {
                        let mut batch = Vec::new();
                        let said = outbox.take(&mut batch, most);
                        let size: usize = batch.iter().map(|item| item.wire().len()).sum();
                        prop_assert!(batch.len() <= 1 || size <= most);
                        prop_assert_eq!(said, if batch.is_empty() { end } else { None });
                        look(&mut known, &batch)?;
                    }
                    Step::End(is_soft) => {
                        let code = if is_soft { DisconnectCode::Shutdown } else { DisconnectCode::Expired };
                        outbox.end(End::Close(code));
                        end = end.or(Some(End::Close(code)));
                    }
                }
                let state = outbox.lock();
                let events = state.items.iter().filter(|item| matches!(item, Item::Events(_)));
                let (events, count): (usize, usize) =
                    events.fold((0, 0), |(size, count), item| (size + item.wire().len(), count + 1));
                let others = state.items.iter().filter(|item| !matches!(item, Item::Events(_)));
                prop_assert_eq!(state.events, events);
                prop_assert_eq!(state.others, others.map(|item| item.wire().len()).sum::<usize>());
                prop_assert!(state.events <= LIMIT || count == 1);
                prop_assert_eq!(state.end, end);
                drop(state);
                prop_assert_eq!(outbox.has_ended(), end);
            }
            let mut batch = Vec::new();
            prop_assert_eq!(outbox.take(&mut batch, usize::MAX).or(end), end);
            look(&mut known, &batch)?;
            if end.is_none() {
                for known in known.values() {
                    prop_assert_eq!(known.got, known.put);
                }
            }
        }
    }
}
