//! Handlers that take their messages only with permission, so that a test decides how slow they are.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use messaging_core::{
    Buffer, HandlerHandle, HandlerHealth, Handlers, Messaging, Overflow, Running, State, subscribe,
};
use tokio::sync::Semaphore;

use crate::place::{Place, Probe};

/// Longer than any test: a handler that is stuck stays so.
pub const FOR_EVER: Duration = Duration::from_secs(3_600);

pub fn buffer(messages: usize) -> Buffer {
    Buffer { messages: NonZeroUsize::new(messages).unwrap(), ..Buffer::DEFAULT }
}

/// A handler that takes its messages only with permission.
pub struct Gated {
    _handler: HandlerHandle,
    pub permits: Arc<Semaphore>,
    pub probe: Probe,
}

pub async fn gated(messaging: &Messaging, channel: &str, overflow: Overflow, buffer: Buffer) -> Gated {
    let (permits, probe) = (Arc::new(Semaphore::new(0)), Probe::default());
    let (gate, seen) = (Arc::clone(&permits), probe.clone());
    let handler = messaging.subscriber().id(channel).buffer(buffer).overflow(overflow).timeout(FOR_EVER);
    let handler = handler.on(channel, move |message: serde_json::Value| {
        let (gate, seen) = (Arc::clone(&gate), seen.clone());
        async move {
            gate.acquire().await.unwrap().forget();
            seen.tell(message);
        }
    });
    Gated { _handler: handler.await.unwrap(), permits, probe }
}

pub fn health_of(messaging: &Messaging, id: &str) -> HandlerHealth {
    messaging.health().handlers.into_iter().find(|handler| handler.id.ends_with(id)).unwrap()
}

#[derive(Clone)]
pub struct Gate(pub Arc<Semaphore>);

#[subscribe("behind", buffer = 10, timeout = "1h", resync = catch_up)]
async fn on_behind(number: u64, gate: State<Gate>, probe: State<Probe>) {
    gate.0.acquire().await.unwrap().forget();
    probe.tell(number);
}

#[subscribe("blocked", buffer = 10, timeout = "1h", overflow = "block", resync = catch_up)]
async fn on_blocked(_payload: String, gate: State<Gate>, probe: State<Probe>) {
    gate.0.acquire().await.unwrap().forget();
    probe.tell("message");
}

async fn catch_up(probe: State<Probe>) {
    probe.tell("resync");
}

pub async fn started(place: &Place, handler: &str) -> (Running, Probe, Gate) {
    let (probe, gate) = (Probe::default(), Gate(Arc::new(Semaphore::new(0))));
    let builder =
        place.builder().handlers(Handlers::only([handler])).state(probe.clone()).state(gate.clone());
    let running = builder.build().await.unwrap().start().await.unwrap();
    probe.wait_for(1).await;
    (running, probe, gate)
}
