//! One subscription connection to a whole cluster: a lane to any node for plain channels and globs, and one to each primary
//! that owns sharded channels which are wanted. A lane that is lost, or a slot that moves, loses only its own channels:
//! they are reported as lost, and found again by whoever asks for them again.
//!
//! It does no I/O itself: each lane is a task, which this owns.

mod lane;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::answers::is_about_slots;
use super::connection::Dialer;
use super::slots::{SlotMap, slot_of};
use crate::backend::{Push, Reply, Request, closed};
use crate::channel::{Kind, Wire};
use crate::config::Address;
use crate::error::{Error, Result, chain};

use lane::{Ask, Event, Heard, Lane};

/// How often the slot map is compared with where the channels are.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// How long after the last time it is asked for again when it is known to be old.
const REFRESH_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct Connection {
    dialer: Arc<Dialer>,
    lanes: HashMap<Place, Held>,
    next_lane: u64,
    events: mpsc::Sender<(u64, Event)>,
    inbox: mpsc::Receiver<(u64, Event)>,
    /// How many requests there have been.
    requests: u64,
    /// For the next who receives.
    ready: Vec<Push>,
    /// What no lane has been asked for yet.
    waiting: Vec<Ask>,
    /// The same, until there is a new slot map.
    parked: Vec<Ask>,
    /// On which lane each subscription is, or has been asked for.
    placed: HashMap<Wire, Place>,
    /// Lanes that could not be made, or were lost: how often in a row, and until when to leave it at that.
    resting: HashMap<Place, (u32, Instant)>,
    slots: Option<Arc<SlotMap>>,
    refresh_at: Instant,
    refreshed_at: Instant,
    refreshing: Option<AbortOnDropHandle<Result<Arc<SlotMap>>>>,
}

/// Where a lane leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Any,
    Primary(Address),
}

/// A lane as we know it.
struct Held {
    number: u64,
    asks: mpsc::UnboundedSender<Ask>,
    open: bool,
    closed: Arc<AtomicBool>,
    confirmed: HashSet<Wire>,
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects to a node of the cluster.
    pub(super) async fn open(dialer: &Arc<Dialer>) -> Result<Self> {
        let (events, inbox) = mpsc::channel(1);
        let now = Instant::now();
        let mut connection = Self {
            dialer: Arc::clone(dialer),
            lanes: HashMap::new(),
            next_lane: 0,
            events,
            inbox,
            requests: 0,
            ready: Vec::new(),
            waiting: Vec::new(),
            parked: Vec::new(),
            placed: HashMap::new(),
            resting: HashMap::new(),
            slots: dialer.locator.slots_known(),
            refresh_at: now,
            refreshed_at: now,
            refreshing: None,
        };
        connection.start_lane(Place::Any);
        match connection.inbox.recv().await {
            Some((number, event)) => connection.heard(number, event)?,
            None => return Err(closed()),
        }
        Ok(connection)
    }

    pub(crate) async fn receive(&mut self, pushes: &mut Vec<Push>) -> Result<()> {
        loop {
            if !self.ready.is_empty() {
                pushes.append(&mut self.ready);
                return Ok(());
            }
            let wake = self.wake();
            tokio::select! {
                event = self.inbox.recv() => match event {
                    Some((number, event)) => self.heard(number, event)?,
                    None => return Err(closed()),
                },
                slots = refreshed(&mut self.refreshing) => self.refreshed(slots),
                () = sleep_until(wake) => {}
            }
            self.place();
        }
    }

    pub(crate) async fn send(&mut self, requests: &[Request]) -> Result<()> {
        for request in requests {
            let number = self.requests;
            self.requests += 1;
            match request {
                // Each lane finds out for itself whether it lives.
                Request::Ping => self.ready.push(Push::Answer { number, reply: Reply::Pong }),
                request => self.waiting.push(Ask { number: Some(number), request: request.clone() }),
            }
        }
        self.place();
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lanes.values().any(|lane| lane.closed.load(Ordering::Relaxed))
    }

    /// When to look again though nothing was heard.
    fn wake(&self) -> Instant {
        let rested = self.waiting.iter().filter_map(|ask| match &ask.request {
            Request::Subscribe(wire) => self.resting.get(&self.place_of(wire)?).map(|(_, until)| *until),
            _ => None,
        });
        let refresh = self.is_sharded().then_some(self.refresh_at).filter(|_| self.refreshing.is_none());
        let far = Instant::now() + REFRESH_EVERY;
        rested.chain(refresh).min().unwrap_or(far)
    }

    /// Whether the slot map matters.
    fn is_sharded(&self) -> bool {
        let sharded = |ask: &Ask| match &ask.request {
            Request::Subscribe(wire) => wire.kind == Kind::Sharded,
            _ => false,
        };
        self.lanes.len() > 1 || !self.parked.is_empty() || self.waiting.iter().any(sharded)
    }

    /// The slot map is old: somebody said so, or did not answer.
    fn outdated(&mut self) {
        self.refresh_at = self.refresh_at.min(self.refreshed_at + REFRESH_AGAIN);
    }

    fn is_outdated(&self) -> bool {
        self.slots.is_none()
            || self.refreshing.is_some()
            || self.refresh_at <= self.refreshed_at + REFRESH_AGAIN
    }

    fn place_of(&self, wire: &Wire) -> Option<Place> {
        if wire.kind != Kind::Sharded {
            return Some(Place::Any);
        }
        let owner = self.slots.as_ref()?.owner(slot_of(wire.name.as_bytes()))?;
        Some(Place::Primary(owner.clone()))
    }

    /// Gives what waits to the lanes, which are made if need be.
    fn place(&mut self) {
        let now = Instant::now();
        let mut still_waiting = Vec::new();
        for ask in std::mem::take(&mut self.waiting) {
            match &ask.request {
                Request::Subscribe(wire) if wire.kind == Kind::Sharded && self.is_outdated() => {
                    self.parked.push(ask);
                }
                Request::Subscribe(wire) => match self.place_of(wire) {
                    None => {
                        self.parked.push(ask);
                        self.outdated();
                    }
                    Some(place) if self.resting.get(&place).is_some_and(|(_, until)| *until > now) => {
                        still_waiting.push(ask);
                    }
                    Some(place) => {
                        let wire = wire.clone();
                        match self.ask(&place, ask) {
                            Ok(()) => _ = self.placed.insert(wire, place),
                            // It has ended and will say so.
                            Err(ask) => still_waiting.push(ask),
                        }
                    }
                },
                Request::Unsubscribe(wire) => {
                    let wire = wire.clone();
                    // Nobody needs to be asked for what was given up before it was asked for.
                    for waiting in [&mut still_waiting, &mut self.parked] {
                        waiting.retain(|ask| {
                            let given_up = ask.request == Request::Subscribe(wire.clone());
                            if given_up {
                                self.ready.extend(done(ask));
                            }
                            !given_up
                        });
                    }
                    let asked = match self.placed.remove(&wire) {
                        Some(place) => {
                            if let Some(lane) = self.lanes.get_mut(&place) {
                                lane.confirmed.remove(&wire);
                            }
                            self.ask(&place, ask)
                        }
                        None => Err(ask),
                    };
                    self.ready.extend(asked.err().as_ref().and_then(done));
                }
                Request::Ping => {}
            }
        }
        self.waiting = still_waiting;
        if self.refreshing.is_none() && self.is_sharded() && (self.slots.is_none() || self.refresh_at <= now)
        {
            let dialer = Arc::clone(&self.dialer);
            let asking = tokio::spawn(async move { dialer.locator.slots().await });
            self.refreshing = Some(AbortOnDropHandle::new(asking));
        }
    }

    /// Asks on a lane; the question comes back if the lane has ended.
    fn ask(&mut self, place: &Place, ask: Ask) -> std::result::Result<(), Ask> {
        if !self.lanes.contains_key(place) {
            self.start_lane(place.clone());
        }
        match self.lanes.get(place) {
            Some(lane) => lane.asks.send(ask).map_err(|unsent| unsent.0),
            None => Err(ask),
        }
    }

    fn start_lane(&mut self, place: Place) {
        let number = self.next_lane;
        self.next_lane += 1;
        let (asks, inbox) = mpsc::unbounded_channel();
        let closed = Arc::<AtomicBool>::default();
        let lane = Lane {
            number,
            dialer: Arc::clone(&self.dialer),
            address: match &place {
                Place::Any => None,
                Place::Primary(address) => Some(address.clone()),
            },
            asks: inbox,
            events: self.events.clone(),
            closed: Arc::clone(&closed),
            asked: std::collections::VecDeque::new(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(lane.run()));
        let held = Held { number, asks, open: false, closed, confirmed: HashSet::new(), _task: task };
        self.lanes.insert(place, held);
    }

    /// # Errors
    /// The last lane was lost.
    fn heard(&mut self, number: u64, event: Event) -> Result<()> {
        let Some(place) =
            self.lanes.iter().find(|(_, lane)| lane.number == number).map(|(place, _)| place.clone())
        else {
            return Ok(());
        };
        match event {
            Event::Open => {
                self.resting.remove(&place);
                if let Some(lane) = self.lanes.get_mut(&place) {
                    lane.open = true;
                }
            }
            Event::Heard(heard) => heard.into_iter().for_each(|heard| self.took(&place, heard)),
            Event::Ended { error, unanswered } => return self.ended(place, error, unanswered),
        }
        Ok(())
    }

    fn took(&mut self, place: &Place, heard: Heard) {
        match heard {
            Heard::Push(push) => self.ready.push(push),
            Heard::Dropped(channel) => {
                let name = String::from_utf8_lossy(&channel).into_owned();
                let wire = Wire { kind: Kind::Sharded, name };
                let lane = self.lanes.get_mut(place);
                if lane.is_some_and(|lane| lane.confirmed.remove(&wire)) {
                    self.placed.remove(&wire);
                    self.outdated();
                    self.lost(vec![wire], "its hash slot has moved".to_owned());
                }
            }
            Heard::Answer(Ask { number, request: Request::Subscribe(wire) }, reply) => {
                self.subscribed(place, number, wire, reply);
            }
            Heard::Answer(ask, reply) => {
                if let Some(number) = ask.number {
                    self.ready.push(Push::Answer { number, reply });
                }
            }
        }
    }

    fn subscribed(&mut self, place: &Place, number: Option<u64>, wire: Wire, reply: Reply) {
        // It may have been given up meanwhile, and then the end is on its way.
        let wanted = self.placed.get(&wire) == Some(place);
        let elsewhere = matches!(&reply, Reply::Error(error) if is_passing(error));
        if wanted && elsewhere {
            self.placed.remove(&wire);
            self.outdated();
            self.parked.push(Ask { number, request: Request::Subscribe(wire) });
            return;
        }
        if wanted {
            match &reply {
                Reply::Error(_) => _ = self.placed.remove(&wire),
                _ => {
                    if let Some(lane) = self.lanes.get_mut(place) {
                        lane.confirmed.insert(wire);
                    }
                }
            }
        }
        if let Some(number) = number {
            self.ready.push(Push::Answer { number, reply });
        }
    }

    fn ended(&mut self, place: Place, error: Error, unanswered: Vec<Ask>) -> Result<()> {
        let Some(lane) = self.lanes.remove(&place) else { return Ok(()) };
        if !self.lanes.values().any(|lane| lane.open) {
            return Err(error);
        }
        let failures = self.resting.get(&place).map_or(0, |(failures, _)| failures.saturating_add(1));
        let until = Instant::now() + self.dialer.reconnect.delay(failures);
        self.resting.insert(place.clone(), (failures, until));
        self.outdated();
        self.lost(lane.confirmed.iter().cloned().collect(), chain(&error));
        for wire in &lane.confirmed {
            self.placed.remove(wire);
        }
        for ask in unanswered {
            match &ask.request {
                Request::Subscribe(wire) if self.placed.get(wire) == Some(&place) => {
                    self.placed.remove(wire);
                    self.waiting.push(ask);
                }
                _ => self.ready.extend(done(&ask)),
            }
        }
        Ok(())
    }

    fn lost(&mut self, wires: Vec<Wire>, reason: String) {
        if !wires.is_empty() {
            self.ready.push(Push::Lost { wires, reason });
        }
    }

    /// Takes a new slot map, and leaves the lanes to nodes that own the channels on them no more.
    fn refreshed(&mut self, slots: Result<Arc<SlotMap>>) {
        self.refreshing = None;
        self.refreshed_at = Instant::now();
        self.refresh_at = self.refreshed_at + REFRESH_EVERY;
        match slots {
            Ok(slots) => self.slots = Some(slots),
            // Without one nobody can be asked; with an old one it is worth a try.
            Err(_) => self.refresh_at = self.refreshed_at + 2 * REFRESH_AGAIN,
        }
        self.waiting.append(&mut self.parked);
        let mut moved = Vec::new();
        for (place, lane) in &self.lanes {
            for wire in &lane.confirmed {
                if self.place_of(wire).is_some_and(|now| now != *place) {
                    moved.push((place.clone(), wire.clone()));
                }
            }
        }
        for (place, wire) in &moved {
            self.placed.remove(wire);
            if let Some(lane) = self.lanes.get_mut(place) {
                lane.confirmed.remove(wire);
                // Or it would be heard twice.
                let _ = lane.asks.send(Ask { number: None, request: Request::Unsubscribe(wire.clone()) });
            }
        }
        self.lost(moved.into_iter().map(|(_, wire)| wire).collect(), "its hash slot has moved".to_owned());
        let used: HashSet<&Place> = self.placed.values().collect();
        self.lanes.retain(|place, _| *place == Place::Any || used.contains(place));
        self.resting.retain(|_, (_, until)| until.elapsed() < REFRESH_EVERY);
    }
}

async fn refreshed(refreshing: &mut Option<AbortOnDropHandle<Result<Arc<SlotMap>>>>) -> Result<Arc<SlotMap>> {
    match refreshing {
        Some(asking) => asking.await.unwrap_or_else(|_| Err(closed())),
        None => std::future::pending().await,
    }
}

/// Tells whoever asked, if anybody did.
fn done(ask: &Ask) -> Option<Push> {
    ask.number.map(|number| Push::Answer { number, reply: Reply::Done })
}

/// Whether a refusal is not about the channel.
fn is_passing(error: &str) -> bool {
    let code = error.split(' ').next().unwrap_or_default();
    is_about_slots(code) || code == "LOADING"
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}
