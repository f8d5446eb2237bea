//! What has to be heard after an operation, and whether it is: each event once on each of its channels, in the form that is
//! promised.

use std::collections::BTreeSet;
use std::time::Duration;

use messaging_core::{BoxError, ChangeKind, Channel, HandlerHandle, Messaging, Raw, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::screen::Screen;

/// How long to wait for an event.
const PATIENCE: Duration = Duration::from_secs(5);

/// The event that an operation has to publish.
pub(crate) struct Expected<'a> {
    kind: ChangeKind,
    resource: &'a str,
    id: &'a str,
    tenant: Option<&'a str>,
    channels: Vec<&'a str>,
    metadata: &'a [&'a str],
}

/// An event of a resource without a tenant.
pub(crate) fn expected<'a>(kind: ChangeKind, resource: &'a str, id: &'a str) -> Expected<'a> {
    Expected { kind, resource, id, tenant: None, channels: Vec::new(), metadata: &[] }
}

impl<'a> Expected<'a> {
    pub(crate) fn of(self, tenant: &'a str) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    pub(crate) fn on(mut self, channels: &[&'a str]) -> Self {
        self.channels.extend(channels);
        self
    }

    pub(crate) fn with(self, metadata: &'a [&'a str]) -> Self {
        Self { metadata, ..self }
    }

    fn check(&self, json: &str) -> Result<(), String> {
        let payload: Payload = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let Payload { event_type, resource_type, resource_id, tenant_id, timestamp, metadata } = payload;
        let told = (event_type, &*resource_type, &*resource_id, tenant_id.as_deref());
        let wanted = (self.kind, self.resource, self.id, self.tenant);
        if told != wanted {
            return Err(format!("it tells of {told:?}, not of {wanted:?}"));
        }
        let moment: Option<Timestamp> = serde_json::from_value(timestamp.clone().into()).ok();
        if moment.is_none_or(|moment| moment.to_string() != timestamp) {
            return Err(format!("{timestamp:?} is not a moment like 2025-01-14T15:30:00Z"));
        }
        let told: BTreeSet<&str> = metadata.keys().map(String::as_str).collect();
        if told != self.metadata.iter().copied().collect() {
            return Err(format!("its metadata has {told:?}, not {:?}", self.metadata));
        }
        Ok(())
    }
}

/// The payload to the letter: no field less, and none more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    event_type: ChangeKind,
    resource_type: String,
    resource_id: String,
    // Required, though it may be null.
    #[serde(deserialize_with = "Option::deserialize")]
    tenant_id: Option<String>,
    timestamp: String,
    metadata: Map<String, Value>,
}

/// Hears all channels.
pub(crate) struct Listener {
    screen: Screen,
    handlers: Vec<HandlerHandle>,
    heard: mpsc::UnboundedReceiver<(Channel, String)>,
    events: u32,
    faults: u32,
}

impl Listener {
    pub(crate) async fn subscribe(
        messaging: &Messaging,
        channels: &[&str],
        screen: &Screen,
    ) -> messaging_core::Result<Self> {
        let (hear, heard) = mpsc::unbounded_channel();
        let mut handlers = Vec::new();
        for channel in channels {
            let hear = hear.clone();
            let handler = move |channel: Channel, payload: Raw| {
                // Nobody is there in the end.
                let _ = hear.send((channel, String::from_utf8_lossy(&payload).into_owned()));
                std::future::ready(())
            };
            handlers.push(messaging.subscriber().on(channel, handler).await?);
            screen.line("verify", "subscribed", channel);
        }
        Ok(Self { screen: screen.clone(), handlers, heard, events: 0, faults: 0 })
    }

    /// Shows what comes after an operation, until its event has come on all of its channels.
    pub(crate) async fn check(
        &mut self,
        operation: &str,
        done: messaging_core::Result<()>,
        event: Expected<'_>,
    ) {
        println!();
        self.screen.line("verify", operation, &format!("{} {}", event.resource, event.id));
        if let Err(error) = done {
            return self.fault("failed", &error.to_string());
        }
        let (until, mut missing) = (Instant::now() + PATIENCE, event.channels.clone());
        let mut shown = String::new();
        while !missing.is_empty() {
            let Ok(Some((channel, payload))) = tokio::time::timeout_at(until, self.heard.recv()).await else {
                return self.fault("missing", &missing.join(", "));
            };
            // Others may use the same channels meanwhile.
            if !payload.contains(event.id) {
                continue;
            }
            self.events += 1;
            let text = if payload == shown { "the same" } else { &payload };
            self.screen.line("event", &channel, text);
            match missing.iter().position(|missing| channel == *missing) {
                Some(position) => _ = missing.remove(position),
                None => self.fault("unexpected", "that was not for this channel"),
            }
            if let Err(reason) = event.check(&payload) {
                self.fault("malformed", &reason);
            }
            shown = payload;
        }
    }

    pub(crate) fn fault(&mut self, what: &str, text: &str) {
        self.faults += 1;
        self.screen.line("FAULT", what, text);
    }

    /// Unsubscribes. An error says how much was wrong.
    pub(crate) async fn end(self) -> Result<(), BoxError> {
        for handler in self.handlers {
            handler.stop().await;
        }
        match self.faults {
            0 => {
                println!(
                    "\nVerified: {} events, on all channels and in the form that is promised.",
                    self.events
                );
                Ok(())
            }
            faults => Err(format!("not verified: {faults} faults, which are shown above").into()),
        }
    }
}
