//! What waits to be written to one connection: bounded for events, so that a client that does not read costs nobody else
//! anything. Owns the policies for slow clients; knows nothing of sockets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::code::DisconnectCode;
use crate::descriptor::SlowPolicy;
use crate::event::Event;
use crate::frame::Frame;

/// A queue that has grown beyond this is given back when it is empty.
const USUAL: usize = 16;

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Wakes the one task that writes.
    ready: Notify,
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

/// What is written.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Event(Arc<Event>),
    /// Events of this channel are missing here.
    Gap(Arc<str>, Frame),
    /// An answer, or what the server says by itself.
    Message(Frame),
}

impl Item {
    pub(crate) fn frame(&self) -> &Frame {
        match self {
            Self::Event(event) => event.frame(),
            Self::Gap(_, frame) | Self::Message(frame) => frame,
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
        Self { state: Mutex::default(), ready: Notify::new(), ended: Notify::new(), limit }
    }

    /// Puts events of one channel in, in order. `gap` makes what tells the client that some are missing.
    pub(crate) fn push_events(
        &self,
        events: &[&Arc<Event>],
        policy: SlowPolicy,
        gap: impl Fn() -> Frame,
    ) -> Pushed {
        let mut state = self.lock();
        if state.end.is_some() {
            return Pushed::Ended;
        }
        let was_empty = state.items.is_empty();
        let mut dropped = false;
        for &event in events {
            // One event may be larger than the limit.
            let size = event.frame().len();
            if state.events + size > self.limit && state.events > 0 {
                match policy {
                    SlowPolicy::Disconnect => {
                        Self::end_with(&mut state, End::Close(DisconnectCode::Slow));
                        drop(state);
                        self.ready.notify_one();
                        self.ended.notify_one();
                        return Pushed::TooSlow;
                    }
                    SlowPolicy::Latest => state.drop_events_of(event.channel(), usize::MAX),
                    // Half of the room at once: each time costs a walk through the queue.
                    SlowPolicy::DropOldest => {
                        state.drop_events_of(event.channel(), size.max(self.limit / 2));
                    }
                }
                if state.events + size > self.limit && state.events > 0 {
                    // Other channels take all the room.
                    Self::end_with(&mut state, End::Close(DisconnectCode::Slow));
                    drop(state);
                    self.ready.notify_one();
                    self.ended.notify_one();
                    return Pushed::TooSlow;
                }
                dropped = true;
                let gap = gap();
                state.others += gap.len();
                let place = state.first_of(event.channel());
                state.items.insert(place, Item::Gap(Arc::clone(event.channel()), gap));
            }
            state.events += size;
            state.items.push_back(Item::Event(Arc::clone(event)));
        }
        let wake = was_empty && !state.items.is_empty();
        drop(state);
        if wake {
            self.ready.notify_one();
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
        state.items.push_back(Item::Message(frame));
        drop(state);
        self.ready.notify_one();
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
        self.ready.notify_one();
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
            let size = item.frame().len();
            if taken > 0 && taken + size > most {
                break;
            }
            taken += size;
            match item {
                Item::Event(_) => state.events -= size,
                Item::Gap(..) | Item::Message(_) => state.others -= size,
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
        loop {
            {
                let state = self.lock();
                if !state.items.is_empty() || state.end.is_some() {
                    return;
                }
            }
            self.ready.notified().await;
        }
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
            Item::Event(event) if freed < bytes && Arc::ptr_eq(event.channel(), channel) => {
                freed += event.frame().len();
                false
            }
            Item::Gap(other, gap) if Arc::ptr_eq(other, channel) => {
                gaps += gap.len();
                false
            }
            _ => true,
        });
        self.events -= freed;
        self.others -= gaps;
    }

    fn first_of(&self, channel: &Arc<str>) -> usize {
        let is_of = |item: &Item| matches!(item, Item::Event(event) if Arc::ptr_eq(event.channel(), channel));
        self.items.iter().position(is_of).unwrap_or(self.items.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::payload::Payload;

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
                Item::Event(event) => {
                    let known = known.get_mut(event.channel()).unwrap();
                    let number = number(event);
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
                Item::Gap(channel, _) => {
                    // It may come twice, if the first was written before more was dropped.
                    known.get_mut(channel).unwrap().gap = true;
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
                        let pushed = outbox.push_events(&events.iter().collect::<Vec<_>>(), policy, || text(20));
                        match (end, pushed) {
                            (Some(_), pushed) => prop_assert_eq!(pushed, Pushed::Ended),
                            (None, Pushed::TooSlow) => end = Some(End::Close(DisconnectCode::Slow)),
                            (None, Pushed::Dropped) => prop_assert_ne!(policy, SlowPolicy::Disconnect),
                            (None, pushed) => prop_assert_eq!(pushed, Pushed::All),
                        }
                        // The newest is always there, unless it has ended.
                        if end.is_none() && let Some(newest) = events.last() {
                            let state = outbox.lock();
                            let is_last = matches!(state.items.back(), Some(Item::Event(last)) if Arc::ptr_eq(last, newest));
                            prop_assert!(is_last);
                        }
                    }
                    Step::Message(size) => outbox.push(text(size)),
                    Step::Take(most) => {
                        let mut batch = Vec::new();
                        let said = outbox.take(&mut batch, most);
                        let size: usize = batch.iter().map(|item| item.frame().len()).sum();
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
                let events = state.items.iter().filter(|item| matches!(item, Item::Event(_)));
                let (events, count): (usize, usize) =
                    events.fold((0, 0), |(size, count), item| (size + item.frame().len(), count + 1));
                let others = state.items.iter().filter(|item| !matches!(item, Item::Event(_)));
                prop_assert_eq!(state.events, events);
                prop_assert_eq!(state.others, others.map(|item| item.frame().len()).sum::<usize>());
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
