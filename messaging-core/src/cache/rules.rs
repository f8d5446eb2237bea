//! From an event to the keys that it makes out of date. Definitions travel between processes as JSON, so that whoever
//! publishes an event knows what it makes out of date elsewhere. Pure computation; no I/O.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::KeyTemplate;
use super::tally::Tally;
use crate::channel::{Captures, Pattern};
use crate::error::{Error, ErrorKind, Result};
use crate::json::{self, Found};
use crate::registry::{FunctionDescriptor, ModelDescriptor, PayloadField, Trigger, TriggerOn};

/// More keys than this from one event count as "all of them".
const MOST_KEYS: usize = 1_000;

/// A cached function, as it is written down for other processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    /// The function's id.
    id: String,
    /// The deployment's prefix of keys, and of channels.
    cache_prefix: String,
    channel_prefix: String,
    key: String,
    /// How long, in milliseconds, a value is kept at most.
    keep_ms: u64,
    on: Vec<On>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct On {
    pattern: String,
    /// For each placeholder of the key, in order: where its value stands in the payload.
    paths: Vec<String>,
    /// The same: which placeholder of the channel stands in for it.
    names: Vec<String>,
}

impl Definition {
    /// # Errors
    /// [`ErrorKind::Registration`] if an event of a model does not carry what the key needs, or a pattern is not valid.
    pub(crate) fn of(
        descriptor: &FunctionDescriptor,
        cache_prefix: &str,
        channel_prefix: &str,
    ) -> Result<Self> {
        let key = KeyTemplate::parse(descriptor.key)?;
        let mut on = Vec::new();
        for trigger in descriptor.invalidate_on {
            on.extend(written(trigger, &key)?);
        }
        let keep = descriptor.ttl.saturating_add(descriptor.stale.unwrap_or_default());
        Ok(Self {
            id: descriptor.id.to_owned(),
            cache_prefix: cache_prefix.to_owned(),
            channel_prefix: channel_prefix.to_owned(),
            key: descriptor.key.to_owned(),
            keep_ms: u64::try_from(keep.as_millis()).unwrap_or(u64::MAX),
            on,
        })
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can be written")
    }

    /// # Errors
    /// If it is of a version that writes more than this one understands.
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        json::decode(text.as_bytes())
    }

    /// The template of its keys.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn keep(&self) -> Duration {
        Duration::from_millis(self.keep_ms)
    }
}

fn written(trigger: &Trigger, key: &KeyTemplate) -> Result<Vec<On>> {
    let selected = |name: &str| {
        trigger.select.iter().find(|(placeholder, _)| *placeholder == name).map(|(_, path)| *path)
    };
    let names: Vec<_> = key.names().map(|name| selected(name).unwrap_or(name).to_owned()).collect();
    match trigger.on {
        TriggerOn::Channel(channel) => {
            Ok(vec![On { pattern: channel.to_owned(), paths: names.clone(), names }])
        }
        TriggerOn::Model(model, ops) => {
            let path = |field: &String| {
                path_of(model, field).map(str::to_owned).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Registration,
                        format!("the events of `{}` do not carry `{field}`, which the key needs", model.name),
                    )
                })
            };
            let paths: Vec<_> = names.iter().map(path).collect::<Result<_>>()?;
            let channels = ops.iter().flat_map(|op| model.channels(*op).unwrap_or_default());
            let on = |channel: &&str| On {
                pattern: (*channel).to_owned(),
                paths: paths.clone(),
                names: names.clone(),
            };
            Ok(channels.map(on).collect())
        }
    }
}

fn path_of(model: &'static ModelDescriptor, field: &str) -> Option<&'static str> {
    model.payload.iter().find(|carried: &&PayloadField| carried.field == field).map(|carried| carried.path)
}

/// A definition, ready for use.
pub(crate) struct Rules {
    /// The function's id and the definition's own, so that two versions of a function are two.
    pub(crate) name: String,
    pub(crate) definition: Definition,
    pub(crate) key: KeyTemplate,
    triggers: Vec<CompiledTrigger>,
    pub(crate) tally: Tally,
    /// Whether a flush of the whole family is on its way, and another one is wanted after it.
    pub(super) flushing: AtomicU8,
}

#[derive(Debug)]
struct CompiledTrigger {
    pattern: Pattern,
    paths: Vec<String>,
    /// For each placeholder of the key, which of the channel's placeholders can fill it.
    captures: Vec<Option<usize>>,
}

impl Rules {
    pub(crate) fn new(definition: Definition) -> Result<Arc<Self>> {
        let key = KeyTemplate::parse(&definition.key)?;
        let mut triggers = Vec::with_capacity(definition.on.len());
        for On { pattern, paths, names } in &definition.on {
            let pattern = Pattern::parse(pattern)?;
            let capture_of = |name: &String| pattern.names().position(|placeholder| placeholder == name);
            let captures: Vec<_> = names.iter().map(capture_of).collect();
            if paths.len() != key.names().count() || captures.len() != paths.len() {
                let text = format!("the definition of `{}` does not fit its key", definition.id);
                return Err(Error::new(ErrorKind::Registration, text));
            }
            triggers.push(CompiledTrigger { pattern, paths: paths.clone(), captures });
        }
        let digest = sha1_smol::Sha1::from(definition.to_json()).digest().to_string();
        Ok(Arc::new(Self {
            name: format!("{}#{}", definition.id, &digest[..12]),
            tally: Tally::of(&definition.id),
            definition,
            key,
            triggers,
            flushing: AtomicU8::new(0),
        }))
    }

    /// The function's id.
    pub(crate) fn id(&self) -> &str {
        &self.definition.id
    }

    /// Whether the events of channels with this prefix are meant.
    pub(crate) fn is_of(&self, channel_prefix: &str) -> bool {
        self.definition.channel_prefix == channel_prefix
    }

    pub(crate) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.triggers.iter().map(|trigger| &trigger.pattern)
    }

    /// Whether `key`, as it is on the backend, can be one of this family's.
    pub(crate) fn could_be(&self, key: &str) -> bool {
        let key = match self.definition.cache_prefix.as_str() {
            "" => Some(key),
            prefix => key.strip_prefix(prefix).and_then(|key| key.strip_prefix(':')),
        };
        key.is_some_and(|key| self.key.could_be(key))
    }

    /// The glob that matches all keys of this family on the backend, and perhaps others.
    pub(crate) fn glob(&self) -> String {
        let mut glob = String::new();
        if !self.definition.cache_prefix.is_empty() {
            crate::channel::escape_glob(&self.definition.cache_prefix, &mut glob);
            glob.push(':');
        }
        glob.push_str(&self.key.glob());
        glob
    }

    /// A key as it is on the backend.
    fn prefixed(&self, key: String) -> String {
        match self.definition.cache_prefix.as_str() {
            "" => key,
            prefix => format!("{prefix}:{key}"),
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
        let names = trigger.paths.len();
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

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What an event makes out of date.
#[derive(Debug, Default)]
pub(crate) struct Outdated {
    /// Keys as they are on the backend, with their family.
    pub(crate) keys: Vec<(Arc<Rules>, String)>,
    /// Families of which the event does not say which keys.
    pub(crate) families: Vec<Arc<Rules>>,
}

impl Outdated {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.families.is_empty()
    }
}

/// Several families, by the channels of their events.
#[derive(Debug, Default)]
pub(crate) struct Book {
    rules: Vec<Arc<Rules>>,
    /// Which trigger of which family.
    exact: HashMap<String, Vec<(usize, usize)>>,
    patterns: Vec<(usize, usize)>,
}

impl Book {
    pub(crate) fn new(rules: Vec<Arc<Rules>>) -> Self {
        let mut book = Self { rules, ..Self::default() };
        for (family, rules) in book.rules.iter().enumerate() {
            for (number, trigger) in rules.triggers.iter().enumerate() {
                match &trigger.pattern {
                    Pattern::Exact(channel) => {
                        book.exact.entry(channel.to_string()).or_default().push((family, number));
                    }
                    _ => book.patterns.push((family, number)),
                }
            }
        }
        book
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Rules>> {
        self.rules.iter()
    }

    fn candidates(&self, channel: &str) -> impl Iterator<Item = (&Arc<Rules>, &CompiledTrigger)> {
        let exact = self.exact.get(channel).into_iter().flatten();
        exact.chain(&self.patterns).map(|(family, trigger)| {
            let rules = &self.rules[*family];
            (rules, &rules.triggers[*trigger])
        })
    }

    /// Whether an event on `channel` makes anything out of date.
    pub(crate) fn concerns(&self, channel: &str) -> bool {
        self.candidates(channel).any(|(_, trigger)| trigger.pattern.matches(channel))
    }

    /// What an event on `channel` makes out of date.
    pub(crate) fn outdated_by(&self, channel: &str, payload: &[u8]) -> Outdated {
        let mut outdated = Outdated::default();
        if self.patterns.is_empty() && !self.exact.contains_key(channel) {
            return outdated;
        }
        let mut captures = Captures::new();
        // Text that is no JSON at all is found nothing in.
        let json = std::str::from_utf8(payload).unwrap_or_default();
        for (rules, trigger) in self.candidates(channel) {
            if !trigger.pattern.captures(channel, &mut captures) {
                continue;
            }
            match rules.derive(trigger, channel, &captures, json) {
                Some(keys) => {
                    let keys = keys.into_iter().map(|key| (Arc::clone(rules), rules.prefixed(key)));
                    outdated.keys.extend(keys);
                }
                None => outdated.families.push(Arc::clone(rules)),
            }
        }
        outdated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Location;

    fn family(key: &'static str, triggers: &'static [Trigger]) -> Book {
        let descriptor = FunctionDescriptor {
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
        };
        // As another process knows it.
        let written = Definition::of(&descriptor, "", "").unwrap().to_json();
        Book::new(vec![Rules::new(Definition::from_json(&written).unwrap()).unwrap()])
    }

    /// The keys, or "?" for a family whose keys cannot be derived.
    fn outdated(families: &Book, channel: &str, payload: &str) -> Vec<String> {
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
