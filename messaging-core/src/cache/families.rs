//! The cached functions of this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::forget;
use super::local::LocalLayer;
use super::rules::{Book, Definition, Rules};
use crate::channel::Pattern;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::registry::{FunctionDescriptor, Location, Registry};

/// One cached function.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) descriptor: &'static FunctionDescriptor,
    pub(crate) rules: Arc<Rules>,
    pub(crate) local: Option<LocalLayer>,
    /// One more than the epoch of the listener in which everything has been heard; 0 for none.
    covered: AtomicU64,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Families {
    list: Vec<Family>,
    by_address: HashMap<usize, usize>,
    pub(crate) book: Book,
    /// Values that are loaded by hand: no function, no events.
    pub(crate) by_hand: Family,
}

static BY_HAND: FunctionDescriptor = FunctionDescriptor {
    id: "(by hand)",
    key: "(by hand)",
    ttl: std::time::Duration::ZERO,
    jitter: 0.1,
    cache_none: None,
    stale: None,
    wait: None,
    local: None,
    invalidate_on: &[],
    location: Location { file: file!(), line: line!() },
};

impl Families {
    pub(crate) fn new(registry: &Registry, config: &Config) -> Result<Self> {
        let family = |descriptor: &&'static FunctionDescriptor| Family::new(descriptor, config);
        let list: Vec<_> = registry.functions.iter().map(family).collect::<Result<_>>()?;
        let address =
            |(place, family): (usize, &Family)| (std::ptr::from_ref(family.descriptor).addr(), place);
        Ok(Self {
            by_address: list.iter().enumerate().map(address).collect(),
            book: Book::new(list.iter().map(|family| Arc::clone(&family.rules)).collect()),
            list,
            by_hand: Family::new(&BY_HAND, config)?,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Family> {
        self.list.iter()
    }

    pub(crate) fn get(&self, descriptor: &'static FunctionDescriptor) -> Option<&Family> {
        let place = self.by_address.get(&std::ptr::from_ref(descriptor).addr())?;
        self.list.get(*place)
    }

    /// As [`get`](Self::get), beginning where it was the last time.
    pub(crate) fn get_at(
        &self,
        descriptor: &'static FunctionDescriptor,
        place: &AtomicUsize,
    ) -> Option<&Family> {
        let known = self.list.get(place.load(Ordering::Relaxed));
        if let Some(family) = known.filter(|family| std::ptr::eq(family.descriptor, descriptor)) {
            return Some(family);
        }
        let found = *self.by_address.get(&std::ptr::from_ref(descriptor).addr())?;
        place.store(found, Ordering::Relaxed);
        self.list.get(found)
    }

    /// Those whose values events make out of date.
    pub(crate) fn with_events(&self) -> impl Iterator<Item = &Family> {
        self.list.iter().filter(|family| family.has_events())
    }

    /// Those that keep values in the process.
    pub(crate) fn with_local(&self) -> impl Iterator<Item = (&Family, &LocalLayer)> {
        self.list.iter().filter_map(|family| Some((family, family.local.as_ref()?)))
    }

    /// The patterns of all events, each once.
    pub(crate) fn patterns(&self) -> Vec<Pattern> {
        let mut patterns: Vec<_> =
            self.list.iter().flat_map(|family| family.rules.patterns().cloned()).collect();
        patterns.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        patterns.dedup();
        patterns
    }
}

impl Family {
    fn new(descriptor: &'static FunctionDescriptor, config: &Config) -> Result<Self> {
        let at = |error: Error| {
            error.context(format_args!("cached function `{}` at {}", descriptor.id, descriptor.location))
        };
        let definition = Definition::of(descriptor, &config.cache_prefix, &config.channel_prefix);
        let rules = definition.and_then(Rules::new).map_err(at)?;
        if !descriptor.invalidate_on.is_empty() && !rules.key.has_literal_head() {
            return Err(at(Error::new(
                ErrorKind::Registration,
                format!(
                    "the key {:?} begins with a placeholder, so that an event which does not say which value it means would remove every key there is; give the function a `prefix`",
                    descriptor.key
                ),
            )));
        }
        Ok(Self {
            descriptor,
            rules,
            local: descriptor.local.map(LocalLayer::new),
            covered: AtomicU64::new(0),
        })
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.descriptor.invalidate_on.is_empty()
    }

    /// Whether everything has been heard in this epoch that makes values out of date.
    pub(super) fn is_covered(&self, epoch: u64) -> bool {
        self.covered.load(Ordering::Acquire) == epoch + 1
    }

    /// Whether all of it is being removed, because an event did not say which value it meant.
    pub(super) fn is_flushing(&self) -> bool {
        self.rules.flushing.load(Ordering::SeqCst) != forget::IDLE
    }

    /// Returns whether that is news.
    pub(super) fn cover(&self, epoch: u64) -> bool {
        self.covered.fetch_max(epoch + 1, Ordering::AcqRel) < epoch + 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::{Trigger, TriggerOn};

    fn new(descriptor: &'static FunctionDescriptor) -> Result<Family> {
        Family::new(descriptor, &Config::new("memory://").unwrap())
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
        let error = new(descriptor("{id}", ON)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Registration);
        assert!(error.to_string().contains("f.rs:7") && error.to_string().contains("`prefix`"), "{error}");
        assert!(new(descriptor("{id}", &[])).is_ok(), "no event can flush it");
        assert!(new(descriptor("camera:{id}", ON)).is_ok());
    }
}
