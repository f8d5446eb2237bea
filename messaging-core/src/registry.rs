//! The descriptors that the attributes submit: constant data and function pointers, collected through `inventory`,
//! sorted (its order is unspecified) and checked for duplicates. Starts nothing.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::dispatch::{BoxFuture, Carrier, Context, HandlerOptions, HandlerResult, Needs, Queue};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Op;
use crate::stream::Durability;

/// What one attribute declares.
#[derive(Clone, Copy, Debug)]
pub enum Descriptor {
    /// `#[event_config]`.
    Model(&'static ModelDescriptor),
    /// `#[channel]`.
    Channel(&'static ChannelDescriptor),
    /// `#[subscribe]`.
    Handler(&'static HandlerDescriptor),
    /// `#[redis_cache]`.
    Function(&'static FunctionDescriptor),
}

inventory::collect!(Descriptor);

/// Where an attribute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// The source file, as the compiler was given it.
    pub file: &'static str,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A model that publishes.
#[derive(Debug)]
pub struct ModelDescriptor {
    /// `module_path!()::Name`, or what `id` says.
    pub id: &'static str,
    /// The struct's name.
    pub name: &'static str,
    /// The operations that are published, and on which channel templates.
    pub publish: &'static [(Op, &'static [&'static str])],
    /// What the payload carries: Rust fields and where their values stand in the JSON.
    pub payload: &'static [PayloadField],
    /// The fields whose old values an update carries under `previous`; their `path`s are below it.
    pub previous: &'static [PayloadField],
    /// The Rust field that identifies a row, if the model has a table.
    pub key: Option<&'static str>,
    /// The `resource_type` of the [`ChangeEvent`](crate::ChangeEvent) envelope, if the model uses it.
    pub envelope: Option<&'static str>,
    /// The model's own cache entry.
    pub cache: Option<ModelCache>,
    /// Its events are durable.
    pub durable: Option<ModelDurability>,
    /// What carries its events.
    pub carrier: Carrier,
    /// The JSON Schema of the payload's model, if the model implements `schemars::JsonSchema` and the feature
    /// `schema` is on.
    pub schema: fn() -> Option<serde_json::Value>,
    /// Where it is declared.
    pub location: Location,
}

impl ModelDescriptor {
    pub(crate) fn channels(&self, op: Op) -> Option<&'static [&'static str]> {
        self.publish.iter().find(|(published, _)| *published == op).map(|(_, channels)| *channels)
    }

    /// Whether an event of this model carries what fills each placeholder, given as Rust field names.
    #[must_use]
    pub const fn carries(&self, fields: &[&str]) -> bool {
        let mut i = 0;
        while i < fields.len() {
            let mut j = 0;
            let mut found = false;
            while j < self.payload.len() {
                found |= same(self.payload[j].field, fields[i]);
                j += 1;
            }
            if !found {
                return false;
            }
            i += 1;
        }
        true
    }

    /// Whether `op` is published.
    #[must_use]
    pub const fn publishes(&self, op: Op) -> bool {
        let mut i = 0;
        while i < self.publish.len() {
            if self.publish[i].0 as u8 == op as u8 {
                return true;
            }
            i += 1;
        }
        false
    }
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// One field of a model's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadField {
    /// The Rust field.
    pub field: &'static str,
    /// The dotted path of its value in the event's JSON: serde's name, or `resource_id`, `metadata.active`, …
    pub path: &'static str,
}

/// `cache = { key, ttl, fields }` of a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelCache {
    /// The key's template; its placeholders are Rust fields.
    pub key: &'static str,
    /// How long the entry lives.
    pub ttl: Duration,
}

/// `durable = { … }` of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelDurability {
    /// How its events are kept.
    pub durability: Durability,
    /// The Rust field whose value is the events' key.
    pub key: Option<&'static str>,
}

/// A typed channel.
#[derive(Debug)]
pub struct ChannelDescriptor {
    /// `module_path!()::Name`.
    pub id: &'static str,
    /// The template.
    pub template: &'static str,
    /// Where it is declared.
    pub location: Location,
}

/// A handler.
#[derive(Debug)]
pub struct HandlerDescriptor {
    /// `module_path!()::name`, for methods `module_path!()::Type::name`, or what `id` says.
    pub id: &'static str,
    /// The channels, templates and globs it listens to.
    pub channels: &'static [&'static str],
    /// Its settings.
    pub options: HandlerOptions,
    /// The group whose processes share the messages of a queue; the handler's id without it.
    pub group: Option<&'static str>,
    /// The channel that is told of a queue's dead letters.
    pub dead_letter: Option<&'static str>,
    /// What it calls to catch up after a gap.
    pub resync: Option<ResyncDescriptor>,
    /// Says what state its arguments need.
    pub needs: fn(&mut Needs),
    /// Starts one worker.
    pub start: fn(Queue) -> BoxFuture<'static, ()>,
    /// Where it is declared.
    pub location: Location,
}

/// `resync = …, resync_every = …` of a handler.
#[derive(Clone, Copy, Debug)]
pub struct ResyncDescriptor {
    /// The interval, beside start and gaps.
    pub every: Option<Duration>,
    /// Says what state its arguments need.
    pub needs: fn(&mut Needs),
    /// Calls it once.
    pub call: fn(Context) -> BoxFuture<'static, HandlerResult>,
}

/// A cached function.
#[derive(Debug)]
pub struct FunctionDescriptor {
    /// `module_path!()::name`, or what `id` says.
    pub id: &'static str,
    /// The key's template, with `prefix:` in front if there is one.
    pub key: &'static str,
    /// The longest time that a value is kept.
    pub ttl: Duration,
    /// Which part of `ttl` is drawn at random for each value: the stored time is between `(1 - jitter) * ttl` and
    /// `ttl`.
    pub jitter: f64,
    /// How long `None` is kept; not at all without it.
    pub cache_none: Option<Duration>,
    /// For how long after `ttl` a value is still served while another one is loaded.
    pub stale: Option<Duration>,
    /// How long a caller waits for the load of another process; for as long as a lease without it.
    pub wait: Option<Duration>,
    /// How values are kept in the process.
    pub local: Option<LocalOptions>,
    /// The events that remove a value.
    pub invalidate_on: &'static [Trigger],
    /// Where it is declared.
    pub location: Location,
}

/// `local = …` of a cached function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// The longest time that a value is kept.
    pub ttl: Duration,
    /// How many values are kept, where one counts once for each KiB of JSON that it has begun.
    pub max: usize,
}

/// One entry of `invalidate_on`.
#[derive(Clone, Copy, Debug)]
pub struct Trigger {
    /// Which events.
    pub on: TriggerOn,
    /// Which value of the event fills which placeholder of the key, where that is not the payload field (or channel
    /// placeholder) of the same name: `(placeholder, path)`.
    pub select: &'static [(&'static str, &'static str)],
}

/// The events of a [`Trigger`].
#[derive(Clone, Copy, Debug)]
pub enum TriggerOn {
    /// Everything published on a channel or on the channels of a template.
    Channel(&'static str),
    /// Operations of a model.
    Model(&'static ModelDescriptor, &'static [Op]),
}

/// All descriptors of this process, sorted by kind and id.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    pub(crate) models: Vec<&'static ModelDescriptor>,
    pub(crate) channels: Vec<&'static ChannelDescriptor>,
    pub(crate) handlers: Vec<&'static HandlerDescriptor>,
    pub(crate) functions: Vec<&'static FunctionDescriptor>,
}

impl Registry {
    pub(crate) fn empty() -> Self {
        Self { models: vec![], channels: vec![], handlers: vec![], functions: vec![] }
    }

    pub(crate) fn collect() -> Self {
        let mut registry = Self::empty();
        for descriptor in inventory::iter::<Descriptor> {
            match descriptor {
                Descriptor::Model(model) => registry.models.push(model),
                Descriptor::Channel(channel) => registry.channels.push(channel),
                Descriptor::Handler(handler) => registry.handlers.push(handler),
                Descriptor::Function(function) => registry.functions.push(function),
            }
        }
        registry.models.sort_by_key(|model| (model.id, model.location));
        registry.channels.sort_by_key(|channel| (channel.id, channel.location));
        registry.handlers.sort_by_key(|handler| (handler.id, handler.location));
        registry.functions.sort_by_key(|function| (function.id, function.location));
        registry
    }

    /// Refuses two declarations of one id, naming both places.
    pub(crate) fn check(&self) -> Result<()> {
        refuse_duplicates("handlers", self.handlers.iter().map(|handler| (handler.id, handler.location)))?;
        refuse_duplicates("models", self.models.iter().map(|model| (model.id, model.location)))?;
        refuse_duplicates(
            "cached functions",
            self.functions.iter().map(|function| (function.id, function.location)),
        )
    }
}

fn refuse_duplicates(what: &str, sorted: impl Iterator<Item = (&'static str, Location)>) -> Result<()> {
    let mut last: Option<(&str, Location)> = None;
    for (id, location) in sorted {
        if let Some((_, first)) = last.filter(|(last_id, _)| *last_id == id) {
            return Err(Error::new(
                ErrorKind::Registration,
                format!(
                    "two {what} have the id `{id}`: {first} and {location}; give one of them `id = \"…\"`"
                ),
            ));
        }
        last = Some((id, location));
    }
    Ok(())
}

/// The handlers of one service type: implemented by `#[subscribers]`, so that
/// [`Subscriber::service`](crate::Subscriber::service) can start those of an instance at run time.
pub trait Subscribers: Send + Sync + 'static {
    #[doc(hidden)]
    fn handlers() -> Vec<HandlerDescriptor>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(line: u32) -> Location {
        Location { file: "src/cameras.rs", line }
    }

    #[test]
    fn two_of_one_id_are_refused_with_both_places() {
        let channel = |id, line| -> &'static FunctionDescriptor {
            Box::leak(Box::new(FunctionDescriptor {
                id,
                key: "k",
                ttl: Duration::from_secs(1),
                jitter: 0.1,
                cache_none: None,
                stale: None,
                wait: None,
                local: None,
                invalidate_on: &[],
                location: at(line),
            }))
        };
        let mut registry = Registry::empty();
        registry.functions = vec![channel("a", 1), channel("b", 2)];
        registry.check().unwrap();
        registry.functions = vec![channel("a", 1), channel("b", 2), channel("b", 30)];
        let error = registry.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Registration);
        let expected = "two cached functions have the id `b`: src/cameras.rs:2 and src/cameras.rs:30; give one of them `id = \"…\"`";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn models_know_what_they_carry() {
        const MODEL: ModelDescriptor = ModelDescriptor {
            id: "m",
            name: "M",
            publish: &[(Op::Create, &["m.created"])],
            payload: &[PayloadField { field: "mac", path: "macAddress" }],
            previous: &[],
            key: None,
            envelope: None,
            cache: None,
            durable: None,
            carrier: Carrier::Broadcast,
            schema: || None,
            location: at(1),
        };
        const { assert!(MODEL.carries(&["mac"]) && !MODEL.carries(&["mac", "macAddress"])) };
        const { assert!(MODEL.publishes(Op::Create) && !MODEL.publishes(Op::Delete)) };
    }
}
