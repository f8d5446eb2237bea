//! From an event to the keys that it makes out of date: the cached functions of this process and their triggers. Pure
//! computation; no I/O.

use std::sync::atomic::{AtomicU8, AtomicU64};
use std::time::Duration;

use super::key::KeyTemplate;
use crate::channel::{Captures, Pattern};
use crate::error::{Error, ErrorKind, Result};
use crate::json::{self, Found};
use crate::registry::{
    FunctionDescriptor, Location, ModelDescriptor, PayloadField, Registry, Trigger, TriggerOn,
};

/// More keys than this from one event count as "all of them".
const MOST_KEYS: usize = 1_000;

/// One cached function.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) descriptor: &'static FunctionDescriptor,
    /// The longest time that a value is kept.
    pub(super) ttl: Duration,
    pub(crate) key: KeyTemplate,
    triggers: Vec<CompiledTrigger>,
    pub(super) tally: FamilyTally,
    /// Whether a flush of the whole family is on its way, and another one is wanted after it.
    pub(super) flushing: AtomicU8,
}

#[derive(Debug, Default)]
pub(super) struct FamilyTally {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) loads: AtomicU64,
    pub(super) joins: AtomicU64,
    pub(super) refused_stores: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub(super) uncached: AtomicU64,
    pub(super) invalidations: AtomicU64,
    pub(super) flushes: AtomicU64,
}

#[derive(Debug)]
struct CompiledTrigger {
    pattern: Pattern,
    /// For each placeholder of the key, where its value stands in the payload.
    paths: Vec<String>,
    /// For each placeholder of the key, which of the channel's placeholders can fill it.
    captures: Vec<Option<usize>>,
}

/// What an event makes out of date.
#[derive(Debug, Default)]
pub(crate) struct Outdated<'f> {
    /// Keys without the deployment's prefix, with their family.
    pub(crate) keys: Vec<(&'f Family, String)>,
    /// Families of which the event does not say which keys.
    pub(crate) families: Vec<&'f Family>,
}

#[derive(Debug, Default)]
pub(crate) struct Families(Vec<Family>);

impl Families {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        registry.functions.iter().map(|descriptor| Family::new(descriptor)).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Family> {
        self.0.iter()
    }

    pub(crate) fn get(&self, descriptor: &'static FunctionDescriptor) -> Option<&Family> {
        self.0.iter().find(|family| std::ptr::eq(family.descriptor, descriptor))
    }

    /// The patterns of all triggers, each once.
    pub(crate) fn patterns(&self) -> Vec<Pattern> {
        let mut patterns: Vec<_> = self
            .0
            .iter()
            .flat_map(|family| &family.triggers)
            .map(|trigger| trigger.pattern.clone())
            .collect();
        patterns.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        patterns.dedup();
        patterns
    }

    /// What an event on `channel` makes out of date.
    pub(crate) fn outdated_by(&self, channel: &str, payload: &[u8]) -> Outdated<'_> {
        let mut outdated = Outdated::default();
        let mut captures = Captures::new();
        for family in &self.0 {
            for trigger in &family.triggers {
                if !trigger.pattern.captures(channel, &mut captures) {
                    continue;
                }
                // Text that is no JSON at all is found nothing in.
                let json = std::str::from_utf8(payload).unwrap_or_default();
                match family.derive(trigger, channel, &captures, json) {
                    Some(keys) => outdated.keys.extend(keys.into_iter().map(|key| (family, key))),
                    None => outdated.families.push(family),
                }
            }
        }
        outdated
    }
}

impl Family {
    fn new(descriptor: &'static FunctionDescriptor) -> Result<Self> {
        let at = |error: Error| {
            error.context(format_args!("cached function `{}` at {}", descriptor.id, descriptor.location))
        };
        let key = KeyTemplate::parse(descriptor.key).map_err(at)?;
        if !descriptor.invalidate_on.is_empty() && !key.has_literal_head() {
            return Err(at(Error::new(
                ErrorKind::Registration,
                format!(
                    "the key {:?} begins with a placeholder, so that an event which does not say which value it means would remove every key there is; give the function a `prefix`",
                    descriptor.key
                ),
            )));
        }
        let mut triggers = Vec::new();
        for trigger in descriptor.invalidate_on {
            triggers.extend(compile(trigger, &key).map_err(at)?);
        }
        Ok(Self {
            descriptor,
            ttl: descriptor.ttl,
            key,
            triggers,
            tally: FamilyTally::default(),
            flushing: AtomicU8::new(0),
        })
    }

    /// The family of values that are loaded by hand: no function, no events.
    pub(crate) fn by_hand(ttl: Duration) -> Self {
        static BY_HAND: FunctionDescriptor = FunctionDescriptor {
            id: "(by hand)",
            key: "(by hand)",
            ttl: Duration::ZERO,
            jitter: 0.1,
            cache_none: None,
            stale: None,
            wait: None,
            local: None,
            invalidate_on: &[],
            location: Location { file: file!(), line: line!() },
        };
        Self {
            descriptor: &BY_HAND,
            ttl,
            key: KeyTemplate::default(),
            triggers: Vec::new(),
            tally: FamilyTally::default(),
            flushing: AtomicU8::new(0),
        }
    }

    /// The keys that the event names; `None` if it does not say.
    fn derive(
        &self,
        trigger: &CompiledTrigger,
        channel: &str,
        captures: &Captures,
        json: &str,
    ) -> Option<Vec<String>> {
        let names = self.key.names().count();
        if names == 0 {
            return Some(vec![self.key.fill(std::iter::empty())]);
        }
        let value_at = |place: usize, path: &str| match (json::find(json, path), trigger.captures[place]) {
            (Found::Nothing, Some(capture)) => {
                Found::Scalars(vec![channel[captures[capture].clone()].to_owned()])
            }
            (found, _) => found,
        };
        let current = (0..names).map(|place| value_at(place, &trigger.paths[place]));
        let mut keys = self.combine(current)?;
        // An update that says what was there before makes the old key out of date as well.
        let mut had_previous = false;
        let previous: Vec<_> = (0..names)
            .map(|place| match json::find(json, &format!("previous.{}", trigger.paths[place])) {
                Found::Nothing => value_at(place, &trigger.paths[place]),
                found => {
                    had_previous = true;
                    found
                }
            })
            .collect();
        if had_previous {
            keys.extend(self.combine(previous.into_iter())?);
        }
        Some(keys)
    }

    /// Every combination of the values; no key if one of them is null, `None` if one of them is unknown.
    fn combine(&self, values: impl Iterator<Item = Found>) -> Option<Vec<String>> {
        let mut combinations = vec![Vec::new()];
        let mut null = false;
        for found in values {
            let texts = match found {
                Found::Nothing => return None,
                Found::Null => {
                    null = true;
                    continue;
                }
                Found::Scalars(texts) => texts,
            };
            if combinations.len().saturating_mul(texts.len()) > MOST_KEYS {
                return None;
            }
            combinations = combinations
                .into_iter()
                .flat_map(|so_far: Vec<String>| {
                    texts.iter().map(move |text| so_far.iter().cloned().chain([text.clone()]).collect())
                })
                .collect();
        }
        if null {
            return Some(Vec::new());
        }
        Some(combinations.iter().map(|values| self.key.fill(values.iter().map(String::as_str))).collect())
    }
}

fn compile(trigger: &Trigger, key: &KeyTemplate) -> Result<Vec<CompiledTrigger>> {
    let selected = |name: &str| {
        trigger.select.iter().find(|(placeholder, _)| *placeholder == name).map(|(_, path)| *path)
    };
    let compiled = |pattern: Pattern, paths: Vec<String>| {
        let capture_of = |name: &str| {
            let name = selected(name).unwrap_or(name);
            pattern.names().position(|placeholder| placeholder == name)
        };
        let captures = key.names().map(capture_of).collect();
        CompiledTrigger { pattern, paths, captures }
    };
    match trigger.on {
        TriggerOn::Channel(channel) => {
            let paths = key.names().map(|name| selected(name).unwrap_or(name).to_owned()).collect();
            Ok(vec![compiled(Pattern::parse(channel)?, paths)])
        }
        TriggerOn::Model(model, ops) => {
            let paths: Vec<String> = key
                .names()
                .map(|name| {
                    let field = selected(name).unwrap_or(name);
                    path_of(model, field).map(str::to_owned).ok_or_else(|| {
                        Error::new(
                            ErrorKind::Registration,
                            format!(
                                "the events of `{}` do not carry `{field}`, which the key needs",
                                model.name
                            ),
                        )
                    })
                })
                .collect::<Result<_>>()?;
            let channels = ops.iter().flat_map(|op| model.channels(*op).unwrap_or_default());
            channels.map(|channel| Ok(compiled(Pattern::parse(channel)?, paths.clone()))).collect()
        }
    }
}

fn path_of(model: &'static ModelDescriptor, field: &str) -> Option<&'static str> {
    model.payload.iter().find(|carried: &&PayloadField| carried.field == field).map(|carried| carried.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(key: &'static str, triggers: &'static [Trigger]) -> Families {
        let descriptor = Box::leak(Box::new(FunctionDescriptor {
            id: "f",
            key,
            ttl: Duration::from_secs(1),
            jitter: 0.1,
            cache_none: None,
            stale: None,
            wait: None,
            local: None,
            invalidate_on: triggers,
            location: Location { file: "f.rs", line: 1 },
        }));
        Families(vec![Family::new(descriptor).unwrap()])
    }

    #[test]
    fn a_key_that_could_be_anybodys_is_refused() {
        let descriptor = |key, invalidate_on| -> &'static FunctionDescriptor {
            let (ttl, location) = (Duration::from_secs(1), Location { file: "f.rs", line: 7 });
            let (jitter, cache_none) = (0.1, None);
            Box::leak(Box::new(FunctionDescriptor {
                id: "f",
                key,
                ttl,
                jitter,
                cache_none,
                stale: None,
                wait: None,
                local: None,
                invalidate_on,
                location,
            }))
        };
        const ON: &[Trigger] = &[Trigger { on: TriggerOn::Channel("camera.updated"), select: &[] }];
        let error = Family::new(descriptor("{id}", ON)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Registration);
        assert!(error.to_string().contains("f.rs:7") && error.to_string().contains("`prefix`"), "{error}");
        assert!(Family::new(descriptor("{id}", &[])).is_ok(), "no event can flush it");
        assert!(Family::new(descriptor("camera:{id}", ON)).is_ok());
    }

    /// The keys, or "?" for a family whose keys cannot be derived.
    fn outdated(families: &Families, channel: &str, payload: &str) -> Vec<String> {
        let outdated = families.outdated_by(channel, payload.as_bytes());
        outdated
            .keys
            .into_iter()
            .map(|(_, key)| key)
            .chain(outdated.families.iter().map(|_| "?".to_owned()))
            .collect()
    }

    #[test]
    fn keys_come_from_fields_paths_and_the_channel() {
        let by_field =
            family("camera:mac:{mac}", &[Trigger { on: TriggerOn::Channel("camera.updated"), select: &[] }]);
        for (payload, expected) in [
            (r#"{"mac":"AA:BB"}"#, &["camera:mac:AA:BB"][..]),
            (r#"{"mac":9007199254740993}"#, &["camera:mac:9007199254740993"]),
            (r#"{"mac":["a","b"]}"#, &["camera:mac:a", "camera:mac:b"]),
            (r#"{"mac":[]}"#, &[]),
            (r#"{"mac":null}"#, &[]),
            (r#"{"mac":{}}"#, &["?"]),
            (r#"{"other":1}"#, &["?"]),
            (r#"{"mac":"new","previous":{"mac":"old"}}"#, &["camera:mac:new", "camera:mac:old"]),
            ("not json", &["?"]),
        ] {
            assert_eq!(outdated(&by_field, "camera.updated", payload), expected, "{payload}");
        }
        assert!(outdated(&by_field, "camera.created", r#"{"mac":"x"}"#).is_empty());

        let by_path = family(
            "m:{monitor}:{slug}",
            &[Trigger {
                on: TriggerOn::Channel("monitor:update"),
                select: &[("monitor", "resource_id"), ("slug", "metadata.slug")],
            }],
        );
        let payload = r#"{"resource_id":"7","metadata":{"slug":"front"}}"#;
        assert_eq!(outdated(&by_path, "monitor:update", payload), ["m:7:front"]);

        let by_channel = family(
            "t:{tenant}",
            &[Trigger { on: TriggerOn::Channel("tenant:{tenant}:update"), select: &[] }],
        );
        assert_eq!(outdated(&by_channel, "tenant:42:update", "{}"), ["t:42"]);
        assert_eq!(outdated(&by_channel, "tenant:42:update", r#"{"tenant":"7"}"#), ["t:7"]);

        let constant = family("users:active", &[Trigger { on: TriggerOn::Channel("user.*"), select: &[] }]);
        assert_eq!(outdated(&constant, "user.created", "not json"), ["users:active"]);
    }
}
