//! What is declared in this binary: every model, channel, handler and cached function, with what looks wrong.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::channel::Pattern;
use crate::dispatch::{Carrier, DeliveryMode};
use crate::registry::{Location, Registry, Trigger, TriggerOn};

/// Everything that attributes declared in this binary; made by [`describe`]. It serializes to JSON and prints as text.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Description {
    /// `#[event_config]` models.
    pub models: Vec<DescribedModel>,
    /// `#[channel]` types.
    pub channels: Vec<DescribedChannel>,
    /// `#[subscribe]` handlers.
    pub handlers: Vec<DescribedHandler>,
    /// `#[redis_cache]` functions.
    pub functions: Vec<DescribedFunction>,
    /// What is probably a mistake.
    pub warnings: Vec<String>,
    /// What is worth knowing and may well be right.
    pub notes: Vec<String>,
}

/// A model that publishes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DescribedModel {
    /// Its id.
    pub id: &'static str,
    /// What is published: operation and channel template.
    pub publishes: Vec<(&'static str, &'static str)>,
    /// The paths in the event's payload.
    pub payload: Vec<&'static str>,
    /// The `resource_type` of the envelope around the payload, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<&'static str>,
    /// Whether its events are durable.
    pub durable: bool,
    /// Whether they are published on sharded channels.
    pub sharded: bool,
    /// The JSON Schema of the model, if it implements `schemars::JsonSchema` and the feature `schema` is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<serde_json::Value>,
    /// Where it is declared.
    pub location: Location,
}

/// A typed channel.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DescribedChannel {
    /// Its id.
    pub id: &'static str,
    /// Its template.
    pub template: &'static str,
    /// Where it is declared.
    pub location: Location,
}

/// A handler.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DescribedHandler {
    /// Its id.
    pub id: &'static str,
    /// What it listens to.
    pub channels: &'static [&'static str],
    /// How many messages it handles at the same time.
    pub workers: usize,
    /// Who gets a message, and what is promised.
    pub delivery: DeliveryMode,
    /// Whether it listens to sharded channels.
    pub sharded: bool,
    /// The group of a queue: `group`, or else the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<&'static str>,
    /// Where it is declared.
    pub location: Location,
}

/// A cached function.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DescribedFunction {
    /// Its id.
    pub id: &'static str,
    /// Its key's template.
    pub key: &'static str,
    /// How long a value is kept, in milliseconds.
    pub ttl_ms: u64,
    /// For how long after that it is served while another one is loaded, in milliseconds.
    pub stale_ms: Option<u64>,
    /// How long it is kept in the process, in milliseconds.
    pub local_ms: Option<u64>,
    /// The channels whose events remove values.
    pub invalidate_on: Vec<&'static str>,
    /// Where it is declared.
    pub location: Location,
}

/// Lists everything that attributes declared in this binary and reports patterns that no declared event matches, and
/// events that cannot fill a cached function's key.
///
/// A crate whose code is never named is not linked, and its declarations are missing here: name it with
/// `use that_crate as _;`.
#[must_use]
pub fn describe() -> Description {
    Description::of(&Registry::collect())
}

impl Description {
    fn of(registry: &Registry) -> Self {
        let mut description = Self {
            models: registry
                .models
                .iter()
                .map(|model| DescribedModel {
                    id: model.id,
                    publishes: published(model.publish).collect(),
                    payload: model.payload.iter().map(|field| field.path).collect(),
                    envelope: model.envelope,
                    durable: model.durable.is_some(),
                    sharded: model.carrier == Carrier::Sharded,
                    schema: (model.schema)(),
                    location: model.location,
                })
                .collect(),
            channels: registry
                .channels
                .iter()
                .map(|channel| DescribedChannel {
                    id: channel.id,
                    template: channel.template,
                    location: channel.location,
                })
                .collect(),
            handlers: registry
                .handlers
                .iter()
                .map(|handler| DescribedHandler {
                    id: handler.id,
                    channels: handler.channels,
                    workers: handler.options.workers.get(),
                    delivery: handler.options.delivery,
                    sharded: handler.options.carrier == Carrier::Sharded,
                    group: (handler.options.delivery == DeliveryMode::Queue)
                        .then(|| handler.group.unwrap_or(handler.id)),
                    location: handler.location,
                })
                .collect(),
            functions: registry
                .functions
                .iter()
                .map(|function| DescribedFunction {
                    id: function.id,
                    key: function.key,
                    ttl_ms: millis(function.ttl),
                    stale_ms: function.stale.map(millis),
                    local_ms: function.local.map(|local| millis(local.ttl)),
                    invalidate_on: function.invalidate_on.iter().flat_map(trigger_channels).collect(),
                    location: function.location,
                })
                .collect(),
            warnings: Vec::new(),
            notes: Vec::new(),
        };
        if let Err(error) = registry.check() {
            description.warnings.push(error.to_string());
        }
        description.look_at_handlers(registry);
        description.look_at_functions(registry);
        description
    }

    fn look_at_handlers(&mut self, registry: &Registry) {
        let declared: Vec<Pattern> = registry
            .models
            .iter()
            .flat_map(|model| published(model.publish).map(|(_, channel)| channel))
            .chain(registry.channels.iter().map(|channel| channel.template))
            .filter_map(|channel| Pattern::parse(channel).ok())
            .collect();
        let durable: Vec<Pattern> = registry
            .models
            .iter()
            .filter(|model| model.durable.is_some())
            .flat_map(|model| published(model.publish))
            .filter_map(|(_, channel)| Pattern::parse(channel).ok())
            .collect();
        for handler in &registry.handlers {
            for channel in handler.channels {
                let Ok(pattern) = Pattern::parse(channel) else { continue };
                if !declared.iter().any(|event| event.may_overlap(&pattern)) {
                    self.notes.push(format!(
                        "handler `{}` at {} listens to {channel:?}, which nothing declared in this binary publishes",
                        handler.id, handler.location
                    ));
                } else if handler.options.delivery != DeliveryMode::Broadcast
                    && !durable.iter().any(|event| event.may_overlap(&pattern))
                {
                    self.notes.push(format!(
                        "handler `{}` at {} reads {channel:?} as a stream, which no model in this binary makes durable: a publish has to say `.durable()`, or builder.durable(…) has to cover it",
                        handler.id, handler.location
                    ));
                }
            }
        }
    }

    /// A string in `invalidate_on` names no model, so that the compiler could not check it; the models that publish on
    /// its channel can be asked here.
    fn look_at_functions(&mut self, registry: &Registry) {
        for function in &registry.functions {
            let Ok(key) = crate::cache::KeyTemplate::parse(function.key) else { continue };
            for trigger in function.invalidate_on {
                let TriggerOn::Channel(channel) = trigger.on else { continue };
                let Ok(pattern) = Pattern::parse(channel) else { continue };
                let mut published_here = false;
                for model in &registry.models {
                    let events =
                        published(model.publish).filter_map(|(_, channel)| Pattern::parse(channel).ok());
                    if !events.into_iter().any(|event| event.may_overlap(&pattern)) {
                        continue;
                    }
                    published_here = true;
                    for name in key.names() {
                        let path =
                            trigger.select.iter().find(|(n, _)| *n == name).map_or(name, |(_, path)| *path);
                        let carried = model.payload.iter().any(|field| field.path == path);
                        if !carried && !pattern.names().any(|placeholder| placeholder == path) {
                            self.warnings.push(format!(
                                "cached function `{}` at {} is invalidated on {channel:?}, but the events of `{}` do not carry `{path}`, which its key {:?} needs: every such event removes all of its values; add it to `payload_fields`, or select another field",
                                function.id, function.location, model.id, function.key
                            ));
                        }
                    }
                }
                if !published_here {
                    self.notes.push(format!(
                        "cached function `{}` at {} is invalidated on {channel:?}, which no model in this binary publishes",
                        function.id, function.location
                    ));
                }
            }
        }
    }
}

fn published(
    publish: &'static [(crate::event::Op, &'static [&'static str])],
) -> impl Iterator<Item = (&'static str, &'static str)> {
    publish.iter().flat_map(|(op, channels)| channels.iter().map(move |channel| (op.as_str(), *channel)))
}

fn trigger_channels(trigger: &Trigger) -> Vec<&'static str> {
    match trigger.on {
        TriggerOn::Channel(channel) => vec![channel],
        TriggerOn::Model(model, ops) => {
            ops.iter().flat_map(|op| model.channels(*op).unwrap_or_default()).copied().collect()
        }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, "models", &self.models, |f, model| {
            writeln!(f, "  {}  ({})", model.id, model.location)?;
            model.publishes.iter().try_for_each(|(op, channel)| writeln!(f, "    {op:<6} -> {channel}"))?;
            let durable = if model.durable { ", durable" } else { "" };
            let sharded = if model.sharded { ", sharded" } else { "" };
            writeln!(f, "    carries {}{durable}{sharded}", model.payload.join(", "))
        })?;
        section(f, "channels", &self.channels, |f, channel| {
            writeln!(f, "  {}  {}  ({})", channel.id, channel.template, channel.location)
        })?;
        section(f, "handlers", &self.handlers, |f, handler| {
            writeln!(f, "  {}  ({})", handler.id, handler.location)?;
            let on = handler.channels.join(", ");
            match (handler.delivery, handler.group) {
                (DeliveryMode::Queue, group) => {
                    writeln!(f, "    on {on}, a queue of the group {}", group.unwrap_or_default())
                }
                (DeliveryMode::Resumable, _) => writeln!(f, "    on {on}, resumable"),
                (DeliveryMode::Broadcast, _) if handler.sharded => writeln!(f, "    on {on}, sharded"),
                (DeliveryMode::Broadcast, _) => writeln!(f, "    on {on}"),
            }
        })?;
        section(f, "cached functions", &self.functions, |f, function| {
            writeln!(f, "  {}  ({})", function.id, function.location)?;
            writeln!(f, "    key {}", function.key)?;
            match function.invalidate_on.as_slice() {
                [] => Ok(()),
                channels => writeln!(f, "    invalidated on {}", channels.join(", ")),
            }
        })?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn section<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: &[T],
    item: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    writeln!(f, "{title}: {}", if items.is_empty() { "none" } else { "" })?;
    items.iter().try_for_each(|entry| item(f, entry))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::dispatch::Carrier;
    use crate::event::Op;
    use crate::registry::{FunctionDescriptor, ModelDescriptor, PayloadField};

    const AT: Location = Location { file: "src/cameras.rs", line: 7 };

    static CAMERA: ModelDescriptor = ModelDescriptor {
        id: "service::Camera",
        name: "Camera",
        publish: &[(Op::Update, &["camera.updated"])],
        payload: &[PayloadField { field: "mac", path: "mac" }],
        previous: &[],
        key: None,
        envelope: None,
        cache: None,
        durable: None,
        carrier: Carrier::Broadcast,
        schema: || None,
        location: AT,
    };

    fn warned(key: &'static str, trigger: Trigger) -> (Vec<String>, Vec<String>) {
        let function = FunctionDescriptor {
            id: "service::by_mac",
            key,
            ttl: Duration::from_secs(1),
            jitter: 0.1,
            cache_none: None,
            stale: None,
            wait: None,
            local: None,
            invalidate_on: Box::leak(Box::new([trigger])),
            location: AT,
        };
        let functions = vec![&*Box::leak(Box::new(function))];
        let registry = Registry { models: vec![&CAMERA], channels: vec![], handlers: vec![], functions };
        let description = Description::of(&registry);
        (description.warnings, description.notes)
    }

    #[test]
    fn an_event_that_cannot_fill_the_key_is_a_warning() {
        let on = |channel| Trigger { on: TriggerOn::Channel(channel), select: &[] };
        assert_eq!(warned("camera:{mac}", on("camera.updated")), (vec![], vec![]));
        assert_eq!(warned("camera:all", on("camera.*")), (vec![], vec![]));
        let (warnings, _) = warned("camera:{id}", on("camera.updated"));
        assert!(
            warnings[0].contains("do not carry `id`") && warnings[0].contains("src/cameras.rs:7"),
            "{warnings:?}"
        );
        let selected = Trigger { on: TriggerOn::Channel("camera.updated"), select: &[("id", "mac")] };
        assert_eq!(warned("camera:{id}", selected), (vec![], vec![]));
        // What nobody here publishes may well be published elsewhere.
        let (warnings, notes) = warned("camera:{id}", on("camera.moved"));
        assert!(warnings.is_empty() && notes[0].contains("no model in this binary publishes"), "{notes:?}");
    }
}
