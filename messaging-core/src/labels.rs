//! What a channel is called where it is counted: by its template, never by its own name, of which there may be one for each
//! user. Also counts who is subscribed in this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::channel::Pattern;
use crate::error::Error;
use crate::meter::{self, Gauge};
use crate::registry::Registry;

/// The channels of no template that this process knows.
pub(crate) const OTHER: &str = "other";

/// The templates and channels that are in this program, and what is counted for each.
#[derive(Debug)]
pub(crate) struct Labels {
    /// Channels without placeholders that somebody has declared.
    exact: HashMap<String, Published>,
    patterns: Vec<(Pattern, Published)>,
    other: Published,
}

/// What a channel is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label<'l> {
    pub(crate) text: &'l str,
    published: &'l Published,
}

/// The messages on channels of one label; counted from the first on.
type Published = OnceLock<meter::Counter>;

impl Labels {
    /// Of everything that attributes declare, and of the channels that the configuration makes durable.
    pub(crate) fn new<'p>(registry: &Registry, durable: impl Iterator<Item = &'p Pattern>) -> Self {
        let of_models = registry.models.iter().flat_map(|model| model.publish.iter());
        let declared = registry
            .channels
            .iter()
            .map(|channel| channel.template)
            .chain(of_models.flat_map(|(_, channels)| channels.iter().copied()))
            .chain(registry.handlers.iter().flat_map(|handler| handler.channels.iter().copied()))
            .chain(registry.handlers.iter().filter_map(|handler| handler.dead_letter));
        let declared: Vec<_> = declared.filter_map(|text| Pattern::parse(text).ok()).collect();
        let (mut exact, mut templates, mut globs) = (HashMap::new(), Vec::new(), Vec::new());
        for pattern in durable.cloned().chain(declared) {
            let known = match &pattern {
                Pattern::Exact(channel) => {
                    exact.insert(channel.as_str().to_owned(), Published::new());
                    continue;
                }
                Pattern::Template(_) => &mut templates,
                _ => &mut globs,
            };
            if !known.iter().any(|(other, _): &(Pattern, _)| other.as_str() == pattern.as_str()) {
                known.push((pattern, Published::new()));
            }
        }
        // A template says more than a glob that covers it.
        templates.append(&mut globs);
        Self { exact, patterns: templates, other: Published::new() }
    }

    /// What a channel is called, and what is counted for it.
    pub(crate) fn find(&self, channel: &str) -> Label<'_> {
        if let Some((text, published)) = self.exact.get_key_value(channel) {
            return Label { text, published };
        }
        let matching = self.patterns.iter().find(|(pattern, _)| pattern.matches(channel));
        let other = Label { text: OTHER, published: &self.other };
        matching.map_or(other, |(pattern, published)| Label { text: pattern.as_str(), published })
    }

    /// What is called that somebody listens to.
    pub(crate) fn of_pattern<'p>(&'p self, pattern: &'p Pattern) -> &'p str {
        match pattern {
            Pattern::Exact(channel) => self.find(channel).text,
            pattern => pattern.as_str(),
        }
    }
}

impl Label<'_> {
    /// A message on such a channel was published, or was not.
    pub(crate) fn published(&self, error: Option<&Error>) {
        match error {
            None => self.published.get_or_init(|| meter::published(self.text)).increment(1),
            Some(error) => {
                let reason = format!("{:?}", error.kind()).to_lowercase();
                meter::count(meter::PUBLISH_FAILURES, &[("channel", self.text), ("reason", &reason)], 1);
            }
        }
    }
}

/// Who is subscribed in this process, by label.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<BTreeMap<String, Counted>>);

#[derive(Debug)]
struct Counted {
    count: usize,
    gauge: Gauge,
}

/// One subscriber, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Subscribed {
    of: Arc<Subscribers>,
    label: String,
}

impl Subscribers {
    pub(crate) fn enter(self: &Arc<Self>, label: &str) -> Subscribed {
        let mut all = self.lock();
        let counted = all.entry(label.to_owned()).or_insert_with(|| Counted {
            count: 0,
            gauge: Gauge::of(meter::SUBSCRIBERS, &[("channel", label)]),
        });
        counted.count += 1;
        counted.gauge.add(1.0);
        Subscribed { of: Arc::clone(self), label: label.to_owned() }
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.lock().iter().map(|(label, counted)| (label.clone(), counted.count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let mut all = self.of.lock();
        if let Some(counted) = all.get_mut(&self.label) {
            counted.gauge.add(-1.0);
            counted.count -= 1;
            if counted.count == 0 {
                all.remove(&self.label);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_declared_has_a_name() {
        let durable = ["orders.*", "user:{id}", "audit"].map(|text| Pattern::parse(text).unwrap());
        let labels = Labels::new(&Registry::empty(), durable.iter());
        for (channel, label) in [
            ("orders.created", "orders.*"),
            ("user:42", "user:{id}"),
            ("audit", "audit"),
            ("chat:7", "other"),
        ] {
            assert_eq!(labels.find(channel).text, label);
            assert_eq!(labels.of_pattern(&Pattern::parse(channel).unwrap()), label);
        }
        assert_eq!(labels.of_pattern(&Pattern::parse("chat:{room}").unwrap()), "chat:{room}");
    }

    #[test]
    fn subscribers_count_for_as_long_as_they_live() {
        let subscribers = Arc::new(Subscribers::default());
        let (first, second) = (subscribers.enter("a"), subscribers.enter("a"));
        drop(first);
        assert_eq!(subscribers.counts(), BTreeMap::from([("a".to_owned(), 1)]));
        drop(second);
        assert!(subscribers.counts().is_empty());
    }
}
